use super::*;

#[test]
fn a_match_is_two_bursts_a_tick() {
    let game = game(2, 3, 128);
    let (schedule, streams) = (game.schedule(), streams(game));
    assert_eq!((schedule.streams(), streams.len()), (12, 12));
    assert!((schedule.rate() - 12.0 * 128.0).abs() < 0.1);
    let due: Vec<_> = (0..13).map(|n| schedule.packet(n).due_ns).collect();
    assert!(due[..6].iter().all(|due| *due == 0), "all players at once: {due:?}");
    assert!(due[6..12].iter().all(|due| *due == 3_906_250), "all servers half a tick later: {due:?}");
    let sources: Vec<_> = streams.iter().map(|stream| stream.source).collect();
    assert_eq!(sources, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
    assert_eq!(game.case(), "tick-128/servers-2/players-3");
}

/// Every packet is accounted for, or the run would say Miscounted.
#[test]
fn a_small_match_is_played_and_counted() {
    if crate::traffic::skipped() {
        return;
    }
    let (session, game) = (Session::for_tests(), game(2, 4, 64));
    for contender in Contender::ALL {
        let trial =
            measure(&session, Cores::two().unwrap(), contender, game, Duration::from_millis(100)).unwrap();
        assert_eq!(trial.sent.packets, 6 * 16, "6 ticks of 16 packets");
        assert_eq!(trial.received.packets() + trial.lost(), 96);
        assert!(trial.received.packets() > 48, "{contender:?}: {:?}", trial.lost);
    }
}
