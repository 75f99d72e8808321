//! One calculation after another, each from what has changed since the one before.

use std::collections::BTreeMap;

use vswitch_model::{DesiredState, DomainPattern, Touched};

use super::kept::Kept;
use super::output::Output;
use super::{CalcConfig, Inputs, NameWanted, Numbering};

/// What one node's engine must have, as the objects of the cluster change. It always is what [`super::calculate`] gives
/// for the same objects, with the numbers that all calculations before have left.
#[derive(Debug)]
pub struct Calculator {
    node: String,
    config: CalcConfig,
    numbering: Numbering,
    /// None: nothing has been calculated yet.
    kept: Option<Kept>,
    output: Output,
    problems: Vec<String>,
    /// How many calculations began from nothing.
    #[cfg(test)]
    pub(super) anew: usize,
}

impl Calculator {
    /// Begins with an empty state.
    #[must_use]
    pub fn new(node: impl Into<String>, config: CalcConfig) -> Self {
        Self {
            node: node.into(),
            config,
            numbering: Numbering::default(),
            kept: None,
            output: Output::default(),
            problems: Vec::new(),
            #[cfg(test)]
            anew: 0,
        }
    }

    /// Goes over to these objects. Gives what of the state has changed; a key there may stand for what is the same again.
    pub fn calculate(&mut self, inputs: &Inputs) -> Touched {
        let at = (self.node.as_str(), &self.config);
        if let Some(kept) = &mut self.kept
            && kept.follow(inputs, at, &mut self.numbering, &mut self.output)
        {
            self.problems = kept.problems();
            return self.output.take_touched();
        }
        #[cfg(test)]
        {
            self.anew += 1;
        }
        let mut output = Output::default();
        let kept = Kept::from_nothing(inputs, at, &mut self.numbering, &mut output);
        let mut before = std::mem::replace(&mut self.output, output);
        let mut touched = self.output.take_touched();
        touched.merge(Touched::all_of(before.state()));
        touched.retain_differing(before.state(), self.output.state());
        // What was begun to be followed has left another state than the one given last.
        touched.merge(before.take_touched());
        self.problems = kept.problems();
        self.kept = Some(kept);
        touched
    }

    /// The state of the last calculation. Whole in the sense of [`DesiredState::check`], short of its limits.
    #[must_use]
    pub const fn state(&self) -> &DesiredState {
        self.output.state()
    }

    /// The names that policies in force speak of, and for which pods of this node.
    #[must_use]
    pub fn names(&self) -> BTreeMap<DomainPattern, NameWanted> {
        self.kept.as_ref().map(Kept::names).unwrap_or_default()
    }

    /// What of the last calculation could not be done as the objects say, for people, sorted.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}
