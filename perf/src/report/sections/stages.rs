//! Where the time goes.

use std::fmt::Write;

use super::super::bars::{Stack, stacks};
use super::super::data::Run;
use super::super::svg::escape;
use super::card;
use super::words::{all_of, distinct};

/// Cycles by stage, a bar a case.
pub(super) fn stages(run: &Run<'_>, prefix: &str) -> String {
    /// More would not be read; the table has them all.
    const SHOWN: usize = 24;
    /// What a packet of a known flow may cost in all, in cycles.
    const BUDGET: f64 = 110.0;
    let (mut names, mut found): (Vec<String>, Vec<Stack>) = (Vec::new(), Vec::new());
    for row in run.usable("engine") {
        let Some(stage) = row.metric.strip_prefix("stage/") else { continue };
        if !names.iter().any(|name| name == stage) {
            names.push(stage.to_owned());
        }
        let part = (stage.to_owned(), row.value);
        match found.iter_mut().find(|stack| stack.label == row.case) {
            Some(stack) => stack.parts.push(part),
            None => found.push(Stack { label: row.case.clone(), parts: vec![part] }),
        }
    }
    if found.is_empty() {
        return String::new();
    }
    let more = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    let (labels, common) = distinct(&found.iter().map(|stack| stack.label.clone()).collect::<Vec<_>>());
    for (stack, label) in found.iter_mut().zip(labels) {
        stack.label = label;
    }
    let mut legend = String::from("<ul class=\"legend\">");
    for (place, name) in names.iter().enumerate() {
        let _ = write!(legend, "<li><i class=\"c{}\"></i>{}</li>", place % 10, escape(name));
    }
    legend += "</ul>";
    let id = format!("{prefix}engine-stages");
    let budget = Some((BUDGET, "budget of a known flow: 110"));
    let plot = stacks(&id, "Cycles a packet by stage", "cycles", &found, &names, budget, 1080.0);
    let mut sub = format!("less is better{}", all_of(&common));
    if more > 0 {
        sub += &format!(" · {more} further cases are in the table");
    }
    card("Cost by stage, cycles for a packet", &sub, &(legend + &plot), true)
}
