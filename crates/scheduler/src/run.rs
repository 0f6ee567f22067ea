//! The scheduling task: it takes in what happens, tries one pod after the other, and sends decisions out.

use std::collections::BTreeSet;
use std::sync::Arc;

use corten_client::{Change, Client, EventType, Informer, Informers, Key, Recorder};
use corten_task::Tasks;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod, PodCondition};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::Config;
use crate::cache::Cache;
use crate::cycle::{Diagnosis, Outcome, World, schedule};
use crate::diagnosis;
use crate::events::Event;
use crate::pod::PodView;
use crate::preemption::{Preemption, preempt};
use crate::queue::Queue;
use crate::selector::Labels;
use crate::volumes::Volumes;

/// A running scheduler. Its task belongs to the owner it was started with.
#[derive(Debug)]
pub struct Scheduler;

/// What reaches the scheduling task.
enum Input {
    Pod(Arc<Pod>),
    PodGone(Arc<Pod>),
    Node {
        new: Arc<Node>,
        matters: bool,
    },
    NodeGone(String),
    Happened(Event),
    /// A binding failed: the assumption is taken back and the pod tried again.
    Unbound {
        uid: String,
    },
}

struct Worker {
    config: Config,
    client: Client,
    recorder: Recorder,
    namespaces: Informer<Namespace>,
    budgets: Informer<PodDisruptionBudget>,
    volumes: Volumes,
    cache: Cache,
    queue: Queue,
    inputs: mpsc::UnboundedReceiver<Input>,
    /// For tasks that bind, to report back.
    back: mpsc::UnboundedSender<Input>,
    tasks: Tasks,
}

impl Scheduler {
    /// Starts scheduling pods that name this scheduler and have no node yet.
    pub fn start(config: Config, client: Client, informers: &Informers, tasks: &Tasks) {
        let tasks = tasks.child("scheduler");
        let (back, inputs) = mpsc::unbounded_channel();
        let (pods, nodes) = (informers.of::<Pod>(), informers.of::<Node>());
        let worker = Worker {
            recorder: Recorder::new(client.clone(), config.name.clone(), "", &tasks),
            namespaces: informers.of(),
            budgets: informers.of(),
            volumes: Volumes::new(informers),
            cache: Cache::default(),
            queue: Queue::default(),
            inputs,
            back: back.clone(),
            tasks: tasks.clone(),
            config,
            client,
        };
        subscribe(&worker, &pods, &nodes, back);
        tasks.spawn("scheduling", async move {
            nodes.synced().await;
            pods.synced().await;
            worker.namespaces.synced().await;
            worker.budgets.synced().await;
            worker.volumes.synced().await;
            worker.run().await;
        });
    }
}

/// Sends changes to the task. A closed channel means that the task has ended: nobody is left to tell.
fn subscribe(worker: &Worker, pods: &Informer<Pod>, nodes: &Informer<Node>, back: mpsc::UnboundedSender<Input>) {
    let send = back.clone();
    pods.on_change(move |change| {
        let _ = send.send(match change {
            Change::Applied { new, .. } => Input::Pod(new.clone()),
            Change::Deleted(last) => Input::PodGone(last.clone()),
        });
    });
    let send = back.clone();
    nodes.on_change(move |change| {
        let _ = send.send(match change {
            Change::Applied { old, new } => {
                Input::Node { new: new.clone(), matters: old.as_ref().is_none_or(|old| matters_for_scheduling(old, new)) }
            }
            Change::Deleted(last) => Input::NodeGone(last.metadata.name.clone().unwrap_or_default()),
        });
    });
    let send = back.clone();
    worker.namespaces.on_change(move |_| drop(send.send(Input::Happened(Event::Namespace))));
    worker.volumes.on_change(move || drop(back.send(Input::Happened(Event::Volume))));
}

/// Heartbeats change a node all the time; only these parts decide where pods fit.
fn matters_for_scheduling(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|s| s.allocatable.clone());
    let taints = |node: &Node| node.spec.as_ref().map(|s| (s.taints.clone(), s.unschedulable));
    old.metadata.labels != new.metadata.labels || taints(old) != taints(new) || allocatable(old) != allocatable(new)
}

// === impl Worker ===

impl Worker {
    async fn run(mut self) {
        loop {
            while let Ok(input) = self.inputs.try_recv() {
                self.take_in(input);
            }
            if let Some(attempt) = self.queue.pop(Instant::now()) {
                self.attempt(attempt.pod);
                // Bindings and informers share the processor with this loop.
                tokio::task::yield_now().await;
                continue;
            }
            let deadline = self.queue.deadline();
            let until = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some(input) => self.take_in(input),
                    None => return,
                },
                () = until => {}
            }
        }
    }

    fn take_in(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Pod(pod) => self.take_pod(Arc::new(PodView::new(pod)), now),
            Input::PodGone(pod) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                self.queue.remove(&uid);
                if self.cache.holds(&uid) {
                    self.cache.remove_pod(&uid);
                    self.queue.happened(Event::PodGone, now);
                }
            }
            Input::Node { new, matters } => {
                self.cache.set_node(new);
                if matters {
                    self.queue.happened(Event::NodeAdded, now);
                }
            }
            Input::NodeGone(name) => self.cache.remove_node(&name),
            Input::Happened(event) => self.queue.happened(event, now),
            Input::Unbound { uid } => {
                self.cache.forget(&uid);
                self.queue.failed(&uid, now);
                self.queue.happened(Event::PodGone, now);
            }
        }
    }

    fn take_pod(&mut self, pod: Arc<PodView>, now: Instant) {
        if !pod.is_active() {
            self.queue.remove(&pod.uid);
            if self.cache.holds(&pod.uid) {
                self.cache.remove_pod(&pod.uid);
                self.queue.happened(Event::PodGone, now);
            }
        } else if pod.node().is_some() {
            self.queue.remove(&pod.uid);
            self.cache.set_pod(pod);
            self.queue.happened(Event::PodPlaced, now);
        } else if pod.is_terminating() {
            self.queue.remove(&pod.uid);
        } else if pod.spec().and_then(|s| s.scheduler_name.as_deref()) == Some(self.config.name.as_str())
            && !self.cache.holds(&pod.uid)
        {
            self.queue.put(pod, now);
        }
    }

    fn attempt(&mut self, pod: Arc<PodView>) {
        let namespaces = self.namespaces.clone();
        let labels = move |name: &str| -> Labels {
            let namespace = namespaces.get(&Key::cluster(name));
            namespace.and_then(|n| n.metadata.labels.clone()).unwrap_or_default()
        };
        let world = World { namespace_labels: &labels, percentage: self.config.percentage_of_nodes_to_score };
        let volumes = self.volumes.filter_of(&pod);
        match schedule(&pod, &mut self.cache, &volumes, &world) {
            Outcome::Node(node) => {
                self.cache.assume(pod.clone(), &node);
                self.bind(pod, node);
            }
            Outcome::Unschedulable(diagnosis) => {
                let preemption = match diagnosis.nodes {
                    0 => None,
                    _ => Some(preempt(&pod, &diagnosis, &self.cache, &volumes, &self.budgets.list(), &world)),
                };
                self.refuse(&pod, &diagnosis, preemption);
            }
        }
    }

    /// Sends the binding. The pod stays assumed until the informer shows it bound, or the API refuses.
    fn bind(&mut self, pod: Arc<PodView>, node: String) {
        let (client, recorder, back) = (self.client.clone(), self.recorder.clone(), self.back.clone());
        self.tasks.spawn("bind", async move {
            let pods: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
            let binding = Binding {
                metadata: ObjectMeta {
                    name: Some(pod.key.name.to_string()),
                    uid: Some(pod.uid.clone()),
                    ..ObjectMeta::default()
                },
                target: ObjectReference { kind: Some("Node".into()), name: Some(node.clone()), ..ObjectReference::default() },
            };
            let bound: kube::Result<serde_json::Value> =
                pods.create_subresource("binding", &pod.key.name, &PostParams::default(), &binding).await;
            match bound {
                Ok(_) => {
                    let message = format!("Successfully assigned {}/{} to {node}", pod.key.namespace, pod.key.name);
                    recorder.event(&reference(&pod), EventType::Normal, "Scheduled", message);
                }
                Err(err) => {
                    debug!(pod = %pod.key, %err, "the binding was refused");
                    if !matches!(&err, kube::Error::Api(status) if status.code == 404) {
                        recorder.event(
                            &reference(&pod),
                            EventType::Warning,
                            "FailedScheduling",
                            format!("binding rejected: {err}"),
                        );
                    }
                    let _ = back.send(Input::Unbound { uid: pod.uid.clone() });
                }
            }
        });
    }

    fn refuse(&mut self, pod: &Arc<PodView>, diagnosis: &Diagnosis, preemption: Option<Preemption>) {
        let plugins: BTreeSet<&'static str> =
            diagnosis.before.iter().map(|r| r.plugin).chain(diagnosis.rejections.iter().map(|(_, r)| r.plugin)).collect();
        // With no node at all, only a node can help: every event about nodes helps every plugin.
        let plugins = if plugins.is_empty() { BTreeSet::from(["NodeAffinity"]) } else { plugins };
        let (words, nominated) = match preemption {
            Some(Preemption::Never(words)) => (Some(words), None),
            Some(Preemption::Victims { node, victims }) => {
                self.evict(pod, &node, victims);
                (None, Some(node))
            }
            None => (None, None),
        };
        let message = diagnosis::message(diagnosis, words.as_deref());
        self.recorder.event(&reference(pod), EventType::Warning, "FailedScheduling", message.clone());
        self.tell(pod.clone(), message, nominated);
        self.queue.unschedulable(&pod.uid, plugins, Instant::now());
    }

    /// Deletes the victims; the pod is tried again when they are gone.
    fn evict(&self, pod: &Arc<PodView>, node: &str, victims: Vec<Arc<PodView>>) {
        for victim in victims.into_iter().filter(|v| !v.is_terminating()) {
            let message = format!("Preempted by pod {} on node {node}", pod.uid);
            self.recorder.event(&reference(&victim), EventType::Normal, "Preempted", message);
            let client = self.client.clone();
            let by = format!("{}: preempting to accommodate a higher priority pod", self.config.name);
            self.tasks.spawn("preempt", async move {
                let pods: Api<Pod> = Api::namespaced(client, &victim.key.namespace);
                let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                    "message": by, "lastTransitionTime": Time(Timestamp::now())});
                let patch = json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}});
                let told = pods.patch_status(&victim.key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
                let same = Preconditions { uid: Some(victim.uid.clone()), resource_version: None };
                let deleted =
                    pods.delete(&victim.key.name, &DeleteParams { preconditions: Some(same), ..DeleteParams::default() }).await;
                if let Err(err) = told.map(drop).and(deleted.map(drop)) {
                    warn!(pod = %victim.key, %err, "a victim of preemption could not be deleted");
                }
            });
        }
    }

    /// Writes the PodScheduled condition, unless it says the same already.
    fn tell(&self, pod: Arc<PodView>, message: String, nominated: Option<String>) {
        let conditions = pod.pod.status.as_ref().and_then(|s| s.conditions.as_ref());
        let known = conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled");
        let same = known.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message.as_str()));
        if same && nominated.is_none() {
            return;
        }
        let client = self.client.clone();
        self.tasks.spawn("tell", async move {
            let pods: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
            let mut status = json!({"conditions": [condition(&pod.pod, message)]});
            if let Some(node) = nominated {
                status["nominatedNodeName"] = node.into();
            }
            let patch = json!({"metadata": {"uid": pod.uid}, "status": status});
            if let Err(err) = pods.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                debug!(pod = %pod.key, %err, "the pod could not be told why it waits");
            }
        });
    }
}

/// The PodScheduled condition of a pod that waits; the transition time stays while it waits.
fn condition(pod: &Pod, message: String) -> PodCondition {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let known = conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some("Unschedulable".into()),
        message: Some(message),
        last_transition_time: known.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(Time(Timestamp::now()))),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}

fn reference(pod: &PodView) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.key.namespace.to_string()),
        name: Some(pod.key.name.to_string()),
        uid: Some(pod.uid.clone()),
        resource_version: pod.pod.metadata.resource_version.clone(),
        field_path: None,
    }
}
