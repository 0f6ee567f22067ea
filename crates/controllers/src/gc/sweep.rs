//! Looks at one object: should it be deleted, can it go, does it have to be set free? Every decision is made on what the
//! server says now, and every write is tied to the UID it was decided for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{DynamicObject, PartialObjectMeta};
use serde_json::{Value, json};

use super::Collector;
use super::graph::{FOREGROUND, Item, Node, ORPHAN};
use crate::error::{During, Error, Result, gone_is_fine};
use crate::meta::{has_finalizer, is_deleting, uid};

type Meta = PartialObjectMeta<DynamicObject>;

/// What an owner reference leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// An object that is there to stay.
    Solid,
    /// Nothing, or another object.
    Dangling,
    /// An object that waits for its dependents to be deleted.
    Waiting,
}

/// What follows for an object with owners.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Keep,
    /// Keep it, but take these owners (UIDs) out.
    Release(Vec<String>),
    Delete(PropagationPolicy),
}

/// Decides from what the owners are. `has_dependents` is whether the object owns something itself.
pub(super) fn judge(meta: &ObjectMeta, owners: &[(OwnerReference, Owner)], has_dependents: bool) -> Verdict {
    let waiting = owners.iter().any(|(_, owner)| *owner == Owner::Waiting);
    if owners.is_empty() {
        return Verdict::Keep;
    }
    if owners.iter().any(|(_, owner)| *owner == Owner::Solid) {
        let release: Vec<String> =
            owners.iter().filter(|(_, owner)| *owner != Owner::Solid).map(|(reference, _)| reference.uid.clone()).collect();
        return if release.is_empty() { Verdict::Keep } else { Verdict::Release(release) };
    }
    if waiting && has_dependents {
        return Verdict::Delete(PropagationPolicy::Foreground);
    }
    // What the object was asked for before stays in force.
    Verdict::Delete(if has_finalizer(meta, ORPHAN) {
        PropagationPolicy::Orphan
    } else if has_finalizer(meta, FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    })
}

impl Collector {
    pub(super) async fn look_at(&self, id: &str) -> Result<()> {
        let Some(node) = self.graph.lock().get(id).cloned() else { return Ok(()) };
        // Nothing to decide: being deleted already, or owned by nobody.
        if !node.is_virtual && !node.deleting_dependents && (node.deleting || node.owners.is_empty()) {
            return Ok(());
        }
        let Some(api) = self.api(&node.place.api_version, &node.place.kind, &node.place.namespace) else {
            if node.is_virtual {
                return Err(unknown(&node));
            }
            return Ok(());
        };
        let found = gone_is_fine(api.get(&node.place.name).await).during("get", describe(&node))?;
        let Some(latest) = found.filter(|latest| uid(&latest.metadata) == id) else {
            let items = self.graph.lock().remove(id);
            items.into_iter().for_each(|item| self.queue.add(item));
            return Ok(());
        };
        if node.is_virtual {
            // It exists; its informer will show it.
            return Ok(());
        }
        if node.deleting_dependents {
            return self.finish_foreground(id, &node, &api, &latest.metadata).await;
        }
        let mut owners = Vec::new();
        for reference in latest.metadata.owner_references.iter().flatten() {
            owners.push((reference.clone(), self.find_owner(reference, &node).await?));
        }
        let dependents = self.graph.lock().dependents(id);
        match judge(&latest.metadata, &owners, !dependents.is_empty()) {
            Verdict::Keep => Ok(()),
            Verdict::Release(release) => {
                let kept = |reference: &&OwnerReference| !release.contains(&reference.uid);
                let owners: Vec<_> = latest.metadata.owner_references.iter().flatten().filter(kept).collect();
                self.patch(&api, &node, &latest.metadata, json!({"ownerReferences": owners})).await
            }
            Verdict::Delete(policy) => {
                if matches!(policy, PropagationPolicy::Foreground)
                    && dependents.iter().any(|(_, dependent)| dependent.deleting_dependents)
                {
                    self.unblock(&api, &node, &latest.metadata).await?;
                }
                let this = Preconditions { uid: Some(id.to_owned()), resource_version: latest.metadata.resource_version.clone() };
                let params =
                    DeleteParams { propagation_policy: Some(policy), preconditions: Some(this), ..DeleteParams::default() };
                gone_is_fine(api.delete(&node.place.name, &params).await).during("delete", describe(&node))?;
                Ok(())
            }
        }
    }

    /// Lets an object in foreground deletion go when nothing blocks it, or makes sure that what blocks it is looked at.
    async fn finish_foreground(&self, id: &str, node: &Node, api: &Api<Meta>, latest: &ObjectMeta) -> Result<()> {
        let blocking = self.graph.lock().blocking(id);
        if blocking.is_empty() {
            return self.drop_finalizer(api, node, latest, FOREGROUND).await;
        }
        for (dependent, node) in blocking {
            if !node.deleting_dependents {
                self.queue.add(Item::Delete(dependent));
            }
        }
        Ok(())
    }

    /// In a circle of owners, all in foreground deletion, each would wait for the next for ever. The object gives up its right
    /// to block.
    async fn unblock(&self, api: &Api<Meta>, node: &Node, latest: &ObjectMeta) -> Result<()> {
        let owners: Vec<OwnerReference> = latest
            .owner_references
            .iter()
            .flatten()
            .map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() })
            .collect();
        let patch = Patch::Merge(json!({"metadata": {"uid": uid(latest), "ownerReferences": owners}}));
        gone_is_fine(api.patch(&node.place.name, &PatchParams::default(), &patch).await).during("unblock", describe(node))?;
        Ok(())
    }

    pub(super) async fn orphan(&self, id: &str) -> Result<()> {
        let Some(node) = self.graph.lock().get(id).cloned() else { return Ok(()) };
        let dependents = self.graph.lock().dependents(id);
        for (dependent, node) in dependents {
            let Some(api) = self.api(&node.place.api_version, &node.place.kind, &node.place.namespace) else {
                return Err(unknown(&node));
            };
            let latest = gone_is_fine(api.get(&node.place.name).await).during("get", describe(&node))?;
            let Some(latest) = latest.filter(|latest| uid(&latest.metadata) == &*dependent) else { continue };
            let owners: Vec<_> = latest.metadata.owner_references.iter().flatten().filter(|owner| owner.uid != id).collect();
            if owners.len() != latest.metadata.owner_references.iter().flatten().count() {
                self.patch(&api, &node, &latest.metadata, json!({"ownerReferences": owners})).await?;
            }
        }
        let Some(api) = self.api(&node.place.api_version, &node.place.kind, &node.place.namespace) else {
            return Err(unknown(&node));
        };
        let latest = gone_is_fine(api.get(&node.place.name).await).during("get", describe(&node))?;
        match latest.filter(|latest| uid(&latest.metadata) == id) {
            Some(latest) => self.drop_finalizer(&api, &node, &latest.metadata, ORPHAN).await,
            None => Ok(()),
        }
    }

    async fn drop_finalizer(&self, api: &Api<Meta>, node: &Node, latest: &ObjectMeta, finalizer: &str) -> Result<()> {
        if !has_finalizer(latest, finalizer) {
            return Ok(());
        }
        let rest: Vec<&String> = latest.finalizers.iter().flatten().filter(|known| *known != finalizer).collect();
        self.patch(api, node, latest, json!({"finalizers": rest})).await
    }

    /// Changes metadata of exactly the object that was read.
    async fn patch(&self, api: &Api<Meta>, node: &Node, latest: &ObjectMeta, mut meta: Value) -> Result<()> {
        meta["uid"] = json!(uid(latest));
        meta["resourceVersion"] = json!(latest.resource_version);
        let patch = Patch::Merge(json!({"metadata": meta}));
        gone_is_fine(api.patch(&node.place.name, &PatchParams::default(), &patch).await).during("patch", describe(node))?;
        Ok(())
    }

    async fn find_owner(&self, reference: &OwnerReference, dependent: &Node) -> Result<Owner> {
        let Some(api) = self.api(&reference.api_version, &reference.kind, &dependent.place.namespace) else {
            return Err(Error::Invalid(format!("no resource is known for owner {} {}", reference.api_version, reference.kind)));
        };
        let found = gone_is_fine(api.get(&reference.name).await).during("get owner", &reference.name)?;
        Ok(match found {
            Some(owner) if uid(&owner.metadata) != reference.uid => Owner::Dangling,
            None => Owner::Dangling,
            Some(owner) if is_deleting(&owner.metadata) && has_finalizer(&owner.metadata, FOREGROUND) => Owner::Waiting,
            Some(_) => Owner::Solid,
        })
    }

    fn api(&self, api_version: &str, kind: &str, namespace: &str) -> Option<Api<Meta>> {
        let served = self.resource_of(api_version, kind)?;
        let client = self.client.clone();
        Some(if served.namespaced {
            Api::namespaced_with(client, namespace, &served.resource)
        } else {
            Api::all_with(client, &served.resource)
        })
    }
}

fn describe(node: &Node) -> String {
    format!("{} {}/{}", node.place.kind, node.place.namespace, node.place.name)
}

fn unknown(node: &Node) -> Error {
    Error::Invalid(format!("no resource is known for {} {}", node.place.api_version, node.place.kind))
}
