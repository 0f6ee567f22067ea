//! What a replica controller expects to see after its own writes.
//!
//! A cache lags: a controller that has just created three pods and looks at it would create them again. It therefore
//! writes down what it did, and does not act on a key until it has seen all of it, or five minutes have passed (then
//! something was lost, and acting on the cache is the better choice). As upstream's `ControllerExpectations`; deletions are
//! kept by name, because a deletion shows twice: as a deletion timestamp, and as the end of the object.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Key;

const EXPIRY: Duration = Duration::from_secs(300);

/// Expectations by the key of the owner.
#[derive(Debug, Default)]
pub struct Expectations {
    owners: Mutex<HashMap<Key, Expected>>,
}

#[derive(Debug)]
struct Expected {
    creations: usize,
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// Nothing expected.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `owner` is about to create `count` objects. Replaces what was expected before.
    pub fn expect_creations(&self, owner: &Key, count: usize) {
        self.expect(owner, count, []);
    }

    /// `owner` is about to delete the objects with these UIDs. Replaces what was expected before.
    pub fn expect_deletions(&self, owner: &Key, uids: impl IntoIterator<Item = String>) {
        self.expect(owner, 0, uids);
    }

    /// `owner` is about to create `creations` objects and to delete those with these UIDs. Replaces what was expected
    /// before.
    pub fn expect(&self, owner: &Key, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let expected = Expected { creations, deletions: deletions.into_iter().collect(), since: Instant::now() };
        self.owners.lock().insert(owner.clone(), expected);
    }

    /// An object of `owner` was seen to be new, or its creation failed.
    pub fn creation_observed(&self, owner: &Key) {
        self.creations_observed(owner, 1);
    }

    /// `count` objects of `owner` were seen to be new, or will not be created.
    pub fn creations_observed(&self, owner: &Key, count: usize) {
        if let Some(expected) = self.owners.lock().get_mut(owner) {
            expected.creations = expected.creations.saturating_sub(count);
        }
    }

    /// The object `uid` of `owner` was seen to be deleted or being deleted, or its deletion failed.
    pub fn deletion_observed(&self, owner: &Key, uid: &str) {
        if let Some(expected) = self.owners.lock().get_mut(owner) {
            expected.deletions.remove(uid);
        }
    }

    /// Whether the owner may act: all it expected has been seen, or waited for long enough, or it expects nothing.
    #[must_use]
    pub fn satisfied(&self, owner: &Key) -> bool {
        self.owners.lock().get(owner).is_none_or(|expected| {
            (expected.creations == 0 && expected.deletions.is_empty()) || expected.since.elapsed() > EXPIRY
        })
    }

    /// Forgets an owner that is gone.
    pub fn forget(&self, owner: &Key) {
        self.owners.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_owner_acts_when_all_was_seen_or_after_five_minutes() {
        let expectations = Expectations::new();
        let owner = Key::new("default", "web");
        assert!(expectations.satisfied(&owner));

        expectations.expect_creations(&owner, 2);
        expectations.creation_observed(&owner);
        assert!(!expectations.satisfied(&owner));
        expectations.creation_observed(&owner);
        assert!(expectations.satisfied(&owner));
        // One more than expected, from an adoption, does no harm.
        expectations.creation_observed(&owner);

        expectations.expect_deletions(&owner, ["a".into(), "b".into()]);
        expectations.deletion_observed(&owner, "a");
        expectations.deletion_observed(&owner, "a");
        assert!(!expectations.satisfied(&owner));
        tokio::time::advance(Duration::from_secs(301)).await;
        assert!(expectations.satisfied(&owner));
        expectations.forget(&owner);
    }
}
