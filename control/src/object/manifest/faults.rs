//! All that is wrong with an object, not only what is found first: it is read again without what was found.

use serde_json::Value;
use vswitch_model::Invalid;

use crate::object::{Kind, Object};

/// Faults told of one object.
const OF_ONE_OBJECT: usize = 20;
/// How often it is read at most, so that however much is wrong takes time in proportion to its size. What a fault leaves
/// behind mostly takes two more: a block lacks its cidr, then a peer its block.
const ROUNDS: usize = 3 * OF_ONE_OBJECT;

/// What is wrong, and whether it is about how a field is written or about what it means beside others.
struct Fault {
    invalid: Invalid,
    is_about_shape: bool,
}

/// The object of `kind` that `body` describes, or what is wrong with it: at least one thing, at most [`OF_ONE_OBJECT`].
pub(super) fn read(kind: Kind, body: Value) -> Result<Object, Vec<Invalid>> {
    all(body, |body| read_once(kind, body))
}

/// What `read` makes of `body`, or what it finds wrong, each time without what was found before.
fn all<T>(mut body: Value, mut read: impl FnMut(&Value) -> Result<T, Fault>) -> Result<T, Vec<Invalid>> {
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let Fault { invalid, is_about_shape } = match read(&body) {
            Ok(object) if found.is_empty() => return Ok(object),
            Ok(_) => break,
            Err(fault) => fault,
        };
        let steps = steps(&invalid.field);
        let path = as_written(&steps, &left_out);
        let about = about(&path, is_about_shape);
        if !left_out.iter().any(|gone: &Vec<Step>| gone.starts_with(about)) {
            let field = if path == steps { invalid.field } else { text(&path) };
            found.push(Invalid { field, problem: invalid.problem });
        }
        if found.len() == OF_ONE_OBJECT || !leave_out(&mut body, &steps) {
            break;
        }
        left_out.push(path);
    }
    Err(found)
}

/// Where nothing must have been left out for a fault at `path` to be one: what a value is part of may be wrong for the lack
/// of it, and so may what a field means beside others. One of many of a kind means what it means by itself.
fn about(path: &[Step], is_about_shape: bool) -> &[Step] {
    match path.split_last() {
        Some((Step::Field(_), within)) if !is_about_shape => within,
        _ => path,
    }
}

fn read_once(kind: Kind, body: &Value) -> Result<Object, Fault> {
    let object = Object::from_body(kind, body).map_err(|e| {
        let path = e.path().to_string();
        let written = super::at(body, e.path());
        let problem = super::without_position(&e.into_inner().to_string());
        let problem = super::plain::words(&super::with_value(problem, &path, written));
        let field = if path == "." { String::new() } else { path };
        Fault { invalid: Invalid::new(field, problem), is_about_shape: true }
    })?;
    let judged = object.validate();
    judged.map(|()| object).map_err(|invalid| Fault { invalid, is_about_shape: false })
}

/// From a value to one within it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
    /// Of a map that people fill, such as labels.
    Key(String),
}

/// The steps of `spec.ingress[0].from` or `metadata.labels[app]`. Keys that have dots of their own lead nowhere.
fn steps(field: &str) -> Vec<Step> {
    let parts = field.split(['.', '[']).filter(|part| !part.is_empty());
    let step = |part: &str| match part.strip_suffix(']') {
        Some(inner) => inner.parse().map_or_else(|_| Step::Key(inner.to_owned()), Step::Item),
        None => Step::Field(part.to_owned()),
    };
    parts.map(step).collect()
}

fn text(path: &[Step]) -> String {
    let step = |(at, step): (usize, &Step)| match step {
        Step::Field(name) if at == 0 => name.clone(),
        Step::Field(name) => format!(".{name}"),
        Step::Item(index) => format!("[{index}]"),
        Step::Key(key) => format!("[{key}]"),
    };
    path.iter().enumerate().map(step).collect()
}

/// Where in the object as it was written `steps` lead: items that were left out before count, too.
fn as_written(steps: &[Step], left_out: &[Vec<Step>]) -> Vec<Step> {
    let mut path: Vec<Step> = Vec::new();
    for step in steps {
        let step = match step {
            Step::Field(_) | Step::Key(_) => step.clone(),
            Step::Item(index) => {
                let in_list =
                    left_out.iter().filter(|gone| gone.len() == path.len() + 1 && gone.starts_with(&path));
                let mut gone: Vec<usize> = in_list.filter_map(|gone| item(gone.last()?)).collect();
                gone.sort_unstable();
                Step::Item(gone.iter().fold(*index, |index, gone| index + usize::from(*gone <= index)))
            }
        };
        path.push(step);
    }
    path
}

fn item(step: &Step) -> Option<usize> {
    match step {
        Step::Field(_) | Step::Key(_) => None,
        Step::Item(index) => Some(*index),
    }
}

/// Takes a value out of what it is in. False: it is not there.
fn leave_out(body: &mut Value, steps: &[Step]) -> bool {
    let Some((last, before)) = steps.split_last() else { return false };
    let within = before.iter().try_fold(body, |value, step| match step {
        Step::Field(name) | Step::Key(name) => value.get_mut(name),
        Step::Item(index) => value.get_mut(index),
    });
    match (within, last) {
        (Some(Value::Object(fields)), Step::Field(name) | Step::Key(name)) => fields.remove(name).is_some(),
        (Some(Value::Array(items)), Step::Item(index)) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The fields with something wrong in a NetworkPolicy of this spec.
    fn faults(spec: &str) -> Vec<String> {
        let body = format!("{{metadata: {{namespace: x, name: p}}, spec: {spec}}}");
        let faults = read(Kind::NetworkPolicy, serde_yaml_ng::from_str(&body).unwrap());
        faults.map_or_else(|faults| faults.into_iter().map(|fault| fault.field).collect(), |_| Vec::new())
    }

    #[test]
    fn each_field_that_is_wrong_is_named_where_it_was_written() {
        let spec = "{podSelectr: {}, policyTypes: [Ingres, Ingress, Egres], ingress: [{form: []}, \
                    {ports: [{port: 0}, {protocol: TPC}]}], egress: [{to: [{ipBlock: {cidr: ten}}]}]}";
        let mut found = faults(spec);
        found.sort_unstable();
        assert_eq!(
            found,
            [
                "spec.egress[0].to[0].ipBlock.cidr",
                "spec.ingress[0].form",
                "spec.ingress[1].ports[0].port",
                "spec.ingress[1].ports[1].protocol",
                "spec.podSelectr",
                "spec.policyTypes[0]",
                "spec.policyTypes[2]",
            ],
            "and not that the block lacks a cidr without the one that is wrong"
        );
        assert_eq!(faults("{podSelector: {}}"), Vec::<String>::new());
    }

    #[test]
    fn what_is_only_wrong_without_the_first_is_not_told() {
        let spec = "{podSelector: {}, ingress: [{ports: [{port: 0, endPort: 90}, {port: 70000}]}]}";
        let mut found = faults(spec);
        found.sort_unstable();
        assert_eq!(
            found,
            ["spec.ingress[0].ports[0].port", "spec.ingress[0].ports[1].port"],
            "endPort needs a port beside it"
        );
    }

    #[test]
    fn one_of_a_list_does_not_hide_the_others() {
        let block = "cidr: 10.0.0.0/8, except: [11.0.0.0/8, 10.1.0.0/16, 12.0.0.0/8]";
        let spec =
            format!("{{podSelector: {{}}, ingress: [{{from: [{{}}, {{ipBlock: {{{block}}}}}, {{}}]}}]}}");
        let mut found = faults(&spec);
        found.sort_unstable();
        assert_eq!(
            found,
            [
                "spec.ingress[0].from[0]",
                "spec.ingress[0].from[1].ipBlock.except[0]",
                "spec.ingress[0].from[1].ipBlock.except[2]",
                "spec.ingress[0].from[2]",
            ]
        );
        let labels = "{podSelector: {matchLabels: {a: -, b: fine, c: -}}}";
        assert_eq!(faults(labels), ["spec.podSelector.matchLabels[a]", "spec.podSelector.matchLabels[c]"]);
        let rule = "{action: Allow, source: {nets: ['::ffff:0:0/96', 10.0.0.0/8, 'fd00::/8', 'fd01::/16']}}";
        let body = format!("{{metadata: {{namespace: x, name: p}}, spec: {{ingress: [{rule}]}}}}");
        let found = read(Kind::CalicoNetworkPolicy, serde_yaml_ng::from_str(&body).unwrap()).unwrap_err();
        let told: Vec<_> = found.iter().map(ToString::to_string).collect();
        let families = |at: usize, net: &str| {
            format!(
                "spec.ingress[0].source.nets[{at}]: {net} is not of the family of 10.0.0.0/8 in \
                 source.nets; make it two rules"
            )
        };
        assert!(told[0].starts_with("spec.ingress[0].source.nets[0]: "), "{told:?}");
        assert_eq!(told[1..], [families(2, "fd00::/8"), families(3, "fd01::/16")]);
    }

    #[test]
    fn there_is_an_end_to_it() {
        let wrong: Vec<_> = (0..50).map(|n| format!("wrong{n}: 1")).collect();
        assert_eq!(faults(&format!("{{{}}}", wrong.join(", "))).len(), OF_ONE_OBJECT);
    }
    /// How often an object with `nets` wrong ranges is read, and how many of them are told.
    fn rounds(nets: usize) -> (usize, usize) {
        let nets: Vec<_> =
            (0..nets).map(|n| format!("::ffff:10.{}.{}.0/120", n >> 8 & 255, n & 255)).collect();
        let body = json!({"metadata": {"name": "s", "namespace": "x"}, "spec": {"nets": nets}});
        let mut rounds = 0;
        let found = all(body, |body| {
            rounds += 1;
            read_once(Kind::NetworkSet, body)
        });
        (rounds, found.unwrap_err().len())
    }

    #[test]
    fn how_often_an_object_is_read_does_not_grow_with_it() {
        assert_eq!(rounds(3), (4, 3), "the last round finds nothing");
        assert_eq!(rounds(100_000), (OF_ONE_OBJECT, OF_ONE_OBJECT));
    }

    #[test]
    fn what_is_not_told_takes_rounds_too() {
        let fields: serde_json::Map<_, _> = (0..1_000).map(|n| (format!("f{n}"), Value::Null)).collect();
        let mut rounds = 0;
        let found = all(json!({ "spec": fields }), |body| {
            rounds += 1;
            let first = body["spec"].as_object().and_then(|fields| fields.keys().next().cloned());
            let invalid = Invalid::new(format!("spec.{}", first.unwrap()), "is wrong beside the others");
            Err::<(), _>(Fault { invalid, is_about_shape: false })
        });
        assert_eq!((rounds, found.unwrap_err().len()), (ROUNDS, 1));
    }
}
