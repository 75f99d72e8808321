//! All that is wrong with an object, not only what is found first: it is read again without what was found.

use serde_json::Value;
use vswitch_model::Invalid;

use crate::object::{Kind, Object};

/// Faults told of one object.
const OF_ONE_OBJECT: usize = 20;

/// What is wrong, and whether it is about how a field is written or about what it means beside others.
struct Fault {
    invalid: Invalid,
    is_about_shape: bool,
}

/// The object of `kind` that `body` describes, or all that is wrong with it; at least one thing.
pub(super) fn read(kind: Kind, body: Value) -> Result<Object, Vec<Invalid>> {
    let (mut body, mut found, mut left_out) = (body, Vec::new(), Vec::new());
    loop {
        let Fault { invalid, is_about_shape } = match read_once(kind, &body) {
            Ok(object) if found.is_empty() => return Ok(object),
            Ok(_) => return Err(found),
            Err(fault) => fault,
        };
        let steps = steps(&invalid.field);
        let path = as_written(&steps, &left_out);
        // Where something was left out, what it is part of may be wrong for the lack of it.
        let about = if is_about_shape { &path[..] } else { &path[..path.len().saturating_sub(1)] };
        if !left_out.iter().any(|gone: &Vec<Step>| gone.starts_with(about)) {
            let field = if path == steps { invalid.field } else { text(&path) };
            found.push(Invalid { field, problem: invalid.problem });
        }
        if found.len() == OF_ONE_OBJECT || !leave_out(&mut body, &steps) {
            return Err(found);
        }
        left_out.push(path);
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
}

/// The steps of `spec.ingress[0].from`. Keys that have dots of their own lead nowhere.
fn steps(field: &str) -> Vec<Step> {
    let parts = field.split(['.', '[']).filter(|part| !part.is_empty());
    let step = |part: &str| match part.strip_suffix(']') {
        Some(inner) => inner.parse().map_or_else(|_| Step::Field(inner.to_owned()), Step::Item),
        None => Step::Field(part.to_owned()),
    };
    parts.map(step).collect()
}

fn text(path: &[Step]) -> String {
    let step = |(at, step): (usize, &Step)| match step {
        Step::Field(name) if at == 0 => name.clone(),
        Step::Field(name) => format!(".{name}"),
        Step::Item(index) => format!("[{index}]"),
    };
    path.iter().enumerate().map(step).collect()
}

/// Where in the object as it was written `steps` lead: items that were left out before count, too.
fn as_written(steps: &[Step], left_out: &[Vec<Step>]) -> Vec<Step> {
    let mut path: Vec<Step> = Vec::new();
    for step in steps {
        let step = match step {
            Step::Field(_) => step.clone(),
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
        Step::Field(_) => None,
        Step::Item(index) => Some(*index),
    }
}

/// Takes a value out of what it is in. False: it is not there.
fn leave_out(body: &mut Value, steps: &[Step]) -> bool {
    let Some((last, before)) = steps.split_last() else { return false };
    let within = before.iter().try_fold(body, |value, step| match step {
        Step::Field(name) => value.get_mut(name),
        Step::Item(index) => value.get_mut(index),
    });
    match (within, last) {
        (Some(Value::Object(fields)), Step::Field(name)) => fields.remove(name).is_some(),
        (Some(Value::Array(items)), Step::Item(index)) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
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
    fn there_is_an_end_to_it() {
        let wrong: Vec<_> = (0..50).map(|n| format!("wrong{n}: 1")).collect();
        assert_eq!(faults(&format!("{{{}}}", wrong.join(", "))).len(), OF_ONE_OBJECT);
    }
}
