//! How checks of health went (KEP-3466). They have a registry of their own, as their page is read much more often than the rest.

use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::{counters, gauges};

/// Results of checks, by name and endpoint.
pub struct Health {
    registry: Registry,
    last: IntGaugeVec,
    total: IntCounterVec,
}

impl Health {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let help = "This metric records the result of a single healthcheck.";
        let last = gauges(&registry, "kubernetes_healthcheck", help, &["name", "type"]);
        let help = "This metric records the results of all healthcheck.";
        let total = counters(&registry, "kubernetes_healthchecks_total", help, &["name", "status", "type"]);
        Self { registry, last, total }
    }

    /// The check `name` was made for `endpoint`.
    pub fn checked(&self, name: &str, endpoint: &str, good: bool) {
        self.last.with_label_values(&[name, endpoint]).set(good.into());
        let status = if good { "success" } else { "error" };
        self.total.with_label_values(&[name, status, endpoint]).inc();
    }

    /// What was counted.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}
