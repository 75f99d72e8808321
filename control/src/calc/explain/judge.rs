//! What one end says of a flow: its policies asked one after another.

use vswitch_model::policy::Standing;

use super::{Flow, Side};
use crate::calc::cluster::{Owner, PodView};
use crate::calc::policy::Placed;
use crate::calc::policy::select::Candidate;
use crate::calc::policy::view::{RuleAction, RuleView};
use crate::calc::referred::TierView;
use crate::object::PolicyType;

/// A rule and its policy.
pub(super) type RuleOf<'a> = (&'a Placed, &'a RuleView);

/// How it came out.
pub(super) struct Decision<'a> {
    pub(super) allowed: bool,
    /// The rule that decided. None: a tier's default did, or the last tier passed.
    pub(super) rule: Option<RuleOf<'a>>,
    /// The tier whose default denied, if one did.
    pub(super) tier: Option<&'a TierView>,
    /// Rules that passed the flow on to the next tier.
    pub(super) passed: Vec<RuleOf<'a>>,
    /// Rules that mark the flow for the log.
    pub(super) logged: Vec<RuleOf<'a>>,
    /// Whether the rule decided because the other end's labels are not known.
    pub(super) unknown: bool,
}

/// Who is asked.
#[derive(Default)]
pub(super) struct Asked<'a> {
    /// Policies that select the pod and speak of the direction, in order.
    pub(super) policies: Vec<(&'a Placed, &'a TierView)>,
    /// Policies that may select it, as far as is known.
    pub(super) unknown: Vec<&'a Placed>,
    /// Policies that select it and whose tier is not there.
    pub(super) homeless: Vec<&'a Placed>,
}

impl<'a> Flow<'a> {
    pub(super) fn judge(&self, direction: PolicyType) -> Side {
        let (own, other) = self.ends(direction);
        let Some(Owner::Pod(pod)) = own.owner else {
            return Side::open(format!("{} is no pod: no policy speaks of it", self.describe(own)));
        };
        let pod = &self.cluster.pods[pod];
        if own.owner == other.owner && pod.has_together(own.address, other.address) {
            return Side::open("a pod always reaches itself".into());
        }
        if let (PolicyType::Ingress, Some(Owner::Node(node))) = (direction, other.owner)
            && pod.addresses.get(&own.address) == Some(&Some(node))
        {
            return Side::open(format!("node {node} always reaches its own pods"));
        }
        let asked = self.asked(pod, direction, &|placed| placed.is_enforced());
        let is_closed = !asked.unknown.is_empty() || !asked.homeless.is_empty();
        let mut side = if is_closed {
            self.closed(&asked, direction)
        } else {
            self.side(&asked, &self.ask(&asked, direction, None), direction)
        };
        if !is_closed && let Some(note) = self.note_of_source_port(pod, direction) {
            side.hint = if side.hint.is_empty() { note } else { format!("{}; {note}", side.hint) };
        }
        side.staged = self.staged(pod, direction, is_closed);
        side
    }

    /// Which of the policies meant are asked about the pod.
    pub(super) fn asked(
        &self,
        pod: &PodView<'_>,
        direction: PolicyType,
        is_meant: &dyn Fn(&Placed) -> bool,
    ) -> Asked<'a> {
        let mut asked = Asked::default();
        let Some(pod) = Candidate::pod(pod, &self.cluster.referred) else { return asked };
        let policies = self.policies.iter().filter(|placed| placed.view.rules(direction).is_some());
        for placed in policies.filter(|placed| is_meant(placed)) {
            match (placed.selects(&pod), &placed.tier) {
                (Some(false), _) => {}
                (Some(true), Some(tier)) => asked.policies.push((placed, tier)),
                (_, None) => asked.homeless.push(placed),
                (None, _) => asked.unknown.push(placed),
            }
        }
        asked
    }

    /// Asks one after another, as if one of the rules were not there.
    pub(super) fn ask(
        &self,
        asked: &Asked<'a>,
        direction: PolicyType,
        without: Option<&RuleView>,
    ) -> Decision<'a> {
        let (mut passed, mut logged) = (Vec::new(), Vec::new());
        'tiers: for tier in asked.policies.chunk_by(|(_, one), (_, other)| one.place == other.place) {
            for (placed, _) in tier {
                for rule in placed.view.rules(direction).into_iter().flatten() {
                    if without.is_some_and(|without| std::ptr::eq(without, rule)) {
                        continue;
                    }
                    let is_meant = self.is_meant(rule, direction);
                    let (allowed, unknown) = match (rule.action, is_meant) {
                        (_, Some(false)) | (RuleAction::Allow | RuleAction::Log, None) => continue,
                        (RuleAction::Log, Some(true)) => {
                            logged.push((*placed, rule));
                            continue;
                        }
                        (RuleAction::Allow, Some(true)) => (true, false),
                        (RuleAction::Deny | RuleAction::Pass, None) => (false, true),
                        (RuleAction::Deny, Some(true)) => (false, false),
                        (RuleAction::Pass, Some(true)) => {
                            passed.push((*placed, rule));
                            continue 'tiers;
                        }
                    };
                    return Decision {
                        allowed,
                        rule: Some((*placed, rule)),
                        tier: None,
                        passed,
                        logged,
                        unknown,
                    };
                }
            }
            if let [(_, tier), ..] = tier
                && !tier.passes
            {
                return Decision {
                    allowed: false,
                    rule: None,
                    tier: Some(*tier),
                    passed,
                    logged,
                    unknown: false,
                };
            }
        }
        Decision { allowed: true, rule: None, tier: None, passed, logged, unknown: false }
    }

    /// What would become of it if all that is staged were in force; nothing is said when nothing staged concerns it.
    fn staged(&self, pod: &PodView<'_>, direction: PolicyType, is_closed: bool) -> String {
        let concerned = self.asked(pod, direction, &|placed| placed.standing != Standing::Enforced);
        if concerned.policies.is_empty() {
            return String::new();
        }
        if is_closed {
            return "it would be denied, too".into();
        }
        let asked = self.asked(pod, direction, &|placed| placed.standing != Standing::StagedRemoval);
        let decision = self.ask(&asked, direction, None);
        let by = match (decision.rule, decision.tier) {
            (Some(rule), _) => format!(", by {}", super::words::name_of_rule(rule)),
            (None, Some(tier)) => {
                let in_tier = asked.policies.iter().filter(|(_, other)| other.place == tier.place);
                let names: Vec<_> =
                    in_tier.map(|(placed, tier)| super::words::name_in(placed, tier)).collect();
                format!(": no rule of {} would match", names.join(", "))
            }
            (None, None) => String::new(),
        };
        let verdict = if decision.allowed { "allowed" } else { "denied" };
        format!("it would be {verdict}{by}")
    }
}
