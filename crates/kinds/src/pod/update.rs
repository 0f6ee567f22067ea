//! What may change in a pod after it was created, through the pod itself and through its subresources.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::check;
use crate::doc::{Read, Write, semantic_equal};
use crate::pod::{Options, aggregate, scheduling, security, validation};
use crate::{internal, names};

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
        if key.starts_with(security::APP_ARMOR) {
            faults.forbidden(&path.key(key), "may not remove or update AppArmor annotations");
        }
        if key == security::MIRROR {
            faults.forbidden(&path.key(key), "may not remove or update mirror pod annotation");
        }
    }
    for key in now.keys().filter(|key| !before.contains_key(*key)) {
        if key.starts_with(security::APP_ARMOR) {
            faults.forbidden(&path.key(key), "may not add AppArmor annotations");
        }
        if key == security::MIRROR {
            faults.forbidden(&path.key(key), "may not add mirror pod annotation");
        }
    }
    security::annotations(faults, &path, now, &new["spec"], options);
}

/// Faults of a change to `status`.
pub(crate) fn status(new: &Value, old: &Value, options: &Options) -> Faults {
    let mut faults = Faults::default();
    annotation_changes(&mut faults, new, old, options);
    let (status, before) = (&new["status"], &old["status"]);
    let metadata = Path::new("metadata");
    let conditions = metadata.child("conditions");
    for (i, condition) in status.list("conditions").iter().enumerate() {
        let kind = condition.text("type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            check::qualified_name(&mut faults, &conditions.index(i).child("Type"), kind);
        }
    }
    let path = Path::new("status");
    if new["spec"].text("nodeName") != old["spec"].text("nodeName") {
        faults.forbidden(&path.child("nodeName"), "may not be changed directly");
    }
    let nominated = status.text("nominatedNodeName");
    if nominated != before.text("nominatedNodeName") && !nominated.is_empty() {
        check::dns_subdomain(&mut faults, &path.child("nominatedNodeName"), nominated);
    }
    if status.text("qosClass") != before.text("qosClass") {
        faults.invalid_str(&path.child("qosClass"), status.text("qosClass"), check::IMMUTABLE);
    }
    for (key, restart) in [
        ("containerStatuses", old["spec"].text("restartPolicy")),
        ("initContainerStatuses", old["spec"].text("restartPolicy")),
        ("ephemeralContainerStatuses", "Never"),
    ] {
        transitions(&mut faults, &path.child(key), status.list(key), before.list(key), restart, &old["spec"], key);
    }
    claim_statuses(&mut faults, &path.child("resourceClaimStatuses"), status, &new["spec"]);
    addresses(&mut faults, &path.child("podIPs"), status, "podIPs");
    host_addresses(&mut faults, &path.child("hostIPs"), status);
    for (key, containers) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        resource_health(&mut faults, &path.child(key), status.list(key), new["spec"].list(containers));
    }
    for (i, status) in status.list("ephemeralContainerStatuses").iter().enumerate() {
        if status.has("allocatedResourcesStatus") {
            let at = path.child("ephemeralContainerStatuses");
            let at = at.index(i);
            faults.forbidden(&at.child("allocatedResourcesStatus"), "must not be specified in container status");
        }
    }
    for key in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        users(&mut faults, &path.child(key), status.list(key), &new["spec"]);
    }
    faults
}

/// A container that has ended for good may not run again.
fn transitions(faults: &mut Faults, path: &Path<'_>, new: &[Value], old: &[Value], restart: &str, spec: &Value, kind: &str) {
    if restart == "Always" {
        return;
    }
    for (i, before) in old.iter().enumerate() {
        let name = before.text("name");
        let Some(ended) = before["state"].opt("terminated") else { continue };
        if ended.int("exitCode") != 0 && restart == "OnFailure" {
            continue;
        }
        let own = |list: &str| spec.list(list).iter().find(|container| container.text("name") == name);
        let restartable = match kind {
            "initContainerStatuses" => own("initContainers").is_some_and(|c| aggregate::is_sidecar(c) || c.has("restartPolicy")),
            "containerStatuses" => own("containers").is_some_and(|container| container.has("restartPolicy")),
            _ => false,
        };
        if restartable {
            continue;
        }
        for _ in new.iter().filter(|now| now.text("name") == name && !now["state"].has("terminated")) {
            faults.forbidden(&path.index(i).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

fn claim_statuses(faults: &mut Faults, path: &Path<'_>, status: &Value, spec: &Value) {
    let mut seen = std::collections::HashSet::new();
    for (i, claim) in status.list("resourceClaimStatuses").iter().enumerate() {
        let at = path.index(i);
        let name = claim.text("name");
        if spec.list("resourceClaims").iter().all(|have| have.text("name") != name) {
            faults.invalid_str(&at.child("name"), name, "must match the name of an entry in `spec.resourceClaims`");
        }
        if !seen.insert(name) {
            check::duplicate(faults, &at.child("name"), name);
        }
        if let Some(claim) = claim.opt_text("resourceClaimName") {
            check::dns_subdomain(faults, &at.child("name"), claim);
        }
    }
}

fn addresses(faults: &mut Faults, path: &Path<'_>, status: &Value, key: &str) {
    let list = status.list(key);
    let all: Vec<&str> = list.iter().map(|address| address.text("ip")).collect();
    for (i, address) in all.iter().enumerate() {
        check::ip(faults, &path.index(i), address);
    }
    if all.len() > 1 {
        dual_stack(faults, path, list, &all);
    }
}

fn dual_stack(faults: &mut Faults, path: &Path<'_>, list: &[Value], all: &[&str]) {
    let parsed: Option<Vec<bool>> = all.iter().map(|ip| names::parse_ip(ip).map(|ip| ip.is_ipv6())).collect();
    if parsed.is_none() {
        let bad = all.iter().position(|ip| names::parse_ip(ip).is_none()).unwrap_or_default();
        faults.internal(path, &format!("failed to check for dual stack with error:invalid IP[{bad}]: {}", all[bad]));
    }
    let both = parsed.is_some_and(|families| check::is_dual_stack(&families));
    if !both || all.len() > 2 {
        let shown: Vec<Value> = list.iter().map(|address| json!({ "IP": address.text("ip") })).collect();
        faults.invalid(path, &json!(shown), "may specify no more than one IP for each IP family");
    }
}

fn host_addresses(faults: &mut Faults, path: &Path<'_>, status: &Value) {
    let list = status.list("hostIPs");
    let Some(first) = list.first() else { return };
    if first.text("ip") != status.text("hostIP") {
        faults.invalid_str(&path.index(0).child("ip"), first.text("ip"), "must be equal to `hostIP`");
    }
    let all: Vec<&str> = list.iter().map(|address| address.text("ip")).collect();
    for (i, address) in all.iter().enumerate() {
        check::ip(faults, &path.index(i), address);
    }
    if all.len() > 1 {
        dual_stack(faults, path, list, &all);
    }
}

/// The health of devices: of resources that the container asks for, each device once.
fn resource_health(faults: &mut Faults, path: &Path<'_>, statuses: &[Value], containers: &[Value]) {
    for (i, status) in statuses.iter().enumerate() {
        let here = path.index(i);
        let list = here.child("allocatedResourcesStatus");
        for (j, resource) in status.list("allocatedResourcesStatus").iter().enumerate() {
            let at = list.index(j);
            if let Some(container) = containers.iter().find(|container| container.text("name") == status.text("name")) {
                allocated_name(faults, &at.child("name"), resource.text("name"), &container["resources"]);
            }
            let devices = at.child("resources");
            let mut seen = std::collections::HashSet::new();
            for (k, device) in resource.list("resources").iter().enumerate() {
                let at = devices.index(k);
                check::one_of(faults, &at.child("health"), device.text("health"), &["Healthy", "Unhealthy", "Unknown"]);
                if !seen.insert(device.text("resourceID")) {
                    check::duplicate(faults, &at.child("resourceID"), device.text("resourceID"));
                }
            }
        }
    }
}

fn allocated_name(faults: &mut Faults, path: &Path<'_>, name: &str, resources: &Value) {
    let (found, detail) = if name.starts_with("claim:") {
        let written = |claim: &Value| match claim.text("request") {
            "" => format!("claim:{}", claim.text("name")),
            request => format!("claim:{}/{request}", claim.text("name")),
        };
        let found = resources.list("claims").iter().any(|claim| written(claim) == name);
        let detail = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
                      'claim:<claimName>' if request is empty";
        (found, detail)
    } else {
        (resources.map("requests").contains_key(name), "must match one of the container's resource requests")
    };
    if !found {
        faults.invalid_str(path, name, detail);
    }
}

fn users(faults: &mut Faults, path: &Path<'_>, statuses: &[Value], spec: &Value) {
    const RANGE: &str = "must be between 0 and 2147483647, inclusive";
    let windows = spec["os"].text("name") == "windows";
    for (i, status) in statuses.iter().enumerate() {
        let Some(user) = status["user"].opt("linux") else { continue };
        let here = path.index(i);
        let at = here.child("linux");
        if windows {
            faults.forbidden(&at, "cannot be set for a windows pod");
            continue;
        }
        let fits = |id: i64| (0..=i64::from(i32::MAX)).contains(&id);
        for key in ["uid", "gid"] {
            if !fits(user.int(key)) {
                faults.invalid_int(&at.child(key), user.int(key), RANGE);
            }
        }
        let groups = at.child("supplementalGroups");
        for (j, group) in user.list("supplementalGroups").iter().enumerate() {
            let group = group.as_i64().unwrap_or_default();
            if !fits(group) {
                faults.invalid_int(&groups.index(j), group, RANGE);
            }
        }
    }
}

/// Faults of a change to `ephemeralcontainers`: they may be added, never changed or removed (KEP-277).
pub(crate) fn ephemeral_containers(new: &Value, old: &Value, options: &Options) -> Faults {
    let mut faults = Faults::default();
    if old["metadata"].map("annotations").contains_key(security::MIRROR) {
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

/// Faults of a change to `resize` (KEP-1287): cpu and memory of containers and sidecars, within their QoS class.
pub(crate) fn resize(new: &Value, old: &Value, options: &Options) -> Faults {
    let mut faults = Faults::default();
    let refuse = |why: &str| {
        let mut faults = Faults::default();
        faults.forbidden(&Path::new(""), why);
        faults
    };
    validation::whole(&mut faults, new, options);
    if old["metadata"].map("annotations").contains_key(security::MIRROR) {
        return refuse("static pods cannot be resized");
    }
    if old["spec"]["os"].text("name") == "windows" {
        return refuse("windows pods cannot be resized");
    }
    let path = Path::new("spec");
    let (spec, before) = (&new["spec"], &old["spec"]);
    for kind in ["containers", "initContainers"] {
        if spec.list(kind).len() != before.list(kind).len() {
            faults.forbidden(&path.child(kind), "pod resize may not add or remove containers");
            return faults;
        }
    }
    let class = old["status"].text("qosClass");
    let class = if class.is_empty() { aggregate::qos_class(before) } else { class };
    if class != aggregate::qos_class(spec) {
        faults.invalid_str(&path, new["status"].text("qosClass"), "Pod QOS Class may not change as a result of resizing");
    }
    let running = old["status"].list("containerStatuses").iter().find(|status| status["state"].has("running"));
    if running.is_some_and(|status| !status.has("resources")) {
        faults.forbidden(&path, "Pod running on node without support for resize");
    }
    for kind in ["initContainers", "containers"] {
        let at = path.child(kind);
        for (i, (now, was)) in spec.list(kind).iter().zip(before.list(kind)).enumerate() {
            if kind == "containers" || aggregate::is_sidecar(was) {
                let here = at.index(i);
                container_resize(&mut faults, &here.child("resources"), now, was);
            }
        }
    }
    only_cpu_and_memory(&mut faults, &path, spec, before);
    faults
}

fn container_resize(faults: &mut Faults, path: &Path<'_>, new: &Value, old: &Value) {
    let (now, was) = (&new["resources"], &old["resources"]);
    for (key, what) in [("requests", "resource requests cannot be removed"), ("limits", "resource limits cannot be removed")] {
        if was.map(key).keys().any(|name| !now.map(key).contains_key(name)) {
            faults.forbidden(&path.child(key), what);
        }
    }
}

fn only_cpu_and_memory(faults: &mut Faults, path: &Path<'_>, spec: &Value, old: &Value) {
    let before = faults.0.len();
    let mut munged = spec.clone();
    for kind in ["containers", "initContainers"] {
        for (container, was) in munged.items(kind).zip(old.list(kind)) {
            let resizable = kind == "containers" || aggregate::is_sidecar(container);
            if resizable {
                restore_cpu_and_memory(container, was);
            }
            if !semantic_equal(container, was) {
                let what = match (kind, resizable) {
                    ("containers", _) => "only cpu and memory resources are mutable",
                    (_, true) => "only cpu and memory resources for sidecar containers are mutable",
                    (_, false) => "resources for non-sidecar init containers are immutable",
                };
                faults.forbidden(path, what);
            }
        }
    }
    if faults.0.len() == before && before == 0 && !semantic_equal(&munged, old) {
        faults.forbidden(path, "only cpu and memory resources are mutable");
    }
}

fn restore_cpu_and_memory(container: &mut Value, old: &Value) {
    // The resize policy may change together with the resources.
    container.copy_from(old, "resizePolicy");
    let was = &old["resources"];
    let resources = container.object("resources");
    for key in ["limits", "requests"] {
        let list = resources.object(key);
        for name in ["cpu", "memory"] {
            list.copy_from(&was[key], name);
        }
        if list.as_object().is_some_and(serde_json::Map::is_empty) {
            resources.drop_key(key);
        }
    }
}
