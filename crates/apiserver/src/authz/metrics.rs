//! How impersonation fared, by upstream's names.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, Registry};

use crate::metrics::{LOGINS, counters, histograms};

const LABELS: [&str; 2] = ["mode", "decision"];

/// Counters and durations, each by mode and decision.
pub(super) struct Impersonations {
    attempts: Counted,
    checks: Counted,
}

impl Impersonations {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            attempts: Counted::new(
                registry,
                ("attempts_total", "Total number of impersonation attempts split by mode and decision."),
                ("attempts_duration_seconds", "Latency of impersonation attempts in seconds split by mode and decision."),
            ),
            checks: Counted::new(
                registry,
                (
                    "authorization_attempts_total",
                    "Total number of authorization checks made by the impersonation handler split by mode and decision.",
                ),
                (
                    "authorization_attempts_duration_seconds",
                    "Latency of authorization checks made by the impersonation handler in seconds split by mode and decision.",
                ),
            ),
        }
    }

    /// Somebody wanted to act as somebody else. There is a `mode` only when they may.
    pub(super) fn attempted(&self, mode: Option<&str>, took: Duration) {
        self.attempts.count(mode.unwrap_or_default(), mode.is_some(), took);
    }

    /// One permission of a mode was asked for.
    pub(super) fn checked(&self, mode: &str, allowed: bool, took: Duration) {
        self.checks.count(mode, allowed, took);
    }
}

struct Counted {
    total: IntCounterVec,
    durations: HistogramVec,
}

impl Counted {
    fn new(registry: &Registry, total: (&str, &str), durations: (&str, &str)) -> Self {
        let name = |name: &str| format!("apiserver_impersonation_{name}");
        Self {
            total: counters(registry, &name(total.0), total.1, &LABELS),
            durations: histograms(registry, &name(durations.0), durations.1, &LOGINS, &LABELS),
        }
    }

    fn count(&self, mode: &str, allowed: bool, took: Duration) {
        let labels = [mode, if allowed { "allowed" } else { "denied" }];
        self.total.with_label_values(&labels).inc();
        self.durations.with_label_values(&labels).observe(took.as_secs_f64());
    }
}
