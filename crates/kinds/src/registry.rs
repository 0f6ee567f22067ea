//! Which strategy belongs to which resource, and which fields each endpoint takes from nobody.

use crate::{Strategy, batch, claim, config, endpoints, event, namespace, node, pod, rbac, service, simple, storage, workload};

/// One row a resource: its group, its plural name, its rules.
static STRATEGIES: &[(&str, &str, &dyn Strategy)] = &[
    ("", "configmaps", &config::ConfigMaps),
    ("", "endpoints", &endpoints::Endpoints),
    ("", "events", &event::Events { grouped: false }),
    ("", "namespaces", &namespace::Namespaces),
    ("", "nodes", &node::Nodes),
    ("", "persistentvolumeclaims", &claim::PersistentVolumeClaims),
    ("", "pods", &pod::Pods),
    ("", "podtemplates", &workload::PodTemplates),
    ("", "replicationcontrollers", &workload::ReplicationControllers),
    ("", "secrets", &config::Secrets),
    ("", "serviceaccounts", &simple::ServiceAccounts),
    ("", "services", &service::Services),
    ("apps", "controllerrevisions", &workload::ControllerRevisions),
    ("apps", "daemonsets", &workload::DaemonSets),
    ("apps", "deployments", &workload::Deployments),
    ("apps", "replicasets", &workload::ReplicaSets),
    ("apps", "statefulsets", &workload::StatefulSets),
    ("batch", "cronjobs", &batch::CronJobs),
    ("batch", "jobs", &batch::Jobs),
    ("coordination.k8s.io", "leases", &simple::Leases),
    ("discovery.k8s.io", "endpointslices", &endpoints::EndpointSlices),
    ("events.k8s.io", "events", &event::Events { grouped: true }),
    ("rbac.authorization.k8s.io", "clusterrolebindings", &rbac::RoleBindings { cluster: true }),
    ("rbac.authorization.k8s.io", "clusterroles", &rbac::Roles { cluster: true }),
    ("rbac.authorization.k8s.io", "rolebindings", &rbac::RoleBindings { cluster: false }),
    ("rbac.authorization.k8s.io", "roles", &rbac::Roles { cluster: false }),
    ("scheduling.k8s.io", "priorityclasses", &simple::PriorityClasses),
    ("storage.k8s.io", "storageclasses", &storage::StorageClasses),
];

/// The rules of a built-in resource, by its group (`apps`) and plural name (`deployments`); `None` when it has no storage
/// of its own (reviews, subresources) or is unknown.
#[must_use]
pub fn strategy(group: &str, resource: &str) -> Option<&'static dyn Strategy> {
    STRATEGIES.iter().find(|(g, r, _)| (*g, *r) == (group, resource)).map(|(_, _, strategy)| *strategy)
}

/// A path of field names, such as `["metadata", "deletionTimestamp"]`.
pub type FieldPath = &'static [&'static str];

/// The fields that a write to this endpoint resets, so that server-side apply lets nobody own them (`GetResetFields`).
/// Paths are those of every version of the kind.
#[must_use]
pub fn reset_fields(group: &str, resource: &str, subresource: &str) -> &'static [FieldPath] {
    const NONE: &[FieldPath] = &[];
    const STATUS: &[FieldPath] = &[&["status"]];
    const SPEC: &[FieldPath] = &[&["spec"]];
    const SPEC_AND_META: &[FieldPath] = &[&["spec"], &["metadata"]];
    match (group, resource, subresource) {
        ("", "pods", "status") => &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
        ("apps", "deployments", "status") => &[&["spec"], &["metadata", "labels"]],
        ("networking.k8s.io", "ingresses" | "servicecidrs", "status")
        | ("batch", "jobs" | "cronjobs", "status")
        | ("apps", "replicasets" | "statefulsets" | "daemonsets", "status")
        | ("policy", "poddisruptionbudgets", "status")
        | ("autoscaling", "horizontalpodautoscalers", "status")
        | (
            "",
            "nodes"
            | "namespaces"
            | "persistentvolumes"
            | "persistentvolumeclaims"
            | "replicationcontrollers"
            | "resourcequotas"
            | "services",
            "status",
        ) => SPEC,
        ("storage.k8s.io", "volumeattachments", "status")
        | ("flowcontrol.apiserver.k8s.io", "flowschemas" | "prioritylevelconfigurations", "status")
        | ("resource.k8s.io", "resourceclaims", "status")
        | ("admissionregistration.k8s.io", "validatingadmissionpolicies", "status")
        | ("apiextensions.k8s.io", "customresourcedefinitions", "status")
        | ("apiregistration.k8s.io", "apiservices", "status") => SPEC_AND_META,
        ("certificates.k8s.io", "certificatesigningrequests", "status") => &[&["spec"], &["status", "conditions"]],
        ("certificates.k8s.io", "certificatesigningrequests", "approval") => &[&["spec"], &["status", "certificate"]],
        (_, _, "status") => SPEC,
        ("", "pods" | "nodes" | "namespaces" | "persistentvolumes" | "persistentvolumeclaims", "")
        | ("", "replicationcontrollers" | "resourcequotas" | "services", "")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets", "")
        | ("batch", "jobs" | "cronjobs", "")
        | ("networking.k8s.io", "ingresses" | "servicecidrs", "")
        | ("policy", "poddisruptionbudgets", "")
        | ("autoscaling", "horizontalpodautoscalers", "")
        | ("storage.k8s.io", "volumeattachments", "")
        | ("flowcontrol.apiserver.k8s.io", "flowschemas" | "prioritylevelconfigurations", "")
        | ("resource.k8s.io", "resourceclaims", "")
        | ("certificates.k8s.io", "certificatesigningrequests", "")
        | ("admissionregistration.k8s.io", "validatingadmissionpolicies", "")
        | ("apiextensions.k8s.io", "customresourcedefinitions", "")
        | ("apiregistration.k8s.io", "apiservices", "") => STATUS,
        _ => NONE,
    }
}
