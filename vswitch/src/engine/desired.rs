//! What control wants: the state of now, which others look at, and the one before it, which becomes the next.
//!
//! A state of ten thousand pods takes tens of milliseconds to copy. So the state before is brought up to date in place,
//! by what led from it to that of now and then by what is new, when nobody looks at it any more. It takes the memory of
//! a second state.

use std::sync::Arc;

use vswitch_model::{Change, DesiredState};

#[derive(Default)]
pub(super) struct Desired {
    now: Arc<DesiredState>,
    /// The state before, and what leads from it to `now`.
    before: Option<(Arc<DesiredState>, Vec<Change>)>,
}

impl Desired {
    pub(super) fn new(now: DesiredState) -> Self {
        Self { now: Arc::new(now), before: None }
    }

    pub(super) fn now(&self) -> &Arc<DesiredState> {
        &self.now
    }

    /// The state that `changes` lead to. It is not that of now before [`Self::adopt`].
    pub(super) fn next(&mut self, changes: &[Change]) -> Arc<DesiredState> {
        let mut state = match self.before.take() {
            Some((mut before, since)) => match Arc::get_mut(&mut before) {
                Some(state) => {
                    since.into_iter().for_each(|change| state.apply(change));
                    before
                }
                None => Arc::new(DesiredState::clone(&self.now)),
            },
            None => Arc::new(DesiredState::clone(&self.now)),
        };
        let alone = Arc::make_mut(&mut state);
        changes.iter().for_each(|change| alone.apply(change.clone()));
        state
    }

    /// `next` is the state of now; with the changes that led to it, if it was not sent whole.
    pub(super) fn adopt(&mut self, next: Arc<DesiredState>, changes: Option<Vec<Change>>) {
        let before = std::mem::replace(&mut self.now, next);
        self.before = changes.map(|changes| (before, changes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{add_pod, empty_node};

    #[test]
    fn any_state_follows_in_place_or_by_a_copy() {
        let mut states = vec![empty_node()];
        for pod in 1..10u8 {
            let mut next = states[states.len() - 1].clone();
            add_pod(&mut next, &format!("pod-{pod}"), &[&format!("10.1.0.{pod}")]);
            next.prefixes.remove(&format!("10.1.0.{}/32", pod / 2).parse().unwrap());
            states.push(next);
        }
        let mut desired = Desired::new(states[0].clone());
        let mut looked_at = Vec::new();
        for (number, pair) in states.windows(2).enumerate() {
            let changes = pair[0].changes_to(&pair[1]);
            if number % 4 == 3 {
                looked_at.push((Arc::clone(desired.now()), pair[0].clone()));
            }
            if number % 5 == 4 {
                // One that is refused: what was made for it is of no more use.
                desired
                    .next(&[Change::SetPrefix("0.0.0.0/0".parse().unwrap(), vswitch_model::IdentityId(9))]);
            }
            let next = desired.next(&changes);
            assert_eq!(*next, pair[1]);
            assert_eq!(**desired.now(), pair[0]);
            desired.adopt(next, Some(changes));
        }
        assert!(looked_at.iter().all(|(held, state)| **held == *state), "who looks sees what was");
    }
}
