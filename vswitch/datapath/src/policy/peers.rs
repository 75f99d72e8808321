//! Peer classes: identities that are in the same sets of peers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use vswitch_model::{DesiredState, IdentityId, IdentityKind, Rule, SetId};

use super::PolicyDirection;

/// Class 0: those that are in no set, the unknown identity among them. A class that nobody is in any more is given to
/// the next that are in other sets than all before.
pub(super) struct PeerClasses {
    direction: PolicyDirection,
    /// The sets that tell classes apart.
    sets: BTreeSet<SetId>,
    of: BTreeMap<IdentityId, u32>,
    numbers: HashMap<Arc<[SetId]>, u32>,
    classes: Vec<PeerClass>,
    free: Vec<u32>,
    /// Ascending.
    of_set: HashMap<SetId, Vec<u32>>,
    /// The class of the local node, where that is always allowed.
    local_node: Option<u32>,
}

#[derive(Clone)]
struct PeerClass {
    /// The sets its identities are in, ascending.
    sets: Arc<[SetId]>,
    identities: u32,
}

/// What a change of sets did.
#[derive(Default)]
pub(super) struct Moves {
    /// Who is of another class.
    pub(super) identities: Vec<IdentityId>,
    /// Classes that are new, or mean others than before. Ascending.
    pub(super) classes: BTreeSet<u32>,
}

/// The sets an identity is in now and was not, and those it was in and is not.
type Change = (BTreeSet<SetId>, BTreeSet<SetId>);

impl PeerClasses {
    /// The classes that `sets` tell apart.
    pub(super) fn new(state: &DesiredState, direction: PolicyDirection, sets: BTreeSet<SetId>) -> Self {
        let nobody = PeerClass { sets: Arc::from([]), identities: 0 };
        let mut peers = Self {
            direction,
            of: BTreeMap::new(),
            numbers: HashMap::from([(Arc::clone(&nobody.sets), 0)]),
            classes: vec![nobody.clone()],
            free: Vec::new(),
            of_set: HashMap::new(),
            local_node: None,
            sets,
        };
        let mut sets_of: BTreeMap<IdentityId, Vec<SetId>> = BTreeMap::new();
        for set in &peers.sets {
            for member in members(state, *set) {
                sets_of.entry(*member).or_default().push(*set);
            }
        }
        for (identity, sets) in sets_of {
            if peers.is_told_apart(state, identity) {
                peers.enter(identity, Arc::from(sets));
            }
        }
        for identity in state.identities.values().filter(|it| it.id != IdentityId::UNKNOWN) {
            if peers.is_exempt(identity.kind) {
                let class = *peers.local_node.get_or_insert_with(|| {
                    peers.classes.push(nobody.clone());
                    peers.classes.len() as u32 - 1
                });
                peers.of.insert(identity.id, class);
            }
        }
        peers
    }

    /// Classes, those that nobody is in among them.
    pub(super) fn count(&self) -> usize {
        self.classes.len()
    }

    pub(super) fn local_node(&self) -> Option<u32> {
        self.local_node
    }

    pub(super) fn class_of(&self, identity: IdentityId) -> u32 {
        self.of.get(&identity).copied().unwrap_or(0)
    }

    /// The sets that the identities of a class are in. Ascending.
    pub(super) fn sets_of(&self, class: u32) -> Arc<[SetId]> {
        Arc::clone(&self.classes[class as usize].sets)
    }

    /// Sets that tell classes apart.
    pub(super) fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Whether the local node is told by its class, not by its sets.
    fn is_exempt(&self, kind: IdentityKind) -> bool {
        self.direction == PolicyDirection::Ingress && kind == IdentityKind::LocalNode
    }

    fn is_told_apart(&self, state: &DesiredState, identity: IdentityId) -> bool {
        let kind = state.identities.get(&identity).map(|identity| identity.kind);
        identity != IdentityId::UNKNOWN && !kind.is_some_and(|kind| self.is_exempt(kind))
    }

    /// Follows sets from `before` to `after`, of which `touched` may differ and `used` tell classes apart from now on.
    /// None: more than `most` identities change, and nothing is done.
    pub(super) fn follow(
        &mut self,
        (before, after): (&DesiredState, &DesiredState),
        touched: &BTreeSet<SetId>,
        used: &BTreeSet<SetId>,
        most: usize,
    ) -> Option<Moves> {
        let mut changes: BTreeMap<IdentityId, Change> = BTreeMap::new();
        let new: Vec<SetId> = used.difference(&self.sets).copied().collect();
        for set in touched.iter().filter(|set| self.sets.contains(set)) {
            let (old, now) = (members(before, *set), members(after, *set));
            for id in missing(now, old) {
                changes.entry(id).or_default().0.insert(*set);
            }
            for id in missing(old, now) {
                changes.entry(id).or_default().1.insert(*set);
            }
        }
        for set in &new {
            for member in members(after, *set) {
                changes.entry(*member).or_default().0.insert(*set);
            }
        }
        if changes.len() > most {
            return None;
        }
        self.sets.extend(new);
        let mut moves = Moves::default();
        for (identity, (joined, left)) in changes {
            if !self.is_told_apart(before, identity) || !self.is_told_apart(after, identity) {
                continue;
            }
            let was = self.leave(identity);
            let mut sets: Vec<SetId> = was.iter().filter(|set| !left.contains(set)).copied().collect();
            sets.extend(joined);
            sets.sort_unstable();
            sets.dedup();
            moves.classes.extend(self.enter(identity, Arc::from(sets)));
            moves.identities.push(identity);
        }
        Some(moves)
    }

    /// Puts an identity of no class into that of `sets`; its number when it is a new one.
    fn enter(&mut self, identity: IdentityId, sets: Arc<[SetId]>) -> Option<u32> {
        if sets.is_empty() {
            return None;
        }
        let (class, new) = match self.numbers.get(&sets) {
            Some(class) => (*class, None),
            None => {
                let class = self.add(sets);
                (class, Some(class))
            }
        };
        self.classes[class as usize].identities += 1;
        self.of.insert(identity, class);
        new
    }

    fn add(&mut self, sets: Arc<[SetId]>) -> u32 {
        let class = PeerClass { sets: Arc::clone(&sets), identities: 0 };
        let number = match self.free.pop() {
            Some(number) => {
                self.classes[number as usize] = class;
                number
            }
            None => {
                self.classes.push(class);
                self.classes.len() as u32 - 1
            }
        };
        for set in sets.iter() {
            let classes = self.of_set.entry(*set).or_default();
            classes.insert(classes.partition_point(|class| *class < number), number);
        }
        self.numbers.insert(sets, number);
        number
    }

    /// Takes an identity out of its class, and gives the sets of that.
    fn leave(&mut self, identity: IdentityId) -> Arc<[SetId]> {
        let Some(number) = self.of.remove(&identity) else { return Arc::from([]) };
        let class = &mut self.classes[number as usize];
        let sets = Arc::clone(&class.sets);
        class.identities -= 1;
        if class.identities == 0 {
            class.sets = Arc::from([]);
            self.numbers.remove(&sets);
            for set in sets.iter() {
                if let Some(classes) = self.of_set.get_mut(set) {
                    classes.retain(|class| *class != number);
                }
            }
            self.free.push(number);
        }
        sets
    }

    /// The classes that make a difference to a rule: those it names, or when it names everybody those it excepts.
    pub(super) fn told_apart(&self, rule: &Rule) -> impl Iterator<Item = u32> {
        let of_set =
            |set: Option<SetId>| set.and_then(|set| self.of_set.get(&set)).map_or(&[][..], Vec::as_slice);
        let excepted = of_set(rule.not_peers);
        let (classes, less) = match rule.peers {
            Some(_) => (of_set(rule.peers), excepted),
            None => (excepted, &[][..]),
        };
        classes.iter().copied().filter(|class| less.binary_search(class).is_err())
    }
}

/// Whether a class of identities in `sets` is one of those [`PeerClasses::told_apart`] gives.
pub(super) fn tells_apart(rule: &Rule, sets: &[SetId]) -> bool {
    let within = |set: SetId| sets.binary_search(&set).is_ok();
    match rule.peers {
        Some(peers) => within(peers) && !rule.not_peers.is_some_and(within),
        None => rule.not_peers.is_some_and(within),
    }
}

pub(super) fn members(state: &DesiredState, set: SetId) -> &[IdentityId] {
    state.sets.get(&set).map_or(&[], |set| &set.members)
}

/// What is in `list`, ascending, and not in `other`, ascending.
pub(super) fn missing<'a>(
    list: &'a [IdentityId],
    other: &'a [IdentityId],
) -> impl Iterator<Item = IdentityId> + 'a {
    let mut rest = other;
    list.iter().copied().filter(move |id| {
        while rest.first().is_some_and(|first| first < id) {
            rest = &rest[1..];
        }
        rest.first() != Some(id)
    })
}
