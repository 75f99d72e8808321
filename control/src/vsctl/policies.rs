//! `get policies`: what each rule did on this node.

use serde_json::json;
use tonic::transport::Channel;
use vswitch_model::api::engine::engine_client::EngineClient;
use vswitch_model::api::engine::{Action, ListRulesRequest, RuleCounters, Standing};

use super::Failure;
use super::output::{Report, table};

/// The rules of one policy (`"NetworkPolicy media/relay"`), or of all.
pub(super) async fn policies(
    engine: &mut EngineClient<Channel>,
    name: Option<&str>,
) -> Result<Report, Failure> {
    let request = ListRulesRequest { policy: name.unwrap_or_default().to_owned() };
    let mut stream = engine.list_rules(request).await?.into_inner();
    let mut rules = Vec::new();
    while let Some(rule) = stream.message().await? {
        rules.push(rule);
    }
    match name {
        Some(name) if rules.is_empty() => Err(Failure(format!(
            "no policy called \"{name}\" does anything on this node: it is not there, or selects no pod here; `vsctl get \
             policies` lists those that do"
        ))),
        _ => Ok(report(&rules)),
    }
}

fn report(rules: &[RuleCounters]) -> Report {
    let value = rules.iter().map(|rule| {
        json!({
            "rule": rule.rule, "policy": rule.policy, "position": rule.position,
            "action": action(rule), "standing": standing(rule),
            "flows": rule.flows, "packets": rule.packets, "bytes": rule.bytes,
            "deniedPackets": rule.denied_packets, "deniedBytes": rule.denied_bytes,
            "logged": rule.logged,
            "stagedAllowed": rule.staged_allowed, "stagedDenied": rule.staged_denied,
        })
    });
    let rows = rules.iter().map(|rule| {
        [
            rule.policy.clone(),
            rule.position.clone(),
            action(rule).to_owned(),
            standing(rule).to_owned(),
            rule.flows.to_string(),
            rule.packets.to_string(),
            rule.bytes.to_string(),
            rule.denied_packets.to_string(),
            rule.denied_bytes.to_string(),
            rule.logged.to_string(),
            match (rule.staged_allowed, rule.staged_denied) {
                (0, 0) => String::new(),
                (allowed, denied) => format!("{allowed} allowed, {denied} denied"),
            },
        ]
    });
    let header = [
        "policy",
        "rule",
        "action",
        "standing",
        "flows",
        "packets",
        "bytes",
        "denied",
        "denied bytes",
        "logged",
        "if staged were in force",
    ];
    Report { value: value.collect(), text: table(header, rows) }
}

fn action(rule: &RuleCounters) -> &'static str {
    match rule.action() {
        Action::Allow => "allow",
        Action::Deny => "deny",
        Action::Pass => "pass",
        Action::Log => "log",
        Action::Unspecified => "",
    }
}

fn standing(rule: &RuleCounters) -> &'static str {
    match rule.standing() {
        Standing::Enforced => "in force",
        Standing::Staged => "staged",
        Standing::StagedRemoval => "in force, removal staged",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_show_what_they_did_and_would_do() {
        let rules = [
            RuleCounters {
                rule: 16,
                policy: "NetworkPolicy media/relay".into(),
                position: "ingress rule 1".into(),
                action: Action::Allow.into(),
                flows: 3,
                packets: 10,
                bytes: 1000,
                ..RuleCounters::default()
            },
            RuleCounters {
                rule: 17,
                policy: "StagedNetworkPolicy media/tight".into(),
                position: "ingress rule 1".into(),
                action: Action::Deny.into(),
                standing: Standing::Staged.into(),
                staged_denied: 2,
                ..RuleCounters::default()
            },
        ];
        let report = report(&rules);
        let lines: Vec<_> = report.text.lines().collect();
        assert!(lines[1].contains("allow") && lines[1].contains("in force"), "{}", lines[1]);
        assert!(lines[2].contains("staged") && lines[2].ends_with("0 allowed, 2 denied"), "{}", lines[2]);
        assert_eq!(report.value[0]["packets"], 10);
        assert_eq!(
            (&report.value[1]["standing"], &report.value[1]["stagedDenied"]),
            (&json!("staged"), &json!(2))
        );
    }
}
