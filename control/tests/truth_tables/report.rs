//! What was asked and what was answered wrongly, way by way.

use std::fmt;
use std::time::Duration;

use crate::scene::{Probe, Scene};

/// How a verdict is come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// The slow reference, which reads the objects itself.
    Reference,
    /// The class tables compiled from the calculated state, and that state read rule by rule.
    Tables,
    /// What `explain` says.
    Explain,
    /// Both of these, of whether a rule marks the flow for the log.
    Log,
    /// Both, of what would be if what is staged were in force.
    Staged,
    /// Packets through the walk.
    Packets,
    /// The same after a change, with the numbers, tables and flows of the state before.
    Changed,
    /// Answers to the packets that came through.
    Replies,
}

impl Way {
    const ALL: [Self; 8] = [
        Self::Reference,
        Self::Tables,
        Self::Explain,
        Self::Log,
        Self::Staged,
        Self::Packets,
        Self::Changed,
        Self::Replies,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Reference => "slow reference",
            Self::Tables => "compiled tables",
            Self::Explain => "explain",
            Self::Log => "what is logged",
            Self::Staged => "what is staged",
            Self::Packets => "packets through the walk",
            Self::Changed => "packets of living flows after each change",
            Self::Replies => "answers to the packets that came through",
        }
    }
}

/// Wrong answers told in words; the others are counted.
const TOLD_MAX: usize = 10;

/// A count for each way.
#[derive(Debug, Default, Clone)]
pub(crate) struct Report {
    pub(crate) cases: usize,
    pub(crate) states: usize,
    /// Probes the table has.
    pub(crate) probes: usize,
    /// Of these, from a pod to itself: their verdict is nobody's, and not judged.
    pub(crate) to_itself: usize,
    judged: [usize; Way::ALL.len()],
    wrong: [usize; Way::ALL.len()],
    told: Vec<String>,
}

impl Report {
    pub(crate) fn judge(
        &mut self,
        way: Way,
        scene: &Scene,
        probe: &Probe,
        expected: bool,
        got: bool,
        more: &str,
    ) {
        self.judged[way as usize] += 1;
        if expected != got {
            let verdict = |allow| if allow { "allow" } else { "deny" };
            let (expected, got) = (verdict(expected), verdict(got));
            let flow = scene.describe(probe);
            self.tell(way, &format!("{flow}: {more}expected {expected}, got {got}"));
        }
    }

    /// Compares what is said of each end: `[egress, ingress]`.
    pub(crate) fn compare(
        &mut self,
        way: Way,
        scene: &Scene,
        probe: &Probe,
        by: &str,
        [expected, got]: [[bool; 2]; 2],
    ) {
        self.judged[way as usize] += 1;
        if expected != got {
            let flow = scene.describe(probe);
            self.tell(way, &format!("{flow}: by {by}: [egress, ingress] is {got:?} instead of {expected:?}"));
        }
    }

    /// Something else that is wrong.
    pub(crate) fn tell(&mut self, way: Way, what: &str) {
        self.wrong[way as usize] += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(format!("{}: {what}", way.name()));
        }
    }

    fn wrong(&self) -> usize {
        self.wrong.iter().sum()
    }

    /// What the first wrong answer was.
    pub(crate) fn first_told(&self) -> Option<&str> {
        self.told.first().map(String::as_str)
    }

    /// Says more of what is wrong.
    pub(crate) fn note(&mut self, what: String) {
        self.told.insert(0, what);
    }

    /// Adds another's counts to these.
    pub(crate) fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.states += other.states;
        self.probes += other.probes;
        self.to_itself += other.to_itself;
        for way in 0..Way::ALL.len() {
            self.judged[way] += other.judged[way];
            self.wrong[way] += other.wrong[way];
        }
        self.told.extend(other.told);
        self.told.truncate(TOLD_MAX);
    }

    /// Prints it, and stops the test when an answer was wrong.
    pub(crate) fn finish(&self, name: &str, took: Duration) {
        eprintln!("{name}, {:.1} s:\n{self}", took.as_secs_f32());
        assert_eq!(self.wrong(), 0, "{name}: wrong answers, the first of them:\n{}", self.told.join("\n"));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cases, states, probes, to_itself, .. } = self;
        writeln!(
            f,
            "  {cases} cases, {states} states, {probes} probes, {} judged and {to_itself} left out: from a pod to itself",
            probes - to_itself
        )?;
        for way in Way::ALL.into_iter().filter(|way| self.judged[*way as usize] > 0) {
            let [judged, wrong] = [&self.judged, &self.wrong].map(|counts| counts[way as usize]);
            writeln!(f, "  {judged:>8} {}: {wrong} wrong", way.name())?;
        }
        Ok(())
    }
}
