//! `corten controller-manager`: kube-controller-manager's flags.

use anyhow::Context;
use corten_client::Informers;
use corten_controllers::Config;
use corten_task::Tasks;

use super::client;
use crate::flags::{Component, Flags};

/// The command line.
pub const COMPONENT: Component = Component {
    name: "controller-manager",
    about: "Run the controllers (kube-controller-manager's flags)",
    known: include_str!("../flags/controller-manager.txt"),
    effective: &[
        ("kubeconfig", "How to reach the API server"),
        ("controllers", "Controllers to run: * for all, name for one, -name for not that one"),
        ("root-ca-file", "CA that pods verify the API server with"),
        ("allocate-node-cidrs", "Give nodes ranges of pod addresses [default: false]"),
        ("cluster-cidr", "Addresses for pods; nodes get their ranges from it"),
        ("service-cluster-ip-range", "Addresses of Services, which no node gets"),
        ("node-cidr-mask-size", "Size of a node's range [default: 24]"),
        ("node-monitor-grace-period", "Silence after which a node is unknown [default: 50s]"),
        ("terminated-pod-gc-threshold", "Ended pods that are kept [default: 12500]"),
        ("v", "Verbosity of the log"),
    ],
};

/// Starts every controller.
pub async fn start(flags: &Flags, tasks: &Tasks) -> anyhow::Result<Informers> {
    let client = client(flags).await?;
    let informers = Informers::new(client.clone(), tasks);
    let config = config(flags)?;
    corten_controllers::start(config, |_| client.clone(), &informers, tasks);
    Ok(informers)
}

fn config(flags: &Flags) -> anyhow::Result<Config> {
    let ranges = |name: &str| {
        let parse = |text: &String| text.parse().with_context(|| format!("invalid value {text:?} for --{name}"));
        flags.list(name).iter().map(parse).collect::<anyhow::Result<Vec<_>>>()
    };
    let mut config = Config {
        allocate_node_cidrs: flags.enabled("allocate-node-cidrs", false)?,
        cluster_cidrs: ranges("cluster-cidr")?,
        service_cidrs: ranges("service-cluster-ip-range")?,
        ..Config::default()
    };
    if let Some(path) = flags.text("root-ca-file") {
        config.root_ca = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    }
    let controllers = flags.list("controllers");
    if !controllers.is_empty() {
        config.controllers = controllers;
    }
    if let Some(size) = flags.parsed("node-cidr-mask-size")? {
        config.node_cidr_mask_size_ipv4 = size;
    }
    if let Some(period) = flags.duration("node-monitor-grace-period")? {
        config.node_monitor_grace_period = period;
    }
    if let Some(threshold) = flags.parsed("terminated-pod-gc-threshold")? {
        config.terminated_pod_gc_threshold = threshold;
    }
    Ok(config)
}
