//! Rules that ask for source ports.

use super::*;

fn from_ports(rule: Rule, source_ports: Vec<PortMatch>) -> Rule {
    Rule { source_ports, ..rule }
}

#[test]
fn a_rule_matches_where_both_its_ports_do() {
    let sip = || allow(16, Some(SetId(0)), vec![range(17, 5060, 5061)]);
    let state = isolated(vec![
        from_ports(sip(), vec![range(17, 1024, 2047), range(17, 5060, 5060), range(6, 0, 65_535)]),
        from_ports(allow(17, None, Vec::new()), vec![range(6, 20, 20), range(132, 0, 9)]),
        from_ports(allow(18, None, Vec::new()), vec![range(1, 7, 7), range(47, 7, 7)]),
    ]);
    let tables = PolicyTables::build(&state).unwrap();
    for (peer, ports, verdict) in [
        (FRIEND, from_to(1024, 17, 5060), by(16)),
        (FRIEND, from_to(2047, 17, 5061), by(16)),
        (FRIEND, from_to(5060, 17, 5060), by(16)),
        (FRIEND, from_to(1023, 17, 5060), Verdict::DENY),
        (FRIEND, from_to(2048, 17, 5060), Verdict::DENY),
        (FRIEND, from_to(1024, 17, 5062), Verdict::DENY),
        (STRANGER, from_to(1024, 17, 5060), Verdict::DENY),
        (FRIEND, from_to(1024, 6, 5060), Verdict::DENY),
        (STRANGER, from_to(20, 6, 65_535), by(17)),
        (STRANGER, from_to(21, 6, 65_535), Verdict::DENY),
        (STRANGER, from_to(9, 132, 0), by(17)),
        (STRANGER, from_to(10, 132, 0), Verdict::DENY),
        (STRANGER, from_to(3, 1, PortMatch::message(8, 0)), by(18)),
        (STRANGER, from_to(0, 47, 0), by(18)),
        (STRANGER, from_to(0, 50, 0), Verdict::DENY),
    ] {
        assert_eq!(tables.ingress(POD, peer, ports), verdict, "{peer} {ports:?}");
    }
    check(&state);
}

#[test]
fn the_first_rule_in_order_decides_at_each_source_port() {
    let rule = |id, action, first, last| {
        let rule = Rule { action, ..allow(id, None, vec![range(6, 80, 90)]) };
        from_ports(rule, vec![range(6, first, last)])
    };
    let state = isolated(vec![
        rule(16, Action::Log, 100, 400),
        rule(17, Action::Deny, 200, 300),
        allow(18, None, vec![range(6, 85, 85)]),
        rule(19, Action::Allow, 250, 65_535),
    ]);
    let tables = PolicyTables::build(&state).unwrap();
    let logged = |verdict| Verdict { log: Some(RuleId(16)), ..verdict };
    for (ports, verdict) in [
        (from_to(99, 6, 85), by(18)),
        (from_to(100, 6, 85), logged(by(18))),
        (from_to(200, 6, 85), logged(Verdict::of(false, RuleId(17)))),
        (from_to(301, 6, 85), logged(by(18))),
        (from_to(401, 6, 86), by(19)),
        (from_to(301, 6, 86), logged(by(19))),
        (from_to(99, 6, 86), Verdict::DENY),
        (from_to(65_535, 6, 91), Verdict::DENY),
    ] {
        assert_eq!(tables.ingress(POD, FRIEND, ports), verdict, "{ports:?}");
    }
    check(&state);
}

#[test]
fn rules_that_ask_for_none_take_nothing_for_those_that_do() {
    let plain = |count: u16| -> Vec<Rule> {
        (0..count).map(|i| allow(16 + u32::from(i), None, vec![range(17, i * 64, i * 64)])).collect()
    };
    let mut rules = plain(500);
    let before = PolicyTables::build(&isolated(rules.clone())).unwrap().ingress.rows.lines();
    rules.push(from_ports(allow(1000, None, Vec::new()), vec![range(6, 1024, 65_535)]));
    let state = isolated(rules);
    let tables = PolicyTables::build(&state).unwrap();
    let after = tables.ingress.rows.lines();
    assert!(after <= before + 8, "one range of source ports at all of TCP: {before} lines, then {after}");
    assert_eq!(tables.ingress(POD, FRIEND, from_to(1024, 6, 9)), by(1000));
    assert_eq!(tables.ingress(POD, FRIEND, from_to(1023, 6, 9)), Verdict::DENY);
    assert_eq!(tables.ingress(POD, FRIEND, from_to(7, 17, 64)), by(17));
}

#[test]
fn a_row_as_deep_as_any() {
    let even = || (0..=14).step_by(2).map(|port| range(6, port, port)).collect::<Vec<_>>();
    // More pieces than a line has, down to single ports and from there to single source ports.
    let state = isolated(vec![from_ports(allow(16, None, even()), even())]);
    let tables = PolicyTables::build(&state).unwrap();
    for (port, source) in (0..20).flat_map(|port| (0..20).map(move |source| (port, source))) {
        let is_meant = |port: u16| port.is_multiple_of(2) && port <= 14;
        let expected = if is_meant(port) && is_meant(source) { by(16) } else { Verdict::DENY };
        assert_eq!(tables.ingress(POD, FRIEND, from_to(source, 6, port)), expected, "{source} to {port}");
    }
    check(&state);
}

#[test]
fn as_many_source_ports_as_there_are_beside_as_many_ports() {
    let rules = (0..=65_535u16).step_by(8).map(|port| {
        let rule = allow(16 + u32::from(port), None, vec![range(6, port, port)]);
        from_ports(rule, vec![range(6, 65_535 - port, 65_535 - port)])
    });
    let tables = PolicyTables::build(&isolated(rules.collect())).unwrap();
    assert_eq!(tables.refused(), []);
    for port in (0..=65_535u16).step_by(8 * 37) {
        let verdict = |source| tables.ingress(POD, FRIEND, from_to(source, 6, port));
        assert_eq!(verdict(65_535 - port), by(16 + u32::from(port)));
        assert_eq!(verdict(65_534 - port), Verdict::DENY);
    }
}

#[test]
fn what_takes_too_much_denies_its_own_pods_and_says_so() {
    // Each port of a rule's with each source port of all others.
    let rules = (0..200u16).map(|i| {
        let rule = allow(16 + u32::from(i), None, vec![range(6, i, 60_000 + i)]);
        from_ports(rule, vec![range(6, 100 * i, 100 * i + 7)])
    });
    let state = isolated(rules.collect());
    for (what, limits) in [
        ("lines of verdicts", Limits { lines: 400, ..Limits::DEFAULT }),
        ("steps of compiling", Limits { steps: 10_000, ..Limits::DEFAULT }),
    ] {
        let tables = PolicyTables::build_within(&state, &limits).unwrap();
        let [refused] = tables.refused() else { panic!("{what}: {:?}", tables.refused()) };
        assert!(refused.error.what.starts_with(what), "{refused:?}");
        assert!(refused.error.takes < 2 * refused.error.most, "it stops where the limit is: {refused:?}");
        assert_eq!(tables.ingress(POD, FRIEND, from_to(0, 6, 0)), Verdict::TOO_LARGE);
    }
    let tables = PolicyTables::build(&state).unwrap();
    assert_eq!((tables.refused(), tables.ingress(POD, FRIEND, from_to(507, 6, 60_005))), (&[][..], by(21)));
}
