//! Validation of environment variables and of references to a pod's fields and resources.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use crate::check;
use crate::doc::Read;
use crate::names;
use crate::pod::visit;
use crate::quantity::Quantity;

const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] =
    &["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];

/// `env`
pub(super) fn variables(faults: &mut Faults, path: &Path<'_>, variables: &[Value]) {
    for (i, variable) in variables.iter().enumerate() {
        let at = path.index(i);
        let name = variable.text("name");
        if name.is_empty() {
            faults.required(&at.child("name"), "");
        } else {
            check::invalid_each(faults, &at.child("name"), name, names::env_var_name(name));
        }
        if let Some(source) = variable.opt("valueFrom") {
            value_from(faults, &at.child("valueFrom"), source, variable.text("value"));
        }
    }
}

fn value_from(faults: &mut Faults, path: &Path<'_>, source: &Value, value: &str) {
    let mut count = 0;
    if let Some(field) = source.opt("fieldRef") {
        count += 1;
        field_selector(faults, &path.child("fieldRef"), field, FIELDS);
    }
    if let Some(resource) = source.opt("resourceFieldRef") {
        count += 1;
        resource_selector(faults, &path.child("resourceFieldRef"), resource, false);
    }
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        let Some(reference) = source.opt(kind) else { continue };
        count += 1;
        let at = path.child(kind);
        check::dns_subdomain(faults, &at.child("name"), reference.text("name"));
        let key = reference.text("key");
        if key.is_empty() {
            faults.required(&at.child("key"), "");
        } else {
            check::invalid_each(faults, &at.child("key"), key, names::config_map_key(key));
        }
    }
    if let Some(file) = source.opt("fileKeyRef") {
        count += 1;
        file_key(faults, &path.child("fileKeyRef"), file);
    }
    if count == 0 {
        faults.invalid_str(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if !value.is_empty() {
        faults.invalid_str(path, "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        faults.invalid_str(path, "", "may not have more than one field specified at a time");
    }
}

fn file_key(faults: &mut Faults, path: &Path<'_>, file: &Value) {
    let key = file.text("key");
    if key.is_empty() {
        faults.required(&path.child("key"), "");
    } else {
        check::invalid_each(faults, &path.child("key"), key, names::env_var_name(key));
    }
    let volume = file.text("volumeName");
    check::required(faults, &path.child("volumeName"), volume, check::dns_label);
    let target = file.text("path");
    check::required(faults, &path.child("path"), target, check::no_backsteps);
}

/// Files with variables are in volumes of the pod, and only in those of type `emptyDir` (KEP-3721).
pub(super) fn file_volumes(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    visit(spec, path, |container, at| {
        let list = at.child("env");
        for (i, variable) in container.list("env").iter().enumerate() {
            let Some(file) = variable["valueFrom"].opt("fileKeyRef") else { continue };
            let here = list.index(i);
            let source = here.child("valueFrom");
            let reference = source.child("fileKeyRef");
            let (at, name) = (reference.child("volumeName"), file.text("volumeName"));
            match spec.list("volumes").iter().rfind(|volume| volume.text("name") == name) {
                None => faults.not_found(&at, &name.into()),
                Some(found) if !found.has("emptyDir") => {
                    faults.invalid_str(&at, name, "referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    });
}

/// Splits `metadata.labels['app']` into the path and its subscript.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (field, key) = path.strip_suffix("']")?.split_once("['")?;
    (!field.is_empty()).then_some((field, key))
}

/// A reference to a field of the pod, which must be one of `supported` or a labelled subscript.
pub(super) fn field_selector(faults: &mut Faults, path: &Path<'_>, selector: &Value, supported: &[&str]) {
    let version = selector.text("apiVersion");
    let field = selector.text("fieldPath");
    let at = path.child("fieldPath");
    if version.is_empty() {
        return faults.required(&path.child("apiVersion"), "");
    }
    if field.is_empty() {
        return faults.required(&at, "");
    }
    if version != "v1" {
        return faults.invalid_str(&at, field, &format!("error converting fieldPath: unsupported pod version: {version}"));
    }
    if let Some((field, key)) = subscript(field) {
        match field {
            "metadata.annotations" => check::qualified_name(faults, path, &key.to_lowercase()),
            "metadata.labels" => check::qualified_name(faults, path, key),
            _ => {
                let detail =
                    format!("error converting fieldPath: field label does not support subscript: {}", selector.text("fieldPath"));
                faults.invalid_str(&at, selector.text("fieldPath"), &detail);
            }
        }
        return;
    }
    const KNOWN: &[&str] = &[
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.host",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.phase",
        "status.podIP",
        "status.podIPs",
    ];
    if !KNOWN.contains(&field) {
        return faults.invalid_str(&at, field, &format!("error converting fieldPath: field label not supported: {field}"));
    }
    let internal = if field == "spec.host" { "spec.nodeName" } else { field };
    check::one_of(faults, &at, internal, supported);
}

/// A reference to a container's resources; in a volume the container must be named.
pub(super) fn resource_selector(faults: &mut Faults, path: &Path<'_>, selector: &Value, volume: bool) {
    let resource = selector.text("resource");
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if volume && selector.text("containerName").is_empty() {
        faults.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        faults.required(&path.child("resource"), "");
    } else if !huge {
        check::one_of(faults, &path.child("resource"), resource, RESOURCES);
    }
    divisor(faults, path, selector, resource);
}

fn divisor(faults: &mut Faults, path: &Path<'_>, selector: &Value, resource: &str) {
    const BYTES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let Some(divisor) = Quantity::of(&selector["divisor"]).filter(|divisor| !divisor.is_zero()) else { return };
    let (supported, listed, what): (&[&str], &str, &str) = match resource {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"], "1m and 1", "cpu"),
        "limits.memory" | "requests.memory" => (BYTES, "", "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (BYTES, "", "local ephemeral storage"),
        _ if resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-") => (BYTES, "", "hugepages"),
        _ => return,
    };
    if !supported.contains(&divisor.to_string().as_str()) {
        let listed = if listed.is_empty() { BYTES.join(", ") } else { listed.to_owned() };
        let detail = format!("only divisor's values {listed} are supported with the {what} resource");
        faults.invalid_str(&path.child("divisor"), resource, &detail);
    }
}

/// `envFrom`
pub(super) fn sources(faults: &mut Faults, path: &Path<'_>, sources: &[Value]) {
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        let prefix = source.text("prefix");
        if !prefix.is_empty() {
            check::invalid_each(faults, &at.child("prefix"), prefix, names::env_var_name(prefix));
        }
        let mut count = 0;
        for kind in ["configMapRef", "secretRef"] {
            let Some(reference) = source.opt(kind) else { continue };
            count += 1;
            let here = at.child(kind);
            let name = reference.text("name");
            if name.is_empty() {
                faults.required(&here.child("name"), "");
            } else {
                // Checked as a prefix: a trailing dash passes.
                check::invalid_each(faults, &here.child("name"), name, names::dns_subdomain(&names::mask_trailing_dash(name)));
            }
        }
        if count == 0 {
            faults.invalid_str(path, "", "must specify one of: `configMapRef` or `secretRef`");
        } else if count > 1 {
            faults.invalid_str(path, "", "may not have more than one field specified at a time");
        }
    }
}
