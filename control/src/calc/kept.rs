//! What a calculation leaves for the next: enough to work out again what a change of the objects concerns.
//!
//! A change of pods, of what attaches them, of nodes, blocks, pools and policies is followed: the addresses whose
//! identity becomes another are found, and from there on only sets, policies and subjects that these concern are worked
//! out anew. A change of anything that policies refer to by name or labels (see [`Referred`]) may concern everything, and
//! is calculated from nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_model::{DesiredState, DomainPattern, IdentityId};

use super::address_list::{AddressList, AddressLists};
use super::cluster::{Cluster, PodView};
use super::identity::{EVERYTHING, Holder, Identities, IdentityKey, PodKey, Who};
use super::output::Output;
use super::policy::{Compiler, InPlace, Members, Moves, Placed, Wanted, in_order, names_wanted};
#[cfg(doc)]
use super::referred::Referred;
use super::{CalcConfig, Inputs, NameWanted, NamespacedName, Numbering, route};
use crate::object::Pod;

/// Name of the node, and what else is no object.
type At<'a> = (&'a str, &'a CalcConfig);

#[derive(Debug)]
pub(super) struct Kept {
    inputs: Inputs,
    pods: Pods,
    wanted: Wanted,
    compiler: Compiler,
    problems: Problems,
}

/// What could not be done, by where that was found.
#[derive(Debug, Default)]
struct Problems {
    cluster: BTreeSet<String>,
    policies: BTreeSet<String>,
    routes: BTreeSet<String>,
}

/// Where pods are.
#[derive(Debug, Default)]
struct Pods {
    /// Those that have or claim addresses, as far as they have names.
    places: BTreeMap<NamespacedName, Place>,
    /// What policies can see of those of this node.
    local: BTreeMap<NamespacedName, PodKey>,
    /// Addresses that endpoints of this node have.
    local_addresses: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Place {
    /// Whether an endpoint gives it its addresses. If none does its object does.
    is_attached: bool,
    addresses: Vec<IpAddr>,
}

/// What a change of the objects moves.
#[derive(Default)]
struct Moved {
    /// Addresses whose owner is or looks like another. None: nobody has it any more.
    owners: BTreeMap<IpAddr, Option<Who>>,
    /// Pods of this node: what policies saw of them, and see now.
    local: Vec<(Option<PodKey>, Option<PodKey>)>,
}

impl Pods {
    fn of(cluster: &Cluster<'_>, node: &str) -> Self {
        let mut pods = Self::default();
        for view in &cluster.pods {
            let own = view.endpoints.iter().filter(|(endpoint, _)| endpoint.spec.node == node);
            pods.local_addresses.extend(own.clone().flat_map(|(_, addresses)| addresses));
            if view.name.is_empty() {
                continue;
            }
            let full_name = (view.namespace.to_owned(), view.name.to_owned());
            if own.count() > 0 {
                pods.local.insert(full_name.clone(), PodKey::of(view));
            }
            pods.places.insert(full_name, Place::of(view));
        }
        pods
    }

    /// The identities of this node's pods.
    fn local_identities(&self, identities: &Identities) -> BTreeSet<IdentityId> {
        let is_pod = |address: &&IpAddr| matches!(identities.who_has(**address), Some(Who::Pod(_)));
        let addresses = self.local_addresses.iter().filter(is_pod);
        addresses.filter_map(|address| identities.of_address(*address)).collect()
    }
}

impl Place {
    fn of(view: &PodView<'_>) -> Self {
        Self { is_attached: !view.endpoints.is_empty(), addresses: view.addresses.keys().copied().collect() }
    }
}

impl Kept {
    /// A calculation from nothing. `output` must be empty.
    pub(super) fn from_nothing(
        inputs: &Inputs,
        (node, config): At<'_>,
        numbering: &mut Numbering,
        output: &mut Output,
    ) -> Self {
        numbering.begin_calculation();
        let mut problems = Problems::default();
        let cluster = Cluster::of(inputs, &mut problems.cluster);
        let pods = Pods::of(&cluster, node);
        let placed = in_order(inputs, &cluster.referred, &mut problems.policies);
        let in_place = |placed| InPlace::new(placed, pods.local.values(), &cluster.referred);
        let policies: Vec<_> = placed.into_iter().map(in_place).collect();
        let wanted =
            Wanted::by(policies.iter().filter_map(InPlace::in_force), &cluster.referred, &inputs.names);
        let lists = AddressLists::of(&wanted.lists, numbering);
        let identities = Identities::of(&cluster, node, &lists, wanted.labels_of_nodes, numbering);
        output.set_prefixes(identities.prefixes());
        identities.by_number.iter().for_each(|(id, key)| output.set_identity(key.model(*id, &lists)));
        let moves = Moves { local: pods.local_identities(&identities), ..Moves::default() };
        let mut compiler = Compiler::new(policies, Members::new(cluster.referred.clone(), identities, lists));
        compiler.follow(&moves, BTreeSet::new(), numbering, output);
        let mut ways = DesiredState::default();
        route::compile(inputs, &cluster, node, config, numbering, &mut ways, &mut problems.routes);
        output.set_ways(ways);
        numbering.end_of_calculation();
        Self { inputs: inputs.clone(), pods, wanted, compiler, problems }
    }

    /// Goes on to other objects. Whether that could be done: if not, nothing here and in `output` means anything any
    /// more, and they are to be calculated from nothing.
    pub(super) fn follow(
        &mut self,
        inputs: &Inputs,
        at: At<'_>,
        numbering: &mut Numbering,
        output: &mut Output,
    ) -> bool {
        let same = self.inputs.same_as(inputs);
        if !same.referred {
            return false;
        }
        let described = if same.addresses { self.moved_pods(inputs) } else { None };
        let moved = match described {
            Some(moved) => moved,
            None => match self.moved_cluster(inputs, at, numbering, output) {
                Some(moved) => moved,
                None => return false,
            },
        };
        let names_turned = self.inputs.names != inputs.names;
        let mut in_force_turned = names_turned;
        for (before, now) in &moved.local {
            in_force_turned |= self.compiler.recount(before.as_ref(), now.as_ref());
        }
        let mut concerned = BTreeSet::new();
        if !same.policies {
            let placed = self.placed(inputs);
            concerned = self.compiler.replace(placed, &self.pods.local, numbering, output);
            in_force_turned = true;
        }
        let mut wanted_before = None;
        if in_force_turned {
            let wanted = Wanted::by(self.compiler.in_force(), &self.compiler.members.referred, &inputs.names);
            if wanted.labels_of_nodes != self.wanted.labels_of_nodes {
                return false;
            }
            if names_turned || !wanted.lists.keys().eq(self.wanted.lists.keys()) {
                wanted_before = Some(std::mem::replace(&mut self.wanted, wanted));
            }
        }
        let moves = self.give(moved.owners, wanted_before.as_ref(), numbering, output);
        self.compiler.follow(&moves, concerned, numbering, output);
        numbering.end_of_change();
        self.inputs = inputs.clone();
        true
    }

    fn placed(&mut self, inputs: &Inputs) -> Vec<Placed> {
        self.problems.policies.clear();
        in_order(inputs, &self.compiler.members.referred, &mut self.problems.policies)
    }

    /// What moves when nothing but descriptions of pods has changed. None: where pods have their addresses from has, too.
    fn moved_pods(&mut self, inputs: &Inputs) -> Option<Moved> {
        let changed = self.inputs.pods.changed(&inputs.pods);
        let addresses = |pod: Option<&Arc<Pod>>| {
            pod.map(|pod| (pod.addresses(), pod.spec.node_name.clone()))
                .filter(|(addresses, _)| !addresses.is_empty())
        };
        let is_alike = |name: &NamespacedName| {
            self.pods.places.get(name).is_some_and(|place| place.is_attached)
                || addresses(self.inputs.pods.get(name)) == addresses(inputs.pods.get(name))
        };
        if !changed.iter().all(is_alike) {
            return None;
        }
        let mut moved = Moved::default();
        for name in changed {
            let Some(place) = self.pods.places.get(&name) else { continue };
            let key = PodKey::of_object(&name.0, inputs.pods.get(&name).map(AsRef::as_ref));
            let owner = || Some(Who::Pod(key.clone()));
            moved.owners.extend(place.addresses.iter().map(|address| (*address, owner())));
            if let Some(local) = self.pods.local.get_mut(&name) {
                let before = std::mem::replace(local, key.clone());
                moved.local.push((Some(before), Some(key)));
            }
        }
        Some(moved)
    }

    /// What moves when anything of what has addresses has changed; where packets go is worked out at once. None: other
    /// namespaces have pods, and that may concern everything.
    fn moved_cluster(
        &mut self,
        inputs: &Inputs,
        (node, config): At<'_>,
        numbering: &mut Numbering,
        output: &mut Output,
    ) -> Option<Moved> {
        let mut problems = BTreeSet::new();
        let cluster = Cluster::of(inputs, &mut problems);
        let referred = &self.compiler.members.referred;
        if !cluster.referred.namespaces().eq(referred.namespaces()) {
            return None;
        }
        self.problems.cluster = problems;
        let mut moved = Moved::default();
        let identities = &self.compiler.members.identities;
        for (address, owner) in &cluster.owners {
            let known = identities.who_has(*address);
            if known.is_none_or(|known| !known.is(*owner, &cluster, node, self.wanted.labels_of_nodes)) {
                let who = Who::of(*owner, &cluster, node, self.wanted.labels_of_nodes);
                moved.owners.insert(*address, Some(who));
            }
        }
        let gone = identities.addresses().filter(|address| !cluster.owners.contains_key(address));
        moved.owners.extend(gone.map(|address| (address, None)));

        let pods = Pods::of(&cluster, node);
        let before = std::mem::replace(&mut self.pods, pods);
        let names: BTreeSet<_> = before.local.keys().chain(self.pods.local.keys()).collect();
        for name in names {
            let (before, now) = (before.local.get(name), self.pods.local.get(name));
            if before != now {
                moved.local.push((before.cloned(), now.cloned()));
            }
        }

        let mut ways = DesiredState::default();
        self.problems.routes.clear();
        numbering.tunnels.forget_mentions();
        route::compile(inputs, &cluster, node, config, numbering, &mut ways, &mut self.problems.routes);
        numbering.tunnels.forget_unmentioned();
        output.set_ways(ways);
        Some(moved)
    }

    /// Gives identities to addresses whose owners are others, and where other lists are wanted than before to all that
    /// these concern.
    fn give(
        &mut self,
        mut owners: BTreeMap<IpAddr, Option<Who>>,
        wanted_before: Option<&Wanted>,
        numbering: &mut Numbering,
        output: &mut Output,
    ) -> Moves {
        let Members { identities, lists, .. } = &mut self.compiler.members;
        let mut given: Vec<(Holder, Option<IdentityKey>)> = Vec::new();
        if let Some(before) = wanted_before {
            let nets = swap_lists(lists, &before.lists, &self.wanted.lists, numbering);
            let world = |prefix| IdentityKey { who: Who::World, lists: lists.covering(prefix) };
            let prefixes: Vec<_> = lists.cidrs().chain(EVERYTHING).collect();
            given.extend(prefixes.iter().map(|prefix| (Holder::World(*prefix), Some(world(*prefix)))));
            let there: BTreeSet<_> = prefixes.into_iter().collect();
            let gone = identities.world().filter(|prefix| !there.contains(prefix));
            given.extend(gone.map(|prefix| (Holder::World(prefix), None)));
            let covered = |address: &IpAddr| nets.iter().any(|net| net.contains(address));
            for address in identities.addresses().filter(covered) {
                owners.entry(address).or_insert_with(|| identities.who_has(address).cloned());
            }
        }
        for (address, who) in owners {
            let key = who.map(|who| IdentityKey { who, lists: lists.covering(IpNet::from(address)) });
            given.push((Holder::Address(address), key));
        }

        let mut prefixes = BTreeSet::new();
        for (holder, key) in given {
            prefixes.insert(holder.prefix());
            identities.give(holder, key, numbering);
        }
        for prefix in prefixes {
            let id = identities.of_prefix(prefix);
            if output.state().prefixes.get(&prefix) != id.as_ref() {
                output.set_prefix(prefix, id);
            }
        }
        let (added, removed) = identities.settle(numbering);
        for id in &added {
            if let Some(key) = identities.by_number.get(id) {
                output.set_identity(key.model(*id, lists));
            }
        }
        removed.keys().for_each(|id| output.remove_identity(*id));
        Moves { added, removed, local: self.pods.local_identities(identities) }
    }

    /// The names that policies in force speak of.
    pub(super) fn names(&self) -> BTreeMap<DomainPattern, NameWanted> {
        let of_place =
            |name: &NamespacedName| self.pods.places.get(name).map(|place| place.addresses.as_slice());
        let local = self.pods.local.iter();
        let pods: Vec<_> = local.filter_map(|(name, key)| Some((key, of_place(name)?))).collect();
        names_wanted(self.compiler.in_force(), &pods, &self.compiler.members.referred)
    }

    /// What could not be done as the objects say, for people, sorted.
    pub(super) fn problems(&self) -> Vec<String> {
        let Problems { cluster, policies, routes } = &self.problems;
        let all = cluster.iter().chain(policies).chain(routes).cloned();
        let all: BTreeSet<String> = all.chain(self.compiler.problems()).collect();
        all.into_iter().collect()
    }
}

/// Puts other lists in the place of all. Gives the CIDRs of those that came, went, or are others.
fn swap_lists(
    lists: &mut AddressLists,
    before: &BTreeMap<AddressList, Vec<IpNet>>,
    now: &BTreeMap<AddressList, Vec<IpNet>>,
    numbering: &mut Numbering,
) -> BTreeSet<IpNet> {
    *lists = AddressLists::of(now, numbering);
    let came = now.iter().filter(|(list, _)| !before.contains_key(list));
    let went = before.iter().filter(|(list, _)| !now.contains_key(list));
    went.clone().for_each(|(list, _)| numbering.lists.release(list));
    // What DNS tells changes what is in a list.
    let kept = before.iter().filter_map(|(list, before)| Some((before, now.get(list)?)));
    let turned =
        kept.filter(|(before, now)| before != now).flat_map(|(before, now)| before.iter().chain(now));
    came.chain(went).flat_map(|(_, nets)| nets).chain(turned).map(IpNet::trunc).collect()
}
