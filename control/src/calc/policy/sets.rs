//! The sets of identities that rules refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vswitch_model::{IdentityId, IdentitySet, SetId};

use super::members::{Asked, Members, Prepared};
use super::scope::Scope;
use crate::calc::numbering::Numbering;
use crate::calc::output::Output;

/// What a set holds, by definition rather than by members.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::calc) struct SetKey {
    pub(super) scope: Scope,
    /// Whether those of whom it is not known count as meant.
    pub(super) unknown: bool,
}

/// Those in use, however many rules use one.
#[derive(Debug, Default)]
pub(super) struct Sets {
    by_key: BTreeMap<Arc<SetKey>, InUse>,
}

#[derive(Debug)]
struct InUse {
    prepared: Prepared,
    /// None: it is empty, and need not be.
    id: Option<SetId>,
    /// Policies that use it.
    uses: usize,
}

impl Sets {
    /// The set of those meant, or for a negative scope not meant; None where none is needed. `used` is told.
    pub(super) fn of(
        &mut self,
        key: SetKey,
        members: &Members,
        numbering: &mut Numbering,
        output: &mut Output,
        used: &mut BTreeSet<Arc<SetKey>>,
    ) -> Option<SetId> {
        let key = match self.by_key.get_key_value(&key) {
            Some((key, _)) => Arc::clone(key),
            None => {
                let prepared = members.prepare(&key.scope, key.unknown);
                let key = Arc::new(key);
                self.by_key.insert(Arc::clone(&key), InUse { prepared, id: None, uses: 0 });
                key
            }
        };
        let set = self.by_key.get_mut(&key)?;
        if set.id.is_none() {
            let listed = members.listed(&key.scope, &set.prepared, key.unknown);
            if !key.scope.is_negative() || !listed.is_empty() {
                let id = SetId(numbering.sets.number(&key));
                output.set_set(IdentitySet { id, members: listed });
                set.id = Some(id);
            }
        }
        let id = set.id;
        used.insert(key);
        id
    }

    /// Counts the uses of a policy.
    pub(super) fn hold(&mut self, used: &BTreeSet<Arc<SetKey>>) {
        for key in used {
            if let Some(set) = self.by_key.get_mut(key) {
                set.uses += 1;
            }
        }
    }

    /// Counts uses no more; what nobody uses is forgotten by [`Self::sweep`].
    pub(super) fn let_go(&mut self, used: &BTreeSet<Arc<SetKey>>, unused: &mut BTreeSet<Arc<SetKey>>) {
        for key in used {
            if let Some(set) = self.by_key.get_mut(key) {
                set.uses -= 1;
                if set.uses == 0 {
                    unused.insert(Arc::clone(key));
                }
            }
        }
    }

    /// Forgets those of `unused` that nobody uses.
    pub(super) fn sweep(
        &mut self,
        unused: &BTreeSet<Arc<SetKey>>,
        numbering: &mut Numbering,
        output: &mut Output,
    ) {
        for key in unused {
            if self.by_key.get(key).is_some_and(|set| set.uses == 0)
                && let Some(InUse { id: Some(id), .. }) = self.by_key.remove(key)
            {
                numbering.sets.release(key);
                output.remove_set(id);
            }
        }
    }

    /// Takes in identities that came and leaves out those that went. Gives the sets that are needed now and were not, or
    /// the other way round: who uses one is to be made anew.
    pub(super) fn follow(
        &mut self,
        members: &Members,
        (added, removed): (&BTreeSet<IdentityId>, &[IdentityId]),
        numbering: &mut Numbering,
        output: &mut Output,
    ) -> BTreeSet<Arc<SetKey>> {
        let added: Vec<Asked<'_>> = added.iter().filter_map(|id| members.ask(*id)).collect();
        let mut turned = BTreeSet::new();
        for (key, set) in &mut self.by_key {
            let is_listed =
                |asked: &&Asked<'_>| members.is_listed(&key.scope, &set.prepared, asked, key.unknown);
            let came = added.iter().filter(is_listed).map(Asked::id);
            let Some(id) = set.id else {
                if came.count() > 0 {
                    turned.insert(Arc::clone(key));
                }
                continue;
            };
            output.change_set(id, came, removed);
            if key.scope.is_negative()
                && output.state().sets.get(&id).is_some_and(|set| set.members.is_empty())
            {
                numbering.sets.release(key);
                output.remove_set(id);
                set.id = None;
                turned.insert(Arc::clone(key));
            }
        }
        turned
    }
}
