//! Log files are rotated when they have grown. The kernel tells of the first write after a look, so that a silent container costs nothing
//! and a busy one a look every ten seconds.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, WatchDescriptor};
use tokio::time::Instant;

use corten_runtime::ContainerState;

use crate::context::Context;
use crate::inotify::Watch;

/// Least time between two looks at one log, upstream's `containerLogMonitorInterval`.
const PAUSE: Duration = Duration::from_secs(10);

/// Rotates logs for ever.
pub async fn rotate(ctx: Arc<Context>) {
    let watch = match Watch::new() {
        Ok(watch) => watch,
        Err(err) => {
            tracing::error!(error = %err, "watch container logs; none is rotated");
            return;
        }
    };
    let mut rotation = Rotation { ctx, watch, logs: HashMap::new(), written: HashMap::new() };
    let mut changes = rotation.ctx.cache.changes();
    loop {
        rotation.refresh().await;
        let due = rotation.logs.values().filter_map(|log| log.due).min();
        let look = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = look => rotation.look().await,
            told = rotation.watch.changed() => match told {
                Ok(written) => rotation.note(&written),
                Err(err) => {
                    tracing::error!(error = %err, "watch container logs; none is rotated any more");
                    return;
                }
            },
        }
    }
}

struct Rotation {
    ctx: Arc<Context>,
    watch: Watch,
    /// The logs of running containers, by container.
    logs: HashMap<String, Log>,
    /// Whose log a watch is on.
    written: HashMap<WatchDescriptor, String>,
}

struct Log {
    path: PathBuf,
    /// When to look: it was written since the last time.
    due: Option<Instant>,
}

impl Rotation {
    /// Takes up containers that have started, and forgets those that have ended.
    async fn refresh(&mut self) {
        let mut running = self.ctx.cache.containers();
        running.retain(|container| container.state == ContainerState::Running);
        self.logs.retain(|id, _| running.iter().any(|container| container.id == *id));
        self.written.retain(|_, id| self.logs.contains_key(id));
        for container in running {
            if !self.logs.contains_key(&container.id) {
                self.logs.insert(container.id.clone(), Log { path: container.log_path, due: None });
                self.check(&container.id).await;
            }
        }
    }

    fn note(&mut self, written: &[WatchDescriptor]) {
        for watch in written {
            if let Some(log) = self.written.remove(watch).and_then(|id| self.logs.get_mut(&id)) {
                log.due = Some(Instant::now() + PAUSE);
            }
        }
    }

    /// Looks at the logs that are due.
    async fn look(&mut self) {
        let now = Instant::now();
        let due: Vec<String> =
            self.logs.iter().filter(|(_, log)| log.due.is_some_and(|at| at <= now)).map(|(id, _)| id.clone()).collect();
        for id in due {
            self.check(&id).await;
        }
    }

    /// Rotates a log that is too large, and waits for the next write.
    async fn check(&mut self, id: &str) {
        // Watched before it is looked at: a write in between is told.
        let Some(path) = self.arm(id) else { return };
        let config = &self.ctx.config;
        match crate::logs::rotate(&path, config.log_max_size, config.log_max_files) {
            Ok(false) => {}
            Ok(true) => {
                if let Err(err) = self.ctx.runtime.reopen_log(id).await {
                    tracing::warn!(container = id, error = %crate::chain(&err), "reopen a container's log");
                }
                self.arm(id);
            }
            Err(err) => tracing::warn!(container = id, error = %err, "rotate a container's log"),
        }
    }

    fn arm(&mut self, id: &str) -> Option<PathBuf> {
        let log = self.logs.get_mut(id)?;
        log.due = None;
        let path = log.path.clone();
        match self.watch.add(&path, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ONESHOT) {
            Ok(watch) => drop(self.written.insert(watch, id.to_owned())),
            // A container without a log has none to rotate.
            Err(err) => tracing::debug!(container = id, error = %err, "watch a container's log"),
        }
        Some(path)
    }
}
