//! What has to be looked at now and then, because nothing tells when it is time: pressure on memory and disk, unused
//! images, large logs, containers that ended long ago. One timer, at the pace of the lease.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use corten_client::EventType;
use corten_runtime::{ContainerState, Images, RuntimeError};

use crate::cgroups;
use crate::context::Context;
use crate::eviction::{Candidate, Pressure, Reading, choose, observe, pressure};
use crate::machine::Disk;
use crate::pod::PodExt;
use crate::pods::Pods;
use crate::quantity;
use crate::worker::End;

const INTERVAL: Duration = Duration::from_secs(10);
/// Images are looked at this often.
const IMAGES_EVERY: u32 = 30;

/// The timer's work.
pub struct Housekeeping {
    ctx: Arc<Context>,
    pods: Arc<Pods>,
    images: Arc<dyn Images>,
    pressure: watch::Sender<Pressure>,
    /// When a pressure was last seen; its condition outlives it.
    seen: [Option<Instant>; 3],
    /// When unused images were first found unused.
    unused: std::collections::HashMap<String, Instant>,
}

impl Housekeeping {
    pub fn new(ctx: Arc<Context>, pods: Arc<Pods>, images: Arc<dyn Images>, pressure: watch::Sender<Pressure>) -> Self {
        Self { ctx, pods, images, pressure, seen: [None; 3], unused: Default::default() }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        for tick in 1_u32.. {
            tokio::time::sleep(INTERVAL).await;
            self.rotate_logs().await;
            self.check_pressure().await;
            self.check_local_storage().await;
            if tick % IMAGES_EVERY == 0 {
                self.collect_images(false).await;
            }
        }
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

    /// Takes pods off that use more local storage than they may.
    async fn check_local_storage(&self) {
        for pod in self.pods.active() {
            let empty_dirs: Vec<_> = pod
                .spec()
                .volumes
                .iter()
                .flatten()
                .filter_map(|volume| {
                    let source = volume.empty_dir.as_ref()?;
                    let limit = source.size_limit.as_ref().map(quantity::value).filter(|limit| *limit > 0)?;
                    // The kernel keeps to the limit of one in memory.
                    let on_disk = source.medium.as_deref().unwrap_or_default().is_empty();
                    on_disk.then(|| (volume.name.clone(), self.ctx.volumes.path(&pod, volume), limit))
                })
                .collect();
            let limits: Vec<(String, i64)> = pod
                .spec()
                .containers
                .iter()
                .filter_map(|container| {
                    let limits = container.resources.as_ref()?.limits.as_ref();
                    Some((container.name.clone(), quantity::amount(limits, "ephemeral-storage").filter(|limit| *limit > 0)?))
                })
                .collect();
            if empty_dirs.is_empty() && limits.is_empty() {
                continue;
            }
            let mut verdict = None;
            for (name, path, limit) in empty_dirs {
                let used = tokio::task::spawn_blocking(move || size_of_tree(&path)).await.unwrap_or(0);
                if i64::try_from(used).unwrap_or(i64::MAX) > limit {
                    verdict =
                        Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", quantity::bytes(limit).0));
                }
            }
            for (name, limit) in limits {
                let containers = self.ctx.cache.pod(pod.uid()).containers;
                let Some(container) = crate::plan::latest(&containers, &name) else { continue };
                let Ok(stats) = self.ctx.runtime.container_stats(&container.id).await else { continue };
                let logs = container.log_path.parent().map_or(0, size_of_tree);
                if i64::try_from(stats.writable.bytes + logs).unwrap_or(i64::MAX) > limit {
                    let limit = quantity::bytes(limit).0;
                    verdict = Some(format!("Container {name} exceeded its local ephemeral storage limit {limit:?}. "));
                }
            }
            if let Some(message) = verdict {
                self.ctx.events.pod(&pod, EventType::Warning, "Evicted", &message);
                let end =
                    End::Evicted { reason: "Evicted".to_owned(), message, grace: Some(Duration::from_secs(1)), disruption: true };
                self.pods.end(pod.uid(), end);
            }
        }
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

    async fn rotate_logs(&self) {
        for container in self.ctx.cache.containers() {
            if container.state != ContainerState::Running {
                continue;
            }
            let config = &self.ctx.config;
            match crate::logs::rotate(&container.log_path, config.log_max_size, config.log_max_files) {
                Ok(false) => {}
                Ok(true) => {
                    if let Err(err) = self.ctx.runtime.reopen_log(&container.id).await {
                        tracing::warn!(container = container.id, error = %crate::chain(&err), "reopen a container's log");
                    }
                }
                Err(err) => tracing::warn!(container = container.id, error = %err, "rotate a container's log"),
            }
        }
    }
}

/// Removes an ended container and its log files.
pub async fn remove_container(ctx: &Context, id: &str) {
    let Some((uid, container)) = ctx.cache.owner(id) else { return };
    if let Err(err) = ctx.runtime.remove_container(id).await {
        tracing::warn!(container = id, error = %crate::chain(&err), "remove an ended container");
        return;
    }
    crate::logs::remove(&container.log_path);
    if let Err(err) = ctx.cache.observe(&uid, id).await {
        tracing::warn!(container = id, error = %crate::chain(&err), "observe a removed container");
    }
}

/// Bytes of the files below `path`, mounts of other file systems left out.
pub fn size_of_tree(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(root) = std::fs::symlink_metadata(path) else { return 0 };
    let mut total = 0;
    let mut pending = vec![path.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != root.dev() {
                continue;
            }
            total += meta.blocks() * 512;
            if meta.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    total
}
