//! Families of metrics beside those of requests: who was let in, what admission and the store took, what was audited.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{DURATIONS, VALID};

/// Upstream's buckets of authentication, authorization and impersonation: a millisecond, doubled.
pub(crate) const LOGINS: [f64; 15] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// Upstream's buckets of the initial events of watches, in seconds.
const LISTS: [f64; 16] = [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 60.0];
/// Upstream's buckets of admission steps, in seconds.
const ADMISSION: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// Counters by labels, which `registry` shows.
pub(crate) fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let made = IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
    registry.register(Box::new(made.clone())).expect(VALID);
    made
}

/// Gauges by labels, which `registry` shows.
pub(crate) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let made = IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID);
    registry.register(Box::new(made.clone())).expect(VALID);
    made
}

/// Distributions by labels, which `registry` shows.
pub(crate) fn histograms(registry: &Registry, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    let made = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels).expect(VALID);
    registry.register(Box::new(made.clone())).expect(VALID);
    made
}

/// Who is it and may they.
pub struct Access {
    attempts: IntCounterVec,
    authenticated: HistogramVec,
    users: IntCounterVec,
    decisions: IntCounterVec,
    authorized: HistogramVec,
}

impl Access {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            attempts: counters(registry, "authentication_attempts", "Counter of authenticated attempts.", &["result"]),
            authenticated: histograms(
                registry,
                "authentication_duration_seconds",
                "Authentication duration in seconds broken out by result.",
                &LOGINS,
                &["result"],
            ),
            users: counters(
                registry,
                "authenticated_user_requests",
                "Counter of authenticated requests broken out by username.",
                &["username"],
            ),
            decisions: counters(
                registry,
                "authorization_attempts_total",
                "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
                &["result"],
            ),
            authorized: histograms(
                registry,
                "authorization_duration_seconds",
                "Authorization duration in seconds broken out by result.",
                &LOGINS,
                &["result"],
            ),
        }
    }

    /// Somebody showed credentials; `user` when they were good.
    pub fn authenticated(&self, user: Option<&str>, took: Duration) {
        let result = if user.is_some() { "success" } else { "failure" };
        self.attempts.with_label_values(&[result]).inc();
        self.authenticated.with_label_values(&[result]).observe(took.as_secs_f64());
        if let Some(user) = user {
            self.users.with_label_values(&[shown_user(user)]).inc();
        }
    }

    /// Somebody was or was not allowed to do something.
    pub fn authorized(&self, allowed: bool, took: Duration) {
        let result = if allowed { "allowed" } else { "no-opinion" };
        self.decisions.with_label_values(&[result]).inc();
        self.authorized.with_label_values(&[result]).observe(took.as_secs_f64());
    }
}

/// Names are many: only those of the system are told apart.
fn shown_user(name: &str) -> &str {
    match name {
        "admin" | "client" | "kube_proxy" | "kubelet" | "system:serviceaccount:kube-system:default" => name,
        name if name.contains('@') => "email_id",
        _ => "other",
    }
}

/// How long the store takes.
pub struct Storage {
    durations: HistogramVec,
    requests: IntCounterVec,
    errors: IntCounterVec,
}

impl Storage {
    pub(super) fn new(registry: &Registry) -> Self {
        let labels = ["operation", "group", "resource"];
        Self {
            durations: histograms(
                registry,
                "etcd_request_duration_seconds",
                "Etcd request latency in seconds for each operation and object type.",
                &DURATIONS,
                &labels,
            ),
            requests: counters(
                registry,
                "etcd_requests_total",
                "Etcd request counts for each operation and object type.",
                &labels,
            ),
            errors: counters(
                registry,
                "etcd_request_errors_total",
                "Etcd failed request counts for each operation and object type.",
                &labels,
            ),
        }
    }

    /// A write was acknowledged, or was not. That another writer was faster is no failure of the store.
    pub fn wrote(&self, operation: &str, group: &str, resource: &str, took: Duration, failed: bool) {
        let labels = [operation, group, resource];
        self.requests.with_label_values(&labels).inc();
        self.durations.with_label_values(&labels).observe(took.as_secs_f64());
        if failed {
            self.errors.with_label_values(&labels).inc();
        }
    }
}

/// What is written to the audit log.
#[derive(Clone)]
pub struct Audited {
    events: IntCounterVec,
    levels: IntCounterVec,
    errors: IntCounterVec,
    rejected: IntCounterVec,
}

impl Audited {
    pub(super) fn new(registry: &Registry) -> Self {
        let audited = Self {
            events: counters(
                registry,
                "apiserver_audit_event_total",
                "Counter of audit events generated and sent to the audit backend.",
                &[],
            ),
            levels: counters(
                registry,
                "apiserver_audit_level_total",
                "Counter of policy levels for audit events (1 per request).",
                &["level"],
            ),
            errors: counters(
                registry,
                "apiserver_audit_error_total",
                "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
                &["plugin"],
            ),
            rejected: counters(
                registry,
                "apiserver_audit_requests_rejected_total",
                "Counter of apiserver requests rejected due to an error in audit logging backend.",
                &[],
            ),
        };
        // Shown from the start, so that nobody takes their absence for silence.
        audited.events.with_label_values::<&str>(&[]).inc_by(0);
        audited.rejected.with_label_values::<&str>(&[]).inc_by(0);
        audited
    }

    /// A request was judged by the policy.
    pub fn level(&self, level: &str) {
        self.levels.with_label_values(&[level]).inc();
    }

    /// An event goes to the log.
    pub fn event(&self) {
        self.events.with_label_values::<&str>(&[]).inc();
    }

    /// So many events were lost by a part of the audit: `log`, `webhook`, `buffered`, `truncate`.
    pub fn lost(&self, part: &str, events: u64) {
        self.errors.with_label_values(&[part]).inc_by(events);
    }

    /// A request was refused, as its event did not get to the log.
    pub fn rejected(&self) {
        self.rejected.with_label_values::<&str>(&[]).inc();
    }
}

/// How long admission takes, as a whole and by plugin.
pub struct Admission {
    steps: Timed,
    plugins: HistogramVec,
}

/// The histograms of a step or a plugin by what was done: made on first use, and then at hand.
pub struct Timed {
    vec: HistogramVec,
    name: Option<&'static str>,
    made: [OnceLock<Histogram>; 16],
}

impl Admission {
    /// Families that are shown by `registry`.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let steps = histograms(
            registry,
            "apiserver_admission_step_admission_duration_seconds",
            "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
            &ADMISSION,
            &["type", "operation", "rejected"],
        );
        let plugins = histograms(
            registry,
            "apiserver_admission_controller_admission_duration_seconds",
            "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
            &ADMISSION,
            &["name", "type", "operation", "rejected"],
        );
        Self { steps: Timed { vec: steps, name: None, made: Default::default() }, plugins }
    }

    /// Of all plugins together.
    #[must_use]
    pub fn steps(&self) -> &Timed {
        &self.steps
    }

    /// Of one plugin.
    #[must_use]
    pub fn plugin(&self, name: &'static str) -> Timed {
        Timed { vec: self.plugins.clone(), name: Some(name), made: Default::default() }
    }
}

impl Timed {
    /// A pass is over.
    pub fn observe(&self, judging: bool, operation: crate::admission::Operation, rejected: bool, took: Duration) {
        use crate::admission::Operation::{Connect, Create, Delete, Update};
        let (at, operation) = match operation {
            Create => (0, "CREATE"),
            Update => (1, "UPDATE"),
            Delete => (2, "DELETE"),
            Connect => (3, "CONNECT"),
        };
        let at = at * 4 + usize::from(judging) * 2 + usize::from(rejected);
        let histogram = self.made[at].get_or_init(|| {
            let kind = if judging { "validate" } else { "admit" };
            let rejected = if rejected { "true" } else { "false" };
            match self.name {
                Some(name) => self.vec.with_label_values(&[name, kind, operation, rejected]),
                None => self.vec.with_label_values(&[kind, operation, rejected]),
            }
        });
        histogram.observe(took.as_secs_f64());
    }
}

/// Events that watches send, by resource.
pub(super) struct Watches {
    lists: HistogramVec,
    events: IntCounterVec,
    sizes: HistogramVec,
}

/// Those of one watch: what it has not told yet of its own, so that the counters that all watches share are written to once for
/// many events.
#[derive(Clone, Debug)]
pub struct Watched {
    events: LocalIntCounter,
    sizes: LocalHistogram,
}

impl Watches {
    pub(super) fn new(registry: &Registry) -> Self {
        let labels = ["group", "version", "resource"];
        let buckets = prometheus::exponential_buckets(1024.0, 2.0, 8).expect(VALID);
        Self {
            lists: histograms(
                registry,
                "apiserver_watch_list_duration_seconds",
                "Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.",
                &LISTS,
                &["group", "version", "resource", "scope"],
            ),
            events: counters(registry, "apiserver_watch_events_total", "Number of events sent in watch clients", &labels),
            sizes: histograms(
                registry,
                "apiserver_watch_events_sizes",
                "Watch event size distribution in bytes",
                &buckets,
                &labels,
            ),
        }
    }

    pub(super) fn list(&self, group: &str, version: &str, resource: &str, scope: &str) -> Histogram {
        self.lists.with_label_values(&[group, version, resource, scope])
    }

    pub(super) fn of(&self, group: &str, version: &str, resource: &str) -> Watched {
        let labels = [group, version, resource];
        Watched { events: self.events.with_label_values(&labels).local(), sizes: self.sizes.with_label_values(&labels).local() }
    }
}

impl Watched {
    /// An event of an object of so many bytes was sent.
    pub fn sent(&self, bytes: usize) {
        self.events.inc();
        self.sizes.observe(bytes as f64);
    }

    /// Tells of what was sent.
    pub fn flush(&self) {
        self.events.flush();
        self.sizes.flush();
    }
}
