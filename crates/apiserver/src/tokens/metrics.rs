//! How the tokens of service accounts fared, by upstream's names.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use crate::metrics::VALID;

/// Counters of tokens.
#[derive(Debug)]
pub struct TokenMetrics {
    valid: IntCounter,
    legacy: IntCounter,
    lookups: IntCounterVec,
    /// Of tokens whose signature was checked before, and of others.
    hit: IntCounter,
    miss: IntCounter,
}

impl TokenMetrics {
    /// At zero.
    pub(super) fn new() -> Self {
        let single = |name, help| IntCounter::new(name, help).expect(VALID);
        let lookups = Opts::new("authentication_token_cache_request_total", "Look-ups of tokens that were verified before.");
        let lookups = IntCounterVec::new(lookups, &["status"]).expect(VALID);
        Self {
            valid: single("serviceaccount_valid_tokens_total", "Cumulative valid projected service account tokens used"),
            legacy: single("serviceaccount_legacy_tokens_total", "Cumulative legacy service account tokens used"),
            hit: lookups.with_label_values(&["hit"]),
            miss: lookups.with_label_values(&["miss"]),
            lookups,
        }
    }

    /// Lets `registry` show them.
    pub fn show(&self, registry: &Registry) {
        registry.register(Box::new(self.valid.clone())).expect(VALID);
        registry.register(Box::new(self.legacy.clone())).expect(VALID);
        registry.register(Box::new(self.lookups.clone())).expect(VALID);
    }

    pub(super) fn valid(&self) {
        self.valid.inc();
    }

    pub(super) fn legacy(&self) {
        self.legacy.inc();
    }

    pub(super) fn looked_up(&self, known: bool) {
        if known { self.hit.inc() } else { self.miss.inc() }
    }
}
