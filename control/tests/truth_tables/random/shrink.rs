//! A cluster that is answered wrongly, without what does not matter to that.

use serde_json::Value;

use super::expect;
use crate::report::{Report, Way};
use crate::scene::Scene;
use crate::switch::Switch;

/// Kinds that are what policies are about, and stay.
const STAY: [&str; 5] = ["Node", "Namespace", "Pod", "Endpoint", "ServiceAccount"];

/// The policies that are left when no object and no rule can go without the answers coming right, and the first wrong
/// answer then. Empty when it is only wrong after what was before.
pub(super) fn told(scene: &Scene) -> String {
    let mut least = scene.clone();
    if first_wrong(&mut least).is_none() {
        return "no wrong answer when the state comes alone".to_owned();
    }
    while let Some(smaller) = candidates(&least.objects).into_iter().find_map(|objects| {
        let mut smaller = Scene { objects, ..least.clone() };
        first_wrong(&mut smaller).is_some().then_some(smaller)
    }) {
        least = smaller;
    }
    let wrong = first_wrong(&mut least).unwrap_or_default();
    let policies = least.objects.iter().filter(|object| !STAY.iter().any(|kind| object["kind"] == *kind));
    let policies: Vec<_> = policies.map(Value::to_string).collect();
    format!("{wrong}\nwith no more than\n{}", policies.join("\n"))
}

/// The first wrong answer to a state that comes alone.
fn first_wrong(scene: &mut Scene) -> Option<String> {
    expect(scene);
    let (mut report, mut switch) = (Report::default(), Switch::default());
    switch.apply(&scene.objects);
    switch.judge(scene, &mut report);
    switch.send(Way::Packets, scene, &mut report);
    report.first_told().map(str::to_owned)
}

/// The objects without one of them, or without one rule of one of them.
fn candidates(objects: &[Value]) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        if STAY.iter().any(|kind| object["kind"] == *kind) {
            continue;
        }
        // A tier has to be there for its policies.
        let is_used =
            |other: &Value| object["kind"] == "Tier" && other["spec"]["tier"] == object["metadata"]["name"];
        if !objects.iter().any(is_used) {
            let mut without = objects.to_vec();
            without.remove(index);
            all.push(without);
        }
        for direction in ["ingress", "egress"] {
            for rule in 0..object["spec"][direction].as_array().map_or(0, Vec::len) {
                let mut without = objects.to_vec();
                if let Some(rules) = without[index]["spec"][direction].as_array_mut() {
                    rules.remove(rule);
                }
                all.push(without);
            }
        }
    }
    all
}
