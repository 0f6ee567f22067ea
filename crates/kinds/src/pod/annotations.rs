//! Annotations that once said what fields of the security context say now, and that must agree with them.

use corten_api::field::{Faults, Path};
use serde_json::{Map, Value, json};

use crate::check;
use crate::doc::{Read, Write};
use crate::names;
use crate::pod::{Options, visit};

/// The profile that an annotation of old asks for.
pub(super) fn app_armor_profile(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({ "type": "Unconfined" })),
        "runtime/default" => Some(json!({ "type": "RuntimeDefault" })),
        _ => {
            let fits = |name: &&str| !name.is_empty() && name.trim() == *name && name.len() <= 4095;
            let name = annotation.strip_prefix("localhost/").filter(fits)?;
            Some(json!({ "type": "Localhost", "localhostProfile": name }))
        }
    }
}

/// Containers of a new pod, none of which has a profile of its own, get what annotations ask for.
pub(super) fn app_armor_fields(pod: &mut Value) {
    let annotations = pod["metadata"].map("annotations").clone();
    let spec = pod.object("spec");
    if spec["os"].text("name") == "windows" {
        return;
    }
    let whole = spec["securityContext"]["appArmorProfile"].clone();
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.items(kind).filter(|container| !container["securityContext"].has("appArmorProfile")) {
            let annotation = annotations.get(&format!("{APP_ARMOR}{}", container.text("name"))).and_then(Value::as_str);
            if let Some(profile) = annotation.and_then(app_armor_profile).filter(|profile| *profile != whole) {
                container.object("securityContext").put("appArmorProfile", profile);
            }
        }
    }
}

/// Warnings about annotations of a new pod that become fields, or cannot.
pub(super) fn app_armor_warnings(pod: &Value) -> Vec<String> {
    let annotations = pod["metadata"].map("annotations");
    let spec = &pod["spec"];
    let mut warnings = Vec::new();
    if spec["os"].text("name") == "windows" {
        return warnings;
    }
    let whole = &spec["securityContext"]["appArmorProfile"];
    visit(spec, &Path::new(""), |container, _| {
        let key = format!("{APP_ARMOR}{}", container.text("name"));
        let Some(annotation) = annotations.get(&key).and_then(Value::as_str) else { return };
        let has_own = container["securityContext"].has("appArmorProfile");
        if !has_own && app_armor_profile(annotation).is_none_or(|profile| profile != *whole) {
            let message = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            warnings.push(format!("metadata.annotations[{key}]: {message}"));
        }
    });
    warnings
}

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";

const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// The prefix of the annotations that came before `appArmorProfile`.
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Marks the API's copy of a static pod.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Annotations with a meaning to the API server.
pub(super) fn validate(faults: &mut Faults, path: &Path<'_>, annotations: &Map<String, Value>, spec: &Value, options: &Options) {
    let text = |key: &str| annotations.get(key).and_then(Value::as_str);
    if let Some(value) = text(MIRROR)
        && spec.text("nodeName").is_empty()
    {
        faults.invalid_str(&path.key(MIRROR), value, "must set spec.nodeName if mirror pod annotation is set");
    }
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(cost) = text(COST)
        && !options.lax_deletion_cost
        && !names::is_deletion_cost(cost)
    {
        faults.invalid_str(&path.key(COST), cost, "must be a 32bit integer");
    }
    if let Some(profile) = text(SECCOMP_POD) {
        seccomp_annotation(faults, &path.child(SECCOMP_POD), profile);
    }
    for (key, value) in annotations.iter().filter(|(key, _)| key.starts_with(SECCOMP_CONTAINER)) {
        seccomp_annotation(faults, &path.child(key), value.as_str().unwrap_or_default());
    }
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(APP_ARMOR) else { continue };
        let profile = value.as_str().unwrap_or_default();
        let mut found = false;
        visit(spec, path, |container, _| found |= container.text("name") == name);
        if !found {
            faults.invalid_str(&path.key(key), name, "container not found");
        }
        if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with("localhost/") {
            let detail = format!("invalid AppArmor profile name: {}", corten_api::field::quoted(profile));
            faults.invalid_str(&path.key(key), profile, &detail);
        }
    }
}

fn seccomp_annotation(faults: &mut Faults, path: &Path<'_>, profile: &str) {
    if matches!(profile, "runtime/default" | "docker/default" | "unconfined") {
        return;
    }
    match profile.strip_prefix("localhost/") {
        Some(file) => check::descending_path(faults, path, file),
        None => faults.invalid_str(path, profile, "must be a valid seccomp profile"),
    }
}

/// Where an annotation and the field that replaced it are both set, they must agree.
pub(super) fn match_fields(faults: &mut Faults, path: &Path<'_>, metadata: &Value, spec: &Value) {
    let annotations = metadata.map("annotations");
    let text = |key: &str| annotations.get(key).and_then(Value::as_str);
    if annotations.is_empty() {
        return;
    }
    if let (Some(annotation), Some(profile)) = (text(SECCOMP_POD), spec["securityContext"].opt("seccompProfile")) {
        let context = path.child("securityContext");
        agree(faults, &context.child("seccompProfile"), "seccomp", annotation, profile, &["runtime/default", "docker/default"]);
    }
    visit(spec, path, |container, at| {
        let key = format!("{SECCOMP_CONTAINER}{}", container.text("name"));
        if let (Some(annotation), Some(profile)) = (text(&key), container["securityContext"].opt("seccompProfile")) {
            let context = at.child("securityContext");
            agree(
                faults,
                &context.child("seccompProfile"),
                "seccomp",
                annotation,
                profile,
                &["runtime/default", "docker/default"],
            );
        }
    });
    if spec["os"].text("name") == "windows" {
        return;
    }
    visit(spec, path, |container, at| {
        let own = container["securityContext"].opt("appArmorProfile");
        let key = format!("{APP_ARMOR}{}", container.text("name"));
        if let (Some(annotation), Some(profile)) = (text(&key), own.or(spec["securityContext"].opt("appArmorProfile"))) {
            let context = at.child("securityContext");
            agree(faults, &context.child("appArmorProfile"), "apparmor", annotation, profile, &["runtime/default"]);
        }
    });
}

fn agree(faults: &mut Faults, path: &Path<'_>, what: &str, annotation: &str, profile: &Value, runtime_default: &[&str]) {
    let kind_agrees = match profile.text("type") {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => runtime_default.contains(&annotation),
        "Localhost" => annotation.starts_with("localhost/"),
        _ => true,
    };
    if !kind_agrees {
        faults.forbidden(&path.child("type"), &format!("{what} type in annotation and field must match"));
    } else if profile.text("type") == "Localhost" && annotation.strip_prefix("localhost/") != profile.opt_text("localhostProfile")
    {
        faults.forbidden(&path.child("localhostProfile"), &format!("{what} profile in annotation and field must match"));
    }
}
