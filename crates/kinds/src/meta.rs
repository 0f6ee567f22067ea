//! What strategies do with object metadata: generations and the parts that a status update keeps.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use crate::doc::{Read, Write, semantic_equal};

/// Sets `metadata.generation`.
pub(crate) fn set_generation(object: &mut Value, generation: i64) {
    object.object("metadata").put("generation", generation);
}

/// Raises the generation by one when the part that `desired` picks has changed; keeps it otherwise.
pub(crate) fn bump_generation(object: &mut Value, old: &Value, desired: impl Fn(&Value) -> &Value) {
    let before = old["metadata"].int("generation");
    let changed = !semantic_equal(desired(object), desired(old));
    let now = before + i64::from(changed);
    object.object("metadata").put("generation", if now == 0 { Value::Null } else { now.into() });
}

/// As [`bump_generation`], for kinds that tell an empty list or map from none (`reflect.DeepEqual`).
pub(crate) fn bump_generation_exactly(object: &mut Value, old: &Value, desired: impl Fn(&Value) -> &Value) {
    let generation = old["metadata"].int("generation") + i64::from(desired(object) != desired(old));
    object.object("metadata").put("generation", generation);
}

/// Keeps the generation as it was.
pub(crate) fn keep_generation(object: &mut Value, old: &Value) {
    object.object("metadata").copy_from(&old["metadata"], "generation");
}

/// Leaves a status update nothing but the status: of the metadata it may change labels and annotations no more than the rest
/// (`ResetObjectMetaForStatus`).
pub(crate) fn keep_all_but_status(object: &mut Value, old: &Value) {
    object.copy_from(old, "spec");
    let metadata = object.object("metadata");
    for key in ["deletionTimestamp", "generation", "selfLink", "labels", "annotations", "finalizers", "ownerReferences"] {
        metadata.copy_from(&old["metadata"], key);
    }
}

/// Whether finalizers of a built-in kind without a domain must be the system's own. Kinds whose validation takes the generic
/// rules for metadata, or none, are free.
#[must_use]
pub fn has_strict_finalizers(group: &str, resource: &str) -> bool {
    let free_group = matches!(
        group,
        "admissionregistration.k8s.io"
            | "apiextensions.k8s.io"
            | "apiregistration.k8s.io"
            | "coordination.k8s.io"
            | "node.k8s.io"
    );
    !free_group && !matches!((group, resource), ("", "events") | ("policy", "poddisruptionbudgets"))
}

/// Whether a kind's rules for a change compare its metadata once more, after what holds for all kinds.
#[must_use]
pub fn compares_metadata(group: &str, resource: &str, subresource: &str) -> bool {
    match (group, resource) {
        ("", "persistentvolumes") => subresource == "status",
        ("", "limitranges")
        | ("discovery.k8s.io", "endpointslices")
        | ("storage.k8s.io", "csinodes" | "volumeattachments")
        | ("flowcontrol.apiserver.k8s.io" | "admissionregistration.k8s.io", _) => false,
        _ => true,
    }
}

/// Whether a kind's rules for a change look at the metadata as those of a new object before they compare it.
#[must_use]
pub fn checks_metadata_first(group: &str, resource: &str) -> bool {
    matches!(
        (group, resource),
        ("", "namespaces" | "nodes")
            | ("resource.k8s.io", _)
            | ("storage.k8s.io", "storageclasses" | "csistoragecapacities")
            | ("rbac.authorization.k8s.io", _)
    )
}

/// How many times a kind's rules for a change include those for a new object, metadata and all; a fault there is told once more
/// each time.
#[must_use]
pub fn further_metadata_checks(group: &str, resource: &str, subresource: &str) -> usize {
    // The status of a VolumeAttachment is checked with all the rest.
    let whole = (group, resource, subresource) == ("storage.k8s.io", "volumeattachments", "status");
    if !whole && !matches!(subresource, "" | "scale" | "ephemeralcontainers" | "resize") {
        return 0;
    }
    match (group, resource) {
        // A volume is checked as a whole, and once more as a change.
        ("", "persistentvolumes") => 2,
        (
            "",
            "configmaps"
            | "endpoints"
            | "limitranges"
            | "namespaces"
            | "nodes"
            | "persistentvolumeclaims"
            | "pods"
            | "secrets"
            | "serviceaccounts",
        )
        | ("apps", "controllerrevisions")
        | ("batch", "jobs")
        | ("discovery.k8s.io", "endpointslices")
        | ("networking.k8s.io", "ingresses" | "ingressclasses" | "ipaddresses")
        | ("resource.k8s.io", "deviceclasses" | "resourceclaims" | "resourceclaimtemplates")
        | (
            "storage.k8s.io",
            "csinodes" | "csistoragecapacities" | "storageclasses" | "volumeattachments" | "volumeattributesclasses",
        )
        | (
            "admissionregistration.k8s.io"
            | "apiregistration.k8s.io"
            | "certificates.k8s.io"
            | "flowcontrol.apiserver.k8s.io"
            | "node.k8s.io"
            | "rbac.authorization.k8s.io",
            _,
        ) => 1,
        _ => 0,
    }
}

/// Finalizers without a domain must be the system's own. The registry calls this after the generic checks of a new object's
/// metadata, for kinds that [`has_strict_finalizers`].
pub fn check_finalizers(metadata: &Value, faults: &mut Faults) {
    let path = Path::new("metadata");
    let path = path.child("finalizers");
    for (i, name) in metadata.texts("finalizers").enumerate() {
        if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            faults.invalid_str(&path.index(i), name, detail);
        }
    }
}
