//! Metrics of single parts of the server: the listener, the filters that every request passes, the watch caches, what is stored,
//! and what Services are given.

use std::time::Duration;

use prometheus::{GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::VALID;
use super::families::{counters, gauges, histograms};
use crate::allocator::Allocators;
use crate::cache;
use crate::state::State;

/// What the listener refuses.
pub struct Listener {
    handshakes: IntCounter,
}

impl Listener {
    pub(super) fn new(registry: &Registry) -> Self {
        let help = "Number of requests dropped with 'TLS handshake error from' error";
        let handshakes = IntCounter::new("apiserver_tls_handshake_errors_total", help).expect(VALID);
        registry.register(Box::new(handshakes.clone())).expect(VALID);
        Self { handshakes }
    }

    /// A TLS handshake failed.
    pub fn no_handshake(&self) {
        self.handshakes.inc();
    }
}

/// How long requests are with those who look at all of them.
pub struct Filters {
    authentication: Histogram,
    fairness: Histogram,
    authorization: Histogram,
}

impl Filters {
    pub(super) fn new(registry: &Registry) -> Self {
        let made = histograms(
            registry,
            "apiserver_request_filter_duration_seconds",
            "Request filter latency distribution in seconds, for each filter type",
            &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0],
            &["filter"],
        );
        Self {
            authentication: made.with_label_values(&["authentication"]),
            fairness: made.with_label_values(&["priorityandfairness"]),
            authorization: made.with_label_values(&["authorization"]),
        }
    }

    /// It was found out who asks.
    pub fn authenticated(&self, took: Duration) {
        self.authentication.observe(took.as_secs_f64());
    }

    /// There was a seat, or none.
    pub fn queued(&self, took: Duration) {
        self.fairness.observe(took.as_secs_f64());
    }

    /// It was found out whether they may.
    pub fn authorized(&self, took: Duration) {
        self.authorization.observe(took.as_secs_f64());
    }
}

/// The watch caches, read when somebody asks.
pub(super) struct Caches {
    sizes: IntGaugeVec,
    revisions: IntGaugeVec,
    capacities: IntGaugeVec,
    /// Events, which come from the store, and go to the cache and from there to watches one by one.
    received: [IntCounterVec; 3],
    /// Lists, objects looked at, objects returned; of those served from the cache, by whether an index was used.
    lists: [IntCounterVec; 3],
    /// Lists for which the store was read, objects read, looked at and returned.
    stored: [IntCounterVec; 4],
    consistent: IntCounterVec,
    fills: IntCounterVec,
}

impl Caches {
    pub(super) fn new(registry: &Registry) -> Self {
        let labels = ["group", "resource"];
        Self {
            sizes: gauges(
                registry,
                "apiserver_resource_size_estimate_bytes",
                "Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects. In case of a fetching error, the value will be -1.",
                &labels,
            ),
            revisions: gauges(
                registry,
                "apiserver_watch_cache_resource_version",
                "Current resource version of watch cache broken by resource type. This is truncated to the 15 least significant digits.",
                &labels,
            ),
            capacities: gauges(
                registry,
                "watch_cache_capacity",
                "Total capacity of watch cache broken by resource type.",
                &labels,
            ),
            received: [
                counters(
                    registry,
                    "apiserver_storage_events_received_total",
                    "Number of etcd events received split by kind.",
                    &labels,
                ),
                counters(
                    registry,
                    "apiserver_watch_cache_events_received_total",
                    "Counter of events received in watch cache broken by resource type.",
                    &labels,
                ),
                counters(
                    registry,
                    "apiserver_watch_cache_events_dispatched_total",
                    "Counter of events dispatched in watch cache broken by resource type.",
                    &labels,
                ),
            ],
            lists: [
                counters(
                    registry,
                    "apiserver_cache_list_total",
                    "Number of LIST requests served from watch cache",
                    &["group", "resource", "index"],
                ),
                counters(
                    registry,
                    "apiserver_cache_list_fetched_objects_total",
                    "Number of objects read from watch cache in the course of serving a LIST request",
                    &["group", "resource", "index"],
                ),
                counters(
                    registry,
                    "apiserver_cache_list_returned_objects_total",
                    "Number of objects returned for a LIST request from watch cache",
                    &labels,
                ),
            ],
            stored: [
                ("apiserver_storage_list_total", "Number of LIST requests served from storage"),
                (
                    "apiserver_storage_list_fetched_objects_total",
                    "Number of objects read from storage in the course of serving a LIST request",
                ),
                (
                    "apiserver_storage_list_evaluated_objects_total",
                    "Number of objects tested in the course of serving a LIST request from storage",
                ),
                ("apiserver_storage_list_returned_objects_total", "Number of objects returned for a LIST request from storage"),
            ]
            .map(|(name, help)| counters(registry, name, help, &labels)),
            consistent: counters(
                registry,
                "apiserver_watch_cache_consistent_read_total",
                "Counter for consistent reads from cache.",
                &["group", "resource", "success", "fallback"],
            ),
            fills: counters(
                registry,
                "apiserver_watch_cache_initializations_total",
                "Counter of watch cache initializations broken by resource type.",
                &labels,
            ),
        }
    }

    pub(super) fn read(&self, caches: &cache::Caches) {
        let revision = i64::try_from(caches.applied()).unwrap_or(i64::MAX);
        for cache in caches.all() {
            let spec = cache.spec();
            let labels = [spec.group.as_str(), spec.resource.as_str()];
            let size: usize = cache.snapshot().values().map(|entry| entry.size()).sum();
            self.sizes.with_label_values(&labels).set(i64::try_from(size).unwrap_or(i64::MAX));
            self.revisions.with_label_values(&labels).set(revision);
            self.capacities.with_label_values(&labels).set(cache::RING_EVENTS as i64);
            for received in &self.received {
                raise(&received.with_label_values(&labels), cache.received());
            }
            let [group, resource] = labels;
            let tally = cache.tally();
            let (scanned, indexed) = (tally.scanned.get(), tally.indexed.get());
            for (index, lists) in [("", scanned), ("values", indexed)] {
                if lists[0] > 0 {
                    raise(&self.lists[0].with_label_values(&[group, resource, index]), lists[0]);
                    raise(&self.lists[1].with_label_values(&[group, resource, index]), lists[1]);
                }
            }
            if scanned[0] + indexed[0] > 0 {
                raise(&self.lists[2].with_label_values(&labels), scanned[2] + indexed[2]);
            }
            let [lists, fetched, returned] = tally.stored.get();
            for (counter, figure) in self.stored.iter().zip([lists, fetched, fetched, returned]) {
                raise(&counter.with_label_values(&labels), figure);
            }
            if tally.consistent.get() > 0 {
                raise(&self.consistent.with_label_values(&[group, resource, "true", "false"]), tally.consistent.get());
            }
            raise(&self.fills.with_label_values(&labels), tally.fills.get());
        }
    }
}

/// Brings a counter to a figure that is counted elsewhere.
fn raise(counter: &IntCounter, figure: u64) {
    counter.inc_by(figure.saturating_sub(counter.get()));
}

/// What is stored, counted when somebody asks.
pub(super) struct Objects {
    by_name: IntGaugeVec,
    by_group: IntGaugeVec,
    size: GaugeVec,
}

impl Objects {
    pub(super) fn new(registry: &Registry) -> Self {
        let help = "Size of the storage database file physically allocated in bytes.";
        let size = GaugeVec::new(Opts::new("apiserver_storage_size_bytes", help), &["storage_cluster_id"]).expect(VALID);
        registry.register(Box::new(size.clone())).expect(VALID);
        Self {
            by_name: gauges(
                registry,
                "apiserver_storage_objects",
                "[DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
                &["resource"],
            ),
            by_group: gauges(
                registry,
                "apiserver_resource_objects",
                "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
                &["group", "resource"],
            ),
            size,
        }
    }

    pub(super) async fn read(&self, state: &State) {
        for resource in state.catalogue().all().iter().filter(|resource| !resource.storage.hash.is_empty()) {
            let count = state.reader.snapshot(&resource.group, &resource.plural).len() as i64;
            self.by_name.with_label_values(&[&resource.qualified()]).set(count);
            self.by_group.with_label_values(&[&resource.group, &resource.plural]).set(count);
        }
        if let Ok(size) = state.store.size().await {
            self.size.with_label_values(&["store-0"]).set(size as f64);
        }
    }
}

/// What Services are given.
pub(super) struct Services {
    addresses: IntGaugeVec,
    free_addresses: IntGaugeVec,
    ports: IntGauge,
    free_ports: IntGauge,
}

impl Services {
    pub(super) fn new(registry: &Registry) -> Self {
        let single = |name, help| {
            let made = IntGauge::new(name, help).expect(VALID);
            registry.register(Box::new(made.clone())).expect(VALID);
            made
        };
        Self {
            addresses: gauges(
                registry,
                "kube_apiserver_clusterip_allocator_allocated_ips",
                "Gauge measuring the number of allocated IPs for Services",
                &["cidr"],
            ),
            free_addresses: gauges(
                registry,
                "kube_apiserver_clusterip_allocator_available_ips",
                "Gauge measuring the number of available IPs for Services",
                &["cidr"],
            ),
            ports: single(
                "kube_apiserver_nodeport_allocator_allocated_ports",
                "Gauge measuring the number of allocated NodePorts for Services",
            ),
            free_ports: single(
                "kube_apiserver_nodeport_allocator_available_ports",
                "Gauge measuring the number of available NodePorts for Services",
            ),
        }
    }

    pub(super) fn read(&self, allocators: &Allocators) {
        let gauge = |figure: u128| i64::try_from(figure).unwrap_or(i64::MAX);
        for (range, taken, free) in allocators.addresses() {
            self.addresses.with_label_values(&[&range]).set(gauge(taken));
            self.free_addresses.with_label_values(&[&range]).set(gauge(free));
        }
        let (taken, free) = allocators.ports_used();
        self.ports.set(gauge(taken as u128));
        self.free_ports.set(gauge(free as u128));
    }
}
