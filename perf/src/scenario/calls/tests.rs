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
