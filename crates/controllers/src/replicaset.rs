//! Keeps as many pods as a ReplicaSet (or a ReplicationController) asks for.
//!
//! Both kinds are one algorithm: [`Replicas`] is what it has to know of them. `plan` decides how many pods are missing
//! or which are too many; `reconcile` carries it out, guarded by expectations against its own cache's lag.

mod kinds;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use corten_client::{Change, Client, EventType, Expectations, Informer, Key, Object, Queue, Recorder, Requeue};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::core::NamespaceResourceScope;

use crate::batch::slow_start;
use crate::claim::claim;
use crate::clock::now;
use crate::context::{Context, synced};
use crate::error::{During, Result, gone_is_fine, is_namespace_terminating, message};
use crate::meta::{
    BY_CONTROLLER, by_controller, controller_key, controller_of, controller_reference, is_deleting, map, name, namespace,
    reference, uid,
};
use crate::pods::{self, Availability, availability, deletion_order, is_active, is_ready, is_terminating, min_ready};
use crate::selector::has_all;

/// Pods created or deleted in one run at most.
const BURST: usize = 500;

/// A kind that wants a number of equal pods.
pub(crate) trait Replicas: Object<DynamicType = (), Scope = NamespaceResourceScope> + serde::Serialize {
    /// `replicaset-controller`, the source of its events.
    const COMPONENT: &'static str;
    fn replicas(&self) -> i32;
    fn selector(&self) -> Option<LabelSelector>;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn min_ready_seconds(&self) -> Option<i32>;
    fn status(&self) -> Status;
    fn with_status(&self, status: Status) -> Self;
    /// Whether the selector covers pods of nobody with these labels.
    fn covers(&self, pod: &Pod) -> bool;
}

/// The status of both kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Status {
    pub(crate) replicas: i32,
    pub(crate) fully_labeled: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    pub(crate) terminating: Option<i32>,
    pub(crate) observed_generation: Option<i64>,
    /// Reason and message of a `ReplicaFailure` condition that is true.
    pub(crate) failure: Option<(String, String)>,
}

/// What the pods need.
#[derive(Debug, PartialEq)]
pub(crate) enum Plan<'a> {
    /// Their number is right.
    Keep,
    /// So many are missing.
    Create(usize),
    /// These are too many, in the order of deletion.
    Delete(Vec<&'a Arc<Pod>>),
}

/// Decides from the active pods and, for the ranking, all pods of the same service (those of the owner's other sets too).
pub(crate) fn plan<'a>(wanted: usize, active: &[&'a Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Plan<'a> {
    if active.len() < wanted {
        return Plan::Create((wanted - active.len()).min(BURST));
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus == 0 {
        return Plan::Keep;
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *on_node.entry(pods::node_name(pod)).or_default() += 1;
    }
    let rank = |pod: &Pod| on_node.get(pods::node_name(pod)).copied().unwrap_or(0);
    let mut ranked: Vec<&Arc<Pod>> = active.to_vec();
    ranked.sort_by(|a, b| deletion_order((a, rank(a)), (b, rank(b)), now));
    ranked.truncate(surplus);
    Plan::Delete(ranked)
}

/// The counts of `status` from the pods that belong to the set, and when one of them may become available.
pub(crate) fn count<K: Replicas>(set: &K, all: &[Arc<Pod>], now: Timestamp) -> (Status, Option<Duration>) {
    let labels = set.template().and_then(|template| template.metadata.as_ref()).map(|meta| map(&meta.labels));
    let ready_time = min_ready(set.min_ready_seconds());
    let mut status = Status { terminating: Some(0), observed_generation: set.meta().generation, ..Status::default() };
    let mut soonest: Option<Duration> = None;
    for pod in all {
        if is_terminating(pod) {
            status.terminating = status.terminating.map(|count| count + 1);
        }
        if !is_active(pod) {
            continue;
        }
        status.replicas += 1;
        status.fully_labeled += i32::from(labels.is_none_or(|labels| has_all(labels, map(&pod.metadata.labels))));
        status.ready += i32::from(is_ready(pod));
        match availability(pod, ready_time, now) {
            Availability::Available => status.available += 1,
            Availability::In(left) => soonest = Some(soonest.map_or(left, |known| known.min(left))),
            Availability::NotReady => {}
        }
    }
    (status, soonest)
}

struct Sets<K> {
    client: Client,
    sets: Informer<K>,
    pods: Informer<Pod>,
    expectations: Expectations,
    recorder: Recorder,
}

/// Starts the controller of ReplicaSets.
pub(crate) fn start(ctx: &Context) {
    start_kind::<ReplicaSet>(ctx, "replicaset");
}

/// Starts the controller of ReplicationControllers.
pub(crate) fn start_replication_controllers(ctx: &Context) {
    start_kind::<ReplicationController>(ctx, "replicationcontroller");
}

fn start_kind<K: Replicas>(ctx: &Context, name: &'static str) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Sets {
        client: ctx.client.clone(),
        sets: ctx.informers.of::<K>(),
        pods: ctx.informers.of::<Pod>(),
        expectations: Expectations::new(),
        recorder: ctx.recorder(K::COMPONENT),
    });
    controller.sets.index(BY_CONTROLLER, by_controller);
    controller.pods.index(BY_CONTROLLER, by_controller);
    controller.sets.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<K>| {
            let key = Key::of(&**change.object());
            if change.is_deleted() {
                controller.expectations.forget(&key);
            }
            queue.add(key);
        }
    });
    controller.pods.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change| controller.pod_changed(change, &queue)
    });
    let synced = synced!(controller.sets, controller.pods);
    ctx.run(name, 5, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

impl<K: Replicas> Sets<K> {
    fn pod_changed(&self, change: &Change<Pod>, queue: &Queue) {
        let pod = change.object();
        let kind = K::kind(&());
        let owner = controller_key(&pod.metadata, &kind);
        if let Some(owner) = &owner {
            if change.is_deleted() || is_deleting(&pod.metadata) {
                self.expectations.deletion_observed(owner, uid(&pod.metadata));
            } else if change.old().is_none() {
                self.expectations.creation_observed(owner);
            }
            queue.add(owner.clone());
        }
        // A pod that changed hands concerns the one who lost it, too.
        if let Some(before) =
            change.old().and_then(|old| controller_key(&old.metadata, &kind)).filter(|before| Some(before) != owner.as_ref())
        {
            queue.add(before);
        }
        if controller_of(&pod.metadata).is_none() && !change.is_deleted() && !is_deleting(&pod.metadata) {
            for set in self.sets.list_in(namespace(&pod.metadata)).iter().filter(|set| set.covers(pod)) {
                queue.add(Key::of(&**set));
            }
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Requeue::OnChange);
        };
        let may_act = self.expectations.satisfied(key);
        let Some(selector) = set.selector() else { return Ok(Requeue::OnChange) };
        let all = claim(&self.client, &*set, &selector, &self.pods, is_active).await?;
        let failure = if may_act && !is_deleting(set.meta()) { self.manage(key, &set, &all).await } else { Ok(()) };
        let (mut status, soonest) = count(&*set, &all, now());
        // The condition stays as it was when this run did not try anything.
        status.failure = match &failure {
            Err((reason, err)) => Some(((*reason).to_owned(), message(err))),
            Ok(()) if !may_act => set.status().failure,
            Ok(()) => None,
        };
        let next = set.with_status(status);
        if next.status() != set.status() {
            let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
            let updated = api.replace_status(&key.name, &PostParams::default(), &next).await;
            gone_is_fine(updated).during("update the status of", key)?;
        }
        if let Err((_, err)) = failure {
            return Err(err).during("manage the pods of", key);
        }
        Ok(soonest.map_or(Requeue::OnChange, Requeue::After))
    }

    async fn manage(&self, key: &Key, set: &K, all: &[Arc<Pod>]) -> std::result::Result<(), (&'static str, kube::Error)> {
        let active: Vec<&Arc<Pod>> = all.iter().filter(|pod| is_active(pod)).collect();
        let wanted = usize::try_from(set.replicas()).unwrap_or(0);
        match plan(wanted, &active, &self.related(set, all), now()) {
            Plan::Keep => Ok(()),
            Plan::Create(count) => self.create(key, set, count).await.map_err(|err| ("FailedCreate", err)),
            Plan::Delete(surplus) => self.delete(key, set, &surplus).await.map_err(|err| ("FailedDelete", err)),
        }
    }

    async fn create(&self, key: &Key, set: &K, count: usize) -> kube::Result<()> {
        let Some(template) = set.template() else { return Ok(()) };
        let pod = pods::from_template(template, &key.namespace, &key.name, controller_reference(set));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PostParams::default();
        self.expectations.expect_creations(key, count);
        let (created, failure) = slow_start(count, |_| async {
            let created = api.create(&params, &pod).await?;
            let text = format!("Created pod: {}", name(&created.metadata));
            self.recorder.event(&reference(set), EventType::Normal, "SuccessfulCreate", text);
            Ok::<_, kube::Error>(())
        })
        .await;
        // What was not created will not be seen.
        self.expectations.creations_observed(key, count - created);
        match failure {
            None => Ok(()),
            Some(err) if is_namespace_terminating(&err) => Ok(()),
            Some(err) => {
                self.recorder.event(
                    &reference(set),
                    EventType::Warning,
                    "FailedCreate",
                    format!("Error creating: {}", message(&err)),
                );
                Err(err)
            }
        }
    }

    async fn delete(&self, key: &Key, set: &K, surplus: &[&Arc<Pod>]) -> kube::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        self.expectations.expect_deletions(key, surplus.iter().map(|pod| uid(&pod.metadata).to_owned()));
        let delete = |pod: &Arc<Pod>| {
            let (api, pod) = (api.clone(), pod.clone());
            async move {
                let deleted = api.delete(name(&pod.metadata), &DeleteParams::default()).await;
                match deleted {
                    Ok(_) => {
                        let text = format!("Deleted pod: {}", name(&pod.metadata));
                        self.recorder.event(&reference(set), EventType::Normal, "SuccessfulDelete", text);
                        Ok(())
                    }
                    Err(err) => {
                        // The deletion will not be seen, or has been seen already.
                        self.expectations.deletion_observed(key, uid(&pod.metadata));
                        if matches!(&err, kube::Error::Api(status) if status.is_not_found()) {
                            return Ok(());
                        }
                        let text = format!("Error deleting: {}", message(&err));
                        self.recorder.event(&reference(set), EventType::Warning, "FailedDelete", text);
                        Err(err)
                    }
                }
            }
        };
        join_all(surplus.iter().map(|pod| delete(pod))).await.into_iter().collect()
    }

    /// The pods of all sets that share this one's owner: a Deployment's pods are one service.
    fn related(&self, set: &K, own: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(set.meta()) else { return own.to_vec() };
        let siblings = self.sets.indexed(BY_CONTROLLER, &owner.uid);
        siblings.iter().flat_map(|sibling| self.pods.indexed(BY_CONTROLLER, uid(sibling.meta()))).collect()
    }
}
