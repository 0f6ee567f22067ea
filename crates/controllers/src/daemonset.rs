//! Keeps one pod of a DaemonSet on every node that it fits.
//!
//! `fit` says on which nodes a pod should run, `plan` what each node needs, with rolling updates within maxUnavailable
//! and maxSurge. The pods are bound by the scheduler: each carries an affinity to its node's name.

mod fit;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use corten_client::{Change, Client, EventType, Expectations, Informer, Key, Queue, Recorder, Requeue};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use crate::batch::slow_start;
use crate::claim::{adopters, claim};
use crate::clock::now;
use crate::context::{Context, synced};
use crate::error::{During, Result, gone_is_fine, is_namespace_terminating, message};
use crate::history::{self, HASH_LABEL};
use crate::meta::{
    BY_CONTROLLER, by_controller, controller_key, controller_of, controller_reference, is_deleting, label, name, reference, uid,
};
use crate::pods;
use crate::selector;

struct DaemonSets {
    client: Client,
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    expectations: Expectations,
    recorder: Recorder,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(DaemonSets {
        client: ctx.client.clone(),
        sets: ctx.informers.of(),
        pods: ctx.informers.of(),
        nodes: ctx.informers.of(),
        revisions: ctx.informers.of(),
        expectations: Expectations::new(),
        recorder: ctx.recorder("daemonset-controller"),
    });
    controller.pods.index(BY_CONTROLLER, by_controller);
    controller.revisions.index(BY_CONTROLLER, by_controller);
    controller.sets.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<DaemonSet>| {
            let key = Key::of(&**change.object());
            if change.is_deleted() {
                controller.expectations.forget(&key);
            }
            queue.add(key);
        }
    });
    controller.pods.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<Pod>| controller.pod_changed(change, &queue)
    });
    controller.nodes.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<Node>| {
            if change.is_deleted() || change.old().is_none_or(|old| fit::is_relevant(old, change.object())) {
                controller.sets.keys().into_iter().for_each(|key| queue.add(key));
            }
        }
    });
    let synced = synced!(controller.sets, controller.pods, controller.nodes, controller.revisions);
    ctx.run("daemonset", 2, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

impl DaemonSets {
    fn pod_changed(&self, change: &Change<Pod>, queue: &Queue) {
        let pod = change.object();
        if let Some(owner) = controller_key(&pod.metadata, "DaemonSet") {
            if change.is_deleted() || is_deleting(&pod.metadata) {
                self.expectations.deletion_observed(&owner, uid(&pod.metadata));
            } else if change.old().is_none() {
                self.expectations.creation_observed(&owner);
            }
            queue.add(owner);
        } else if controller_of(&pod.metadata).is_none() && !change.is_deleted() {
            for key in adopters(&self.sets, &pod.metadata, |set| set.spec.as_ref().map(|spec| &spec.selector)) {
                queue.add(key);
            }
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Requeue::OnChange);
        };
        let Some(spec) = &set.spec else { return Ok(Requeue::OnChange) };
        if selector::is_empty(&spec.selector) {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&reference(&*set), EventType::Warning, "SelectingAll", text);
            return Ok(Requeue::OnChange);
        }
        if is_deleting(&set.metadata) {
            return Ok(Requeue::OnChange);
        }
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let found = history::find(&self.client, &self.revisions, &*set, &spec.selector, &spec.template, collisions).await?;
        if let Some(collisions) = found.collisions {
            let status = DaemonSetStatus { collision_count: Some(collisions), ..set.status.clone().unwrap_or_default() };
            self.write_status(key, &set, status).await?;
            history::check(&found)?;
        }
        let hash = history::hash_of(found.current());
        let all = claim(&self.client, &*set, &spec.selector, &self.pods, |_| true).await?;
        let plan = plan::plan(&set, &self.nodes.list(), &all, &hash, now());
        if self.expectations.satisfied(key) {
            let deletions = plan.delete.iter().map(|doomed| uid(&doomed.pod.metadata).to_owned());
            self.expectations.expect(key, plan.create.len(), deletions);
            let deleted = self.delete(key, &set, &plan.delete).await;
            if deleted.is_err() {
                // Not tried any more in this run, so not to be waited for.
                self.expectations.creations_observed(key, plan.create.len());
            }
            deleted?;
            self.create(key, &set, &plan.create, &hash).await?;
        }
        let in_use: Vec<String> = all.iter().filter_map(|pod| label(&pod.metadata, HASH_LABEL)).map(str::to_owned).collect();
        history::clean_up(&self.client, &found, &in_use, spec.revision_history_limit).await?;
        self.write_status(key, &set, plan.status).await?;
        Ok(plan.again.map_or(Requeue::OnChange, Requeue::After))
    }

    async fn write_status(&self, key: &Key, set: &DaemonSet, status: DaemonSetStatus) -> Result<()> {
        if plan::is_equal(&status, &set.status.clone().unwrap_or_default()) {
            return Ok(());
        }
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &key.namespace);
        let next = DaemonSet { status: Some(status), ..set.clone() };
        gone_is_fine(api.replace_status(&key.name, &PostParams::default(), &next).await)
            .during("update the status of daemon set", key)?;
        Ok(())
    }

    async fn delete(&self, key: &Key, set: &DaemonSet, doomed: &[plan::Doomed]) -> Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let delete = |doomed: &plan::Doomed| {
            let (api, doomed) = (api.clone(), doomed.clone());
            async move {
                let pod = &doomed.pod;
                let place = format!("daemon pod {} on node {}", Key::of(&**pod), pods::node_name(pod));
                if doomed.failed {
                    let text = format!("Found failed {place}, will try to kill it");
                    self.recorder.event(&reference(set), EventType::Warning, "FailedDaemonPod", text);
                } else if pods::phase(pod) == "Succeeded" {
                    let text = format!("Found succeeded {place}, will try to delete it");
                    self.recorder.event(&reference(set), EventType::Normal, "SucceededDaemonPod", text);
                }
                let deleted = gone_is_fine(api.delete(name(&pod.metadata), &DeleteParams::default()).await);
                match &deleted {
                    Ok(Some(_)) => {
                        let text = format!("Deleted pod: {}", name(&pod.metadata));
                        self.recorder.event(&reference(set), EventType::Normal, "SuccessfulDelete", text);
                    }
                    Ok(None) => self.expectations.deletion_observed(key, uid(&pod.metadata)),
                    Err(err) => {
                        self.expectations.deletion_observed(key, uid(&pod.metadata));
                        let text = format!("Error deleting: {}", message(err));
                        self.recorder.event(&reference(set), EventType::Warning, "FailedDelete", text);
                    }
                }
                deleted.map(drop).during("delete pod", name(&pod.metadata))
            }
        };
        join_all(doomed.iter().map(delete)).await.into_iter().collect()
    }

    async fn create(&self, key: &Key, set: &DaemonSet, nodes: &[String], hash: &str) -> Result<()> {
        let Some(spec) = set.spec.as_ref().filter(|_| !nodes.is_empty()) else { return Ok(()) };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut pod = pods::from_template(&spec.template, &key.namespace, &key.name, controller_reference(set));
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(HASH_LABEL.into(), hash.to_owned());
        labels.insert("pod-template-generation".into(), fit::template_generation(set));
        let params = PostParams::default();
        let (created, failure) = slow_start(nodes.len(), |n| {
            let pod = fit::for_node(pod.clone(), &nodes[n]);
            let (api, params) = (&api, &params);
            async move {
                let created = api.create(params, &pod).await?;
                let text = format!("Created pod: {}", name(&created.metadata));
                self.recorder.event(&reference(set), EventType::Normal, "SuccessfulCreate", text);
                Ok::<_, kube::Error>(())
            }
        })
        .await;
        self.expectations.creations_observed(key, nodes.len() - created);
        match failure {
            Some(err) if !is_namespace_terminating(&err) => {
                let text = format!("Error creating: {}", message(&err));
                self.recorder.event(&reference(set), EventType::Warning, "FailedCreate", text);
                Err(err).during("create a pod of daemon set", key)
            }
            _ => Ok(()),
        }
    }
}
