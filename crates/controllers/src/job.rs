//! Runs a Job's pods to completion.
//!
//! Every pod carries a finalizer until it is counted: its UID is first written to `status.uncountedTerminatedPods`,
//! then the finalizer is removed, then it moves to the totals. So no pod is lost or counted twice, whatever deletes it and
//! wherever we crash. `plan` decides about the whole Job, `reconcile` carries it out in that order.

pub(crate) mod indexes;
mod plan;
mod policy;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use corten_client::{Change, Client, EventType, Expectations, Informer, Key, Queue, Recorder, Requeue};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::batch::slow_start;
use crate::claim::claim;
use crate::clock::now;
use crate::context::{Context, synced};
use crate::error::{During, Result, gone_is_fine, is_namespace_terminating, message};
use crate::meta::{
    BY_CONTROLLER, by_controller, controller_key, controller_of, controller_reference, has_finalizer, is_deleting, map, name,
    namespace, reference, uid,
};
use crate::pods;
use crate::selector::selects;
use plan::{Plan, plan};

pub(crate) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const MANAGER: &str = "kubernetes.io/job-controller";

struct Jobs {
    client: Client,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    expectations: Expectations,
    recorder: Recorder,
}

/// When the job ended, for better or worse.
pub(crate) fn finished_at(job: &Job) -> Option<Timestamp> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ended =
        conditions.filter(|condition| matches!(&*condition.type_, "Complete" | "Failed") && condition.status == "True");
    Some(ended.next()?.last_transition_time.as_ref()?.0)
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Jobs {
        client: ctx.client.clone(),
        jobs: ctx.informers.of(),
        pods: ctx.informers.of(),
        expectations: Expectations::new(),
        recorder: ctx.recorder("job-controller"),
    });
    controller.pods.index(BY_CONTROLLER, by_controller);
    controller.jobs.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<Job>| {
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
    let synced = synced!(controller.jobs, controller.pods);
    ctx.run("job", 5, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

impl Jobs {
    fn pod_changed(&self, change: &Change<Pod>, queue: &Queue) {
        let pod = change.object();
        if let Some(owner) = controller_key(&pod.metadata, "Job") {
            if change.is_deleted() || is_deleting(&pod.metadata) {
                self.expectations.deletion_observed(&owner, uid(&pod.metadata));
            } else if change.old().is_none() {
                self.expectations.creation_observed(&owner);
            }
            queue.add(owner);
        } else if controller_of(&pod.metadata).is_none() && !change.is_deleted() {
            let covers = |job: &Arc<Job>| {
                let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                selector.is_some_and(|selector| selects(selector, map(&pod.metadata.labels)))
            };
            for job in self.jobs.list_in(namespace(&pod.metadata)).iter().filter(|job| covers(job)) {
                queue.add(Key::of(&**job));
            }
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(job) = self.jobs.get(key) else {
            self.expectations.forget(key);
            return self.release_pods(key).await;
        };
        let Some(spec) = &job.spec else { return Ok(Requeue::OnChange) };
        if spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGER) {
            return Ok(Requeue::OnChange);
        }
        let may_act = self.expectations.satisfied(key);
        let selector = spec.selector.clone().unwrap_or_default();
        let all = claim(&self.client, &*job, &selector, &self.pods, pods::is_active).await?;
        let plan = plan(&job, &all, may_act, now());
        let mut current = job.clone();
        if job.status.as_ref() != Some(&plan.status) {
            current = match self.write_status(key, &job, plan.status.clone()).await? {
                Some(written) => Arc::new(written),
                None => return Ok(Requeue::OnChange),
            };
            for (kind, reason, text) in &plan.events {
                self.recorder.event(&reference(&*job), *kind, *reason, text.clone());
            }
        }
        // Counted, or about to be counted on the strength of what was just written.
        join_all(plan.release.iter().map(|pod| self.release(pod))).await.into_iter().collect::<Result<Vec<_>>>()?;
        self.delete(key, &current, &plan).await?;
        self.create(key, &current, &plan).await?;
        Ok(plan.again.map_or(Requeue::OnChange, Requeue::After))
    }

    async fn write_status(&self, key: &Key, job: &Job, status: k8s_openapi::api::batch::v1::JobStatus) -> Result<Option<Job>> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        let next = Job { status: Some(status), ..job.clone() };
        gone_is_fine(api.replace_status(&key.name, &PostParams::default(), &next).await).during("update the status of job", key)
    }

    async fn release(&self, pod: &Pod) -> Result<()> {
        let rest: Vec<&String> = pod.metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER).collect();
        let patch =
            json!({"metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "finalizers": rest}});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace(&pod.metadata));
        let patched = api.patch(name(&pod.metadata), &PatchParams::default(), &Patch::Merge(patch)).await;
        gone_is_fine(patched).during("release pod", name(&pod.metadata))?;
        Ok(())
    }

    /// The job is gone: nobody will count its pods.
    async fn release_pods(&self, key: &Key) -> Result<Requeue> {
        for pod in self.pods.list_in(&key.namespace) {
            let ours = controller_key(&pod.metadata, "Job").as_ref() == Some(key);
            if ours && has_finalizer(&pod.metadata, FINALIZER) {
                self.release(&pod).await?;
            }
        }
        Ok(Requeue::OnChange)
    }

    async fn delete(&self, key: &Key, job: &Job, plan: &Plan) -> Result<()> {
        if plan.delete.is_empty() {
            return Ok(());
        }
        self.expectations.expect_deletions(key, plan.delete.iter().map(|pod| uid(&pod.metadata).to_owned()));
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let delete = |pod: &Arc<Pod>| {
            let (api, pod) = (api.clone(), pod.clone());
            async move {
                let deleted = gone_is_fine(api.delete(name(&pod.metadata), &DeleteParams::default()).await);
                match &deleted {
                    Ok(Some(_)) => {
                        let text = format!("Deleted pod: {}", name(&pod.metadata));
                        self.recorder.event(&reference(job), EventType::Normal, "SuccessfulDelete", text);
                    }
                    Ok(None) => self.expectations.deletion_observed(key, uid(&pod.metadata)),
                    Err(err) => {
                        self.expectations.deletion_observed(key, uid(&pod.metadata));
                        let text = format!("Error deleting: {}", message(err));
                        self.recorder.event(&reference(job), EventType::Warning, "FailedDelete", text);
                    }
                }
                deleted.map(drop).during("delete pod", name(&pod.metadata))
            }
        };
        join_all(plan.delete.iter().map(delete)).await.into_iter().collect()
    }

    async fn create(&self, key: &Key, job: &Job, plan: &Plan) -> Result<()> {
        if plan.create.is_empty() {
            return Ok(());
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PostParams::default();
        self.expectations.expect_creations(key, plan.create.len());
        let (created, failure) = slow_start(plan.create.len(), |n| {
            let pod = new_pod(job, plan.create[n]);
            let (api, params) = (&api, &params);
            async move {
                let created = api.create(params, &pod).await?;
                let text = format!("Created pod: {}", name(&created.metadata));
                self.recorder.event(&reference(job), EventType::Normal, "SuccessfulCreate", text);
                Ok::<_, kube::Error>(())
            }
        })
        .await;
        self.expectations.creations_observed(key, plan.create.len() - created);
        match failure {
            Some(err) if !is_namespace_terminating(&err) => {
                let text = format!("Error creating: {}", message(&err));
                self.recorder.event(&reference(job), EventType::Warning, "FailedCreate", text);
                Err(err).during("create a pod of job", key)
            }
            _ => Ok(()),
        }
    }
}

/// A pod of the job, for an index if the job is indexed.
fn new_pod(job: &Job, index: Option<u32>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let job_name = name(&job.metadata);
    let prefix = index.map_or_else(|| job_name.to_owned(), |index| format!("{job_name}-{index}"));
    let mut pod = pods::from_template(&template, namespace(&job.metadata), &prefix, controller_reference(job));
    pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
    let Some(index) = index else { return pod };
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.into(), index.to_string());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(prefix);
        let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..ObjectFieldSelector::default() };
        let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
        let variable = EnvVar { name: "JOB_COMPLETION_INDEX".into(), value_from: Some(source), value: None };
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let env = container.env.get_or_insert_default();
            if !env.iter().any(|known| known.name == variable.name) {
                env.push(variable.clone());
            }
        }
    }
    pod
}
