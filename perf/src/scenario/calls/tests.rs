use super::*;

/// Ten calls through each contender: every packet is accounted for (else the run says Miscounted), and most arrive.
#[test]
fn calls_go_through_every_contender_and_are_counted() {
    if crate::traffic::skipped() {
        return;
    }
    let session = Session::for_tests();
    for contender in Contender::ALL {
        let mut calls = Calls::set_up(contender, Cores::two().unwrap()).unwrap();
        let trial = calls.run(&session, 10, Duration::from_millis(200)).unwrap();
        assert_eq!(trial.sent.packets, 200, "20 streams, 10 periods");
        assert_eq!(trial.received.packets() + trial.lost(), 200, "{contender:?}: {:?}", trial.lost);
        assert!(trial.received.packets() > 100, "{contender:?}: {:?}", trial.lost);
        assert_eq!(trial.received.unknown, 0);
        assert!(trial.received.relayed >= trial.received.packets(), "all goes by the relay");
        let heard = quality(&trial, 20).unwrap();
        assert!(heard.delay_us[0] > 0.0 && heard.mos.0 > 1.0, "{heard:?}");
    }
}

/// A sender that hands everything over late is no proof of anything, lost or not.
#[test]
fn a_late_sender_is_too_slow_whatever_was_lost() {
    let trial = |late_ns: u64, lost: u64| {
        let mut lateness = hdrhistogram::Histogram::new(3).unwrap();
        lateness.record_n(late_ns, 100).unwrap();
        Trial {
            sent: crate::traffic::Sent { packets: 100, refused: Vec::new(), lateness, took_ns: 0 },
            received: crate::traffic::Received::default(),
            lost: std::collections::BTreeMap::from([("policy-ingress".to_owned(), lost)]),
            sender_void: None,
            forwarder_void: Some("noise".to_owned()),
            taken_percent: TAKEN + 1.0,
        }
    };
    let (late, in_time) = (2 * BEHIND_NS, BEHIND_NS / 2);
    assert!(is_late(&trial(late, 0)) && is_late(&trial(late, 9)));
    assert!(!is_late(&trial(in_time, 0)) && !is_late(&trial(in_time, 9)));
    let why = |trial: &Trial| {
        let mut void = None;
        spoil(&mut void, trial);
        void
    };
    assert_eq!(why(&trial(in_time, 0)), None, "what was whole in spite of it is whole");
    assert_eq!(why(&trial(in_time, 9)).as_deref(), Some("noise"));
    let quiet = |late_ns, lost| Trial { forwarder_void: None, ..trial(late_ns, lost) };
    assert_eq!(why(&quiet(in_time, 9)), None);
    assert_eq!(why(&quiet(late, 0)).as_deref().map(|void| &void[..19]), Some("the sender was late"));
}
