//! Priority and fairness (KEP-1040): how many requests of whom run at one time.
//!
//! A FlowSchema says which priority level a request belongs to and what makes a flow in it. A level has seats; when they are
//! taken, requests wait in queues. A flow is dealt a hand of the queues and joins the shortest (shuffle sharding), and queues
//! are served in turn, so that a flood fills few queues and the others are served as before.

mod borrowing;
mod config;
pub(crate) mod dangling;
mod demand;
mod dump;
mod executing;
mod fair;
mod inflight;
mod lingering;
mod metrics;
mod queues;
mod retry;
mod watches;
mod width;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use corten_task::Tasks;

use crate::config::Config;
use crate::reader::Reader;
use crate::request::{Query, RequestInfo};
use crate::response::{self, Response};
use crate::user::User;

use config::{GROUP, Plan};
use inflight::Inflight;
use lingering::Lingering;
use metrics::{FlowMetrics, SchemaMetrics};
use queues::{Level, Taken, Ticket};
use watches::Watches;
pub use watches::Watching;
use width::Surroundings;

/// How often seats are divided anew among the levels.
const REBALANCE_EVERY: Duration = Duration::from_secs(10);

/// Classifies, queues and seats requests.
pub struct Flow {
    enabled: bool,
    reader: Reader,
    /// Seats of all levels together.
    seats: usize,
    /// How long a request may wait for a seat.
    patience: Duration,
    plan: ArcSwap<Plan>,
    refreshing: Mutex<()>,
    rebalanced: Mutex<Instant>,
    metrics: FlowMetrics,
    watches: Watches,
    lingering: Lingering,
    /// What holds when this is off.
    inflight: Inflight,
}

/// UIDs of the flow schema and the priority level.
type Classified = Option<(Arc<str>, Arc<str>)>;

/// The right to run; given back when dropped.
#[must_use]
pub struct Seat {
    taken: Option<Taken>,
    /// Room under the plain limits.
    room: Option<OwnedSemaphorePermit>,
    /// Seats that stay taken after the answer, and for how long.
    after: Option<(usize, Duration, Lingering)>,
    classified: Classified,
    /// Since when the request runs, and where that is counted.
    running: Option<(Instant, prometheus::IntGauge, prometheus::Histogram)>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((since, executing, ran)) = &self.running {
            executing.dec();
            ran.observe(since.elapsed().as_secs_f64());
        }
        if let (Some(mut taken), Some((seats, lasting, lingering))) = (self.taken.take(), self.after.take()) {
            taken.shrink(seats);
            lingering.keep(taken, tokio::time::Instant::now() + lasting);
        }
    }
}

impl Flow {
    /// Reads FlowSchemas and PriorityLevelConfigurations through `reader`.
    #[must_use]
    pub fn new(config: &Config, reader: &Reader, registry: &prometheus::Registry, tasks: &Tasks) -> Self {
        Self {
            enabled: config.enable_priority_and_fairness,
            reader: reader.clone(),
            seats: config.max_requests_inflight + config.max_mutating_requests_inflight,
            patience: config.request_timeout / 4,
            plan: ArcSwap::from_pointee(Plan::default()),
            refreshing: Mutex::new(()),
            rebalanced: Mutex::new(Instant::now()),
            metrics: FlowMetrics::new(registry),
            watches: Watches::default(),
            lingering: Lingering::start(tasks),
            inflight: Inflight::new(config),
        }
    }

    /// Counts a watch until the value is dropped, so that writes are known to be as much work as they are.
    #[must_use]
    pub fn watching(&self, info: &RequestInfo, query: &Query) -> Option<Watching> {
        self.enabled.then(|| self.watches.register(info, query))?
    }

    /// How long a request may wait for a seat that has `left` to be answered; `None` when it may go on for as long as it likes.
    #[must_use]
    pub fn patience(&self, left: Option<Duration>) -> Duration {
        const MOST: Duration = Duration::from_secs(60);
        left.map_or(self.patience, |left| left / 4).min(MOST)
    }

    /// Waits for a seat; 429 when there is none in time. A watch gives it back once it is under way, and what else is
    /// long-running needs none.
    ///
    /// # Errors
    /// When there is none.
    pub async fn seat(&self, user: &User, info: &Arc<RequestInfo>, query: &Query, patience: Duration) -> Result<Seat, Rejected> {
        let mut free = Seat { taken: None, room: None, after: None, classified: None, running: None };
        if !self.enabled {
            let rejected = |_| Rejected { classified: None, retry_after: inflight::RETRY_AFTER };
            free.room = self.inflight.enter(user, info).map_err(rejected)?;
            return Ok(free);
        }
        if info.is_long_running() && info.verb != "watch" {
            return Ok(free);
        }
        self.refresh();
        let plan = self.plan.load_full();
        self.rebalance(&plan);
        let Some((schema, level)) = plan.classify(user, info) else {
            return Ok(free); // before the first objects are written
        };
        let classified = Some((schema.uid.clone(), level.uid.clone()));
        let (flow, distinguisher) = schema.flow(user, info);
        // With one queue there is nothing to tell flows apart for.
        let distinguisher = if level.tells_flows_apart() { distinguisher } else { "" };
        let metrics = &schema.metrics;
        let width = width::of(info, query, self.surroundings(info, level.widest(), metrics));
        metrics.widths.observe(width.most() as f64);
        let since = Instant::now();
        let ticket = Ticket {
            schema: schema.name.clone(),
            distinguisher: distinguisher.to_owned(),
            flow,
            user: user.name.clone(),
            info: info.clone(),
            width,
            arrived: jiff::Timestamp::now(),
            counted: metrics.counted.clone(),
        };
        let outcome = {
            let _queued = (Counted::new(&metrics.queued), Counted::new(self.metrics.inqueue(info.is_read_only())));
            let mut gone = Gone(Some(metrics));
            let outcome = Level::take(level, ticket, patience).await;
            gone.0 = None;
            outcome
        };
        match outcome {
            Ok(mut taken) => {
                // What is needed later has been waited for, and is used now by whoever runs with it.
                let after = width.after.map(|(seats, lasting)| (seats, lasting, self.lingering.clone()));
                if after.is_none() {
                    taken.shrink(width.running);
                }
                let taken = Some(taken);
                metrics.waited.observe(since.elapsed().as_secs_f64());
                metrics.dispatched.inc();
                metrics.executing.inc();
                let running = Some((Instant::now(), metrics.executing.clone(), metrics.ran.clone()));
                Ok(Seat { taken, room: None, after, classified, running })
            }
            Err(full) => {
                metrics.refused.observe(since.elapsed().as_secs_f64());
                metrics.reject(full.reason());
                tracing::debug!(level = %level.name, user = user.name, reason = full.reason(), "a request was rejected");
                Err(Rejected { classified, retry_after: level.rejected() })
            }
        }
    }

    /// What a request's width depends on, looked up as far as its verb needs it.
    fn surroundings(&self, info: &RequestInfo, widest: usize, metrics: &SchemaMetrics) -> Surroundings {
        let mut around = Surroundings { stored: 0, watches: 0, widest };
        match info.verb.as_str() {
            "list" | "watch" => around.stored = self.reader.snapshot(&info.group, &info.resource).len(),
            "create" | "update" | "patch" | "delete" if info.is_resource => {
                around.watches = self.watches.interested(info);
                metrics.watches.observe(around.watches as f64);
            }
            _ => {}
        }
        around
    }

    /// Lends idle seats, from time to time: whoever comes first after it has passed looks.
    fn rebalance(&self, plan: &Plan) {
        let Some(mut last) = self.rebalanced.try_lock() else { return };
        if last.elapsed() >= REBALANCE_EVERY {
            *last = Instant::now();
            let part = borrowing::rebalance(plan.levels(), *last);
            self.metrics.divided(part);
        }
    }

    /// What `/debug/api_priority_and_fairness` shows under `path`: levels, queues or requests as a table; `None` for another path.
    #[must_use]
    pub fn dump(&self, path: &str, query: &Query) -> Option<Response> {
        let kind = path.strip_prefix("/debug/api_priority_and_fairness/").filter(|_| self.enabled)?;
        let plan = self.plan.load();
        let mut levels: Vec<&Arc<Level>> = plan.levels().collect();
        levels.sort_by(|a, b| a.name.cmp(&b.name));
        let table = match kind {
            "dump_priority_levels" => dump::levels(&levels),
            "dump_queues" => dump::queues(&levels),
            "dump_requests" => dump::requests(&levels, !query.text("includeRequestDetails").is_empty()),
            _ => return None,
        };
        Some(response::text(200, table))
    }

    /// Brings the gauges of seats up to date, before they are shown.
    pub fn read_metrics(&self) {
        self.metrics.read(self.plan.load().levels());
    }

    /// Takes in changed objects. When none are, which is nearly always, this is two comparisons.
    fn refresh(&self) {
        let seen = [self.reader.changed(GROUP, "flowschemas"), self.reader.changed(GROUP, "prioritylevelconfigurations")];
        if self.plan.load().seen == seen {
            return;
        }
        let _one = self.refreshing.lock();
        let current = self.plan.load();
        if current.seen != seen {
            let schemas = self.reader.list(GROUP, "flowschemas", "");
            let levels = self.reader.list(GROUP, "prioritylevelconfigurations", "");
            self.plan.store(Arc::new(current.next(seen, &schemas, &levels, self.seats, &self.metrics)));
        }
    }
}

/// There was no seat for a request in time.
pub struct Rejected {
    classified: Classified,
    /// Seconds.
    retry_after: u64,
}

impl Rejected {
    /// 429 with `Retry-After`, as plain text: upstream does not negotiate here.
    pub(crate) fn response(&self) -> Response {
        let mut response = response::plain(429, "Too many requests, please try again later.\n");
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after));
        mark(&self.classified, response.headers_mut());
        response
    }
}

impl Seat {
    /// Tells the client how its request was classified.
    pub fn mark(&self, headers: &mut HeaderMap) {
        mark(&self.classified, headers);
    }
}

fn mark(classified: &Classified, headers: &mut HeaderMap) {
    if let Some((schema, level)) = classified {
        for (name, uid) in [("x-kubernetes-pf-flowschema-uid", schema), ("x-kubernetes-pf-prioritylevel-uid", level)] {
            if let Ok(value) = HeaderValue::from_str(uid) {
                headers.insert(name, value);
            }
        }
    }
}

/// Counts a request whose client went while it waited.
struct Gone<'a>(Option<&'a SchemaMetrics>);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        if let Some(metrics) = self.0 {
            metrics.reject("cancelled");
        }
    }
}

/// Counts one in a gauge until it is dropped, also when the request is given up.
struct Counted<'a>(&'a prometheus::IntGauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
