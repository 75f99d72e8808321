//! Figures of several rounds and contenders, on their way into the results.

use std::collections::BTreeMap;

use super::Contender;
use crate::Result;
use crate::result::{Measurement, median_of_sorted, ratio_name, usable};
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
///
/// A round of one contender that is void is left out of its medians and of its ratios, with a note; where no round is left,
/// ours is recorded and marked, and a peer's is not shown.
#[derive(Debug)]
pub struct Rounds {
    scenario: &'static str,
    round: u32,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    case: String,
    metric: &'static str,
    unit: &'static str,
    better: Better,
    values: BTreeMap<Contender, BTreeMap<u32, Figure>>,
}

/// A figure of one round, and why it is void.
type Figure = (f64, Option<String>);

impl Rounds {
    /// None yet.
    #[must_use]
    pub fn new(scenario: &'static str) -> Self {
        Self { scenario, round: 0, rows: Vec::new() }
    }

    /// What is added from now on is of the next round: only figures of one round have a ratio.
    pub fn next(&mut self) {
        self.round += 1;
    }

    /// Lets a round go on without a peer that failed, with a note of it.
    ///
    /// # Errors
    ///
    /// What ours failed with; [`crate::Error::Interrupted`], from which peers fail as well.
    pub fn without(&self, session: &mut Session, contender: Contender, outcome: Result<()>) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        session.check()?;
        if contender == Contender::Ours {
            return Err(error);
        }
        let (round, who) = (self.round + 1, contender.key());
        session.note(format!("{}: round {round} is without {who}: {error}", self.scenario));
        Ok(())
    }

    /// Adds a figure: each contender's once a round at most. One that is not finite stands for "there is none", as the
    /// delay of a packet that was lost: no median hides it, the contender has no such figure then.
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
            self.rows.push(Row { case, metric, unit, better, values });
            self.rows.len() - 1
        });
        let figures = self.rows[at].values.entry(contender).or_default();
        figures.insert(self.round, (value, void.cloned()));
    }

    /// Records everything: our figure beside the peers', and the ratios, round by round.
    pub fn record(self, session: &mut Session) {
        let name = self.scenario;
        for row in &self.rows {
            row.notes(name).into_iter().for_each(|note| session.note(note));
            let Some(ours) = row.values.get(&Contender::Ours) else { continue };
            if let Some((values, void)) = sound(ours.values()) {
                let mut figure = Measurement::of_rounds(name, &row.case, row.metric, row.unit, &values);
                for (peer, theirs) in row.peers() {
                    if let Some((mut values, None)) = sound(theirs.values()) {
                        values.sort_by(f64::total_cmp);
                        figure = figure.beside(peer.key(), median_of_sorted(&values));
                    }
                }
                session.record(figure.void_because(void));
            }
            for (peer, theirs) in row.peers() {
                let metric = ratio_name(peer.key(), row.metric);
                let each = ratios(row.better, ours, theirs);
                if let Some((ratios, void)) = sound(each.iter()) {
                    let ratio = Measurement::of_rounds(name, &row.case, &metric, "1", &ratios);
                    session.record(ratio.void_because(void));
                } else if !each.is_empty() {
                    let case = &row.case;
                    session
                        .note(format!("{name}: {case}: no {metric}: in a round one of the two had nothing"));
                }
            }
        }
    }
}

impl Row {
    fn peers(&self) -> impl Iterator<Item = (&Contender, &BTreeMap<u32, Figure>)> {
        self.values.iter().filter(|(contender, _)| **contender != Contender::Ours)
    }

    /// What a reader has to know: which rounds were left out, and who has no figure.
    fn notes(&self, scenario: &str) -> Vec<String> {
        let mut notes = Vec::new();
        for (contender, figures) in &self.values {
            let (who, case, all) = (contender.key(), &self.case, figures.len());
            let voids: Vec<&String> = figures.values().filter_map(|(_, void)| void.as_ref()).collect();
            if let Some(first) = voids.first() {
                let void = voids.len();
                let what = if void < all { "left out" } else { "void: no figure of it is to be used" };
                notes.push(format!("{scenario}: {case}: {void} of {all} rounds of {who} {what}: {first}"));
            }
            let shown = figures.values().filter(|(_, void)| void.is_none() || voids.len() == all);
            let none = shown.filter(|(value, _)| !value.is_finite()).count();
            if none > 0 {
                let metric = self.metric;
                notes.push(format!(
                    "{scenario}: {case}: no {metric} of {who}: in {none} of {all} rounds more were lost than it leaves"
                ));
            }
        }
        notes
    }
}

/// The rounds that are [`usable`], and why they are void if they are. None: there are none, or one of them has no figure.
fn sound<'figures>(figures: impl Iterator<Item = &'figures Figure>) -> Option<(Vec<f64>, Option<String>)> {
    let (values, void) = usable(figures.cloned());
    (!values.is_empty() && values.iter().all(|value| value.is_finite())).then_some((values, void))
}

/// Of each round that has both, the ratio: above 1, we are better; void when one of the two is. None is finite where it has
/// no meaning.
fn ratios(better: Better, ours: &BTreeMap<u32, Figure>, peer: &BTreeMap<u32, Figure>) -> Vec<Figure> {
    if better == Better::Neither {
        return Vec::new();
    }
    let ratio = |(round, (ours, void)): (&u32, &Figure)| {
        let (theirs, of_theirs) = peer.get(round)?;
        // What is no number on either side gives none: 0 would be one.
        let (above, below) = if better == Better::Higher { (ours, theirs) } else { (theirs, ours) };
        let ratio = if below.is_finite() { above / below } else { f64::NAN };
        Some((ratio, void.clone().or_else(|| of_theirs.clone())))
    };
    ours.iter().filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: (&str, &str, &str, Better) = ("a", "calls", "1", Better::Higher);
    const DELAY: (&str, &str, &str, Better) = ("a", "delay", "us", Better::Lower);

    fn shown(rounds: Rounds) -> Session {
        let mut session = Session::for_tests();
        rounds.record(&mut session);
        session
    }

    fn find<'a>(session: &'a Session, metric: &str) -> Option<&'a Measurement> {
        session.results.iter().find(|row| row.metric == metric)
    }

    #[test]
    fn ratios_are_of_the_same_round_and_above_one_when_we_are_better() {
        let mut rounds = Rounds::new("calls");
        for (ours, peer) in [(100.0, 50.0), (300.0, 100.0)] {
            rounds.add(CALLS, Contender::Ours, ours, None);
            rounds.add(CALLS, Contender::Kernel, peer, None);
            rounds.add(DELAY, Contender::Ours, peer, None);
            rounds.add(DELAY, Contender::Kernel, ours, Some(&"noise".to_owned()));
            rounds.next();
        }
        let session = shown(rounds);
        let shown: Vec<_> =
            session.results.iter().map(|row| (row.metric.as_str(), row.low, row.high)).collect();
        assert_eq!(
            shown,
            [
                ("calls", 100.0, 300.0),
                ("ratio/kernel/calls", 2.0, 3.0),
                ("delay", 50.0, 100.0),
                ("ratio/kernel/delay", 2.0, 3.0)
            ]
        );
        assert_eq!(session.results[0].peers["kernel"], 75.0);
        assert!(session.results[2].void.is_none() && session.results[2].peers.is_empty(), "a void peer");
        assert_eq!(session.results[3].void.as_deref(), Some("noise"));
    }

    #[test]
    fn void_rounds_are_left_out_and_rounds_without_a_peer_have_no_ratio() {
        let mut rounds = Rounds::new("calls");
        let noise = "noise".to_owned();
        for (ours, void, peer) in
            [(100.0, None, Some(50.0)), (1.0, Some(&noise), Some(9.0)), (300.0, None, None)]
        {
            rounds.add(CALLS, Contender::Ours, ours, void);
            peer.into_iter().for_each(|peer| rounds.add(CALLS, Contender::Kernel, peer, None));
            rounds.next();
        }
        let session = shown(rounds);
        let (ours, ratio) = (find(&session, "calls").unwrap(), find(&session, "ratio/kernel/calls").unwrap());
        assert_eq!((ours.value, ours.low, &ours.void), (200.0, 100.0, &None));
        assert_eq!((ratio.low, ratio.high, &ratio.void), (2.0, 2.0, &None));
        assert_eq!(session.notes, ["calls: a: 1 of 3 rounds of ours left out: noise"]);
    }

    #[test]
    fn who_lost_too_much_has_no_figure_and_no_ratio() {
        let mut rounds = Rounds::new("game");
        for peer in [5.0, f64::INFINITY, 6.0] {
            rounds.add(DELAY, Contender::Ours, 10.0, None);
            rounds.add(DELAY, Contender::Kernel, peer, None);
            rounds.next();
        }
        let session = shown(rounds);
        assert_eq!(session.results.len(), 1, "{:?}", session.results);
        assert!(session.results[0].peers.is_empty());
        assert_eq!(
            session.notes,
            [
                "game: a: no delay of kernel: in 1 of 3 rounds more were lost than it leaves",
                "game: a: no ratio/kernel/delay: in a round one of the two had nothing"
            ]
        );
    }

    #[test]
    fn only_a_peer_may_be_missing() {
        let (mut session, rounds) = (Session::for_tests(), Rounds::new("game"));
        let failed = || Err(crate::Error::setup("run nft", "there is none"));
        rounds.without(&mut session, Contender::KernelConntrack, failed()).unwrap();
        assert!(
            session.notes[0].starts_with("game: round 1 is without kernel-conntrack: "),
            "{:?}",
            session.notes
        );
        assert!(rounds.without(&mut session, Contender::Ours, failed()).is_err());
        session.interrupt.set();
        let interrupted = rounds.without(&mut session, Contender::Kernel, failed());
        assert!(matches!(interrupted, Err(crate::Error::Interrupted)), "{interrupted:?}");
        assert_eq!(session.notes.len(), 1);
    }

    #[test]
    fn a_ratio_to_nothing_is_left_out() {
        for (better, ours, peer) in [(Better::Lower, 0.0, 1.0), (Better::Lower, f64::INFINITY, 1.0)] {
            let of = |value: f64| BTreeMap::from([(0, (value, None))]);
            assert!(sound(ratios(better, &of(ours), &of(peer)).iter()).is_none(), "{ours} {peer}");
            assert!(ratios(Better::Neither, &of(ours), &of(peer)).is_empty());
        }
    }
}
