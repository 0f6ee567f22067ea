//! ServiceAccount: every pod runs as one, and gets its token in a projected volume (KEP-1205).

use serde_json::{Value, json};

use corten_api::field::quoted;
use corten_api::names;
use corten_api::status::Status;

use super::tools::{done, items, list_mut, text};
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
        let account = self.account(&request.namespace, &name)?;
        let asked = pod["spec"]["automountServiceAccountToken"].as_bool();
        if asked.or(account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
            mount_token(pod);
        }
        if items(&pod["spec"]["imagePullSecrets"]).next().is_none() && items(&account["imagePullSecrets"]).next().is_some() {
            pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        if limits_secrets(&account) { check_secrets(pod, &account) } else { Ok(()) }
    }

    fn account(&self, namespace: &str, name: &str) -> Result<Value, String> {
        let failed = |why: String| format!("error looking up service account {namespace}/{name}: {why}");
        if let Some(account) = self.reader.document("", "serviceaccounts", namespace, name) {
            return Ok(account);
        }
        // What can be no part of a path is not even asked for.
        match names::name_is_path_segment(name, false) {
            wrong if wrong.is_empty() => Err(failed(format!("serviceaccount {} not found", quoted(name)))),
            wrong => Err(failed(format!("invalid resource name {}: [{}]", quoted(name), wrong.join(" ")))),
        }
    }

    /// Judges the pod as it is to be stored, or the ephemeral containers that a pod gets.
    fn check(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let Some(pod) = &request.object else { return Ok(()) };
        let adds = request.subresource == "ephemeralcontainers";
        let refuse = |why: String| request.forbidden(&why);
        if !adds && pod.pointer(MIRROR).is_some() {
            return check_mirror(pod).map_err(refuse);
        }
        let name = text(pod, "/spec/serviceAccountName");
        if name.is_empty() {
            let why = format!("no service account specified for pod {}/{}", request.namespace, text(pod, "/metadata/name"));
            return Err(refuse(why));
        }
        let account = self.account(&request.namespace, name).map_err(refuse)?;
        match (limits_secrets(&account), adds) {
            (false, _) => Ok(()),
            (true, false) => check_secrets(pod, &account).map_err(refuse),
            (true, true) => {
                let known = names_of(&account["secrets"]);
                check_containers(pod, "ephemeralContainers", "ephemeral container", &known, &account)
                    .map_err(|why| Status::failure(500, "", why))
            }
        }
    }
}

const ENFORCE: &str = "/metadata/annotations/kubernetes.io~1enforce-mountable-secrets";

/// Whether the account's pods may only use secrets that it names.
fn limits_secrets(account: &Value) -> bool {
    matches!(text(account, ENFORCE), "1" | "t" | "T" | "TRUE" | "true" | "True")
}

fn names_of(references: &Value) -> Vec<&str> {
    items(references).map(|reference| text(reference, "/name")).collect()
}

fn check_secrets(pod: &Value, account: &Value) -> Result<(), String> {
    let known = names_of(&account["secrets"]);
    let of = text(account, "/metadata/name");
    for volume in items(&pod["spec"]["volumes"]).filter(|volume| !volume["secret"].is_null()) {
        let secret = text(volume, "/secret/secretName");
        if !known.contains(&secret) {
            return Err(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {of} does not reference that secret"
            ));
        }
    }
    check_containers(pod, "initContainers", "init container", &known, account)?;
    check_containers(pod, "containers", "container", &known, account)?;
    let pull = names_of(&account["imagePullSecrets"]);
    for (at, secret) in items(&pod["spec"]["imagePullSecrets"]).map(|reference| text(reference, "/name")).enumerate() {
        if !pull.contains(&secret) {
            return Err(format!(
                "imagePullSecrets[{at}].name=\"{secret}\" is not allowed because service account {of} does not reference that \
                 imagePullSecret"
            ));
        }
    }
    Ok(())
}

fn check_containers(pod: &Value, list: &str, what: &str, known: &[&str], account: &Value) -> Result<(), String> {
    let of = text(account, "/metadata/name");
    let refuse = |container: &Value, by: String, secret: &str| {
        let name = text(container, "/name");
        Err(format!(
            "{what} {name} with {by} referencing secret.secretName=\"{secret}\" is not allowed because service account {of} does \
             not reference that secret"
        ))
    };
    for container in items(&pod["spec"][list]) {
        for variable in items(&container["env"]).filter(|variable| !variable["valueFrom"]["secretKeyRef"].is_null()) {
            let secret = text(variable, "/valueFrom/secretKeyRef/name");
            if !known.contains(&secret) {
                return refuse(container, format!("envVar {}", text(variable, "/name")), secret);
            }
        }
        for source in items(&container["envFrom"]).filter(|source| !source["secretRef"].is_null()) {
            let secret = text(source, "/secretRef/name");
            if !known.contains(&secret) {
                return refuse(container, "envFrom".to_owned(), secret);
            }
        }
    }
    Ok(())
}

/// Whether a pod refers to a secret anywhere in its volumes, variables or pull secrets.
fn names_secrets(pod: &Value) -> bool {
    let spec = &pod["spec"];
    let set = |value: &Value| !value.is_null();
    let volume = |volume: &Value| {
        let projected = items(&volume["projected"]["sources"]).any(|source| set(&source["secret"]));
        let by_reference = ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"];
        projected
            || set(&volume["secret"])
            || set(&volume["azureFile"])
            || set(&volume["csi"]["nodePublishSecretRef"])
            || by_reference.iter().any(|kind| set(&volume[*kind]["secretRef"]))
    };
    let container = |container: &Value| {
        items(&container["env"]).any(|variable| set(&variable["valueFrom"]["secretKeyRef"]))
            || items(&container["envFrom"]).any(|source| set(&source["secretRef"]))
    };
    let mut containers = ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| items(&spec[list]));
    items(&spec["imagePullSecrets"]).next().is_some() || containers.any(container) || items(&spec["volumes"]).any(volume)
}

/// A mirror pod shows what runs from a file on the node: it may not get at anything in the API.
fn check_mirror(pod: &Value) -> Result<(), String> {
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return Err("a mirror pod may not reference service accounts".to_owned());
    }
    if names_secrets(pod) {
        return Err("a mirror pod may not reference secrets".to_owned());
    }
    let mut projected = items(&pod["spec"]["volumes"]).flat_map(|volume| items(&volume["projected"]["sources"]));
    if projected.any(|source| source.get("serviceAccountToken").is_some()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections".to_owned());
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
        let adds = request.operation == Operation::Update && request.subresource == "ephemeralcontainers";
        (adds && request.group.is_empty() && request.resource == "pods")
            || (request.operation == Operation::Create && request.is("", "pods"))
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        let outcome = if request.operation == Operation::Create { self.change(request) } else { Ok(()) };
        done(outcome)
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        done(self.check(request))
    }
}
