//! `explain`: which policy and rule let a flow pass or kill it, at both ends, and what the walk would do.

use serde_json::{Value, json};
use tonic::transport::Channel;
use vswitch_model::api::agent::agent_client::AgentClient;
use vswitch_model::api::agent::{ExplainFlowReply, ExplainFlowRequest, SideVerdict};

use super::Failure;
use super::cli::Explain;
use super::output::{Report, facts, indent};
use super::protocol::{self, Service};

/// The report, and whether the flow is allowed.
pub(super) async fn explain(
    agent: &mut AgentClient<Channel>,
    explain: &Explain,
) -> Result<(Report, bool), Failure> {
    explain.check()?;
    let request = ExplainFlowRequest {
        from: explain.from.clone(),
        to: explain.to.clone(),
        protocol: u32::from(explain.service.protocol.0),
        port: u32::from(explain.service.port),
        family: explain.family().unwrap_or(0),
        namespace: explain.namespace.clone(),
        source_port: explain.source_port.map(u32::from),
    };
    let reply = agent.explain(request).await?.into_inner();
    Ok((report(&reply, explain), reply.allowed))
}

impl Explain {
    /// The family that is asked about: that of ICMPv6 is given.
    pub(super) fn family(&self) -> Option<u32> {
        self.family.or((self.service.protocol.0 == protocol::ICMPV6).then_some(6))
    }

    /// That a source port is asked about only where there is one, and ICMPv6 over IPv6.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let Service { protocol, .. } = self.service;
        if protocol.0 == protocol::ICMPV6 && self.family == Some(4) {
            return Err(Failure("--family: icmpv6 is IPv6's; leave it out, or ask about icmp".to_owned()));
        }
        match self.source_port {
            Some(_) if !protocol.has_ports() => {
                Err(Failure(format!("--source-port: {protocol} has none; leave it out")))
            }
            _ => Ok(()),
        }
    }

    /// `5060/udp`, `5060/udp from port 4000`
    pub(super) fn asked(&self) -> String {
        let from = self.source_port.map(|port| format!(" from port {port}"));
        format!("{}{}", self.service, from.unwrap_or_default())
    }
}

fn report(reply: &ExplainFlowReply, explain: &Explain) -> Report {
    let value = json!({
        "allowed": reply.allowed,
        "from": reply.from, "to": reply.to, "service": explain.service.to_string(), "sourcePort": explain.source_port,
        "egress": reply.egress.as_ref().map_or(Value::Null, side_value),
        "ingress": reply.ingress.as_ref().map_or(Value::Null, side_value),
        "walk": reply.walk, "walkError": reply.walk_error,
    });
    let differs = !reply.walk.is_empty() && !reply.walk_error.is_empty();
    let by = if differs { " by the objects; what this node's engine does now is below" } else { "" };
    let (ends, sides) = ([&*reply.from, &*reply.to], [reply.egress.as_ref(), reply.ingress.as_ref()]);
    let mut text = verdict_text(reply.allowed, by, ends, &explain.asked(), sides);
    let walk = match (reply.walk.is_empty(), reply.walk_error.is_empty()) {
        (false, true) => Some(reply.walk.join("\n")),
        (false, false) => Some(format!("{}\nnote: {}", reply.walk.join("\n"), reply.walk_error)),
        (true, false) => Some(format!("not known: {}", reply.walk_error)),
        (true, true) => None,
    };
    if let Some(walk) = walk {
        text = format!("{text}\n\nwalk on this node\n{}", indent(&walk, 2));
    }
    Report { value, text }
}

/// The verdict in the first line, `by` behind it; then what each end says.
pub(super) fn verdict_text(
    allowed: bool,
    by: &str,
    ends: [&str; 2],
    service: &str,
    sides: [Option<&SideVerdict>; 2],
) -> String {
    let verdict = if allowed { "ALLOWED" } else { "DENIED" };
    let mut text = format!("{} -> {}, {service}: {verdict}{by}", ends[0], ends[1]);
    for ((name, end), side) in ["leaving", "arriving"].into_iter().zip(ends).zip(sides) {
        if let Some(side) = side {
            let said = indent(&side_text(side), 2);
            text = format!("{text}\n\n{name} ({end}): {}\n{said}", word(side.allowed));
        }
    }
    text
}

fn word(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}

pub(super) fn side_value(side: &SideVerdict) -> Value {
    json!({
        "allowed": side.allowed, "isolated": side.isolated, "policies": side.policies, "policy": side.policy,
        "position": side.position, "reason": side.reason, "hint": side.hint, "staged": side.staged,
    })
}

fn side_text(side: &SideVerdict) -> String {
    let decided = match (side.policy.is_empty(), side.position.is_empty()) {
        (true, _) => String::new(),
        (false, true) => side.policy.clone(),
        (false, false) => format!("{}, {}", side.policy, side.position),
    };
    let policies = if side.policies.is_empty() { "(none)".to_owned() } else { side.policies.join(", ") };
    let pairs = [
        ("decided by", decided),
        ("because", side.reason.clone()),
        ("selected by", policies),
        ("to change it", side.hint.clone()),
        ("staged", side.staged.clone()),
    ];
    let given: Vec<_> = pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    facts(&given)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::cli::{Cli, Verb};
    use super::*;

    /// `vsctl explain` with these words after both ends.
    fn asked(words: &str) -> Explain {
        let line = format!("vsctl explain phone relay {words}");
        match Cli::try_parse_from(line.split_whitespace()).unwrap().verb {
            Verb::Explain(explain) => explain,
            _ => panic!("another verb"),
        }
    }

    fn reply() -> ExplainFlowReply {
        ExplainFlowReply {
            allowed: false,
            from: "guest/phone".into(),
            to: "media/relay".into(),
            egress: Some(SideVerdict {
                allowed: true,
                reason: "no policy isolates it".into(),
                ..SideVerdict::default()
            }),
            ingress: Some(SideVerdict {
                allowed: false,
                isolated: true,
                policies: vec!["NetworkPolicy media/relay".into()],
                policy: "NetworkPolicy media/relay".into(),
                position: "no rule".into(),
                reason: "isolated, and no rule matched".into(),
                hint: "add guest/phone to ingress rule 1, from 1".into(),
                staged: "it would be allowed".into(),
            }),
            walk: vec!["parse: udp".into(), "policy: denied".into()],
            walk_error: String::new(),
        }
    }

    #[test]
    fn a_denied_flow_names_policy_and_rule() {
        let report = report(&reply(), &asked("5060/udp"));
        let expected = "guest/phone -> media/relay, 5060/udp: DENIED

leaving (guest/phone): allowed
  because:      no policy isolates it
  selected by:  (none)

arriving (media/relay): denied
  decided by:    NetworkPolicy media/relay, no rule
  because:       isolated, and no rule matched
  selected by:   NetworkPolicy media/relay
  to change it:  add guest/phone to ingress rule 1, from 1
  staged:        it would be allowed

walk on this node
  parse: udp
  policy: denied";
        assert_eq!(report.text, expected);
        assert_eq!(report.value["ingress"]["policy"], "NetworkPolicy media/relay");
        assert_eq!(report.value["service"], "5060/udp");
    }

    #[test]
    fn an_engine_that_runs_other_objects_is_said_to() {
        let older = ExplainFlowReply { walk_error: "the engine runs generation 3".into(), ..reply() };
        let report = report(&older, &asked("5060/udp"));
        assert!(
            report.text.contains(": DENIED by the objects; what this node's engine does now"),
            "{}",
            report.text
        );
        assert!(report.text.ends_with("note: the engine runs generation 3"), "{}", report.text);
    }

    #[test]
    fn an_engine_that_is_away_is_said_to_be() {
        let away = ExplainFlowReply {
            walk: vec![],
            walk_error: "vswitchd does not answer on /x".into(),
            ingress: None,
            ..reply()
        };
        let report = report(&away, &asked("icmp"));
        assert!(
            report.text.ends_with("walk on this node\n  not known: vswitchd does not answer on /x"),
            "{}",
            report.text
        );
        assert_eq!(report.value["ingress"], Value::Null);
    }

    #[test]
    fn a_source_port_that_is_asked_about_is_said() {
        let report = report(&reply(), &asked("5060/udp --source-port 4000"));
        assert!(
            report.text.starts_with("guest/phone -> media/relay, 5060/udp from port 4000: DENIED\n"),
            "{}",
            report.text
        );
        assert_eq!(report.value["sourcePort"], 4000);
        let Err(Failure(problem)) = asked("icmp --source-port 4000").check() else { panic!("it has none") };
        assert_eq!(problem, "--source-port: icmp has none; leave it out");
    }

    #[test]
    fn icmpv6_is_asked_about_over_ipv6() {
        let family = |words| asked(words).family();
        assert_eq!((family("icmpv6"), family("icmpv6 --family 6"), family("icmp")), (Some(6), Some(6), None));
        assert_eq!(family("80/tcp --family 4"), Some(4));
        let Err(Failure(problem)) = asked("icmpv6 --family 4").check() else { panic!("it cannot be") };
        assert!(problem.starts_with("--family: icmpv6 is IPv6's"), "{problem}");
    }
}
