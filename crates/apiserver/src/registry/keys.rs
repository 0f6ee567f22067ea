//! Where objects lie in the store: upstream's keys, so that a store can be taken over and handed back.

use corten_api::catalogue::Resource;

/// What the keys of a resource's objects begin with, the last `/` included.
pub(crate) fn prefix(resource: &Resource) -> String {
    let place = match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "services") => "services/specs".to_owned(),
        ("", "endpoints") => "services/endpoints".to_owned(),
        ("", "nodes") => "minions".to_owned(),
        ("", "replicationcontrollers") => "controllers".to_owned(),
        ("networking.k8s.io", "ingresses") => "ingress".to_owned(),
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", plural) => format!("{}/{plural}", resource.group),
        (group, plural) if resource.custom => format!("{group}/{plural}"),
        (_, plural) => plural.to_owned(),
    };
    format!("/registry/{place}/")
}
