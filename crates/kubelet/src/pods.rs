//! The pods of this node: what the API and the manifest directory say is there, one worker each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use tokio::sync::watch;

use corten_client::EventType;

use crate::admission::{NodeView, admit};
use crate::context::Context;
use crate::pod::PodExt;
use crate::worker::{End, Handle};

/// The workers.
pub struct Pods {
    pub ctx: Arc<Context>,
    workers: Mutex<HashMap<String, Handle>>,
    /// The first complete list came from the API.
    synced: watch::Sender<bool>,
}

impl Pods {
    pub fn new(ctx: Arc<Context>) -> Arc<Self> {
        Arc::new(Self { ctx, workers: Mutex::default(), synced: watch::channel(false).0 })
    }

    /// Follows the pods bound to this node for ever.
    pub async fn follow(self: Arc<Self>) {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.ctx.config.node_name));
        let mut events = watcher(Api::<Pod>::all(self.ctx.client.clone()), config).default_backoff().boxed();
        let mut listed = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(pod)) => listed.push(pod),
                Ok(watcher::Event::InitDone) => self.replace(std::mem::take(&mut listed)).await,
                Ok(watcher::Event::Apply(pod)) => self.apply(pod),
                Ok(watcher::Event::Delete(pod)) => self.delete(&pod),
                Err(err) => tracing::warn!(error = %crate::chain(&err), "watch pods"),
            }
        }
    }

    /// Everything the API has. What it does not have any more is stopped, what nobody knows is removed.
    async fn replace(self: &Arc<Self>, mut pods: Vec<Pod>) {
        // Older pods first: they have the older right to the node's resources.
        pods.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
        let live: HashSet<String> = pods.iter().map(|pod| pod.uid().to_owned()).collect();
        let gone: Vec<String> = {
            let workers = self.workers.lock();
            workers
                .iter()
                .filter(|(uid, worker)| !live.contains(*uid) && !worker.pod.borrow().is_static())
                .map(|(uid, _)| uid.clone())
                .collect()
        };
        for uid in gone {
            self.end(&uid, End::Gone);
        }
        for pod in pods {
            self.apply(pod);
        }
        if !self.synced.send_replace(true) {
            self.remove_orphans(&live).await;
        }
    }

    /// Waits for the first complete list.
    pub async fn synced(&self) {
        // The sender lives as long as this value.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// A pod of the API came or changed.
    pub fn apply(self: &Arc<Self>, pod: Pod) {
        if pod.is_mirror() {
            self.ctx.mirrors.seen(&pod);
            self.wake_static(&pod);
            return;
        }
        self.take(Arc::new(pod));
    }

    fn delete(self: &Arc<Self>, pod: &Pod) {
        if pod.is_mirror() {
            self.ctx.mirrors.gone(pod);
            self.wake_static(pod);
        } else {
            self.end(pod.uid(), End::Gone);
        }
    }

    /// Hands a pod to its worker, which is started for a new one.
    pub fn take(self: &Arc<Self>, pod: Arc<Pod>) {
        let uid = pod.uid().to_owned();
        let mut workers = self.workers.lock();
        if let Some(worker) = workers.get(&uid) {
            worker.update(pod);
            return;
        }
        let verdict = self.admit(&pod, &workers);
        let (pods, done) = (self.clone(), uid.clone());
        let handle = Handle::start(&self.ctx, pod.clone(), move || {
            pods.workers.lock().remove(&done);
        });
        match verdict {
            Ok(victims) => victims.iter().for_each(|victim| self.preempt(victim, &workers)),
            Err(rejection) => {
                self.ctx.events.pod(&pod, EventType::Warning, &rejection.reason, &rejection.message);
                let message = format!("Pod was rejected: {}", rejection.message);
                handle.end(End::Rejected { reason: rejection.reason, message });
            }
        }
        workers.insert(uid, handle);
        drop(workers);
        self.limit_classes();
    }

    /// Ends a pod.
    pub fn end(&self, uid: &str, end: End) {
        if let Some(worker) = self.workers.lock().get(uid) {
            worker.end(end);
        }
    }

    /// Wakes a pod's worker, or all.
    pub fn wake(&self, uid: Option<&str>) {
        let workers = self.workers.lock();
        match uid {
            Some(uid) => {
                if let Some(worker) = workers.get(uid) {
                    worker.wake.wake();
                }
            }
            None => workers.values().for_each(|worker| worker.wake.wake()),
        }
    }

    /// A pod by namespace and name, and optionally UID, with its newest status.
    pub fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Pod>> {
        let workers = self.workers.lock();
        let fits = |pod: &Pod| pod.namespace() == namespace && pod.name() == name && uid.is_none_or(|uid| pod.uid() == uid);
        let found = workers.values().filter(|worker| fits(&worker.pod.borrow()));
        // Of two namesakes the one that is not ending is meant.
        found.min_by_key(|worker| worker.is_ending()).map(|worker| worker.pod.borrow().clone())
    }

    /// All pods with their newest statuses.
    pub fn list(&self) -> Vec<(Arc<Pod>, PodStatus)> {
        self.workers.lock().values().map(|worker| (worker.pod.borrow().clone(), worker.status.lock().clone())).collect()
    }

    /// The newest status of a pod.
    pub fn status(&self, uid: &str) -> Option<PodStatus> {
        self.workers.lock().get(uid).map(|worker| worker.status.lock().clone())
    }

    /// Pods that hold resources of the node.
    pub fn active(&self) -> Vec<Arc<Pod>> {
        active(&self.workers.lock())
    }

    /// Ends a pod in whose place a critical one comes.
    fn preempt(&self, victim: &Pod, workers: &HashMap<String, Handle>) {
        const REASON: &str = "Preempting";
        let message = "Preempted in order to admit critical pod".to_owned();
        self.ctx.events.pod(victim, EventType::Warning, REASON, &message);
        if let Some(worker) = workers.get(victim.uid()) {
            worker.end(End::Evicted { reason: REASON.to_owned(), message, grace: None, disruption: true });
        }
    }

    fn admit(&self, pod: &Arc<Pod>, workers: &HashMap<String, Handle>) -> Result<Vec<Arc<Pod>>, crate::admission::Rejection> {
        // A pod that was taken before stays, whatever changed about the node since.
        let started = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if started || pod.is_finished() || pod.is_deleting() || !self.ctx.cache.pod(pod.uid()).sandboxes.is_empty() {
            return Ok(Vec::new());
        }
        let node = self.ctx.node.borrow().clone();
        let mut labels: BTreeMap<String, String> = self.ctx.config.labels.clone();
        labels.extend(node.as_ref().and_then(|node| node.metadata.labels.clone()).unwrap_or_default());
        let taints = node.as_ref().and_then(|node| node.spec.as_ref()?.taints.clone()).unwrap_or_default();
        let view = NodeView {
            name: &self.ctx.config.node_name,
            labels: &labels,
            taints: &taints,
            allocatable: &self.ctx.allocatable,
            unsafe_sysctls: &self.ctx.config.allowed_unsafe_sysctls,
            pressure: *self.ctx.pressure.borrow(),
        };
        admit(pod, &view, &active(workers))
    }

    fn wake_static(&self, mirror: &Pod) {
        let workers = self.workers.lock();
        let own = |pod: &Pod| pod.is_static() && pod.name() == mirror.name() && pod.namespace() == mirror.namespace();
        workers.values().filter(|worker| own(&worker.pod.borrow())).for_each(|worker| worker.wake.wake());
    }

    /// CPU weight of the `burstable` class: what its pods requested together.
    fn limit_classes(&self) {
        use crate::cgroups::{PodLimits, shares};
        use crate::pod::Qos;
        if !self.ctx.config.host.manage {
            return;
        }
        let root = &self.ctx.config.cgroup_root;
        let burstable = self
            .active()
            .iter()
            .filter(|pod| pod.qos() == Qos::Burstable)
            .map(|pod| pod.requests().get("cpu").copied().unwrap_or(0))
            .sum();
        for (class, milli) in [("burstable", burstable), ("besteffort", 0)] {
            let path = format!("{root}/{class}");
            let limits = PodLimits { cpu_shares: shares(milli), ..PodLimits::default() };
            if let Err(err) = self.ctx.cgroups.create(&path).and_then(|()| self.ctx.cgroups.limit(&path, &limits)) {
                tracing::debug!(error = %crate::chain(&err), "limit a class of pods");
            }
        }
    }

    /// Removes what an earlier process left of pods that are gone: sandboxes, networks, directories, cgroups.
    async fn remove_orphans(&self, live: &HashSet<String>) {
        // Asked after a trace was seen: a pod has its worker before it leaves any.
        let alive = |uid: &String| live.contains(uid) || self.workers.lock().contains_key(uid);
        let mut orphans: HashSet<String> = self.ctx.cache.uids().into_iter().collect();
        orphans.extend(self.ctx.volumes.pods_on_disk());
        for uid in orphans.iter().filter(|uid| !alive(uid)) {
            if let Err(err) = crate::worker::forget(&self.ctx, uid).await {
                tracing::warn!(uid, error = err, "remove what is left of a pod");
            }
        }
        let sandboxes: Vec<String> =
            self.ctx.cache.uids().iter().flat_map(|uid| self.ctx.cache.pod(uid).sandboxes).map(|sandbox| sandbox.id).collect();
        if let Err(err) = self.ctx.network.reconcile(&sandboxes).await {
            tracing::warn!(error = %crate::chain(&err), "release addresses of pods that are gone");
        }
        if !self.ctx.config.host.manage {
            return;
        }
        let root = &self.ctx.config.cgroup_root;
        for class in ["", "/burstable", "/besteffort"] {
            for name in self.ctx.cgroups.children(&format!("{root}{class}")) {
                let orphan = name.strip_prefix("pod").is_some_and(|uid| !alive(&uid.to_owned()));
                if orphan && let Err(err) = self.ctx.cgroups.remove(&format!("{root}{class}/{name}")) {
                    tracing::debug!(error = %crate::chain(&err), "remove the cgroup of a pod that is gone");
                }
            }
        }
    }
}

fn active(workers: &HashMap<String, Handle>) -> Vec<Arc<Pod>> {
    let holding = workers.values().filter(|worker| {
        let finished = matches!(worker.status.lock().phase.as_deref(), Some("Succeeded" | "Failed"));
        !finished && !worker.pod.borrow().is_finished()
    });
    holding.map(|worker| worker.pod.borrow().clone()).collect()
}
