//! What an operation brought, and what follows from it.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use corten_client::EventType;
use corten_runtime::{Resources, Sandbox};

use super::{State, Worker, report, start};
use crate::pod::PodExt;
use crate::volumes::VolumeError;

/// What an operation brought.
pub(super) enum Done {
    Sandbox(Result<(Sandbox, Vec<IpAddr>), String>),
    Volumes(Option<Timestamp>, Vec<VolumeError>),
    Started { name: String, result: Result<(), start::StartError> },
    Killed { id: String },
    Cleaned(Result<(), String>),
    Reported(report::Outcome),
    Deleted(bool),
    Resized { failed: bool, done: Vec<(String, Resources)> },
}

impl Worker {
    /// Takes note of what an operation brought.
    pub(super) fn finish(&mut self, done: Done) {
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
                    self.ctx.events.pod(&self.pod, EventType::Warning, "FailedCreatePodSandBox", &text);
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
                        self.ctx.events.pod(&self.pod, EventType::Warning, "FailedMount", &err.to_string());
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
                self.ctx.events.pod(&self.pod, EventType::Warning, "FailedKillPod", &format!("error killing pod: {message}"));
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
}
