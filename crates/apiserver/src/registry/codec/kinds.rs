//! The kinds that a body may name, and what is said of others.

use std::collections::BTreeSet;

use serde_json::Value;

use corten_api::catalogue::{self, Catalogue};
use corten_api::facts::{Type, Types};
use corten_api::status::Status;

use super::Expected;
use crate::registry::target::join;
use crate::registry::write::Writing;

/// Kinds of `meta.k8s.io` that every group version has.
const OF_EVERY_GROUP: [&str; 7] =
    ["CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions", "WatchEvent"];
/// Those that only the core group has, and others of it that no resource is of.
const OF_CORE: [&str; 14] = [
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "List",
    "NodeProxyOptions",
    "PodAttachOptions",
    "PodExecOptions",
    "PodLogOptions",
    "PodPortForwardOptions",
    "PodProxyOptions",
    "PodStatusResult",
    "ServiceProxyOptions",
    "Status",
];

/// Groups of which nothing is served and that upstream can read nevertheless.
const UNSERVED: [&str; 3] = ["admission.k8s.io", "extensions", "imagepolicy.k8s.io"];

/// Versions of the groups of whose kinds no type is known in them.
const WITHOUT_TYPES: [(&str, &str); 2] = [("apiextensions.k8s.io", "v1beta1"), ("apiregistration.k8s.io", "v1beta1")];

/// All versions of all groups that upstream can read, in order.
pub(crate) fn known_versions(catalogue: &Catalogue) -> BTreeSet<(&str, &str)> {
    let groups = || catalogue.groups().iter().map(|group| group.name.as_str()).chain(UNSERVED);
    let of_type = |ty: &'static Type| {
        let (package, rest) = ty.name.split_once('.')?;
        let (version, _) = rest.split_once('.')?;
        let group = groups().find(|group| catalogue::package(group) == package)?;
        Some((group, version))
    };
    // Also of those that are never stored and have no metadata.
    let says = |ty: &&'static Type| ty.field("apiVersion").is_some() && ty.field("kind").is_some();
    Types::get().iter().filter(says).filter_map(of_type).chain(WITHOUT_TYPES).collect()
}

/// Whether documents of a type say what they are.
fn is_object(ty: &Type) -> bool {
    ["apiVersion", "kind", "metadata"].iter().all(|field| ty.field(field).is_some())
}

/// The type of a built-in kind.
pub(super) fn known_type_of(api_version: &str, kind: &str) -> Option<&'static Type> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Types::get().named(&format!("{}.{version}.{kind}", catalogue::package(group)))
}

/// The type of a kind, or of its list, in any version that upstream can read. What is not served any more is among the types.
pub(crate) fn known_type(catalogue: &Catalogue, api_version: &str, kind: &str) -> Option<&'static Type> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let is_group = catalogue.group(group).is_some() || UNSERVED.contains(&group);
    let ty = known_type_of(api_version, kind).filter(|_| is_group)?;
    is_object(ty).then_some(ty)
}

/// Why a body of another kind is refused, in upstream's words: no such kind, another version of this kind, another kind.
pub(super) fn other_kind(writing: &Writing<'_>, expected: &Expected<'_>, kind: &str, api_version: &str) -> Status {
    let wanted = expected.kind;
    let version = api_version.split_once('/').map_or(api_version, |(_, version)| version);
    Status::bad_request(match fault_of_kind(writing, expected, kind, api_version) {
        Some(fault) => format!("{kind} in version {version:?} cannot be handled as a {wanted}: {fault}"),
        // One internal type stands behind all versions of a kind, whichever group they are in.
        None => {
            let expected = join(expected.group, expected.version);
            format!("the API version in the data ({api_version}) does not match the expected API version ({expected})")
        }
    })
}

/// What is wrong with a patch that makes a document of another kind; nothing when it is another version of the same.
pub(crate) fn why_other_kind(writing: &Writing<'_>, kind: &str, api_version: &str) -> Option<String> {
    if api_version.matches('/').count() > 1 {
        return Some(format!("unexpected GroupVersion string: {api_version}"));
    }
    let expected = Expected::of(writing.target, &writing.subresource);
    if let Some(group) = internal_group(api_version) {
        return Some(format!(
            "no kind {kind:?} is registered for the internal version of group {group:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        ));
    }
    fault_of_kind(writing, &expected, kind, api_version.strip_prefix('/').unwrap_or(api_version))
}

/// The group of what a document says of itself when that is no version but the form the reference holds inside.
pub(crate) fn internal_group(api_version: &str) -> Option<&str> {
    match api_version.split_once('/').unwrap_or(("", api_version)) {
        (group, "" | "__internal") => Some(group),
        _ => None,
    }
}

fn fault_of_kind(writing: &Writing<'_>, expected: &Expected<'_>, kind: &str, api_version: &str) -> Option<String> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let catalogue = writing.state.catalogue();
    let is_kind = |kind: &str| catalogue.kind(group, kind).is_some_and(|resource| resource.version(version).is_some());
    let is_group = || catalogue.group(group).is_some_and(|group| group.versions.iter().any(|known| known.name == version));
    let known = is_kind(kind)
        || known_type(&catalogue, api_version, kind).is_some()
        || (OF_EVERY_GROUP.contains(&kind) && is_group())
        || (group.is_empty() && version == "v1" && OF_CORE.contains(&kind));
    let wanted = expected.kind;
    if !known {
        return Some(format!(
            "no kind {kind:?} is registered for version {api_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        ));
    }
    if kind == wanted {
        return None;
    }
    let internal = match expected.group.split('.').next().unwrap_or_default() {
        "" => "core",
        first => first,
    };
    Some(format!("converting ({version}.{kind}) to ({internal}.{wanted}): unknown conversion"))
}

/// Why a patch that changes kind or version is refused.
pub(crate) fn wrong_kind(writing: &Writing<'_>, document: &Value) -> Status {
    let expected = Expected::of(writing.target, &writing.subresource);
    let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
    other_kind(writing, &expected, &text("kind"), &text("apiVersion"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_known_that_are_not_served() {
        let catalogue = Catalogue::builtin();
        let versions = known_versions(catalogue);
        for known in [
            ("", "v1"),
            ("apps", "v1beta1"),
            ("extensions", "v1beta1"),
            ("admission.k8s.io", "v1"),
            ("flowcontrol.apiserver.k8s.io", "v1beta3"),
        ] {
            assert!(versions.contains(&known), "{known:?}");
        }
        assert!(versions.iter().all(|(group, version)| *group != "autoscaling" || ["v1", "v2"].contains(version)));
        let of = |api_version, kind| known_type(catalogue, api_version, kind).map(|ty| ty.name);
        assert_eq!(of("extensions/v1beta1", "Deployment"), Some("extensions.v1beta1.Deployment"));
        assert_eq!((of("apps/v1", "DeploymentList"), of("apps/v1", "DeploymentSpec")), (Some("apps.v1.DeploymentList"), None));
        assert_eq!((of("autoscaling/v2beta1", "HorizontalPodAutoscaler"), of("meta/v1", "Status")), (None, None));
    }
}
