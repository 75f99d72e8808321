//! The row of a subject and a peer class: a sweep along the line of ports, and across it where rules ask for source ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::direction::Direction;
use super::limits::PolicyTooLarge;
use super::ports::{Area, PART_BITS, PLACES, Stretch, areas};
use super::rows::Piece;
use super::subject::{OpenRules, SubjectRules};

impl Direction {
    /// The row of verdicts of the rules of these numbers.
    pub(super) fn row(&mut self, subject: &SubjectRules<'_>, orders: &[u32]) -> Result<u32, PolicyTooLarge> {
        // Where a rule begins to match (true) and where it no more does; and from where, by number.
        let mut edges: Vec<(u32, u32, bool, Option<u32>)> = Vec::new();
        let mut sources: Vec<Arc<[Stretch]>> = Vec::new();
        for order in orders {
            let (_, rule) = subject.rules[*order as usize];
            for Area { places, sources: from } in self.areas.entry(rule.id).or_insert_with(|| areas(rule)) {
                let number = from.as_ref().map(|_| sources.len() as u32);
                sources.extend(from.clone());
                edges.push((places.first, *order, true, number));
                edges.push((places.end, *order, false, number));
            }
        }
        self.step(edges.len() / 2)?;
        edges.sort_unstable();
        let mut open = OpenRules::default();
        // Rules that match from some source ports: their orders, and the numbers of these.
        let mut narrowed: BTreeMap<u32, u32> = BTreeMap::new();
        let mut pieces: Vec<Piece> = vec![(0, self.rows.verdict(subject.verdict(&open)))];
        for at_place in edges.chunk_by(|a, b| a.0 == b.0).filter(|edges| edges[0].0 < PLACES) {
            for (_, order, begins, from) in at_place {
                match from {
                    None => open.turn(*order, subject.rules[*order as usize].1.action, *begins),
                    Some(from) if *begins => drop(narrowed.insert(*order, *from)),
                    Some(_) => drop(narrowed.remove(order)),
                }
            }
            let entry = if narrowed.is_empty() {
                self.rows.verdict(subject.verdict(&open))
            } else {
                let narrowed = narrowed.iter().map(|(order, from)| (*order, &*sources[*from as usize]));
                self.by_source(subject, &mut open, narrowed)?
            };
            begin_piece(&mut pieces, at_place[0].0, entry);
        }
        let row = self.rows.add(&pieces);
        self.limit_lines()?;
        Ok(row)
    }

    /// What is said at one place where some rules match from some source ports only. Those `open` match from all, and are
    /// left as they are.
    fn by_source<'a>(
        &mut self,
        subject: &SubjectRules<'_>,
        open: &mut OpenRules,
        narrowed: impl Iterator<Item = (u32, &'a [Stretch])>,
    ) -> Result<u32, PolicyTooLarge> {
        let mut edges: Vec<(u32, u32, bool)> = Vec::new();
        for (order, from) in narrowed {
            edges.extend(from.iter().flat_map(|it| [(it.first, order, true), (it.end, order, false)]));
        }
        // Each leads to nodes of its own.
        self.step(2 * edges.len())?;
        edges.sort_unstable();
        let mut pieces: Vec<Piece> = vec![(0, self.rows.verdict(subject.verdict(open)))];
        for at_port in edges.chunk_by(|a, b| a.0 == b.0) {
            for (_, order, begins) in at_port {
                open.turn(*order, subject.rules[*order as usize].1.action, *begins);
            }
            if at_port[0].0 < 1 << PART_BITS {
                let entry = self.rows.verdict(subject.verdict(open));
                begin_piece(&mut pieces, at_port[0].0, entry);
            }
        }
        let entry = self.rows.by_source(&pieces);
        self.limit_lines()?;
        Ok(entry)
    }

    fn limit_lines(&self) -> Result<(), PolicyTooLarge> {
        self.limit("lines of verdicts", self.rows.lines(), self.limits.lines)
    }
}

/// From `place` on there is another entry; the last piece begins there at the latest.
fn begin_piece(pieces: &mut Vec<Piece>, place: u32, entry: u32) {
    pieces.pop_if(|last| last.0 == place);
    if pieces.last().is_none_or(|last| last.1 != entry) {
        pieces.push((place, entry));
    }
}
