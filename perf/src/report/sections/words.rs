//! Metrics, units and cases in words.

use crate::compare::{Better, better};

/// A metric in words.
pub(super) fn named(metric: &str) -> String {
    let known = [
        ("ndr", "no-drop rate"),
        ("pdr", "partial-drop rate (0.5 %)"),
        ("packet", "one packet"),
        ("walk", "the stages of one packet"),
        ("saturated", "under flood, 90th percentile of 4 ms windows"),
        ("mean", "under flood, mean"),
        ("packet-rate", "packets forwarded"),
        ("loss-bound", "loss at most (95 %)"),
        ("generator-late", "how late the generator was at most"),
        ("sender-late-p99", "how late the sender was, 99th percentile"),
        ("sender-late-max", "how late the sender was at most"),
        ("net", "one packet, net of generator and sink"),
        ("rate", "rate"),
        ("new-flows", "new flows"),
        ("mos", "mean opinion score"),
        ("jitter", "jitter (RFC 3550)"),
        ("loss", "loss"),
        ("delay", "one-way delay"),
        ("calls", "calls at once"),
        ("goodput", "goodput"),
        ("burst-loss", "loss in bursts"),
        ("tick-jitter", "tick jitter"),
        ("idle-cost", "cost while idle"),
        ("lost", "packets lost"),
        ("worst-delay", "worst delay"),
        ("in-force", "time until in force"),
        ("growth", "one packet net, by that with one pod"),
        ("packet-growth", "one packet, by that with one pod"),
        ("miss", "looking both ends up, asking policy, making the flow"),
        ("turn-growth", "one packet, by that with the smallest table"),
        ("walk-growth", "the stages of one packet, by that with the smallest table"),
        ("miss-growth", "the stage that asks policy, by that with the smallest table"),
        ("policy-tables", "tables of policy"),
        ("tables", "tables, all"),
        ("bytes-each", "tables, for each rule or CIDR"),
        ("load", "engine: load all"),
        ("compile", "engine: compile all"),
        ("change-rule", "engine: another port of one rule"),
        ("change-member", "engine: one identity enters a set"),
        ("agent", "a pod's label: the agent"),
        ("engine", "a pod's label: the engine"),
        ("label", "a pod's label: agent and engine"),
        ("calculate-all", "agent: calculate all"),
    ];
    known
        .iter()
        .find(|(name, _)| *name == metric)
        .map_or_else(|| metric.to_owned(), |(_, words)| (*words).to_owned())
}

pub(in super::super) fn unit_in_words(unit: &str) -> &str {
    match unit {
        "1" => "",
        "us" => "µs",
        unit => unit,
    }
}

pub(super) fn titled(metric: &str, unit: &str) -> String {
    match unit_in_words(unit) {
        "" => named(metric),
        unit if unit == metric => named(metric),
        unit => format!("{}, {unit}", named(metric)),
    }
}

pub(super) fn which_is_better(metric: &str, unit: &str) -> &'static str {
    match better(metric, unit) {
        Some(Better::More) => "more is better",
        Some(Better::Less) => "less is better",
        None => "",
    }
}

/// Names without the parts that all of them have, and those parts. One that has nothing else is called `base`.
pub(super) fn distinct(names: &[String]) -> (Vec<String>, String) {
    let parts: Vec<Vec<&str>> = names.iter().map(|name| name.split('/').collect()).collect();
    let Some(first) = parts.first().filter(|_| names.len() > 1) else {
        return (names.to_vec(), String::new());
    };
    let everywhere = |part: &&str| parts.iter().all(|parts| parts.contains(part));
    let common: Vec<&str> = first.iter().copied().filter(everywhere).collect();
    let short = |parts: &Vec<&str>| {
        let own: Vec<&str> = parts.iter().copied().filter(|part| !common.contains(part)).collect();
        if own.is_empty() { "base".to_owned() } else { own.join("/") }
    };
    (parts.iter().map(short).collect(), common.join("/"))
}

/// ` · all: known-flow/v4`, or nothing.
pub(super) fn all_of(common: &str) -> String {
    if common.is_empty() { String::new() } else { format!(" · all: {common}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_have_is_said_once() {
        let names = ["known/v4/flows-1/rules-1k", "known/v4/flows-1M/rules-1k", "known/v4/rules-1k"];
        let (short, common) = distinct(&names.map(str::to_owned));
        assert_eq!(
            (short, common.as_str()),
            (vec!["flows-1".into(), "flows-1M".into(), "base".into()], "known/v4/rules-1k")
        );
        assert_eq!(distinct(&["a/b".to_owned()]), (vec!["a/b".to_owned()], String::new()));
        assert_eq!(distinct(&[]).0, Vec::<String>::new());
    }

    #[test]
    fn units_and_metrics_in_words() {
        assert_eq!(titled("p99", "us"), "p99, µs");
        assert_eq!(titled("loss", "1"), "loss");
        assert_eq!(titled("calls", "calls"), "calls at once");
        assert_eq!(which_is_better("ndr", "Mpps"), "more is better");
    }
}
