//! Pressure on memory, disk and process ids: the node's conditions, the collection of images and containers, and the
//! eviction of pods.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::time::Instant;

use corten_client::EventType;
use corten_runtime::{ContainerState, Images, RuntimeError};

use super::{remove_container, storage};
use crate::cgroups;
use crate::context::Context;
use crate::eviction::{
    Candidate, Consumer, Pressure, Reading, Resource, State, Threshold, annotations, distance, message, met, rank,
};
use crate::machine::Disk;
use crate::pod::PodExt;
use crate::pods::Pods;
use crate::quantity;
use crate::worker::End;

/// Least time between two looks, upstream's eviction monitoring period.
const SOONEST: Duration = Duration::from_secs(10);
/// Most time between two looks, upstream's image collection period.
const LATEST: Duration = Duration::from_secs(300);

/// How long a pod that was taken may need to be gone before the next one is.
const CLEANUP: Duration = Duration::from_secs(30);

/// Looks, acts, and waits for the next look.
pub struct Watcher {
    ctx: Arc<Context>,
    pods: Arc<Pods>,
    images: Arc<dyn Images>,
    pressure: watch::Sender<Pressure>,
    state: State,
    /// The pod that was taken last, and when.
    taken: Option<(String, Instant)>,
    /// When unused images were first found unused.
    unused: HashMap<String, Instant>,
    /// When images are looked at without pressure.
    images_due: Instant,
    /// The last look brought too little.
    collection_failed: bool,
}

impl Watcher {
    pub fn new(ctx: Arc<Context>, pods: Arc<Pods>, images: Arc<dyn Images>, pressure: watch::Sender<Pressure>) -> Self {
        let (state, images_due) = (State::default(), Instant::now() + LATEST);
        let unused = HashMap::new();
        Self { ctx, pods, images, pressure, state, taken: None, unused, images_due, collection_failed: false }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(self.pause()).await;
            self.check_pressure().await;
            if self.images_due <= Instant::now() {
                self.images_due = Instant::now() + LATEST;
                self.collect_images(false).await;
            }
        }
    }

    /// How long nothing can happen that would have to be acted upon.
    fn pause(&self) -> Duration {
        let under_pressure = self.pressure.borrow().any();
        if under_pressure { SOONEST } else { distance(&self.ctx.config.eviction, &self.readings()).clamp(SOONEST, LATEST) }
    }

    async fn check_pressure(&mut self) {
        let (readings, ctx) = (self.readings(), self.ctx.clone());
        let thresholds = &ctx.config.eviction;
        let (shown, due) = self.state.observe(thresholds, &readings, ctx.config.pressure_transition, Instant::now());
        self.pressure.send_if_modified(|known| std::mem::replace(known, shown) != shown);
        let first = due.into_iter().find_map(|(threshold, reading)| Some((threshold, reading, Resource::of(&threshold.signal)?)));
        let Some((threshold, reading, resource)) = first else { return };
        if self.is_taking() {
            return;
        }
        let message = format!("Attempting to reclaim {}", resource.name());
        ctx.events.node(EventType::Warning, "EvictionThresholdMet", &message);
        if resource.is_disk() {
            // Unused images and dead containers cost nobody anything.
            self.collect_containers().await;
            self.collect_images(true).await;
            if met(thresholds, &self.readings(), true).next().is_none() {
                return;
            }
        }
        self.evict(threshold, reading, resource).await;
    }

    /// Whether the pod that was taken last still holds what it is to give back.
    fn is_taking(&self) -> bool {
        let waited =
            |(uid, at): &(String, Instant)| at.elapsed() < CLEANUP && self.pods.active().iter().any(|pod| pod.uid() == uid);
        self.taken.as_ref().is_some_and(waited)
    }

    fn readings(&self) -> Vec<Reading> {
        let ctx = &self.ctx;
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let meminfo = std::fs::read_to_string(ctx.config.host.proc.join("meminfo")).unwrap_or_default();
        let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let available = available.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<i64>().ok());
        let disk = Disk::of(&ctx.config.root);
        let loadavg = std::fs::read_to_string(ctx.config.host.proc.join("loadavg")).unwrap_or_default();
        let threads = loadavg.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1)?.parse::<i64>().ok());
        let pid_max = std::fs::read_to_string(ctx.config.host.proc.join("sys/kernel/pid_max")).unwrap_or_default();
        let pid_max = pid_max.trim().parse::<i64>().unwrap_or(0);
        let reading = |signal, available, capacity| Reading { signal, available, capacity };
        let mut readings = vec![
            reading("nodefs.available", number(disk.available), number(disk.capacity)),
            reading("nodefs.inodesFree", number(disk.inodes_free), number(disk.inodes)),
            reading("imagefs.available", number(disk.available), number(disk.capacity)),
            reading("imagefs.inodesFree", number(disk.inodes_free), number(disk.inodes)),
            // Containers, images and volumes are on one file system.
            reading("containerfs.available", number(disk.available), number(disk.capacity)),
            reading("containerfs.inodesFree", number(disk.inodes_free), number(disk.inodes)),
        ];
        readings.extend(available.map(|kib| reading("memory.available", kib * 1024, ctx.machine.memory)));
        readings.extend(threads.map(|threads| reading("pid.available", pid_max - threads, pid_max)));
        readings
    }

    /// Takes one pod off the node.
    async fn evict(&mut self, threshold: &Threshold, reading: Reading, resource: Resource) {
        let mut candidates = Vec::new();
        for pod in self.pods.active() {
            candidates.push(self.candidate(&pod, resource).await);
        }
        rank(resource, &mut candidates);
        let ctx = &self.ctx;
        let found = candidates.first().and_then(|first| {
            let pod = self.pods.active().into_iter().find(|pod| pod.uid() == first.uid)?;
            Some((first, pod))
        });
        let Some((chosen, pod)) = found else {
            tracing::warn!(resource = resource.name(), "no pod can be taken off the node");
            return;
        };
        let text = message(resource, Some((threshold, reading)), chosen);
        ctx.events.annotated(&pod, EventType::Warning, "Evicted", &text, annotations(resource, chosen));
        let grace = if threshold.is_hard() {
            Duration::ZERO
        } else {
            let own = pod.spec().termination_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            own.map_or(ctx.config.eviction_max_grace, |own| ctx.config.eviction_max_grace.min(Duration::from_secs(own)))
        };
        let grace = Some(grace.max(Duration::from_secs(1)));
        self.pods.end(&chosen.uid, End::Evicted { reason: "Evicted".to_owned(), message: text, grace, disruption: true });
        self.taken = Some((chosen.uid.clone(), Instant::now()));
    }

    async fn candidate(&self, pod: &Arc<Pod>, resource: Resource) -> Candidate {
        let ctx = &self.ctx;
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let path = cgroups::pod_path(&ctx.config.cgroup_root, pod);
        let mut consumers = Vec::new();
        let requested = |name: &str| {
            let requests = pod.container(name).and_then(|(_, spec)| spec.resources?.requests);
            quantity::amount(requests.as_ref(), resource.name()).unwrap_or(0)
        };
        let usage = match resource {
            Resource::Memory => {
                for container in ctx.cache.pod(pod.uid()).containers {
                    if container.state == ContainerState::Running
                        && let Ok(stats) = ctx.runtime.container_stats(&container.id).await
                    {
                        let (usage, request) = (number(stats.memory_working_set), requested(&container.name));
                        consumers.push(Consumer { name: container.name, usage, request });
                    }
                }
                ctx.cgroups.usage(&path).map_or(0, |usage| number(usage.working_set))
            }
            Resource::Pids => {
                ctx.cgroups.read("pids", &path, "pids.current").and_then(|text| text.trim().parse().ok()).unwrap_or(0)
            }
            Resource::Storage | Resource::Inodes => {
                let use_of = storage::usage(ctx, pod).await;
                for (name, usage) in &use_of.containers {
                    consumers.push(Consumer { name: name.clone(), usage: number(usage.bytes), request: requested(name) });
                }
                let total = use_of.total();
                number(if resource == Resource::Storage { total.bytes } else { total.inodes })
            }
        };
        let request = if resource == Resource::Memory { "memory" } else { "ephemeral-storage" };
        let priority = pod.spec().priority.unwrap_or(0);
        Candidate {
            uid: pod.uid().to_owned(),
            priority,
            protected: pod.is_critical() || pod.is_deleting(),
            usage,
            request: if resource == Resource::Pids { 0 } else { pod.requests().get(request).copied().unwrap_or(0) },
            consumers,
        }
    }

    /// Removes ended containers that no status needs: all but the last two runs of each name.
    async fn collect_containers(&self) {
        let mut ended = self.ctx.cache.containers();
        ended.retain(|container| container.state == ContainerState::Exited);
        for container in &ended {
            let newer = ended.iter().filter(|other| {
                other.sandbox == container.sandbox && other.name == container.name && other.attempt > container.attempt
            });
            if newer.count() >= 1 {
                remove_container(&self.ctx, &container.id).await;
            }
        }
    }

    /// Removes images that nobody uses: all when the disk is short, else those that bring its use down to the low mark.
    async fn collect_images(&mut self, all: bool) {
        let config = &self.ctx.config;
        let disk = Disk::of(&config.root);
        let Some(free) = disk.available.saturating_mul(100).checked_div(disk.capacity) else {
            let message = "invalid capacity 0 on image filesystem";
            self.ctx.events.node(EventType::Warning, "InvalidDiskCapacity", message);
            return;
        };
        let percent = 100 - free;
        let Ok(images) = self.images.list().await else { return };
        let containers = self.ctx.cache.containers();
        let used = |image: &corten_runtime::Image| {
            image.pinned
                || containers.iter().any(|container| {
                    container.image_id == image.id
                        || image.tags.contains(&container.image)
                        || image.digests.contains(&container.image)
                })
        };
        let unused: Vec<_> = images.into_iter().filter(|image| !used(image)).collect();
        self.unused.retain(|id, _| unused.iter().any(|image| image.id == *id));
        for image in &unused {
            self.unused.entry(image.id.clone()).or_insert_with(Instant::now);
        }
        if !all && percent < u64::from(config.image_gc_high) {
            self.collection_failed = false;
            return;
        }
        let keep = disk.capacity / 100 * u64::from(config.image_gc_low);
        let (mut excess, mut freed) = ((disk.capacity - disk.available).saturating_sub(keep), 0);
        let mut oldest: Vec<_> = unused.iter().map(|image| (self.unused.get(&image.id).copied(), image)).collect();
        oldest.sort_by_key(|(since, _)| *since);
        for (since, image) in oldest {
            let young = since.is_none_or(|since| since.elapsed() < config.image_min_age);
            if !all && (excess == 0 || young) {
                continue;
            }
            match self.images.remove(&image.id).await {
                Ok(()) => {
                    excess = excess.saturating_sub(image.size);
                    freed += image.size;
                }
                Err(RuntimeError::InUse(_)) => {}
                Err(err) => tracing::warn!(image = image.id, error = %crate::chain(&err), "remove an unused image"),
            }
        }
        if !all && excess > 0 {
            let message = format!(
                "Insufficient free disk space on the node's image filesystem ({percent}% of {} used). \
                 Failed to free sufficient space by deleting unused images (freed {freed} bytes). \
                 Investigate disk usage, as it could be used by active images, logs, volumes, or other data.",
                size(disk.capacity)
            );
            self.ctx.events.node(EventType::Warning, "FreeDiskSpaceFailed", &message);
            // Once may be an accident.
            if std::mem::replace(&mut self.collection_failed, true) {
                self.ctx.events.node(EventType::Warning, "ImageGCFailed", &message);
            }
        } else if !all {
            self.collection_failed = false;
        }
    }
}

/// A size as people read it.
fn size(bytes: u64) -> String {
    let size = bytes as f64;
    match bytes.checked_ilog2().unwrap_or(0) {
        0..10 => format!("{bytes} B"),
        10..20 => format!("{:.1} KiB", size / 1024.0),
        20..30 => format!("{:.1} MiB", size / 1024f64.powi(2)),
        30..40 => format!("{:.1} GiB", size / 1024f64.powi(3)),
        _ => format!("{:.1} TiB", size / 1024f64.powi(4)),
    }
}
