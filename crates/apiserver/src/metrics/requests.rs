//! Metrics of requests: how many, how long, how large, and how they ended.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{Histogram, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::families::{Watched, Watches, counters, gauges, histograms};
use super::{DURATIONS, VALID};
use crate::registry::Target;
use crate::request::{Query, RequestInfo};

/// All requests, by upstream's names.
pub struct Requests {
    answered: IntCounterVec,
    durations: HistogramVec,
    sli_durations: HistogramVec,
    validations: HistogramVec,
    response_sizes: HistogramVec,
    bodies: HistogramVec,
    terminations: IntCounterVec,
    aborts: IntCounterVec,
    long_running: IntGaugeVec,
    inflight: IntGaugeVec,
    deprecated: IntGaugeVec,
    watches: Watches,
    /// Resources that have been answered about: paths that mean nothing must not make new time series.
    seen: RwLock<HashSet<(String, String)>>,
}

impl Requests {
    pub(super) fn new(registry: &Registry) -> Self {
        let all = ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"];
        let without_dry_run = [&all[..1], &all[2..8]].concat();
        Self {
            answered: counters(
                registry,
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
                &all,
            ),
            durations: histograms(
                registry,
                "apiserver_request_duration_seconds",
                "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
                &DURATIONS,
                &all[..8],
            ),
            sli_durations: histograms(
                registry,
                "apiserver_request_sli_duration_seconds",
                "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
                &DURATIONS[2..],
                &without_dry_run,
            ),
            validations: histograms(
                registry,
                "field_validation_request_duration_seconds",
                "Response latency distribution in seconds for each field validation value",
                &DURATIONS,
                &["field_validation"],
            ),
            response_sizes: histograms(
                registry,
                "apiserver_response_sizes",
                "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
                &prometheus::exponential_buckets(1000.0, 10.0, 7).expect(VALID),
                &without_dry_run,
            ),
            bodies: histograms(
                registry,
                "apiserver_request_body_size_bytes",
                "Apiserver request body size in bytes broken out by resource and verb.",
                &prometheus::linear_buckets(50_000.0, 100_000.0, 31).expect(VALID),
                &["group", "resource", "verb"],
            ),
            terminations: counters(
                registry,
                "apiserver_request_terminations_total",
                "Number of requests which apiserver terminated in self-defense.",
                &["verb", "group", "version", "resource", "subresource", "scope", "component", "code"],
            ),
            aborts: counters(
                registry,
                "apiserver_request_aborts_total",
                "Number of requests which apiserver aborted possibly due to a timeout, for each group, version, verb, resource, subresource and scope",
                &["verb", "group", "version", "resource", "subresource", "scope"],
            ),
            long_running: gauges(
                registry,
                "apiserver_longrunning_requests",
                "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
                &["verb", "group", "version", "resource", "subresource", "scope", "component"],
            ),
            inflight: gauges(
                registry,
                "apiserver_current_inflight_requests",
                "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
                &["request_kind"],
            ),
            deprecated: gauges(
                registry,
                "apiserver_requested_deprecated_apis",
                "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
                &["group", "version", "resource", "subresource", "removed_release"],
            ),
            watches: Watches::new(registry),
            seen: RwLock::default(),
        }
    }

    /// A request was answered. `queued` of the time it waited for a seat.
    pub fn answered(&self, info: &RequestInfo, facts: &RequestFacts, code: u16, took: Duration, queued: Duration) {
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
        self.answered.with_label_values(&with_code).inc();
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
    pub fn watch_list(&self, info: &RequestInfo) -> Histogram {
        self.watches.list(&info.group, &info.version, &info.resource, scope(info))
    }

    /// Where the size of the answer to a request that reads is counted.
    #[must_use]
    pub fn response_size(&self, info: &RequestInfo, code: u16) -> Option<Histogram> {
        if !info.is_resource || info.is_long_running() || !info.is_read_only() || code >= 400 {
            return None;
        }
        let values = [verb(info), &info.group, &info.version, &info.resource, &info.subresource, scope(info), "apiserver"];
        Some(self.response_sizes.with_label_values(&values))
    }

    /// A body of so many bytes came with a write.
    pub(crate) fn body(&self, target: &Target, write: Write, bytes: usize) {
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
    fn shown<'a>(&self, info: &'a RequestInfo, code: u16) -> Cow<'a, RequestInfo> {
        let key = || (info.group.clone(), info.resource.clone());
        if !info.is_resource || !self.seen.read().contains(&key()) {
            if info.is_resource && code < 400 {
                self.seen.write().insert(key());
            } else {
                return Cow::Owned(RequestInfo::default());
            }
        }
        Cow::Borrowed(info)
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
    pub fn of(query: &Query, headers: &http::HeaderMap) -> Self {
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
pub struct Held(IntGauge);

impl Held {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

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
    use std::sync::Arc;

    use futures::StreamExt;
    use http_body_util::BodyExt;
    use prometheus::TextEncoder;

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

    fn made() -> (Registry, Requests) {
        let registry = Registry::new();
        let requests = Requests::new(&registry);
        (registry, requests)
    }

    fn text(registry: &Registry) -> String {
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn ended_requests_are_counted_and_paths_that_mean_nothing_are_not_told_apart() {
        let (registry, requests) = made();
        requests.terminated(&info(), 429);
        let facts = RequestFacts::default();
        requests.answered(&info(), &facts, 200, Duration::ZERO, Duration::ZERO);
        requests.terminated(&info(), 504);
        let text = text(&registry);
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
        let (registry, requests) = made();
        let facts = RequestFacts::default();
        for path in ["/livez", "/openapi/v3/api/v1", "/apis", "/flagz", "/version", "/livez/ping", "/nope"] {
            let info = RequestInfo { path: path.into(), verb: "get".into(), ..RequestInfo::default() };
            requests.answered(&info, &facts, 200, Duration::ZERO, Duration::ZERO);
        }
        let text = text(&registry);
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
        let (registry, requests) = made();
        let requests = Arc::new(requests);
        for breaks in [true, false] {
            let chunks = (0..4).map(move |n| if breaks && n > 1 { Err("broken".into()) } else { Ok(bytes::Bytes::from("x")) });
            let mut body = Body::stream(futures::stream::iter(chunks));
            let counting = requests.clone();
            body.on_abort(move || counting.aborted(&info()));
            let frames = body.into_data_stream().collect::<Vec<_>>().await;
            assert_eq!(frames.len(), 4);
        }
        assert!(text(&registry).contains(
            "apiserver_request_aborts_total{group=\"\",resource=\"\",scope=\"\",subresource=\"\",verb=\"LIST\",version=\"\"} 1"
        ));
    }
}
