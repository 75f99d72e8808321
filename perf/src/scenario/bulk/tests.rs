use super::*;

/// A second of each way through each contender: the stream gets through.
#[test]
fn streams_get_through_on_a_node_and_across() {
    if crate::traffic::skipped() {
        return;
    }
    for way in [Way::Node, Way::Vxlan, Way::TunNode, Way::TunVxlan] {
        for contender in way.contenders().iter().copied() {
            let (came, _) = measure(contender, Cores::two().unwrap(), way, 1, 1)
                .unwrap_or_else(|error| panic!("{way:?}, {contender:?}: {error}"));
            assert!(came.mbit > 1.0, "{way:?}, {contender:?}: {came:?}");
        }
    }
}
