//! The source port of a flow of which none is asked about.

use vswitch_model::policy::Standing;

use super::judge::RuleOf;
use super::words::name_of_rule;
use super::{Explainer, Flow, Place, Question};
use crate::calc::cluster::{Owner, PodView};
use crate::calc::policy::Placed;
use crate::calc::policy::view::{FlowEnd, Ports, RuleView};
use crate::object::PolicyType;

/// Where the ports begin that systems send from (RFC 6335, section 6).
const DYNAMIC: u16 = 49_152;

impl Explainer<'_> {
    /// A source port that no rule of this protocol names: a dynamic one, or else the lowest. Where all are named, 49152.
    pub(super) fn unnamed_source_port(&self, protocol: u8, from: Place<'_>) -> u16 {
        let mut named: Vec<(u16, u16)> = Vec::new();
        for port in self.rules().flat_map(|rule| {
            let (any_of, none_of) = rule.traffic.at(FlowEnd::Source);
            any_of.iter().chain(none_of)
        }) {
            match &port.ports {
                Ports::Range(first, last) if port.protocol == protocol => named.push((*first, *last)),
                Ports::Range(..) => {}
                Ports::Named(name) => {
                    let Some(Owner::Pod(pod)) = from.owner else { continue };
                    let ports = self.cluster.pods[pod].ports.iter().filter(|(known, ..)| known == name);
                    named.extend(ports.map(|(_, _, number)| (*number, *number)));
                }
            }
        }
        named.sort_unstable();
        let first_free = |from: u16, to: u16| {
            let free = named.iter().fold(u32::from(from), |free, (first, last)| {
                if u32::from(*first) > free { free } else { free.max(u32::from(*last) + 1) }
            });
            u16::try_from(free).ok().filter(|free| *free <= to)
        };
        first_free(DYNAMIC, u16::MAX).or_else(|| first_free(1, DYNAMIC - 1)).unwrap_or(DYNAMIC)
    }

    /// Whether what becomes of a flow may depend on its source port. Of one that cannot be explained it does not.
    pub(crate) fn asks_for_source_port(&self, question: &Question) -> bool {
        if !has_source_port(question.protocol) || !self.rules().any(|rule| rule.traffic.has_source_ports()) {
            return false;
        }
        self.flow(question).is_ok_and(|flow| {
            PolicyType::ALL.into_iter().any(|direction| {
                let (own, _) = flow.ends(direction);
                let Some(Owner::Pod(pod)) = own.owner else { return false };
                flow.rule_of_source_port(&flow.cluster.pods[pod], direction, &|_| true).is_some()
            })
        })
    }

    fn rules(&self) -> impl Iterator<Item = &RuleView> {
        let of = |direction| {
            let of_all = self.policies.iter().filter_map(move |placed| placed.view.rules(direction));
            of_all.flatten()
        };
        PolicyType::ALL.into_iter().flat_map(of)
    }
}

impl Flow<'_> {
    /// That nobody asked about this source port, where a rule depends on it.
    pub(super) fn note_of_source_port(&self, pod: &PodView<'_>, direction: PolicyType) -> Option<String> {
        if !self.is_any_source_port {
            return None;
        }
        let rule =
            self.rule_of_source_port(pod, direction, &|placed| placed.standing != Standing::StagedRemoval)?;
        Some(format!(
            "{} depends on the source port, which was taken to be {}: --source-port asks about another",
            name_of_rule(rule),
            self.source_port
        ))
    }

    /// The first rule of the policies meant that depends on the source port and may mean the flow but for that.
    fn rule_of_source_port(
        &self,
        pod: &PodView<'_>,
        direction: PolicyType,
        is_meant: &dyn Fn(&Placed) -> bool,
    ) -> Option<RuleOf<'_>> {
        if !has_source_port(self.protocol) {
            return None;
        }
        let asked = self.asked(pod, direction, is_meant);
        let mut rules = asked.policies.iter().flat_map(|(placed, _)| {
            placed.view.rules(direction).into_iter().flatten().map(|rule| (*placed, rule))
        });
        rules.find(|(_, rule)| {
            rule.traffic.has_source_ports()
                && self.are_ends_meant(rule, direction) != Some(false)
                && self.is_meant_but_for_source_port(rule, direction) != Some(false)
        })
    }
}

/// TCP, UDP and SCTP: what ICMP has in that place is the number of a query.
const fn has_source_port(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}
