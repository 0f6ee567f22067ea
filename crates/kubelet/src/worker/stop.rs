//! The end of a pod: why it comes, how long it may take, and the order in which containers are stopped.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use corten_client::EventType;
use corten_runtime::ContainerState;

use super::{Done, End, State, Worker, kill};
use crate::plan::{Kill, KillCause};
use crate::pod::{Kind, PodExt};

impl Worker {
    /// Looks for a reason to stop the pod. Returns when the deadline of the specification comes.
    pub(super) fn check_end(&mut self, now: Timestamp) -> Option<Timestamp> {
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
        self.ctx.events.pod(&self.pod, EventType::Normal, "DeadlineExceeded", message);
        self.notes.failed = Some(("DeadlineExceeded".to_owned(), message.to_owned()));
        self.stop(None);
        None
    }

    /// Begins to stop the pod, within `grace` or what its specification gives.
    pub(super) fn stop(&mut self, grace: Option<Duration>) {
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
    pub(super) fn shorten_grace(&mut self) {
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

    pub(super) fn is_stopped(&self) -> bool {
        let running = self.seen.containers.iter().any(|container| container.state == ContainerState::Running);
        !running && self.killing.is_empty() && self.seen.starting.is_empty() && !self.making_sandbox
    }

    pub(super) fn kill(&mut self, kill: Kill) {
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
    pub(super) fn kill_all(&mut self) {
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
}
