//! Cases of cyclonus: states that follow one another, and the operations that lead from one to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;
use serde_json::{Value, json};

use super::check_alone;
use crate::report::{Report, Way};
use crate::scene::{self, Expected, PodSpec, Probe, SOURCE_PORT, Scene, Who, protocol_number};
use crate::switch::Switch;

const NODES: [&str; 3] = ["n0", "n1", "n2"];

#[derive(Deserialize)]
pub(super) struct Case {
    id: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    actions: Vec<String>,
    namespaces: Vec<Namespace>,
    pods: Vec<Pod>,
    policies: Vec<Value>,
    order: Vec<String>,
    expected: BTreeMap<String, Vec<String>>,
    ingress: BTreeMap<String, Vec<String>>,
    egress: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize, Clone)]
struct Namespace {
    name: String,
    labels: Value,
}

#[derive(Deserialize, Clone)]
struct Pod {
    namespace: String,
    name: String,
    labels: Value,
    ip: IpAddr,
    ports: Vec<Value>,
}

impl Pod {
    fn spec(&self) -> PodSpec<'_> {
        PodSpec {
            namespace: &self.namespace,
            name: &self.name,
            labels: &self.labels,
            ports: &self.ports,
            // Pods of one namespace are spread over all nodes.
            node: NODES[usize::from(self.name.bytes().last().unwrap_or_default()) % NODES.len()],
            address: self.ip,
            host_network: false,
            service_account: "",
        }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The cluster as the operations leave it.
#[derive(Default)]
struct Changing {
    namespaces: BTreeMap<String, Value>,
    pods: BTreeMap<String, Pod>,
    policies: BTreeMap<(String, String), Value>,
    /// Numbers of pods, which they keep.
    numbers: BTreeMap<String, usize>,
}

impl Changing {
    fn objects(&mut self) -> Vec<Value> {
        let mut objects: Vec<_> =
            NODES.iter().enumerate().map(|(number, name)| scene::node(number, name, &json!({}))).collect();
        objects.extend(self.namespaces.iter().map(|(name, labels)| scene::namespace(name, labels)));
        for (path, pod) in &self.pods {
            let next = self.numbers.len();
            let number = *self.numbers.entry(path.clone()).or_insert(next);
            objects.extend(pod.spec().objects(number));
        }
        objects.extend(self.policies.values().cloned());
        objects
    }

    /// Applies an operation: an object with one field, named for what is done. What it does not say of a pod, its
    /// address and ports, is as in `step`, where it leads to.
    fn act(&mut self, action: &str, step: &Step) {
        let action: Value = serde_json::from_str(action).unwrap();
        let (name, what) = action.as_object().unwrap().iter().next().unwrap();
        let text = |field: &str| what[field].as_str().unwrap_or_default().to_owned();
        let path = format!("{}/{}", text("Namespace"), text("Pod"));
        match name.as_str() {
            "CreatePolicy" | "UpdatePolicy" => self.put_policy(&what["Policy"]),
            "DeletePolicy" => drop(self.policies.remove(&(text("Namespace"), text("Name"))).unwrap()),
            "CreateNamespace" | "SetNamespaceLabels" => {
                self.namespaces.insert(text("Namespace"), what["Labels"].clone());
            }
            "DeleteNamespace" => {
                let namespace = text("Namespace");
                self.namespaces.remove(&namespace).unwrap();
                self.pods.retain(|_, pod| pod.namespace != namespace);
                self.policies.retain(|(of, _), _| *of != namespace);
            }
            "CreatePod" => {
                let pod = step.pods.iter().find(|pod| pod.path() == path).unwrap();
                let created = Pod { labels: what["Labels"].clone(), ..pod.clone() };
                assert!(self.pods.insert(path, created).is_none());
            }
            "DeletePod" => drop(self.pods.remove(&path).unwrap()),
            "SetPodLabels" => self.pods.get_mut(&path).unwrap().labels = what["Labels"].clone(),
            other => panic!("an operation that is not known: {other}"),
        }
    }

    fn put_policy(&mut self, policy: &Value) {
        let text = |field: &str| policy["metadata"][field].as_str().unwrap().to_owned();
        let mut object = policy.clone();
        // Operations tell of policies, and leave out that they are ones.
        object["apiVersion"] = "networking.k8s.io/v1".into();
        object["kind"] = "NetworkPolicy".into();
        self.policies.insert((text("namespace"), text("name")), object);
    }

    /// The probes of a scene between pods that are there, all of which are allowed while there is no policy.
    fn unisolated(&self, scene: &Scene) -> Scene {
        assert!(self.policies.is_empty());
        let is_there = |end: usize| match &scene.ends[end].who {
            Who::Pod { namespace, name } => self.pods.contains_key(&format!("{namespace}/{name}")),
            Who::Node | Who::World => false,
        };
        let probes = scene.probes.iter().filter(|probe| is_there(probe.from) && is_there(probe.to));
        let allowed = Expected { sides: Some([true; 2]), ..Expected::new(true) };
        let probes = probes.map(|probe| Probe { expected: allowed, ..*probe }).collect();
        Scene { name: format!("{} without a policy", scene.name), probes, ..scene.clone() }
    }

    /// The state before the operations that lead to `step`, the first: its pods, and no policy.
    fn before(step: &Step) -> Self {
        let created = |pod: &Pod| {
            let create =
                format!("{{\"CreatePod\":{{\"Namespace\":\"{}\",\"Pod\":\"{}\"", pod.namespace, pod.name);
            step.actions.iter().any(|action| action.starts_with(&create))
        };
        let namespaces = step.namespaces.iter().map(|ns| (ns.name.clone(), ns.labels.clone())).collect();
        let pods = step.pods.iter().filter(|pod| !created(pod)).map(|pod| (pod.path(), pod.clone()));
        Self { namespaces, pods: pods.collect(), ..Self::default() }
    }
}

impl Step {
    /// The state as the table gives it.
    fn scene(&self, name: String, report: &mut Report) -> Scene {
        let mut all = Changing {
            namespaces: self.namespaces.iter().map(|ns| (ns.name.clone(), ns.labels.clone())).collect(),
            pods: self.pods.iter().map(|pod| (pod.path(), pod.clone())).collect(),
            ..Changing::default()
        };
        self.policies.iter().for_each(|policy| all.put_policy(policy));
        let ends = self.order.iter().map(|path| all.pods[path].spec().end()).collect();
        let probes = self.probes(report);
        Scene { name, objects: all.objects(), ends, probes }
    }

    /// The probes that count, by their places in the order of the table.
    fn probes(&self, report: &mut Report) -> Vec<Probe> {
        let mut probes = Vec::new();
        for (port, rows) in &self.expected {
            let (number, protocol) = port.split_once('/').unwrap();
            let (port_number, protocol) = (number.parse().unwrap(), protocol_number(protocol));
            let sides = [&self.egress[port], &self.ingress[port]];
            for from in 0..self.order.len() {
                for to in 0..self.order.len() {
                    let allows = |rows: &[String]| match rows[from].as_bytes()[to] {
                        b'.' => Some(true),
                        b'X' => Some(false),
                        b'-' => None,
                        other => panic!("no verdict: {}", char::from(other)),
                    };
                    let Some(allowed) = allows(rows) else { continue };
                    report.probes += 1;
                    if from == to {
                        report.to_itself += 1;
                        continue;
                    }
                    let sides = sides.map(|rows| allows(rows).unwrap());
                    assert_eq!(allowed, sides[0] && sides[1], "the table itself");
                    let expected = Expected { sides: Some(sides), ..Expected::new(allowed) };
                    let (port, source_port) = (port_number, SOURCE_PORT);
                    probes.push(Probe { from, to, protocol, port, source_port, expected });
                }
            }
        }
        probes
    }
}

/// Of the cases of one step, every so manieth is checked as it comes about. All are in a release build; a debug build
/// is slow, and each state is checked alone there too.
pub(crate) const COMES_ABOUT_EVERY: usize = if cfg!(debug_assertions) { 8 } else { 1 };

/// Checks each state alone, and each as it comes about: by the operations, with the numbers, tables and living flows of
/// the state before.
pub(super) fn check(number: usize, mut case: Case, report: &mut Report) {
    part_shared_addresses(&mut case.steps);
    let comes_about = case.steps.len() > 1 || number.is_multiple_of(COMES_ABOUT_EVERY);
    let mut changing = Changing::before(&case.steps[0]);
    let mut switch = Switch::default();
    switch.apply(&changing.objects());
    for (index, step) in case.steps.iter().enumerate() {
        let scene = step.scene(format!("{} step {index}", case.id), report);
        report.states += 1;
        check_alone(&scene, report);
        if !comes_about {
            continue;
        }
        if index == 0 {
            // Nothing is forbidden yet: flows begin that the first policy may end.
            switch.send(Way::Changed, &changing.unisolated(&scene), report);
        }
        step.actions.iter().for_each(|action| changing.act(action, step));
        let objects = changing.objects();
        switch.apply(&objects);
        let changed = Scene { name: format!("{} by its operations", scene.name), objects, ..scene };
        super::check_reference(&changed, report);
        switch.judge(&changed, report);
        switch.send(Way::Changed, &changed, report);
    }
}

/// One step of each file gives two pods one address, which no cluster can have. The one that is new in it gets another
/// then; as no policy of that step speaks of addresses, it makes no difference to the verdicts.
fn part_shared_addresses(steps: &mut [Step]) {
    let mut before: BTreeMap<String, IpAddr> = BTreeMap::new();
    for step in steps {
        let stays = |pod: &Pod| before.get(&pod.path()) == Some(&pod.ip);
        let mut taken: BTreeSet<_> = step.pods.iter().filter(|pod| stays(pod)).map(|pod| pod.ip).collect();
        for pod in step.pods.iter_mut().filter(|pod| before.get(&pod.path()) != Some(&pod.ip)) {
            while !taken.insert(pod.ip) {
                assert!(!step.policies.iter().any(|policy| policy.to_string().contains("ipBlock")));
                pod.ip = match pod.ip {
                    IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() ^ 0x8000).into(),
                    IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() ^ 0x8000).into(),
                };
            }
        }
        before = step.pods.iter().map(|pod| (pod.path(), pod.ip)).collect();
    }
}
