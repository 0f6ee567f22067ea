//! How ownership changes with a write, and what is left of an object when a configuration applies less than it did.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use super::managers::{Id, Managers, Owned};
use super::merge::{merge, remove, with_named_fields};
use super::set::{Set, same, shown};
use super::text::Fields;
use super::walk::{Comparison, compare, field_set};
use super::{ApplyError, Conflict, UNOWNED, Versions, Writer};

/// The managers after `id` has changed `old` into `new`.
pub(super) fn update<V: Versions>(
    versions: &V,
    old: &Value,
    new: &Value,
    mut managers: Managers,
    id: &Id,
    writer: &Writer<'_>,
) -> Managers {
    let Some(mut found) = differences(versions, old, new, writer) else { return managers };
    if found.unidentified {
        // Nobody owns anything of a document that cannot be tracked, as upstream.
        return Managers::default();
    }
    // The managed fields themselves are among it: they are taken out of the new document while their successors are made.
    found.removed = found.removed.difference(unowned());
    // The writer's own earlier ownership is treated like anybody's: what it changes now it owns anew. Only what is gone makes a
    // difference to it.
    let aside = found.removed.is_empty().then_some(id);
    let conflicts = others(versions, old, new, &mut managers, aside, &found, writer);
    settle(&mut managers, conflicts);
    let Comparison { modified, added, .. } = found;
    let set = writer.filter(modified.merge(added)).difference(unowned());
    if !set.is_empty() {
        let fields = match managers.owned.remove(id).map(|previous| previous.fields) {
            Some(mut fields) => {
                fields.add(set);
                fields
            }
            None => Fields::Read(set),
        };
        managers.owned.insert(id.clone(), Owned { fields, api_version: writer.api_version.into() });
        managers.times.insert(id.clone(), writer.now);
    }
    managers
}

/// Merges `config` into `live`. The document is nothing when that changes nothing.
pub(super) fn apply<V: Versions>(
    versions: &V,
    live: &Value,
    config: &Value,
    mut managers: Managers,
    id: &Id,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Option<Value>, Managers), ApplyError> {
    let missing = || ApplyError::Schema(format!("no corresponding type for {}", writer.api_version));
    let schema = versions.schema(writer.api_version).ok_or_else(missing)?;
    let merged = merge(schema, live, config);
    let set = writer.filter(field_set(schema, config));
    let own = Owned { fields: Fields::Read(set), api_version: writer.api_version.into() };
    let last = managers.owned.insert(id.clone(), own).map(|last| (last.fields.into_tree(), last.api_version));
    let merged = match last {
        Some((last, version)) if !last.is_empty() => {
            prune(versions, merged, &mut managers, &last, &version, writer).ok_or_else(missing)?
        }
        _ => merged,
    };
    let found = differences(versions, live, &merged, writer).ok_or_else(missing)?;
    let changes = others(versions, live, &merged, &mut managers, Some(id), &found, writer);
    let conflicts: Vec<Conflict> = changes
        .iter()
        .flat_map(|change| {
            let manager = change.id.to_string();
            let paths = change.lost.as_ref().map(Set::paths).unwrap_or_default();
            paths.into_iter().map(move |path| Conflict { manager: manager.clone(), field: shown(&path) })
        })
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    settle(&mut managers, changes);
    if let Some(owned) = managers.owned.get_mut(id) {
        let set = owned.fields.tree();
        *set = std::mem::take(set).difference(unowned());
        if set.is_empty() {
            managers.owned.remove(id);
        }
    }
    Ok(((!same(live, &merged)).then_some(merged), managers))
}

/// Metadata that nobody owns, as a set.
fn unowned() -> &'static Set {
    static SET: OnceLock<Set> = OnceLock::new();
    SET.get_or_init(|| Set::of(UNOWNED))
}

/// What a write does to another manager.
struct Change {
    id: Id,
    /// Fields that were changed or added under it; nothing when its version is gone, and it with it.
    lost: Option<Set>,
    /// Fields that are gone.
    removed: Set,
}

fn differences<V: Versions>(versions: &V, old: &Value, new: &Value, writer: &Writer<'_>) -> Option<Comparison> {
    let schema = versions.schema(writer.api_version)?;
    Some(filtered(compare(schema, old, new), writer))
}

fn filtered(found: Comparison, writer: &Writer<'_>) -> Comparison {
    let Comparison { removed, modified, added, unidentified } = found;
    let filter = |set| writer.filter(set);
    Comparison { removed: filter(removed), modified: filter(modified), added: filter(added), unidentified }
}

/// What the write does to the other managers, each in the version it used.
fn others<V: Versions>(
    versions: &V,
    old: &Value,
    new: &Value,
    managers: &mut Managers,
    writer_id: Option<&Id>,
    found: &Comparison,
    writer: &Writer<'_>,
) -> Vec<Change> {
    let mut compared: BTreeMap<&str, Option<Comparison>> = BTreeMap::new();
    let mut changes = Vec::new();
    for (id, owned) in managers.owned.iter_mut().filter(|(id, _)| Some(*id) != writer_id) {
        let found = if owned.api_version == writer.api_version {
            Some(found)
        } else {
            let in_version = || {
                let version = owned.api_version.as_str();
                let schema = versions.schema(version)?;
                let (old, new) = (versions.convert(old, version)?, versions.convert(new, version)?);
                // Resets are told in the writer's version; the paths of other versions agree where it matters.
                Some(filtered(compare(schema, &old, &new), writer))
            };
            compared.entry(&owned.api_version).or_insert_with(in_version).as_ref()
        };
        let change = match found {
            None => Change { id: id.clone(), lost: None, removed: Set::default() },
            Some(found) => {
                if owned.fields.is_untouched(found) {
                    continue;
                }
                let set = owned.fields.tree();
                let mut lost = set.intersection(&found.modified);
                lost = lost.merge(set.intersection(&found.added));
                if lost.is_empty() && found.removed.is_empty() {
                    continue;
                }
                Change { id: id.clone(), lost: Some(lost), removed: found.removed.clone() }
            }
        };
        changes.push(change);
    }
    changes
}

fn settle(managers: &mut Managers, changes: Vec<Change>) {
    for change in changes {
        let Some(owned) = managers.owned.get_mut(&change.id) else { continue };
        let set = owned.fields.tree();
        *set = match change.lost {
            None => Set::default(),
            Some(lost) => std::mem::take(set).difference(&lost).difference(&change.removed),
        };
    }
    // Who owns nothing is no manager, also when it never owned anything.
    managers.owned.retain(|_, owned| !owned.fields.is_empty());
}

/// Takes out what the manager applied last time (`last`, in `version`) and does not apply now, unless somebody else owns it. `managers`
/// has the new configuration's fields already.
fn prune<V: Versions>(
    versions: &V,
    merged: Value,
    managers: &mut Managers,
    last: &Set,
    version: &str,
    writer: &Writer<'_>,
) -> Option<Value> {
    let (Some(schema), Some(in_last)) = (versions.schema(version), versions.convert(&merged, version)) else {
        return Some(merged);
    };
    let last_set = with_named_fields(schema, last);
    let mut pruned = remove(schema, &in_last, &last_set);

    // What somebody owns stays, version by version; the version of the last configuration comes first, since fields that
    // were taken out may be needed for a conversion.
    let mut owned_in: BTreeMap<&str, Set> = BTreeMap::new();
    for owned in managers.owned.values_mut() {
        let set = owned_in.entry(&owned.api_version).or_default();
        *set = std::mem::take(set).union(owned.fields.tree());
    }
    let mut order: Vec<&str> = owned_in.keys().copied().collect();
    order.sort_by_key(|other| *other != version);
    let mut at_version = version.to_owned();
    let mut whole = in_last.clone();
    for other in order {
        let Some(schema) = versions.schema(other) else { continue };
        if at_version != other {
            let (Some(w), Some(p)) = (versions.convert(&whole, other), versions.convert(&pruned, other)) else { continue };
            (whole, pruned, at_version) = (w, p, other.to_owned());
        }
        let merged_set = with_named_fields(schema, &field_set(schema, &whole));
        let pruned_set = with_named_fields(schema, &field_set(schema, &pruned));
        let owned = with_named_fields(schema, &owned_in[other]);
        pruned = remove(schema, &whole, &merged_set.difference(&pruned_set.union(&owned)));
    }

    // Only what this manager has owned may go.
    let pruned = versions.convert(&pruned, version)?;
    let pruned_set = with_named_fields(schema, &field_set(schema, &pruned));
    let merged_set = with_named_fields(schema, &field_set(schema, &in_last));
    let gone = merged_set.difference(&pruned_set).intersection(&last_set);
    versions.convert(&remove(schema, &in_last, &gone), writer.api_version)
}
