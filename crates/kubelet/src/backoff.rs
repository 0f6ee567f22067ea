//! Back-off of restarts and image pulls, as upstream counts it: 10 s doubling to 5 min, forgotten after 10 quiet minutes.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

const INITIAL: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);

/// Delays by key.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    entries: HashMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

impl Backoff {
    /// When `key` may be tried again after what happened at `event`; `None` when it may be now or was never tried.
    pub fn until(&self, key: &str, event: Timestamp, now: Timestamp) -> Option<(Timestamp, Duration)> {
        let entry = self.entries.get(key)?;
        if expired(entry, event) {
            return None;
        }
        let until = event + entry.delay;
        (now < until).then_some((until, entry.delay))
    }

    /// As [`Backoff::until`], counted from the last try.
    pub fn until_since_try(&self, key: &str, now: Timestamp) -> Option<(Timestamp, Duration)> {
        let updated = self.entries.get(key)?.updated;
        self.until(key, updated, now)
    }

    /// Notes a try of `key` now, after what happened at `event`: the next one waits longer.
    pub fn next(&mut self, key: &str, event: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(key) {
            Some(entry) if !expired(entry, event) => (entry.delay * 2).min(MAX),
            _ => INITIAL,
        };
        self.entries.insert(key.to_owned(), Entry { delay, updated: now });
    }

    /// Forgets `key`.
    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// Restores what an earlier process knew of a container that was restarted `restarts` times, last at `updated`.
    pub fn restore(&mut self, key: &str, restarts: u32, updated: Timestamp) {
        if restarts > 0 {
            let delay = INITIAL.saturating_mul(1 << (restarts - 1).min(5)).min(MAX);
            self.entries.insert(key.to_owned(), Entry { delay, updated });
        }
    }
}

fn expired(entry: &Entry, event: Timestamp) -> bool {
    event.duration_since(entry.updated).as_secs() > 2 * MAX.as_secs() as i64
}

/// A wait that doubles with every failure.
#[derive(Default)]
pub struct Retry {
    failures: u32,
    pub at: Option<Timestamp>,
}

impl Retry {
    pub fn failed(&mut self, first: Duration, most: Duration, now: Timestamp) {
        let delay = first.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures += 1;
        self.at = Some(now + delay);
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }

    pub fn due(&self, now: Timestamp) -> bool {
        self.at.is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_five_minutes_and_are_forgotten() {
        let mut backoff = Backoff::default();
        let mut now = Timestamp::UNIX_EPOCH;
        assert_eq!(backoff.until("a", now, now), None);
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            backoff.next("a", now, now);
            let (until, delay) = backoff.until("a", now, now).expect("just tried");
            assert_eq!(delay, Duration::from_secs(expected));
            assert_eq!(until, now + delay);
            now = until;
            assert_eq!(backoff.until("a", now - delay, now), None);
        }
        let later = now + Duration::from_secs(1000);
        assert_eq!(backoff.until("a", later, later), None);
        backoff.next("a", later, later);
        assert_eq!(backoff.until("a", later, later).map(|(_, delay)| delay), Some(INITIAL));
    }
}
