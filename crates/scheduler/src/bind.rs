//! Carries out what was decided, beside the scheduling loop: bindings, events, conditions, evictions.
//!
//! Each pod has a task of its own; a semaphore keeps a burst from opening thousands of requests at once.

use std::sync::Arc;
use std::time::Duration;

use corten_client::{Client, Deed, DeedRecorder, EventType, Informer, Key};
use corten_task::Tasks;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use crate::plugins::volumes::{Decision, claim_names, is_bound};
use crate::pod::PodInfo;
use crate::queue::Queued;
use crate::run::Input;

/// Requests in flight.
const MOST: usize = 128;
/// How long volumes may take to be there; upstream's default.
const VOLUMES: Duration = Duration::from_secs(600);

/// Does things to the cluster.
#[derive(Clone)]
pub struct Hands {
    client: Client,
    recorder: DeedRecorder,
    claims: Informer<PersistentVolumeClaim>,
    tasks: Tasks,
    inputs: mpsc::UnboundedSender<Input>,
    permits: Arc<Semaphore>,
}

/// Why a pod could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The API refused the binding.
    #[error("binding rejected: {0}")]
    Binding(#[source] kube::Error),
    /// The API refused a change of a volume or claim.
    #[error("binding volumes: {0}")]
    Volume(#[source] kube::Error),
    /// No volume was bound in time.
    #[error("binding volumes: timed out waiting for the condition")]
    Slow,
}

impl Hands {
    pub fn new(
        client: Client,
        claims: Informer<PersistentVolumeClaim>,
        host: &str,
        tasks: &Tasks,
        inputs: mpsc::UnboundedSender<Input>,
    ) -> Self {
        let recorder = DeedRecorder::new(client.clone(), host, tasks);
        Self { client, recorder, claims, tasks: tasks.clone(), inputs, permits: Arc::new(Semaphore::new(MOST)) }
    }

    /// Binds a pod, and reports to the loop if that fails.
    pub fn bind(&self, queued: Queued, node: Arc<str>, volumes: Vec<Decision>) {
        let this = self.clone();
        self.tasks.spawn("bind", async move {
            let pod = queued.pod.clone();
            match this.try_bind(&pod, &node, &volumes).await {
                Ok(()) => {
                    let message = format!("Successfully assigned {}/{} to {node}", pod.key.namespace, pod.key.name);
                    this.say(&pod, EventType::Normal, ("Scheduled", "Binding"), message);
                }
                Err(error) => {
                    tracing::warn!(pod = %pod.key, %node, %error, "a pod could not be bound");
                    this.say_failed(&pod, "SchedulerError", &error.to_string(), None).await;
                    // Fails only when the loop has ended.
                    let _ = this.inputs.send(Input::BindFailed(queued));
                }
            }
        });
    }

    /// Tells the world that a pod fits nowhere, and makes room for it if that was decided.
    pub fn unschedulable(&self, pod: Arc<PodInfo>, message: String, nomination: Nomination) {
        let this = self.clone();
        self.tasks.spawn("report unschedulable", async move {
            if let Nomination::On { victims, node } = &nomination {
                for victim in victims {
                    this.evict(&pod, victim, node).await;
                }
            }
            this.say_failed(&pod, "Unschedulable", &message, Some(&nomination)).await;
        });
    }

    async fn try_bind(&self, pod: &PodInfo, node: &str, volumes: &[Decision]) -> Result<(), BindError> {
        if !volumes.is_empty() {
            self.prepare_volumes(pod, node, volumes).await?;
        }
        let _permit = self.permits.acquire().await;
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.key.name.to_string()),
                namespace: Some(pod.key.namespace.to_string()),
                uid: Some(pod.uid.to_string()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let result: Result<IgnoredAny, _> =
            self.pods(&pod.key).create_subresource("binding", &pod.key.name, &PostParams::default(), &binding).await;
        result.map(|_| ()).map_err(BindError::Binding)
    }

    /// Hands the chosen volumes to their claims, and waits until the controller has bound them.
    async fn prepare_volumes(&self, pod: &PodInfo, node: &str, decisions: &[Decision]) -> Result<(), BindError> {
        let params = PatchParams::default();
        for decision in decisions {
            match decision {
                Decision::Provision { claim } => {
                    let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &claim.namespace);
                    let patch = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": node}}});
                    api.patch(&claim.name, &params, &Patch::Merge(patch)).await.map_err(BindError::Volume)?;
                }
                Decision::Bind { claim, volume } => {
                    let api: Api<PersistentVolume> = Api::all(self.client.clone());
                    let known = self.claims.get(claim);
                    let reference = json!({
                        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": &*claim.namespace, "name": &*claim.name,
                        "uid": known.as_ref().and_then(|claim| claim.metadata.uid.clone()),
                    });
                    let patch = json!({
                        "metadata": {"annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}},
                        "spec": {"claimRef": reference},
                    });
                    api.patch(volume, &params, &Patch::Merge(patch)).await.map_err(BindError::Volume)?;
                }
            }
        }
        let (changed, mut changes) = tokio::sync::watch::channel(());
        let names: Vec<Key> = claim_names(pod).into_iter().map(|(key, _)| key).collect();
        self.claims.on_change({
            let names = names.clone();
            move |change| {
                if names.contains(&Key::of(&**change.object())) {
                    changed.send_replace(());
                }
            }
        });
        let all_bound = async {
            while !names.iter().all(|key| self.claims.get(key).is_some_and(|claim| is_bound(&claim))) {
                // The sender lives in the informer.
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(VOLUMES, all_bound).await.map_err(|_| BindError::Slow)
    }

    /// Writes the event and, if it is news, the condition.
    async fn say_failed(&self, pod: &PodInfo, reason: &str, message: &str, nomination: Option<&Nomination>) {
        self.say(pod, EventType::Warning, ("FailedScheduling", "Scheduling"), message.to_owned());
        let status = pod.object.status.as_ref();
        let known = status.and_then(|status| status.conditions.iter().flatten().find(|known| known.type_ == "PodScheduled"));
        let nominated = match nomination {
            Some(Nomination::On { node, .. }) if pod.nominated() != Some(node) => Some(json!(&**node)),
            Some(Nomination::Clear) if pod.nominated().is_some() => Some(serde_json::Value::Null),
            _ => None,
        };
        let same = |known: &PodCondition| {
            known.status == "False" && known.reason.as_deref() == Some(reason) && known.message.as_deref() == Some(message)
        };
        if known.is_some_and(same) && nominated.is_none() {
            return;
        }
        // Only a change of the status moves its time.
        let since = known.filter(|known| known.status == "False").and_then(|known| known.last_transition_time.clone());
        let since = since.map_or_else(Timestamp::now, |time| time.0);
        let mut patch = json!({"status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "lastProbeTime": null, "lastTransitionTime": corten_api::time::seconds(since),
            "observedGeneration": pod.object.metadata.generation,
        }]}});
        if let Some(nominated) = nominated {
            patch["status"]["nominatedNodeName"] = nominated;
        }
        self.patch_status(&pod.key, &patch).await;
    }

    fn say(&self, pod: &PodInfo, kind: EventType, (reason, action): (&'static str, &'static str), note: String) {
        self.recorder.event(Deed { kind, ..deed(pod, reason, action, note) });
    }

    async fn evict(&self, preemptor: &PodInfo, victim: &PodInfo, node: &str) {
        let scheduler = preemptor.scheduler();
        let patch = json!({"status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
            "lastProbeTime": null, "lastTransitionTime": corten_api::time::seconds(Timestamp::now()),
            "observedGeneration": victim.object.metadata.generation,
        }]}});
        self.patch_status(&victim.key, &patch).await;
        let exactly = Preconditions { uid: Some(victim.uid.to_string()), resource_version: None };
        let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
        match self.pods(&victim.key).delete(&victim.key.name, &params).await {
            Ok(_) => {
                let message = format!("Preempted by pod {} on node {node}", preemptor.uid);
                let by = Deed { related: Some(preemptor.reference()), ..deed(victim, "Preempted", "Preempting", message) };
                self.recorder.event(Deed { controller: preemptor.scheduler().to_owned(), ..by });
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => tracing::warn!(victim = %victim.key, %error, "a pod could not be preempted"),
        }
    }

    async fn patch_status(&self, key: &Key, patch: &serde_json::Value) {
        let _permit = self.permits.acquire().await;
        match self.pods(key).patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => tracing::warn!(pod = %key, %error, "the status of a pod could not be updated"),
        }
    }

    fn pods(&self, key: &Key) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }
}

/// Something done to a pod by its scheduler.
fn deed(pod: &PodInfo, reason: &'static str, action: &'static str, note: String) -> Deed {
    let controller = pod.scheduler().to_owned();
    Deed { controller, regarding: pod.reference(), related: None, kind: EventType::Normal, reason, action, note }
}

/// What becomes of a pod's claim to a node.
pub enum Nomination {
    /// It stays as it is.
    Keep,
    /// There is none any more.
    Clear,
    /// Room is made there.
    On {
        /// The node.
        node: Arc<str>,
        /// Who has to go.
        victims: Vec<Arc<PodInfo>>,
    },
}
