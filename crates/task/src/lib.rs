//! Owned tasks. Whoever starts a task names it, can stop it and waits for it; nothing runs that nobody owns.
//!
//! A [`Tasks`] is such an owner. Owners form a tree: stopping a parent stops its children, and `stop` returns only
//! when every task below it has ended, so that an orderly stop cuts nothing off.
#![forbid(unsafe_code)]

use std::future::Future;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The right to start tasks, and the duty to end them. Clones share one owner.
#[derive(Clone, Debug)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    tracker: TaskTracker,
    stop: CancellationToken,
    parent: Option<Tasks>,
}

impl Tasks {
    /// A root owner. A process has one.
    #[must_use]
    pub fn root(name: impl Into<String>) -> Self {
        Self::with(name.into(), CancellationToken::new(), None)
    }

    /// An owner below this one: it can be stopped alone, and stops with its parent.
    #[must_use]
    pub fn child(&self, name: impl Into<String>) -> Self {
        Self::with(name.into(), self.inner.stop.child_token(), Some(self.clone()))
    }

    fn with(name: String, stop: CancellationToken, parent: Option<Self>) -> Self {
        Self { inner: Arc::new(Inner { name, tracker: TaskTracker::new(), stop, parent }) }
    }

    /// Starts `task` under `name`. It is dropped at its next await once the owner is stopped; a task that has to
    /// finish something first uses [`Tasks::spawn_graceful`].
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.inner.stop.clone();
        self.spawn_graceful(name, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Starts a task that watches [`Tasks::stopping`] itself and ends when its work is in order.
    pub fn spawn_graceful<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let span = tracing::debug_span!("task", owner = %self.inner.name, name);
        let task = task.instrument(span);
        // Every ancestor tracks it too: a parent's stop waits for the whole tree.
        let mut owners = vec![self.inner.tracker.token()];
        let mut above = self.inner.parent.as_ref();
        while let Some(owner) = above {
            owners.push(owner.inner.tracker.token());
            above = owner.inner.parent.as_ref();
        }
        tokio::spawn(async move {
            // Dropped last: `stop` must not return while the task still holds anything.
            let _owners = owners;
            task.await;
        });
    }

    /// Resolves when the owner is being stopped.
    pub async fn stopping(&self) {
        self.inner.stop.cancelled().await;
    }

    /// The stop signal, for libraries that take one.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.inner.stop.is_cancelled()
    }

    /// Asks every task to stop and waits until all of them have ended.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn stop_waits_for_graceful_tasks_of_children() {
        let root = Tasks::root("root");
        let child = root.child("child");
        let finished = Arc::new(AtomicBool::new(false));
        child.spawn_graceful("worker", {
            let (child, finished) = (child.clone(), finished.clone());
            async move {
                child.stopping().await;
                tokio::task::yield_now().await;
                finished.store(true, Ordering::SeqCst);
            }
        });
        root.stop().await;
        assert!(finished.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn stopping_a_child_leaves_its_parent_running() {
        let root = Tasks::root("root");
        let child = root.child("child");
        child.spawn("forever", std::future::pending());
        child.stop().await;
        assert!(!root.is_stopping());
    }
}
