//! What the node and its pods use: the stats summary, the resource metrics that `kubectl top` and autoscalers are fed
//! from, and the kubelet's own metrics, under upstream's names.

use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use corten_runtime::{Container, ContainerState, ContainerStats, Images};

use crate::cgroups::{self, Usage};
use crate::clock::from_nanos;
use crate::config::Config;
use crate::context::Context;
use crate::machine::Disk;
use crate::pod::PodExt;
use crate::pods::Pods;

/// `/configz`, with the names of KubeletConfiguration.
pub fn configz(config: &Config) -> Value {
    let eviction: serde_json::Map<String, Value> = config
        .eviction
        .iter()
        .map(|threshold| {
            let value = match threshold.value {
                crate::eviction::Amount::Absolute(amount) => crate::quantity::bytes(amount).0,
                crate::eviction::Amount::Part(part) => format!("{}%", part * 100.0),
            };
            (threshold.signal.clone(), json!(value))
        })
        .collect();
    json!({ "kubeletconfig": {
        "address": config.server.address.map(|address| address.ip().to_string()),
        "port": config.server.address.map(|address| address.port()),
        "clusterDNS": config.cluster_dns,
        "clusterDomain": config.cluster_domain,
        "maxPods": config.max_pods,
        "podPidsLimit": config.pod_pids_limit,
        "resolvConf": config.resolv_conf,
        "staticPodPath": config.static_pods,
        "containerLogMaxSize": crate::quantity::bytes(i64::try_from(config.log_max_size).unwrap_or(0)).0,
        "containerLogMaxFiles": config.log_max_files,
        "imageGCHighThresholdPercent": config.image_gc_high,
        "imageGCLowThresholdPercent": config.image_gc_low,
        "nodeLeaseDurationSeconds": config.lease_duration.as_secs(),
        "allowedUnsafeSysctls": config.allowed_unsafe_sysctls,
        "seccompDefault": config.seccomp_default,
        "evictionHard": eviction,
        "cgroupDriver": "cgroupfs",
    }})
}

/// `/metrics`.
pub fn metrics(ctx: &Context, pods: &Pods) -> String {
    let containers = ctx.cache.containers();
    let count = |state| containers.iter().filter(|container| container.state == state).count();
    let mut out = Text::default();
    out.head("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
    out.line("kubelet_node_name", &[("node", &ctx.config.node_name)], 1.0, None);
    out.head("kubelet_running_containers", "gauge", "Number of containers currently running");
    for (name, state) in
        [("created", ContainerState::Created), ("exited", ContainerState::Exited), ("running", ContainerState::Running)]
    {
        out.line("kubelet_running_containers", &[("container_state", name)], count(state) as f64, None);
    }
    out.head("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox");
    let running = ctx.cache.uids().iter().filter(|uid| ctx.cache.pod(uid).sandboxes.iter().any(|sandbox| sandbox.ready)).count();
    out.line("kubelet_running_pods", &[], running as f64, None);
    out.head("kubelet_desired_pods", "gauge", "The number of pods the kubelet is being instructed to run.");
    out.line("kubelet_desired_pods", &[], pods.list().len() as f64, None);
    out.text
}

/// `/metrics/resource`.
pub async fn resource_metrics(ctx: &Context, pods: &Pods) -> String {
    let mut out = Text::default();
    let node = ctx.cgroups.usage("/").unwrap_or_default();
    let measured = measure(ctx, pods).await;
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let now = ctx.clock.now();
    out.head(
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
    );
    each(&measured, |labels, _, stats| {
        out.line("container_cpu_usage_seconds_total", labels, seconds(stats.cpu_usage), Some(stats.timestamp))
    });
    out.head("container_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the container in bytes");
    each(&measured, |labels, _, stats| {
        out.line("container_memory_working_set_bytes", labels, stats.memory_working_set as f64, Some(stats.timestamp));
    });
    out.head("container_start_time_seconds", "gauge", "[STABLE] Start time of the container since unix epoch in seconds");
    each(&measured, |labels, container, _| {
        out.line("container_start_time_seconds", labels, container.started_at as f64 / 1e9, None)
    });
    out.head("node_cpu_usage_seconds_total", "counter", "[STABLE] Cumulative cpu time consumed by the node in core-seconds");
    out.line("node_cpu_usage_seconds_total", &[], seconds(node.cpu_nanos), Some(nanos(now)));
    out.head("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes");
    out.line("node_memory_working_set_bytes", &[], node.working_set as f64, Some(nanos(now)));
    out.head("pod_cpu_usage_seconds_total", "counter", "[STABLE] Cumulative cpu time consumed by the pod in core-seconds");
    for (pod, usage, _) in &measured {
        out.line(
            "pod_cpu_usage_seconds_total",
            &[("namespace", pod.namespace()), ("pod", pod.name())],
            seconds(usage.cpu_nanos),
            Some(nanos(now)),
        );
    }
    out.head("pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes");
    for (pod, usage, _) in &measured {
        let labels = [("namespace", pod.namespace()), ("pod", pod.name())];
        out.line("pod_memory_working_set_bytes", &labels, usage.working_set as f64, Some(nanos(now)));
    }
    out.head("resource_scrape_error", "gauge", "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise");
    out.line("resource_scrape_error", &[], 0.0, None);
    out.text
}

/// `/stats/summary`.
pub async fn summary(ctx: &Context, pods: &Pods, images: &dyn Images) -> Value {
    let now = ctx.clock.now();
    let measured = measure(ctx, pods).await;
    let disk = Disk::of(&ctx.config.root);
    let node = ctx.cgroups.usage("/").unwrap_or_default();
    let image_use = images.usage().await.unwrap_or_default();
    let fs = |used: u64, inodes_used: u64| {
        json!({
            "time": time(now), "availableBytes": disk.available, "capacityBytes": disk.capacity, "usedBytes": used,
            "inodesFree": disk.inodes_free, "inodes": disk.inodes, "inodesUsed": inodes_used,
        })
    };
    let pod_list: Vec<Value> = measured
        .iter()
        .map(|(pod, usage, containers)| {
            let containers: Vec<Value> = containers
                .iter()
                .map(|(container, stats)| {
                    let at = from_nanos(stats.timestamp);
                    json!({
                        "name": container.name,
                        "startTime": time(from_nanos(container.started_at)),
                        "cpu": { "time": time(at), "usageCoreNanoSeconds": stats.cpu_usage },
                        "memory": {
                            "time": time(at), "usageBytes": stats.memory_usage, "workingSetBytes": stats.memory_working_set,
                            "rssBytes": stats.memory_rss, "pageFaults": stats.page_faults, "majorPageFaults": stats.major_page_faults,
                        },
                        "rootfs": fs(stats.writable.bytes, stats.writable.inodes),
                    })
                })
                .collect();
            let start = pods.status(pod.uid()).and_then(|status| status.start_time).map(|start| time(start.0));
            let storage = crate::housekeeping::size_of_tree(&ctx.volumes.pod_dir(pod.uid())).bytes;
            json!({
                "podRef": { "name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid() },
                "startTime": start,
                "containers": containers,
                "cpu": { "time": time(now), "usageCoreNanoSeconds": usage.cpu_nanos },
                "memory": memory(now, usage),
                "ephemeral-storage": fs(storage, 0),
            })
        })
        .collect();
    json!({
        "node": {
            "nodeName": ctx.config.node_name,
            "startTime": time(now),
            "cpu": { "time": time(now), "usageCoreNanoSeconds": node.cpu_nanos },
            "memory": memory(now, &node),
            "fs": fs(disk.used, disk.inodes.saturating_sub(disk.inodes_free)),
            "runtime": { "imageFs": fs(image_use.bytes, image_use.inodes) },
        },
        "pods": pod_list,
    })
}

type Measured = Vec<(std::sync::Arc<Pod>, Usage, Vec<(Container, ContainerStats)>)>;

/// Readings of every pod and its running containers. One that ends meanwhile is left out.
async fn measure(ctx: &Context, pods: &Pods) -> Measured {
    let mut measured = Vec::new();
    for (pod, _) in pods.list() {
        let mut containers = Vec::new();
        for container in ctx.cache.pod(pod.uid()).containers {
            if container.state == ContainerState::Running
                && let Ok(stats) = ctx.runtime.container_stats(&container.id).await
            {
                containers.push((container, stats));
            }
        }
        if containers.is_empty() {
            continue;
        }
        let of_pod = ctx.cgroups.usage(&cgroups::pod_path(&ctx.config.cgroup_root, &pod));
        // Without a cgroup of the pod's own its containers add up to the same.
        let usage = of_pod.unwrap_or_else(|| {
            containers.iter().fold(Usage::default(), |sum, (_, stats)| Usage {
                cpu_nanos: sum.cpu_nanos + stats.cpu_usage,
                memory: sum.memory + stats.memory_usage,
                working_set: sum.working_set + stats.memory_working_set,
                rss: sum.rss + stats.memory_rss,
                page_faults: sum.page_faults + stats.page_faults,
                major_page_faults: sum.major_page_faults + stats.major_page_faults,
            })
        });
        measured.push((pod, usage, containers));
    }
    measured
}

fn each(measured: &Measured, mut line: impl FnMut(&[(&str, &str)], &Container, &ContainerStats)) {
    for (pod, _, containers) in measured {
        for (container, stats) in containers {
            let labels = [("container", container.name.as_str()), ("namespace", pod.namespace()), ("pod", pod.name())];
            line(&labels, container, stats);
        }
    }
}

fn memory(now: Timestamp, usage: &Usage) -> Value {
    json!({
        "time": time(now), "usageBytes": usage.memory, "workingSetBytes": usage.working_set, "rssBytes": usage.rss,
        "pageFaults": usage.page_faults, "majorPageFaults": usage.major_page_faults,
    })
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

/// Prometheus' text format.
#[derive(Default)]
struct Text {
    text: String,
}

impl Text {
    // Writing to a string cannot fail.
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// `at` is in nanoseconds; the format has milliseconds.
    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64, at: Option<i64>) {
        self.text.push_str(name);
        if !labels.is_empty() {
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            let _ = write!(self.text, "{{{}}}", labels.join(","));
        }
        let _ = write!(self.text, " {value}");
        if let Some(at) = at.filter(|at| *at > 0) {
            let _ = write!(self.text, " {}", at / 1_000_000);
        }
        self.text.push('\n');
    }
}
