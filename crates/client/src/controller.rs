//! The loop around a reconcile function.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tracing::{debug, error, warn};

use crate::Queue;

/// When a key that was reconciled should be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// When something adds it to the queue.
    OnChange,
    /// After this time, or when something adds it before.
    After(Duration),
}

/// Runs reconcile functions.
#[derive(Debug)]
pub struct Controller;

impl Controller {
    /// Reconciles keys from `queue`, at most `workers` at a time and never one key twice at a time, until the queue is
    /// closed or the future is dropped.
    ///
    /// A failed key is logged and retried after a growing delay. An optimistic-lock conflict is part of normal operation and
    /// only logged at debug level. A panic is a bug that must not take the other controllers of the process
    /// down: it is logged as an error and its key is retried like a failed one.
    pub async fn run<K, E, F, R>(name: &'static str, queue: Queue<K>, workers: usize, reconcile: R)
    where
        K: Clone + Ord + Hash + fmt::Display,
        E: StdError + 'static,
        F: Future<Output = Result<Requeue, E>>,
        R: Fn(K) -> F,
    {
        queue.count_as(name);
        // All runs share this one task: they wait for the API most of the time, and idle workers cost nothing.
        let mut running = FuturesUnordered::new();
        let mut failing: HashSet<K> = HashSet::new();
        loop {
            tokio::select! {
                work = queue.next(), if running.len() < workers => {
                    let Some(work) = work else { break };
                    let run = AssertUnwindSafe(reconcile(work.key().clone())).catch_unwind();
                    running.push(async move { (work, run.await) });
                }
                Some((work, outcome)) = running.next() => finish(name, &queue, work.key(), outcome, &mut failing),
            }
        }
        while let Some((work, outcome)) = running.next().await {
            finish(name, &queue, work.key(), outcome, &mut failing);
        }
    }
}

fn finish<K, E>(
    name: &str,
    queue: &Queue<K>,
    key: &K,
    outcome: Result<Result<Requeue, E>, Box<dyn std::any::Any + Send>>,
    failing: &mut HashSet<K>,
) where
    K: Clone + Ord + Hash + fmt::Display,
    E: StdError + 'static,
{
    match outcome {
        Ok(Ok(requeue)) => {
            queue.forget(key);
            failing.remove(key);
            if let Requeue::After(delay) = requeue {
                queue.add_after(key.clone(), delay);
            }
            return;
        }
        // The first failure of a key is said aloud, its repetitions only to those who debug.
        Ok(Err(err)) if is_conflict(&err) || !failing.insert(key.clone()) => {
            debug!(controller = name, %key, error = %Chain(&err), "reconcile failed, will retry");
        }
        Ok(Err(err)) => warn!(controller = name, %key, error = %Chain(&err), "reconcile failed, will retry"),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            error!(controller = name, %key, panic = text.unwrap_or("no message"), "reconcile panicked, will retry");
        }
    }
    queue.retry(key.clone());
}

fn is_conflict(err: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(err);
    while let Some(err) = cause {
        if let Some(status) = status_of(err) {
            return status.is_conflict();
        }
        cause = err.source();
    }
    false
}

/// The server's answer, if this link of a chain of errors is one.
fn status_of<'a>(err: &'a (dyn StdError + 'static)) -> Option<&'a kube::core::Status> {
    // A boxed source shows itself as the box.
    let boxed = err.downcast_ref::<Box<kube::Error>>().map(|err| &**err);
    match boxed.or_else(|| err.downcast_ref::<kube::Error>()) {
        Some(kube::Error::Api(status)) => Some(status),
        _ => err.downcast_ref::<kube::core::Status>(),
    }
}

/// An error with its causes, in one line.
struct Chain<'a>(&'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause = Some(self.0);
        let mut first = true;
        while let Some(err) = cause {
            if !first {
                f.write_str(": ")?;
            }
            first = false;
            if let Some(status) = status_of(err) {
                // The error's own text repeats the status as debug output.
                return f.write_str(&status.message);
            }
            write!(f, "{err}")?;
            cause = err.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::Key;

    #[derive(Debug, thiserror::Error)]
    #[error("no")]
    struct No;

    #[tokio::test(start_paused = true)]
    async fn failures_and_panics_are_retried_and_delays_are_kept() {
        let queue: Queue = Queue::new();
        queue.add(Key::cluster("a"));
        let runs = AtomicUsize::new(0);
        let start = tokio::time::Instant::now();
        let controller = Controller::run("test", queue.clone(), 2, |_key| async {
            match runs.fetch_add(1, Ordering::SeqCst) {
                0 => Err(No),
                1 => panic!("a bug"),
                2 => Ok(Requeue::After(Duration::from_secs(7))),
                _ => {
                    queue.close();
                    Ok(Requeue::OnChange)
                }
            }
        });
        controller.await;
        assert_eq!(runs.load(Ordering::SeqCst), 4);
        // 5 ms and 10 ms of back-off, then the delay asked for.
        assert_eq!(start.elapsed().as_millis(), 7015);
    }

    #[test]
    fn a_conflict_is_found_behind_what_was_tried() {
        #[derive(Debug, thiserror::Error)]
        #[error("update pod default/web")]
        struct Update(#[source] Box<kube::Error>);
        let answer = |code: u16, reason: &str| {
            let status = kube::core::Status::failure("the object has been modified", reason).with_code(code);
            Update(Box::new(kube::Error::Api(Box::new(status))))
        };
        assert!(is_conflict(&answer(409, "Conflict")));
        assert!(!is_conflict(&answer(404, "NotFound")));
        assert_eq!(Chain(&answer(409, "Conflict")).to_string(), "update pod default/web: the object has been modified");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_given_number_run_at_a_time() {
        let queue: Queue = Queue::new();
        for n in 0..10 {
            queue.add(Key::cluster(n.to_string()));
        }
        let (now, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Controller::run("test", queue.clone(), 3, |_key| async {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            if done.fetch_add(1, Ordering::SeqCst) == 9 {
                queue.close();
            }
            Ok::<_, No>(Requeue::OnChange)
        })
        .await;
        assert_eq!((most.into_inner(), done.into_inner()), (3, 10));
    }
}
