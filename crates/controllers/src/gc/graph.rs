//! Who depends on whom: all objects with their owners, and what follows from each change. Pure.
//!
//! The graph is fed from caches that are behind the server by different amounts. An owner that is named but not seen
//! yet is a *virtual* node: it may be late, or it may not exist, which only the server can say.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::meta::{has_finalizer, is_deleting, name, namespace, uid};

pub(crate) const FOREGROUND: &str = "foregroundDeletion";
pub(crate) const ORPHAN: &str = "orphan";

pub(crate) type Uid = Arc<str>;

/// Where an object is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) api_version: Arc<str>,
    pub(crate) kind: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) owners: Vec<OwnerReference>,
    pub(crate) dependents: HashSet<Uid>,
    /// Nobody has seen it, it was only named as an owner.
    pub(crate) is_virtual: bool,
    pub(crate) deleting: bool,
    /// It is in foreground deletion: it waits for its dependents to go.
    pub(crate) deleting_dependents: bool,
}

/// What has to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    /// Whether the object should be deleted, or can go.
    Delete(Uid),
    /// The dependents of the object are to be set free.
    Orphan(Uid),
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Delete(uid) => write!(f, "delete {uid}"),
            Self::Orphan(uid) => write!(f, "orphan {uid}"),
        }
    }
}

/// All objects by UID.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: HashMap<Uid, Node>,
}

impl Graph {
    pub(crate) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// An object was created or changed.
    pub(crate) fn apply(&mut self, api_version: &Arc<str>, kind: &Arc<str>, meta: &ObjectMeta) -> Vec<Item> {
        let id: Uid = uid(meta).into();
        let owners = meta.owner_references.clone().unwrap_or_default();
        let deleting = is_deleting(meta);
        let foreground = deleting && has_finalizer(meta, FOREGROUND);
        let mut items = Vec::new();

        let before =
            self.nodes.get(&id).map(|node| (node.owners.clone(), node.deleting, node.deleting_dependents, node.is_virtual));
        let place = || Place {
            api_version: api_version.clone(),
            kind: kind.clone(),
            namespace: namespace(meta).into(),
            name: name(meta).into(),
        };
        let node = self.nodes.entry(id.clone()).or_insert_with(|| Node {
            place: place(),
            owners: Vec::new(),
            dependents: HashSet::new(),
            is_virtual: false,
            deleting: false,
            deleting_dependents: false,
        });
        if node.is_virtual {
            // Dependents that named it in another place named something else, which may not exist.
            let actual = place();
            let is_elsewhere =
                node.place.kind != actual.kind || (!node.place.namespace.is_empty() && node.place.namespace != actual.namespace);
            if is_elsewhere {
                items.extend(node.dependents.iter().cloned().map(Item::Delete));
            }
            node.place = actual;
            node.is_virtual = false;
        }
        node.owners = owners.clone();
        node.deleting = deleting;
        node.deleting_dependents |= foreground;
        if !foreground {
            node.deleting_dependents = false;
        }
        let (old_owners, was_deleting, was_foreground, was_virtual) = before.unwrap_or_default();

        for owner in owners.iter().filter(|owner| !old_owners.iter().any(|old| old.uid == owner.uid)) {
            items.extend(self.link(&id, owner, namespace(meta)));
        }
        for old in &old_owners {
            let now = owners.iter().find(|owner| owner.uid == old.uid);
            if now.is_none() {
                self.unlink(&id, &old.uid);
            }
            // An owner in foreground deletion waits for dependents that block it; this one no longer does.
            let blocked = old.block_owner_deletion == Some(true);
            let blocks = now.is_some_and(|owner| owner.block_owner_deletion == Some(true));
            if blocked && !blocks && self.nodes.get(&*old.uid).is_some_and(|owner| owner.deleting_dependents) {
                items.push(Item::Delete(old.uid.as_str().into()));
            }
        }
        let is_new_to_us = was_virtual || !was_deleting;
        if deleting && is_new_to_us && has_finalizer(meta, ORPHAN) {
            items.push(Item::Orphan(id.clone()));
        }
        if foreground && !was_foreground {
            let dependents = self.nodes.get(&id).into_iter().flat_map(|node| node.dependents.iter().cloned());
            items.extend(dependents.map(Item::Delete));
            items.push(Item::Delete(id));
        }
        items
    }

    /// An object is gone.
    pub(crate) fn remove(&mut self, id: &str) -> Vec<Item> {
        let Some(node) = self.nodes.remove(id) else { return Vec::new() };
        let mut items: Vec<Item> = Vec::new();
        for owner in &node.owners {
            self.unlink(id, &owner.uid);
            if self.nodes.get(&*owner.uid).is_some_and(|owner| owner.deleting_dependents) {
                items.push(Item::Delete(owner.uid.as_str().into()));
            }
        }
        items.extend(node.dependents.into_iter().map(Item::Delete));
        items
    }

    /// The dependents that hold the foreground deletion of `id`.
    pub(crate) fn blocking(&self, id: &str) -> Vec<(Uid, Node)> {
        let blocks =
            |dependent: &Node| dependent.owners.iter().any(|owner| owner.uid == id && owner.block_owner_deletion == Some(true));
        self.dependents(id).into_iter().filter(|(_, dependent)| blocks(dependent)).collect()
    }

    pub(crate) fn dependents(&self, id: &str) -> Vec<(Uid, Node)> {
        let dependents = self.nodes.get(id).into_iter().flat_map(|node| &node.dependents);
        dependents.filter_map(|uid| Some((uid.clone(), self.nodes.get(uid)?.clone()))).collect()
    }

    /// The UIDs of all objects of a kind, for a resource that is no longer served.
    pub(crate) fn of_kind(&self, api_version: &str, kind: &str) -> Vec<Uid> {
        let of_kind = |node: &Node| !node.is_virtual && &*node.place.api_version == api_version && &*node.place.kind == kind;
        self.nodes.iter().filter(|(_, node)| of_kind(node)).map(|(uid, _)| uid.clone()).collect()
    }

    fn link(&mut self, id: &Uid, owner: &OwnerReference, namespace: &str) -> Option<Item> {
        if let Some(node) = self.nodes.get_mut(&*owner.uid) {
            node.dependents.insert(id.clone());
            // Named with another kind or name than it has: only the server can say what was meant.
            let matches = *node.place.kind == *owner.kind && *node.place.name == *owner.name;
            return (!matches || node.is_virtual)
                .then(|| if matches { Item::Delete(owner.uid.as_str().into()) } else { Item::Delete(id.clone()) });
        }
        let place = Place {
            api_version: owner.api_version.as_str().into(),
            kind: owner.kind.as_str().into(),
            namespace: namespace.into(),
            name: owner.name.as_str().into(),
        };
        let node = Node {
            place,
            owners: Vec::new(),
            dependents: HashSet::from([id.clone()]),
            is_virtual: true,
            deleting: false,
            deleting_dependents: false,
        };
        let uid: Uid = owner.uid.as_str().into();
        self.nodes.insert(uid.clone(), node);
        Some(Item::Delete(uid))
    }

    fn unlink(&mut self, id: &str, owner: &str) {
        let Some(node) = self.nodes.get_mut(owner) else { return };
        node.dependents.remove(id);
        if node.is_virtual && node.dependents.is_empty() {
            self.nodes.remove(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn apply(graph: &mut Graph, kind: &str, meta: Value) -> Vec<String> {
        let items = graph.apply(&"v1".into(), &kind.into(), &from_value(meta).unwrap());
        shown(items)
    }

    fn shown(items: Vec<Item>) -> Vec<String> {
        let mut shown: Vec<String> = items.iter().map(ToString::to_string).collect();
        shown.sort();
        shown
    }

    fn owned(by: &str) -> Value {
        json!([{"apiVersion": "v1", "kind": "Owner", "name": by, "uid": by, "blockOwnerDeletion": true}])
    }

    #[test]
    fn an_owner_that_nobody_has_seen_is_looked_for() {
        let mut graph = Graph::default();
        assert_eq!(apply(&mut graph, "Pod", json!({"uid": "p", "name": "p", "ownerReferences": owned("o")})), ["delete o"]);
        assert!(graph.get("o").unwrap().is_virtual);
        // It shows up late: all is well.
        assert_eq!(apply(&mut graph, "Owner", json!({"uid": "o", "name": "o"})), [""; 0]);
        assert!(!graph.get("o").unwrap().is_virtual);
        assert_eq!(graph.dependents("o").len(), 1);
    }

    #[test]
    fn what_an_owner_leaves_behind_is_looked_at() {
        let mut graph = Graph::default();
        apply(&mut graph, "Owner", json!({"uid": "o", "name": "o"}));
        apply(&mut graph, "Pod", json!({"uid": "a", "name": "a", "ownerReferences": owned("o")}));
        apply(&mut graph, "Pod", json!({"uid": "b", "name": "b", "ownerReferences": owned("o")}));
        assert_eq!(shown(graph.remove("o")), ["delete a", "delete b"]);
        assert_eq!(shown(graph.remove("a")), [""; 0]);
    }

    #[test]
    fn foreground_deletion_waits_for_those_who_block_it() {
        let mut graph = Graph::default();
        apply(&mut graph, "Owner", json!({"uid": "o", "name": "o"}));
        apply(&mut graph, "Pod", json!({"uid": "a", "name": "a", "ownerReferences": owned("o")}));
        apply(&mut graph, "Pod", json!({"uid": "b", "name": "b", "ownerReferences": owned("o")}));
        let gone = "2026-01-01T00:00:00Z";
        let deleting = json!({"uid": "o", "name": "o", "deletionTimestamp": gone, "finalizers": [FOREGROUND]});
        assert_eq!(apply(&mut graph, "Owner", deleting.clone()), ["delete a", "delete b", "delete o"]);
        assert_eq!(apply(&mut graph, "Owner", deleting), [""; 0], "the same again is no news");
        assert_eq!(graph.blocking("o").len(), 2);
        // One goes, one is released.
        assert_eq!(shown(graph.remove("a")), ["delete o"]);
        assert_eq!(apply(&mut graph, "Pod", json!({"uid": "b", "name": "b"})), ["delete o"]);
        assert_eq!(graph.blocking("o").len(), 0);
    }

    #[test]
    fn orphaning_is_asked_for_once() {
        let mut graph = Graph::default();
        apply(&mut graph, "Owner", json!({"uid": "o", "name": "o"}));
        let deleting = json!({"uid": "o", "name": "o", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [ORPHAN]});
        assert_eq!(apply(&mut graph, "Owner", deleting.clone()), ["orphan o"]);
        assert_eq!(apply(&mut graph, "Owner", deleting), [""; 0]);
    }

    #[test]
    fn virtual_owners_go_with_their_last_dependent() {
        let mut graph = Graph::default();
        apply(&mut graph, "Pod", json!({"uid": "p", "name": "p", "ownerReferences": owned("o")}));
        graph.remove("p");
        assert!(graph.get("o").is_none());
    }
}
