//! NodeRestriction: a kubelet changes its own node and the pods on it, and nothing that would draw workloads or rights to it.

use serde_json::Value;

use corten_api::status::Status;

use super::tools::{done, items, text};
use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::reader::Reader;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels under `kubernetes.io` and `k8s.io` that a kubelet sets.
const KUBELET_LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
    "node.kubernetes.io/exclude-from-external-load-balancers",
];

pub(super) struct NodeRestriction {
    pub(super) reader: Reader,
}

impl NodeRestriction {
    fn check(&self, r: &AdmissionRequest) -> Result<(), Status> {
        let node = r.user.name.strip_prefix("system:node:").unwrap_or_default();
        if node.is_empty() {
            return Err(r.forbidden(&format!("could not determine node from user {:?}", r.user.name)));
        }
        let outcome = match (r.group.as_str(), r.resource.as_str(), r.subresource.as_str()) {
            ("", "pods", "") => self.pod(r, node)?,
            ("", "pods", "status") => pod_status(r, node),
            ("", "pods", "eviction") => match text(&self.pod_named(r)?, "/spec/nodeName") == node {
                true => Ok(()),
                false => Err(format!("node {node} can only evict pods with spec.nodeName set to itself")),
            },
            ("", "pods", other) => Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed")),
            ("", "nodes", _) => own_node(r, node),
            ("", "persistentvolumeclaims", "status") => claim_status(r, node),
            ("", "persistentvolumeclaims", _) => Err("may only update PVC status".to_owned()),
            ("", "serviceaccounts", "token") => self.token(r, node)?,
            ("coordination.k8s.io", "leases", _) if r.namespace != "kube-node-lease" => {
                Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned())
            }
            ("coordination.k8s.io", "leases", _) if own_name(r) != node => {
                Err("can only access node lease with the same name as the requesting node".to_owned())
            }
            ("storage.k8s.io", "csinodes", _) if own_name(r) != node => {
                Err("can only access CSINode with the same name as the requesting node".to_owned())
            }
            ("resource.k8s.io", "resourceslices", _) => {
                let slice = r.object.as_ref().or(r.old.as_ref());
                match slice.is_none_or(|slice| text(slice, "/spec/nodeName") == node) {
                    true => Ok(()),
                    false => Err("can only create ResourceSlice with the same NodeName as the requesting node".to_owned()),
                }
            }
            _ => Ok(()),
        };
        outcome.map_err(|why| r.forbidden(&why))
    }

    fn pod_named(&self, r: &AdmissionRequest) -> Result<Value, Status> {
        self.reader.document("", "pods", &r.namespace, &r.name).ok_or_else(|| Status::not_found("", "pods", &r.name))
    }

    fn pod(&self, r: &AdmissionRequest, node: &str) -> Result<Result<(), String>, Status> {
        Ok(match (r.operation, &r.object) {
            (Operation::Create, Some(pod)) => self.new_pod(pod, node)?,
            (Operation::Delete, _) if text(&self.pod_named(r)?, "/spec/nodeName") == node => Ok(()),
            (Operation::Delete, _) => Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
            _ => Err(format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods")),
        })
    }

    /// A kubelet makes mirror pods only, of its own node, that refer to nothing else in the API.
    fn new_pod(&self, pod: &Value, node: &str) -> Result<Result<(), String>, Status> {
        let no = |why: String| Ok(Err(why));
        if pod["metadata"]["annotations"].get(MIRROR).is_none() {
            return no(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
        }
        if text(pod, "/spec/nodeName") != node {
            return no(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
        }
        let owners: Vec<_> = items(&pod["metadata"]["ownerReferences"]).collect();
        let owner = match owners.as_slice() {
            [owner] => *owner,
            [] => return no(format!("node {node:?} can only create pods with an owner reference set to itself")),
            _ => return no(format!("node {node:?} can only create pods with a single owner reference set to itself")),
        };
        if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
            return no(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
        if owner["controller"] != true {
            return no(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
        }
        if owner["blockOwnerDeletion"] == true {
            return no(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        let found = self.reader.get("", "nodes", "", node).ok_or_else(|| Status::not_found("", "nodes", node))?;
        if text(owner, "/uid") != &*found.uid {
            return no(format!("node {node} UID mismatch: expected {} got {}", text(owner, "/uid"), found.uid));
        }
        if !text(pod, "/spec/serviceAccountName").is_empty() {
            return no(format!("node {node:?} can not create pods that reference a service account"));
        }
        for (what, shown) in [
            ("secret", "secrets"),
            ("configMap", "configmaps"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
            ("clusterTrustBundle", "clustertrustbundles"),
        ] {
            if refers(&pod["spec"], what) {
                return no(format!("node {node:?} can not create pods that reference {shown}"));
            }
        }
        Ok(Ok(()))
    }

    /// A kubelet asks for tokens of pods that run on it.
    fn token(&self, r: &AdmissionRequest, node: &str) -> Result<Result<(), String>, Status> {
        let no = |why: &str| Ok(Err(why.to_owned()));
        let (Operation::Create, Some(request)) = (r.operation, &r.object) else { return Ok(Ok(())) };
        let reference = &request["spec"]["boundObjectRef"];
        if reference["apiVersion"] != "v1" || reference["kind"] != "Pod" || text(reference, "/name").is_empty() {
            return no("node requested token not bound to a pod");
        }
        let (name, uid) = (text(reference, "/name"), text(reference, "/uid"));
        if uid.is_empty() {
            return no("node requested token with a pod binding without a uid");
        }
        let pod = self.reader.document("", "pods", &r.namespace, name).ok_or_else(|| Status::not_found("", "pods", name))?;
        if text(&pod, "/metadata/uid") != uid {
            return Ok(Err(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            )));
        }
        if text(&pod, "/spec/nodeName") != node {
            return no("node requested token bound to a pod scheduled on a different node");
        }
        Ok(Ok(()))
    }
}

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation != Operation::Connect && request.user.is_in("system:nodes")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        done(self.check(request))
    }

    /// A deletion has no object to change, so it meets the judging pass only.
    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        let deletes = request.operation == Operation::Delete;
        done(if deletes { self.check(request) } else { Ok(()) })
    }
}

fn own_name(r: &AdmissionRequest) -> &str {
    match (&r.object, r.name.as_str()) {
        (Some(object), "") => text(object, "/metadata/name"),
        (_, name) => name,
    }
}

fn pod_status(r: &AdmissionRequest, node: &str) -> Result<(), String> {
    let (Some(new), Some(old)) = (&r.object, &r.old) else { return Ok(()) };
    if text(old, "/spec/nodeName") != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if new["metadata"]["labels"] != old["metadata"]["labels"] {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    if new["status"]["resourceClaimStatuses"] != old["status"]["resourceClaimStatuses"] {
        return Err(format!("node {node:?} cannot update resource claim statues"));
    }
    Ok(())
}

fn own_node(r: &AdmissionRequest, node: &str) -> Result<(), String> {
    let name = own_name(r);
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = &r.object else { return Ok(()) };
    let old = r.old.as_ref().unwrap_or(&Value::Null);
    if r.operation == Operation::Update && new["spec"]["taints"] != old["spec"]["taints"] {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    let (before, after) = (&old["metadata"]["labels"], &new["metadata"]["labels"]);
    let keys = super::tools::members(before).chain(super::tools::members(after)).map(|(key, _)| key);
    let mut changed: Vec<&str> = keys.filter(|key| before.get(*key) != after.get(*key)).map(String::as_str).collect();
    changed.retain(|key| is_forbidden_label(key));
    changed.sort_unstable();
    changed.dedup();
    match (r.operation, changed.is_empty()) {
        (_, true) => Ok(()),
        (Operation::Create, _) => {
            Err(format!("node {node:?} is not allowed to set the following labels: {}", changed.join(", ")))
        }
        _ => Err(format!("is not allowed to modify labels: {}", changed.join(", "))),
    }
}

/// Whether a label is one of Kubernetes that kubelets have no business with.
fn is_forbidden_label(key: &str) -> bool {
    let Some((namespace, _)) = key.split_once('/') else { return false };
    let under = |domain: &str| namespace == domain || namespace.ends_with(&format!(".{domain}"));
    if under("node-restriction.kubernetes.io") {
        return true;
    }
    let allowed = KUBELET_LABELS.contains(&key) || under("kubelet.kubernetes.io") || under("node.kubernetes.io");
    (under("kubernetes.io") || under("k8s.io")) && !allowed
}

fn claim_status(r: &AdmissionRequest, node: &str) -> Result<(), String> {
    let (Some(new), Some(old)) = (&r.object, &r.old) else { return Ok(()) };
    let bare = |claim: &Value| {
        let mut claim = claim.clone();
        for (part, fields) in [
            ("metadata", &["resourceVersion", "managedFields"][..]),
            ("status", &["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"]),
        ] {
            if let Some(part) = claim.get_mut(part).and_then(Value::as_object_mut) {
                part.retain(|key, _| !fields.contains(&key.as_str()));
            }
        }
        claim
    };
    match bare(new) == bare(old) {
        true => Ok(()),
        false => Err(format!("node {node:?} is not allowed to update fields other than status.capacity and status.conditions")),
    }
}

/// Whether anything in a pod's spec refers to this kind of object.
fn refers(spec: &Value, what: &str) -> bool {
    let keys = [what.to_owned(), format!("{what}Ref"), format!("{what}KeyRef")];
    fn search(value: &Value, keys: &[String]) -> bool {
        match value {
            Value::Object(map) => map.iter().any(|(key, value)| keys.contains(key) || search(value, keys)),
            Value::Array(list) => list.iter().any(|value| search(value, keys)),
            _ => false,
        }
    }
    search(spec, &keys) || (what == "secret" && items(&spec["imagePullSecrets"]).next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_kubernetes_are_not_for_kubelets() {
        for (label, forbidden) in [
            ("app", false),
            ("example.com/x", false),
            ("kubernetes.io/hostname", false),
            ("node.kubernetes.io/x", false),
            ("kubernetes.io/x", true),
            ("x.k8s.io/y", true),
            ("node-restriction.kubernetes.io/x", true),
            ("a.node-restriction.kubernetes.io/x", true),
        ] {
            assert_eq!(is_forbidden_label(label), forbidden, "{label}");
        }
    }
}
