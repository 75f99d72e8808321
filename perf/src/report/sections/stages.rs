//! Where the time goes.

use std::collections::HashMap;
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
    /// The project's goal for a packet of a known flow, in cycles.
    const BUDGET: f64 = 110.0;
    let (mut names, mut found): (Vec<String>, Vec<Stack>) = (Vec::new(), Vec::new());
    let mut places: HashMap<&str, usize> = HashMap::new();
    for row in run.usable("engine") {
        let Some(stage) = row.metric.strip_prefix("stage/") else { continue };
        if !names.iter().any(|name| name == stage) {
            names.push(stage.to_owned());
        }
        let part = (stage.to_owned(), row.value);
        let place = *places.entry(&row.case).or_insert_with(|| {
            found.push(Stack { label: row.case.clone(), parts: Vec::new() });
            found.len() - 1
        });
        found[place].parts.push(part);
    }
    if found.is_empty() {
        return String::new();
    }
    let more = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    gather(&mut names, &mut found);
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
    let budget = Some((BUDGET, "the project's goal for one packet: 110"));
    let plot = stacks(&id, "Cycles a packet by stage", "cycles", &found, &names, budget, 1080.0);
    let mut sub = format!(
        "less is better · taken in a run of its own, by probes that cost something themselves{}",
        all_of(&common)
    );
    if more > 0 {
        sub += &format!(" · {more} further cases are in the table");
    }
    card("Cost by stage, cycles for a packet", &sub, &(legend + &plot), true)
}

/// Puts the stages that cost least together as one, so that each of the others has a colour of its own.
fn gather(names: &mut Vec<String>, stacks: &mut [Stack]) {
    const COLOURS: usize = 10;
    if names.len() <= COLOURS {
        return;
    }
    let share = |name: &String| {
        let of = |stack: &Stack| {
            let own: f64 = stack.parts.iter().filter(|(part, _)| part == name).map(|(_, value)| value).sum();
            own / stack.parts.iter().map(|(_, value)| value).sum::<f64>()
        };
        stacks.iter().map(of).fold(0.0, f64::max)
    };
    let mut ranked: Vec<(f64, String)> = names.iter().map(|name| (share(name), name.clone())).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let least: Vec<String> = ranked.into_iter().skip(COLOURS - 1).map(|(_, name)| name).collect();
    names.retain(|name| !least.contains(name));
    let rest = least.join(", ");
    for stack in stacks {
        let small: f64 =
            stack.parts.iter().filter(|(name, _)| least.contains(name)).map(|(_, value)| value).sum();
        stack.parts.retain(|(name, _)| !least.contains(name));
        stack.parts.push((rest.clone(), small));
    }
    names.push(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_stages_become_one_and_nothing_is_lost() {
        let parts: Vec<(String, f64)> =
            (1..=14).map(|cycles| (format!("s{cycles}"), f64::from(cycles))).collect();
        let mut names: Vec<String> = parts.iter().map(|(name, _)| name.clone()).collect();
        let mut stacks = [Stack { label: "a".to_owned(), parts }];
        gather(&mut names, &mut stacks);
        assert_eq!((names.len(), names[9].as_str(), names[0].as_str()), (10, "s5, s4, s3, s2, s1", "s6"));
        assert_eq!(stacks[0].parts.last().unwrap().1, 15.0);
        assert_eq!(stacks[0].parts.iter().map(|(_, value)| value).sum::<f64>(), 105.0);
    }
}
