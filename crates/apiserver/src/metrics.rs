//! `/metrics`: counters, gauges and histograms in the Prometheus text format, by upstream's names.

mod families;
mod health;
mod parts;
mod process;
mod stability;

use families::Watches;
pub use families::{Access, Admission, Audited, Storage, Timed, Watched};
pub(crate) use families::{counters, histograms};
pub use health::Health;
use parts::{Caches, Services};
pub use parts::{Filters, Listener};
use process::Process;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use prometheus::proto::MetricFamily;

use corten_api::status::Status;

use crate::config::Config;
use crate::discovery::{GIT_VERSION, VERSION};
use crate::pipeline::Call;
use crate::request::RequestInfo;
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
    for resource in state.catalogue().all().iter().filter(|resource| !resource.storage.hash.is_empty()) {
        let count = state.reader.snapshot(&resource.group, &resource.plural).len();
        let labels = [resource.group.as_str(), resource.plural.as_str()];
        metrics.storage_objects.with_label_values(&[&resource.qualified()]).set(count as i64);
        metrics.resource_objects.with_label_values(&labels).set(count as i64);
    }
    metrics.caches.read(&state.caches);
    metrics.services.read(&state.allocators);
    if let Ok(size) = state.store.size().await {
        metrics.storage_size.with_label_values(&["store-0"]).set(size as f64);
    }
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
    requests: IntCounterVec,
    durations: HistogramVec,
    sli_durations: HistogramVec,
    response_sizes: HistogramVec,
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
    services: Services,
    watches: Watches,
    terminations: IntCounterVec,
    aborts: IntCounterVec,
    validations: HistogramVec,
    long_running: IntGaugeVec,
    inflight: IntGaugeVec,
    deprecated: IntGaugeVec,
    storage_objects: IntGaugeVec,
    resource_objects: IntGaugeVec,
    storage_size: GaugeVec,
    bodies: HistogramVec,
    process: Process,
    /// Resources that have been answered about: paths that mean nothing must not make new time series.
    seen: RwLock<HashSet<(String, String)>>,
}

impl Metrics {
    /// All metrics, at zero.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let registry = Registry::new();
        let request = ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"];
        let requests = IntCounterVec::new(
            Opts::new(
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
            ),
            &request,
        );
        let histogram = HistogramOpts::new(
            "apiserver_request_duration_seconds",
            "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        );
        let durations = HistogramVec::new(histogram.buckets(DURATIONS.to_vec()), &request[..8]);
        let without_dry_run = [&request[..1], &request[2..8]].concat();
        let sli = HistogramOpts::new(
            "apiserver_request_sli_duration_seconds",
            "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
        );
        let sli = HistogramVec::new(sli.buckets(DURATIONS[2..].to_vec()), &without_dry_run);
        let sizes = HistogramOpts::new(
            "apiserver_response_sizes",
            "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
        );
        let sizes =
            HistogramVec::new(sizes.buckets(prometheus::exponential_buckets(1000.0, 10.0, 7).expect(VALID)), &without_dry_run);
        let gauges = |name, help, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID);
        let counters = |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels).expect(VALID);
        let info = IntGaugeVec::new(
            Opts::new("kubernetes_build_info", "A metric with a constant '1' value labeled by major, minor, git version."),
            &["major", "minor", "git_version"],
        )
        .expect(VALID);
        info.with_label_values(&["1", "36", GIT_VERSION]).set(1);
        let versions = IntGaugeVec::new(
            Opts::new(
                "version_info",
                "Provides the compatibility version info of the component. The component label is the name of the component, usually kube, but is relevant for aggregated-apiservers.",
            ),
            &["component", "binary", "emulation", "min_compat"],
        )
        .expect(VALID);
        versions.with_label_values(&["kube", VERSION, VERSION, "1.35"]).set(1);
        let metrics = Self {
            requests: requests.expect(VALID),
            durations: durations.expect(VALID),
            sli_durations: sli.expect(VALID),
            response_sizes: sizes.expect(VALID),
            access: Access::new(&registry),
            storage: Storage::new(&registry),
            audited: Audited::new(&registry),
            health: Health::new(),
            listener: Listener::new(&registry),
            filters: Filters::new(&registry),
            caches: Caches::new(&registry),
            services: Services::new(&registry),
            watches: Watches::new(&registry),
            terminations: counters(
                "apiserver_request_terminations_total",
                "Number of requests which apiserver terminated in self-defense.",
                &["verb", "group", "version", "resource", "subresource", "scope", "component", "code"],
            ),
            aborts: counters(
                "apiserver_request_aborts_total",
                "Number of requests which apiserver aborted possibly due to a timeout, for each group, version, verb, resource, subresource and scope",
                &["verb", "group", "version", "resource", "subresource", "scope"],
            ),
            long_running: gauges(
                "apiserver_longrunning_requests",
                "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
                &["verb", "group", "version", "resource", "subresource", "scope", "component"],
            ),
            inflight: gauges(
                "apiserver_current_inflight_requests",
                "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
                &["request_kind"],
            ),
            deprecated: gauges(
                "apiserver_requested_deprecated_apis",
                "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
                &["group", "version", "resource", "subresource", "removed_release"],
            ),
            storage_objects: gauges(
                "apiserver_storage_objects",
                "[DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
                &["resource"],
            ),
            resource_objects: gauges(
                "apiserver_resource_objects",
                "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
                &["group", "resource"],
            ),
            storage_size: GaugeVec::new(
                Opts::new("apiserver_storage_size_bytes", "Size of the storage database file physically allocated in bytes."),
                &["storage_cluster_id"],
            )
            .expect(VALID),
            validations: histograms(
                &registry,
                "field_validation_request_duration_seconds",
                "Response latency distribution in seconds for each field validation value",
                &DURATIONS,
                &["field_validation"],
            ),
            bodies: histograms(
                &registry,
                "apiserver_request_body_size_bytes",
                "Apiserver request body size in bytes broken out by resource and verb.",
                &prometheus::linear_buckets(50_000.0, 100_000.0, 31).expect(VALID),
                &["group", "resource", "verb"],
            ),
            process: Process::new(&registry),
            seen: RwLock::default(),
            registry,
        };
        crate::features::show(&metrics.registry, config);
        for collector in [
            Box::new(metrics.requests.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(metrics.durations.clone()),
            Box::new(metrics.sli_durations.clone()),
            Box::new(metrics.response_sizes.clone()),
            Box::new(metrics.terminations.clone()),
            Box::new(metrics.aborts.clone()),
            Box::new(metrics.long_running.clone()),
            Box::new(metrics.inflight.clone()),
            Box::new(metrics.deprecated.clone()),
            Box::new(metrics.storage_objects.clone()),
            Box::new(metrics.resource_objects.clone()),
            Box::new(metrics.storage_size.clone()),
            Box::new(info),
            Box::new(versions),
        ] {
            metrics.registry.register(collector).expect(VALID);
        }
        metrics
    }

    /// Where parts of the server add metrics of their own.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A request was answered. `queued` of the time it waited for a seat.
    pub fn request(&self, info: &RequestInfo, facts: &RequestFacts, code: u16, took: Duration, queued: Duration) {
        let shown = self.shown(info, code);
        let verb = if facts.is_apply && info.verb == "patch" { "APPLY" } else { verb(info) };
        let (resource, subresource, component) = match info.is_resource {
            true => (shown.resource.as_str(), shown.subresource.as_str(), "apiserver"),
            false => match page(&info.path) {
                Some(page) => page,
                None => return,
            },
        };
        let values = [verb, facts.dry_run, &shown.group, &shown.version, resource, subresource, scope(&shown), component];
        let code = code.to_string();
        let mut with_code = values.to_vec();
        with_code.push(&code);
        self.requests.with_label_values(&with_code).inc();
        // What goes on for as long as the client likes has no latency.
        if !info.is_long_running() {
            self.validations.with_label_values(&[facts.field_validation]).observe(took.as_secs_f64());
            self.durations.with_label_values(&values).observe(took.as_secs_f64());
            let without_dry_run = [verb, values[2], values[3], values[4], values[5], values[6], values[7]];
            self.sli_durations.with_label_values(&without_dry_run).observe(took.saturating_sub(queued).as_secs_f64());
        }
    }

    /// A request was ended in self-defence: rejected, or it took too long.
    pub fn terminated(&self, info: &RequestInfo, code: u16) {
        let shown = self.shown(info, code);
        let code = code.to_string();
        let labels = labels(info, &shown);
        self.terminations.with_label_values(&[&labels[..], &["apiserver", &code]].concat()).inc();
    }

    /// An answer broke off.
    pub fn aborted(&self, info: &RequestInfo) {
        let shown = self.shown(info, 500);
        self.aborts.with_label_values(&labels(info, &shown)).inc();
    }

    /// Where the events of a watch are counted.
    #[must_use]
    pub fn watched(&self, info: &RequestInfo) -> Watched {
        self.watches.of(&info.group, &info.version, &info.resource)
    }

    /// Where it is told how long a watch took to send what there was at its start.
    #[must_use]
    pub fn watch_list(&self, info: &RequestInfo) -> prometheus::Histogram {
        self.watches.list(&info.group, &info.version, &info.resource, scope(info))
    }

    /// Where the size of the answer to a request that reads is counted.
    #[must_use]
    pub fn response_size(&self, info: &RequestInfo, code: u16) -> Option<prometheus::Histogram> {
        if !info.is_resource || info.is_long_running() || !info.is_read_only() || code >= 400 {
            return None;
        }
        let values = [verb(info), &info.group, &info.version, &info.resource, &info.subresource, scope(info), "apiserver"];
        Some(self.response_sizes.with_label_values(&values))
    }

    /// A body of so many bytes came with a write.
    pub(crate) fn body(&self, target: &crate::registry::Target, write: Write, bytes: usize) {
        let Some(cache) = &target.cache else { return };
        let (at, verb) = match write {
            Write::Create => (0, "create"),
            Write::Update => (1, "update"),
            Write::Patch => (2, "patch"),
        };
        let labels = [target.resource.group.as_str(), &target.resource.plural, verb];
        let histogram = cache.tally().bodies[at].get_or_init(|| self.bodies.with_label_values(&labels));
        histogram.observe(bytes as f64);
    }

    /// A request that is not long-running is being worked on, until the value is dropped.
    pub fn inflight(&self, info: &RequestInfo) -> Held {
        let kind = if info.is_read_only() { "readOnly" } else { "mutating" };
        Held::new(self.inflight.with_label_values(&[kind]))
    }

    /// A resource was asked for that is deprecated, and of which nobody has said yet when it goes.
    pub fn deprecated(&self, info: &RequestInfo) {
        let values = [info.group.as_str(), &info.version, &info.resource, &info.subresource, ""];
        self.deprecated.with_label_values(&values).set(1);
    }

    /// A long-running request is under way, until the value is dropped.
    pub fn long_running(&self, info: &RequestInfo) -> Held {
        let values = [verb(info), &info.group, &info.version, &info.resource, &info.subresource, scope(info), "apiserver"];
        Held::new(self.long_running.with_label_values(&values))
    }

    /// The request as labels show it: what nobody has ever found is shown as nothing.
    fn shown<'a>(&self, info: &'a RequestInfo, code: u16) -> std::borrow::Cow<'a, RequestInfo> {
        let key = || (info.group.clone(), info.resource.clone());
        if !info.is_resource || !self.seen.read().contains(&key()) {
            if info.is_resource && code < 400 {
                self.seen.write().insert(key());
            } else {
                return std::borrow::Cow::Owned(RequestInfo::default());
            }
        }
        std::borrow::Cow::Borrowed(info)
    }
}

/// A write with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// `POST`
    Create,
    /// `PUT`
    Update,
    /// `PATCH`
    Patch,
}

/// The family under another name: upstream shows it under the one that it had before, too.
fn renamed(families: &[MetricFamily], from: &str, to: &str) -> Option<MetricFamily> {
    let mut family = families.iter().find(|family| family.name() == from)?.clone();
    family.set_name(to.to_owned());
    Some(family)
}

/// What metrics tell of a request beside what it asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestFacts {
    /// `All`, empty, or `invalid`.
    pub dry_run: &'static str,
    /// Whether a patch is an apply.
    pub is_apply: bool,
    /// What is to become of unknown fields: `Ignore`, `Warn`, `Strict`, empty, or `invalid`.
    pub field_validation: &'static str,
}

impl RequestFacts {
    /// Reads the query and the headers.
    #[must_use]
    pub fn of(query: &crate::request::Query, headers: &http::HeaderMap) -> Self {
        let dry_run = match query.all("dryRun").collect::<Vec<_>>().as_slice() {
            [] => "",
            all if all.iter().all(|one| *one == "All") => "All",
            _ => "invalid",
        };
        let kind = headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let field_validation = match query.all("fieldValidation").collect::<Vec<_>>().as_slice() {
            [] => "",
            [one] => ["", "Ignore", "Warn", "Strict"].into_iter().find(|known| known == one).unwrap_or("invalid"),
            _ => "invalid",
        };
        Self { dry_run, is_apply: kind.starts_with("application/apply-patch+"), field_validation }
    }
}

/// Counts one in a gauge until it is dropped.
#[must_use]
#[derive(Debug)]
pub struct Held(prometheus::IntGauge);

impl Held {
    fn new(gauge: prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub(crate) const VALID: &str = "names and labels are fixed and distinct";

/// Verb, group, version, resource, subresource and scope.
fn labels<'a>(info: &RequestInfo, shown: &'a RequestInfo) -> [&'a str; 6] {
    [verb(info), &shown.group, &shown.version, &shown.resource, &shown.subresource, scope(shown)]
}

/// Resource, subresource and component of a path that is no resource's. Upstream counts some of them, each in its own way.
fn page(path: &str) -> Option<(&str, &str, &'static str)> {
    match path {
        "/healthz" | "/livez" | "/readyz" => Some(("", path, "")),
        "/openapi/v3" => Some(("", "openapi/v3", "")),
        path if path.starts_with("/openapi/v3/") => Some(("", "openapi/v3/", "")),
        "/api" | "/api/" => Some(("", "api", "apiserver")),
        "/apis" | "/apis/" => Some(("", "apis", "apiserver")),
        "/flagz" | "/statusz" => Some((&path[1..], "", "apiserver")),
        _ => None,
    }
}

/// The verb as metrics have it.
fn verb(info: &RequestInfo) -> &'static str {
    if info.is_resource && matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy") {
        return "CONNECT";
    }
    match info.verb.as_str() {
        "get" | "head" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" | "deletecollection" => "DELETE",
        "proxy" | "connect" => "CONNECT",
        _ => "other",
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    match info {
        RequestInfo { is_resource: false, .. } => "",
        RequestInfo { name, verb, .. } if !name.is_empty() || verb == "create" => "resource",
        RequestInfo { namespace, .. } if !namespace.is_empty() => "namespace",
        _ => "cluster",
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body_util::BodyExt;

    use super::*;
    use crate::response::Body;

    fn info() -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: "list".into(),
            version: "v1".into(),
            resource: "pods".into(),
            ..RequestInfo::default()
        }
    }

    fn text(metrics: &Metrics) -> String {
        TextEncoder::new().encode_to_string(&metrics.registry.gather()).unwrap()
    }

    #[test]
    fn a_family_is_shown_under_its_former_name_too() {
        let metrics = Metrics::new(&Config::new(""));
        let facts = RequestFacts::default();
        metrics.request(&info(), &facts, 200, Duration::from_millis(70), Duration::ZERO);
        let families = metrics.registry.gather();
        let former = renamed(&families, "apiserver_request_sli_duration_seconds", "apiserver_request_slo_duration_seconds");
        let former = TextEncoder::new().encode_to_string(&[former.unwrap()]).unwrap();
        assert!(former.contains("apiserver_request_slo_duration_seconds_count{") && former.contains("le=\"0.1\"} 1"));
        assert!(renamed(&families, "nothing", "x").is_none());
    }

    #[test]
    fn ended_requests_are_counted_and_paths_that_mean_nothing_are_not_told_apart() {
        let metrics = Metrics::new(&Config::new(""));
        metrics.terminated(&info(), 429);
        let facts = RequestFacts::default();
        metrics.request(&info(), &facts, 200, Duration::ZERO, Duration::ZERO);
        metrics.terminated(&info(), 504);
        let text = text(&metrics);
        let counted = |resource: &str, version: &str, scope: &str, code: &str| {
            let labels = format!(
                "code=\"{code}\",component=\"apiserver\",group=\"\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"\",verb=\"LIST\",version=\"{version}\""
            );
            text.contains(&format!("apiserver_request_terminations_total{{{labels}}} 1"))
        };
        assert!(counted("", "", "", "429") && counted("pods", "v1", "cluster", "504"), "{text}");
    }

    #[test]
    fn paths_that_are_no_resources_are_counted_as_upstream_counts_them() {
        let metrics = Metrics::new(&Config::new(""));
        let facts = RequestFacts::default();
        for path in ["/livez", "/openapi/v3/api/v1", "/apis", "/flagz", "/version", "/livez/ping", "/nope"] {
            let info = RequestInfo { path: path.into(), verb: "get".into(), ..RequestInfo::default() };
            metrics.request(&info, &facts, 200, Duration::ZERO, Duration::ZERO);
        }
        let text = text(&metrics);
        let lines = text.lines().filter(|line| line.starts_with("apiserver_request_total{"));
        let label = |line: &str, name: &str| {
            line.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
        };
        let mut counted: Vec<_> =
            lines.map(|line| ["component", "resource", "subresource"].map(|name| label(line, name)).join(" ")).collect();
        counted.sort_unstable();
        assert_eq!(counted, ["  /livez", "  openapi/v3/", "apiserver  apis", "apiserver flagz "]);
        let create = RequestInfo { verb: "create".into(), ..info() };
        assert_eq!((verb(&create), scope(&create)), ("POST", "resource"));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_counted_once() {
        let metrics = Arc::new(Metrics::new(&Config::new("")));
        for breaks in [true, false] {
            let chunks = (0..4).map(move |n| if breaks && n > 1 { Err("broken".into()) } else { Ok(bytes::Bytes::from("x")) });
            let mut body = Body::stream(futures::stream::iter(chunks));
            let counting = metrics.clone();
            body.on_abort(move || counting.aborted(&info()));
            let frames = body.into_data_stream().collect::<Vec<_>>().await;
            assert_eq!(frames.len(), 4);
        }
        assert!(text(&metrics).contains(
            "apiserver_request_aborts_total{group=\"\",resource=\"\",scope=\"\",subresource=\"\",verb=\"LIST\",version=\"\"} 1"
        ));
    }
}
