//! What is not known opens nothing: whatever passes when a namespace or a service account cannot be read passes when it
//! can be.

use proptest::prelude::*;
use proptest::sample::select;
use vswitch_control::calc::{End, Explainer, Inputs, Question};
use vswitch_control::object::{Key, Kind};

use super::{OTHERS, PODS, PORTS, cluster};

/// What cannot be read.
pub(super) fn key() -> impl Strategy<Value = Key> {
    select(vec![
        Key::cluster(Kind::Namespace, "a"),
        Key::cluster(Kind::Namespace, "b"),
        Key::new(Kind::ServiceAccount, "a", "sip"),
    ])
}

/// The same objects, one of them unreadable.
pub(super) fn without(mut inputs: Inputs, key: Key) -> Inputs {
    inputs.remove(&key);
    inputs.unlabelled.insert(key);
    inputs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_cannot_be_read_opens_nothing(inputs in cluster(), key in key()) {
        let unknown = without(inputs.clone(), key);
        let [known, unknown] = [Explainer::new(&inputs), Explainer::new(&unknown)];
        let pods = (1..=PODS.len()).map(|number| format!("10.0.0.{number}"));
        let all: Vec<std::net::IpAddr> = pods
            .chain(OTHERS.map(str::to_owned))
            .map(|text| text.parse().unwrap())
            .filter(std::net::IpAddr::is_ipv4)
            .collect();
        for (from, to) in all.iter().flat_map(|from| all.iter().map(move |to| (*from, *to))) {
            for (protocol, port, source) in PORTS {
                let (from, to) = (End::Address(from), End::Address(to));
                let source_port = Some(source);
                let question = Question { from, to, protocol, port, source_port, is_ipv4: None };
                let [before, after] =
                    [&known, &unknown].map(|explainer| explainer.explain(&question).unwrap());
                for (before, after) in [(&before.egress, &after.egress), (&before.ingress, &after.ingress)] {
                    prop_assert!(
                        before.allowed || !after.allowed,
                        "{:?}: {} before, {} now", question, before.reason, after.reason
                    );
                }
            }
        }
    }
}
