//! `/metrics`: counters, gauges and histograms in the Prometheus text format, by upstream's names.

mod families;
mod health;
mod parts;
mod process;
mod requests;
mod stability;

pub use families::{Access, Admission, Audited, Storage, Timed, Watched};
pub(crate) use families::{LOGINS, counters, gauges, histograms};
pub use health::Health;
use parts::{Caches, Objects, Services};
pub use parts::{Filters, Listener};
use process::Process;
pub(crate) use requests::Write;
pub use requests::{Held, RequestFacts, Requests};

use std::sync::Arc;

use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Registry, TextEncoder};

use corten_api::status::Status;

use crate::config::Config;
use crate::discovery::{GIT_VERSION, VERSION};
use crate::pipeline::Call;
use crate::response::{self, Response};
use crate::state::State;

/// Upstream's buckets of request durations, in seconds.
const DURATIONS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// Answers `/metrics`.
///
/// # Errors
/// 500 when the metrics cannot be written.
pub async fn serve(state: &Arc<State>, _call: &Call) -> Result<Response, Status> {
    let metrics = &state.metrics;
    metrics.objects.read(state).await;
    metrics.caches.read(&state.caches);
    metrics.services.read(&state.allocators);
    state.flow.read_metrics();
    metrics.process.read();
    let mut families = metrics.registry.gather();
    // What clients and controllers in this process count is in the registry of the process.
    let theirs = |family: &MetricFamily| ["rest_client_", "workqueue_"].iter().any(|prefix| family.name().starts_with(prefix));
    families.extend(prometheus::gather().into_iter().filter(theirs));
    // Old names of the same.
    families.extend(renamed(&families, "apiserver_request_sli_duration_seconds", "apiserver_request_slo_duration_seconds"));
    let seats = "apiserver_flowcontrol_current_executing_seats";
    families.extend(renamed(&families, seats, "apiserver_flowcontrol_request_concurrency_in_use"));
    exposition(families)
}

/// Metrics as text, each with its level of stability.
///
/// # Errors
/// 500 when they cannot be written.
pub(crate) fn exposition(mut families: Vec<MetricFamily>) -> Result<Response, Status> {
    stability::mark(&mut families);
    let mut body = Vec::new();
    TextEncoder::new().encode(&families, &mut body).map_err(|err| Status::internal(err.to_string()))?;
    Ok(response::bytes(200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", body))
}

/// Counters and histograms by upstream's names.
pub struct Metrics {
    registry: Registry,
    /// Requests, one by one.
    pub requests: Requests,
    /// Authentication and authorization.
    pub access: Access,
    /// The store.
    pub storage: Storage,
    /// Audit.
    pub audited: Audited,
    /// Checks of health.
    pub health: Health,
    /// What the listener refuses.
    pub listener: Listener,
    /// Parts of the way of a request.
    pub filters: Filters,
    caches: Caches,
    objects: Objects,
    services: Services,
    process: Process,
}

impl Metrics {
    /// All metrics, at zero.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let registry = Registry::new();
        show_versions(&registry);
        crate::features::show(&registry, config);
        Self {
            requests: Requests::new(&registry),
            access: Access::new(&registry),
            storage: Storage::new(&registry),
            audited: Audited::new(&registry),
            health: Health::new(),
            listener: Listener::new(&registry),
            filters: Filters::new(&registry),
            caches: Caches::new(&registry),
            objects: Objects::new(&registry),
            services: Services::new(&registry),
            process: Process::new(&registry),
            registry,
        }
    }

    /// Where parts of the server add metrics of their own.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// What this server is.
fn show_versions(registry: &Registry) {
    gauges(
        registry,
        "kubernetes_build_info",
        "A metric with a constant '1' value labeled by major, minor, git version.",
        &["major", "minor", "git_version"],
    )
    .with_label_values(&["1", "36", GIT_VERSION])
    .set(1);
    gauges(
        registry,
        "version_info",
        "Provides the compatibility version info of the component. The component label is the name of the component, usually kube, but is relevant for aggregated-apiservers.",
        &["component", "binary", "emulation", "min_compat"],
    )
    .with_label_values(&["kube", VERSION, VERSION, "1.35"])
    .set(1);
}

/// The family under another name: upstream shows it under the one that it had before, too.
fn renamed(families: &[MetricFamily], from: &str, to: &str) -> Option<MetricFamily> {
    let mut family = families.iter().find(|family| family.name() == from)?.clone();
    family.set_name(to.to_owned());
    Some(family)
}

pub(crate) const VALID: &str = "names and labels are fixed and distinct";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::request::RequestInfo;

    #[test]
    fn a_family_is_shown_under_its_former_name_too() {
        let metrics = Metrics::new(&Config::new(""));
        let info = RequestInfo { path: "/livez".into(), verb: "get".into(), ..RequestInfo::default() };
        metrics.requests.answered(&info, &RequestFacts::default(), 200, Duration::from_millis(70), Duration::ZERO);
        let families = metrics.registry.gather();
        let former = renamed(&families, "apiserver_request_sli_duration_seconds", "apiserver_request_slo_duration_seconds");
        let former = TextEncoder::new().encode_to_string(&[former.unwrap()]).unwrap();
        assert!(former.contains("apiserver_request_slo_duration_seconds_count{") && former.contains("le=\"0.1\"} 1"));
        assert!(renamed(&families, "nothing", "x").is_none());
    }
}
