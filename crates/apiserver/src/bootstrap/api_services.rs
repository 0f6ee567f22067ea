//! An APIService for each built-in group version: who serves it (this server), and where it stands in discovery.

use serde_json::{Value, json};

use corten_api::catalogue::Catalogue;

use super::Wanted;

const GROUP: &str = "apiregistration.k8s.io";

/// Group, its priority, and the priority of its versions where that is not 15.
#[rustfmt::skip]
const PRIORITIES: [(&str, i32, &[(&str, i32)]); 22] = [
    ("",                             18000, &[("v1", 1)]),
    ("apps",                         17800, &[]),
    ("events.k8s.io",                17750, &[]),
    ("authentication.k8s.io",        17700, &[]),
    ("authorization.k8s.io",         17600, &[]),
    ("autoscaling",                  17500, &[("v2", 30)]),
    ("batch",                        17400, &[]),
    ("certificates.k8s.io",          17300, &[]),
    ("networking.k8s.io",            17200, &[]),
    ("policy",                       17100, &[]),
    ("rbac.authorization.k8s.io",    17000, &[]),
    ("storage.k8s.io",               16800, &[]),
    ("apiextensions.k8s.io",         16700, &[]),
    ("admissionregistration.k8s.io", 16700, &[("v1beta1", 12), ("v1alpha1", 9)]),
    ("scheduling.k8s.io",            16600, &[("v1alpha2", 2)]),
    ("coordination.k8s.io",          16500, &[("v1beta1", 13), ("v1alpha2", 12)]),
    ("node.k8s.io",                  16300, &[]),
    ("discovery.k8s.io",             16200, &[("v1beta1", 12)]),
    ("resource.k8s.io",              16200, &[("v1", 21), ("v1beta2", 15)]),
    ("flowcontrol.apiserver.k8s.io", 16100, &[("v1", 21)]),
    ("internal.apiserver.k8s.io",    16000, &[("v1alpha1", 9)]),
    ("storagemigration.k8s.io",      15800, &[]),
];

/// One for each version that is served.
pub(super) fn objects(catalogue: &Catalogue) -> Vec<Wanted> {
    let mut objects = Vec::new();
    for (group, priority, versions) in PRIORITIES {
        let served = catalogue.group(group).into_iter().flat_map(|found| &found.versions).filter(|version| version.served);
        for version in served {
            let version = version.name.as_str();
            // Newer beta and alpha versions stand below the stable ones.
            let usual = if version.contains("alpha") {
                1
            } else if version.contains("beta") {
                9
            } else {
                15
            };
            let own = versions.iter().find(|(name, _)| *name == version).map_or(usual, |(_, priority)| *priority);
            objects.push(Wanted::new(GROUP, "apiservices", service(group, version, priority, own)));
        }
    }
    objects
}

fn service(group: &str, version: &str, group_priority: i32, version_priority: i32) -> Value {
    let mut spec = json!({"version": version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    let name = format!("{version}.{group}");
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": spec,
        "metadata": {"name": name, "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"}},
        "status": {"conditions": [{"type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available", "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}]}})
}
