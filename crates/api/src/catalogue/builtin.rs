//! Reading the table of built-in resources.

use super::{Catalogue, Resource, Storage, Subresource, Verbs, Version};

const TEXT: &str = include_str!("../../facts/catalogue.txt");

/// What a line of the table is wrong about.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct TableError {
    line: usize,
    what: &'static str,
}

/// Where the reader is: the group and version that lines belong to.
#[derive(Default)]
struct Place {
    group: &'static str,
    package: &'static str,
    version: &'static str,
    served: bool,
}

pub(super) fn catalogue() -> Result<Catalogue, TableError> {
    let mut resources: Vec<Resource> = Vec::new();
    let mut place = Place::default();
    let mut current = 0;
    for (number, line) in TEXT.lines().enumerate() {
        let fault = |what| TableError { line: number + 1, what };
        let words: Vec<&'static str> = line.split(' ').collect();
        match words.as_slice() {
            ["#", ..] => {}
            ["G", group, package] => {
                place.group = if *group == "\"\"" { "" } else { group };
                place.package = package;
            }
            ["V", version, state] => (place.version, place.served) = (version, *state == "on"),
            ["R", plural, singular, kind, scope, verbs, flags @ ..] => {
                current = resource(&place, &mut resources, [plural, singular, kind, scope], flags).map_err(fault)?;
                let verbs = Verbs::of(verbs.split(',')).ok_or_else(|| fault("unknown verb"))?;
                let fields = flag(flags, "fields=");
                resources[current].versions.push(Version {
                    name: place.version.into(),
                    served: place.served,
                    type_name: format!("{}.{}.{kind}", place.package, place.version),
                    verbs,
                    subresources: Vec::new(),
                    fields,
                });
            }
            ["S", name, kind, verbs] => {
                let verbs = Verbs::of(verbs.split(',')).ok_or_else(|| fault("unknown verb"))?;
                let (group, version, kind) = full_kind(kind, &place).ok_or_else(|| fault("kind is not group/version/kind"))?;
                let type_name = format!("{}.{version}.{kind}", package(group));
                let sub = Subresource {
                    name: (*name).into(),
                    group: group.into(),
                    version: version.into(),
                    kind: kind.into(),
                    type_name,
                    verbs,
                };
                let resource = resources.get_mut(current).ok_or_else(|| fault("a subresource before the first resource"))?;
                resource.versions.last_mut().ok_or_else(|| fault("a resource without versions"))?.subresources.push(sub);
            }
            _ => return Err(fault("neither group, version, resource nor subresource")),
        }
    }
    for resource in &mut resources {
        settle_storage(resource);
    }
    Ok(Catalogue::default().with(resources))
}

/// The place of the resource that a line is about, in an earlier version or just added.
fn resource(
    place: &Place,
    resources: &mut Vec<Resource>,
    [plural, singular, kind, scope]: [&str; 4],
    flags: &[&str],
) -> Result<usize, &'static str> {
    let known = resources.iter().position(|known| known.group == place.group && known.plural == plural);
    if let Some(at) = known {
        return Ok(at);
    }
    let stored = flag(flags, "stored=").pop();
    let storage = match &stored {
        None => Storage::new(place.group, place.version, kind),
        Some(stored) => {
            let (group, version, kind) = full_kind(stored, place).ok_or("stored kind is not group/version/kind")?;
            Storage::new(group, version, kind)
        }
    };
    // Some are announced as if they were stored in an older version, so that all servers of a cluster that is being upgraded
    // say the same.
    let storage = match flag(flags, "announced=").pop() {
        None => storage,
        Some(version) => Storage { hash: Storage::new(place.group, &version, kind).hash, ..storage },
    };
    resources.push(Resource {
        group: place.group.into(),
        plural: plural.into(),
        singular: singular.into(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        namespaced: scope == "namespaced",
        short_names: flag(flags, "short="),
        categories: flag(flags, "categories="),
        versions: Vec::new(),
        storage,
        custom: false,
    });
    Ok(resources.len() - 1)
}

/// Reviews and bindings are answered, never stored: nobody can read them back. CRDs are announced with the hash of an
/// older version than the one they are read and written in here.
fn settle_storage(resource: &mut Resource) {
    let stored = resource.versions.iter().any(|version| version.verbs.contains("get") && version.verbs.contains("create"));
    if !stored {
        resource.storage.hash.clear();
    }
    if resource.storage.group == resource.group && resource.version(&resource.storage.version).is_none() {
        resource.storage.version.clone_from(&resource.versions[0].name);
    }
}

fn flag(flags: &[&str], name: &str) -> Vec<String> {
    let value = flags.iter().find_map(|flag| flag.strip_prefix(name));
    value.map(|value| value.split(',').map(Into::into).collect()).unwrap_or_default()
}

fn full_kind<'a>(kind: &'a str, place: &Place) -> Option<(&'a str, &'a str, &'a str)> {
    let mut parts = kind.rsplitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(kind), None, None) => Some((place.group, place.version, kind)),
        (Some(kind), Some(version), Some(group)) => Some((group, version, kind)),
        _ => None,
    }
}

/// The package of a group's types, the first part of their names in the table of types.
#[must_use]
pub fn package(group: &str) -> &str {
    match group {
        "" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        group => group.split('.').next().unwrap_or(group),
    }
}
