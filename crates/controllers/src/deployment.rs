//! Rolls a Deployment's template out: one ReplicaSet per template, sized so that enough pods are available on the way.
//!
//! `rollout` says how large each set should be, `revision` which set is the new one and what is written on it, `status`
//! how it comes along. `reconcile` reads the caches, makes the next step, and writes the status. Every write
//! carries the revision it was decided on, so a step taken on a stale cache is refused and taken again.

pub(crate) mod revision;
pub(crate) mod rollout;
pub(crate) mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use corten_client::{Change, Client, EventType, Informer, Key, Queue, Recorder, Requeue};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use crate::claim::{adopters, claim};
use crate::clock::now;
use crate::context::{Context, synced};
use crate::error::{During, Error, Result, gone_is_fine, is_namespace_terminating, message};
use crate::meta::{
    BY_CONTROLLER, annotation, by_controller, controller_key, controller_of, is_deleting, name, reference, set_annotation, uid,
};
use crate::pods::is_terminal;
use crate::selector;
use rollout::{Set, Wanted, replicas};

struct Deployments {
    client: Client,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: Recorder,
}

/// A Deployment with its sets.
struct Rollout {
    deployment: Arc<Deployment>,
    new: Option<Arc<ReplicaSet>>,
    old: Vec<Arc<ReplicaSet>>,
    wanted: Wanted,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Deployments {
        client: ctx.client.clone(),
        deployments: ctx.informers.of(),
        sets: ctx.informers.of(),
        pods: ctx.informers.of(),
        recorder: ctx.recorder("deployment-controller"),
    });
    controller.sets.index(BY_CONTROLLER, by_controller);
    controller.pods.index(BY_CONTROLLER, by_controller);
    controller.deployments.on_change({
        let queue = queue.clone();
        move |change: &Change<Deployment>| queue.add(Key::of(&**change.object()))
    });
    controller.sets.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<ReplicaSet>| controller.set_changed(change, &queue)
    });
    controller.pods.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<Pod>| controller.pod_changed(change, &queue)
    });
    let synced = synced!(controller.deployments, controller.sets, controller.pods);
    ctx.run("deployment", 5, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

impl Deployments {
    fn set_changed(&self, change: &Change<ReplicaSet>, queue: &Queue) {
        let set = change.object();
        let owner = controller_key(&set.metadata, "Deployment");
        let before = change.old().and_then(|old| controller_key(&old.metadata, "Deployment"));
        for key in owner.iter().chain(before.iter().filter(|before| Some(*before) != owner.as_ref())) {
            queue.add(key.clone());
        }
        if controller_of(&set.metadata).is_none() && !change.is_deleted() {
            for key in
                adopters(&self.deployments, &set.metadata, |deployment| deployment.spec.as_ref().map(|spec| &spec.selector))
            {
                queue.add(key);
            }
        }
    }

    /// Only a Recreate waits for pods: the new ones come when the last old one is gone.
    fn pod_changed(&self, change: &Change<Pod>, queue: &Queue) {
        let pod = change.object();
        if !change.is_deleted() && !is_terminal(pod) {
            return;
        }
        let Some(set) = controller_key(&pod.metadata, "ReplicaSet").and_then(|key| self.sets.get(&key)) else { return };
        let Some(owner) = controller_key(&set.metadata, "Deployment") else { return };
        if self.deployments.get(&owner).is_some_and(|deployment| !Wanted::of(&deployment).rolling) {
            queue.add(owner);
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(Requeue::OnChange) };
        let Some(spec) = &deployment.spec else { return Ok(Requeue::OnChange) };
        if selector::is_empty(&spec.selector) {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&reference(&*deployment), EventType::Warning, "SelectingAll", text);
            return Ok(Requeue::OnChange);
        }
        let sets = claim(&self.client, &*deployment, &spec.selector, &self.sets, |_| true).await?;
        let new = revision::find_new(&deployment, &sets);
        let old =
            sets.iter().filter(|set| new.as_ref().is_none_or(|new| uid(&set.metadata) != uid(&new.metadata))).cloned().collect();
        let mut rollout = Rollout { wanted: Wanted::of(&deployment), deployment: deployment.clone(), new, old };
        if is_deleting(&deployment.metadata) {
            return self.write_status(&rollout, status::count(&deployment, &rollout.all(), rollout.new.as_deref(), now())).await;
        }
        if let Some(status) = pause_status(&deployment) {
            return self.write_status(&rollout, status).await;
        }
        let paused = spec.paused == Some(true);
        if rollout.new.is_some() {
            self.note_revision(&mut rollout).await?;
        }
        if paused || rollout.is_scaled() {
            self.scale(&mut rollout).await?;
            if paused {
                self.clean_up(&rollout).await?;
            }
            return self.write_status(&rollout, status::count(&deployment, &rollout.all(), rollout.new.as_deref(), now())).await;
        }
        if rollout.wanted.rolling {
            self.roll(&mut rollout).await?
        } else {
            self.recreate(&mut rollout).await?
        }
        let status = status::rollout(&rollout.deployment, &rollout.all(), rollout.new.as_deref(), now());
        if status::is_complete(&rollout.deployment, &status) {
            self.clean_up(&rollout).await?;
        }
        self.write_status(&rollout, status).await
    }

    async fn roll(&self, rollout: &mut Rollout) -> Result<()> {
        let new = match rollout.new.clone() {
            Some(new) => new,
            None => match self.create(rollout).await? {
                Some(new) => new,
                None => return Ok(()),
            },
        };
        let size = rollout::new_size(&rollout.wanted, replicas(&new), rollout.total());
        if size != replicas(&new) {
            rollout.new = Some(self.resize(rollout, &new, size).await?);
            return Ok(());
        }
        let old: Vec<Set> = rollout.old.iter().map(|set| Set::of(set)).collect();
        let sizes = rollout::old_sizes(&rollout.wanted, &Set::of(&new), &old);
        self.resize_old(rollout, &sizes).await
    }

    async fn recreate(&self, rollout: &mut Rollout) -> Result<()> {
        if rollout.old.iter().any(|set| replicas(set) > 0) {
            let none = vec![0; rollout.old.len()];
            return self.resize_old(rollout, &none).await;
        }
        if self.has_old_pods(rollout) {
            return Ok(());
        }
        let new = match rollout.new.clone() {
            Some(new) => new,
            None => match self.create(rollout).await? {
                Some(new) => new,
                None => return Ok(()),
            },
        };
        if replicas(&new) != rollout.wanted.replicas {
            rollout.new = Some(self.resize(rollout, &new, rollout.wanted.replicas).await?);
        }
        Ok(())
    }

    fn has_old_pods(&self, rollout: &Rollout) -> bool {
        rollout.old.iter().any(|set| {
            set.status.as_ref().is_some_and(|status| status.replicas > 0)
                || self.pods.indexed(BY_CONTROLLER, uid(&set.metadata)).iter().any(|pod| !is_terminal(pod))
        })
    }

    async fn scale(&self, rollout: &mut Rollout) -> Result<()> {
        let wanted = rollout.wanted;
        let mut all = rollout.all();
        let active: Vec<usize> = (0..all.len()).filter(|&n| replicas(&all[n]) > 0).collect();
        let mut sizes: Vec<i32> = all.iter().map(|set| replicas(set)).collect();
        if let [only] = active[..] {
            sizes[only] = wanted.replicas;
        } else if active.is_empty() {
            // The new set, or the youngest there is.
            let newest = (0..all.len()).max_by_key(|&n| all[n].metadata.creation_timestamp.clone());
            let Some(latest) = rollout.new.as_ref().map(|_| all.len() - 1).or(newest) else { return Ok(()) };
            sizes[latest] = wanted.replicas;
        } else if rollout.is_saturated() {
            active.iter().filter(|&&n| n + 1 != all.len()).for_each(|&n| sizes[n] = 0);
        } else if wanted.rolling {
            let sets: Vec<Set> = active.iter().map(|&n| Set::of(&all[n])).collect();
            let status_replicas = rollout.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
            for (&n, size) in active.iter().zip(rollout::proportional_sizes(&wanted, &sets, status_replicas)) {
                sizes[n] = size;
            }
        }
        for &n in &active {
            all[n] = self.resize(rollout, &all[n].clone(), sizes[n]).await?;
        }
        for n in (0..all.len()).filter(|n| !active.contains(n)) {
            if sizes[n] != replicas(&all[n]) {
                all[n] = self.resize(rollout, &all[n].clone(), sizes[n]).await?;
            }
        }
        if rollout.new.is_some() {
            rollout.new = all.pop();
        }
        rollout.old = all;
        Ok(())
    }

    async fn resize_old(&self, rollout: &mut Rollout, sizes: &[i32]) -> Result<()> {
        for (n, &size) in sizes.iter().enumerate() {
            if size != replicas(&rollout.old[n]) {
                rollout.old[n] = self.resize(rollout, &rollout.old[n].clone(), size).await?;
            }
        }
        Ok(())
    }

    /// Gives `set` its size, and writes the Deployment's size on it.
    async fn resize(&self, rollout: &Rollout, set: &Arc<ReplicaSet>, size: i32) -> Result<Arc<ReplicaSet>> {
        let mut next = ReplicaSet::clone(set);
        let annotated = revision::annotate_size(&mut next.metadata, &rollout.wanted);
        let before = replicas(set);
        if !annotated && before == size {
            return Ok(set.clone());
        }
        next.spec.get_or_insert_default().replicas = Some(size);
        let written = self.sets_of(rollout).replace(name(&set.metadata), &PostParams::default(), &next).await;
        let written = written.during("scale replica set", name(&set.metadata))?;
        if before != size {
            let direction = if before < size { "up" } else { "down" };
            let text = format!("Scaled {direction} replica set {} from {before} to {size}", name(&set.metadata));
            self.recorder.event(&reference(&*rollout.deployment), EventType::Normal, "ScalingReplicaSet", text);
        }
        Ok(Arc::new(written))
    }

    /// Creates the set for the current template, at the size it may have at once. None when the Deployment's
    /// namespace is going away.
    async fn create(&self, rollout: &mut Rollout) -> Result<Option<Arc<ReplicaSet>>> {
        let deployment = rollout.deployment.clone();
        let next_revision = revision::next_revision(&rollout.old);
        let mut set = revision::new_set(&deployment, next_revision, &rollout.wanted);
        let set_name = name(&set.metadata).to_owned();
        let size = rollout::new_size(&rollout.wanted, 0, rollout.total());
        set.spec.get_or_insert_default().replicas = Some(size);
        let api = self.sets_of(rollout);
        let created = match api.create(&PostParams::default(), &set).await {
            Ok(created) => created,
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let existing = api.get(&set_name).await.during("get replica set", &set_name)?;
                let ours = controller_of(&existing.metadata).is_some_and(|owner| owner.uid == uid(&deployment.metadata));
                let template = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
                if !ours || !revision::is_same(&template(&existing), &template(&set)) {
                    let mut status = deployment.status.clone().unwrap_or_default();
                    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                    self.write_status(rollout, status).await?;
                    return Err(Error::Invalid(format!("the name {set_name} is taken by another replica set")));
                }
                existing
            }
            Err(err) if is_namespace_terminating(&err) => return Ok(None),
            Err(err) => {
                let text = format!("Failed to create new replica set {set_name:?}: {}", message(&err));
                self.recorder.event(&reference(&*deployment), EventType::Warning, "ReplicaSetCreateError", text.clone());
                if status::deadline(&deployment).is_some() {
                    let mut status = deployment.status.clone().unwrap_or_default();
                    status::set(
                        &mut status,
                        status::condition(status::PROGRESSING, "False", "ReplicaSetCreateError", text, now()),
                    );
                    self.write_status(rollout, status).await?;
                }
                return Err(err).during("create replica set", &set_name);
            }
        };
        if size > 0 {
            let text = format!("Scaled up replica set {set_name} from 0 to {size}");
            self.recorder.event(&reference(&*deployment), EventType::Normal, "ScalingReplicaSet", text);
        }
        let created = Arc::new(created);
        rollout.new = Some(created.clone());
        self.note_on_deployment(rollout, &next_revision.to_string()).await?;
        if status::deadline(&deployment).is_some() {
            let text = format!("Created new replica set {set_name:?}");
            let mut status = rollout.deployment.status.clone().unwrap_or_default();
            status::set(&mut status, status::condition(status::PROGRESSING, "True", "NewReplicaSetCreated", text, now()));
            self.store_status(rollout, status).await?;
        }
        Ok(Some(created))
    }

    /// Brings the annotations of an existing new set, and the revision on the Deployment, up to date.
    async fn note_revision(&self, rollout: &mut Rollout) -> Result<()> {
        let Some(new) = rollout.new.clone() else { return Ok(()) };
        let deployment = rollout.deployment.clone();
        let mut next = ReplicaSet::clone(&new);
        let annotated = revision::annotate(&deployment, &mut next.metadata, revision::next_revision(&rollout.old));
        let spec = next.spec.get_or_insert_default();
        let min_ready = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let ready_changed = spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0);
        spec.min_ready_seconds = min_ready;
        if annotated || ready_changed {
            let written = self.sets_of(rollout).replace(name(&new.metadata), &PostParams::default(), &next).await;
            rollout.new = Some(Arc::new(written.during("update replica set", name(&new.metadata))?));
        }
        let revision =
            rollout.new.as_ref().and_then(|new| annotation(&new.metadata, revision::REVISION)).unwrap_or_default().to_owned();
        self.note_on_deployment(rollout, &revision).await?;
        let status = rollout.deployment.status.clone().unwrap_or_default();
        if status::deadline(&deployment).is_some() && status::find(&status, status::PROGRESSING).is_none() {
            let mut status = status;
            let text = format!("Found new replica set {:?}", name(&new.metadata));
            status::set(&mut status, status::condition(status::PROGRESSING, "True", "FoundNewReplicaSet", text, now()));
            self.store_status(rollout, status).await?;
        }
        Ok(())
    }

    async fn note_on_deployment(&self, rollout: &mut Rollout, revision: &str) -> Result<()> {
        let meta = &rollout.deployment.metadata;
        if annotation(meta, revision::REVISION) == Some(revision) {
            return Ok(());
        }
        let mut next = Deployment::clone(&rollout.deployment);
        set_annotation(&mut next.metadata, revision::REVISION, revision);
        let written = self.deployments_of(rollout).replace(name(&next.metadata), &PostParams::default(), &next).await;
        rollout.deployment = Arc::new(written.during("set the revision of deployment", name(&next.metadata))?);
        Ok(())
    }

    async fn clean_up(&self, rollout: &Rollout) -> Result<()> {
        for set in revision::expired(&rollout.deployment, &rollout.old) {
            let this = Preconditions { uid: set.metadata.uid.clone(), resource_version: set.metadata.resource_version.clone() };
            let params = DeleteParams::background().preconditions(this);
            let deleted = self.sets_of(rollout).delete(name(&set.metadata), &params).await;
            gone_is_fine(deleted).during("delete old replica set", name(&set.metadata))?;
        }
        Ok(())
    }

    async fn write_status(&self, rollout: &Rollout, status: DeploymentStatus) -> Result<Requeue> {
        let next_check = status::next_check(&rollout.deployment, &status, now());
        if !status::is_equal(&status, &rollout.deployment.status.clone().unwrap_or_default()) {
            let next = Deployment { status: Some(status), ..Deployment::clone(&rollout.deployment) };
            let written = self.deployments_of(rollout).replace_status(name(&next.metadata), &PostParams::default(), &next).await;
            gone_is_fine(written).during("update the status of deployment", name(&next.metadata))?;
        }
        Ok(next_check.map_or(Requeue::OnChange, Requeue::After))
    }

    /// Writes a status in the middle of a run, which goes on with what the server made of it.
    async fn store_status(&self, rollout: &mut Rollout, status: DeploymentStatus) -> Result<()> {
        let next = Deployment { status: Some(status), ..Deployment::clone(&rollout.deployment) };
        let written = self.deployments_of(rollout).replace_status(name(&next.metadata), &PostParams::default(), &next).await;
        rollout.deployment = Arc::new(written.during("update the status of deployment", name(&next.metadata))?);
        Ok(())
    }

    fn sets_of(&self, rollout: &Rollout) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), crate::meta::namespace(&rollout.deployment.metadata))
    }

    fn deployments_of(&self, rollout: &Rollout) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), crate::meta::namespace(&rollout.deployment.metadata))
    }
}

impl Rollout {
    /// All sets; the new one, if there is one, is last.
    fn all(&self) -> Vec<Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new).cloned().collect()
    }

    fn total(&self) -> i32 {
        self.all().iter().map(|set| replicas(set)).sum()
    }

    /// Whether the Deployment's size has changed since its sets were last sized.
    fn is_scaled(&self) -> bool {
        let desired =
            |set: &ReplicaSet| annotation(&set.metadata, revision::DESIRED_REPLICAS).and_then(|count| count.parse::<i32>().ok());
        self.all()
            .iter()
            .filter(|set| replicas(set) > 0)
            .any(|set| desired(set).is_some_and(|desired| desired != self.wanted.replicas))
    }

    /// Whether the new set has all the pods that are asked for, and they are available.
    fn is_saturated(&self) -> bool {
        self.new.as_ref().is_some_and(|new| {
            let wanted = self.wanted.replicas;
            let desired = annotation(&new.metadata, revision::DESIRED_REPLICAS).and_then(|count| count.parse::<i32>().ok());
            replicas(new) == wanted && desired == Some(wanted) && Set::of(new).available == wanted
        })
    }
}

/// The status that says that the Deployment was just paused or resumed, if it was.
fn pause_status(deployment: &Deployment) -> Option<DeploymentStatus> {
    status::deadline(deployment)?;
    let mut status = deployment.status.clone().unwrap_or_default();
    let reason = status::find(&status, status::PROGRESSING).and_then(|progress| progress.reason.clone());
    let (noted, paused) = (reason.as_deref() == Some(status::PAUSED), deployment.spec.as_ref()?.paused == Some(true));
    if reason.as_deref() == Some(status::TIMED_OUT) || noted == paused {
        return None;
    }
    let (reason, text) =
        if paused { (status::PAUSED, "Deployment is paused") } else { ("DeploymentResumed", "Deployment is resumed") };
    status::set(&mut status, status::condition(status::PROGRESSING, "Unknown", reason, text.into(), now()));
    Some(status)
}
