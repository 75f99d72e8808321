//! Policy read straight from the desired state, rule by rule: what the class tables have to agree with, and what can
//! say in words how a verdict came about. Slow; never on the packet path.

use vswitch_model::{
    Action, DesiredState, IdentityId, IdentityKind, Policy, PortMatch, Rule, RuleId, SetId, Tier, TierDefault,
};

use super::{FlowPorts, PolicyDirection, Verdict, View};

/// What the text of [`vswitch_model::policy`] says of a flow at the pod `subject`, by the policies in force.
#[must_use]
pub fn verdict(
    state: &DesiredState,
    direction: PolicyDirection,
    subject: IdentityId,
    peer: IdentityId,
    ports: FlowPorts,
) -> Verdict {
    verdict_in(View::InForce, state, direction, subject, peer, ports)
}

/// What that text says of a flow by the policies of `view`.
///
/// Where that text leaves it open: an unknown subject is denied, by the local node too; the unknown identity is in no
/// set, even if one names it; what passed every tier is [`Verdict::NOT_ISOLATED`].
#[must_use]
pub fn verdict_in(
    view: View,
    state: &DesiredState,
    direction: PolicyDirection,
    subject: IdentityId,
    peer: IdentityId,
    ports: FlowPorts,
) -> Verdict {
    if subject == IdentityId::UNKNOWN || !state.identities.contains_key(&subject) {
        return Verdict::DENY;
    }
    let peer_kind = state.identities.get(&peer).filter(|_| peer != IdentityId::UNKNOWN).map(|peer| peer.kind);
    if direction == PolicyDirection::Ingress && peer_kind == Some(IdentityKind::LocalNode) {
        return Verdict::LOCAL_NODE;
    }
    let Some(entry) = state.subjects.get(&subject) else { return Verdict::NOT_ISOLATED };
    let tiers = match direction {
        PolicyDirection::Ingress => &entry.ingress,
        PolicyDirection::Egress => &entry.egress,
    };
    let mut log = None;
    'tiers: for tier in tiers {
        let policies = policies(view, state, tier);
        if policies.is_empty() && !tier.policies.is_empty() {
            continue;
        }
        for rule in policies.iter().flat_map(|policy| &policy.rules) {
            if matches(state, rule, subject, peer, ports) {
                match rule.action {
                    Action::Allow => return Verdict { allow: true, rule: rule.id, log },
                    Action::Deny => return Verdict { allow: false, rule: rule.id, log },
                    Action::Pass => continue 'tiers,
                    Action::Log => log = log.or(Some(rule.id)),
                }
            }
        }
        if tier.default == TierDefault::Deny {
            let rule = policies.last().map_or(RuleId::NO_RULE_MATCHED, |last| last.denies_by());
            return Verdict { allow: false, rule, log };
        }
    }
    Verdict { log, ..Verdict::NOT_ISOLATED }
}

fn policies<'a>(view: View, state: &'a DesiredState, tier: &Tier) -> Vec<&'a Policy> {
    let policies = tier.policies.iter().filter_map(|id| state.policies.get(id));
    policies.filter(|policy| view.holds(policy.standing)).collect()
}

fn matches(
    state: &DesiredState,
    rule: &Rule,
    subject: IdentityId,
    peer: IdentityId,
    ports: FlowPorts,
) -> bool {
    let FlowPorts { protocol, destination, source } = ports;
    let names = |ranges: &[PortMatch], is_compared: bool, port: u16| {
        ranges.is_empty()
            || ranges.iter().any(|range| {
                range.protocol == protocol && (!is_compared || (range.first..=range.last).contains(&port))
            })
    };
    rule.peers.is_none_or(|set| contains(state, set, peer))
        && rule.not_peers.is_none_or(|set| !contains(state, set, peer))
        && rule.subjects.is_none_or(|set| contains(state, set, subject))
        && rule.not_subjects.is_none_or(|set| !contains(state, set, subject))
        && names(&rule.ports, matches!(protocol, 6 | 17 | 132 | 1 | 58), destination)
        && names(&rule.source_ports, matches!(protocol, 6 | 17 | 132), source)
}

fn contains(state: &DesiredState, set: SetId, identity: IdentityId) -> bool {
    identity != IdentityId::UNKNOWN
        && state.sets.get(&set).is_some_and(|set| set.members.binary_search(&identity).is_ok())
}
