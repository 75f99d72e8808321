//! Figures of several rounds and contenders, on their way into the results.

use std::collections::BTreeMap;

use super::Contender;
use crate::result::{Measurement, median_of_sorted};
use crate::session::Session;

/// What is better of a figure: decides what a ratio of two is, above 1 always for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Ours / the peer's.
    Higher,
    /// The peer's / ours.
    Lower,
    /// No ratio.
    Neither,
}

/// The figures of one scenario, by case and metric in the order they came in.
#[derive(Debug)]
pub struct Rounds {
    scenario: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    case: String,
    metric: &'static str,
    unit: &'static str,
    better: Better,
    values: BTreeMap<Contender, Vec<f64>>,
    void: Option<String>,
}

impl Rounds {
    /// None yet.
    #[must_use]
    pub fn new(scenario: &'static str) -> Self {
        Self { scenario, rows: Vec::new() }
    }

    /// Adds a figure: each contender's once a round, in the order of the rounds.
    pub fn add(
        &mut self,
        (case, metric, unit, better): (&str, &'static str, &'static str, Better),
        contender: Contender,
        value: f64,
        void: Option<&String>,
    ) {
        let is_it = |row: &Row| row.case == case && row.metric == metric;
        let at = self.rows.iter().position(is_it).unwrap_or_else(|| {
            let (case, values) = (case.to_owned(), BTreeMap::new());
            self.rows.push(Row { case, metric, unit, better, values, void: None });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.values.entry(contender).or_default().push(value);
        if row.void.is_none() {
            row.void = void.map(|reason| format!("{}: {reason}", contender.key()));
        }
    }

    /// Records everything: our figure beside the peers', and the ratios, round by round.
    pub fn record(self, session: &mut Session) {
        for row in self.rows {
            let Some(ours) = row.values.get(&Contender::Ours) else { continue };
            let mut measurement =
                Measurement::of_rounds(self.scenario, &row.case, row.metric, row.unit, ours);
            let peers = || row.values.iter().filter(|(contender, _)| **contender != Contender::Ours);
            for (peer, values) in peers() {
                let mut sorted = values.clone();
                sorted.sort_by(f64::total_cmp);
                measurement = measurement.beside(peer.key(), median_of_sorted(&sorted));
            }
            session.record(measurement.void_because(row.void.clone()));
            for (peer, values) in peers() {
                let ratios = ratios(row.better, ours, values);
                if !ratios.is_empty() {
                    let metric = format!("{} ratio/{}", row.metric, peer.key());
                    let ratio = Measurement::of_rounds(self.scenario, &row.case, &metric, "1", &ratios);
                    session.record(ratio.void_because(row.void.clone()));
                }
            }
        }
    }
}

/// Of each round that has both, the ratio: above 1, we are better. Rounds in which it has no meaning are left out.
fn ratios(better: Better, ours: &[f64], peer: &[f64]) -> Vec<f64> {
    let ratio = |(ours, peer): (&f64, &f64)| match better {
        Better::Higher => ours / peer,
        Better::Lower => peer / ours,
        Better::Neither => f64::NAN,
    };
    ours.iter().zip(peer).map(ratio).filter(|ratio| ratio.is_finite()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round_and_above_one_when_we_are_better() {
        let mut rounds = Rounds::new("calls");
        let (calls, delay) = (("a", "calls", "1", Better::Higher), ("a", "delay", "us", Better::Lower));
        for (ours, peer) in [(100.0, 50.0), (300.0, 100.0)] {
            rounds.add(calls, Contender::Ours, ours, None);
            rounds.add(calls, Contender::Kernel, peer, None);
            rounds.add(delay, Contender::Ours, peer, None);
            rounds.add(delay, Contender::Kernel, ours, Some(&"noise".to_owned()));
        }
        let mut session = Session::for_tests();
        rounds.record(&mut session);
        let shown: Vec<_> =
            session.results.iter().map(|row| (row.metric.as_str(), row.low, row.high)).collect();
        assert_eq!(
            shown,
            [
                ("calls", 100.0, 300.0),
                ("calls ratio/kernel", 2.0, 3.0),
                ("delay", 50.0, 100.0),
                ("delay ratio/kernel", 2.0, 3.0)
            ]
        );
        assert_eq!(session.results[0].peers["kernel"], 75.0);
        assert_eq!(session.results[3].void.as_deref(), Some("kernel: noise"));
    }

    #[test]
    fn a_ratio_to_nothing_is_left_out() {
        assert_eq!(ratios(Better::Lower, &[0.0, 2.0], &[1.0, 4.0]), [2.0]);
        assert!(ratios(Better::Neither, &[1.0], &[1.0]).is_empty());
    }
}
