//! What the node and its pods use: the stats summary, the resource metrics that `kubectl top` and autoscalers are fed
//! from, and the kubelet's own metrics, under upstream's names.

pub mod cadvisor;
pub mod summary;

use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use corten_runtime::{Container, ContainerState, ContainerStats};

use crate::cgroups::{self, Usage};
use crate::config::Config;
use crate::context::Context;
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
    let swap = |path: &str| ctx.cgroups.usage(path).map(|usage| usage.swap);
    let container_swap =
        |pod: &Pod, container: &Container| swap(&format!("{}/{}", cgroups::pod_path(&ctx.config.cgroup_root, pod), container.id));
    out.head(
        "container_swap_usage_bytes",
        "gauge",
        "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems",
    );
    for (pod, _, containers) in &measured {
        for (container, stats) in containers {
            let labels = [("container", container.name.as_str()), ("namespace", pod.namespace()), ("pod", pod.name())];
            if let Some(swap) = container_swap(pod, container) {
                out.line("container_swap_usage_bytes", &labels, swap as f64, Some(stats.timestamp));
            }
        }
    }
    out.head("node_cpu_usage_seconds_total", "counter", "[STABLE] Cumulative cpu time consumed by the node in core-seconds");
    out.line("node_cpu_usage_seconds_total", &[], seconds(node.cpu_nanos), Some(nanos(now)));
    out.head("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes");
    out.line("node_memory_working_set_bytes", &[], node.working_set as f64, Some(nanos(now)));
    out.head(
        "node_swap_usage_bytes",
        "gauge",
        "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems",
    );
    out.line("node_swap_usage_bytes", &[], node.swap as f64, Some(nanos(now)));
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
    out.head(
        "pod_swap_usage_bytes",
        "gauge",
        "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
    );
    for (pod, usage, _) in &measured {
        let labels = [("namespace", pod.namespace()), ("pod", pod.name())];
        out.line("pod_swap_usage_bytes", &labels, usage.swap as f64, Some(nanos(now)));
    }
    out.head("resource_scrape_error", "gauge", "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise");
    out.line("resource_scrape_error", &[], 0.0, None);
    out.text
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
                swap: sum.swap,
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
