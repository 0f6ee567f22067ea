//! What a pod needs next: [`plan`] compares the specification with what the runtime shows and names the steps. It is
//! pure; the worker carries the steps out, waits for the next change and asks again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};

use corten_runtime::{Container, ContainerState, Sandbox};

use crate::backoff::Backoff;
use crate::clock::{from_nanos, go_duration};
use crate::pod::{Kind, PodExt, init_kind, is_sidecar};

/// Label and annotation names on sandboxes and containers, upstream's.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";

/// The state of one pod as the worker sees it.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<Container>,
    /// Probe results by container id.
    pub probes: HashMap<String, Probes>,
    /// Names of containers that are being started at this moment.
    pub starting: BTreeSet<String>,
    /// Ids of containers that are being stopped at this moment.
    pub killing: BTreeSet<String>,
    /// Earliest next try by container name, after a failed start or pull.
    pub not_before: BTreeMap<String, Timestamp>,
    /// The attempt of a container of which the runtime knows nothing, when earlier ones left their logs.
    pub earlier: BTreeMap<String, u32>,
}

/// Probe results of a container that runs; `None` is undecided or no probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Whether there is a startup probe.
    pub has_startup: bool,
    /// Whether there is a readiness probe.
    pub has_readiness: bool,
    pub startup: Option<bool>,
    pub readiness: Option<bool>,
    pub liveness: Option<bool>,
}

impl Probes {
    /// Started in the sense of the container status.
    pub fn started(&self) -> bool {
        !self.has_startup || self.startup == Some(true)
    }

    /// Ready in the sense of the container status.
    pub fn ready(&self) -> bool {
        self.started() && (!self.has_readiness || self.readiness == Some(true))
    }
}

/// The steps to take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// A sandbox has to be made, as this attempt.
    pub sandbox: Option<u32>,
    /// Nothing will run any more: the pod is to be stopped, its phase is final.
    pub finished: bool,
    /// Containers to start, in this order.
    pub start: Vec<Start>,
    /// Containers to stop.
    pub kill: Vec<Kill>,
    /// Containers that wait for their back-off: the message by name.
    pub backing_off: BTreeMap<String, String>,
    /// When to plan again though nothing changed.
    pub again: Option<Timestamp>,
}

/// One container to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub name: String,
    pub attempt: u32,
    pub kind: Kind,
    /// When its previous run ended.
    pub after: Option<Timestamp>,
}

/// One container to stop, and the event's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub message: String,
    /// Which probe's grace period counts.
    pub cause: KillCause,
}

/// Why one container is stopped while its pod goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillCause {
    Liveness,
    Startup,
    Changed,
    /// The pod as a whole ends.
    Pod,
}

/// Decides the next steps of a pod that is to run.
pub fn plan(pod: &Pod, seen: &Observed, crashes: &Backoff, now: Timestamp) -> Plan {
    let current = seen.sandboxes.first().filter(|sandbox| sandbox.ready);
    let mut steps = Steps { pod, seen, crashes, now, plan: Plan::default() };
    if current.is_none() {
        steps.new_sandbox();
        return steps.plan;
    }
    steps.containers();
    steps.plan
}

/// The newest container of a name.
pub fn latest<'a>(containers: &'a [Container], name: &str) -> Option<&'a Container> {
    containers.iter().filter(|container| container.name == name).max_by_key(|container| (container.attempt, container.created_at))
}

/// What changes when a container of a running pod has to be replaced: its name and image, as upstream's hash.
pub fn hash(container: &Spec) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in container.name.bytes().chain([0]).chain(image.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:x}")
}

/// Whether a container that is not running is to run again.
pub fn restarts(pod: &Pod, spec: &Spec, kind: Kind, last: Option<&Container>) -> bool {
    let Some(last) = last else { return true };
    match last.state {
        ContainerState::Running => false,
        // Never ran, or nobody knows: the attempt is repeated.
        ContainerState::Created | ContainerState::Unknown => kind != Kind::Ephemeral,
        ContainerState::Exited => match kind {
            Kind::Ephemeral => false,
            Kind::Sidecar => true,
            Kind::Init | Kind::Regular => policy_restarts(pod, spec, kind, last.exit_code),
        },
    }
}

/// Whether the first matching rule, the container's own policy or the pod's asks for another run.
fn policy_restarts(pod: &Pod, spec: &Spec, kind: Kind, code: i32) -> bool {
    for rule in spec.restart_policy_rules.iter().flatten() {
        if let Some(codes) = &rule.exit_codes {
            let listed = codes.values.as_ref().is_some_and(|values| values.contains(&code));
            let hit = match codes.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            };
            if hit {
                return rule.action == "Restart";
            }
        }
    }
    let policy = spec.restart_policy.as_deref().unwrap_or_else(|| pod.restart_policy());
    match (policy, kind) {
        ("Never", _) => false,
        ("OnFailure", _) | (_, Kind::Init) => code != 0,
        _ => true,
    }
}

/// Whether any regular container was ever made: the pod has been initialized then.
pub fn initialized(pod: &Pod, containers: &[Container]) -> bool {
    pod.spec()
        .containers
        .iter()
        .any(|spec| latest(containers, &spec.name).is_some_and(|container| container.state != ContainerState::Created))
}

struct Steps<'a> {
    pod: &'a Pod,
    seen: &'a Observed,
    crashes: &'a Backoff,
    now: Timestamp,
    plan: Plan,
}

impl Steps<'_> {
    /// There is no sandbox in order: one is made unless nothing would run in it.
    fn new_sandbox(&mut self) {
        let attempt = self.seen.sandboxes.iter().map(|sandbox| sandbox.attempt + 1).max().unwrap_or(0);
        if attempt > 0 && !self.seen.containers.is_empty() {
            let left = self.pod.spec().containers.iter().any(|spec| {
                let last = latest(&self.seen.containers, &spec.name);
                // What ran when its sandbox died counts as failed.
                last.is_none_or(|last| {
                    restarts(self.pod, spec, Kind::Regular, Some(last))
                        || (last.state == ContainerState::Running && self.pod.restart_policy() != "Never")
                })
            });
            let never = self.pod.restart_policy() == "Never";
            if !left || (never && initialized(self.pod, &self.seen.containers)) {
                self.plan.finished = true;
                return;
            }
        }
        self.plan.sandbox = Some(attempt);
    }

    fn containers(&mut self) {
        for spec in self.pod.ephemeral_containers() {
            if latest(&self.seen.containers, &spec.name).is_none() {
                self.start(&spec.name, Kind::Ephemeral, None);
            }
        }
        if !self.init_containers() {
            return;
        }
        let mut alive = false;
        for spec in &self.pod.spec().containers {
            alive |= self.regular(spec);
        }
        if !alive {
            // Sidecars do not keep a pod alive.
            self.plan = Plan { finished: true, ..Plan::default() };
        }
    }

    /// Returns whether the regular containers may run.
    fn init_containers(&mut self) -> bool {
        let inits = self.pod.init_containers();
        let done = initialized(self.pod, &self.seen.containers);
        let frontier = inits.iter().rposition(|spec| latest(&self.seen.containers, &spec.name).is_some());
        let mut next = if done || inits.is_empty() { None } else { Some(0) };
        for (index, spec) in inits.iter().enumerate() {
            if !done && frontier.is_none_or(|frontier| index > frontier) {
                break;
            }
            let last = latest(&self.seen.containers, &spec.name);
            if is_sidecar(spec) {
                let up = self.sidecar(spec, last);
                if !done && frontier == Some(index) {
                    next = if up { Some(index + 1) } else { return false };
                }
            } else if !done && frontier == Some(index) {
                let Some(last) = last else { return false };
                match last.state {
                    ContainerState::Running => return false,
                    ContainerState::Exited if last.exit_code == 0 => next = Some(index + 1),
                    _ if restarts(self.pod, spec, Kind::Init, Some(last)) => {
                        self.start(&spec.name, Kind::Init, Some(last));
                        return false;
                    }
                    _ => {
                        self.plan = Plan { finished: true, ..Plan::default() };
                        return false;
                    }
                }
            }
        }
        match next {
            Some(index) if index < inits.len() => {
                self.start(&inits[index].name, init_kind(&inits[index]), None);
                false
            }
            _ => true,
        }
    }

    /// Keeps a sidecar up; whether what comes after it may start.
    fn sidecar(&mut self, spec: &Spec, last: Option<&Container>) -> bool {
        match last {
            Some(last) if last.state == ContainerState::Running => {
                self.check(spec, last, true);
                let probes = self.seen.probes.get(&last.id).copied().unwrap_or_default();
                // A sidecar still inside its postStart hook has not started.
                probes.started() && !self.seen.starting.contains(&spec.name) && !self.seen.killing.contains(&last.id)
            }
            last => {
                self.start(&spec.name, Kind::Sidecar, last);
                false
            }
        }
    }

    /// Starts, stops or leaves a regular container; whether it keeps the pod alive.
    fn regular(&mut self, spec: &Spec) -> bool {
        let last = latest(&self.seen.containers, &spec.name);
        match last {
            Some(last) if last.state == ContainerState::Running => {
                let again = self.pod.restart_policy() != "Never" || spec.restart_policy.as_deref() == Some("Always");
                self.check(spec, last, again);
                true
            }
            last if restarts(self.pod, spec, Kind::Regular, last) => {
                self.start(&spec.name, Kind::Regular, last);
                true
            }
            _ => self.seen.starting.contains(&spec.name),
        }
    }

    /// Stops a running container whose specification changed or whose probe failed.
    fn check(&mut self, spec: &Spec, running: &Container, restarts: bool) {
        if self.seen.killing.contains(&running.id) {
            return;
        }
        let probes = self.seen.probes.get(&running.id).copied().unwrap_or_default();
        let changed = running.annotations.get(CONTAINER_HASH).is_some_and(|known| *known != hash(spec));
        let (what, cause) = if changed {
            ("definition changed", KillCause::Changed)
        } else if probes.liveness == Some(false) {
            ("failed liveness probe", KillCause::Liveness)
        } else if probes.startup == Some(false) {
            ("failed startup probe", KillCause::Startup)
        } else {
            return;
        };
        let suffix = if restarts { ", will be restarted" } else { "" };
        let message = format!("Container {} {what}{suffix}", spec.name);
        self.plan.kill.push(Kill { id: running.id.clone(), name: spec.name.clone(), message, cause });
    }

    fn start(&mut self, name: &str, kind: Kind, last: Option<&Container>) {
        if self.seen.starting.contains(name) {
            return;
        }
        let mut after = None;
        let mut attempt = self.seen.earlier.get(name).copied().unwrap_or(0);
        if let Some(last) = last {
            // A container that was made but never started is made again as the same attempt.
            attempt = if last.state == ContainerState::Created { last.attempt } else { last.attempt + 1 };
            if last.state == ContainerState::Exited {
                let ended = from_nanos(last.finished_at);
                after = Some(ended);
                if let Some((until, delay)) = self.crashes.until(name, ended, self.now) {
                    let delay = go_duration(delay);
                    let message = format!("back-off {delay} restarting failed container={name} pod={}", self.pod.described());
                    self.plan.backing_off.insert(name.to_owned(), message);
                    self.again(until);
                    return;
                }
            }
        }
        if let Some(until) = self.seen.not_before.get(name)
            && self.now < *until
        {
            self.again(*until);
            return;
        }
        self.plan.start.push(Start { name: name.to_owned(), attempt, kind, after });
    }

    fn again(&mut self, at: Timestamp) {
        self.plan.again = Some(self.plan.again.map_or(at, |known| known.min(at)));
    }
}

#[cfg(test)]
mod tests;
