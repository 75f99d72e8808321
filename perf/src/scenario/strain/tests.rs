use super::*;

#[test]
fn every_case_gives_its_figures() {
    let mut session = Session::for_tests();
    let sizes = Sizes { routes: 3000, rules: 200, flows: 20_000, flood_seconds: 0.01, start: 8 << 20 };
    loads(&mut session, &sizes).unwrap();
    expiry(&mut session, &sizes).unwrap();
    flood(&mut session, sizes.flood_seconds).unwrap();
    start(&mut session, sizes.start).unwrap();
    let value = |case: &str, metric: &str| {
        let found = session.results.iter().find(|row| row.case == case && row.metric == metric);
        found.unwrap_or_else(|| panic!("no {case} {metric}: {:?}", session.results)).value
    };
    for case in ["routes-3k", "rules-200", "flows-20k"] {
        let [median, most, worst] =
            ["turn/median", "turn/p99.9", "turn/worst"].map(|metric| value(case, metric));
        assert!(0.0 < median && median <= most && most <= worst, "{case}: {median} {most} {worst}");
    }
    // A turn looks at 512 flows at most, so that it takes so many turns.
    assert!(value("flows-20k", "turns") >= 20_000.0 / 512.0);
    assert!(value("start/8MiB", "start") > 0.0);
    for case in ["flood-1Mpps", "flood-1Mpps/syn", "flood-1Mpps/same-port"] {
        for metric in ["goodput", "looked-at", "opened", "others-opened"] {
            let part = value(case, metric);
            assert!(part > 0.0 && part <= 100.0 / 0.99, "{case} {metric}: {part}");
        }
    }
}
