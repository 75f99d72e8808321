//! `apply`, `get`, `describe` and `delete` of objects.

use std::slice;

use serde_json::{Map, Value, json};
use tonic::transport::Channel;
use vswitch_model::api::agent::agent_client::AgentClient;
use vswitch_model::api::agent::{
    ApplyObjectsRequest, DeleteObjectsRequest, DescribeReply, DescribeRequest, ListObjectsReply,
    ListObjectsRequest, ObjectName, ObjectResult,
};

use super::cli::{Apply, Delete, Describe, Get};
use super::output::{Report, indent, table_of, yaml};
use super::targets::{Target, targets};
use super::{Failure, columns, files};
use crate::object::Kind;

type Client = AgentClient<Channel>;

pub(super) async fn apply(agent: &mut Client, apply: &Apply) -> Result<Report, Failure> {
    let request = ApplyObjectsRequest {
        documents: files::read(&apply.filename)?,
        namespace: apply.namespace.clone(),
        dry_run: apply.dry_run.is_dry(),
    };
    let reply = agent.apply(request).await?.into_inner();
    some_in(&reply.results, &apply.filename)?;
    warn_unless_in_force(&reply.not_in_force);
    Ok(outcomes(&reply.results, if apply.dry_run.is_dry() { " (dry run)" } else { "" }))
}

/// One request for all, so that none is kept for what is deleted with it.
pub(super) async fn delete(agent: &mut Client, delete: &Delete) -> Result<Report, Failure> {
    let request = DeleteObjectsRequest {
        namespace: delete.namespace.clone(),
        objects: delete.kind.as_ref().map_or(Ok(Vec::new()), |kind| named(kind, &delete.names))?,
        documents: files::read(&delete.filename)?,
        force: delete.force,
        dry_run: delete.dry_run.is_dry(),
    };
    let reply = agent.delete(request).await?.into_inner();
    some_in(&reply.results, &delete.filename)?;
    warn_unless_in_force(&reply.not_in_force);
    Ok(outcomes(&reply.results, if delete.dry_run.is_dry() { " (dry run)" } else { "" }))
}

/// The objects that the words for `delete` name; of a kind alone it takes none.
fn named(kind: &String, names: &[String]) -> Result<Vec<ObjectName>, Failure> {
    let targets = targets(&[slice::from_ref(kind), names].concat()).map_err(Failure)?;
    let name = |Target { kind, name }| match name {
        Some(name) => Ok(ObjectName { kind, name }),
        None => Err(Failure(format!("delete {kind}: name what to delete; there is no deleting of all"))),
    };
    targets.into_iter().map(name).collect()
}

/// Files without an object are most often not those that were meant.
fn some_in(results: &[ObjectResult], files: &[String]) -> Result<(), Failure> {
    if results.is_empty() { Err(Failure(format!("no objects in {}", files.join(", ")))) } else { Ok(()) }
}

/// What was written stays written, but whoever wrote it must not take it for enforced.
fn warn_unless_in_force(reason: &str) {
    if !reason.is_empty() {
        eprintln!("vsctl: written, but not in force on this node: {reason}");
    }
}

/// Objects of several kinds are a list of each, one after the other.
pub(super) async fn get(agent: &mut Client, get: &Get) -> Result<Report, Failure> {
    let targets = targets(&[slice::from_ref(&get.kind), get.names.as_slice()].concat()).map_err(Failure)?;
    let mut lists: Vec<ListObjectsReply> = Vec::new();
    for target in &targets {
        super::known_kind(&target.kind)?;
        let request = ListObjectsRequest {
            kind: target.kind.clone(),
            namespace: get.namespace.clone().unwrap_or_default(),
            all_namespaces: get.all_namespaces,
            name: target.name.clone().unwrap_or_default(),
        };
        let reply = agent.list(request).await?.into_inner();
        match lists.iter_mut().find(|list| list.kind == reply.kind) {
            Some(list) => list.objects.extend(reply.objects),
            None => lists.push(reply),
        }
    }
    let has_pods = lists.iter().any(|list| list.kind == Kind::Pod.name());
    let endpoints = if has_pods { endpoints(agent).await? } else { Vec::new() };
    let mut reports = Vec::new();
    for list in &lists {
        reports.push(listing(list, &endpoints, get)?);
    }
    Ok(joined(reports, &targets))
}

/// All lists as one; the object alone where one was named.
fn joined(reports: Vec<Report>, targets: &[Target]) -> Report {
    let texts: Vec<_> = reports.iter().map(|report| report.text.as_str()).collect();
    let text = texts.join("\n\n");
    let lists = reports.into_iter().map(|report| report.value);
    let mut items: Vec<Value> = lists
        .flat_map(|mut list| list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
        .collect();
    let value = match (targets, items.len()) {
        ([Target { name: Some(_), .. }], 1) => items.remove(0),
        _ => json!({"apiVersion": "v1", "kind": "List", "items": items}),
    };
    Report { value, text }
}

/// All endpoints: they know the addresses of pods that Kubernetes has not heard of yet.
async fn endpoints(agent: &mut Client) -> Result<Vec<Value>, Failure> {
    let request = ListObjectsRequest { kind: Kind::Endpoint.plural().to_owned(), ..Default::default() };
    agent.list(request).await?.into_inner().objects.iter().map(|object| parse(object)).collect()
}

/// A pod as the table shows it: with the addresses of its endpoints, where its status has none.
fn with_addresses(mut pod: Value, endpoints: &[Value]) -> Value {
    let status = &pod["status"];
    if !status["podIPs"].is_null() || !status["podIP"].is_null() {
        return pod;
    }
    let (namespace, name) = (&pod["metadata"]["namespace"], &pod["metadata"]["name"]);
    let is_its = |spec: &&Value| spec["namespace"] == *namespace && spec["pod"] == *name;
    let own = endpoints.iter().map(|endpoint| &endpoint["spec"]).filter(is_its);
    let addresses = own.flat_map(|spec| spec["addresses"].as_array().into_iter().flatten());
    let addresses: Vec<_> = addresses.map(|address| json!({"ip": address})).collect();
    if !addresses.is_empty() {
        pod["status"] = json!({"podIPs": addresses});
    }
    pod
}

pub(super) async fn describe(agent: &mut Client, describe: &Describe) -> Result<Report, Failure> {
    let words: Vec<String> = [&describe.kind].into_iter().chain(&describe.name).cloned().collect();
    let request = match targets(&words).map_err(Failure)?.as_slice() {
        [Target { kind, name: Some(name) }] => {
            DescribeRequest { kind: kind.clone(), namespace: describe.namespace.clone(), name: name.clone() }
        }
        [Target { kind, name: None }] => return Err(Failure(format!("describe {kind}: name the object"))),
        _ => return Err(Failure("describe takes one object".to_owned())),
    };
    description(&agent.describe(request).await?.into_inner())
}

/// `networkpolicy media/relay created` for each.
fn outcomes(results: &[ObjectResult], suffix: &str) -> Report {
    let line = |result: &ObjectResult| {
        let kind = result.kind.to_lowercase();
        let slash = if result.namespace.is_empty() { "" } else { "/" };
        let note = if result.note.is_empty() { String::new() } else { format!("; {}", result.note) };
        format!("{kind} {}{slash}{} {}{suffix}{note}", result.namespace, result.name, result.outcome)
    };
    let value = |result: &ObjectResult| {
        json!({
            "kind": result.kind, "namespace": result.namespace, "name": result.name, "outcome": result.outcome,
            "note": result.note,
        })
    };
    let lines: Vec<_> = results.iter().map(line).collect();
    Report { value: results.iter().map(value).collect(), text: lines.join("\n") }
}

fn listing(reply: &ListObjectsReply, endpoints: &[Value], get: &Get) -> Result<Report, Failure> {
    let objects: Result<Vec<Value>, Failure> = reply.objects.iter().map(|object| parse(object)).collect();
    let mut objects = objects?;
    if let Some(selector) = &get.selector {
        objects.retain(|object| selector.selects(object));
    }
    let columns = columns::of(&reply.kind);
    let with_namespace = reply.namespaced && get.all_namespaces;
    let mut header = Vec::new();
    if with_namespace {
        header.push("namespace".to_owned());
    }
    header.push("name".to_owned());
    header.extend(columns.iter().map(|column| column.name.to_owned()));
    let text_of =
        |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let rows = objects.iter().map(|object| {
        let mut row = Vec::new();
        if with_namespace {
            row.push(text_of(object, "namespace"));
        }
        row.push(text_of(object, "name"));
        let shown = with_addresses(object.clone(), endpoints);
        row.extend(columns.iter().map(|column| (column.cell)(&shown)));
        row
    });
    let text = if objects.is_empty() { nothing(reply, get) } else { table_of(&header, rows.collect()) };
    Ok(Report { value: json!({"apiVersion": "v1", "kind": "List", "items": objects}), text })
}

fn nothing(reply: &ListObjectsReply, get: &Get) -> String {
    let place = match (reply.namespaced && !get.all_namespaces, get.namespace.as_deref()) {
        (false, _) => String::new(),
        (true, namespace) => format!(" in namespace {}", namespace.unwrap_or("default")),
    };
    let like = if get.selector.is_some() { " with such labels" } else { "" };
    format!("no {}{like}{place}", reply.kind)
}

fn description(reply: &DescribeReply) -> Result<Report, Failure> {
    let object = parse(&reply.object)?;
    let mut text = yaml(&object)?;
    let mut facts = Map::new();
    for fact in &reply.facts {
        facts.insert(fact.name.clone(), fact.values.clone().into());
        let values = if fact.values.is_empty() { "(none)".to_owned() } else { fact.values.join("\n") };
        text.push_str(&format!("\n{}:\n{}", fact.name, indent(&values, 2)));
    }
    Ok(Report { value: json!({"object": object, "facts": facts}), text })
}

fn parse(object: &str) -> Result<Value, Failure> {
    serde_json::from_str(object)
        .map_err(|error| Failure(format!("the agent sent an object that is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use vswitch_model::api::agent::Fact;

    use super::*;

    fn get_of(kind: &str, all_namespaces: bool) -> Get {
        Get {
            kind: kind.into(),
            names: Vec::new(),
            selector: None,
            watch: false,
            namespace: None,
            all_namespaces,
            address: None,
            limit: None,
        }
    }

    fn pools() -> ListObjectsReply {
        let pool = r#"{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"v4"},
                       "spec":{"cidr":"10.244.0.0/16","vxlanMode":"Always"}}"#;
        ListObjectsReply { kind: "IPPool".into(), namespaced: false, objects: vec![pool.into()] }
    }

    #[test]
    fn outcomes_are_a_line_each() {
        let result = |namespace: &str| ObjectResult {
            kind: "NetworkPolicy".into(),
            namespace: namespace.into(),
            name: "relay".into(),
            outcome: "created".into(),
            note: String::new(),
        };
        let report = outcomes(&[result("media"), result("")], " (dry run)");
        let expected = "networkpolicy media/relay created (dry run)\nnetworkpolicy relay created (dry run)";
        assert_eq!(report.text, expected);
        assert_eq!(report.value[0]["namespace"], "media");
        let noted = ObjectResult { note: "namespace media is not there".into(), ..result("media") };
        let expected = "networkpolicy media/relay created; namespace media is not there";
        assert_eq!(outcomes(&[noted], "").text, expected);
    }

    #[test]
    fn listings_have_the_columns_of_their_kind() {
        let report = listing(&pools(), &[], &get_of("pools", false)).unwrap();
        assert_eq!(
            report.text,
            "NAME  CIDR           BLOCKSIZE  VXLAN   IPIP   DISABLED\n\
             v4    10.244.0.0/16  26         Always  Never  no"
        );
        assert_eq!(report.value["items"][0]["metadata"]["name"], "v4");
        let named = |names: &[&str]| -> Vec<Target> {
            names.iter().map(|name| Target { kind: "pool".into(), name: Some((*name).to_owned()) }).collect()
        };
        let one = joined(vec![report.clone()], &named(&["v4"]));
        assert_eq!(one.value["spec"]["cidr"], "10.244.0.0/16");
        let two = joined(vec![report.clone(), report], &named(&["v4", "v6"]));
        assert_eq!(two.value["items"].as_array().map(Vec::len), Some(2));
        assert_eq!(two.text.lines().filter(|line| line.starts_with("NAME")).count(), 2);
    }

    #[test]
    fn the_namespace_is_a_column_when_there_are_several() {
        let policy = r#"{"metadata":{"name":"relay","namespace":"media"},"spec":{"podSelector":{"matchLabels":{"app":"relay"}},"ingress":[]}}"#;
        let reply =
            ListObjectsReply { kind: "NetworkPolicy".into(), namespaced: true, objects: vec![policy.into()] };
        let text = listing(&reply, &[], &get_of("netpol", true)).unwrap().text;
        assert_eq!(
            text,
            "NAMESPACE  NAME   PODS       TYPES    INGRESS  EGRESS\nmedia      relay  app=relay  Ingress  0        0"
        );
        let none = ListObjectsReply { objects: vec![], ..reply };
        assert_eq!(
            listing(&none, &[], &get_of("netpol", false)).unwrap().text,
            "no NetworkPolicy in namespace default"
        );
    }

    #[test]
    fn a_selector_leaves_out_what_has_other_labels() {
        let objects = ["a", "b"].map(|name| {
            json!({"metadata": {"name": name, "namespace": "x", "labels": {"app": name}}}).to_string()
        });
        let reply = ListObjectsReply { kind: "Pod".into(), namespaced: true, objects: objects.to_vec() };
        let get = Get { selector: Some("app=b".parse().unwrap()), ..get_of("pods", false) };
        let report = listing(&reply, &[], &get).unwrap();
        assert_eq!(report.value["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(report.value["items"][0]["metadata"]["name"], "b");
        let nobody = Get { selector: Some("app=c".parse().unwrap()), ..get };
        assert_eq!(
            listing(&reply, &[], &nobody).unwrap().text,
            "no Pod with such labels in namespace default"
        );
    }

    #[test]
    fn pods_show_the_addresses_of_their_endpoints() {
        let pods = [
            r#"{"metadata":{"name":"a","namespace":"x"}}"#,
            r#"{"metadata":{"name":"b","namespace":"x"},"status":{"podIP":"10.0.0.9"}}"#,
        ];
        let endpoint =
            |pod: &str| json!({"spec": {"namespace": "x", "pod": pod, "addresses": ["10.0.0.1", "fd00::1"]}});
        let objects = pods.map(str::to_owned).to_vec();
        let reply = ListObjectsReply { kind: "Pod".into(), namespaced: true, objects };
        let report = listing(&reply, &[endpoint("a"), endpoint("b")], &get_of("pods", false)).unwrap();
        let cells: Vec<Vec<_>> =
            report.text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(cells, [["a", "-", "10.0.0.1,fd00::1", "-"], ["b", "-", "10.0.0.9", "-"]]);
        assert_eq!(report.value["items"][0]["status"], Value::Null, "the object is as it is");
    }

    #[test]
    fn descriptions_end_with_what_the_agent_knows() {
        let facts = vec![
            Fact {
                name: "selected pods".into(),
                values: vec!["media/relay-0".into(), "media/relay-1".into()],
            },
            Fact { name: "problems".into(), values: vec![] },
        ];
        let report = description(&DescribeReply { object: r#"{"kind":"X"}"#.into(), facts }).unwrap();
        assert_eq!(
            report.text,
            "kind: X\nselected pods:\n  media/relay-0\n  media/relay-1\nproblems:\n  (none)"
        );
        assert_eq!(report.value["facts"]["selected pods"][1], "media/relay-1");
        assert!(description(&DescribeReply { object: "no".into(), facts: vec![] }).is_err());
    }
}
