//! Adoption and release: which of the objects that a selector covers belong to a controller
//! (upstream's `ControllerRefManager`).
//!
//! An object is claimed when it matches the selector and nobody manages it, kept when it is already ours and matches,
//! and released when it is ours and matches no more.

use std::sync::Arc;

use corten_client::{Client, Informer, Object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource};
use serde_json::json;

use crate::error::{During, Result, gone_is_fine};
use crate::meta::{BY_CONTROLLER, controller_of, controller_reference, is_deleting, map, name, namespace, orphans_in, uid};
use crate::selector;

/// What to do with one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is ours.
    Keep,
    /// It has no controller and should be ours.
    Adopt,
    /// It is ours and should not be.
    Release,
    /// It is none of our business.
    Ignore,
}

/// Decides about an object with `meta`. `adoptable` is the kind's own condition for adoption (an ended pod is left alone).
pub(crate) fn judge(owner: &ObjectMeta, selector: &LabelSelector, meta: &ObjectMeta, adoptable: bool) -> Claim {
    let matches = selector::selects(selector, map(&meta.labels));
    match controller_of(meta) {
        Some(reference) if reference.uid != uid(owner) => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if is_deleting(owner) || is_deleting(meta) => Claim::Ignore,
        Some(_) => Claim::Release,
        None if !matches || is_deleting(owner) || is_deleting(meta) || !adoptable => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// All objects of `informer` that `owner` manages, after adoption and release.
pub(crate) async fn claim<O, K>(
    client: &Client,
    owner: &O,
    selector: &LabelSelector,
    informer: &Informer<K>,
    adoptable: impl Fn(&K) -> bool,
) -> Result<Vec<Arc<K>>>
where
    O: Object<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Object<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let ns = namespace(owner.meta());
    let api: Api<K> = Api::namespaced(client.clone(), ns);
    let candidates =
        informer.indexed(BY_CONTROLLER, uid(owner.meta())).into_iter().chain(informer.indexed(BY_CONTROLLER, &orphans_in(ns)));
    let mut claimed = Vec::new();
    let mut confirmed = None;
    for object in candidates {
        match judge(owner.meta(), selector, object.meta(), adoptable(&object)) {
            Claim::Keep => claimed.push(object),
            Claim::Ignore => {}
            Claim::Release => {
                let params = PatchParams::default();
                let patch = Patch::Strategic(json!({"metadata": {
                    "uid": uid(object.meta()),
                    "ownerReferences": [{"$patch": "delete", "uid": uid(owner.meta())}],
                }}));
                gone_is_fine(api.patch(name(object.meta()), &params, &patch).await).during("release", name(object.meta()))?;
            }
            Claim::Adopt => {
                let may = match confirmed {
                    Some(may) => may,
                    None => *confirmed.insert(is_still_there(client, owner).await?),
                };
                if may && adopt(&api, &controller_reference(owner), object.meta()).await? {
                    claimed.push(object);
                }
            }
        }
    }
    claimed.sort_by(|a, b| name(a.meta()).cmp(name(b.meta())));
    Ok(claimed)
}

/// The cache may show an owner that is being deleted already; adopting for it would lose the object.
async fn is_still_there<O>(client: &Client, owner: &O) -> Result<bool>
where
    O: Object<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let api: Api<O> = Api::namespaced(client.clone(), namespace(owner.meta()));
    let fresh = api.get_opt(name(owner.meta())).await.during("get", name(owner.meta()))?;
    Ok(fresh.is_some_and(|fresh| fresh.meta().uid == owner.meta().uid && !is_deleting(fresh.meta())))
}

async fn adopt<K: Object<DynamicType = ()>>(api: &Api<K>, owner: &OwnerReference, meta: &ObjectMeta) -> Result<bool> {
    let patch = Patch::Strategic(json!({"metadata": {"uid": uid(meta), "ownerReferences": [owner]}}));
    let adopted = gone_is_fine(api.patch(name(meta), &PatchParams::default(), &patch).await);
    Ok(adopted.during("adopt", name(meta))?.is_some())
}

/// Keys of the objects of kind `O` whose selector covers an object without a controller; they may adopt it.
pub(crate) fn adopters<O>(
    informer: &Informer<O>,
    meta: &ObjectMeta,
    selector_of: impl Fn(&O) -> Option<&LabelSelector>,
) -> Vec<corten_client::Key>
where
    O: Object + Resource,
{
    let covers = |owner: &Arc<O>| {
        selector_of(owner).is_some_and(|selector| !selector::is_empty(selector) && selector::selects(selector, map(&meta.labels)))
    };
    informer.list_in(namespace(meta)).iter().filter(|owner| covers(owner)).map(|owner| corten_client::Key::of(&**owner)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn who_owns_what() {
        let ours = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "us", "controller": true}]);
        let theirs = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "db", "uid": "them", "controller": true}]);
        let gone = json!("2026-01-01T00:00:00Z");
        let none = json!(null);
        //    label  owners   object deleted  owner deleted  expected
        check("web", &ours,   &none,          &none,         Claim::Keep);
        check("web", &ours,   &gone,          &none,         Claim::Keep);
        check("web", &theirs, &none,          &none,         Claim::Ignore);
        check("web", &none,   &none,          &none,         Claim::Adopt);
        check("web", &none,   &gone,          &none,         Claim::Ignore);
        check("web", &none,   &none,          &gone,         Claim::Ignore);
        check("db",  &ours,   &none,          &none,         Claim::Release);
        check("db",  &ours,   &none,          &gone,         Claim::Ignore); // the garbage collector's business
        check("db",  &none,   &none,          &none,         Claim::Ignore);
        #[track_caller]
        fn check(app: &str, owners: &serde_json::Value, deleted: &serde_json::Value, owner_deleted: &serde_json::Value, expected: Claim) {
            let owner = from_value(json!({"name": "web", "uid": "us", "deletionTimestamp": owner_deleted})).unwrap();
            let selector = from_value(json!({"matchLabels": {"app": "web"}})).unwrap();
            let meta = json!({"name": "web-1", "labels": {"app": app}, "ownerReferences": owners, "deletionTimestamp": deleted});
            assert_eq!(judge(&owner, &selector, &from_value(meta).unwrap(), true), expected);
        }
    }
}
