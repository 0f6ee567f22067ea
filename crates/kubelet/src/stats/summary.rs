//! `/stats/summary`: what the node, its pods, their containers and volumes use, in the form of upstream's `Summary`.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use corten_runtime::{Container, ContainerStats, FsUsage, Images};

use super::{cadvisor, measure};
use crate::cgroups::{self, Usage};
use crate::clock::from_nanos;
use crate::context::Context;
use crate::housekeeping::{size_of_tree, volume_sizes};
use crate::machine::Disk;
use crate::pod::PodExt;
use crate::pods::Pods;

/// CPU time by who used it, as it was last asked for.
#[derive(Default)]
pub struct Rates(Mutex<HashMap<String, Sample>>);

#[derive(Clone, Copy)]
struct Sample {
    at: Timestamp,
    used: u64,
    /// Billionths of a CPU, between this sample and the one before.
    rate: Option<u64>,
}

impl Rates {
    /// Least time between two samples: a shorter one says nothing.
    const LEAST: i64 = 1_000_000_000;

    /// Billionths of a CPU in use since the last look; nothing at the first.
    fn of(&self, who: &str, at: Timestamp, used: u64) -> Option<u64> {
        let mut known = self.0.lock();
        let Some(last) = known.get(who).copied() else {
            known.insert(who.to_owned(), Sample { at, used, rate: None });
            return None;
        };
        let elapsed = i64::try_from(at.duration_since(last.at).as_nanos()).unwrap_or(0);
        if elapsed < Self::LEAST {
            return last.rate;
        }
        let more = u128::from(used.saturating_sub(last.used)) * 1_000_000_000 / u128::from(elapsed.unsigned_abs());
        let rate = u64::try_from(more).ok();
        known.insert(who.to_owned(), Sample { at, used, rate });
        rate
    }

    /// Forgets who was not asked about for ten minutes.
    fn forget(&self, now: Timestamp) {
        self.0.lock().retain(|_, sample| now.duration_since(sample.at).as_secs() < 600);
    }
}

/// The answer; `only` leaves out everything but CPU and memory.
pub async fn summary(ctx: &Context, pods: &Pods, images: &dyn Images, rates: &Rates, only: bool) -> Value {
    let now = ctx.clock.now();
    let measured = measure(ctx, pods).await;
    let of = Summary { ctx, rates, now, disk: Disk::of(&ctx.config.root), only };
    let mut list = Vec::new();
    for (pod, usage, containers) in &measured {
        list.push(of.pod(pods, pod, usage, containers).await);
    }
    let node = of.node(images).await;
    rates.forget(now);
    json!({ "node": node, "pods": list })
}

struct Summary<'a> {
    ctx: &'a Context,
    rates: &'a Rates,
    now: Timestamp,
    disk: Disk,
    only: bool,
}

impl Summary<'_> {
    async fn node(&self, images: &dyn Images) -> Value {
        let (ctx, now, disk) = (self.ctx, self.now, self.disk);
        let usage = ctx.cgroups.usage("/").unwrap_or_default();
        let read = |file: &str| std::fs::read_to_string(ctx.config.host.proc.join(file)).unwrap_or_default();
        let booted = read("stat").lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
        let booted = booted.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(now);
        let mut memory = self.memory(now, &usage);
        memory["availableBytes"] = json!(ctx.machine.memory.saturating_sub(i64::try_from(usage.working_set).unwrap_or(0)));
        let mut node = json!({
            "nodeName": ctx.config.node_name,
            "systemContainers": [self.pods_container()],
            "startTime": time(booted),
            "cpu": self.cpu("/", now, usage.cpu_nanos),
            "memory": memory,
            "swap": self.swap(&usage, u64::try_from(ctx.machine.swap).unwrap_or(0)),
        });
        if !self.only {
            let inodes_used = disk.inodes.saturating_sub(disk.inodes_free);
            let image = images.usage().await.unwrap_or_default();
            let loads = read("loadavg");
            let tasks = loads.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1)?.parse::<i64>().ok());
            let most = read("sys/kernel/pid_max").trim().parse::<i64>().ok();
            node["fs"] = self.fs(FsUsage { bytes: disk.used, inodes: inodes_used });
            node["runtime"] = json!({ "imageFs": self.fs(image), "containerFs": self.fs(image) });
            node["network"] = network(now, &read("net/dev"));
            node["rlimit"] = json!({ "time": time(now), "maxpid": most, "curproc": tasks });
        }
        node
    }

    /// The group of all pods, which upstream lists among the node's own.
    fn pods_container(&self) -> Value {
        let usage = self.ctx.cgroups.usage(&self.ctx.config.cgroup_root).unwrap_or_default();
        let mut memory = self.memory(self.now, &usage);
        memory["availableBytes"] = json!(self.ctx.machine.memory.saturating_sub(i64::try_from(usage.working_set).unwrap_or(0)));
        json!({ "name": "pods", "startTime": Value::Null, "cpu": self.cpu("pods", self.now, usage.cpu_nanos), "memory": memory })
    }

    async fn pod(&self, pods: &Pods, pod: &Pod, usage: &Usage, containers: &[(Container, ContainerStats)]) -> Value {
        let (ctx, now) = (self.ctx, self.now);
        let start = pods.status(pod.uid()).and_then(|status| status.start_time).map(|start| time(start.0));
        let mut all = Vec::new();
        let (mut layers, mut logs) = (FsUsage::default(), FsUsage::default());
        for (container, stats) in containers {
            let dir = container.log_path.parent().map(ToOwned::to_owned).unwrap_or_default();
            let log = if self.only { FsUsage::default() } else { sized(dir).await };
            layers = sum(layers, stats.writable);
            logs = sum(logs, log);
            all.push(self.container(pod, container, stats, log));
        }
        let mut answer = json!({
            "podRef": { "name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid() },
            "startTime": start,
            "containers": all,
            "cpu": self.cpu(pod.uid(), now, usage.cpu_nanos),
            "memory": self.memory(now, usage),
            "swap": self.swap(usage, 0),
        });
        if !self.only {
            let path = cgroups::pod_path(&ctx.config.cgroup_root, pod);
            let tasks = ctx.cgroups.read("pids", &path, "pids.current").and_then(|text| text.trim().parse::<u64>().ok());
            answer["process_stats"] = json!({ "process_count": tasks });
            let pid = containers.iter().map(|(container, _)| container.pid).find(|pid| *pid > 0 && !pod.host_network());
            if let Some(pid) = pid {
                let table = std::fs::read_to_string(ctx.config.host.proc.join(format!("{pid}/net/dev"))).unwrap_or_default();
                answer["network"] = network(now, &table);
            }
            let volumes = volume_sizes(ctx, pod).await;
            let total =
                volumes.iter().filter(|(.., on_disk)| *on_disk).fold(sum(layers, logs), |all, (_, used, _)| sum(all, *used));
            answer["volume"] = volumes
                .into_iter()
                .map(|(name, used, _)| {
                    let mut volume = self.fs(used);
                    volume["name"] = json!(name);
                    volume
                })
                .collect();
            answer["ephemeral-storage"] = self.fs(total);
        }
        answer
    }

    fn container(&self, pod: &Pod, container: &Container, stats: &ContainerStats, logs: FsUsage) -> Value {
        let at = from_nanos(stats.timestamp);
        let path = format!("{}/{}", cgroups::pod_path(&self.ctx.config.cgroup_root, pod), container.id);
        let usage = self.ctx.cgroups.usage(&path).unwrap_or_default();
        let mut memory = json!({
            "time": time(at), "usageBytes": stats.memory_usage, "workingSetBytes": stats.memory_working_set,
            "rssBytes": stats.memory_rss, "pageFaults": stats.page_faults, "majorPageFaults": stats.major_page_faults,
        });
        let limit = u64::try_from(container.resources.memory_limit).unwrap_or(0);
        if limit > 0 {
            memory["availableBytes"] = json!(limit.saturating_sub(stats.memory_working_set));
        }
        let mut answer = json!({
            "name": container.name,
            "startTime": time(from_nanos(container.started_at)),
            "cpu": self.cpu(&container.id, at, stats.cpu_usage),
            "memory": memory,
            "swap": self.swap(&usage, 0),
        });
        if !self.only {
            answer["rootfs"] = self.fs(stats.writable);
            answer["logs"] = self.fs(logs);
        }
        answer
    }

    fn cpu(&self, who: &str, at: Timestamp, used: u64) -> Value {
        let mut cpu = Map::new();
        cpu.insert("time".to_owned(), json!(time(at)));
        if let Some(rate) = self.rates.of(who, at, used) {
            cpu.insert("usageNanoCores".to_owned(), json!(rate));
        }
        cpu.insert("usageCoreNanoSeconds".to_owned(), json!(used));
        Value::Object(cpu)
    }

    fn memory(&self, at: Timestamp, usage: &Usage) -> Value {
        json!({
            "time": time(at), "usageBytes": usage.memory, "workingSetBytes": usage.working_set, "rssBytes": usage.rss,
            "pageFaults": usage.page_faults, "majorPageFaults": usage.major_page_faults,
        })
    }

    fn swap(&self, usage: &Usage, all: u64) -> Value {
        json!({ "time": time(self.now), "swapAvailableBytes": all.saturating_sub(usage.swap), "swapUsageBytes": usage.swap })
    }

    fn fs(&self, used: FsUsage) -> Value {
        let disk = self.disk;
        json!({
            "time": time(self.now), "availableBytes": disk.available, "capacityBytes": disk.capacity, "usedBytes": used.bytes,
            "inodesFree": disk.inodes_free, "inodes": disk.inodes, "inodesUsed": used.inodes,
        })
    }
}

/// The interfaces of a network, the one with the default route's usual name in front.
fn network(now: Timestamp, table: &str) -> Value {
    let interfaces: Vec<Value> = cadvisor::interfaces(table)
        .into_iter()
        .map(|(name, counts)| {
            json!({ "name": name, "rxBytes": counts[0], "rxErrors": counts[2], "txBytes": counts[8], "txErrors": counts[10] })
        })
        .collect();
    let first = interfaces.iter().find(|interface| interface["name"] == "eth0").or_else(|| interfaces.first()).cloned();
    let mut answer = first.unwrap_or_else(|| json!({ "name": "" }));
    answer["time"] = json!(time(now));
    answer["interfaces"] = json!(interfaces);
    answer
}

async fn sized(path: std::path::PathBuf) -> FsUsage {
    tokio::task::spawn_blocking(move || size_of_tree(&path)).await.unwrap_or_default()
}

fn sum(a: FsUsage, b: FsUsage) -> FsUsage {
    FsUsage { bytes: a.bytes + b.bytes, inodes: a.inodes + b.inodes }
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_with_the_second_look() {
        let rates = Rates::default();
        let at = |seconds| Timestamp::from_second(seconds).expect("in range");
        assert_eq!(rates.of("a", at(100), 1_000_000_000), None);
        assert_eq!(rates.of("a", at(110), 6_000_000_000), Some(500_000_000)); // half a CPU
        assert_eq!(rates.of("a", at(110), 7_000_000_000), Some(500_000_000)); // too soon to tell anything new
        assert_eq!(rates.of("b", at(110), 7_000_000_000), None);
        rates.forget(at(1000));
        assert_eq!(rates.of("a", at(1000), 8_000_000_000), None);
    }
}
