//! Pods that wait for a node: those to try now, those in back-off, and those that wait for the cluster to change.
//!
//! A pod that did not fit goes to the last group. A cluster event that may help moves it on, through a back-off that
//! doubles with each failure, so that a pod that never fits does not keep the scheduler busy.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::events::Event;
use crate::pod::PodView;

/// First back-off (upstream's `podInitialBackoffSeconds`).
const INITIAL: Duration = Duration::from_secs(1);
/// Longest back-off (upstream's `podMaxBackoffSeconds`).
const MAX: Duration = Duration::from_secs(10);
/// A pod that no event has moved is tried again after this time (upstream's `podMaxInUnschedulablePodsDuration`).
const STALE: Duration = Duration::from_secs(300);

/// The waiting pods.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<String, Waiting>,
    /// Higher priority first, then who came first.
    active: BTreeSet<(Reverse<i32>, u64, String)>,
    /// By the moment at which the pod becomes active.
    delayed: BTreeMap<(Instant, u64), String>,
    arrivals: u64,
    /// Events that came while a pod was being tried count for it too.
    moves: u64,
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodView>,
    arrival: u64,
    attempts: u32,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Active,
    /// Being tried; the value of `moves` when that began.
    InFlight(u64),
    /// In back-off until then.
    BackOff(Instant),
    /// Waits for an event that helps against one of these plugins, or for the moment.
    Unschedulable {
        plugins: BTreeSet<&'static str>,
        backoff_until: Instant,
        stale: Instant,
    },
    /// Has scheduling gates.
    Gated,
}

/// A pod to try.
#[derive(Debug)]
pub struct Attempt {
    /// The pod.
    pub pod: Arc<PodView>,
}

// === impl Queue ===

impl Queue {
    /// Adds a pod or takes over its new state. A changed pod is worth another try.
    pub fn put(&mut self, pod: Arc<PodView>, now: Instant) {
        let gated = pod.spec().and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
        let uid = pod.uid.clone();
        match self.pods.get_mut(&uid) {
            Some(waiting) => {
                let changed = waiting.pod.pod.spec != pod.pod.spec || waiting.pod.pod.metadata.labels != pod.pod.metadata.labels;
                waiting.pod = pod;
                let stuck = matches!(waiting.state, State::Unschedulable { .. } | State::Gated);
                if changed && stuck && !gated {
                    self.set(&uid, State::Active, now);
                }
            }
            None => {
                self.arrivals += 1;
                let waiting = Waiting { pod, arrival: self.arrivals, attempts: 0, state: State::Gated };
                self.pods.insert(uid.clone(), waiting);
                if !gated {
                    self.set(&uid, State::Active, now);
                }
            }
        }
    }

    /// Forgets a pod: it is gone or has a node.
    pub fn remove(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.remove(uid) {
            self.unlink(uid, &waiting);
        }
    }

    /// The next pod to try, if one is ready at `now`.
    pub fn pop(&mut self, now: Instant) -> Option<Attempt> {
        self.wake(now);
        let (_, _, uid) = self.active.pop_first()?;
        let moves = self.moves;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.state = State::InFlight(moves);
        waiting.attempts += 1;
        Some(Attempt { pod: waiting.pod.clone() })
    }

    /// The pod did not fit, and these plugins refused it.
    pub fn unschedulable(&mut self, uid: &str, plugins: BTreeSet<&'static str>, now: Instant) {
        let Some(waiting) = self.pods.get(uid) else { return };
        let backoff_until = now + backoff(waiting.attempts);
        // What happened meanwhile was not seen by this attempt.
        let missed = matches!(waiting.state, State::InFlight(moves) if moves != self.moves);
        let state = if missed {
            State::BackOff(backoff_until)
        } else {
            State::Unschedulable { plugins, backoff_until, stale: now + STALE }
        };
        self.set(uid, state, now);
    }

    /// The attempt failed for another reason (the API refused the binding): it is tried again after the back-off.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        if let Some(waiting) = self.pods.get(uid) {
            let until = now + backoff(waiting.attempts);
            self.set(uid, State::BackOff(until), now);
        }
    }

    /// Something happened in the cluster: pods that it may help are moved on.
    pub fn happened(&mut self, event: Event, now: Instant) {
        self.moves += 1;
        let helped: Vec<(String, Instant)> = self
            .pods
            .iter()
            .filter_map(|(uid, waiting)| match &waiting.state {
                State::Unschedulable { plugins, backoff_until, .. } if plugins.iter().any(|p| event.helps(p)) => {
                    Some((uid.clone(), *backoff_until))
                }
                _ => None,
            })
            .collect();
        for (uid, until) in helped {
            self.set(&uid, if until <= now { State::Active } else { State::BackOff(until) }, now);
        }
    }

    /// When the next pod becomes active by itself.
    pub fn deadline(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((at, _), _)| *at)
    }

    fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let uid = entry.remove();
            self.set(&uid, State::Active, now);
        }
    }

    fn set(&mut self, uid: &str, state: State, now: Instant) {
        let Some(mut waiting) = self.pods.remove(uid) else { return };
        self.unlink(uid, &waiting);
        let state = match state {
            State::BackOff(until) if until <= now => State::Active,
            other => other,
        };
        match &state {
            State::Active => {
                self.active.insert((Reverse(waiting.pod.priority()), waiting.arrival, uid.to_owned()));
            }
            State::BackOff(until) => {
                self.delayed.insert((*until, waiting.arrival), uid.to_owned());
            }
            State::Unschedulable { stale, .. } => {
                self.delayed.insert((*stale, waiting.arrival), uid.to_owned());
            }
            State::InFlight(_) | State::Gated => {}
        }
        waiting.state = state;
        self.pods.insert(uid.to_owned(), waiting);
    }

    fn unlink(&mut self, uid: &str, waiting: &Waiting) {
        match &waiting.state {
            State::Active => {
                self.active.remove(&(Reverse(waiting.pod.priority()), waiting.arrival, uid.to_owned()));
            }
            State::BackOff(at) | State::Unschedulable { stale: at, .. } => {
                self.delayed.remove(&(*at, waiting.arrival));
            }
            State::InFlight(_) | State::Gated => {}
        }
    }
}

/// 1 s, 2 s, 4 s, 8 s, 10 s.
fn backoff(attempts: u32) -> Duration {
    MAX.min(INITIAL.saturating_mul(1 << attempts.saturating_sub(1).min(10)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{pod, pod_with};

    fn name(attempt: Option<Attempt>) -> Option<String> {
        attempt.map(|a| a.pod.key.name.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn priority_goes_first_then_who_came_first() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("one", "1"), now);
        queue.put(pod("two", "1"), now);
        queue.put(pod_with("urgent", "1", json!({"priority": 10})), now);
        let order: Vec<_> = std::iter::from_fn(|| name(queue.pop(now))).collect();
        assert_eq!(order, ["urgent", "one", "two"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unschedulable_pod_waits_for_an_event_that_helps_and_for_its_backoff() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let fit = || BTreeSet::from(["NodeResourcesFit"]);
        queue.put(pod("p", "1"), now);
        queue.pop(now);
        queue.unschedulable("p", fit(), now);
        assert!(queue.pop(now + Duration::from_secs(60)).is_none(), "nothing happened");
        queue.happened(Event::PodGone, now);
        assert!(queue.pop(now).is_none(), "the back-off is not over");
        assert_eq!(queue.deadline(), Some(now + INITIAL));
        assert_eq!(name(queue.pop(now + INITIAL)).as_deref(), Some("p"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_during_the_attempt_is_not_missed() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("p", "1"), now);
        queue.pop(now);
        queue.happened(Event::NodeAdded, now);
        queue.unschedulable("p", BTreeSet::from(["NodeResourcesFit"]), now);
        assert_eq!(name(queue.pop(now + INITIAL)).as_deref(), Some("p"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gated_pod_waits_for_its_gates_to_go() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod_with("p", "1", json!({"schedulingGates": [{"name": "g"}]})), now);
        assert!(queue.pop(now).is_none());
        queue.put(pod("p", "1"), now);
        assert_eq!(name(queue.pop(now)).as_deref(), Some("p"));
    }

    #[test]
    fn the_backoff_doubles_up_to_its_limit() {
        let seconds: Vec<u64> = (1..=6).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 10, 10]);
    }
}
