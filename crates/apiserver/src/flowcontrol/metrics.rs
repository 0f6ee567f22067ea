//! The metrics of priority and fairness, by upstream's names. Those of a schema are looked up once, when it is read.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::queues::{Counted, Level};
use crate::metrics::{VALID, counters, gauges, histograms};

/// Upstream's buckets of waiting and running, in seconds.
const SECONDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const BOTH: [&str; 2] = ["priority_level", "flow_schema"];

/// All families.
pub(super) struct FlowMetrics {
    rejected: IntCounterVec,
    dispatched: IntCounterVec,
    queued: IntGaugeVec,
    executing: IntGaugeVec,
    waited: HistogramVec,
    ran: HistogramVec,
    widths: HistogramVec,
    watches: HistogramVec,
    lengths: HistogramVec,
    executing_seats: IntGaugeVec,
    waiting_seats: IntGaugeVec,
    time: GaugeVec,
    /// Requests that wait, by whether they change anything.
    inqueue: [IntGauge; 2],
    /// High watermark, average, deviation, smoothed demand, target.
    demand: [GaugeVec; 5],
    part: Gauge,
    /// Nominal (under two names), current, lower and upper seats, as [`Level::figures`] has them.
    seats: [IntGaugeVec; 5],
}

/// Those of one schema.
pub(super) struct SchemaMetrics {
    rejected: IntCounterVec,
    labels: [String; 2],
    pub(super) dispatched: IntCounter,
    pub(super) queued: IntGauge,
    pub(super) executing: IntGauge,
    pub(super) waited: Histogram,
    pub(super) refused: Histogram,
    pub(super) ran: Histogram,
    pub(super) widths: Histogram,
    pub(super) watches: Histogram,
    /// Seats and queues.
    pub(super) counted: Counted,
}

impl FlowMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let counters = |name, help, labels: &[&str]| counters(registry, name, help, labels);
        let gauges = |name, help, labels: &[&str]| gauges(registry, name, help, labels);
        let histograms = |name, help, buckets: &[f64], labels: &[&str]| histograms(registry, name, help, buckets, labels);
        let inqueue = gauges(
            "apiserver_current_inqueue_requests",
            "Maximal number of queued requests in this apiserver per request kind in last second.",
            &["request_kind"],
        );
        let part = Gauge::new(
            "apiserver_flowcontrol_seat_fair_frac",
            "Fair fraction of server's concurrency to allocate to each priority level that can use it",
        )
        .expect(VALID);
        registry.register(Box::new(part.clone())).expect(VALID);
        let fractions = |name, help| {
            let made = GaugeVec::new(Opts::new(name, help), &["priority_level"]).expect(VALID);
            registry.register(Box::new(made.clone())).expect(VALID);
            made
        };
        Self {
            rejected: counters(
                "apiserver_flowcontrol_rejected_requests_total",
                "Number of requests rejected by API Priority and Fairness subsystem",
                &["priority_level", "flow_schema", "reason"],
            ),
            dispatched: counters(
                "apiserver_flowcontrol_dispatched_requests_total",
                "Number of requests executed by API Priority and Fairness subsystem",
                &BOTH,
            ),
            queued: gauges(
                "apiserver_flowcontrol_current_inqueue_requests",
                "Number of requests currently pending in queues of the API Priority and Fairness subsystem",
                &BOTH,
            ),
            executing: gauges(
                "apiserver_flowcontrol_current_executing_requests",
                "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
                &BOTH,
            ),
            waited: histograms(
                "apiserver_flowcontrol_request_wait_duration_seconds",
                "Length of time a request spent waiting in its queue",
                &SECONDS,
                &["priority_level", "flow_schema", "execute"],
            ),
            ran: histograms(
                "apiserver_flowcontrol_request_execution_seconds",
                "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
                &SECONDS,
                &["priority_level", "flow_schema", "type"],
            ),
            widths: histograms(
                "apiserver_flowcontrol_work_estimated_seats",
                "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness",
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0],
                &BOTH,
            ),
            watches: histograms(
                "apiserver_flowcontrol_watch_count_samples",
                "count of watchers for mutating requests in API Priority and Fairness",
                &[0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0],
                &BOTH,
            ),
            lengths: histograms(
                "apiserver_flowcontrol_request_queue_length_after_enqueue",
                "Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued",
                &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0],
                &BOTH,
            ),
            executing_seats: gauges(
                "apiserver_flowcontrol_current_executing_seats",
                "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
                &BOTH,
            ),
            waiting_seats: gauges(
                "apiserver_flowcontrol_current_inqueue_seats",
                "Number of seats currently pending in queues of the API Priority and Fairness subsystem",
                &BOTH,
            ),
            time: fractions("apiserver_flowcontrol_current_r", "R(time of last change)"),
            inqueue: ["readOnly", "mutating"].map(|kind| inqueue.with_label_values(&[kind])),
            demand: [
                (
                    "apiserver_flowcontrol_demand_seats_high_watermark",
                    "High watermark, over last adjustment period, of demand_seats",
                ),
                (
                    "apiserver_flowcontrol_demand_seats_average",
                    "Time-weighted average, over last adjustment period, of demand_seats",
                ),
                (
                    "apiserver_flowcontrol_demand_seats_stdev",
                    "Time-weighted standard deviation, over last adjustment period, of demand_seats",
                ),
                ("apiserver_flowcontrol_demand_seats_smoothed", "Smoothed seat demands"),
                ("apiserver_flowcontrol_target_seats", "Seat allocation targets"),
            ]
            .map(|(name, help)| fractions(name, help)),
            part,
            seats: [
                (
                    "apiserver_flowcontrol_nominal_limit_seats",
                    "Nominal number of execution seats configured for each priority level",
                ),
                (
                    "apiserver_flowcontrol_request_concurrency_limit",
                    "Nominal number of execution seats configured for each priority level",
                ),
                (
                    "apiserver_flowcontrol_current_limit_seats",
                    "current derived number of execution seats available to each priority level",
                ),
                (
                    "apiserver_flowcontrol_lower_limit_seats",
                    "Configured lower bound on number of execution seats available to each priority level",
                ),
                (
                    "apiserver_flowcontrol_upper_limit_seats",
                    "Configured upper bound on number of execution seats available to each priority level",
                ),
            ]
            .map(|(name, help)| gauges(name, help, &["priority_level"])),
        }
    }

    /// Those of a schema that leads to a level.
    pub(super) fn of(&self, schema: &str, level: &str) -> SchemaMetrics {
        let both = [level, schema];
        SchemaMetrics {
            rejected: self.rejected.clone(),
            labels: [level.to_owned(), schema.to_owned()],
            dispatched: self.dispatched.with_label_values(&both),
            queued: self.queued.with_label_values(&both),
            executing: self.executing.with_label_values(&both),
            waited: self.waited.with_label_values(&[level, schema, "true"]),
            refused: self.waited.with_label_values(&[level, schema, "false"]),
            ran: self.ran.with_label_values(&[level, schema, "regular"]),
            widths: self.widths.with_label_values(&both),
            watches: self.watches.with_label_values(&both),
            counted: Counted {
                executing: self.executing_seats.with_label_values(&both),
                waiting: self.waiting_seats.with_label_values(&both),
                lengths: self.lengths.with_label_values(&both),
            },
        }
    }

    /// Requests that wait.
    pub(super) fn inqueue(&self, read_only: bool) -> &IntGauge {
        let [reading, writing] = &self.inqueue;
        if read_only { reading } else { writing }
    }

    /// The seats were divided anew.
    pub(super) fn divided(&self, part: f64) {
        self.part.set(part);
    }

    /// Reads the seats of all levels.
    pub(super) fn read<'a>(&self, levels: impl Iterator<Item = &'a std::sync::Arc<Level>>) {
        for level in levels {
            self.time.with_label_values(&[&level.name]).set(level.time());
            for (gauge, figure) in self.seats.iter().zip(level.figures()) {
                gauge.with_label_values(&[&level.name]).set(i64::try_from(figure).unwrap_or(i64::MAX));
            }
            let (demand, target) = level.needs();
            let figures = [demand.most as f64, demand.average, demand.deviation, demand.smoothed, target];
            for (gauge, figure) in self.demand.iter().zip(figures) {
                gauge.with_label_values(&[&level.name]).set(figure);
            }
        }
    }
}

impl SchemaMetrics {
    /// A request was turned away.
    pub(super) fn reject(&self, reason: &str) {
        let [level, schema] = &self.labels;
        self.rejected.with_label_values(&[level, schema, reason]).inc();
    }
}
