//! Which strategy belongs to which resource, and which fields each endpoint takes from nobody.

use crate::{
    Strategy, admission, autoscaler, batch, budget, claim, config, crd, csr, device, endpoints, event, flow, namespace,
    networking, node, pod, quota, rbac, service, simple, storage, volume, workload,
};

/// One row a resource: its group, its plural name, its rules.
static STRATEGIES: &[(&str, &str, &dyn Strategy)] = &[
    ("", "configmaps", &config::ConfigMaps),
    ("", "endpoints", &endpoints::Endpoints),
    ("", "events", &event::Events { grouped: false }),
    ("", "limitranges", &quota::LimitRanges),
    ("", "namespaces", &namespace::Namespaces),
    ("", "nodes", &node::Nodes),
    ("", "persistentvolumeclaims", &claim::PersistentVolumeClaims),
    ("", "persistentvolumes", &volume::PersistentVolumes),
    ("", "pods", &pod::Pods),
    ("", "podtemplates", &workload::PodTemplates),
    ("", "replicationcontrollers", &workload::ReplicationControllers),
    ("", "resourcequotas", &quota::ResourceQuotas),
    ("", "secrets", &config::Secrets),
    ("", "serviceaccounts", &simple::ServiceAccounts),
    ("", "services", &service::Services),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies", &admission::Policies { mutating: true }),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings", &admission::PolicyBindings { mutating: true }),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", &admission::Webhooks { mutating: true }),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", &admission::Policies { mutating: false }),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", &admission::PolicyBindings { mutating: false }),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", &admission::Webhooks { mutating: false }),
    ("apiextensions.k8s.io", "customresourcedefinitions", &crd::CustomResourceDefinitions),
    ("apiregistration.k8s.io", "apiservices", &admission::ApiServices),
    ("apps", "controllerrevisions", &workload::ControllerRevisions),
    ("apps", "daemonsets", &workload::DaemonSets),
    ("apps", "deployments", &workload::Deployments),
    ("apps", "replicasets", &workload::ReplicaSets),
    ("apps", "statefulsets", &workload::StatefulSets),
    ("autoscaling", "horizontalpodautoscalers", &autoscaler::HorizontalPodAutoscalers),
    ("batch", "cronjobs", &batch::CronJobs),
    ("batch", "jobs", &batch::Jobs),
    ("certificates.k8s.io", "certificatesigningrequests", &csr::CertificateSigningRequests),
    ("coordination.k8s.io", "leases", &simple::Leases),
    ("discovery.k8s.io", "endpointslices", &endpoints::EndpointSlices),
    ("events.k8s.io", "events", &event::Events { grouped: true }),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", &flow::FlowSchemas),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", &flow::PriorityLevels),
    ("networking.k8s.io", "ingressclasses", &networking::IngressClasses),
    ("networking.k8s.io", "ingresses", &networking::Ingresses),
    ("networking.k8s.io", "ipaddresses", &networking::IpAddresses),
    ("networking.k8s.io", "networkpolicies", &networking::NetworkPolicies),
    ("networking.k8s.io", "servicecidrs", &networking::ServiceCidrs),
    ("node.k8s.io", "runtimeclasses", &budget::RuntimeClasses),
    ("policy", "poddisruptionbudgets", &budget::PodDisruptionBudgets),
    ("rbac.authorization.k8s.io", "clusterrolebindings", &rbac::RoleBindings { cluster: true }),
    ("rbac.authorization.k8s.io", "clusterroles", &rbac::Roles { cluster: true }),
    ("rbac.authorization.k8s.io", "rolebindings", &rbac::RoleBindings { cluster: false }),
    ("rbac.authorization.k8s.io", "roles", &rbac::Roles { cluster: false }),
    ("resource.k8s.io", "deviceclasses", &device::DeviceClasses),
    ("resource.k8s.io", "resourceclaims", &device::ResourceClaims),
    ("resource.k8s.io", "resourceclaimtemplates", &device::ResourceClaimTemplates),
    ("resource.k8s.io", "resourceslices", &device::ResourceSlices),
    ("scheduling.k8s.io", "priorityclasses", &simple::PriorityClasses),
    ("storage.k8s.io", "csidrivers", &storage::CsiDrivers),
    ("storage.k8s.io", "csinodes", &storage::CsiNodes),
    ("storage.k8s.io", "csistoragecapacities", &storage::CsiStorageCapacities),
    ("storage.k8s.io", "storageclasses", &storage::StorageClasses),
    ("storage.k8s.io", "volumeattachments", &storage::VolumeAttachments),
    ("storage.k8s.io", "volumeattributesclasses", &storage::VolumeAttributesClasses),
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
        ("networking.k8s.io", "ingresses", "status")
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
        | ("networking.k8s.io", "servicecidrs", "status")
        | ("admissionregistration.k8s.io", "validatingadmissionpolicies", "status")
        | ("apiregistration.k8s.io", "apiservices", "status") => SPEC_AND_META,
        // The request of a CSR is the requester's once and for all: nobody owns it.
        ("certificates.k8s.io", "certificatesigningrequests", "") => &[&["spec"], &["status"]],
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
        | ("admissionregistration.k8s.io", "validatingadmissionpolicies", "")
        | ("apiextensions.k8s.io", "customresourcedefinitions", "")
        | ("apiregistration.k8s.io", "apiservices", "") => STATUS,
        _ => NONE,
    }
}
