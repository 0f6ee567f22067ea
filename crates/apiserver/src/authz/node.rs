//! The Node authorizer: a kubelet may read what the pods on its node need, and nothing else of the kind.
//!
//! What a node needs is an index over the pods, built when the first kubelet asks and kept up by the difference between
//! snapshots. Volumes and claims are followed at the time of the question.

use std::collections::HashMap;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use parking_lot::RwLock;
use serde_json::Value;

use super::rbac::{Rbac, RoleRef};
use super::{Attributes, Decision};
use crate::cache::{Entry, Map};
use crate::reader::Reader;
use crate::user::User;

/// Decisions about nodes' requests.
pub(super) struct Nodes {
    reader: Reader,
    index: RwLock<Index>,
}

/// What the pods of each node refer to, with how many pods do.
struct Index {
    seen: u64,
    snapshot: Map,
    of_pod: HashMap<Arc<str>, (String, Vec<Reference>)>,
    of_node: HashMap<String, HashMap<Reference, usize>>,
}

/// Something that a pod refers to: resource, namespace, name.
type Reference = (&'static str, String, String);

/// The node that a user is: `system:node:NAME` in `system:nodes`.
pub(super) fn name_of(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.is_in("system:nodes"))
}

impl Nodes {
    pub(super) fn new(reader: Reader) -> Self {
        let index = Index { seen: u64::MAX, snapshot: Map::new(), of_pod: HashMap::new(), of_node: HashMap::new() };
        Self { reader, index: RwLock::new(index) }
    }

    pub(super) fn decide(&self, a: &Attributes<'_>, rbac: &Rbac) -> Decision {
        let Some(node) = name_of(a.user) else { return no("") };
        if node.is_empty() {
            return no(format!("unknown node for user {:?}", a.user.name));
        }
        if a.is_resource
            && let Some(decision) = self.subdivided(a, node)
        {
            return decision;
        }
        let role = RoleRef { kind: "ClusterRole".into(), name: "system:node".into() };
        let rules = rbac.role(&role, "").unwrap_or_default();
        if rules.iter().any(|rule| rule.allows(a)) { yes() } else { no("") }
    }

    /// Decisions that depend on the object; `None` when the rules of all nodes decide.
    fn subdivided(&self, a: &Attributes<'_>, node: &str) -> Option<Decision> {
        let (read, own) = (matches!(a.verb, "get" | "list" | "watch"), a.name == node);
        let related = |resource| self.related(a, resource, node);
        Some(match (a.group, a.resource) {
            ("", "secrets" | "configmaps") => match () {
                () if !read => no("can only read resources of this type"),
                () if !a.subresource.is_empty() => no("cannot read subresource"),
                () if a.namespace.is_empty() => no("can only read namespaced object of this type"),
                () => related(if a.resource == "secrets" { "secrets" } else { "configmaps" }),
            },
            ("", "persistentvolumeclaims") if a.subresource == "status" => match a.verb {
                "update" | "patch" => related("persistentvolumeclaims"),
                _ => no("can only get/update/patch this type"),
            },
            ("", "persistentvolumeclaims") => self.get_only(a, "persistentvolumeclaims", node),
            ("", "persistentvolumes") => self.get_only(a, "persistentvolumes", node),
            ("resource.k8s.io", "resourceclaims") => self.get_only(a, "resourceclaims", node),
            ("storage.k8s.io", "volumeattachments") => self.get_only(a, "volumeattachments", node),
            ("", "serviceaccounts") => match () {
                () if a.verb != "create" || a.name.is_empty() => no("can only create tokens for individual service accounts"),
                () if a.subresource != "token" => no("can only create token subresource of serviceaccount"),
                () => related("serviceaccounts"),
            },
            ("coordination.k8s.io", "leases") => match a.verb {
                "get" | "create" | "update" | "patch" | "delete" if a.namespace != "kube-node-lease" => {
                    no("can only access leases in the \"kube-node-lease\" system namespace")
                }
                "create" => yes(),
                "get" | "update" | "patch" | "delete" if own => yes(),
                "get" | "update" | "patch" | "delete" => {
                    no("can only access node lease with the same name as the requesting node")
                }
                _ => no("can only get, create, update, patch, or delete a node lease"),
            },
            ("storage.k8s.io", "csinodes") => match a.verb {
                _ if !a.subresource.is_empty() => no("cannot authorize CSINode subresources"),
                "create" => yes(),
                "get" | "update" | "patch" | "delete" if own => yes(),
                "get" | "update" | "patch" | "delete" => no("can only access CSINode with the same name as the requesting node"),
                _ => no("can only get, create, update, patch, or delete a CSINode"),
            },
            ("resource.k8s.io", "resourceslices") => match a.verb {
                _ if !a.subresource.is_empty() => no("cannot authorize ResourceSlice subresources"),
                "create" => yes(),
                "get" | "update" | "patch" | "delete" => related("resourceslices"),
                "watch" | "list" | "deletecollection" if a.selects("spec.nodeName", node) || a.selects("nodeName", node) => yes(),
                "watch" | "list" | "deletecollection" => {
                    no("can only list/watch/deletecollection resourceslices with nodeName field selector")
                }
                _ => no(
                    "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
                ),
            },
            ("", "nodes") if a.subresource.is_empty() && read => match a.name {
                _ if own => yes(),
                "" => no(format!("node '{node}' cannot read all nodes, only its own Node object")),
                other => no(format!("node '{node}' cannot read '{other}', only its own Node object")),
            },
            ("", "pods") if a.subresource.is_empty() && read => match () {
                () if a.verb != "get" && a.selects("spec.nodeName", node) => yes(),
                () if a.verb != "get" && a.name.is_empty() => no("can only list/watch pods with spec.nodeName field selector"),
                () => related("pods"),
            },
            _ => return None,
        })
    }

    fn get_only(&self, a: &Attributes<'_>, resource: &'static str, node: &str) -> Decision {
        if a.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !a.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(a, resource, node)
    }

    fn related(&self, a: &Attributes<'_>, resource: &'static str, node: &str) -> Decision {
        if a.name.is_empty() {
            return no("No Object name found");
        }
        if self.is_related(resource, a.namespace, a.name, node) {
            return yes();
        }
        no(format!("no relationship found between node '{node}' and this object"))
    }

    fn is_related(&self, resource: &'static str, namespace: &str, name: &str, node: &str) -> bool {
        let field = |group: &str, resource: &str, scope: &str, name: &str, pointer: &str| {
            let document = self.reader.document(group, resource, scope, name)?;
            Some(document.pointer(pointer)?.as_str()?.to_owned())
        };
        match resource {
            "pods" => field("", "pods", namespace, name, "/spec/nodeName").as_deref() == Some(node),
            "volumeattachments" => {
                field("storage.k8s.io", "volumeattachments", "", name, "/spec/nodeName").as_deref() == Some(node)
            }
            "resourceslices" => field("resource.k8s.io", "resourceslices", "", name, "/spec/nodeName").as_deref() == Some(node),
            "persistentvolumes" => {
                let claim = |part| field("", "persistentvolumes", "", name, part).unwrap_or_default();
                let (namespace, name) = (claim("/spec/claimRef/namespace"), claim("/spec/claimRef/name"));
                self.refers(node, &("persistentvolumeclaims", namespace, name))
            }
            "secrets" => {
                let wanted = ("secrets", namespace.to_owned(), name.to_owned());
                self.refers(node, &wanted) || self.volumes(node).iter().any(|volume| volume_secrets(volume).contains(&wanted))
            }
            _ => self.refers(node, &(resource, namespace.to_owned(), name.to_owned())),
        }
    }

    fn refers(&self, node: &str, reference: &Reference) -> bool {
        self.refresh();
        self.index.read().of_node.get(node).is_some_and(|references| references.contains_key(reference))
    }

    /// The persistent volumes of the claims that pods of the node use.
    fn volumes(&self, node: &str) -> Vec<Value> {
        let index = self.index.read();
        let references = index.of_node.get(node).into_iter().flat_map(HashMap::keys);
        let claims = references.filter(|(resource, ..)| *resource == "persistentvolumeclaims");
        let volume = |(_, namespace, name): &Reference| {
            let claim = self.reader.document("", "persistentvolumeclaims", namespace, name)?;
            self.reader.document("", "persistentvolumes", "", claim.pointer("/spec/volumeName")?.as_str()?)
        };
        claims.filter_map(volume).collect()
    }

    fn refresh(&self) {
        let seen = self.reader.changed("", "pods");
        if self.index.read().seen == seen {
            return;
        }
        let mut index = self.index.write();
        index.update(seen, self.reader.snapshot("", "pods"));
    }
}

impl Index {
    fn update(&mut self, seen: u64, snapshot: Map) {
        let old = std::mem::replace(&mut self.snapshot, snapshot.clone());
        for item in old.diff(&snapshot) {
            match item {
                DiffItem::Add(key, entry) | DiffItem::Update { new: (key, entry), .. } => self.set(key, Some(entry)),
                DiffItem::Remove(key, _) => self.set(key, None),
            }
        }
        self.seen = seen;
    }

    fn set(&mut self, key: &Arc<str>, entry: Option<&Arc<Entry>>) {
        if let Some((node, references)) = self.of_pod.remove(key)
            && let Some(counts) = self.of_node.get_mut(&node)
        {
            for reference in references {
                if let Some(count) = counts.get_mut(&reference) {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(&reference);
                    }
                }
            }
            if counts.is_empty() {
                self.of_node.remove(&node);
            }
        }
        // A pod that is on no node needs nothing yet.
        let Some(entry) = entry.filter(|entry| entry.field("spec.nodeName").is_none_or(|node| !node.is_empty())) else { return };
        let pod = entry.decode();
        let Some(node) = pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|node| !node.is_empty()) else { return };
        let references = references(&pod, &entry.namespace, &entry.name);
        let counts = self.of_node.entry(node.to_owned()).or_default();
        for reference in &references {
            *counts.entry(reference.clone()).or_default() += 1;
        }
        self.of_pod.insert(key.clone(), (node.to_owned(), references));
    }
}

/// Everything a pod refers to.
fn references(pod: &Value, namespace: &str, name: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut add = |resource, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            found.push((resource, namespace.to_owned(), name.to_owned()));
        }
    };
    let spec = &pod["spec"];
    add("serviceaccounts", &spec["serviceAccountName"]);
    for secret in items(&spec["imagePullSecrets"]) {
        add("secrets", &secret["name"]);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(&spec[list]) {
            for env in items(&container["env"]) {
                add("secrets", &env["valueFrom"]["secretKeyRef"]["name"]);
                add("configmaps", &env["valueFrom"]["configMapKeyRef"]["name"]);
            }
            for env in items(&container["envFrom"]) {
                add("secrets", &env["secretRef"]["name"]);
                add("configmaps", &env["configMapRef"]["name"]);
            }
        }
    }
    for volume in items(&spec["volumes"]) {
        add("secrets", &volume["secret"]["secretName"]);
        add("configmaps", &volume["configMap"]["name"]);
        add("persistentvolumeclaims", &volume["persistentVolumeClaim"]["claimName"]);
        if volume.get("ephemeral").is_some() {
            let claim = format!("{name}-{}", volume["name"].as_str().unwrap_or_default());
            add("persistentvolumeclaims", &claim.into());
        }
        for source in items(&volume["projected"]["sources"]) {
            add("secrets", &source["secret"]["name"]);
            add("configmaps", &source["configMap"]["name"]);
        }
        for kind in ["azureFile", "cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
            add("secrets", &volume[kind]["secretRef"]["name"]);
            add("secrets", &volume[kind]["secretName"]);
        }
        add("secrets", &volume["csi"]["nodePublishSecretRef"]["name"]);
    }
    for claim in items(&spec["resourceClaims"]) {
        add("resourceclaims", &claim["resourceClaimName"]);
    }
    for claim in items(&pod["status"]["resourceClaimStatuses"]) {
        add("resourceclaims", &claim["resourceClaimName"]);
    }
    found
}

/// The secrets that a persistent volume names.
fn volume_secrets(volume: &Value) -> Vec<Reference> {
    let spec = &volume["spec"];
    let claim = spec["claimRef"]["namespace"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    let mut add = |reference: &Value| {
        if let Some(name) = reference["name"].as_str() {
            let namespace = reference["namespace"].as_str().unwrap_or(claim);
            found.push(("secrets", namespace.to_owned(), name.to_owned()));
        }
    };
    for field in [
        "controllerPublishSecretRef",
        "nodePublishSecretRef",
        "nodeStageSecretRef",
        "controllerExpandSecretRef",
        "nodeExpandSecretRef",
    ] {
        add(&spec["csi"][field]);
    }
    for kind in ["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
        add(&spec[kind]["secretRef"]);
    }
    found
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

fn no(why: impl Into<String>) -> Decision {
    Decision::NoOpinion(why.into())
}
