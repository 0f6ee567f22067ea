//! Keeps the numbered pods of a StatefulSet, each with its own volumes, in order.
//!
//! `identity` makes the pod and the claims of a number, `plan` decides the next steps: under OrderedReady one pod at a
//! time, each after the one before it is available; under Parallel all at once. Updates go from the highest number down to the
//! partition.

pub(crate) mod identity;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use corten_client::{Change, Client, EventType, Informer, Key, Queue, Recorder, Requeue};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::claim::{adopters, claim};
use crate::clock::now;
use crate::context::{Context, synced};
use crate::error::{During, Error, Result, exists_is_fine, gone_is_fine, is_namespace_terminating, message};
use crate::history::{self, HASH_LABEL};
use crate::meta::{BY_CONTROLLER, by_controller, controller_key, controller_of, is_deleting, label, name, namespace, reference};
use crate::selector;
use plan::Step;

struct StatefulSets {
    client: Client,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    revisions: Informer<ControllerRevision>,
    recorder: Recorder,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(StatefulSets {
        client: ctx.client.clone(),
        sets: ctx.informers.of(),
        pods: ctx.informers.of(),
        claims: ctx.informers.of(),
        revisions: ctx.informers.of(),
        recorder: ctx.recorder("statefulset-controller"),
    });
    controller.pods.index(BY_CONTROLLER, by_controller);
    controller.revisions.index(BY_CONTROLLER, by_controller);
    controller.sets.on_change({
        let queue = queue.clone();
        move |change: &Change<StatefulSet>| queue.add(Key::of(&**change.object()))
    });
    controller.pods.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<Pod>| {
            let pod = change.object();
            if let Some(owner) = controller_key(&pod.metadata, "StatefulSet") {
                queue.add(owner);
            } else if controller_of(&pod.metadata).is_none() && !change.is_deleted() {
                for key in adopters(&controller.sets, &pod.metadata, |set| set.spec.as_ref().map(|spec| &spec.selector)) {
                    queue.add(key);
                }
            }
        }
    });
    let synced = synced!(controller.sets, controller.pods, controller.claims, controller.revisions);
    ctx.run("statefulset", 5, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

impl StatefulSets {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(set) = self.sets.get(key) else { return Ok(Requeue::OnChange) };
        let Some(spec) = &set.spec else { return Ok(Requeue::OnChange) };
        if selector::is_empty(&spec.selector) {
            return Ok(Requeue::OnChange);
        }
        let is_member = |pod: &Pod| identity::ordinal(&set, pod).is_some();
        let pods = claim(&self.client, &*set, &spec.selector, &self.pods, is_member).await?;
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let found = history::find(&self.client, &self.revisions, &*set, &spec.selector, &spec.template, collisions).await?;
        if let Some(collisions) = found.collisions {
            let status = StatefulSetStatus { collision_count: Some(collisions), ..set.status.clone().unwrap_or_default() };
            self.write_status(key, &set, status).await?;
            history::check(&found)?;
        }
        let update = found.current();
        // The revision that pods below the partition get: the one that was complete last.
        let wanted = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let current =
            found.all.iter().find(|revision| Some(name(&revision.metadata)) == wanted).map_or(update, |revision| revision);
        let names = plan::Revisions { current: name(&current.metadata).into(), update: name(&update.metadata).into() };
        let plan = plan::plan(&set, &pods, &names, now());
        // The status first: what a step does shows in the next one.
        self.write_status(key, &set, plan.status).await?;
        if !is_deleting(&set.metadata) {
            for step in &plan.steps {
                let revision = |of_update: bool| if of_update { update } else { current };
                self.take(key, &set, step, |of_update| history::template_of(revision(of_update))).await?;
            }
            let in_use: Vec<String> = pods.iter().filter_map(|pod| label(&pod.metadata, HASH_LABEL)).map(str::to_owned).collect();
            // Pods carry the revision's name here, not its hash.
            let hashes: Vec<String> = found
                .all
                .iter()
                .filter(|revision| {
                    in_use.iter().any(|used| used == name(&revision.metadata))
                        || name(&revision.metadata) == name(&current.metadata)
                })
                .map(|revision| history::hash_of(revision))
                .collect();
            history::clean_up(&self.client, &found, &hashes, spec.revision_history_limit).await?;
        }
        Ok(plan.again.map_or(Requeue::OnChange, Requeue::After))
    }

    async fn take(
        &self,
        key: &Key,
        set: &StatefulSet,
        step: &Step,
        template: impl Fn(bool) -> Option<PodTemplateSpec>,
    ) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        match step {
            Step::Create { ordinal, update, revision } => {
                let template = template(*update)
                    .ok_or_else(|| Error::Invalid(format!("controller revision {revision} holds no template")))?;
                let pod = identity::pod(set, &template, *ordinal, revision);
                let pod_name = name(&pod.metadata).to_owned();
                let created = match self.claim_volumes(set, *ordinal).await {
                    Ok(()) => exists_is_fine(api.create(&PostParams::default(), &pod).await).during("create pod", &pod_name),
                    Err(err) => Err(err),
                };
                match created {
                    Ok(Some(_)) => {
                        let text = format!("create Pod {pod_name} in StatefulSet {} successful", key.name);
                        self.recorder.event(&reference(set), EventType::Normal, "SuccessfulCreate", text);
                        Ok(())
                    }
                    Ok(None) => Ok(()),
                    Err(Error::Api { source, .. }) if is_namespace_terminating(&source) => Ok(()),
                    Err(err) => {
                        let cause = if let Error::Api { source, .. } = &err { message(source) } else { err.to_string() };
                        let text = format!("create Pod {pod_name} in StatefulSet {} failed error: {cause}", key.name);
                        self.recorder.event(&reference(set), EventType::Warning, "FailedCreate", text);
                        Err(err)
                    }
                }
            }
            Step::Delete(pod) => {
                let this = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
                let deleted = gone_is_fine(api.delete(name(&pod.metadata), &DeleteParams::default().preconditions(this)).await);
                let what = format!("delete Pod {} in StatefulSet {}", name(&pod.metadata), key.name);
                match &deleted {
                    Ok(Some(_)) => {
                        let text = format!("{what} successful");
                        self.recorder.event(&reference(set), EventType::Normal, "SuccessfulDelete", text);
                    }
                    Ok(None) => {}
                    Err(err) => {
                        let text = format!("{what} failed error: {}", message(err));
                        self.recorder.event(&reference(set), EventType::Warning, "FailedDelete", text);
                    }
                }
                deleted.map(drop).during("delete pod", name(&pod.metadata))
            }
        }
    }

    async fn claim_volumes(&self, set: &StatefulSet, ordinal: u32) -> Result<()> {
        for claim in identity::claims(set, ordinal) {
            let key = Key::of(&claim);
            if let Some(existing) = self.claims.get(&key) {
                if is_deleting(&existing.metadata) {
                    return Err(Error::Invalid(format!("pvc {} is being deleted", key.name)));
                }
                continue;
            }
            let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace(&set.metadata));
            let created = exists_is_fine(api.create(&PostParams::default(), &claim).await);
            if let Err(err) = &created {
                let text = format!(
                    "create Claim {} for Pod {} in StatefulSet {} failed error: {}",
                    key.name,
                    identity::pod_name(set, ordinal),
                    name(&set.metadata),
                    message(err)
                );
                self.recorder.event(&reference(set), EventType::Warning, "FailedCreate", text);
            }
            if created.during("create claim", &key)?.is_some() {
                let text = format!(
                    "create Claim {} Pod {} in StatefulSet {} success",
                    key.name,
                    identity::pod_name(set, ordinal),
                    name(&set.metadata)
                );
                self.recorder.event(&reference(set), EventType::Normal, "SuccessfulCreate", text);
            }
        }
        Ok(())
    }

    async fn write_status(&self, key: &Key, set: &StatefulSet, status: StatefulSetStatus) -> Result<()> {
        if plan::is_equal(&status, &set.status.clone().unwrap_or_default()) {
            return Ok(());
        }
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), &key.namespace);
        let next = StatefulSet { status: Some(status), ..set.clone() };
        gone_is_fine(api.replace_status(&key.name, &PostParams::default(), &next).await)
            .during("update the status of stateful set", key)?;
        Ok(())
    }
}
