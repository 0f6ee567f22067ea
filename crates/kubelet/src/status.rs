//! The status of a pod as upstream's kubelet reports it: phase, conditions and container statuses, a pure function of
//! the specification, the runtime's containers and the reasons the worker noted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, Pod,
    PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use corten_runtime::{Container, ContainerState};

use crate::clock::from_nanos;
use crate::plan::{Observed, latest, restarts};
use crate::pod::{Kind, PodExt, is_sidecar};

/// Conditions that the kubelet alone sets.
const OWN_CONDITIONS: [&str; 7] = [
    "PodScheduled",
    "Ready",
    "Initialized",
    "ContainersReady",
    "PodReadyToStartContainers",
    "PodResizePending",
    "PodResizeInProgress",
];
/// The reason of a container whose end nobody saw.
const UNKNOWN: &str = "ContainerStatusUnknown";

/// What the worker knows besides the runtime's containers.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Why a container waits: reason and message by name.
    pub waiting: BTreeMap<String, (String, String)>,
    /// Termination message by container id.
    pub messages: BTreeMap<String, String>,
    /// Addresses of the pod.
    pub pod_ips: Vec<IpAddr>,
    /// Addresses of the node.
    pub host_ips: Vec<IpAddr>,
    /// The sandbox is up and has its network.
    pub sandbox_ready: bool,
    /// When this kubelet took the pod.
    pub start_time: Option<Timestamp>,
    /// The pod failed for a reason of the node: admission, eviction, deadline.
    pub failed: Option<(String, String)>,
    /// Nothing runs and nothing will.
    pub stopped: bool,
    /// Condition `DisruptionTarget` to add: reason and message.
    pub disruption: Option<(String, String)>,
    /// Name of the runtime, for container ids.
    pub runtime: String,
    /// Resources put in force by container name, when an in-place resize changed them.
    pub resources: BTreeMap<String, core::ResourceRequirements>,
    /// Conditions of an in-place resize: type, reason, message.
    pub resize: Option<(String, String, String)>,
}

/// The status to report. `old` is the last one, from which times and what the runtime forgot are taken.
pub fn generate(pod: &Pod, seen: &Observed, notes: &Notes, old: &PodStatus, now: Timestamp) -> PodStatus {
    let spec = pod.spec();
    let statuses = Statuses { pod, seen, notes };
    let init = pod.init_containers().iter();
    let init: Vec<_> = init.map(|c| statuses.of(c, crate::pod::init_kind(c), old.init_container_statuses.as_ref())).collect();
    let mut regular: Vec<_> =
        spec.containers.iter().map(|c| statuses.of(c, Kind::Regular, old.container_statuses.as_ref())).collect();
    let mut ephemeral: Vec<_> = pod
        .ephemeral_containers()
        .iter()
        .map(|c| statuses.of(&crate::pod::plain(c), Kind::Ephemeral, old.ephemeral_container_statuses.as_ref()))
        .collect();

    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        qos_class: old.qos_class.clone().or_else(|| Some(pod.qos().name().to_owned())),
        start_time: old.start_time.clone().or(notes.start_time.map(Time)),
        ..PodStatus::default()
    };
    let phase = phase(pod, &init, &regular, seen, notes);
    if let Some((reason, message)) = notes.failed.as_ref().filter(|_| phase == "Failed") {
        status.reason = Some(reason.clone());
        status.message = Some(message.clone());
    } else if old.phase.as_deref() == Some(phase) {
        // Reason and message belong to the phase.
        status.reason.clone_from(&old.reason);
        status.message.clone_from(&old.message);
    }
    let untouched =
        notes.failed.is_some() && seen.containers.is_empty() && seen.sandboxes.is_empty() && old.container_statuses.is_none();
    if untouched {
        // A rejected pod never had anything here: as upstream, it keeps the conditions of others only.
        let others = old.conditions.iter().flatten().filter(|condition| !OWN_CONDITIONS.contains(&condition.type_.as_str()));
        status.conditions = Some(others.cloned().collect());
        status.phase = Some(phase.to_owned());
        return status;
    }
    regular.sort_by(|a, b| a.name.cmp(&b.name));
    ephemeral.sort_by(|a, b| a.name.cmp(&b.name));
    status.container_statuses = Some(regular);
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.ephemeral_container_statuses = (!ephemeral.is_empty()).then_some(ephemeral);
    addresses(pod, notes, old, &mut status);
    status.conditions = Some(conditions(pod, &status, notes, old, phase, now));
    status.phase = Some(phase.to_owned());
    status
}

fn addresses(pod: &Pod, notes: &Notes, old: &PodStatus, status: &mut PodStatus) {
    if let Some(primary) = notes.host_ips.first() {
        status.host_ip = Some(primary.to_string());
        status.host_ips = Some(notes.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect());
    }
    let ips = if pod.host_network() && notes.sandbox_ready { &notes.host_ips } else { &notes.pod_ips };
    if let Some(primary) = ips.first() {
        status.pod_ip = Some(primary.to_string());
        status.pod_ips = Some(ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
    } else if notes.stopped {
        // A stopped pod keeps the address it had, for whoever reads its logs later.
        status.pod_ip.clone_from(&old.pod_ip);
        status.pod_ips.clone_from(&old.pod_ips);
    }
}

/// The phase, from the statuses of init and regular containers.
fn phase(pod: &Pod, init: &[ContainerStatus], regular: &[ContainerStatus], seen: &Observed, notes: &Notes) -> &'static str {
    // A phase is final only when nothing runs any more.
    let runs = seen.containers.iter().any(|container| container.state == ContainerState::Running);
    if notes.failed.is_some() && !runs {
        return "Failed";
    }
    let already = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    match already {
        Some("Failed") => return "Failed",
        Some("Succeeded") => return "Succeeded",
        _ => {}
    }
    let mut pending = 0;
    let mut failed = 0;
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for (spec, status) in pod.init_containers().iter().zip(init) {
        let state = State::of(status);
        if is_sidecar(spec) {
            match state {
                State::Running => {
                    pending += i32::from(status.started != Some(true));
                    running += 1;
                }
                State::Ended(_) | State::WaitingAgain(_) => {}
                State::Waiting => {
                    pending += 1;
                    waiting += 1;
                }
            }
            continue;
        }
        match state {
            State::Running | State::Waiting => pending += 1,
            State::Ended(code) | State::WaitingAgain(code) => failed += i32::from(code != 0),
        }
    }
    for status in regular {
        match State::of(status) {
            State::Running => running += 1,
            State::Ended(code) => {
                stopped += 1;
                succeeded += i32::from(code == 0);
            }
            State::WaitingAgain(_) => stopped += 1,
            State::Waiting => waiting += 1,
        }
    }
    if failed > 0 && (pod.restart_policy() == "Never" || notes.stopped) {
        return "Failed";
    }
    let begun = running > 0 && stopped + running > 0 && regular.iter().any(|status| !matches!(State::of(status), State::Waiting));
    if notes.stopped {
        // No container will run again, whatever the policy says.
        return if stopped > 0 && stopped == succeeded && waiting == 0 { "Succeeded" } else { "Failed" };
    }
    if (pending > 0 || failed > 0) && !begun || waiting > 0 {
        return "Pending";
    }
    if running > 0 {
        return "Running";
    }
    if stopped == 0 {
        return "Pending";
    }
    match pod.restart_policy() {
        "Always" => "Running",
        _ if stopped == succeeded => "Succeeded",
        "Never" => "Failed",
        _ => "Running",
    }
}

enum State {
    Running,
    Ended(i32),
    Waiting,
    WaitingAgain(i32),
}

impl State {
    fn of(status: &ContainerStatus) -> Self {
        let state = status.state.as_ref();
        if state.is_some_and(|state| state.running.is_some()) {
            return Self::Running;
        }
        if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
            return Self::Ended(ended.exit_code);
        }
        match status.last_state.as_ref().and_then(|last| last.terminated.as_ref()) {
            Some(last) => Self::WaitingAgain(last.exit_code),
            None => Self::Waiting,
        }
    }
}

struct Statuses<'a> {
    pod: &'a Pod,
    seen: &'a Observed,
    notes: &'a Notes,
}

impl Statuses<'_> {
    fn of(&self, spec: &core::Container, kind: Kind, old: Option<&Vec<ContainerStatus>>) -> ContainerStatus {
        let old = old.and_then(|all| all.iter().find(|status| status.name == spec.name));
        let last = latest(&self.seen.containers, &spec.name);
        let mut status = ContainerStatus {
            name: spec.name.clone(),
            image: spec.image.clone().unwrap_or_default(),
            started: Some(false),
            ..ContainerStatus::default()
        };
        let Some(last) = last else {
            self.absent(spec, kind, &mut status, old);
            return status;
        };
        status.restart_count = i32::try_from(last.attempt).unwrap_or(i32::MAX);
        if !last.image.is_empty() {
            status.image = shown_image(&last.image, spec.image.as_deref());
        }
        status.image_id = if last.image_ref.is_empty() { last.image_id.clone() } else { last.image_ref.clone() };
        status.container_id = Some(format!("{}://{}", self.notes.runtime, last.id));
        status.last_state = self.previous(last, old);
        status.volume_mounts = mounts(spec);
        self.state(spec, kind, last, &mut status);
        status
    }

    /// Nothing is known of the container at the runtime.
    fn absent(&self, spec: &core::Container, kind: Kind, status: &mut ContainerStatus, old: Option<&ContainerStatus>) {
        let gone = old.and_then(|old| old.state.as_ref()).and_then(|state| state.terminated.as_ref());
        if let (Some(old), Some(_)) = (old, gone) {
            // Collected as garbage after it ended: the old report is the last word.
            *status = old.clone();
            return;
        }
        status.volume_mounts = mounts(spec);
        if let Some(old) = old {
            status.restart_count = old.restart_count;
            status.last_state.clone_from(&old.last_state);
        }
        let begun = crate::plan::initialized(self.pod, &self.seen.containers);
        if kind == Kind::Init && begun {
            // It was collected and its report lost; without its success nothing after it would have started.
            let message = "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally";
            status.state = Some(lost("Completed", message, 0));
            return;
        }
        let ran = old.is_some_and(|old| old.state.as_ref().is_some_and(|state| state.running.is_some()));
        let waits = self.notes.waiting.contains_key(&status.name);
        let known = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
        if ran && !waits && !known {
            let message = "The container could not be located when the pod was deleted.  The container used to be Running";
            status.last_state = Some(lost(UNKNOWN, message, 137));
            status.restart_count += i32::from(!self.pod.is_deleting());
        }
        if self.notes.stopped && (kind == Kind::Regular && self.pod.init_containers().is_empty() || begun || ran) {
            let message = "The container could not be located when the pod was terminated";
            status.state = Some(lost(UNKNOWN, message, 137));
            return;
        }
        status.state = Some(waiting(self.notes.waiting.get(&status.name), self.not_yet(kind)));
    }

    /// What a container that was never started waits for, where nothing went wrong.
    fn not_yet(&self, kind: Kind) -> &'static str {
        match kind {
            Kind::Ephemeral => "ContainerCreating",
            _ if self.pod.init_containers().is_empty() => "ContainerCreating",
            _ => "PodInitializing",
        }
    }

    fn state(&self, spec: &core::Container, kind: Kind, last: &Container, status: &mut ContainerStatus) {
        let probes = self.seen.probes.get(&last.id).copied().unwrap_or_default();
        match last.state {
            ContainerState::Running => {
                let started_at = Some(Time(from_nanos(last.started_at)));
                let running = core::ContainerStateRunning { started_at };
                status.state = Some(core::ContainerState { running: Some(running), ..core::ContainerState::default() });
                let hooked = kind == Kind::Sidecar && self.seen.starting.contains(&spec.name);
                status.started = Some(probes.started() && !hooked);
                status.ready = match kind {
                    Kind::Init | Kind::Ephemeral => false,
                    Kind::Sidecar | Kind::Regular => probes.ready() && !hooked,
                };
                if kind == Kind::Ephemeral {
                    status.started = None;
                }
                self.running(spec, last, status);
            }
            ContainerState::Created => {
                // On the way from one to the other a look at it must not tell of a third.
                status.state = Some(waiting(self.notes.waiting.get(&spec.name), self.not_yet(kind)));
            }
            ContainerState::Exited | ContainerState::Unknown => {
                let ended = core::ContainerState { terminated: Some(self.terminated(last)), ..core::ContainerState::default() };
                status.ready = kind == Kind::Init && last.state == ContainerState::Exited && last.exit_code == 0;
                if kind == Kind::Ephemeral {
                    status.started = None;
                }
                let again = !self.notes.stopped && !self.pod.is_deleting() && restarts(self.pod, spec, kind, Some(last));
                match self.notes.waiting.get(&spec.name) {
                    Some(reason) if again => {
                        status.last_state = Some(ended);
                        status.state = Some(waiting(Some(reason), ""));
                    }
                    _ => status.state = Some(ended),
                }
            }
        }
    }

    /// What only a running container reports: limits in force, user.
    fn running(&self, spec: &core::Container, last: &Container, status: &mut ContainerStatus) {
        let resources = self.notes.resources.get(&spec.name).or(spec.resources.as_ref());
        if let Some(resources) = resources {
            status.allocated_resources = resources.requests.clone().filter(|requests| !requests.is_empty());
        }
        status.resources = Some(resources.cloned().unwrap_or_default());
        if let Some((uid, gid, groups)) = &last.user {
            let supplemental_groups = Some(groups.clone()).filter(|groups| !groups.is_empty());
            status.user = Some(ContainerUser { linux: Some(LinuxContainerUser { uid: *uid, gid: *gid, supplemental_groups }) });
        }
        if spec.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.stop_signal.is_some()) {
            status.stop_signal = Some(last.stop_signal.clone()).filter(|signal| !signal.is_empty());
        }
    }

    fn previous(&self, last: &Container, old: Option<&ContainerStatus>) -> Option<core::ContainerState> {
        let before = self.seen.containers.iter().filter(|c| c.name == last.name && c.id != last.id && c.attempt < last.attempt);
        if let Some(before) = before.max_by_key(|container| container.attempt) {
            let terminated = Some(self.terminated(before));
            return Some(core::ContainerState { terminated, ..core::ContainerState::default() });
        }
        let old = old?;
        if old.restart_count == i32::try_from(last.attempt).unwrap_or(i32::MAX) {
            // While it waits the ended run is the last state, which `state` sets again.
            return old.last_state.clone().filter(|state| {
                let id = state.terminated.as_ref().and_then(|ended| ended.container_id.as_deref());
                id != Some(format!("{}://{}", self.notes.runtime, last.id).as_str())
            });
        }
        let ended = old.state.as_ref().and_then(|state| state.terminated.as_ref());
        match ended {
            Some(ended) => Some(core::ContainerState { terminated: Some(ended.clone()), ..core::ContainerState::default() }),
            None => old.last_state.clone(),
        }
    }

    fn terminated(&self, container: &Container) -> ContainerStateTerminated {
        let reason = match (container.reason.as_str(), container.exit_code) {
            ("", 0) => "Completed",
            ("", _) => "Error",
            (reason, _) => reason,
        };
        let message = self.notes.messages.get(&container.id).cloned().filter(|message| !message.is_empty());
        ContainerStateTerminated {
            exit_code: container.exit_code,
            // Upstream reports the signal inside the exit code only.
            signal: None,
            reason: Some(reason.to_owned()),
            message: message.or_else(|| Some(container.message.clone()).filter(|message| !message.is_empty())),
            started_at: Some(Time(from_nanos(container.started_at))),
            finished_at: Some(Time(from_nanos(container.finished_at))),
            container_id: Some(format!("{}://{}", self.notes.runtime, container.id)),
        }
    }
}

/// The image as the status shows it: the reference of the specification when the runtime only knows a digest.
fn shown_image(known: &str, wanted: Option<&str>) -> String {
    match wanted {
        Some(wanted) if known.starts_with("sha256:") => wanted.to_owned(),
        _ => known.to_owned(),
    }
}

fn waiting(reason: Option<&(String, String)>, default: &str) -> core::ContainerState {
    let (reason, message) = match reason {
        Some((reason, message)) => (reason.clone(), Some(message.clone()).filter(|message| !message.is_empty())),
        None => (default.to_owned(), None),
    };
    let waiting = ContainerStateWaiting { reason: Some(reason), message };
    core::ContainerState { waiting: Some(waiting), ..core::ContainerState::default() }
}

/// The state of a container that ended unseen.
fn lost(reason: &str, message: &str, exit_code: i32) -> core::ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code,
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..ContainerStateTerminated::default()
    };
    core::ContainerState { terminated: Some(terminated), ..core::ContainerState::default() }
}

fn mounts(spec: &core::Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = spec.volume_mounts.as_ref()?;
    let statuses = mounts.iter().map(|mount| {
        let read_only = mount.read_only.filter(|read_only| *read_only);
        let recursive = match mount.recursive_read_only.as_deref() {
            Some("IfPossible" | "Enabled") => "Enabled",
            _ => "Disabled",
        };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only,
            recursive_read_only: read_only.map(|_| recursive.to_owned()),
            ..VolumeMountStatus::default()
        }
    });
    Some(statuses.collect())
}

fn conditions(pod: &Pod, status: &PodStatus, notes: &Notes, old: &PodStatus, phase: &str, now: Timestamp) -> Vec<PodCondition> {
    let ready = containers_ready(pod, status, phase);
    let mut verdicts = vec![
        Verdict::plain("PodReadyToStartContainers", notes.sandbox_ready),
        initialized_condition(pod, status, phase),
        pod_ready(pod, old, &ready),
        Verdict { kind: "ContainersReady", ..ready },
        Verdict::plain("PodScheduled", true),
    ];
    if let Some((reason, message)) = &notes.disruption {
        verdicts.push(Verdict { kind: "DisruptionTarget", holds: true, reason: reason.clone(), message: message.clone() });
    }
    if let Some((kind, reason, message)) = &notes.resize {
        let kind = if kind == "PodResizePending" { "PodResizePending" } else { "PodResizeInProgress" };
        verdicts.push(Verdict { kind, holds: true, reason: reason.clone(), message: message.clone() });
    }
    let known = old.conditions.as_deref().unwrap_or_default();
    verdicts.into_iter().map(|verdict| verdict.condition(pod, known, now)).collect()
}

#[derive(Clone)]
struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: String,
    message: String,
}

impl Verdict {
    fn plain(kind: &'static str, holds: bool) -> Self {
        Self { kind, holds, reason: String::new(), message: String::new() }
    }

    fn because(kind: &'static str, holds: bool, reason: &str) -> Self {
        Self { reason: reason.to_owned(), ..Self::plain(kind, holds) }
    }

    fn condition(self, pod: &Pod, known: &[PodCondition], now: Timestamp) -> PodCondition {
        let status = if self.holds { "True" } else { "False" };
        let before = known.iter().find(|condition| condition.type_ == self.kind && condition.status == status);
        PodCondition {
            type_: self.kind.to_owned(),
            status: status.to_owned(),
            observed_generation: pod.metadata.generation,
            last_transition_time: before.and_then(|condition| condition.last_transition_time.clone()).or(Some(Time(now))),
            last_probe_time: None,
            reason: Some(self.reason).filter(|reason| !reason.is_empty()),
            message: Some(self.message).filter(|message| !message.is_empty()),
        }
    }
}

fn containers_ready(pod: &Pod, status: &PodStatus, phase: &str) -> Verdict {
    const KIND: &str = "ContainersReady";
    if phase == "Failed" {
        return Verdict::because(KIND, false, "PodFailed");
    }
    let Some(regular) = &status.container_statuses else {
        return Verdict::because(KIND, false, "UnknownContainerStatuses");
    };
    if phase == "Succeeded" {
        return Verdict::because(KIND, false, "PodCompleted");
    }
    let sidecars: BTreeSet<&str> =
        pod.init_containers().iter().filter(|spec| is_sidecar(spec)).map(|spec| spec.name.as_str()).collect();
    let init = status.init_container_statuses.iter().flatten().filter(|status| sidecars.contains(status.name.as_str()));
    let unready: Vec<&str> = init.chain(regular).filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    if unready.is_empty() {
        return Verdict::plain(KIND, true);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Verdict { message, ..Verdict::because(KIND, false, "ContainersNotReady") }
}

fn pod_ready(pod: &Pod, old: &PodStatus, containers: &Verdict) -> Verdict {
    const KIND: &str = "Ready";
    if !containers.holds {
        return Verdict { kind: KIND, ..containers.clone() };
    }
    let mut missing = Vec::new();
    // Readiness gates are set by others: the object carries them, not what this kubelet reported.
    let now_known = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    let known = now_known.or(old.conditions.as_deref()).unwrap_or_default();
    for gate in pod.spec().readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match known.iter().find(|condition| condition.type_ == *kind) {
            None => missing.push(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some(condition) if condition.status != "True" => {
                missing.push(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", condition.status));
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() {
        return Verdict::plain(KIND, true);
    }
    Verdict { message: missing.join(", "), ..Verdict::because(KIND, false, "ReadinessGatesNotReady") }
}

fn initialized_condition(pod: &Pod, status: &PodStatus, phase: &str) -> Verdict {
    const KIND: &str = "Initialized";
    let inits = pod.init_containers();
    let Some(statuses) = &status.init_container_statuses else {
        if !inits.is_empty() {
            return Verdict::because(KIND, false, "UnknownContainerStatuses");
        }
        return if phase == "Succeeded" { Verdict::because(KIND, true, "PodCompleted") } else { Verdict::plain(KIND, true) };
    };
    if phase == "Succeeded" {
        return Verdict::because(KIND, true, "PodCompleted");
    }
    let begun = status.container_statuses.iter().flatten().any(|status| !matches!(State::of(status), State::Waiting));
    if begun {
        return Verdict::plain(KIND, true);
    }
    let incomplete = inits
        .iter()
        .zip(statuses)
        .filter(|(spec, status)| if is_sidecar(spec) { status.started != Some(true) } else { !status.ready });
    let incomplete: Vec<&str> = incomplete.map(|(spec, _)| spec.name.as_str()).collect();
    if incomplete.is_empty() {
        return Verdict::plain(KIND, true);
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    Verdict { message, ..Verdict::because(KIND, false, "ContainersNotInitialized") }
}

#[cfg(test)]
mod tests;
