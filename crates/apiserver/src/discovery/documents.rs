//! The documents of discovery. Pure: catalogue in, JSON out.

use serde_json::{Map, Value, json};

use corten_api::catalogue::{Catalogue, Group, Resource, Subresource, Version};

use crate::certs;
use crate::state::State;

/// `/api`
pub(super) fn api_versions(state: &State) -> Value {
    let address = std::net::SocketAddr::new(certs::advertise_address(&state.config), state.config.secure_port);
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address.to_string()}]})
}

/// `/apis`
pub(super) fn groups(catalogue: &Catalogue) -> Value {
    let groups: Vec<_> = named(catalogue).filter_map(entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`; `None` when nothing of it is served.
pub(super) fn group(catalogue: &Catalogue, name: &str) -> Option<Value> {
    let mut document = entry(catalogue.group(name).filter(|group| !group.name.is_empty())?)?;
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Some(document)
}

fn entry(group: &Group) -> Option<Value> {
    let versions: Vec<_> = served(group).map(|version| named_version(group, version)).collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": group.name, "versions": versions, "preferredVersion": preferred}))
}

fn named_version(group: &Group, version: &str) -> Value {
    json!({"groupVersion": format!("{}/{version}", group.name), "version": version})
}

/// `/api/VERSION` and `/apis/GROUP/VERSION`; `None` when it is not served.
pub(super) fn resources(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    served(catalogue.group(group)?).find(|name| *name == version)?;
    let mut list = Vec::new();
    for (resource, version) in catalogue.of_version(group, version).filter(|(_, version)| version.served) {
        list.push(listed(resource, version));
        list.extend(version.subresources.iter().map(|sub| listed_subresource(resource, version, sub)));
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Some(match group {
        "" => json!({"kind": "APIResourceList", "groupVersion": version, "resources": list}),
        group => {
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{group}/{version}"), "resources": list})
        }
    })
}

fn listed(resource: &Resource, version: &Version) -> Value {
    let mut item = json!({"name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": version.verbs.iter().collect::<Vec<_>>()});
    some(&mut item, "shortNames", &resource.short_names);
    some(&mut item, "categories", &resource.categories);
    if !resource.storage.hash.is_empty() {
        item["storageVersionHash"] = resource.storage.hash.clone().into();
    }
    item
}

fn listed_subresource(resource: &Resource, version: &Version, sub: &Subresource) -> Value {
    let mut item = json!({"name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
        "namespaced": resource.namespaced, "kind": sub.kind, "verbs": sub.verbs.iter().collect::<Vec<_>>()});
    if (&sub.group, &sub.version) != (&resource.group, &version.name) {
        item["group"] = sub.group.clone().into();
        item["version"] = sub.version.clone().into();
    }
    item
}

/// Everything under `/api` or `/apis` in one document.
pub(super) fn aggregated(catalogue: &Catalogue, core: bool) -> Value {
    let groups = catalogue.groups().iter().filter(|group| group.name.is_empty() == core);
    let items: Vec<_> = groups.filter_map(|group| aggregated_group(catalogue, group)).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_group(catalogue: &Catalogue, group: &Group) -> Option<Value> {
    let versions = served(group).map(|version| {
        let mut resources: Vec<_> = catalogue
            .of_version(&group.name, version)
            .filter(|(_, version)| version.served)
            .map(|(resource, version)| aggregated_resource(resource, version))
            .collect();
        resources.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
        json!({"version": version, "freshness": "Current", "resources": resources})
    });
    let versions: Vec<_> = versions.collect();
    if versions.is_empty() {
        return None;
    }
    let mut metadata = Map::new();
    if !group.name.is_empty() {
        metadata.insert("name".into(), group.name.clone().into());
    }
    Some(json!({"metadata": metadata, "versions": versions}))
}

fn aggregated_resource(resource: &Resource, version: &Version) -> Value {
    let scope = if resource.namespaced { "Namespaced" } else { "Cluster" };
    let mut item = json!({"resource": resource.plural, "singularResource": resource.singular, "scope": scope,
        "responseKind": {"group": "", "version": "", "kind": resource.kind}, "verbs": version.verbs.iter().collect::<Vec<_>>()});
    some(&mut item, "shortNames", &resource.short_names);
    some(&mut item, "categories", &resource.categories);
    if !version.subresources.is_empty() {
        item["subresources"] = version.subresources.iter().map(|sub| aggregated_subresource(resource, version, sub)).collect();
    }
    item
}

fn aggregated_subresource(resource: &Resource, version: &Version, sub: &Subresource) -> Value {
    // Empty is short for "as the group version that this is in".
    let own = (&sub.group, &sub.version) == (&resource.group, &version.name);
    let (group, version) = if own { ("", "") } else { (sub.group.as_str(), sub.version.as_str()) };
    json!({"subresource": sub.name, "responseKind": {"group": group, "version": version, "kind": sub.kind},
        "verbs": sub.verbs.iter().collect::<Vec<_>>()})
}

/// The paths there are, but for single checks of health.
pub(super) fn paths(catalogue: &Catalogue) -> Vec<String> {
    let fixed = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/flagz",
        "/healthz",
        "/livez",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/readyz",
        "/statusz",
        "/version",
    ];
    let mut paths: Vec<String> = fixed.map(str::to_owned).into();
    for group in named(catalogue) {
        let versions: Vec<_> = served(group).collect();
        if !versions.is_empty() {
            paths.push(format!("/apis/{}", group.name));
            paths.extend(versions.iter().map(|version| format!("/apis/{}/{version}", group.name)));
        }
    }
    paths
}

fn named(catalogue: &Catalogue) -> impl Iterator<Item = &Group> {
    catalogue.groups().iter().filter(|group| !group.name.is_empty())
}

fn served(group: &Group) -> impl Iterator<Item = &str> {
    group.versions.iter().filter(|version| version.served).map(|version| version.name.as_str())
}

fn some(item: &mut Value, key: &str, list: &[String]) {
    if !list.is_empty() {
        item[key] = list.iter().map(String::as_str).collect();
    }
}
