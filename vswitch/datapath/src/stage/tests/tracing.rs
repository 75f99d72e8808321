use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use vswitch_model::{DropReason, RuleId};

use crate::WalkConfig;
use crate::encap::Carried;
use crate::explain::{Query, RuleVerdict, explain};
use crate::testing::World;
use crate::testing::frames;
use crate::testing::world::{A, B, C, HOST, RULE_SERVER, TUNNEL_V4, UPLINK, v4, v6};
use crate::trace::{Step, TraceFilter, TraceSpec, Way};

fn traced(world: &mut World, filter: TraceFilter, capacity: usize) -> Arc<ArrayQueue<crate::TraceRecord>> {
    let records = Arc::new(ArrayQueue::new(capacity));
    world.walk.set_trace(Some(TraceSpec { filter, records: Arc::clone(&records) }));
    records
}

#[test]
fn a_trace_tells_each_step() {
    let mut world = World::node(1);
    let records = traced(&mut world, TraceFilter::default(), 8);
    let inner = world.inner_ends(A, v4(1, B)).udp(7, 5000, b"media");
    let frame = frames::vxlan(world.tunnel_ends(false), 4096, 4789, &inner);
    world.send(UPLINK, &frame);
    world.send(UPLINK, &frame);
    let first = records.pop().unwrap();
    assert_eq!((first.in_port, first.outcome, first.length), (UPLINK, Ok(B), frame.len()));
    assert_eq!(first.head(), &frame[..]);
    let parsed = Step::Parsed { source: v4(2, A), destination: v4(1, B), protocol: 17, ports: (7, 5000) };
    let rules = (RuleId::NOT_ISOLATED, RULE_SERVER);
    let steps: Vec<_> = first.steps().copied().collect();
    let opened = Step::FlowOpened { egress: rules.0, ingress: rules.1 };
    assert_eq!(
        steps,
        [Step::Decapsulated(TUNNEL_V4, Carried::Vxlan(4096)), parsed, opened, Step::Routed(Way::Pod)]
    );
    let second = records.pop().unwrap();
    assert_eq!(second.steps().nth(2), Some(&Step::FlowKnown { egress: rules.0, ingress: rules.1 }));
    world.walk.set_trace(None);
    world.send(UPLINK, &frame);
    assert!(records.is_empty());
}

#[test]
fn a_trace_tells_why_a_packet_ended() {
    let mut world = World::node(1);
    let records = traced(&mut world, TraceFilter { drops_only: true, ..TraceFilter::default() }, 8);
    let client = world.ends(A, v4(1, B));
    let dying = client.with_ttl(1).udp(7, 5000, &[]);
    let denied = client.udp(7, 1, &[]);
    world.send_all([(A, client.udp(7, 5000, &[])), (A, dying), (A, denied), (A, vec![1; 10])]);
    let outcomes: Vec<_> = std::iter::from_fn(|| records.pop()).collect();
    let reasons: Vec<_> = outcomes.iter().map(|record| record.outcome.unwrap_err()).collect();
    assert_eq!(reasons, [DropReason::TtlExpired, DropReason::PolicyIngress, DropReason::Truncated]);
    assert!(outcomes[0].steps().any(|step| *step == Step::Reported(DropReason::TtlExpired)));
    assert!(outcomes[1].steps().any(|step| *step == Step::Denied(RuleId::NO_RULE_MATCHED)));
    assert_eq!(outcomes[2].steps().count(), 0);
}

#[test]
fn a_trace_tells_nobody_elses_rules() {
    let mut world = World::with_config(1, &WalkConfig { flows: 1, ..WalkConfig::default() });
    let records = traced(&mut world, TraceFilter::default(), 8);
    let [server, other] = [v4(1, B), v4(2, A)].map(|to| world.ends(A, to).udp(7, 5000, &[]));
    // The second one's flow takes the place of the first one's within the batch.
    world.send_all([(A, server), (A, other)]);
    let [first, second] = [(); 2].map(|()| records.pop().unwrap());
    assert_eq!((first.outcome, second.outcome), (Ok(B), Ok(UPLINK)));
    assert!(first.steps().all(|step| step.stage() != "flow"), "{first:?}");
    let rules = Step::FlowOpened { egress: RuleId::NOT_ISOLATED, ingress: RuleId::NOT_ISOLATED };
    assert!(second.steps().any(|step| *step == rules), "{second:?}");
}

#[test]
fn a_filter_chooses_and_a_full_queue_counts_what_it_lost() {
    let mut world = World::node(1);
    let filter = TraceFilter { port: Some(5001), in_port: Some(A), ..TraceFilter::default() };
    let records = traced(&mut world, filter, 2);
    let client = world.ends(A, v4(1, B));
    let frame = |port| (A, client.udp(7, port, &[]));
    world.send_all([frame(5000), frame(5001), frame(5001), frame(5001), frame(5001)]);
    assert_eq!(records.len(), 2);
    assert!(std::iter::from_fn(|| records.pop()).all(|record| record.lost == 0));
    world.send_all([frame(5001)]);
    assert_eq!(records.pop().unwrap().lost, 2);
}

fn query(source: std::net::IpAddr, destination: std::net::IpAddr, port: u16) -> Query {
    Query { source, destination, protocol: 17, source_port: 7, destination_port: port }
}

#[test]
fn an_explanation_names_what_decides() {
    let world = World::node(1);
    let told = explain(&world.tables, &query(v4(1, A), v4(1, B), 5000));
    assert_eq!((told.in_port, told.outcome), (Some(A), Ok(B)));
    assert_eq!(told.egress, Some(RuleVerdict { allowed: true, rule: RuleId::NOT_ISOLATED }));
    assert_eq!(told.ingress, Some(RuleVerdict { allowed: true, rule: RULE_SERVER }));

    let told = explain(&world.tables, &query(v4(1, C), v4(1, B), 5000));
    assert_eq!(told.outcome, Err(DropReason::PolicyEgress));
    let denied = Some(RuleVerdict { allowed: false, rule: RuleId::NO_RULE_MATCHED });
    assert_eq!((told.egress, told.ingress), (denied, denied), "both that stand in the way are told");

    let told = explain(&world.tables, &query(v4(1, HOST), v4(1, B), 1));
    assert_eq!((told.in_port, told.outcome), (Some(HOST), Ok(B)));
    assert_eq!(told.ingress, Some(RuleVerdict { allowed: true, rule: RuleId::LOCAL_NODE }));

    let told = explain(&world.tables, &query(v6(2, A), v6(1, B), 5000));
    assert_eq!((told.in_port, told.outcome, told.egress), (Some(UPLINK), Ok(B), None));
    let last = told.steps.last().unwrap();
    assert_eq!((last.stage, last.detail.as_str()), ("transmit", "sent by port b"));
}

/// Whatever is asked, the answer is what the walk does.
#[test]
fn explanation_and_walk_agree() {
    let addresses = [
        v4(1, A),
        v4(1, B),
        v4(1, C),
        v4(2, A),
        v4(2, B),
        v4(1, HOST),
        [8, 8, 8, 8].into(),
        [10, 0, 1, 40].into(),
        [10, 0, 4, 5].into(),
        [10, 0, 3, 5].into(),
        [224, 0, 0, 1].into(),
        [169, 254, 1, 1].into(),
        v6(1, A),
        v6(1, B),
        v6(2, C),
    ];
    for (pod, source) in [(A, v4(1, A)), (B, v4(1, B)), (C, v4(1, C)), (A, v6(1, A)), (C, v6(1, C))] {
        for destination in addresses.into_iter().filter(|address| address.is_ipv4() == source.is_ipv4()) {
            for port in [80, 5000] {
                let mut world = World::node(1);
                let records = traced(&mut world, TraceFilter::default(), 1);
                let frame = world.ends(pod, destination).udp(7, port, &[]);
                world.send(pod, &frame);
                let told = explain(&world.tables, &query(source, destination, port));
                assert_eq!(
                    told.outcome,
                    records.pop().unwrap().outcome,
                    "{source} to {destination} port {port}"
                );
            }
        }
    }
}
