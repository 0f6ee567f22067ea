//! Managed fields of the `scale` subresource: `spec.replicas` of a Scale is a field of its parent under another path, so
//! ownership is carried over on the way in and out.

use serde_json::Value;

use super::managers::{Managers, Owned};
use super::set::{Element, Set};
use super::text::Fields;

const SCALE: &str = "autoscaling/v1";
const REPLICAS: &[&str] = &["spec", "replicas"];

/// The managed fields of a Scale, from those of its parent. `path` is where the parent's replicas are.
#[must_use]
pub fn scale_from_parent(parent: &[Value], path: &[&str]) -> Vec<Value> {
    let mut managers = Managers::read(parent).unwrap_or_default();
    let path = elements(path);
    let mut out = Managers::default();
    for (id, owned) in &mut managers.owned {
        if !owned.fields.tree().has(&path) {
            continue;
        }
        out.owned.insert(id.clone(), Owned { fields: Fields::Read(Set::of(&[REPLICAS])), api_version: SCALE.into() });
        if let Some(time) = managers.times.get(id) {
            out.times.insert(id.clone(), *time);
        }
    }
    out.write()
}

/// The managed fields of the parent, from those it had and those of the Scale that was written. `api_version` is the
/// parent's.
#[must_use]
pub fn scale_to_parent(parent: &[Value], scale: &[Value], api_version: &str, path: &[&str]) -> Vec<Value> {
    let before = Managers::read(parent).unwrap_or_default();
    let mut scale = Managers::read(scale).unwrap_or_default();
    let steps = elements(path);
    let mut out = Managers { times: before.times.clone(), ..Managers::default() };
    for (id, mut owned) in before.owned {
        let set = owned.fields.tree();
        if set.has(&steps) && scale.owned.remove(&id).is_none() {
            *set = std::mem::take(set).difference(&Set::of(&[path]));
        }
        if !set.is_empty() {
            out.owned.insert(id, owned);
        }
    }
    for (id, mut owned) in scale.owned {
        if !owned.fields.tree().has(&elements(REPLICAS)) {
            continue;
        }
        // An updater is another one in the version of the Scale, so upstream finds no time for it, and it may come twice.
        out.owned.insert(id, Owned { fields: Fields::Read(Set::of(&[path])), api_version: api_version.into() });
    }
    out.write()
}

fn elements(path: &[&str]) -> Vec<Element> {
    path.iter().map(|name| Element::Field((*name).into())).collect()
}
