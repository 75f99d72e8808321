//! The source port of a flow of which none is asked about.

use vswitch_model::policy::Standing;

use super::words::name_of_rule;
use super::{Explainer, Flow, Place};
use crate::calc::cluster::{Owner, PodView};
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

    /// Whether any verdict may depend on a source port.
    pub(crate) fn asks_for_source_ports(&self) -> bool {
        self.rules().any(|rule| rule.traffic.has_source_ports())
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
        if !self.is_any_source_port || !matches!(self.protocol, 6 | 17 | 132) {
            return None;
        }
        let asked = self.asked(pod, direction, &|placed| placed.standing != Standing::StagedRemoval);
        let mut rules = asked.policies.iter().flat_map(|(placed, _)| {
            placed.view.rules(direction).into_iter().flatten().map(|rule| (*placed, rule))
        });
        let rule = rules.find(|(_, rule)| {
            rule.traffic.has_source_ports()
                && self.are_ends_meant(rule, direction) != Some(false)
                && self.is_meant_but_for_source_port(rule, direction) != Some(false)
        })?;
        Some(format!(
            "{} depends on the source port, which was taken to be {}: --source-port asks about another",
            name_of_rule(rule),
            self.source_port
        ))
    }
}
