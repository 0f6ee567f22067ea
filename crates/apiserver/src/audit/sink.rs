//! How events get to the log: before the request goes on, or gathered and a little later.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use corten_task::Tasks;

use super::event::{Event, Stage};
use super::log::Log;
use crate::config::AuditMode;
use crate::metrics::Audited;

/// Events that may wait in the mode `batch`; what comes on top is dropped and counted (upstream's default).
const WAITING: usize = 10_000;
/// Events that are written at once.
const AT_ONCE: usize = 400;

pub(super) enum Sink {
    /// Written by the request itself. With `strict` a request is refused whose first event cannot be written.
    Direct { log: Arc<Log>, strict: bool, counted: Audited },
    /// Written by a task, as one write for many.
    Batch { log: Arc<Log>, sender: mpsc::Sender<String>, counted: Audited },
}

impl Sink {
    pub(super) fn start(log: Log, mode: AuditMode, counted: Audited, tasks: &Tasks) -> Self {
        let log = Arc::new(log);
        match mode {
            AuditMode::Blocking | AuditMode::BlockingStrict => {
                Self::Direct { log, strict: mode == AuditMode::BlockingStrict, counted }
            }
            AuditMode::Batch => {
                let (sender, receiver) = mpsc::channel(WAITING);
                let writing = write_batches(log.clone(), receiver, counted.clone(), tasks.clone());
                tasks.spawn_graceful("audit log", writing);
                Self::Batch { log, sender, counted }
            }
        }
    }

    /// Hands an event over. False when the request must not go on without it.
    pub(super) fn write(&self, event: &Event, stage: Stage, at: Timestamp) -> bool {
        match self {
            Self::Direct { log, strict, counted } => {
                let written = log.write(&log.encode(event, stage, at));
                if !written {
                    counted.lost(1);
                }
                let accepted = written || !strict || stage != Stage::RequestReceived;
                if !accepted {
                    counted.rejected();
                }
                accepted
            }
            Self::Batch { log, sender, counted } => {
                if sender.try_send(log.encode(event, stage, at)).is_err() {
                    counted.lost(1);
                }
                true
            }
        }
    }
}

/// Writes what waits, until the server stops and nothing waits any more.
async fn write_batches(log: Arc<Log>, mut receiver: mpsc::Receiver<String>, counted: Audited, tasks: Tasks) {
    /// Requests that end while the server stops still have events to write.
    const LAST: Duration = Duration::from_millis(100);
    let mut lines = Vec::with_capacity(AT_ONCE);
    loop {
        let received = if tasks.is_stopping() {
            tokio::time::timeout(LAST, receiver.recv_many(&mut lines, AT_ONCE)).await.unwrap_or(0)
        } else {
            tokio::select! {
                received = receiver.recv_many(&mut lines, AT_ONCE) => received,
                () = tasks.stopping() => continue,
            }
        };
        if received == 0 {
            return;
        }
        if !log.write(&lines.concat()) {
            counted.lost(received as u64);
        }
        lines.clear();
    }
}
