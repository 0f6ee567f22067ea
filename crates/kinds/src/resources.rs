//! Names of compute and quota resources (`cpu`, `requests.storage`, `example.com/gpu`): which are the system's own, which
//! may be overcommitted, and which are counted in whole numbers.

use corten_api::field::{Faults, Path};

use crate::{check, names};

const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Whether the name is for huge pages of some size.
pub(crate) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_quota_huge_page(name: &str) -> bool {
    is_huge_page(name) || name.starts_with("requests.hugepages-")
}

/// Whether the name belongs to Kubernetes: no domain, or one of its own.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether requests and limits may differ.
pub(crate) fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Whether the name is of an extended resource (KEP-753), such as `example.com/gpu`.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether amounts must be whole numbers.
pub(crate) fn is_integer(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// Whether a quota may constrain the name without a domain.
pub(crate) fn is_standard_quota(name: &str) -> bool {
    (STANDARD.contains(&name) && name != "storage") || is_quota_huge_page(name)
}

/// Faults of a resource name of any use. Returns whether it is fine.
pub(crate) fn check_name(faults: &mut Faults, path: &Path<'_>, name: &str) -> bool {
    let messages = names::qualified_name(name);
    if !messages.is_empty() {
        check::invalid_each(faults, path, name, messages);
        return false;
    }
    if !name.contains('/') && !STANDARD.contains(&name) && !is_quota_huge_page(name) {
        faults.invalid_str(path, name, "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

/// Faults of a resource name that a container may request.
pub(crate) fn check_container_name(faults: &mut Faults, path: &Path<'_>, name: &str) {
    check_name(faults, path, name);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
            faults.invalid_str(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        faults.invalid_str(path, name, "doesn't follow extended resource name standard");
    }
}

/// Faults of a resource name that a pod as a whole may request (KEP-2837).
pub(crate) fn check_pod_name(faults: &mut Faults, path: &Path<'_>, name: &str) {
    if check_name(faults, path, name) && !is_pod_level(name) {
        faults.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// Whether requests and limits of the whole pod may name the resource.
pub(crate) fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// Faults of a resource name that a quota may constrain.
pub(crate) fn check_quota_name(faults: &mut Faults, path: &Path<'_>, name: &str) {
    check_name(faults, path, name);
    if !name.contains('/') && !is_standard_quota(name) {
        faults.invalid_str(path, name, "must be a standard resource for quota");
    }
}
