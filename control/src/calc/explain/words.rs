//! Decisions in words: what decided, and what would have to change to turn it round.

use super::judge::{Asked, Decision, RuleOf};
use super::{Flow, Place, Side};
use crate::calc::cluster::Owner;
use crate::calc::policy::Placed;
use crate::calc::policy::view::{RuleAction, TierName};
use crate::calc::referred::TierView;
use crate::object::{Kind, PolicyType};

/// A rule that does not let the flow through, and what is missing.
struct NearMiss<'r> {
    place: String,
    peer_matches: bool,
    /// Whether it speaks of the flow's protocol.
    protocol_matches: bool,
    /// Whether all but the source port does.
    only_source_port: bool,
    /// Named ports of it that the destination pod does not have.
    unknown_names: Vec<&'r str>,
}

impl<'a> Flow<'a> {
    /// What a decision comes to.
    pub(super) fn side(&self, asked: &Asked<'a>, decision: &Decision<'a>, direction: PolicyType) -> Side {
        let (own, other) = self.ends(direction);
        if asked.policies.is_empty() {
            let mut side =
                Side::open(format!("no policy isolates {} for {}", self.describe(own), direction.text()));
            side.hint = format!(
                "any policy that selects it, with {direction:?} among its policyTypes, would isolate it"
            );
            return side;
        }
        let names: Vec<_> = asked.policies.iter().map(|(placed, tier)| name_in(placed, tier)).collect();
        let mut side = Side { allowed: decision.allowed, isolated: true, policies: names, ..Side::default() };
        let told = |rules: &[RuleOf<'_>], what: &str| {
            let names: Vec<_> = rules.iter().map(|rule| name_of_rule(*rule)).collect();
            if names.is_empty() { String::new() } else { format!("{what} by {}; ", names.join(", then ")) }
        };
        let before = told(&decision.logged, "logged") + &told(&decision.passed, "passed to the next tier");
        let decided = match (decision.rule, decision.tier) {
            (Some(rule), _) => {
                side.policy = rule.0.view.source.to_string();
                side.position = rule.1.position.clone();
                side.hint = self.hint_without(asked, decision, rule, direction);
                let does = if decision.allowed { "allows" } else { "denies" };
                match decision.unknown {
                    false => format!("{} {does} it{}", name_of_rule(rule), self.by_name(rule, other)),
                    true => format!(
                        "{} may mean it: not enough is known of {} and {} to say",
                        name_of_rule(rule),
                        self.describe(own),
                        self.describe(other)
                    ),
                }
            }
            (None, Some(tier)) => {
                side.hint = self.hint_of_misses(asked, tier, direction);
                left_over(asked, tier)
            }
            (None, None) => {
                let (peer, port) = (self.describe(other), self.describe_port());
                side.hint = format!("a rule of any of these would have to deny {peer} at {port}");
                "no rule decided it, and these policies leave that to be allowed".into()
            }
        };
        side.reason = format!("{before}{decided}");
        if let Some(note) = self.note_of_names(asked, direction).filter(|_| !decision.allowed) {
            side.hint = format!("{}; {note}", side.hint);
        }
        side
    }

    /// Which name let an address in, where the rule is about names.
    fn by_name(&self, (_, rule): RuleOf<'_>, other: Place<'_>) -> String {
        let mut named = self.names.of(&rule.peer.domains);
        let found = named.find(|(_, address)| *address == other.address);
        found.map_or_else(String::new, |(name, address)| {
            format!(": {address} is {name}, as DNS told a pod of this node")
        })
    }

    /// The rule that would allow the flow, had DNS told that the address is one of its names.
    fn note_of_names(&self, asked: &Asked<'a>, direction: PolicyType) -> Option<String> {
        let (_, other) = self.ends(direction);
        let rules = asked.policies.iter().flat_map(|(placed, _)| {
            placed.view.rules(direction).into_iter().flatten().map(|rule| (*placed, rule))
        });
        let rule = rules
            .filter(|(_, rule)| rule.action == RuleAction::Allow && !rule.peer.domains.is_empty())
            .find(|(_, rule)| {
                self.is_traffic_meant(rule, direction) == Some(true)
                    && self.are_ends_meant(rule, direction) != Some(true)
            })?;
        let names: Vec<_> = rule.1.peer.domains.iter().map(ToString::to_string).collect();
        let (rule, address) = (name_of_rule(rule), other.address);
        Some(format!(
            "{rule} allows {}, and DNS told no pod of this node that {address} is that",
            names.join(", ")
        ))
    }

    /// What is denied because it is not known what is allowed.
    pub(super) fn closed(&self, asked: &Asked<'a>, direction: PolicyType) -> Side {
        let (own, _) = self.ends(direction);
        let known = asked.policies.iter().map(|(placed, tier)| name_in(placed, tier));
        let others = asked.homeless.iter().chain(&asked.unknown);
        let others = others.map(|placed| placed.view.source.to_string());
        let (reason, hint) = match asked.homeless.as_slice() {
            [] => {
                let (whose, until) = self.unlabelled(own);
                (
                    format!(
                        "the labels of {whose}{} are not known, and a policy may select it",
                        self.describe(own)
                    ),
                    format!("nothing is allowed until {until}"),
                )
            }
            [placed, ..] => {
                let tier = match &placed.view.tier {
                    TierName::Named(name) => name.as_str(),
                    _ => "",
                };
                (
                    format!("{} is in tier {tier}, which is not there", placed.view.source),
                    "nothing is allowed until the tier is there or the policy is in another".to_owned(),
                )
            }
        };
        Side { isolated: true, policies: known.chain(others).collect(), reason, hint, ..Side::default() }
    }

    /// Whose labels are not known where those of a pod are not, and what would have to be for them to be known.
    fn unlabelled(&self, place: Place<'_>) -> (&'static str, &'static str) {
        match place.owner {
            Some(Owner::Pod(pod)) if self.cluster.pods[pod].labels.is_some() => {
                ("the namespace or service account of ", "the namespace and the service account can be read")
            }
            _ => ("", "its Pod object is there"),
        }
    }

    /// What would become of the flow without the rule that decided.
    fn hint_without(
        &self,
        asked: &Asked<'a>,
        decision: &Decision<'a>,
        rule: RuleOf<'a>,
        direction: PolicyType,
    ) -> String {
        let otherwise = self.ask(asked, direction, Some(rule.1));
        let still = if otherwise.allowed == decision.allowed { "still " } else { "" };
        let verdict = if otherwise.allowed { "allowed" } else { "denied" };
        let by = otherwise.rule.map(|rule| format!(", by {}", name_of_rule(rule))).unwrap_or_default();
        format!("without that rule it would {still}be {verdict}{by}")
    }

    /// What rules of the tier that denied would have to say.
    fn hint_of_misses(&self, asked: &Asked<'a>, tier: &TierView, direction: PolicyType) -> String {
        let (_, other) = self.ends(direction);
        let (peer, port) = (self.describe(other), self.describe_port());
        let in_tier = asked.policies.iter().filter(|(_, other)| other.place == tier.place);
        let rules = in_tier.flat_map(|(placed, _)| {
            placed.view.rules(direction).into_iter().flatten().map(|rule| (*placed, rule))
        });
        let helps = |rule: &RuleOf<'_>| matches!(rule.1.action, RuleAction::Allow | RuleAction::Pass);
        let misses = rules.filter(helps).filter_map(|rule| {
            let peer_matches = self.are_ends_meant(rule.1, direction) == Some(true);
            let port_matches = self.is_traffic_meant(rule.1, direction) == Some(true);
            let unknown_names = self.names_not_of_pod(rule.1);
            let only_source_port = peer_matches
                && !port_matches
                && self.is_meant_but_for_source_port(rule.1, direction) == Some(true);
            let any_of = &rule.1.traffic.any_of;
            let protocol_matches =
                any_of.is_empty() || any_of.iter().any(|ports| ports.protocol == self.protocol);
            let place = name_of_rule(rule);
            let miss = NearMiss { place, peer_matches, protocol_matches, only_source_port, unknown_names };
            (peer_matches || port_matches).then_some(miss)
        });
        match misses.max_by_key(|miss| (miss.protocol_matches, miss.only_source_port, miss.peer_matches)) {
            Some(NearMiss { place, only_source_port: true, .. }) => format!(
                "{place} admits {peer} at {port}, but not from source port {}: its source ports would have to have that",
                self.source_port
            ),
            Some(NearMiss { place, peer_matches: true, unknown_names, .. }) if !unknown_names.is_empty() => {
                let (named, has) = (unknown_names.join(", "), self.ports_of_pod());
                format!("{place} admits {peer}, but port {named} is none of this pod's ({has})")
            }
            Some(NearMiss { place, peer_matches: true, protocol_matches: false, .. }) => {
                format!("{place} admits {peer}, but not {port}: its protocol is another")
            }
            Some(NearMiss { place, peer_matches: true, .. }) => {
                format!("{place} admits {peer}, but not at {port}: its ports would have to have that")
            }
            Some(NearMiss { place, .. }) => {
                format!("{place} is open at {port}, but not for {peer}: that would have to match it")
            }
            None => format!("a rule of any of these would have to admit {peer} at {port}"),
        }
    }
}

impl Side {
    pub(super) fn open(reason: String) -> Self {
        Self { allowed: true, reason, ..Self::default() }
    }
}

/// What it means that no rule of a tier matched and its default denies: Kubernetes' policies isolate, in Calico's tiers
/// the tier's default action denies.
fn left_over(asked: &Asked<'_>, tier: &TierView) -> String {
    let in_tier: Vec<_> = asked.policies.iter().filter(|(_, other)| other.place == tier.place).collect();
    let names: Vec<_> = in_tier.iter().map(|(placed, _)| placed.view.source.to_string()).collect();
    let counted = if names.len() > 1 { " (it counts with the last of them)" } else { "" };
    let names = names.join(", ");
    if in_tier.iter().all(|(placed, _)| placed.view.source.kind == Kind::NetworkPolicy) {
        return format!("isolated by {names}; no rule matched{counted}");
    }
    match tier.place.name.as_str() {
        TierView::PROFILES => {
            format!("no rule of {names} matched{counted}, and nothing is asked after profiles")
        }
        tier => format!("no rule of {names} matched{counted}, and the default action of tier {tier} is Deny"),
    }
}

/// `ClusterNetworkPolicy guard, ingress rule 2`
pub(super) fn name_of_rule((placed, rule): RuleOf<'_>) -> String {
    format!("{}, {}", placed.view.source, rule.position)
}

/// The policy, and its tier unless it is the default one.
pub(super) fn name_in(placed: &Placed, tier: &TierView) -> String {
    match tier.place.name.as_str() {
        "default" | TierView::PROFILES => placed.view.source.to_string(),
        tier => format!("{} (tier {tier})", placed.view.source),
    }
}
