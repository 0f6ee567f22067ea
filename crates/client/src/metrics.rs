//! What clients count of their requests and work queues, by the names of upstream's client library (`rest_client_*`,
//! `workqueue_*`). All of a process count in its default registry, for whoever in it answers `/metrics`.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Method, Request, Response, header};
use http_body::Body as _;
use kube::client::Body;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use tower::{Layer, Service};

/// Upstream's buckets of latencies, in seconds.
const SECONDS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
/// Upstream's buckets of sizes, in bytes.
const BYTES: [f64; 11] =
    [64.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// Makes services count what goes through them.
#[derive(Clone, Debug)]
pub(crate) struct Counting {
    host: Arc<str>,
}

impl Counting {
    /// Of requests to `host`.
    pub(crate) fn of(host: &str) -> Self {
        Self { host: host.into() }
    }

    /// Of requests to the server that a configuration names.
    pub(crate) fn to(url: &http::Uri) -> Self {
        Self::of(url.authority().map_or("", |authority| authority.as_str()))
    }
}

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, host: self.host.clone() }
    }
}

/// A service whose requests are counted.
#[derive(Clone, Debug)]
pub(crate) struct Counted<S> {
    inner: S,
    host: Arc<str>,
}

impl<S, B> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: http_body::Body,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let families = &*FAMILIES;
        let (method, host) = (method(request.method()), self.host.clone());
        if let Some(size) = request.body().size_hint().exact() {
            families.sent.with_label_values(&[method, &host]).observe(size as f64);
        }
        let started = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            families.took.with_label_values(&[method, &host]).observe(started.elapsed().as_secs_f64());
            let code = match &answer {
                Ok(response) => response.status().as_str().to_owned(),
                Err(_) => "<error>".to_owned(),
            };
            families.requests.with_label_values(&[&code, method, &host]).inc();
            if let Some(size) = answer.as_ref().ok().and_then(size) {
                families.received(method, &host).observe(size as f64);
            }
            answer
        })
    }
}

/// Bytes of an answer, when they are known before it is read.
fn size<B: http_body::Body>(response: &Response<B>) -> Option<u64> {
    let told = || response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    response.body().size_hint().exact().or_else(told)
}

struct Families {
    requests: IntCounterVec,
    took: HistogramVec,
    sent: HistogramVec,
    received: HistogramVec,
}

impl Families {
    fn received(&self, method: &str, host: &str) -> Histogram {
        self.received.with_label_values(&[method, host])
    }
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    const VALID: &str = "names and labels are fixed, and registered once";
    let histograms = |name: &str, help: &str, buckets: &[f64]| {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let made = HistogramVec::new(options, &["verb", "host"]).expect(VALID);
        prometheus::register(Box::new(made.clone())).expect(VALID);
        made
    };
    let requests = IntCounterVec::new(
        Opts::new("rest_client_requests_total", "Number of HTTP requests, partitioned by status code, method, and host."),
        &["code", "method", "host"],
    )
    .expect(VALID);
    prometheus::register(Box::new(requests.clone())).expect(VALID);
    Families {
        requests,
        took: histograms(
            "rest_client_request_duration_seconds",
            "Request latency in seconds. Broken down by verb, and host.",
            &SECONDS,
        ),
        sent: histograms("rest_client_request_size_bytes", "Request size in bytes. Broken down by verb and host.", &BYTES),
        received: histograms("rest_client_response_size_bytes", "Response size in bytes. Broken down by verb and host.", &BYTES),
    }
});

/// What is counted of one work queue (`workqueue_*`).
pub(crate) struct QueueMetrics {
    pub(crate) adds: IntCounter,
    pub(crate) depth: IntGauge,
    pub(crate) retries: IntCounter,
    /// How long keys wait for a worker.
    pub(crate) waited: Histogram,
    /// How long workers have them.
    pub(crate) worked: Histogram,
}

impl QueueMetrics {
    /// Of the queue of a name.
    pub(crate) fn of(name: &str) -> Self {
        let queues = &*QUEUES;
        Self {
            adds: queues.adds.with_label_values(&[name]),
            depth: queues.depth.with_label_values(&[name]),
            retries: queues.retries.with_label_values(&[name]),
            waited: queues.waited.with_label_values(&[name]),
            worked: queues.worked.with_label_values(&[name]),
        }
    }
}

struct Queues {
    adds: IntCounterVec,
    depth: IntGaugeVec,
    retries: IntCounterVec,
    waited: HistogramVec,
    worked: HistogramVec,
}

static QUEUES: LazyLock<Queues> = LazyLock::new(|| {
    const VALID: &str = "names and labels are fixed, and registered once";
    let counters = |name: &str, help: &str| {
        let made = IntCounterVec::new(Opts::new(name, help), &["name"]).expect(VALID);
        prometheus::register(Box::new(made.clone())).expect(VALID);
        made
    };
    let histograms = |name: &str, help: &str| {
        let buckets = prometheus::exponential_buckets(1e-8, 10.0, 10).expect(VALID);
        let made = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &["name"]).expect(VALID);
        prometheus::register(Box::new(made.clone())).expect(VALID);
        made
    };
    let depth = IntGaugeVec::new(Opts::new("workqueue_depth", "Current depth of workqueue"), &["name"]).expect(VALID);
    prometheus::register(Box::new(depth.clone())).expect(VALID);
    Queues {
        adds: counters("workqueue_adds_total", "Total number of adds handled by workqueue"),
        depth,
        retries: counters("workqueue_retries_total", "Total number of retries handled by workqueue"),
        waited: histograms(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested.",
        ),
        worked: histograms("workqueue_work_duration_seconds", "How long in seconds processing an item from workqueue takes."),
    }
});

/// The method as a label; what nobody sends is one.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Full;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn requests_are_counted_by_code_method_and_host() {
        let service = tower::service_fn(|_: Request<Body>| async {
            let body = Full::new(bytes::Bytes::from_static(b"not here"));
            Ok::<_, Infallible>(Response::builder().status(404).body(body).expect("a response"))
        });
        let service = Counting::to(&http::Uri::from_static("https://counted.test:6443/x")).layer(service);
        let request = Request::get("/api").body(Body::empty()).expect("a request");
        assert_eq!(service.oneshot(request).await.expect("an answer").status(), 404);
        let host = "counted.test:6443";
        assert_eq!(FAMILIES.requests.with_label_values(&["404", "GET", host]).get(), 1);
        assert_eq!(FAMILIES.took.with_label_values(&["GET", host]).get_sample_count(), 1);
        assert_eq!(FAMILIES.received("GET", host).get_sample_sum(), 8.0);
    }
}
