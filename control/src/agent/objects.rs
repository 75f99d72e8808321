//! Objects that people apply, list and delete.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Status;
use vswitch_model::Invalid;
use vswitch_model::api::agent as pb;

use super::node::OWN_ANNOTATIONS;
use super::{Core, failure};
use crate::object::calico::Tier;
use crate::object::manifest::{self, Sourced};
use crate::object::{Endpoint, Flannel, Key, Kind, Object};
use crate::store::{self, Applied, At, Revision, Revisions, StoreError};

/// Namespace of objects that name none.
const DEFAULT_NAMESPACE: &str = "default";
/// How many users of an object are named when they are why it is not deleted.
const USERS_NAMED: usize = 5;

impl Core {
    /// Checks all objects, then writes all. When a write fails, those before it are made and the error names it. An
    /// engine of this node that is in step has them in force when this answers, or the answer says why not; other nodes
    /// follow by themselves.
    pub(super) async fn apply(
        &self,
        request: pb::ApplyObjectsRequest,
    ) -> Result<pb::ApplyObjectsReply, Status> {
        let sourced = parse(&request.documents, &request.namespace, Object::unenforced)?;
        self.refuse_missing_tiers(&sourced).await?;
        let mut objects: Vec<Object> = sourced.into_iter().map(|sourced| sourced.object).collect();
        objects.sort_by_key(|object| Kind::ALL.iter().position(|kind| *kind == object.kind()));
        let stored = self.stored_pools().await?;
        check_pools(&objects, stored)?;
        let applied: BTreeSet<Key> = objects.iter().map(Object::key).collect();
        let (mut results, mut changes) = (Vec::new(), Revisions::default());
        for object in objects {
            let key = object.key();
            let object = self.keep_own_annotations(object).await?;
            let outcome = if request.dry_run {
                let found = self.store.get(&key).await;
                found.map(|found| match found {
                    None => "created",
                    Some(found) if found.value == object.to_json() => "unchanged",
                    Some(_) => "configured",
                })
            } else {
                store::apply(&*self.store, &object).await.map(|applied| {
                    let (outcome, revision) = match applied {
                        Applied::Created(revision) => ("created", revision),
                        Applied::Updated(revision) => ("configured", revision),
                        Applied::Unchanged(revision) => ("unchanged", revision),
                    };
                    changes.raise(At::new(key.kind, revision));
                    outcome
                })
            };
            let mut result = result(&key, outcome.map_err(|e| about(&key, &e))?);
            result.note = self.note(&object, &applied).await?;
            results.push(result);
        }
        let not_in_force = if request.dry_run { None } else { self.settle(&changes).await };
        Ok(pb::ApplyObjectsReply { results, not_in_force: not_in_force.unwrap_or_default() })
    }

    /// A node's manifest says nothing of what the agents have written into the object.
    async fn keep_own_annotations(&self, object: Object) -> Result<Object, Status> {
        let Object::Node(mut node) = object else { return Ok(object) };
        let key = Key::cluster(Kind::Node, &node.metadata.name);
        let found = self.store.get(&key).await.map_err(|e| about(&key, &e))?;
        if let Some(Ok(Object::Node(found))) = found.map(|entry| entry.object()) {
            // What flannel has written at a node of its own is somebody else's to change.
            let flannels = found.is_flannels();
            for (name, value) in found.metadata.annotations {
                let announced = !flannels && Flannel::ANNOTATIONS.contains(&name.as_str());
                if announced || OWN_ANNOTATIONS.contains(&name.as_str()) {
                    node.metadata.annotations.entry(name).or_insert(value);
                }
            }
        }
        Ok(node.into())
    }

    async fn stored_pools(&self) -> Result<BTreeMap<String, crate::object::IpPool>, Status> {
        let listing = self.store.list(Some(Kind::IpPool)).await.map_err(|e| failure(&e))?;
        let pools = listing.entries.iter().filter_map(|entry| match entry.object() {
            Ok(Object::IpPool(pool)) => Some((pool.metadata.name.clone(), pool)),
            _ => None,
        });
        Ok(pools.collect())
    }

    /// The objects of a kind, as JSON, by name.
    pub(super) async fn list(&self, request: pb::ListObjectsRequest) -> Result<pb::ListObjectsReply, Status> {
        let kind = kind(&request.kind)?;
        let namespace = or_default(&request.namespace);
        let listing = self.store.list(Some(kind)).await.map_err(|e| failure(&e))?;
        let asked_for = |key: &Key| {
            (!kind.is_namespaced() || request.all_namespaces || key.namespace == namespace)
                && (request.name.is_empty() || key.name == request.name)
        };
        let mut values: BTreeMap<Key, Vec<u8>> =
            listing.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
        if kind == Kind::Tier {
            for tier in Tier::all_built_in().map(Object::Tier) {
                values.entry(tier.key()).or_insert_with(|| tier.to_json());
            }
        }
        let asked = values.into_iter().filter(|(key, _)| asked_for(key));
        let objects: Vec<String> =
            asked.map(|(_, value)| String::from_utf8_lossy(&value).into_owned()).collect();
        if objects.is_empty() && !request.name.is_empty() {
            return Err(self.absent(&Key::new(kind, namespace, request.name)).await);
        }
        Ok(pb::ListObjectsReply { kind: kind.to_string(), namespaced: kind.is_namespaced(), objects })
    }

    /// Deletes objects, each of which must be there, or what documents name, where what is not there is told and is no
    /// error. What is in use by others than these is refused. All are checked before any is deleted.
    pub(super) async fn delete(
        &self,
        request: pb::DeleteObjectsRequest,
    ) -> Result<pb::DeleteObjectsReply, Status> {
        if request.objects.is_empty() == request.documents.is_empty() {
            return Err(Status::invalid_argument("objects: name what to delete, by these or by documents"));
        }
        let sourced = parse(&request.documents, &request.namespace, |_| Ok(()))?;
        let mut keys: Vec<Key> = sourced.iter().map(|sourced| sourced.object.key()).collect();
        keys.extend(self.named(&request.objects, &request.namespace).await?);
        keys.sort_by_key(|key| std::cmp::Reverse(Kind::ALL.iter().position(|kind| *kind == key.kind)));
        if !request.force {
            self.refuse_in_use(&keys).await?;
        }
        let (mut results, mut changes) = (Vec::new(), Revisions::default());
        for key in keys {
            let deleted = match request.dry_run {
                true => self.store.get(&key).await.and_then(|found| {
                    found.map(|_| Revision::default()).ok_or_else(|| StoreError::NotFound(key.clone()))
                }),
                false => self.store.delete(&key, None).await,
            };
            let outcome = match deleted {
                Ok(revision) => {
                    changes.raise(At::new(key.kind, revision));
                    "deleted"
                }
                Err(StoreError::NotFound(_)) => "absent",
                Err(error) => return Err(about(&key, &error)),
            };
            results.push(result(&key, outcome));
        }
        let not_in_force = if request.dry_run { None } else { self.settle(&changes).await };
        let not_in_force = not_in_force.unwrap_or_default();
        Ok(pb::DeleteObjectsReply { results, not_in_force })
    }

    /// The objects of these names, each once. An error when one is not there, or is not people's to delete.
    async fn named(&self, names: &[pb::ObjectName], namespace: &str) -> Result<BTreeSet<Key>, Status> {
        let mut keys = BTreeSet::new();
        for pb::ObjectName { kind, name } in names {
            let key = key(kind, namespace, name)?;
            applied_by_people(key.kind)
                .map_err(|invalid| Status::invalid_argument(format!("{key}: {invalid}")))?;
            if self.store.get(&key).await.map_err(|e| about(&key, &e))?.is_none() {
                return Err(self.absent(&key).await);
            }
            keys.insert(key);
        }
        Ok(keys)
    }

    /// An error when one of `keys` is a pool with addresses in use, or a namespace with pods or a tier with policies that
    /// are not among `keys`.
    async fn refuse_in_use(&self, keys: &[Key]) -> Result<(), Status> {
        for key in keys {
            let users = match key.kind {
                Kind::IpPool => {
                    let users = self.ipam.attached_in(&key.name).await;
                    users.map_err(|error| Status::unavailable(format!("{key}: {error}")))?
                }
                Kind::Namespace => self.pods_in(&key.name, keys).await?,
                Kind::Tier => self.policies_in(&key.name, keys).await?,
                Kind::Pod => {
                    self.refuse_attached(key).await?;
                    continue;
                }
                _ => continue,
            };
            if !users.is_empty() {
                let first = users.iter().take(USERS_NAMED).cloned().collect::<Vec<_>>().join(", ");
                let more = match users.len().saturating_sub(USERS_NAMED) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                return Err(Status::failed_precondition(format!(
                    "{key} is in use by {first}{more}; delete these first, or use --force"
                )));
            }
        }
        Ok(())
    }

    /// Without its object nobody knows what an attached pod's policies are: it would be cut off.
    async fn refuse_attached(&self, key: &Key) -> Result<(), Status> {
        let endpoints = self.store.list(Some(Kind::Endpoint)).await.map_err(|e| failure(&e))?;
        let nodes: BTreeSet<String> = endpoints
            .entries
            .iter()
            .filter_map(|entry| match entry.object() {
                Ok(Object::Endpoint(Endpoint { spec, .. }))
                    if spec.namespace == key.namespace && spec.pod == key.name =>
                {
                    Some(spec.node)
                }
                _ => None,
            })
            .collect();
        if nodes.is_empty() {
            return Ok(());
        }
        let nodes = nodes.into_iter().collect::<Vec<_>>().join(" and ");
        Err(Status::failed_precondition(format!(
            "{key} is attached on {nodes}, and policies that may select it would cut it off; detach it first (CNI DEL), or \
             use --force"
        )))
    }

    /// The pods of a namespace that are attached, or have objects that are not among `keys`.
    async fn pods_in(&self, namespace: &str, keys: &[Key]) -> Result<Vec<String>, Status> {
        let mut pods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for kind in [Kind::Pod, Kind::Endpoint] {
            for entry in self.store.list(Some(kind)).await.map_err(|e| failure(&e))?.entries {
                match entry.object() {
                    Ok(Object::Pod(_)) if entry.key.namespace == namespace && !keys.contains(&entry.key) => {
                        pods.entry(entry.key.name).or_default();
                    }
                    Ok(Object::Endpoint(endpoint)) if endpoint.spec.namespace == namespace => {
                        pods.entry(endpoint.spec.pod).or_default().insert(endpoint.spec.node);
                    }
                    _ => {}
                }
            }
        }
        let on = |nodes: &BTreeSet<String>| match nodes.iter().cloned().collect::<Vec<_>>().join(" and ") {
            nodes if nodes.is_empty() => nodes,
            nodes => format!(" on {nodes}"),
        };
        Ok(pods.iter().map(|(pod, nodes)| format!("pod {namespace}/{pod}{}", on(nodes))).collect())
    }
}

/// The key that a person's words mean.
pub(super) fn key(kind_text: &str, namespace: &str, name: &str) -> Result<Key, Status> {
    if name.is_empty() {
        return Err(Status::invalid_argument("name: must not be empty"));
    }
    Ok(Key::new(kind(kind_text)?, or_default(namespace), name))
}

pub(super) fn or_default(namespace: &str) -> &str {
    if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace }
}

fn kind(text: &str) -> Result<Kind, Status> {
    text.parse().map_err(|invalid: Invalid| Status::invalid_argument(invalid.to_string()))
}

fn applied_by_people(kind: Kind) -> Result<(), Invalid> {
    if kind.is_applied_by_people() {
        return Ok(());
    }
    let why = format!("{kind} objects are the agents' own and cannot be applied or deleted by hand");
    Err(Invalid::new("kind", why))
}

/// The objects of all documents, none of them twice, and none that `judge` finds fault with.
fn parse(
    documents: &[pb::Document],
    namespace: &str,
    judge: impl Fn(&Object) -> Result<(), Invalid>,
) -> Result<Vec<Sourced>, Status> {
    let texts = documents.iter().map(|document| (document.file.as_str(), document.text.as_str()));
    let judge = |object: &Object| applied_by_people(object.kind()).and_then(|()| judge(object));
    let parsed = manifest::parse_sourced(texts, or_default(namespace), None, judge);
    parsed.map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Pools must not overlap, and what addresses were assigned by must not change under them.
fn check_pools(objects: &[Object], mut pools: BTreeMap<String, crate::object::IpPool>) -> Result<(), Status> {
    for object in objects {
        let Object::IpPool(pool) = object else { continue };
        let name = &pool.metadata.name;
        let refuse = |field: &str, problem: String| {
            Err(Status::invalid_argument(format!("IPPool {name}: spec.{field}: {problem}")))
        };
        if let Some(before) = pools.get(name) {
            let (was, is) = (before.spec.cidr, pool.spec.cidr);
            if was != is {
                return refuse("cidr", format!("cannot be changed from {was}; make another pool"));
            }
            let (was, is) = (before.block_size(), pool.block_size());
            if was != is {
                return refuse("blockSize", format!("cannot be changed from {was}; make another pool"));
            }
        }
        let (mine, overlaps) = (pool.spec.cidr, |other: ipnet::IpNet, mine: ipnet::IpNet| {
            other.contains(&mine) || mine.contains(&other)
        });
        let other =
            pools.values().find(|other| other.metadata.name != *name && overlaps(other.spec.cidr, mine));
        if let Some(other) = other {
            return refuse(
                "cidr",
                format!("{mine} overlaps {} of IPPool {}", other.spec.cidr, other.metadata.name),
            );
        }
        pools.insert(name.clone(), pool.clone());
    }
    Ok(())
}

fn result(key: &Key, outcome: &str) -> pb::ObjectResult {
    pb::ObjectResult {
        kind: key.kind.to_string(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        outcome: outcome.to_owned(),
        note: String::new(),
    }
}

fn about(key: &Key, error: &StoreError) -> Status {
    let status = failure(error);
    if status.message().contains(&key.to_string()) {
        return status;
    }
    Status::new(status.code(), format!("{key}: {}", status.message()))
}
