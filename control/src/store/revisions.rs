//! How far a store's changes are known, kind by kind.
//!
//! Revisions are compared within one kind only. An API server of Kubernetes promises nothing else: it counts each resource
//! by itself, and tells of each on a watch of its own. So "my endpoint is in the picture" is a question about endpoints, and
//! a pod's higher number answers nothing.

use crate::object::Kind;

/// A kind's count of changes. A key's revision is the one of its last change; 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A change: of which kind, and which of its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct At {
    /// The kind.
    pub kind: Kind,
    /// Its change.
    pub revision: Revision,
}

impl At {
    /// That change of that kind.
    #[must_use]
    pub const fn new(kind: Kind, revision: Revision) -> Self {
        Self { kind, revision }
    }
}

/// The last change of each kind that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revisions([Revision; Kind::COUNT]);

impl Revisions {
    /// The same for every kind: what a store with one count for all has.
    #[must_use]
    pub const fn all(revision: Revision) -> Self {
        Self([revision; Kind::COUNT])
    }

    /// The last change of a kind.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> Revision {
        self.0[kind as usize]
    }

    /// The greatest of all: where a store with one count for all kinds is.
    #[must_use]
    pub fn newest(&self) -> Revision {
        self.0.into_iter().max().unwrap_or_default()
    }

    /// Makes a kind's this one, be it before or after what it was.
    pub const fn set(&mut self, at: At) {
        self.0[at.kind as usize] = at.revision;
    }

    /// Adds a change. One from before those that are known changes nothing.
    pub fn raise(&mut self, at: At) {
        let known = &mut self.0[at.kind as usize];
        *known = at.revision.max(*known);
    }

    /// Whether that change is among those that are known.
    #[must_use]
    pub fn have(&self, at: At) -> bool {
        self.of(at.kind) >= at.revision
    }

    /// Whether all changes that `others` know are among these.
    #[must_use]
    pub fn have_all(&self, others: &Self) -> bool {
        self.0.iter().zip(&others.0).all(|(own, other)| own >= other)
    }
}

impl FromIterator<At> for Revisions {
    fn from_iter<T: IntoIterator<Item = At>>(changes: T) -> Self {
        let mut revisions = Self::default();
        changes.into_iter().for_each(|at| revisions.raise(at));
        revisions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(kind: Kind, revision: u64) -> At {
        At::new(kind, Revision(revision))
    }

    #[test]
    fn kinds_are_counted_by_themselves() {
        let mut known = Revisions::all(Revision(5));
        known.raise(at(Kind::Pod, 9));
        known.raise(at(Kind::Node, 3));
        assert!(known.have(at(Kind::Pod, 9)) && known.have(at(Kind::Node, 5)));
        assert!(!known.have(at(Kind::Endpoint, 9)), "another kind's number says nothing");
        assert!(known.have_all(&[at(Kind::Pod, 9), at(Kind::Block, 5)].into_iter().collect()));
        assert!(!known.have_all(&[at(Kind::Pod, 9), at(Kind::Block, 6)].into_iter().collect()));
        assert_eq!((known.newest(), known.of(Kind::Endpoint)), (Revision(9), Revision(5)));
        known.set(at(Kind::Pod, 2));
        assert!(!known.have(at(Kind::Pod, 5)), "a list may be of before");
    }

    #[test]
    fn every_kind_has_a_place() {
        for (place, kind) in Kind::ALL.iter().enumerate() {
            let mut known = Revisions::default();
            known.set(at(*kind, 7));
            let others = Kind::ALL.iter().enumerate().filter(|(other, _)| *other != place);
            assert!(
                known.of(*kind) == Revision(7) && others.into_iter().all(|(_, kind)| known.of(*kind).0 == 0)
            );
        }
    }
}
