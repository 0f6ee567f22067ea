//! How events get to the log or to another server: before the request goes on, or gathered and a little later.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use corten_task::Tasks;

use super::event::{Event, Stage};
use super::log::Log;
use super::webhook::{Throttle, Webhook};
use crate::config::{AuditBatch, AuditMode, AuditTruncation};
use crate::metrics::Audited;

/// Where events go.
pub(super) enum Output {
    /// To the log, as lines.
    Log(Log),
    /// To another server, as lists.
    Webhook(Webhook),
}

/// Takes events for one output.
pub(super) struct Sink {
    output: Arc<Output>,
    truncation: AuditTruncation,
    mode: Mode,
    counted: Audited,
}

enum Mode {
    /// Written by the request itself. With `strict` a request is refused whose first event cannot be written.
    Direct { strict: bool },
    /// Written by a task, as one write for many.
    Batch { sender: mpsc::Sender<String> },
}

impl Output {
    /// By which metrics name it.
    fn name(&self) -> &'static str {
        match self {
            Self::Log(_) => "log",
            Self::Webhook(_) => "webhook",
        }
    }

    /// An event as it is written; nothing when it is too large even without the bodies.
    fn encode(&self, event: &Event, stage: Stage, at: Timestamp, truncation: AuditTruncation) -> Option<String> {
        match self {
            Self::Log(log) if !log.is_json() => Some(event.line(stage) + "\n"),
            Self::Log(_) => Some(truncated(event.document(stage, at), truncation)? + "\n"),
            Self::Webhook(_) => truncated(event.document(stage, at), truncation),
        }
    }

    async fn write(&self, events: &[String]) -> bool {
        match self {
            Self::Log(log) => log.write(&events.concat()),
            Self::Webhook(webhook) => webhook.send(events).await,
        }
    }
}

/// The text of an event that is to be no longer than so many bytes: without the bodies where they make it too long, and nothing
/// when the rest is too long as well.
fn truncated(mut event: Value, truncation: AuditTruncation) -> Option<String> {
    let text = event.to_string();
    if !truncation.enabled || text.len() <= truncation.max_event_size {
        return Some(text);
    }
    if matches!(event["level"].as_str(), Some("Request" | "RequestResponse")) {
        if let Some(event) = event.as_object_mut() {
            event.remove("requestObject");
            event.remove("responseObject");
            let annotations = event.entry("annotations").or_insert_with(|| json!({}));
            annotations["audit.k8s.io/truncated"] = "true".into();
        }
        let text = event.to_string();
        return (text.len() <= truncation.max_event_size).then_some(text);
    }
    None
}

impl Sink {
    pub(super) fn start(
        output: Output,
        mode: AuditMode,
        batch: AuditBatch,
        truncation: AuditTruncation,
        counted: Audited,
        tasks: &Tasks,
    ) -> Self {
        let output = Arc::new(output);
        let mode = match mode {
            AuditMode::Blocking | AuditMode::BlockingStrict => Mode::Direct { strict: mode == AuditMode::BlockingStrict },
            AuditMode::Batch => {
                let (sender, receiver) = mpsc::channel(batch.buffer_size.max(1));
                let batches = Batches {
                    output: output.clone(),
                    receiver,
                    batch,
                    truncation,
                    counted: counted.clone(),
                    tasks: tasks.clone(),
                };
                tasks.spawn_graceful("audit events", batches.run());
                Mode::Batch { sender }
            }
        };
        Self { output, truncation, mode, counted }
    }

    /// An event as this output takes it; nothing when it is too large and lost.
    pub(super) fn encode(&self, event: &Event, stage: Stage, at: Timestamp) -> Option<String> {
        let text = self.output.encode(event, stage, at, self.truncation);
        if text.is_none() {
            self.counted.lost("truncate", 1);
        }
        text
    }

    /// Whether events have to be waited for.
    pub(super) fn is_waited_for(&self) -> bool {
        matches!((&self.mode, &*self.output), (Mode::Direct { .. }, Output::Webhook(_)))
    }

    /// Hands an event over as far as that takes no waiting, and gives back what [`Sink::send`] has to wait for.
    /// [`Handed::Refused`] when the request must not go on without it.
    pub(super) fn hand(&self, text: String, stage: Stage) -> Handed {
        match (&self.mode, &*self.output) {
            (Mode::Direct { .. }, Output::Webhook(_)) => Handed::Waits(text),
            (Mode::Direct { .. }, Output::Log(log)) => self.judge(log.write(&text), stage),
            (Mode::Batch { sender }, _) => {
                if sender.try_send(text).is_err() {
                    self.counted.lost("buffered", 1);
                }
                Handed::Over
            }
        }
    }

    /// Sends an event that has to be waited for. False when the request must not go on without it.
    pub(super) async fn send(&self, text: String, stage: Stage) -> bool {
        let written = self.output.write(&[text]).await;
        !matches!(self.judge(written, stage), Handed::Refused)
    }

    /// What it means that an event was written, or was not.
    fn judge(&self, written: bool, stage: Stage) -> Handed {
        if written {
            return Handed::Over;
        }
        self.counted.lost(self.output.name(), 1);
        match self.mode {
            Mode::Direct { strict: true } if stage == Stage::RequestReceived => {
                self.counted.rejected();
                Handed::Refused
            }
            _ => Handed::Over,
        }
    }
}

/// What became of an event.
pub(super) enum Handed {
    /// It is on its way, or lost; the request goes on.
    Over,
    /// It could not be written, and had to be.
    Refused,
    /// It has to be sent, which takes a while.
    Waits(String),
}

/// Writes what waits, until the server stops and nothing waits any more.
struct Batches {
    output: Arc<Output>,
    receiver: mpsc::Receiver<String>,
    batch: AuditBatch,
    truncation: AuditTruncation,
    counted: Audited,
    tasks: Tasks,
}

impl Batches {
    async fn run(mut self) {
        let mut throttle = self.batch.throttle.map(|(per_second, burst)| Throttle::new(per_second, burst));
        let mut events = Vec::new();
        while self.fill(&mut events).await {
            if let Some(throttle) = &mut throttle
                && !self.tasks.is_stopping()
            {
                throttle.wait().await;
            }
            let batch = Batch {
                output: self.output.clone(),
                events: std::mem::take(&mut events),
                truncation: self.truncation,
                counted: self.counted.clone(),
            };
            match &*self.output {
                Output::Log(_) => batch.write().await,
                // A server that is slow, or has to be asked again, does not hold up what comes after.
                Output::Webhook(_) => self.tasks.spawn_graceful("audit batch", batch.write()),
            }
        }
    }

    /// Gathers the events of a batch: until it is full, or the first one has waited for long enough. False at the end.
    async fn fill(&mut self, events: &mut Vec<String>) -> bool {
        /// Requests that end while the server stops still have events to write.
        const LAST: Duration = Duration::from_millis(100);
        let most = self.batch.max_size.max(1);
        let mut deadline = None;
        loop {
            let room = most - events.len();
            if self.tasks.is_stopping() {
                let received = tokio::time::timeout(LAST, self.receiver.recv_many(events, room)).await.unwrap_or(0);
                return received > 0 || !events.is_empty();
            }
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let received = tokio::select! {
                received = self.receiver.recv_many(events, room) => received,
                () = due => return true,
                () = self.tasks.stopping() => continue,
            };
            if received == 0 || events.len() >= most || self.batch.max_wait.is_zero() {
                return !events.is_empty();
            }
            deadline.get_or_insert_with(|| Instant::now() + self.batch.max_wait);
        }
    }
}

/// Events that are written at once.
struct Batch {
    output: Arc<Output>,
    events: Vec<String>,
    truncation: AuditTruncation,
    counted: Audited,
}

impl Batch {
    async fn write(self) {
        for part in parts(&self.events, self.truncation) {
            if !self.output.write(part).await {
                self.counted.lost(self.output.name(), part.len() as u64);
            }
        }
    }
}

/// The events of a batch in parts of at most so many bytes.
fn parts(events: &[String], truncation: AuditTruncation) -> Vec<&[String]> {
    if !truncation.enabled {
        return vec![events];
    }
    let mut parts = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (at, event) in events.iter().enumerate() {
        if at > start && size + event.len() > truncation.max_batch_size {
            parts.push(&events[start..at]);
            (start, size) = (at, 0);
        }
        size += event.len();
    }
    parts.push(&events[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_are_too_large_lose_their_bodies_or_are_lost() {
        let limit = |max_event_size| AuditTruncation { enabled: true, max_event_size, max_batch_size: 30 };
        let event = json!({"level": "Request", "requestObject": {"data": "x".repeat(500)}, "verb": "create"});
        assert_eq!(truncated(event.clone(), limit(1000)).unwrap(), event.to_string());
        assert_eq!(truncated(event.clone(), AuditTruncation::default()).unwrap(), event.to_string());
        let short: Value = serde_json::from_str(&truncated(event.clone(), limit(200)).unwrap()).unwrap();
        assert_eq!(short, json!({"level": "Request", "verb": "create", "annotations": {"audit.k8s.io/truncated": "true"}}));
        assert_eq!(truncated(event, limit(20)), None);
        assert_eq!(truncated(json!({"level": "Metadata", "requestURI": "x".repeat(50)}), limit(40)), None);
        let events = ["a".repeat(20), "b".repeat(10), "c".repeat(5), "d".repeat(40)];
        let sizes: Vec<usize> = parts(&events, limit(0)).iter().map(|part| part.len()).collect();
        assert_eq!(sizes, [2, 1, 1]);
    }
}
