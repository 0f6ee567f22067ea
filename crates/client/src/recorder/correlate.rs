//! Which of many events are worth a write (client-go's `EventCorrelator`).
//!
//! Three steps: an object that has more than 25 events, refilled by one in five minutes, is silenced; more than ten
//! different messages of one reason within ten minutes become one event "(combined from similar events)"; an event equal
//! to an earlier one raises that one's count.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use super::EventType;

const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
const SIMILAR: usize = 10;
const SIMILAR_SECONDS: i64 = 600;
/// Entries kept by each step. client-go keeps 4096; an event older than the last 1024 of a component starts anew.
const KEPT: usize = 1024;

/// Something that happened, before correlation.
#[derive(Clone, Debug)]
pub(super) struct Occurrence {
    pub(super) object: ObjectReference,
    pub(super) kind: EventType,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) annotations: BTreeMap<String, String>,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing: its object talks too much.
    Drop,
    /// Write a new event.
    Create { message: String, first: Timestamp, count: i32 },
    /// Raise the count of the event `name`.
    Count { name: String, message: String, first: Timestamp, count: i32 },
}

/// The memory of the three steps. Keys are hashes: a collision costs one event's wording, a full key costs memory
/// for every event.
#[derive(Debug, Default)]
pub(super) struct Correlator {
    budgets: HashMap<u64, Budget>,
    groups: HashMap<u64, Group>,
    known: HashMap<u64, Known>,
}

#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Timestamp,
}

#[derive(Debug)]
struct Group {
    messages: HashSet<u64>,
    at: Timestamp,
}

#[derive(Debug)]
struct Known {
    name: Option<String>,
    count: i32,
    first: Timestamp,
    at: Timestamp,
}

impl Correlator {
    /// Decides about `occurrence` at `now`. The id is for [`Correlator::written`].
    pub(super) fn correlate(&mut self, occurrence: &Occurrence, now: Timestamp) -> (u64, Outcome) {
        let object = identity(&occurrence.object);
        let group = hash(&(object, occurrence.kind, &occurrence.reason));
        let (id, message) = if self.is_one_of_many(group, hash(&occurrence.message), now) {
            (group, format!("(combined from similar events): {}", occurrence.message))
        } else {
            (hash(&(group, &occurrence.message)), occurrence.message.clone())
        };
        let known = self.known.entry(id).or_insert(Known { name: None, count: 0, first: now, at: now });
        known.count = known.count.saturating_add(1);
        known.at = now;
        let (first, count) = (known.first, known.count);
        let outcome = match known.name.clone() {
            Some(name) => Outcome::Count { name, message, first, count },
            None => Outcome::Create { message, first, count },
        };
        forget_oldest(&mut self.known, |known| known.at);
        if self.spend(object, now) { (id, outcome) } else { (id, Outcome::Drop) }
    }

    /// The event `id` is in the API under `name`.
    pub(super) fn written(&mut self, id: u64, name: String) {
        if let Some(known) = self.known.get_mut(&id) {
            known.name = Some(name);
        }
    }

    fn is_one_of_many(&mut self, group: u64, message: u64, now: Timestamp) -> bool {
        let entry = self.groups.entry(group).or_insert_with(|| Group { messages: HashSet::new(), at: now });
        if now.as_second() - entry.at.as_second() > SIMILAR_SECONDS {
            entry.messages.clear();
        }
        entry.at = now;
        if entry.messages.len() >= SIMILAR && !entry.messages.contains(&message) {
            forget_oldest(&mut self.groups, |group| group.at);
            return true;
        }
        entry.messages.insert(message);
        forget_oldest(&mut self.groups, |group| group.at);
        false
    }

    fn spend(&mut self, object: u64, now: Timestamp) -> bool {
        let budget = self.budgets.entry(object).or_insert(Budget { tokens: BURST, at: now });
        let passed = now.duration_since(budget.at).as_secs_f64().max(0.0);
        budget.tokens = (budget.tokens + passed / REFILL_SECONDS).min(BURST);
        budget.at = now;
        let enough = budget.tokens >= 1.0;
        if enough {
            budget.tokens -= 1.0;
        }
        forget_oldest(&mut self.budgets, |budget| budget.at);
        enough
    }
}

/// Halves `entries` when there are too many, so that the search for the oldest is rare.
fn forget_oldest<V>(entries: &mut HashMap<u64, V>, at: impl Fn(&V) -> Timestamp) {
    if entries.len() <= KEPT {
        return;
    }
    let mut times: Vec<Timestamp> = entries.values().map(&at).collect();
    times.sort_unstable();
    let middle = times[times.len() / 2];
    entries.retain(|_, entry| at(entry) > middle);
}

fn identity(object: &ObjectReference) -> u64 {
    hash(&(&object.kind, &object.namespace, &object.name, &object.uid, &object.api_version, &object.field_path))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(message: &str) -> Occurrence {
        let object = ObjectReference { name: Some("web".into()), ..ObjectReference::default() };
        Occurrence {
            object,
            kind: EventType::Normal,
            reason: "Pulled".into(),
            message: message.into(),
            annotations: BTreeMap::new(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn equal_events_raise_a_count() {
        let mut correlator = Correlator::default();
        let (id, outcome) = correlator.correlate(&occurrence("one"), at(0));
        assert_eq!(outcome, Outcome::Create { message: "one".into(), first: at(0), count: 1 });
        correlator.written(id, "web.1".into());
        let (_, outcome) = correlator.correlate(&occurrence("one"), at(5));
        assert_eq!(outcome, Outcome::Count { name: "web.1".into(), message: "one".into(), first: at(0), count: 2 });
        let (_, outcome) = correlator.correlate(&occurrence("two"), at(6));
        assert_eq!(outcome, Outcome::Create { message: "two".into(), first: at(6), count: 1 });
    }

    #[test]
    fn the_eleventh_message_is_combined() {
        let mut correlator = Correlator::default();
        for n in 0..10 {
            let (_, outcome) = correlator.correlate(&occurrence(&n.to_string()), at(n));
            assert!(matches!(outcome, Outcome::Create { message, .. } if message == n.to_string()));
        }
        let (_, outcome) = correlator.correlate(&occurrence("ten"), at(10));
        let message = "(combined from similar events): ten".to_owned();
        assert_eq!(outcome, Outcome::Create { message, first: at(10), count: 1 });
        // Ten quiet minutes later it is a new story.
        let (_, outcome) = correlator.correlate(&occurrence("eleven"), at(700));
        assert!(matches!(outcome, Outcome::Create { message, .. } if message == "eleven"));
    }

    #[test]
    fn a_talkative_object_is_silenced_until_its_budget_is_refilled() {
        let mut correlator = Correlator::default();
        let mut written = 0;
        for _ in 0..40 {
            written += usize::from(correlator.correlate(&occurrence("again"), at(0)).1 != Outcome::Drop);
        }
        assert_eq!(written, 25);
        assert_eq!(correlator.correlate(&occurrence("again"), at(299)).1, Outcome::Drop);
        assert_ne!(correlator.correlate(&occurrence("again"), at(301)).1, Outcome::Drop);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut correlator = Correlator::default();
        for n in 0..5000 {
            let mut occurrence = occurrence("one");
            occurrence.object.name = Some(n.to_string());
            correlator.correlate(&occurrence, at(n));
        }
        assert!(correlator.known.len() <= KEPT && correlator.groups.len() <= KEPT && correlator.budgets.len() <= KEPT);
    }
}
