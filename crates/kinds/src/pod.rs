//! Pods: what the API server knows of them, and what every kind with a pod template shares.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::addresses::ip_warning;
use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, columns, meta};

pub(crate) mod aggregate;
mod annotations;
pub(crate) mod containers;
pub(crate) mod defaults;
mod env;
pub(crate) mod scheduling;
mod security;
mod table;
pub(crate) mod update;
pub(crate) mod validation;
pub(crate) mod volumes;
pub(crate) mod warnings;

/// What validation lets pass because the stored object has it already (ratcheting).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// The spec is a pod's, not a template's.
    pub(crate) is_pod: bool,
    /// Invalid label values in selectors of pod affinity.
    pub(crate) lax_selectors: bool,
    /// Invalid label values in required node affinity.
    pub(crate) lax_affinity: bool,
    /// Invalid selectors of spread constraints.
    pub(crate) lax_spread: bool,
    /// `matchLabelKeys` of spread constraints that do not fit their selectors.
    pub(crate) lax_spread_keys: bool,
    /// `MountOption` as a policy to change SELinux labels.
    pub(crate) mount_option: bool,
    /// Amounts of huge pages that are no multiple of their size.
    pub(crate) lax_huge_pages: bool,
    /// Namespaced sysctls in pods on the host's namespaces.
    pub(crate) lax_sysctls: bool,
    /// An invalid deletion cost.
    pub(crate) lax_deletion_cost: bool,
    /// A projected token at a path outside its volume.
    pub(crate) lax_token_path: bool,
    /// Init containers that would restart for new resources.
    pub(crate) lax_init_resize: bool,
    /// User namespaces in a pod on the host's network.
    pub(crate) users_with_network: bool,
    /// User namespaces together with block devices.
    pub(crate) users_with_devices: bool,
}

impl Options {
    /// For a pod, or a template, and what it was before.
    pub(crate) fn new(is_pod: bool, old: Option<&Value>) -> Self {
        let mut options = Self { is_pod, ..Self::default() };
        let Some(old) = old else { return options };
        let spec = &old["spec"];
        let path = Path::new("");
        let found = |check: &dyn Fn(&mut Faults)| {
            let mut faults = Faults::default();
            check(&mut faults);
            !faults.is_empty()
        };
        let strict = Self { is_pod, ..Self::default() };
        options.lax_affinity = found(&|faults| {
            let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
            if required.is_object() {
                scheduling::node_selector(faults, &path, required, false);
            }
        });
        options.lax_selectors = found(&|faults| {
            let mut affinity = spec["affinity"].clone();
            affinity.drop_key("nodeAffinity");
            scheduling::affinity(faults, &path, &affinity, &strict);
        });
        options.lax_spread = found(&|faults| {
            for constraint in spec.list("topologySpreadConstraints") {
                crate::check::label_selector(faults, &path, &constraint["labelSelector"], false);
            }
        });
        options.lax_spread_keys = found(&|faults| {
            for constraint in spec.list("topologySpreadConstraints") {
                scheduling::label_keys(faults, &path, constraint);
            }
        });
        options.mount_option = spec["securityContext"].has("seLinuxChangePolicy");
        options.lax_deletion_cost = old["metadata"]["annotations"]
            .opt_text("controller.kubernetes.io/pod-deletion-cost")
            .is_some_and(|cost| !crate::names::is_deletion_cost(cost));
        options.lax_huge_pages = found(&|faults| {
            visit(spec, &path, |container, at| {
                let only_huge = |key: &str| -> Value {
                    let list = container["resources"].map(key).iter();
                    list.filter(|(name, _)| crate::resources::is_huge_page(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
                };
                let resources = json!({ "limits": only_huge("limits") });
                containers::requirements(faults, at, &resources, |_, _, _| {}, &[], &strict);
                faults.0.retain(|fault| fault.message.contains("is not positive integer multiple of"));
            });
        });
        options.lax_token_path =
            spec.list("volumes").iter().flat_map(|volume| volume["projected"].list("sources")).any(|source| {
                let path = source["serviceAccountToken"].text("path");
                path.starts_with('/') || path.starts_with("..") || path.split('/').any(|part| part == "..")
            });
        options.lax_init_resize = spec
            .list("initContainers")
            .iter()
            .any(|init| !aggregate::is_sidecar(init) && init.list("resizePolicy").iter().any(containers::restarts));
        if spec.opt_flag("hostUsers") == Some(false) {
            options.users_with_network = spec.flag("hostNetwork");
            visit(spec, &path, |container, _| options.users_with_devices |= !container.list("volumeDevices").is_empty());
        }
        options.lax_sysctls = found(&|faults| security::sysctls(faults, &path, spec, &strict));
        options
    }
}

/// Calls `visitor` for every container, init containers first, with its path below `path`.
pub(crate) fn visit(spec: &Value, path: &Path<'_>, mut visitor: impl FnMut(&Value, &Path<'_>)) {
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        let at = path.child(kind);
        for (i, container) in spec.list(kind).iter().enumerate() {
            visitor(container, &at.index(i));
        }
    }
}

pub(crate) struct Pods;

impl Strategy for Pods {
    fn labels_are_free(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        defaults::pod(object);
        // What never made sense is a second on every way into the server.
        if object["spec"].int("terminationGracePeriodSeconds") < 0 {
            object.object("spec").put("terminationGracePeriodSeconds", 1);
        }
    }

    fn prepare_create(&self, object: &mut Value, ctx: &Context<'_>) {
        meta::set_generation(object, 1);
        let qos = aggregate::qos_class(&object["spec"]);
        object.put("status", json!({ "phase": "Pending", "qosClass": qos }));
        if !object["spec"].list("schedulingGates").is_empty() {
            let condition = json!({
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null,
                "lastTransitionTime": corten_api::time::seconds(ctx.now),
            });
            object.object("status").put("conditions", json!([condition]));
        }
        merge_label_keys(object);
        drop_disabled(object.object("spec"), None);
        annotations::app_armor_fields(object);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        validation::create(object, &Options::new(true, None))
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, ctx: &Context<'_>) {
        match ctx.subresource {
            "ephemeralcontainers" => {
                let added = object["spec"]["ephemeralContainers"].clone();
                keep_all(object, old);
                object.object("spec").put("ephemeralContainers", added);
            }
            "resize" => keep_only_resize(object, old),
            _ => object.copy_from(old, "status"),
        }
        drop_disabled(object.object("spec"), Some(&old["spec"]));
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "spec");
        let metadata = object.object("metadata");
        metadata.copy_from(&old["metadata"], "deletionTimestamp");
        metadata.copy_from(&old["metadata"], "ownerReferences");
        let status = object.object("status");
        if status.text("qosClass").is_empty() {
            status.copy_from(&old["status"], "qosClass");
        }
        keep_observed_generation(status, &old["status"]);
        drop_disabled_status(status);
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let options = Options::new(true, Some(old));
        match ctx.subresource {
            "ephemeralcontainers" => update::ephemeral_containers(object, old, &options),
            "resize" => update::resize(object, old, &options),
            _ => update::pod(object, old, &options),
        }
    }

    fn validate_status(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        update::status(object, old, &Options::new(true, Some(old)))
    }

    fn status_warnings(&self, object: &Value) -> Vec<String> {
        let addresses = |key: &str| -> Vec<String> {
            let list = object["status"].list(key).iter().enumerate();
            list.filter_map(|(i, point)| ip_warning(&format!("status.{key}[{i}].ip"), point.text("ip"))).collect()
        };
        [addresses("podIPs"), addresses("hostIPs")].concat()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, ctx: &Context<'_>) -> Vec<String> {
        if old.is_some() || !ctx.subresource.is_empty() {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        let name = crate::names::dns_label(object["metadata"].text("name"));
        if !name.is_empty() {
            let hostname = "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
                            recommended";
            warnings.push(format!("{hostname}: [{}]", name.join(" ")));
        }
        warnings::spec(&mut warnings, None, &object["spec"], &object["metadata"]);
        warnings
    }

    fn early_warnings(&self, object: &Value) -> Vec<String> {
        annotations::app_armor_warnings(object)
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let ip = status.list("podIPs").first().map_or_else(|| status.text("podIP"), |first| first.text("ip"));
        vec![
            ("spec.nodeName", spec.text("nodeName").into()),
            ("spec.restartPolicy", spec.text("restartPolicy").into()),
            ("spec.schedulerName", spec.text("schedulerName").into()),
            ("spec.serviceAccountName", spec.text("serviceAccountName").into()),
            ("spec.hostNetwork", spec.flag("hostNetwork").to_string()),
            ("status.phase", status.text("phase").into()),
            ("status.podIP", ip.into()),
            ("status.nominatedNodeName", status.text("nominatedNodeName").into()),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        columns::PODS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        table::row(object, now)
    }

    fn row_conditions(&self, object: &Value) -> Vec<Value> {
        table::row_conditions(object)
    }
}

#[cfg(test)]
mod tests;

/// Drops what belongs to features that are switched off, unless the object has it already: it may come from a server that has them.
pub(crate) fn drop_disabled(spec: &mut Value, old: Option<&Value>) {
    let had = |has: &dyn Fn(&Value) -> bool| old.is_some_and(has);
    if !had(&|old| old.has("schedulingGroup")) {
        spec.drop_key("schedulingGroup");
    }
    for key in ["clusterTrustBundle", "podCertificate"] {
        let has = |source: &Value| source.has(key);
        if had(&|old| old.list("volumes").iter().any(|volume| volume["projected"].list("sources").iter().any(has))) {
            continue;
        }
        let projected = spec.items("volumes").filter_map(|volume| volume.child("projected"));
        projected.flat_map(|all| all.items("sources")).for_each(|source| source.drop_key(key));
    }
    const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
    let stops = |container: &Value| container["lifecycle"].has("stopSignal");
    if had(&|old| CONTAINERS.iter().any(|kind| old.list(kind).iter().any(stops))) {
        return;
    }
    for kind in CONTAINERS {
        for container in spec.items(kind) {
            let Some(lifecycle) = container.child("lifecycle").filter(|lifecycle| lifecycle.has("stopSignal")) else { continue };
            lifecycle.drop_key("stopSignal");
            if lifecycle.as_object().is_some_and(serde_json::Map::is_empty) {
                container.drop_key("lifecycle");
            }
        }
    }
}

/// The same of a status.
fn drop_disabled_status(status: &mut Value) {
    status.drop_key("nodeAllocatableResourceClaimStatuses");
    for kind in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for mount in status.items(kind).flat_map(|container| container.items("volumeMounts")) {
            mount.drop_key("volumeStatus");
        }
    }
}

/// `matchLabelKeys` become part of the label selectors when the pod is created (KEP-3633, KEP-3243).
fn merge_label_keys(pod: &mut Value) {
    let labels = pod["metadata"].map("labels").clone();
    let add = |term: &mut Value, keys: &str, operator: &str| {
        let found: Vec<Value> = term
            .texts(keys)
            .filter_map(|key| Some(json!({ "key": key, "operator": operator, "values": [labels.get(key)?] })))
            .collect();
        if !found.is_empty() && term.has("labelSelector") {
            let selector = term.object("labelSelector");
            let mut all = selector.list("matchExpressions").to_vec();
            all.extend(found);
            selector.put("matchExpressions", all);
        }
    };
    let spec = pod.object("spec");
    for constraint in spec.items("topologySpreadConstraints") {
        add(constraint, "matchLabelKeys", "In");
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.child("affinity").and_then(|affinity| affinity.child(kind)) else { continue };
        for term in affinity.items("requiredDuringSchedulingIgnoredDuringExecution") {
            add(term, "matchLabelKeys", "In");
            add(term, "mismatchLabelKeys", "NotIn");
        }
        for weighted in affinity.items("preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = weighted.child("podAffinityTerm") {
                add(term, "matchLabelKeys", "In");
                add(term, "mismatchLabelKeys", "NotIn");
            }
        }
    }
}

/// A status writer that does not know `observedGeneration` does not erase it.
fn keep_observed_generation(status: &mut Value, old: &Value) {
    if status.int("observedGeneration") == 0 {
        status.copy_from(old, "observedGeneration");
    }
    let mut before: Vec<(&str, &Value)> =
        old.list("conditions").iter().map(|condition| (condition.text("type"), &condition["observedGeneration"])).collect();
    for condition in status.items("conditions") {
        let kind = condition.text("type").to_owned();
        let Some(i) = before.iter().position(|(have, _)| *have == kind) else { continue };
        let (_, generation) = before.remove(i);
        if condition.int("observedGeneration") == 0 {
            condition.put("observedGeneration", generation.clone());
        }
    }
}

fn keep_all(object: &mut Value, old: &Value) {
    object.copy_from(old, "status");
    meta::keep_all_but_status(object, old);
}

/// Of a resize only containers' resources and resize policies count. Containers that were added, removed or renamed are left
/// for validation to refuse.
fn keep_only_resize(object: &mut Value, old: &Value) {
    let mut kept = Vec::new();
    for kind in ["containers", "initContainers"] {
        let (now, before) = (object["spec"].list(kind), old["spec"].list(kind));
        if now.len() != before.len() {
            return;
        }
        let same_names = now.iter().zip(before).all(|(now, before)| now.text("name") == before.text("name"));
        let merged: Vec<Value> = if same_names {
            before
                .iter()
                .zip(now)
                .map(|(before, now)| {
                    let mut container = before.clone();
                    container.copy_from(now, "resources");
                    container.copy_from(now, "resizePolicy");
                    container
                })
                .collect()
        } else {
            now.to_vec()
        };
        kept.push((kind, merged));
    }
    let own = object["spec"]["resources"].clone();
    keep_all(object, old);
    let spec = object.object("spec");
    spec.put("resources", own);
    for (kind, containers) in kept {
        spec.put(kind, if containers.is_empty() { Value::Null } else { Value::Array(containers) });
    }
}
