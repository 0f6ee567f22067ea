//! ServiceAccount: every pod runs as one, and gets its token in a projected volume (KEP-1205).

use serde_json::{Value, json};

use corten_api::names;
use corten_api::status::Status;

use super::tools::{items, list_mut, text};
use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::reader::Reader;
use crate::tokens::WARN_ONLY_EXPIRATION;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";

pub(super) struct ServiceAccount {
    pub(super) reader: Reader,
}

impl ServiceAccount {
    fn change(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let Some(mut pod) = request.object.take() else { return Ok(()) };
        let outcome = self.change_pod(request, &mut pod);
        request.object = Some(pod);
        outcome.map_err(|why| request.forbidden(&why))
    }

    fn change_pod(&self, request: &AdmissionRequest, pod: &mut Value) -> Result<(), String> {
        if pod.pointer(MIRROR).is_some() {
            return check_mirror(pod);
        }
        let mut name = text(pod, "/spec/serviceAccountName").to_owned();
        if name.is_empty() {
            name = "default".to_owned();
            pod["spec"]["serviceAccountName"] = name.clone().into();
        }
        // The old name of the same field is kept equal.
        pod["spec"]["serviceAccount"] = name.clone().into();
        let namespace = &request.namespace;
        let account = self
            .reader
            .document("", "serviceaccounts", namespace, &name)
            .ok_or_else(|| format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"))?;
        let asked = pod["spec"]["automountServiceAccountToken"].as_bool();
        if asked.or(account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
            mount_token(pod);
        }
        if items(&pod["spec"]["imagePullSecrets"]).next().is_none() && items(&account["imagePullSecrets"]).next().is_some() {
            pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        Ok(())
    }
}

/// A mirror pod shows what runs from a file on the node: it may not get at anything in the API.
fn check_mirror(pod: &Value) -> Result<(), String> {
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return Err("a mirror pod may not reference service accounts".to_owned());
    }
    let mut projected = items(&pod["spec"]["volumes"]).flat_map(|volume| items(&volume["projected"]["sources"]));
    if projected.any(|source| source.get("serviceAccountToken").is_some()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections".to_owned());
    }
    if items(&pod["spec"]["volumes"]).any(|volume| volume.get("secret").is_some()) {
        return Err("a mirror pod may not reference secrets".to_owned());
    }
    Ok(())
}

/// Mounts the token where every container expects it that has nothing there yet.
fn mount_token(pod: &mut Value) {
    let existing = items(&pod["spec"]["volumes"]).map(|volume| text(volume, "/name"));
    let existing = existing.filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned).next();
    let is_new = existing.is_none();
    let volume = existing.unwrap_or_else(|| names::generated(VOLUME_PREFIX, rand::random()));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if items(&container["volumeMounts"]).any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            needed = true;
            let mount = json!({"name": volume, "mountPath": MOUNT_PATH, "readOnly": true});
            list_mut(container, "volumeMounts").push(mount);
        }
    }
    if needed && is_new {
        list_mut(&mut pod["spec"], "volumes").push(json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": WARN_ONLY_EXPIRATION, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is("", "pods")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        Box::pin(std::future::ready(self.change(request)))
    }
}
