//! What `resize` may change (KEP-1287): cpu and memory of containers and of the pod as a whole, within its quality of service.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use crate::doc::{Read, Write, semantic_equal};
use crate::pod::{Options, aggregate, annotations, containers, validation};

/// Faults of a change to `resize`.
pub(crate) fn resize(new: &Value, old: &Value, options: &Options) -> Faults {
    let mut faults = Faults::default();
    validation::whole(&mut faults, new, options);
    for (refused, why) in [
        (old["metadata"].map("annotations").contains_key(annotations::MIRROR), "static pods cannot be resized"),
        (old["spec"]["os"].text("name") == "windows", "windows pods cannot be resized"),
    ] {
        if refused {
            let mut alone = Faults::default();
            // So a path without a name is shown.
            alone.forbidden(&Path::new("[]"), why);
            return alone;
        }
    }
    let path = Path::new("spec");
    let (spec, before) = (&new["spec"], &old["spec"]);
    let class = old["status"].text("qosClass");
    let class = if class.is_empty() { aggregate::qos_class(before) } else { class };
    if class != aggregate::qos_class(spec) {
        faults.invalid_str(&path, new["status"].text("qosClass"), "Pod QOS Class may not change as a result of resizing");
    }
    let running = old["status"].list("containerStatuses").iter().find(|status| status["state"].has("running"));
    if running.is_some_and(|status| !status.has("resources")) {
        faults.forbidden(&path, "Pod running on node without support for resize");
    }
    let mut masked = spec.clone();
    if sets_resources(before) || sets_resources(spec) {
        whole_pod(&mut faults, &path, &mut masked, before);
    }
    if !same_containers(&mut faults, &path, spec, before) {
        return faults;
    }
    for kind in ["initContainers", "containers"] {
        let at = path.child(kind);
        for (i, (now, was)) in spec.list(kind).iter().zip(before.list(kind)).enumerate() {
            let here = at.index(i);
            removed(&mut faults, &here.child("resources"), &now["resources"], &was["resources"], "resource");
        }
    }
    mask_containers(&mut faults, &path, &mut masked, before);
    if faults.is_empty() && !semantic_equal(&masked, before) {
        faults.forbidden(&path, "only cpu and memory resources are mutable");
    }
    faults
}

fn sets_resources(spec: &Value) -> bool {
    !spec["resources"].map("requests").is_empty() || !spec["resources"].map("limits").is_empty()
}

/// The resources of the pod as a whole. In `masked` what may change is put back.
fn whole_pod(faults: &mut Faults, path: &Path<'_>, masked: &mut Value, old: &Value) {
    let at = path.child("resources");
    if let Some(was) = old.opt("resources") {
        if !masked.has("resources") {
            return faults.forbidden(&at, "pod-level resources cannot be removed");
        }
        removed(faults, &at, &masked["resources"], was, "pod-level resource");
    }
    if masked.has("resources") {
        restore(masked.object("resources"), &old["resources"]);
        let nothing_left = ["requests", "limits", "claims"].iter().all(|key| match &masked["resources"][*key] {
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => true,
        });
        if nothing_left && !old.has("resources") {
            masked.drop_key("resources");
        }
    }
    if !semantic_equal(&masked["resources"], &old["resources"]) {
        faults.forbidden(path, "only cpu and memory resources are mutable at pod-level");
    }
}

/// Containers stay what they are, and where. Returns whether they do.
fn same_containers(faults: &mut Faults, path: &Path<'_>, spec: &Value, old: &Value) -> bool {
    let before = faults.0.len();
    for kind in ["containers", "initContainers"] {
        let at = path.child(kind);
        let (now, was) = (spec.list(kind), old.list(kind));
        if now.len() != was.len() {
            faults.forbidden(&at, &format!("{kind} may not be added or removed on resize"));
            continue;
        }
        for (i, (now, was)) in now.iter().zip(was).enumerate() {
            if now.text("name") != was.text("name") {
                faults.forbidden(&at.index(i).child("name"), &format!("{kind} may not be renamed or reordered on resize"));
            }
        }
    }
    faults.0.len() == before
}

/// No request or limit may go away.
fn removed(faults: &mut Faults, path: &Path<'_>, new: &Value, old: &Value, what: &str) {
    for key in ["requests", "limits"] {
        if old.map(key).keys().any(|name| !new.map(key).contains_key(name)) {
            faults.forbidden(&path.child(key), &format!("{what} {key} cannot be removed"));
        }
    }
}

/// Puts cpu and memory of containers back; whatever else differs may not.
fn mask_containers(faults: &mut Faults, path: &Path<'_>, masked: &mut Value, old: &Value) {
    for (container, was) in masked.items("containers").zip(old.list("containers")) {
        restore_container(container, was);
        if !semantic_equal(container, was) {
            faults.forbidden(path, "only cpu and memory resources are mutable");
        }
    }
    let at = path.child("initContainers");
    for (i, (container, was)) in masked.items("initContainers").zip(old.list("initContainers")).enumerate() {
        let changed = !semantic_equal(container, was);
        restore_container(container, was);
        if !semantic_equal(container, was) {
            faults.forbidden(&at.index(i), "only cpu and memory resources for init or sidecar containers are mutable");
        }
        if changed && !aggregate::is_sidecar(container) {
            for _ in container.list("resizePolicy").iter().filter(|policy| containers::restarts(policy)) {
                let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                faults.forbidden(&at.index(i), detail);
            }
        }
    }
}

/// Makes cpu and memory of a container what they were. Its claims are lost on the way, so who has some is never resized.
fn restore_container(container: &mut Value, old: &Value) {
    let resources = container.object("resources");
    resources.drop_key("claims");
    restore(resources, &old["resources"]);
    if resources.as_object().is_some_and(serde_json::Map::is_empty) && !old.has("resources") {
        container.drop_key("resources");
    }
}

/// Makes cpu and memory what they were.
fn restore(resources: &mut Value, old: &Value) {
    for key in ["limits", "requests"] {
        let list = resources.object(key);
        for name in ["cpu", "memory"] {
            list.copy_from(&old[key], name);
        }
        if list.as_object().is_some_and(serde_json::Map::is_empty) && !old.has(key) {
            resources.drop_key(key);
        }
    }
}
