use super::*;

#[test]
fn deltas_lead_where_they_should() {
    for (change, grown) in [(Change::Policy(200), 0), (Change::Routes(500), 500), (Change::Pods(3), 6)] {
        let mut state = State::new(Contender::Ours, change);
        let mut engine = state.desired().clone();
        let routes = engine.routes.len();
        for step in change.steps() {
            let change::Prepared::Deltas(deltas) = state.prepare(step).unwrap() else { panic!("deltas") };
            assert_eq!(deltas.len(), change.parts());
            for delta in deltas {
                assert!(!delta.is_empty());
                delta.into_iter().for_each(|change| engine.apply(change));
                engine.check().unwrap();
            }
            assert_eq!(&engine, state.desired());
            let expected = if step == "load" || step == "come" { routes + grown } else { routes };
            assert_eq!(engine.routes.len(), expected, "{change:?} {step}");
        }
    }
}

#[test]
fn names_are_stable() {
    assert_eq!(Change::Policy(100_000).case("swap"), "policy/rules-100k/swap");
    assert_eq!(Change::Routes(1_000_000).case("load"), "routes/routes-1M/load");
    assert_eq!(Change::Pods(16).case("come"), "pods/pods-16/come");
}

/// Small changes of each kind by each contender that has it: every packet is accounted for (else the run says Miscounted).
#[test]
fn changes_come_into_force_under_traffic() {
    if crate::traffic::skipped() {
        return;
    }
    let (mut session, mut figures) = (Session::for_tests(), Rounds::new(NAME));
    let plan = [
        (Contender::Ours, Change::Policy(200)),
        (Contender::KernelConntrack, Change::Policy(200)),
        (Contender::Ours, Change::Routes(1000)),
        (Contender::Kernel, Change::Routes(1000)),
        (Contender::Ours, Change::Pods(2)),
    ];
    round(&mut session, Cores::two().unwrap(), &plan, &mut figures).unwrap();
    figures.record(&mut session);
    let in_force: Vec<_> = session.results.iter().filter(|row| row.metric == "in-force").collect();
    assert_eq!(in_force.len(), 6, "{in_force:?}");
    assert!(in_force.iter().all(|row| row.value > 0.0));
    // A ratio is recorded, marked, of void rounds too; a void peer is not shown beside ours.
    let ratios = session.results.iter().filter(|row| crate::result::ratio_of(&row.metric).is_some());
    assert_eq!(ratios.count(), 4, "{:?}", session.notes);
}
