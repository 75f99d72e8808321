use std::collections::HashSet;

use vswitch_datapath::parse;
use vswitch_datapath::policy::{FlowPorts, PolicyTables};

use super::*;
use crate::workload::Frames;

fn every_kind() -> impl Iterator<Item = Policies> {
    Shape::ALL.into_iter().flat_map(|shape| {
        [Family::V4, Family::V6]
            .into_iter()
            .flat_map(move |family| [100, 1000].map(|count| Policies { shape, family, count }))
    })
}

/// Identity by longest match, as the tables have it.
fn identity(state: &DesiredState, address: std::net::IpAddr) -> vswitch_model::IdentityId {
    let covering = state.prefixes.iter().filter(|(net, _)| net.contains(&address));
    covering.max_by_key(|(net, _)| net.prefix_len()).map(|(_, id)| *id).unwrap()
}

#[test]
fn states_are_whole_and_each_rule_is_asked_for() {
    for policies in every_kind() {
        let Ruled { desired, asks, .. } = policies.make();
        desired.check().unwrap();
        let rules: usize = desired.policies.values().map(|policy| policy.rules.len()).sum();
        let expected = if policies.shape == Shape::List { 1 } else { policies.count };
        assert_eq!((rules, asks.len()), (expected, policies.count), "{policies:?}");
        let tables = PolicyTables::build(&desired).unwrap();
        assert_eq!(tables.refused(), []);
        let mut deciding = HashSet::new();
        let mut allowed = 0;
        for Ask { pod, peer, port } in &asks {
            let pod = make::pod_identity(usize::from(*pod));
            let verdict = tables.ingress(pod, identity(&desired, *peer), FlowPorts::to(17, *port));
            allowed += usize::from(verdict.allow);
            deciding.insert(verdict.rule);
        }
        let all =
            if policies.shape == Shape::Overlaps { policies.count / 2 } else { policies.count * 9 / 10 };
        assert!(allowed >= all, "{policies:?}: {allowed} allowed");
        // Some rules are never the first that matches.
        assert!(deciding.len() > rules * 2 / 5, "{policies:?}: {} of {rules} rules decide", deciding.len());
        assert!(policies.make().desired == desired, "the same every time");
    }
}

#[test]
fn names_are_different() {
    let names: HashSet<String> = every_kind().map(Policies::name).collect();
    assert_eq!(names.len(), every_kind().count());
    assert!(names.contains("policies/v4/rules-1k") && names.contains("list/v6/cidrs-100"), "{names:?}");
}

#[test]
fn packets_of_the_spreads_are_flows_of_their_own_over_few_rules_and_over_all() {
    for family in [Family::V4, Family::V6] {
        let ruled = Policies { shape: Shape::Ranges, family, count: 500 }.make();
        let asks = Asks::of(&ruled, family, |_| true).unwrap();
        assert_eq!(SPREADS.map(|spread| asks.different(spread)), [64, 500]);
        let mut tuples = HashSet::new();
        for spread in SPREADS {
            let mut ends = HashSet::new();
            for number in spread.numbers(0).take(2000) {
                let mut frame = Vec::new();
                asks.write(number, &mut frame);
                let parsed = parse::parse(&frame).unwrap();
                let end = (parsed.source, parsed.destination, parsed.destination_port);
                ends.insert(end);
                tuples.insert((end, parsed.source_port));
                assert_eq!(frame.len(), if family == Family::V4 { 60 } else { 62 });
            }
            assert_eq!(ends.len(), asks.different(spread));
        }
        assert_eq!(tuples.len(), 4000, "no two packets are of one flow");
    }
}

#[test]
fn asks_that_hardly_any_rule_allows_are_an_error() {
    let ruled = Policies { shape: Shape::Ranges, family: Family::V4, count: 100 }.make();
    let error = Asks::of(&ruled, Family::V4, |ask| ask.pod == 0).unwrap_err().to_string();
    assert!(error.contains("only 1 of 100 rules"), "{error}");
}
