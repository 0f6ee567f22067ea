//! Kinds that make pods from a template. What they share is here: the template, its selector, replica counts, scale.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::pod::{self, Options, validation, warnings};
use crate::{check, names};

mod daemon_set;
mod deployment;
mod pod_template;
mod replica_set;
mod replication_controller;
mod revision;
mod stateful_set;

pub(crate) use daemon_set::DaemonSets;
pub(crate) use deployment::Deployments;
pub(crate) use pod_template::PodTemplates;
pub(crate) use replica_set::ReplicaSets;
pub(crate) use replication_controller::ReplicationControllers;
pub(crate) use revision::ControllerRevisions;
pub(crate) use stateful_set::StatefulSets;

/// Defaults of `spec.template`.
pub(crate) fn default_template(object: &mut Value) {
    let spec = object.object("spec");
    if spec.has("template") {
        pod::defaults::template(spec.object("template"));
    }
}

/// Drops what belongs to features that are switched off from `spec.template`, unless it is in the one of `old` too.
pub(crate) fn drop_disabled(object: &mut Value, old: Option<&Value>) {
    if let Some(spec) = object.child("spec").and_then(|spec| spec.child("template")).and_then(|template| template.child("spec")) {
        pod::drop_disabled(spec, old.map(|old| &old["spec"]["template"]["spec"]));
    }
}

/// Validation options for the template of `old`.
pub(crate) fn options(old: Option<&Value>) -> Options {
    Options::new(false, old.map(|old| &old["spec"]["template"]))
}

/// `spec.selector` of the newer kinds: required, and not empty.
pub(crate) fn selector(faults: &mut Faults, path: &Path<'_>, spec: &Value, empty: &str) {
    let at = path.child("selector");
    let selector = &spec["selector"];
    if selector.is_null() {
        return faults.required(&at, "");
    }
    check::label_selector(faults, &at, selector, false);
    if check::selector_is_empty(selector) {
        check::invalid_selector(faults, &at, selector, empty);
    }
}

/// The template of a controller: its labels match the selector, it is valid, and its pods run forever.
pub(crate) fn template(faults: &mut Faults, path: &Path<'_>, spec: &Value, kind: &str, bad_selector: &str, old: Option<&Value>) {
    let selector = &spec["selector"];
    if !check::selector_compiles(selector) {
        return check::invalid_selector(faults, &path.child("selector"), selector, bad_selector);
    }
    let at = path.child("template");
    let template = &spec["template"];
    // A missing selector compiles to one that matches nothing, an empty one to one that matches everything.
    let matches_all = !selector.is_null() && check::selector_is_empty(selector);
    if !matches_all {
        labels_match(faults, &at, template, selector);
    }
    validation::template(faults, &at, template, &options(old));
    runs_forever(faults, &at, template, kind);
}

/// `` `selector` does not match template `labels` ``
pub(crate) fn labels_match(faults: &mut Faults, path: &Path<'_>, template: &Value, selector: &Value) {
    let labels = template["metadata"].map("labels");
    if !check::selector_matches(selector, labels) {
        mismatch(faults, path, template);
    }
}

/// The fault of labels that are not selected.
pub(crate) fn mismatch(faults: &mut Faults, path: &Path<'_>, template: &Value) {
    let labels = &template["metadata"]["labels"];
    let metadata = path.child("metadata");
    faults.invalid(&metadata.child("labels"), labels, "`selector` does not match template `labels`");
}

/// Only `restartPolicy: Always` and no deadline.
pub(crate) fn runs_forever(faults: &mut Faults, path: &Path<'_>, template: &Value, kind: &str) {
    let at = path.child("spec");
    let policy = template["spec"].text("restartPolicy");
    if policy != "Always" {
        faults.not_supported(&at.child("restartPolicy"), policy, &["Always"]);
    }
    if template["spec"].has("activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        faults.forbidden(&at.child("activeDeadlineSeconds"), &detail);
    }
}

/// Whether nothing that a generation counts has changed: then an update repeats no warnings.
pub(crate) fn same_generation(object: &Value, old: Option<&Value>) -> bool {
    old.is_some_and(|old| old["metadata"].int("generation") == object["metadata"].int("generation"))
}

/// Warns of a new object whose name cannot be the hostname of the pods that get it.
pub(crate) fn name_warning(object: &Value, old: Option<&Value>) -> Option<String> {
    let wrong = names::dns_label(object["metadata"].text("name"));
    (old.is_none() && !wrong.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            wrong.join(" ")
        )
    })
}

/// Warnings about `spec.template`, when the object is new or its generation has changed.
pub(crate) fn template_warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    if !same_generation(object, old) {
        let spec = Path::new("spec");
        let template = &object["spec"]["template"];
        warnings::spec(&mut found, Some(&spec.child("template")), &template["spec"], &template["metadata"]);
    }
    found
}

/// A new object has an empty status, `zero` naming what is written even when it is 0.
pub(crate) fn reset_status(object: &mut Value, zero: &[&str]) {
    let mut status = json!({});
    for key in zero {
        status.put(key, 0);
    }
    object.put("status", status);
}

/// Counts in a status that may not be negative.
pub(crate) fn counts(faults: &mut Faults, status: &Value, keys: &[&str]) {
    let path = Path::new("status");
    for key in keys {
        check::field_not_negative(faults, &path, status, key);
    }
}

/// Counts in a status that may not exceed `status.replicas`.
pub(crate) fn at_most_replicas(faults: &mut Faults, status: &Value, keys: &[&str]) {
    let path = Path::new("status");
    for key in keys {
        if status.int(key) > status.int("replicas") {
            faults.invalid_int(&path.child(key), status.int(key), "cannot be greater than status.replicas");
        }
    }
}

/// Available pods are ready ones. `ready` is the name of the field of ready pods, as the kind's message has it.
pub(crate) fn available_is_ready(faults: &mut Faults, status: &Value, ready: &str) {
    if status.int("availableReplicas") > status.int("readyReplicas") {
        let path = Path::new("status");
        let detail = &format!("cannot be greater than {ready}");
        faults.invalid_int(&path.child("availableReplicas"), status.int("availableReplicas"), detail);
    }
}

/// A collision count never falls.
pub(crate) fn collisions_only_rise(faults: &mut Faults, status: &Value, old: &Value) {
    let (now, before) = (status.opt_int("collisionCount"), old.opt_int("collisionCount"));
    let fell = match (now, before) {
        (None, Some(_)) => true,
        (Some(now), Some(before)) => now < before,
        _ => false,
    };
    if fell {
        let path = Path::new("status");
        faults.invalid_int(&path.child("collisionCount"), now.unwrap_or_default(), "cannot be decremented");
    }
}
