//! One worker per pod: it looks at the specification and at what the runtime shows, takes the steps that [`plan`] names,
//! reports the status, and sleeps until something changes. Everything slow is a future in `operations`; the worker
//! itself never waits for one of them alone, so a deletion reaches a pod in the middle of a pull.

mod clean;
mod done;
mod handle;
mod kill;
mod report;
mod resize;
mod sandbox;
mod start;
mod stop;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use corten_runtime::ContainerState;

use done::Done;

pub use clean::forget;
pub use handle::{End, Handle};

use crate::backoff::{Backoff, Retry};
use crate::clock::from_nanos;
use crate::context::Context;
use crate::fields::Node;
use crate::objects::Wake;
use crate::plan::{Observed, Plan, latest, plan};
use crate::pod::PodExt;
use crate::probes::Probers;
use crate::status::{Notes, generate};

/// Where a pod is in its life on this node.
#[derive(Debug)]
enum State {
    /// Containers are started and kept as the specification asks.
    Running,
    /// Everything is being stopped until `deadline`, for this reason.
    Stopping,
    /// Nothing runs; sandbox, volumes and cgroup are being taken down.
    Cleaning,
    /// Nothing is left on the node but the logs of what ran.
    Clean,
}

struct Worker {
    ctx: Arc<Context>,
    pod: Arc<Pod>,
    incoming: watch::Receiver<Arc<Pod>>,
    ending: watch::Receiver<Option<End>>,
    wake: Arc<Wake>,
    state: State,
    operations: FuturesUnordered<BoxFuture<'static, Done>>,
    seen: Observed,
    notes: Notes,
    crashes: Backoff,
    probers: Probers,
    /// The pod's addresses are known.
    attached: bool,
    making_sandbox: bool,
    sandbox_retry: Retry,
    volumes: VolumeState,
    /// Containers being stopped: until when each may take.
    killing: HashMap<String, watch::Sender<Instant>>,
    /// When everything has to be stopped.
    deadline: Option<Instant>,
    /// Ends pulls and hooks of containers that must not start any more.
    starting: CancellationToken,
    reporter: report::Reporter,
    cleaned: bool,
    clean_retry: Retry,
    deleting: bool,
    delete_retry: Retry,
    status: Arc<Mutex<PodStatus>>,
    resizing: bool,
    resize_retry: Retry,
    /// Limits this process gave to containers, by id.
    applied: HashMap<String, corten_runtime::Resources>,
}

#[derive(Default)]
struct VolumeState {
    ready: bool,
    preparing: bool,
    again: Option<Timestamp>,
    retry: Retry,
}

impl Worker {
    fn new(
        ctx: Arc<Context>,
        pod: Arc<Pod>,
        incoming: watch::Receiver<Arc<Pod>>,
        ending: watch::Receiver<Option<End>>,
        wake: Arc<Wake>,
        status: Arc<Mutex<PodStatus>>,
    ) -> Self {
        let old = pod.status.clone().unwrap_or_default();
        let notes = Notes {
            host_ips: ctx.host_ips().to_vec(),
            runtime: ctx.runtime_name.clone(),
            start_time: Some(ctx.clock.now()),
            ..Notes::default()
        };
        let mut notes = notes;
        // Message files go when a pod finishes; what was reported of them stays.
        let statuses = [&old.init_container_statuses, &old.container_statuses, &old.ephemeral_container_statuses];
        for status in statuses.into_iter().flatten().flatten() {
            for state in status.state.iter().chain(&status.last_state) {
                let Some(ended) = &state.terminated else { continue };
                let id = ended.container_id.as_deref().and_then(|id| id.split_once("://")).map(|(_, id)| id);
                if let (Some(id), Some(message)) = (id, &ended.message) {
                    notes.messages.insert(id.to_owned(), message.clone());
                }
            }
        }
        let mut crashes = Backoff::default();
        let known = ctx.cache.pod(pod.uid());
        let logs = ctx.log_dir(pod.namespace(), pod.name(), pod.uid());
        let mut seen = Observed::default();
        for (_, spec) in pod.containers() {
            if let Some(last) = latest(&known.containers, &spec.name) {
                crashes.restore(&spec.name, last.attempt, from_nanos(last.started_at.max(last.created_at)));
            } else if let Some(attempt) = crate::logs::next_attempt(&logs.join(&spec.name)) {
                seen.earlier.insert(spec.name.clone(), attempt);
            }
        }
        Self {
            probers: Probers::new(ctx.clone(), wake.clone()),
            reporter: report::Reporter::new(old),
            ctx,
            pod,
            incoming,
            ending,
            wake,
            state: State::Running,
            operations: FuturesUnordered::new(),
            seen,
            notes,
            crashes,
            attached: false,
            making_sandbox: false,
            sandbox_retry: Retry::default(),
            volumes: VolumeState::default(),
            killing: HashMap::new(),
            deadline: None,
            starting: CancellationToken::new(),
            cleaned: false,
            clean_retry: Retry::default(),
            deleting: false,
            delete_retry: Retry::default(),
            status,
            resizing: false,
            resize_retry: Retry::default(),
            applied: HashMap::new(),
        }
    }

    async fn run(&mut self) {
        loop {
            let Some(again) = self.step() else { return };
            let sleep = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(done) = self.operations.next() => self.finish(done),
                () = self.wake.woken() => {}
                _ = self.incoming.changed() => {}
                () = sleep => {}
            }
        }
    }

    /// Takes all steps that are due. Returns when to look again without a change, or `None` when the worker's work is
    /// done for good.
    fn step(&mut self) -> Option<Option<Instant>> {
        let now = self.ctx.clock.now();
        self.pod = self.incoming.borrow_and_update().clone();
        self.observe();
        if self.wake.take_content() {
            if self.volumes.ready {
                self.volumes.again = Some(now);
            } else {
                self.volumes.retry.at = None;
            }
            // Containers that lacked a ConfigMap or Secret try again at once.
            let lacks =
                |name: &String| self.notes.waiting.get(name).is_some_and(|(reason, _)| reason == "CreateContainerConfigError");
            self.seen.not_before.retain(|name, _| !lacks(name));
        }
        let mut again = None;
        let mut earliest = |at: Option<Timestamp>| {
            if let Some(at) = at {
                again = Some(again.map_or(at, |known: Timestamp| known.min(at)));
            }
        };
        if matches!(self.state, State::Running) {
            earliest(self.check_end(now));
        }
        match self.state {
            State::Running => {
                let steps = plan(&self.pod, &self.seen, &self.crashes, now);
                if steps.finished && self.seen.starting.is_empty() {
                    self.stop(None);
                    return self.step();
                }
                earliest(self.take(steps, now));
            }
            State::Stopping => {
                self.shorten_grace();
                self.kill_all();
                if self.is_stopped() {
                    self.state = State::Cleaning;
                    return self.step();
                }
            }
            State::Cleaning => {
                if !self.cleaned {
                    if self.clean_retry.due(now) {
                        self.clean();
                    } else {
                        earliest(self.clean_retry.at);
                    }
                }
            }
            State::Clean => {
                if *self.ending.borrow() == Some(End::Gone) {
                    return None;
                }
                if self.pod.is_deleting() && !self.pod.is_static() && self.reporter.is_current() && !self.deleting {
                    if self.delete_retry.due(now) {
                        self.delete();
                    } else {
                        earliest(self.delete_retry.at);
                    }
                }
            }
        }
        earliest(self.report(now));
        Some(again.map(|at| self.ctx.clock.instant(at)))
    }

    fn observe(&mut self) {
        let known = self.ctx.cache.pod(self.pod.uid());
        self.seen.sandboxes = known.sandboxes;
        self.seen.containers = known.containers;
        self.seen.killing = self.killing.keys().cloned().collect();
        let running: Vec<_> =
            self.seen.containers.iter().filter(|container| container.state == ContainerState::Running).cloned().collect();
        let may_probe = matches!(self.state, State::Running);
        self.seen.probes = self.probers.update(&self.pod, &running, &self.notes.pod_ips, may_probe);
        for container in &self.seen.containers {
            if container.state == ContainerState::Exited && !self.notes.messages.contains_key(&container.id) {
                let message = crate::termination::message(&self.pod, container);
                self.notes.messages.insert(container.id.clone(), message);
            }
        }
        let alive = self.seen.sandboxes.first().is_some_and(|sandbox| sandbox.ready);
        self.notes.sandbox_ready = alive && self.attached;
        if !alive {
            self.attached = false;
        }
    }

    /// Starts the operations of a plan.
    fn take(&mut self, steps: Plan, now: Timestamp) -> Option<Timestamp> {
        let mut again = steps.again;
        let mut earliest = |at: Option<Timestamp>| {
            if let Some(at) = at {
                again = Some(again.map_or(at, |known| known.min(at)));
            }
        };
        // Volumes and sandbox are prepared at the same time.
        if !self.volumes.preparing {
            let due = match self.volumes.again {
                _ if !self.volumes.ready => self.volumes.retry.due(now),
                Some(at) => at <= now,
                None => false,
            };
            if due {
                self.prepare_volumes();
            } else {
                earliest(if self.volumes.ready { self.volumes.again } else { self.volumes.retry.at });
            }
        }
        if let Some(attempt) = steps.sandbox {
            if !self.making_sandbox {
                if self.sandbox_retry.due(now) {
                    self.make_sandbox(attempt);
                } else {
                    earliest(self.sandbox_retry.at);
                }
            }
            return again;
        }
        if !self.attached {
            if !self.making_sandbox {
                if self.sandbox_retry.due(now) {
                    self.attach_again();
                } else {
                    earliest(self.sandbox_retry.at);
                }
            }
            return again;
        }
        for kill in steps.kill {
            self.kill(kill);
        }
        self.note_back_offs(&steps.backing_off);
        if self.volumes.ready {
            self.start(steps.start, now);
            if self.resize_retry.due(now) {
                self.resize();
            } else {
                let at = self.resize_retry.at;
                again = again.into_iter().chain(at).min();
            }
        }
        again
    }

    fn note_back_offs(&mut self, backing_off: &BTreeMap<String, String>) {
        for (name, message) in backing_off {
            let reason = ("CrashLoopBackOff".to_owned(), message.clone());
            if self.notes.waiting.get(name) != Some(&reason) {
                let text = format!("Back-off restarting failed container {name} in pod {}", self.pod.described());
                self.ctx.events.container(&self.pod, name, corten_client::EventType::Warning, "BackOff", &text);
                self.notes.waiting.insert(name.clone(), reason);
            }
        }
    }

    fn prepare_volumes(&mut self) {
        self.volumes.preparing = true;
        let (ctx, pod, wake) = (self.ctx.clone(), self.pod.clone(), self.wake.clone());
        let pod_ips = self.notes.pod_ips.clone();
        self.operations.push(Box::pin(async move {
            let node = Node { host_ips: ctx.host_ips(), pod_ips: &pod_ips, allocatable: Some(&ctx.allocatable) };
            let (again, errors) = ctx.volumes.prepare(&pod, &node, &wake).await;
            Done::Volumes(again, errors)
        }));
    }

    fn delete(&mut self) {
        self.deleting = true;
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        self.operations.push(Box::pin(async move { Done::Deleted(report::delete(&ctx, &pod).await) }));
    }

    /// Generates the status and sends it when it changed. Returns when a failed report is due again.
    fn report(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.notes.stopped = matches!(self.state, State::Cleaning | State::Clean);
        if *self.ending.borrow() == Some(End::Gone) {
            return None;
        }
        let old = self.status.lock().clone();
        let status = generate(&self.pod, &self.seen, &self.notes, &old, now);
        *self.status.lock() = status.clone();
        let (outgoing, retry) = self.reporter.next(&self.ctx, &self.pod, status, now);
        if let Some(report) = outgoing {
            self.operations.push(report);
        }
        retry
    }

    /// Starts what the plan names, in order: each waits for its predecessor, all pull at once.
    fn start(&mut self, starts: Vec<crate::plan::Start>, now: Timestamp) {
        let Some(sandbox) = self.seen.sandboxes.first().cloned() else { return };
        let mut turn: Option<oneshot::Receiver<()>> = None;
        for wanted in starts {
            let Some((kind, spec)) = self.pod.container(&wanted.name) else { continue };
            if let Some(after) = wanted.after {
                self.crashes.next(&wanted.name, after, now);
            }
            self.seen.starting.insert(wanted.name.clone());
            let (finished, next) = oneshot::channel();
            let before = turn.replace(next);
            let target = self.pod.ephemeral_containers().iter().find(|c| c.name == wanted.name);
            let target = target.and_then(|c| c.target_container_name.as_deref());
            let target = target.and_then(|name| latest(&self.seen.containers, name)).map(|container| container.id.clone());
            let stale = latest(&self.seen.containers, &wanted.name)
                .filter(|container| container.state == ContainerState::Created)
                .map(|container| container.id.clone());
            let order = start::Order {
                ctx: self.ctx.clone(),
                pod: self.pod.clone(),
                sandbox: sandbox.clone(),
                spec,
                attempt: wanted.attempt,
                pod_ips: self.notes.pod_ips.clone(),
                target,
                stale,
                wake: self.wake.clone(),
                cancelled: self.starting.clone(),
                before,
            };
            debug_assert_eq!(kind, wanted.kind);
            self.operations.push(Box::pin(async move {
                let result = order.run().await;
                drop(finished);
                Done::Started { name: wanted.name, result }
            }));
        }
    }
}
