//! What may change in a pod after it was created, through the pod itself and through its subresources.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use crate::doc::{Read, Write, semantic_equal};
use crate::internal;
use crate::pod::{Options, annotations, scheduling, validation};

const MAY_CHANGE: &str = "pod updates may not change fields other than \
    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Faults of a change to a pod.
pub(crate) fn pod(new: &Value, old: &Value, options: &Options) -> Faults {
    let mut faults = Faults::default();
    validation::whole(&mut faults, new, options);
    annotation_changes(&mut faults, new, old, options);
    let (spec, before) = (&new["spec"], &old["spec"]);
    let path = Path::new("spec");
    for kind in ["containers", "initContainers"] {
        let at = path.child(kind);
        if spec.list(kind).len() != before.list(kind).len() {
            faults.forbidden(&at, "pod updates may not add or remove containers");
            return faults;
        }
        for (i, container) in spec.list(kind).iter().enumerate() {
            let here = at.index(i);
            let image = container.text("image");
            if image.is_empty() {
                faults.required(&here.child("image"), "");
            }
            if image.trim().len() != image.len() {
                faults.invalid_str(&here.child("image"), image, "must not have leading or trailing whitespace");
            }
        }
    }
    if !active_deadline(&mut faults, &path.child("activeDeadlineSeconds"), spec, before) {
        return faults;
    }
    only_added_tolerations(&mut faults, &path.child("tolerations"), spec, before);
    only_removed_gates(&mut faults, &path.child("schedulingGates"), spec, before);
    if semantic_equal(spec, before) {
        return faults;
    }
    rest_is_unchanged(&mut faults, &path, spec, before);
    faults
}

/// A deadline may be set, or shortened. Returns whether checking goes on.
fn active_deadline(faults: &mut Faults, path: &Path<'_>, spec: &Value, old: &Value) -> bool {
    match (spec.opt_int("activeDeadlineSeconds"), old.opt_int("activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            faults.invalid_int(path, new, "must be between 0 and 2147483647, inclusive");
            return false;
        }
        (Some(new), Some(old)) if old < new => {
            faults.invalid_int(path, new, "must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => faults.invalid(path, &Value::Null, "must not update from a positive integer to nil value"),
        _ => {}
    }
    true
}

fn only_added_tolerations(faults: &mut Faults, path: &Path<'_>, spec: &Value, old: &Value) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        toleration.drop_key("tolerationSeconds");
        toleration
    };
    let kept = old
        .list("tolerations")
        .iter()
        .map(without_seconds)
        .all(|before| spec.list("tolerations").iter().any(|now| without_seconds(now) == before));
    if kept {
        scheduling::tolerations(faults, path, spec.list("tolerations"));
    } else {
        faults.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn only_removed_gates(faults: &mut Faults, path: &Path<'_>, spec: &Value, old: &Value) {
    let before = old.list("schedulingGates");
    for (i, gate) in spec.list("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        if before.iter().all(|gate| gate.text("name") != name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            faults.forbidden(&path.index(i).child("name"), &detail);
        }
    }
}

/// With every field that may change put back, the spec must be what it was.
fn rest_is_unchanged(faults: &mut Faults, path: &Path<'_>, spec: &Value, old: &Value) {
    let mut munged = spec.clone();
    for kind in ["containers", "initContainers"] {
        for (container, before) in munged.items(kind).zip(old.list(kind)) {
            container.copy_from(before, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        munged.copy_from(old, key);
    }
    if old.opt_int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
        && munged.opt_int("terminationGracePeriodSeconds") == Some(1)
    {
        munged.copy_from(old, "terminationGracePeriodSeconds");
    }
    if !old.list("schedulingGates").is_empty() {
        gated(faults, path, &mut munged, old);
    }
    if !semantic_equal(&munged, old) {
        let diff = internal::diff("PodSpec", old, &munged);
        faults.forbidden(path, &format!("{MAY_CHANGE}\n{diff}"));
    }
}

/// While gates hold a pod back, its node selector and node affinity may still be narrowed (KEP-3838).
fn gated(faults: &mut Faults, path: &Path<'_>, munged: &mut Value, old: &Value) {
    if !semantic_equal(&munged["nodeSelector"], &old["nodeSelector"]) {
        scheduling::selector_grew(faults, &path.child("nodeSelector"), munged.map("nodeSelector"), old.map("nodeSelector"));
        munged.copy_from(old, "nodeSelector");
    }
    let (now, before) = (&munged["affinity"]["nodeAffinity"], &old["affinity"]["nodeAffinity"]);
    if semantic_equal(now, before) {
        return;
    }
    let affinity = path.child("affinity");
    scheduling::affinity_grew(faults, &affinity.child("nodeAffinity"), now, before);
    let before = before.clone();
    let alone = !munged["affinity"].has("podAffinity") && !munged["affinity"].has("podAntiAffinity");
    if munged.has("affinity") && !old.has("affinity") && alone {
        munged.drop_key("affinity");
    } else {
        munged.object("affinity").put("nodeAffinity", before);
    }
}

fn annotation_changes(faults: &mut Faults, new: &Value, old: &Value, options: &Options) {
    let metadata = Path::new("metadata");
    let path = metadata.child("annotations");
    let (now, before) = (new["metadata"].map("annotations"), old["metadata"].map("annotations"));
    for (key, value) in before {
        if now.get(key) == Some(value) {
            continue;
        }
        if key.starts_with(annotations::APP_ARMOR) {
            faults.forbidden(&path.key(key), "may not remove or update AppArmor annotations");
        }
        if key == annotations::MIRROR {
            faults.forbidden(&path.key(key), "may not remove or update mirror pod annotation");
        }
    }
    for key in now.keys().filter(|key| !before.contains_key(*key)) {
        if key.starts_with(annotations::APP_ARMOR) {
            faults.forbidden(&path.key(key), "may not add AppArmor annotations");
        }
        if key == annotations::MIRROR {
            faults.forbidden(&path.key(key), "may not add mirror pod annotation");
        }
    }
    annotations::validate(faults, &path, now, &new["spec"], options);
}

/// Faults of a change to `status`.
pub(crate) fn status(new: &Value, old: &Value, options: &Options) -> Faults {
    let mut faults = Faults::default();
    annotation_changes(&mut faults, new, old, options);
    status::change(&mut faults, new, old);
    faults
}

/// Faults of a change to `ephemeralcontainers`: they may be added, never changed or removed (KEP-277).
pub(crate) fn ephemeral_containers(new: &Value, old: &Value, options: &Options) -> Faults {
    let mut faults = Faults::default();
    if old["metadata"].map("annotations").contains_key(annotations::MIRROR) {
        faults.forbidden(&Path::new(""), "static pods do not support ephemeral containers");
        return faults;
    }
    validation::whole(&mut faults, new, options);
    annotation_changes(&mut faults, new, old, options);
    let spec = Path::new("spec");
    let path = spec.child("ephemeralContainers");
    let now = new["spec"].list("ephemeralContainers");
    for before in old["spec"].list("ephemeralContainers") {
        let name = before.text("name");
        match now.iter().find(|container| container.text("name") == name) {
            None => faults.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(container) if !semantic_equal(container, before) => {
                let diff = internal::diff("EphemeralContainer", before, container);
                faults.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be changed\n{diff}"));
            }
            Some(_) => {}
        }
    }
    faults
}

mod resize;
mod status;

pub(crate) use resize::resize;
