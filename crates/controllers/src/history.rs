//! ControllerRevisions: the templates that a StatefulSet or a DaemonSet had, so that pods can be told apart by template and
//! `kubectl rollout undo` has something to go back to.

use std::sync::Arc;

use corten_client::{Client, Informer, Object};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::core::NamespaceResourceScope;
use serde_json::{Value, json};

use crate::claim::claim;
use crate::error::{During, Error, Result, gone_is_fine};
use crate::hash::short_hash;
use crate::meta::{controller_of, controller_reference, map, name, namespace, uid};

/// The label that tells which revision a pod is of.
pub(crate) const HASH_LABEL: &str = "controller-revision-hash";

/// The revision of the current template.
#[derive(Debug)]
pub(crate) struct Found {
    /// All revisions of the owner, oldest first, the current one last.
    pub(crate) all: Vec<Arc<ControllerRevision>>,
    /// How often a name was taken by something else, if that was now.
    pub(crate) collisions: Option<i32>,
}

impl Found {
    pub(crate) fn current(&self) -> &ControllerRevision {
        self.all.last().expect("the current revision was found or made")
    }
}

/// What is kept of a template: a patch that puts it back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// Finds or makes the revision of `template`. A template that was there before gets the newest number again.
pub(crate) async fn find<O>(
    client: &Client,
    revisions: &Informer<ControllerRevision>,
    owner: &O,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
) -> Result<Found>
where
    O: Object<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let mut all = claim(client, owner, selector, revisions, |_| true).await?;
    all.sort_by_key(|revision| (revision.revision, revision.metadata.creation_timestamp.clone()));
    let wanted = data(template);
    let next = all.last().map_or(0, |revision| revision.revision) + 1;
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), namespace(owner.meta()));
    if let Some(at) = all.iter().rposition(|revision| revision.data.as_ref().is_some_and(|data| data.0 == wanted)) {
        let mut found = all.remove(at);
        if at != all.len() {
            let newest = ControllerRevision { revision: next, ..ControllerRevision::clone(&found) };
            let written = api.replace(name(&found.metadata), &PostParams::default(), &newest).await;
            found = Arc::new(written.during("renumber controller revision", name(&found.metadata))?);
        }
        all.push(found);
        return Ok(Found { all, collisions: None });
    }
    let hash = short_hash(&wanted, collisions);
    let mut labels = map(&template.metadata.as_ref().and_then(|meta| meta.labels.clone())).clone();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name(owner.meta()))),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        revision: next,
        data: Some(k8s_openapi::apimachinery::pkg::runtime::RawExtension(wanted.clone())),
    };
    let revision_name = name(&revision.metadata).to_owned();
    let made = match api.create(&PostParams::default(), &revision).await {
        Ok(made) => made,
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let existing = api.get(&revision_name).await.during("get controller revision", &revision_name)?;
            let ours = controller_of(&existing.metadata).is_some_and(|reference| reference.uid == uid(owner.meta()));
            if !ours || existing.data.as_ref().is_none_or(|data| data.0 != wanted) {
                return Ok(Found { all, collisions: Some(collisions.unwrap_or(0) + 1) });
            }
            existing
        }
        Err(err) => return Err(err).during("create controller revision", &revision_name),
    };
    all.push(Arc::new(made));
    Ok(Found { all, collisions: None })
}

/// Whether a name was taken, in which case there is no current revision yet.
pub(crate) fn check(found: &Found) -> Result<()> {
    match found.collisions {
        Some(_) => Err(Error::Invalid("the name of the controller revision is taken".into())),
        None => Ok(()),
    }
}

/// The hash that pods of `revision` carry.
pub(crate) fn hash_of(revision: &ControllerRevision) -> String {
    map(&revision.metadata.labels).get(HASH_LABEL).cloned().unwrap_or_default()
}

/// The template that `revision` keeps.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Deletes the oldest revisions beyond `limit` that no pod is of.
pub(crate) async fn clean_up(client: &Client, found: &Found, in_use: &[String], limit: Option<i32>) -> Result<()> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(10);
    let current = found.current();
    let unused: Vec<_> = found
        .all
        .iter()
        .filter(|revision| name(&revision.metadata) != name(&current.metadata) && !in_use.contains(&hash_of(revision)))
        .collect();
    for revision in unused.iter().take(unused.len().saturating_sub(limit)) {
        let api: Api<ControllerRevision> = Api::namespaced(client.clone(), namespace(&revision.metadata));
        let deleted = api.delete(name(&revision.metadata), &DeleteParams::default()).await;
        gone_is_fine(deleted).during("delete controller revision", name(&revision.metadata))?;
    }
    Ok(())
}
