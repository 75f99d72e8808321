//! `explain -f`: the same question, asked of manifests. No agent, no engine and no cluster: the objects go through the
//! agent's calculation and the engine's compiler in this process, and the engine's own tables are asked beside the
//! explanation from the objects.

use serde_json::json;
use vswitch_model::api::agent::SideVerdict;

use super::cli::Explain;
use super::explain::{side_value, verdict_text};
use super::output::{Report, indent};
use super::{Failure, files};
use crate::calc::{End, Explanation, Inputs, Question, Side};
use crate::object::calico::Tier;
use crate::object::{Key, Kind, Object, manifest};

mod place;
mod tables;

use tables::Verdict;

/// The report, and whether the flow is allowed.
pub(super) fn explain(explain: &Explain) -> Result<(Report, bool), Failure> {
    explain.check()?;
    let (mut inputs, mut notes) = read(&explain.filename, &explain.namespace)?;
    let question = question(explain);
    notes.extend(place::ends(&mut inputs, &question).map_err(Failure)?);
    let mut answer = crate::calc::explain(&inputs, &question).map_err(|error| Failure(error.to_string()))?;
    let verdicts = tables::ask(&inputs, &question, &answer).map_err(Failure)?;
    if verdicts.iter().any(|verdict| verdict.is_refused) {
        answer.refuse_tunnel();
    }
    agree(&answer, &verdicts)?;
    let allowed = answer.allowed;
    Ok((report(answer, explain, &verdicts, &notes), allowed))
}

/// The objects in these files, as apply would take them, but that those which have no part in this are left out and
/// noted.
fn read(paths: &[String], namespace: &str) -> Result<(Inputs, Vec<String>), Failure> {
    let documents = files::read(paths)?;
    let texts = documents.iter().map(|document| (document.file.as_str(), document.text.as_str()));
    let mut notes = Vec::new();
    let judge = |object: &Object| match object.kind() {
        Kind::Service => Ok(()),
        _ => object.unenforced(),
    };
    let failure = |error: manifest::ManifestErrors| Failure(error.to_string());
    let objects = manifest::parse_sourced(texts, namespace, Some(&mut notes), judge).map_err(failure)?;
    Tier::refuse_missing(&objects, |_| false).map_err(failure)?;
    let (services, objects): (Vec<_>, Vec<_>) =
        objects.into_iter().map(|one| one.object).partition(|object| object.kind() == Kind::Service);
    notes.extend(services.iter().map(|service| {
        let Key { namespace, name, .. } = service.key();
        format!("Service {namespace}/{name} is left out: {}", Kind::Service.unenforced().unwrap_or_default())
    }));
    Ok((Inputs::from_iter(objects), notes))
}

fn question(explain: &Explain) -> Question {
    let end = |text: &str| End::within(&explain.namespace, text);
    Question {
        from: end(&explain.from),
        to: end(&explain.to),
        protocol: explain.service.protocol.0,
        port: explain.service.port,
        source_port: explain.source_port,
        is_ipv4: explain.family().map(|family| family == 4),
    }
}

/// The objects and the tables are two ways to one verdict.
fn agree(answer: &Explanation, verdicts: &[Verdict]) -> Result<(), Failure> {
    for verdict in verdicts {
        let side = if verdict.is_egress { &answer.egress } else { &answer.ingress };
        if side.allowed != verdict.allowed {
            return Err(Failure(format!(
                "the objects say \"{}\", and the engine's tables, of the same objects, \"{}\": this is a fault of vsctl's, \
                 please report it",
                side.reason, verdict.text
            )));
        }
    }
    Ok(())
}

fn report(answer: Explanation, explain: &Explain, verdicts: &[Verdict], notes: &[String]) -> Report {
    let Explanation { allowed, from, to, egress, ingress, .. } = answer;
    let (egress, ingress) = (side(egress), side(ingress));
    let tables: Vec<_> = verdicts.iter().map(|verdict| verdict.text.clone()).collect();
    let value = json!({
        "allowed": allowed, "from": from, "to": to, "service": explain.service.to_string(),
        "sourcePort": explain.source_port, "egress": side_value(&egress), "ingress": side_value(&ingress), "tables": tables, "notes": notes,
    });
    let mut text = verdict_text(allowed, "", [&from, &to], &explain.asked(), [Some(&egress), Some(&ingress)]);
    for (heading, lines) in [("the engine's tables", &tables[..]), ("notes", notes)] {
        if !lines.is_empty() {
            text = format!("{text}\n\n{heading}\n{}", indent(&lines.join("\n"), 2));
        }
    }
    Report { value, text }
}

fn side(side: Side) -> SideVerdict {
    let Side { allowed, isolated, policies, policy, position, reason, hint, staged } = side;
    SideVerdict { allowed, isolated, policies, policy, position, reason, hint, staged }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::cli::{Cli, Verb};
    use super::*;

    const CLUSTER: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: media}}
- {apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
- apiVersion: v1
  kind: Pod
  metadata: {name: relay, namespace: media, labels: {app: relay}}
  spec: {nodeName: n1, containers: [{name: c, ports: [{name: sip, containerPort: 5060, protocol: UDP}]}]}
- {apiVersion: v1, kind: Pod, metadata: {name: phone, labels: {app: phone}}, status: {podIP: 10.1.0.9}}
- {apiVersion: v1, kind: Pod, metadata: {name: stranger}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: relay, namespace: media}
spec:
  podSelector: {matchLabels: {app: relay}}
  ingress:
  - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: phone}}}, {ipBlock: {cidr: 203.0.113.0/24}}]
    ports: [{protocol: UDP, port: sip}]
";

    /// What `vsctl explain -f FOLDER` with these words says of this text.
    fn ask(text: &str, words: &str) -> Result<(Report, bool), Failure> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("all.yaml");
        std::fs::write(&file, text).unwrap();
        let line = format!("vsctl explain -f {} {words}", folder.path().display());
        let Verb::Explain(verb) = Cli::try_parse_from(line.split_whitespace()).unwrap().verb else {
            panic!("another verb")
        };
        explain(&verb)
    }

    #[test]
    fn files_alone_answer_with_rule_and_tables() {
        let (report, allowed) = ask(CLUSTER, "phone media/relay 5060/udp").unwrap();
        assert!(allowed, "{}", report.text);
        assert_eq!(report.value["ingress"]["policy"], "NetworkPolicy media/relay");
        assert_eq!(report.value["ingress"]["position"], "ingress rule 1, from 1");
        let tables =
            "arriving: allowed by NetworkPolicy media/relay, ingress rule 1, from 1, port sip = 5060/UDP";
        assert_eq!(report.value["tables"][1], tables, "{}", report.text);
        let given = "pod media/relay has no address in these files, and was given 198.18.0.1 and 2001:db8::1";
        assert_eq!(report.value["notes"], json!([given]));
        assert!(report.text.contains("phone") && report.text.contains(": ALLOWED\n"), "{}", report.text);

        for (words, allowed) in [
            ("stranger media/relay 5060/udp", false),
            ("stranger media/relay 5060/udp --family 6", false),
            ("phone media/relay 5060/tcp", false),
            ("203.0.113.7 media/relay 5060/udp", true),
            ("203.0.114.7 media/relay 5060/udp", false),
            ("192.0.2.1 media/relay 22/tcp", true),
            ("media/relay stranger icmp", true),
            ("10.1.0.9 media/relay 5060/udp", true),
            ("media/relay media/relay 1/tcp", true),
            ("203.0.113.7 192.0.2.9 1/tcp", true),
            ("phone stranger 4789/udp", false),
            ("phone phone 4789/udp", true),
            ("203.0.113.7 stranger 4789/udp", true),
            ("phone stranger 4790/udp", true),
        ] {
            assert_eq!(ask(CLUSTER, words).unwrap().1, allowed, "{words}");
        }
    }

    #[test]
    fn addresses_come_from_the_pool_where_there_is_one() {
        let pool = "---\n{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: v4}, spec: {cidr: 10.1.0.8/29, blockSize: 32}}";
        let (report, _) = ask(&format!("{CLUSTER}{pool}"), "stranger media/relay 5060/udp").unwrap();
        let notes = report.value["notes"].to_string();
        assert!(notes.contains("default/stranger") && notes.contains("given 10.1.0.10\""), "{notes}");
        assert!(notes.contains("media/relay") && notes.contains("given 10.1.0.11\""), "{notes}");
        let whole = pool.replace("10.1.0.8/29", "10.1.0.9/32");
        let Err(Failure(full)) = ask(&format!("{CLUSTER}{whole}"), "stranger media/relay 5060/udp") else {
            panic!("there was an address")
        };
        assert_eq!(
            full,
            "pod default/stranger has no address in these files, and 10.1.0.9/32 has none left to give it"
        );
    }

    #[test]
    fn what_has_no_part_in_it_is_noted_and_left_out() {
        let others = "---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}\n---\n\
                      {apiVersion: v1, kind: Service, metadata: {name: relay, namespace: media}, spec: {ports: [{port: 80}]}}\n";
        let (report, _) = ask(&format!("{CLUSTER}{others}"), "phone media/relay 5060/udp").unwrap();
        let notes = report.value["notes"].to_string();
        assert!(notes.contains("Deployment web is left out: its kind has no part in this"), "{notes}");
        assert!(notes.contains("Service media/relay is left out: services are not implemented"), "{notes}");
    }

    #[test]
    fn what_apply_refuses_has_no_verdict() {
        let homeless = "---\n{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: a}, spec: {tier: nowhere}}\n";
        let Err(Failure(problem)) = ask(&format!("{CLUSTER}{homeless}"), "phone media/relay 5060/udp") else {
            panic!("an answer")
        };
        assert!(
            problem.contains("GlobalNetworkPolicy a: spec.tier: the tier nowhere does not exist"),
            "{problem}"
        );
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        for (words, says) in [
            ("nobody media/relay 1/tcp", "pod default/nobody is not there"),
            ("relay media/relay 1/tcp", "pod default/relay is not there; media/relay is"),
            ("300.8.8.8 media/relay 1/tcp", "300.8.8.8 is not an address"),
            ("10.0.0.0/8 media/relay 1/tcp", "10.0.0.0/8 is not an address"),
            ("dns.google media/relay 1/tcp", "a name of DNS cannot be asked for"),
            ("n1 media/relay 1/tcp", "pod default/n1 is not there; node/n1 is a node"),
            ("10.1.0.9 2001:db8::9 1/tcp", "no address of one family"),
        ] {
            let Err(Failure(problem)) = ask(CLUSTER, words) else { panic!("{words}: an answer") };
            assert!(problem.contains(says), "{problem}");
        }
        let wrong = CLUSTER.replace("podSelector: {matchLabels: {app: relay}}", "podSelectr: {}");
        let Err(Failure(problem)) = ask(&wrong, "phone media/relay 1/tcp") else { panic!("an answer") };
        assert!(
            problem.contains("all.yaml, document 2, NetworkPolicy media/relay: spec.podSelectr"),
            "{problem}"
        );
    }
}
