//! The scheduling loop: applies what the informers tell, takes the next pod, has it placed.
//!
//! There is one loop and it owns everything, so a cycle needs no lock and sees no change. Whatever takes time (the API)
//! happens in tasks beside it.

use std::sync::Arc;

use corten_client::{Change, Client, Informers, Key};
use corten_task::Tasks;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::bind::{Hands, Nomination};
use crate::config::Config;
use crate::core::{Core, Outcome};
use crate::events::ClusterEvent;
use crate::plugins::volumes::claim_names;
use crate::pod::PodInfo;
use crate::queue::Queued;

/// Pods placed in a row before other tasks of the process get their turn.
const IN_A_ROW: usize = 16;

/// What the loop is told.
pub enum Input {
    /// A pod changed, or is gone.
    Pod(Arc<Pod>, Option<Arc<Pod>>, bool),
    /// A node.
    Node(Arc<Node>, Option<Arc<Node>>, bool),
    /// A namespace.
    Namespace(Arc<Namespace>, bool),
    /// A claim.
    Claim(Arc<PersistentVolumeClaim>, bool),
    /// A volume.
    Volume(Arc<PersistentVolume>, bool),
    /// A storage class.
    Class(Arc<StorageClass>, bool),
    /// What CSI drivers a node has.
    CsiNode(Arc<CSINode>, bool),
    /// A disruption budget.
    Budget(Arc<PodDisruptionBudget>, bool),
    /// A binding failed.
    BindFailed(Queued),
}

pub fn start(config: Config, client: Client, informers: &Informers, tasks: &Tasks) {
    let profiles = config.profiles().unwrap_or_else(|error| {
        // `Config::parse` has checked them; only a configuration that was put together otherwise comes here.
        tracing::error!(%error, "the scheduler's configuration is wrong; the default is used");
        Config::default().profiles().expect("the default configuration is valid")
    });
    let mut core = Core::new(profiles);
    let host = config.host.clone();
    core.queue.times = Some(config.backoff());
    let (sender, inputs) = mpsc::unbounded_channel();
    macro_rules! follow {
        ($kind:ty, $input:ident) => {{
            let informer = informers.of::<$kind>();
            let sender = sender.clone();
            informer.on_change(move |change| {
                // Fails only when the loop has ended.
                let _ = sender.send(Input::$input(change.object().clone(), change.is_deleted()));
            });
            informer
        }};
    }
    let (nodes, pods) = (informers.of::<Node>(), informers.of::<Pod>());
    nodes.on_change({
        let sender = sender.clone();
        move |change: &Change<Node>| {
            let _ = sender.send(Input::Node(change.object().clone(), change.old().cloned(), change.is_deleted()));
        }
    });
    pods.on_change({
        let sender = sender.clone();
        move |change: &Change<Pod>| {
            let _ = sender.send(Input::Pod(change.object().clone(), change.old().cloned(), change.is_deleted()));
        }
    });
    follow!(Namespace, Namespace);
    let claims = follow!(PersistentVolumeClaim, Claim);
    follow!(PersistentVolume, Volume);
    follow!(StorageClass, Class);
    follow!(CSINode, CsiNode);
    follow!(PodDisruptionBudget, Budget);
    let hands = Hands::new(client, claims, &host, tasks, sender);
    let this = Loop { core, hands };
    tasks.spawn("scheduler", async move {
        // Without these a pod would be placed as if the cluster were empty. The other kinds only ever add restrictions to
        // pods that name them, and such a pod waits until they are known.
        nodes.synced().await;
        pods.synced().await;
        this.run(inputs).await;
    });
}

struct Loop {
    core: Core,
    hands: Hands,
}

impl Loop {
    async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) {
        let mut in_a_row = 0;
        loop {
            while let Ok(input) = inputs.try_recv() {
                self.apply(input);
            }
            if let Some(queued) = self.core.queue.pop(Instant::now()) {
                self.schedule(queued);
                in_a_row += 1;
                if in_a_row >= IN_A_ROW {
                    in_a_row = 0;
                    tokio::task::yield_now().await;
                }
                continue;
            }
            in_a_row = 0;
            let input = match self.core.queue.deadline() {
                Some(at) => tokio::select! {
                    input = inputs.recv() => input,
                    () = tokio::time::sleep_until(at) => continue,
                },
                None => inputs.recv().await,
            };
            match input {
                Some(input) => self.apply(input),
                None => return,
            }
        }
    }

    fn schedule(&mut self, queued: Queued) {
        match self.core.schedule(&queued.pod) {
            Outcome::Assigned { node, volumes } => {
                tracing::debug!(pod = %queued.pod.key, %node, "a pod has a place");
                self.hands.bind(queued, node, volumes);
            }
            Outcome::Unschedulable { diagnosis, preempt } => {
                let message = diagnosis.to_string();
                tracing::debug!(pod = %queued.pod.key, message, "a pod fits nowhere");
                let pod = queued.pod.clone();
                let nomination = match preempt {
                    Some(candidate) => {
                        let node = self.core.state.nodes.name[candidate.node].clone();
                        self.core.state.nominate(pod.clone(), &node);
                        Nomination::On { node, victims: candidate.victims }
                    }
                    // It still waits for its victims to end.
                    None if diagnosis.postfilter.contains("a terminating pod on the nominated node") => Nomination::Keep,
                    None => {
                        self.core.state.unnominate(&pod.uid);
                        Nomination::Clear
                    }
                };
                self.core.queue.unschedulable(queued, diagnosis.plugins, Instant::now());
                self.hands.unschedulable(pod, message, nomination);
            }
        }
    }

    fn apply(&mut self, input: Input) {
        let state = &mut self.core.state;
        match input {
            Input::Pod(pod, _, true) => self.pod_gone(pod.metadata.uid.as_deref().unwrap_or_default()),
            Input::Pod(pod, old, false) => self.pod(pod, old),
            Input::Node(node, _, true) => state.remove_node(node.metadata.name.as_deref().unwrap_or_default()),
            Input::Node(node, old, false) => {
                let matters = old.is_none_or(|old| differs(&old, &node));
                let id = state.set_node(node);
                if matters {
                    self.happened(&ClusterEvent::Node(id));
                }
            }
            Input::Namespace(namespace, gone) => {
                let name = namespace.metadata.name.clone().unwrap_or_default();
                if gone {
                    state.namespaces.remove(name.as_str());
                } else {
                    state.namespaces.insert(name.into(), namespace);
                }
                self.happened(&ClusterEvent::Namespace);
            }
            Input::Claim(claim, gone) => {
                let key = Key::of(&*claim);
                if gone {
                    state.claims.remove(&key);
                } else {
                    state.claims.insert(key, claim);
                }
                self.happened(&ClusterEvent::Storage);
            }
            Input::Volume(volume, gone) => {
                let name: Arc<str> = volume.metadata.name.clone().unwrap_or_default().into();
                if gone || volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some()) {
                    state.promised.remove(&name);
                }
                if gone {
                    state.volumes.remove(&name);
                } else {
                    state.volumes.insert(name, volume);
                }
                self.happened(&ClusterEvent::Storage);
            }
            Input::Class(class, gone) => {
                let name: Arc<str> = class.metadata.name.clone().unwrap_or_default().into();
                if gone {
                    state.classes.remove(&name);
                } else {
                    state.classes.insert(name, class);
                }
                self.happened(&ClusterEvent::Storage);
            }
            Input::CsiNode(node, gone) => {
                let name: Arc<str> = node.metadata.name.clone().unwrap_or_default().into();
                if gone {
                    state.csi_nodes.remove(&name);
                } else {
                    state.csi_nodes.insert(name, node);
                }
                self.happened(&ClusterEvent::Storage);
            }
            Input::Budget(budget, gone) => {
                let key = Key::of(&*budget);
                if gone {
                    state.budgets.remove(&key);
                } else {
                    state.budgets.insert(key, budget);
                }
            }
            Input::BindFailed(queued) => {
                // If it is not assumed any more, it was deleted or somebody else has bound it.
                if state.assumed(&queued.pod.uid) {
                    let claims = claim_names(&queued.pod);
                    state.promised.retain(|_, promised| !claims.iter().any(|(claim, _)| claim == promised));
                    self.remove_placed(&queued.pod.uid);
                    self.core.queue.failed(queued, Instant::now());
                }
            }
        }
    }

    fn pod(&mut self, object: Arc<Pod>, old: Option<Arc<Pod>>) {
        if object.spec.is_none() {
            return;
        }
        let info = Arc::new(PodInfo::new(object));
        if info.ended() {
            return self.pod_gone(&info.uid);
        }
        let Some(node) = info.node().map(ToOwned::to_owned) else {
            return self.pending(info, old);
        };
        self.core.queue.remove(&info.uid);
        let news = !self.core.state.holds(&info.uid) || self.core.state.assumed(&info.uid);
        let labels_changed = old.as_ref().is_some_and(|old| old.metadata.labels != info.object.metadata.labels);
        let shrunk = old.map(PodInfo::new).filter(|old| old.requests != info.requests);
        self.core.state.set_pod(info.clone(), &node);
        if news || labels_changed {
            self.happened(&ClusterEvent::PodAssigned(info));
        }
        if let Some(old) = shrunk {
            let id = self.core.state.node(&node);
            self.happened(&ClusterEvent::PodRemoved(Arc::new(old), id));
        }
    }

    fn pending(&mut self, info: Arc<PodInfo>, old: Option<Arc<Pod>>) {
        if info.deleting() || !self.core.serves(info.scheduler()) {
            self.core.queue.remove(&info.uid);
            self.core.state.unnominate(&info.uid);
            return;
        }
        // Its binding is on its way.
        if self.core.state.assumed(&info.uid) {
            return;
        }
        let now = Instant::now();
        if self.core.queue.contains(&info.uid) {
            let matters =
                old.is_none_or(|old| old.spec != info.object.spec || old.metadata.labels != info.object.metadata.labels);
            self.core.queue.update(info, matters, now);
            return;
        }
        if let Some(node) = info.nominated() {
            // An earlier scheduler has made room for it.
            let node = node.to_owned();
            self.core.state.nominate(info.clone(), &node);
        }
        self.core.queue.add(info, now);
    }

    fn pod_gone(&mut self, uid: &str) {
        self.core.queue.remove(uid);
        self.core.state.unnominate(uid);
        self.remove_placed(uid);
    }

    fn remove_placed(&mut self, uid: &str) {
        if let Some((info, node)) = self.core.state.remove_pod(uid) {
            let node = self.core.state.node(&node);
            self.happened(&ClusterEvent::PodRemoved(info, node));
        }
    }

    /// Lets the pods be tried again that `event` may help.
    fn happened(&mut self, event: &ClusterEvent) {
        self.core.retry_helped(event, Instant::now());
    }
}

/// Whether a node changed in a way that scheduling sees. Heartbeats and images do not count.
fn differs(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.metadata.labels != new.metadata.labels || old.spec != new.spec || allocatable(old) != allocatable(new)
}
