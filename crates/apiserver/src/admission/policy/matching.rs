//! Which requests a policy or binding is about: rules, the labels of the namespace and of the object.

use serde_json::Value;

use corten_api::catalogue::Catalogue;
use corten_api::selector::LabelSelector;

use super::super::tools::items;
use super::super::{AdmissionRequest, Operation};
use crate::reader::Reader;

/// The resource and version in which a policy sees the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matched {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) resource: String,
    pub(super) kind: String,
}

/// How `constraints` match the request, if they do.
pub(super) fn matches(
    constraints: &Value,
    request: &AdmissionRequest,
    catalogue: &Catalogue,
    reader: &Reader,
) -> Result<Option<Matched>, String> {
    if !namespace_fits(&constraints["namespaceSelector"], request, reader)?
        || !object_fits(&constraints["objectSelector"], request)?
    {
        return Ok(None);
    }
    let exact = constraints["matchPolicy"] == "Exact";
    let places = places(request, catalogue, exact);
    if by_rules(&constraints["excludeResourceRules"], request, &places).is_some() {
        return Ok(None);
    }
    let rules = &constraints["resourceRules"];
    if items(rules).next().is_none() {
        return Ok(places.into_iter().next());
    }
    Ok(by_rules(rules, request, &places))
}

/// The request's own place first, then those that mean the same.
fn places(request: &AdmissionRequest, catalogue: &Catalogue, exact: bool) -> Vec<Matched> {
    let own = Matched {
        group: request.group.clone(),
        version: request.version.clone(),
        resource: request.resource.clone(),
        kind: request.kind.clone(),
    };
    let mut places = vec![own];
    if exact || !request.subresource.is_empty() {
        return places;
    }
    let Some(resource) = catalogue.resource(&request.group, &request.resource) else { return places };
    for other in catalogue.all().iter().filter(|other| other.storage == resource.storage) {
        for version in &other.versions {
            let place = Matched {
                group: other.group.clone(),
                version: version.name.clone(),
                resource: other.plural.clone(),
                kind: other.kind.clone(),
            };
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

fn by_rules(rules: &Value, request: &AdmissionRequest, places: &[Matched]) -> Option<Matched> {
    let fits = |place: &&Matched| items(rules).any(|rule| rule_fits(rule, request, place));
    places.iter().find(fits).cloned()
}

fn rule_fits(rule: &Value, request: &AdmissionRequest, place: &Matched) -> bool {
    let operation = match request.operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    };
    let has = |key: &str, value: &str| items(&rule[key]).any(|item| item == "*" || item == value);
    let resource = |item: &Value| {
        let (resource, subresource) = item.as_str().map_or(("", ""), |item| item.split_once('/').unwrap_or((item, "")));
        (resource == "*" || resource == place.resource) && (subresource == "*" || subresource == request.subresource)
    };
    let cluster = request.namespace.is_empty() || place.group.is_empty() && place.resource == "namespaces";
    let scope = match rule["scope"].as_str() {
        Some("Namespaced") => !cluster,
        Some("Cluster") => cluster,
        _ => true,
    };
    let mut names = items(&rule["resourceNames"]).peekable();
    has("operations", operation)
        && has("apiGroups", &place.group)
        && has("apiVersions", &place.version)
        && items(&rule["resources"]).any(resource)
        && scope
        && (names.peek().is_none() || names.any(|name| name == request.name.as_str()))
}

fn selector(selector: &Value) -> Result<LabelSelector, String> {
    LabelSelector::from_object(Some(selector)).map_err(|fault| fault.to_string())
}

fn is_open(selector: &Value) -> bool {
    let empty = |key: &str| selector[key].as_object().is_none_or(serde_json::Map::is_empty);
    empty("matchLabels") && items(&selector["matchExpressions"]).next().is_none()
}

fn namespace_fits(wanted: &Value, request: &AdmissionRequest, reader: &Reader) -> Result<bool, String> {
    if is_open(wanted) {
        return Ok(true);
    }
    let selector = selector(wanted)?;
    let itself = request.group.is_empty() && request.resource == "namespaces";
    if itself && request.subresource.is_empty() {
        // A namespace is judged by its own labels, a deleted one by those it had.
        let object = request.object.as_ref().or(request.old.as_ref());
        return Ok(object.is_some_and(|namespace| selector.matches(&namespace["metadata"]["labels"])));
    }
    let name = if itself { &request.name } else { &request.namespace };
    if name.is_empty() {
        // Not in any namespace: the selector does not speak of it.
        return Ok(true);
    }
    let namespace = reader.document("", "namespaces", "", name).ok_or_else(|| format!("namespaces {name:?} not found"))?;
    Ok(selector.matches(&namespace["metadata"]["labels"]))
}

fn object_fits(wanted: &Value, request: &AdmissionRequest) -> Result<bool, String> {
    if is_open(wanted) {
        return Ok(true);
    }
    let selector = selector(wanted)?;
    let fits = |object: &Option<Value>| object.as_ref().is_some_and(|object| selector.matches(&object["metadata"]["labels"]));
    Ok(fits(&request.object) || fits(&request.old))
}
