//! The pods that wait to be placed.
//!
//! A pod is *active* (will be tried next, by priority), *backing off* (failed lately), *unschedulable* (waits for the
//! cluster to change in a way that helps), or *gated* (nobody may try it). Pods leave the unschedulable by events only;
//! a deadline of five minutes is the net below that. Time is an argument; nothing here waits.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::pod::PodInfo;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// How long a pod may be unschedulable without being tried.
pub const FLUSH: Duration = Duration::from_secs(5 * 60);

/// A pod with its history.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// When it came, which decides among equal priorities.
    pub since: Instant,
    /// The plugins that rejected it last.
    pub plugins: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    /// Until then. `early`: may be tried before, if nothing else is to do.
    Backoff {
        until: Instant,
        early: bool,
    },
    Unschedulable {
        flush: Instant,
    },
    Gated,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<Arc<str>, (Queued, Place)>,
    active: BinaryHeap<Entry>,
    backoff: BTreeSet<(Instant, Arc<str>)>,
    unschedulable: BTreeSet<(Instant, Arc<str>)>,
    /// Backoff times, configurable as upstream's.
    pub times: Option<(Duration, Duration)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    priority: i32,
    since: Instant,
    uid: Arc<str>,
}

impl Ord for Entry {
    /// Greater is earlier: a higher priority, then the longer wait.
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.priority.cmp(&other.priority).then_with(|| other.since.cmp(&self.since));
        order.then_with(|| other.uid.cmp(&self.uid))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Queue {
    /// Takes a pod that is new.
    pub fn add(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let queued = Queued { pod, attempts: 0, since: now, plugins: Vec::new() };
        self.put_active_or_gated(queued);
    }

    /// Takes the new state of a pod. If it changed in a way that matters, it is tried again after its backoff.
    pub fn update(&mut self, pod: Arc<PodInfo>, matters: bool, now: Instant) {
        let Some((mut queued, place)) = self.take(&pod.uid.clone()) else { return };
        queued.pod = pod;
        match place {
            Place::Gated | Place::Active => self.put_active_or_gated(queued),
            Place::Backoff { .. } if matters => self.retry(queued, now),
            Place::Unschedulable { .. } if matters => self.retry(queued, now),
            place => self.put(queued, place),
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) -> Option<Queued> {
        self.take(uid).map(|(queued, _)| queued)
    }

    /// Whether a pod is waiting here.
    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The next pod to try.
    pub fn pop(&mut self, now: Instant) -> Option<Queued> {
        self.wake(now);
        while let Some(entry) = self.active.pop() {
            // An entry of the heap may outlive its pod's stay; only the place counts.
            if matches!(self.pods.get(&entry.uid), Some((_, Place::Active))) {
                return self.take(&entry.uid).map(|(queued, _)| queued);
            }
        }
        // Nothing else to do: whoever has reason to hope need not wait.
        let uid = self.backoff.iter().map(|(_, uid)| uid.clone()).find(|uid| self.early(uid))?;
        self.take(&uid).map(|(queued, _)| queued)
    }

    /// Takes back a pod that fits nowhere, to wait for a change.
    pub fn unschedulable(&mut self, mut queued: Queued, plugins: Vec<&'static str>, now: Instant) {
        queued.attempts += 1;
        queued.plugins = plugins;
        self.put(queued, Place::Unschedulable { flush: now + FLUSH });
    }

    /// Takes back a pod that failed for a reason that may be gone by itself.
    pub fn failed(&mut self, mut queued: Queued, now: Instant) {
        queued.attempts += 1;
        let until = now + self.backoff_of(queued.attempts);
        self.put(queued, Place::Backoff { until, early: false });
    }

    /// Lets the unschedulable pods that `helped` names be tried again.
    pub fn retry_where(&mut self, now: Instant, mut helped: impl FnMut(&Queued) -> bool) {
        let chosen: Vec<Arc<str>> = self
            .unschedulable
            .iter()
            .filter(|(_, uid)| self.pods.get(uid).is_some_and(|(queued, _)| helped(queued)))
            .map(|(_, uid)| uid.clone())
            .collect();
        for uid in chosen {
            if let Some((queued, _)) = self.take(&uid) {
                self.retry(queued, now);
            }
        }
    }

    /// When the queue has to be looked at again without anything happening.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, Arc<str>)>| set.first().map(|(at, _)| *at);
        [first(&self.backoff), first(&self.unschedulable)].into_iter().flatten().min()
    }

    /// Numbers of active, backing off, unschedulable and gated pods.
    #[must_use]
    pub fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for (_, place) in self.pods.values() {
            counts[match place {
                Place::Active => 0,
                Place::Backoff { .. } => 1,
                Place::Unschedulable { .. } => 2,
                Place::Gated => 3,
            }] += 1;
        }
        counts
    }

    /// The waiting pods.
    pub fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.pods.values().map(|(queued, _)| queued)
    }

    fn early(&self, uid: &str) -> bool {
        matches!(self.pods.get(uid), Some((_, Place::Backoff { early: true, .. })))
    }

    /// Moves what is due.
    fn wake(&mut self, now: Instant) {
        while let Some((at, uid)) = self.backoff.first().filter(|(at, _)| *at <= now).cloned() {
            self.backoff.remove(&(at, uid.clone()));
            if let Some((queued, _)) = self.take(&uid) {
                self.put_active_or_gated(queued);
            }
        }
        while let Some((at, uid)) = self.unschedulable.first().filter(|(at, _)| *at <= now).cloned() {
            self.unschedulable.remove(&(at, uid.clone()));
            if let Some((queued, _)) = self.take(&uid) {
                self.put_active_or_gated(queued);
            }
        }
    }

    fn retry(&mut self, queued: Queued, now: Instant) {
        if queued.attempts == 0 {
            return self.put_active_or_gated(queued);
        }
        let until = now + self.backoff_of(queued.attempts);
        self.put(queued, Place::Backoff { until, early: true });
    }

    fn backoff_of(&self, attempts: u32) -> Duration {
        let (first, longest) = self.times.unwrap_or((FIRST_BACKOFF, LONGEST_BACKOFF));
        let factor = 1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        first.checked_mul(factor).unwrap_or(longest).min(longest)
    }

    fn put_active_or_gated(&mut self, queued: Queued) {
        let place = if queued.pod.gates().is_empty() { Place::Active } else { Place::Gated };
        self.put(queued, place);
    }

    fn put(&mut self, queued: Queued, place: Place) {
        let uid = queued.pod.uid.clone();
        match place {
            Place::Active => {
                self.active.push(Entry { priority: queued.pod.priority, since: queued.since, uid: uid.clone() });
            }
            Place::Backoff { until, .. } => {
                self.backoff.insert((until, uid.clone()));
            }
            Place::Unschedulable { flush } => {
                self.unschedulable.insert((flush, uid.clone()));
            }
            Place::Gated => {}
        }
        self.pods.insert(uid, (queued, place));
    }

    fn take(&mut self, uid: &str) -> Option<(Queued, Place)> {
        let (queued, place) = self.pods.remove(uid)?;
        match place {
            Place::Backoff { until, .. } => {
                self.backoff.remove(&(until, queued.pod.uid.clone()));
            }
            Place::Unschedulable { flush } => {
                self.unschedulable.remove(&(flush, queued.pod.uid.clone()));
            }
            Place::Active | Place::Gated => {}
        }
        Some((queued, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::pod;

    fn named(name: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(pod(name, serde_json::json!({"priority": priority})))
    }

    fn popped(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).map(|queued| queued.pod.key.name.to_string())
    }

    #[test]
    fn higher_priority_goes_first_then_the_older() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(named("b", 0), now + Duration::from_millis(2));
        queue.add(named("a", 0), now + Duration::from_millis(1));
        queue.add(named("important", 7), now + Duration::from_millis(3));
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, now)).collect();
        assert_eq!(order, ["important", "a", "b"]);
    }

    #[test]
    fn unschedulable_pods_wait_for_help_or_the_flush() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(named("a", 0), now);
        let queued = queue.pop(now).unwrap();
        queue.unschedulable(queued, vec!["NodeResourcesFit"], now);
        assert_eq!(popped(&mut queue, now + Duration::from_secs(60)), None);
        queue.retry_where(now, |queued| queued.plugins.contains(&"TaintToleration"));
        assert_eq!(popped(&mut queue, now + Duration::from_secs(60)), None);
        assert_eq!(queue.deadline(), Some(now + FLUSH));
        assert_eq!(popped(&mut queue, now + FLUSH).as_deref(), Some("a"));
    }

    #[test]
    fn whoever_was_helped_need_not_wait_if_nothing_else_is_to_do() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(named("a", 0), now);
        let queued = queue.pop(now).unwrap();
        queue.unschedulable(queued, vec![], now);
        queue.retry_where(now, |_| true);
        queue.add(named("b", 0), now);
        assert_eq!(popped(&mut queue, now).as_deref(), Some("b"));
        assert_eq!(popped(&mut queue, now).as_deref(), Some("a"));
    }

    #[test]
    fn failures_back_off_up_to_ten_seconds() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.add(named("a", 0), now);
        for seconds in [1, 2, 4, 8, 10, 10] {
            let queued = queue.pop(now).unwrap();
            queue.failed(queued, now);
            assert!(popped(&mut queue, now + Duration::from_secs(seconds) - Duration::from_millis(1)).is_none());
            now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn gates_hold_a_pod_until_they_are_gone() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let gated = pod("a", serde_json::json!({"schedulingGates": [{"name": "g"}]}));
        queue.add(Arc::new(gated), now);
        assert_eq!(popped(&mut queue, now), None);
        assert_eq!(queue.counts(), [0, 0, 0, 1]);
        queue.update(named("a", 0), true, now);
        assert_eq!(popped(&mut queue, now).as_deref(), Some("a"));
    }
}
