//! One worker per pod: it looks at the specification and at what the runtime shows, takes the steps that [`plan`] names,
//! reports the status, and sleeps until something changes. Everything slow is a future in `operations`; the worker
//! itself never waits for one of them alone, so a deletion reaches a pod in the middle of a pull.

mod clean;
mod kill;
mod report;
mod sandbox;
mod start;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use corten_runtime::{ContainerState, Sandbox};

pub use clean::forget;

use crate::backoff::Backoff;
use crate::clock::from_nanos;
use crate::context::Context;
use crate::fields::Node;
use crate::objects::Wake;
use crate::plan::{Kill, KillCause, Observed, Plan, latest, plan};
use crate::pod::{Kind, PodExt};
use crate::probes::Probers;
use crate::status::{Notes, generate};
use crate::volumes::VolumeError;

/// Why a pod ends though its object does not say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The object is gone from the API, or a static pod's manifest from its directory.
    Gone,
    /// The node does not take the pod: reason and message of its status.
    Rejected { reason: String, message: String },
    /// The node takes back what it gave: reason, message and grace period.
    Evicted { reason: String, message: String, grace: Option<Duration>, disruption: bool },
}

/// The handle others hold of a worker.
pub struct Handle {
    pub pod: watch::Sender<Arc<Pod>>,
    pub wake: Arc<Wake>,
    end: watch::Sender<Option<End>>,
    /// The last status generated, for the node's endpoint and for admission.
    pub status: Arc<Mutex<PodStatus>>,
}

impl Handle {
    /// Starts a worker in the kubelet's tasks. `done` is called when it has nothing left to do for ever.
    pub fn start(ctx: &Arc<Context>, pod: Arc<Pod>, done: impl FnOnce() + Send + 'static) -> Self {
        let (sender, incoming) = watch::channel(pod.clone());
        let (end, ending) = watch::channel(None);
        let wake = Arc::new(Wake::default());
        let status = Arc::new(Mutex::new(pod.status.clone().unwrap_or_default()));
        let mut worker = Worker::new(ctx.clone(), pod, incoming, ending, wake.clone(), status.clone());
        ctx.tasks.spawn("pod worker", async move {
            worker.run().await;
            let mut retry = Duration::from_secs(1);
            while let Err(err) = forget(&worker.ctx, worker.pod.uid()).await {
                tracing::warn!(pod = %worker.pod.described(), error = err, "remove what is left of a pod");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(Duration::from_secs(60));
            }
            done();
        });
        Self { pod: sender, wake, end, status }
    }

    /// Hands over a newer version of the pod.
    pub fn update(&self, pod: Arc<Pod>) {
        let old = self.pod.send_replace(pod.clone());
        // Its own status coming back changes nothing that a volume shows.
        let (before, after) = (&old.metadata, &pod.metadata);
        if before.labels != after.labels || before.annotations != after.annotations || old.spec != pod.spec {
            self.wake.content_changed();
        } else {
            self.wake.wake();
        }
    }

    /// Ends the pod; the first reason stays, except that a gone object ends everything.
    pub fn end(&self, end: End) {
        self.end.send_if_modified(|known| {
            let newer = known.is_none() || (end == End::Gone && *known != Some(End::Gone));
            if newer {
                *known = Some(end);
            }
            newer
        });
        self.wake.wake();
    }

    /// Whether the pod is being stopped or has ended on this node.
    pub fn is_ending(&self) -> bool {
        self.end.borrow().is_some() || self.pod.borrow().is_deleting()
    }
}

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

/// What an operation brought.
enum Done {
    Sandbox(Result<(Sandbox, Vec<IpAddr>), String>),
    Volumes(Option<Timestamp>, Vec<VolumeError>),
    Started { name: String, result: Result<(), start::StartError> },
    Killed { id: String },
    Cleaned(Result<(), String>),
    Reported(report::Outcome),
    Deleted(bool),
    Resized { failed: bool, done: Vec<(String, corten_runtime::Resources)> },
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

/// A wait that doubles with every failure.
#[derive(Default)]
struct Retry {
    failures: u32,
    at: Option<Timestamp>,
}

impl Retry {
    fn failed(&mut self, first: Duration, most: Duration, now: Timestamp) {
        let delay = first.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures += 1;
        self.at = Some(now + delay);
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn due(&self, now: Timestamp) -> bool {
        self.at.is_none_or(|at| at <= now)
    }
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

    /// Looks for a reason to stop the pod. Returns when the deadline of the specification comes.
    fn check_end(&mut self, now: Timestamp) -> Option<Timestamp> {
        let end = self.ending.borrow().clone();
        match end {
            Some(End::Rejected { reason, message }) => {
                self.notes.failed = Some((reason, message));
                self.stop(Some(Duration::ZERO));
                return None;
            }
            Some(End::Evicted { reason, message, grace, disruption }) => {
                if disruption {
                    self.notes.disruption = Some(("TerminationByKubelet".to_owned(), message.clone()));
                }
                self.notes.failed = Some((reason, message));
                self.stop(grace);
                return None;
            }
            Some(End::Gone) => {
                self.stop(None);
                return None;
            }
            None => {}
        }
        if self.pod.is_deleting() || self.pod.is_finished() {
            self.stop(None);
            return None;
        }
        let limit = self.pod.spec().active_deadline_seconds?;
        let started = self.status.lock().start_time.as_ref().map(|time| time.0).or(self.notes.start_time)?;
        let until = started + Duration::from_secs(u64::try_from(limit).unwrap_or(0));
        if until > now {
            return Some(until);
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.ctx.events.pod(&self.pod, corten_client::EventType::Normal, "DeadlineExceeded", message);
        self.notes.failed = Some(("DeadlineExceeded".to_owned(), message.to_owned()));
        self.stop(None);
        None
    }

    /// Begins to stop the pod, within `grace` or what its specification gives.
    fn stop(&mut self, grace: Option<Duration>) {
        self.state = State::Stopping;
        self.starting.cancel();
        self.probers.stop();
        let grace = grace.unwrap_or_else(|| self.grace());
        self.deadline = Some(Instant::now() + grace);
        let deadline = Instant::now() + grace;
        for known in self.killing.values() {
            known.send_if_modified(|at| {
                let shorter = deadline < *at;
                if shorter {
                    *at = deadline;
                }
                shorter
            });
        }
    }

    /// The grace period of a pod that is being stopped: at least a second.
    fn grace(&self) -> Duration {
        let meta = &self.pod.metadata;
        let given = meta.deletion_grace_period_seconds.filter(|_| meta.deletion_timestamp.is_some());
        let seconds = given.or(self.pod.spec().termination_grace_period_seconds).unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
    }

    /// A second delete may shorten the grace period of a pod that is stopping already.
    fn shorten_grace(&mut self) {
        let Some(deletion) = self.pod.metadata.deletion_timestamp.as_ref().filter(|_| self.pod.is_deleting()) else { return };
        // The time of deletion is the request's time plus the grace period.
        let at = self.ctx.clock.instant(deletion.0);
        let forced = self.pod.metadata.deletion_grace_period_seconds == Some(0);
        let at = if forced { Instant::now() } else { at + Duration::from_secs(1) };
        if self.deadline.is_some_and(|deadline| at < deadline) {
            self.deadline = Some(at);
            self.killing.values().for_each(|known| {
                known.send_if_modified(|until| {
                    let shorter = at < *until;
                    if shorter {
                        *until = at;
                    }
                    shorter
                });
            });
        }
    }

    fn is_stopped(&self) -> bool {
        let running = self.seen.containers.iter().any(|container| container.state == ContainerState::Running);
        !running && self.killing.is_empty() && self.seen.starting.is_empty() && !self.making_sandbox
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

    /// Takes note of what an operation brought.
    fn finish(&mut self, done: Done) {
        let now = self.ctx.clock.now();
        match done {
            Done::Sandbox(Ok((sandbox, ips))) => {
                self.making_sandbox = false;
                self.sandbox_retry.reset();
                self.attached = true;
                self.notes.pod_ips = ips;
                self.ctx.cache.add_sandbox(sandbox);
            }
            Done::Sandbox(Err(message)) => {
                self.making_sandbox = false;
                if matches!(self.state, State::Running) {
                    let text = format!("Failed to create pod sandbox: {message}");
                    self.ctx.events.pod(&self.pod, corten_client::EventType::Warning, "FailedCreatePodSandBox", &text);
                }
                self.sandbox_retry.failed(Duration::from_secs(1), Duration::from_secs(60), now);
            }
            Done::Volumes(again, errors) => {
                self.volumes.preparing = false;
                if errors.is_empty() {
                    self.volumes.ready = true;
                    self.volumes.again = again;
                    self.volumes.retry.reset();
                } else {
                    for err in &errors {
                        self.ctx.events.pod(&self.pod, corten_client::EventType::Warning, "FailedMount", &err.to_string());
                    }
                    self.volumes.retry.failed(Duration::from_millis(500), Duration::from_secs(122), now);
                    // What was there stays in use while its update fails.
                    self.volumes.again = self.volumes.retry.at;
                }
            }
            Done::Started { name, result } => {
                self.seen.starting.remove(&name);
                match result {
                    Ok(()) => {
                        self.notes.waiting.remove(&name);
                        self.seen.not_before.remove(&name);
                    }
                    Err(err) => self.start_failed(&name, err, now),
                }
            }
            Done::Killed { id } => {
                self.killing.remove(&id);
            }
            Done::Cleaned(Ok(())) => {
                self.cleaned = true;
                self.state = State::Clean;
                self.notes.sandbox_ready = false;
            }
            Done::Cleaned(Err(message)) => {
                self.cleaned = false;
                tracing::warn!(pod = %self.pod.described(), error = message, "take down a pod");
                self.ctx.events.pod(
                    &self.pod,
                    corten_client::EventType::Warning,
                    "FailedKillPod",
                    &format!("error killing pod: {message}"),
                );
                self.clean_retry.failed(Duration::from_secs(1), Duration::from_secs(60), now);
            }
            Done::Reported(outcome) => self.reporter.finished(outcome, now),
            Done::Deleted(true) => self.deleting = false,
            Done::Deleted(false) => {
                self.deleting = false;
                self.delete_retry.failed(Duration::from_secs(1), Duration::from_secs(30), now);
            }
            Done::Resized { failed, done } => {
                self.resizing = false;
                self.applied.extend(done);
                if failed {
                    self.resize_retry.failed(Duration::from_secs(5), Duration::from_secs(300), now);
                } else {
                    self.resize_retry.reset();
                }
            }
        }
    }

    fn start_failed(&mut self, name: &str, err: start::StartError, now: Timestamp) {
        self.notes.waiting.insert(name.to_owned(), (err.reason.to_owned(), err.message));
        // As upstream's workers: what is wrong with a configuration or the runtime is looked at again after ten seconds.
        let retry = err.retry.unwrap_or_else(|| now + Duration::from_secs(10));
        self.seen.not_before.insert(name.to_owned(), retry);
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

    fn kill(&mut self, kill: Kill) {
        let grace = kill::grace(&self.pod, &kill.name, kill.cause);
        self.kill_within(kill, Instant::now() + grace);
    }

    fn kill_within(&mut self, kill: Kill, deadline: Instant) {
        let Some(container) = self.seen.containers.iter().find(|container| container.id == kill.id).cloned() else { return };
        let (until, deadline) = watch::channel(deadline);
        if self.killing.contains_key(&kill.id) {
            return;
        }
        self.killing.insert(kill.id.clone(), until);
        let (ctx, pod, ips) = (self.ctx.clone(), self.pod.clone(), self.notes.pod_ips.clone());
        self.operations.push(Box::pin(async move {
            kill::run(&ctx, &pod, &container, &kill.message, &ips, deadline).await;
            Done::Killed { id: kill.id }
        }));
    }

    /// Stops every running container: regular ones together, then sidecars in the reverse of their order.
    fn kill_all(&mut self) {
        let deadline = self.deadline.unwrap_or_else(Instant::now);
        let running = self.seen.containers.iter().filter(|container| container.state == ContainerState::Running);
        let running: Vec<(String, String)> = running.map(|container| (container.id.clone(), container.name.clone())).collect();
        let sidecar = |name: &str| self.pod.container(name).is_some_and(|(kind, _)| kind == Kind::Sidecar);
        let late = Instant::now() >= deadline;
        let (sidecars, mut now): (Vec<_>, Vec<_>) = running.into_iter().partition(|(_, name)| sidecar(name));
        if now.is_empty() || late {
            let order = |name: &str| self.pod.init_containers().iter().position(|container| container.name == name);
            let last = sidecars.iter().max_by_key(|(_, name)| order(name)).cloned();
            now.extend(if late { sidecars } else { last.into_iter().collect() });
        }
        for (id, name) in now {
            if !self.killing.contains_key(&id) {
                let message = format!("Stopping container {name}");
                self.kill_within(Kill { id, name, message, cause: KillCause::Pod }, deadline);
            }
        }
    }

    /// Brings the limits of running containers to what the specification now says.
    fn resize(&mut self) {
        if self.resizing {
            return;
        }
        let mut changes = Vec::new();
        for (_, spec) in self.pod.containers() {
            let Some(running) = latest(&self.seen.containers, &spec.name) else { continue };
            if running.state != ContainerState::Running || running.resources == corten_runtime::Resources::default() {
                continue;
            }
            let wanted = crate::cgroups::container(&self.pod, &spec, None, self.ctx.machine.memory);
            let key = |resources: &corten_runtime::Resources| (resources.cpu_shares, resources.cpu_quota, resources.memory_limit);
            // What this process set counts as set, however the runtime rounds it.
            let known = self.applied.get(&running.id).unwrap_or(&running.resources);
            if key(&wanted) != key(known) {
                changes.push((running.id.clone(), wanted));
            }
        }
        if changes.is_empty() {
            return;
        }
        self.resizing = true;
        self.applied.retain(|id, _| self.seen.containers.iter().any(|container| container.id == *id));
        let (ctx, pod) = (self.ctx.clone(), self.pod.clone());
        self.operations.push(Box::pin(async move {
            sandbox::limit(&ctx, &pod);
            let mut failed = false;
            let mut done = Vec::new();
            for (id, wanted) in changes {
                if let Err(err) = ctx.runtime.update_resources(&id, &wanted).await {
                    let message = format!("Error resizing container {id}: {}", crate::chain(&err));
                    ctx.events.pod(&pod, corten_client::EventType::Warning, "ResizeError", &message);
                    failed = true;
                    continue;
                }
                if let Err(err) = ctx.cache.observe(pod.uid(), &id).await {
                    tracing::warn!(error = %crate::chain(&err), "observe a resized container");
                }
                done.push((id, wanted));
            }
            Done::Resized { failed, done }
        }));
    }
}
