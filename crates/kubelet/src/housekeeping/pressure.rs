//! Pressure on memory, disk and process ids: the node's conditions, the collection of images and containers, and the
//! eviction of pods.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use corten_client::EventType;
use corten_runtime::{ContainerState, Images, RuntimeError};

use super::{remove_container, size_of_tree};
use crate::cgroups;
use crate::context::Context;
use crate::eviction::{Candidate, Pressure, Reading, choose, distance, observe, pressure};
use crate::machine::Disk;
use crate::pod::PodExt;
use crate::pods::Pods;
use crate::quantity;
use crate::worker::End;

/// Least time between two looks, upstream's eviction monitoring period.
const SOONEST: Duration = Duration::from_secs(10);
/// Most time between two looks, upstream's image collection period.
const LATEST: Duration = Duration::from_secs(300);

/// Looks, acts, and waits for the next look.
pub struct Watcher {
    ctx: Arc<Context>,
    pods: Arc<Pods>,
    images: Arc<dyn Images>,
    pressure: watch::Sender<Pressure>,
    /// When a pressure was last seen; its condition outlives it.
    seen: [Option<Instant>; 3],
    /// When unused images were first found unused.
    unused: HashMap<String, Instant>,
    /// When images are looked at without pressure.
    images_due: Instant,
}

impl Watcher {
    pub fn new(ctx: Arc<Context>, pods: Arc<Pods>, images: Arc<dyn Images>, pressure: watch::Sender<Pressure>) -> Self {
        Self { ctx, pods, images, pressure, seen: [None; 3], unused: HashMap::new(), images_due: Instant::now() + LATEST }
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
        let under_pressure = *self.pressure.borrow() != Pressure::default();
        if under_pressure { SOONEST } else { distance(&self.ctx.config.eviction, &self.readings()).clamp(SOONEST, LATEST) }
    }

    async fn check_pressure(&mut self) {
        let readings = self.readings();
        let met = observe(&self.ctx.config.eviction, &readings);
        let now = pressure(&met);
        let instant = Instant::now();
        for (seen, holds) in self.seen.iter_mut().zip([now.memory, now.disk, now.pid]) {
            if holds {
                *seen = Some(instant);
            }
        }
        let lasting = |seen: Option<Instant>| seen.is_some_and(|at| at.elapsed() < self.ctx.config.pressure_transition);
        let shown = Pressure { memory: lasting(self.seen[0]), disk: lasting(self.seen[1]), pid: lasting(self.seen[2]) };
        self.pressure.send_if_modified(|known| std::mem::replace(known, shown) != shown);
        let Some((threshold, reading)) = met.first().copied() else { return };
        let threshold = threshold.clone();
        if !threshold.signal.starts_with("memory.") {
            // Unused images and dead containers cost nobody anything.
            self.collect_containers().await;
            self.collect_images(true).await;
            let again = self.readings();
            if observe(std::slice::from_ref(&threshold), &again).is_empty() {
                return;
            }
        }
        self.evict(&threshold.signal, threshold.amount(reading.capacity), reading);
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
        ];
        readings.extend(available.map(|kib| reading("memory.available", kib * 1024, ctx.machine.memory)));
        readings.extend(threads.map(|threads| reading("pid.available", pid_max - threads, pid_max)));
        readings
    }

    fn evict(&self, signal: &str, quantity: i64, reading: Reading) {
        let ctx = &self.ctx;
        let resource = if signal.starts_with("memory.") {
            "memory"
        } else if signal.starts_with("pid.") {
            "pids"
        } else {
            "ephemeral-storage"
        };
        let candidates: Vec<Candidate> = self
            .pods
            .active()
            .iter()
            .map(|pod| {
                let usage = match resource {
                    "memory" => {
                        ctx.cgroups.usage(&cgroups::pod_path(&ctx.config.cgroup_root, pod)).map_or(0, |usage| usage.working_set)
                    }
                    _ => {
                        size_of_tree(&ctx.volumes.pod_dir(pod.uid()))
                            + size_of_tree(&ctx.log_dir(pod.namespace(), pod.name(), pod.uid()))
                    }
                };
                let priority = pod.spec().priority.unwrap_or(0);
                Candidate {
                    uid: pod.uid().to_owned(),
                    priority,
                    protected: pod.is_static() || pod.is_deleting() || priority >= 2_000_000_000,
                    usage: i64::try_from(usage).unwrap_or(i64::MAX),
                    request: pod.requests().get(resource).copied().unwrap_or(0),
                }
            })
            .collect();
        ctx.events.node(EventType::Warning, "EvictionThresholdMet", &format!("Attempting to reclaim {resource}"));
        let Some(chosen) = choose(&candidates) else { return };
        let message = format!(
            "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
            quantity::bytes(quantity).0,
            quantity::kibibytes(reading.available).0
        );
        if let Some((pod, _)) = self.pods.list().into_iter().find(|(pod, _)| pod.uid() == chosen.uid) {
            ctx.events.pod(&pod, EventType::Warning, "Evicted", &message);
        }
        let end = End::Evicted { reason: "Evicted".to_owned(), message, grace: Some(Duration::from_secs(1)), disruption: true };
        self.pods.end(&chosen.uid, end);
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
        let percent = (disk.capacity - disk.available).saturating_mul(100).checked_div(disk.capacity).unwrap_or(0);
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
            return;
        }
        let keep = disk.capacity / 100 * u64::from(config.image_gc_low);
        let mut excess = (disk.capacity - disk.available).saturating_sub(keep);
        let mut oldest: Vec<_> = unused.iter().map(|image| (self.unused.get(&image.id).copied(), image)).collect();
        oldest.sort_by_key(|(since, _)| *since);
        for (since, image) in oldest {
            let young = since.is_none_or(|since| since.elapsed() < config.image_min_age);
            if (!all && excess == 0) || (young && !all) {
                continue;
            }
            match self.images.remove(&image.id).await {
                Ok(()) => excess = excess.saturating_sub(image.size),
                Err(RuntimeError::InUse(_)) => {}
                Err(err) => tracing::warn!(image = image.id, error = %crate::chain(&err), "remove an unused image"),
            }
        }
        if !all && excess > 0 {
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {excess} bytes, but only found images of less."
            );
            self.ctx.events.node(EventType::Warning, "FreeDiskSpaceFailed", &message);
        }
    }
}
