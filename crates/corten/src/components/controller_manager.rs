//! `corten controller-manager`: kube-controller-manager's flags.

use std::path::Path;

use anyhow::Context;
use corten_client::{Accounts, Informers};
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
        ("use-service-account-credentials", "Let each controller act as its own service account [default: false]"),
        ("leader-elect", "Act only while holding the lease kube-system/kube-controller-manager [default: true]"),
        ("leader-elect-lease-duration", "Silence of a leader after which another may take the lease [default: 15s]"),
        ("leader-elect-renew-deadline", "How long a leader tries to renew the lease [default: 10s]"),
        ("leader-elect-retry-period", "Pause between attempts [default: 2s]"),
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
    harmless: &[],
    refused: &[],
};

/// Starts every controller, as soon as this process leads.
pub async fn start(flags: &Flags, tasks: &Tasks) -> anyhow::Result<()> {
    let client = client(flags).await?;
    let config = config(flags)?;
    let accounts = match flags.enabled("use-service-account-credentials", false)? {
        true => Some(Accounts::open(Path::new(flags.required("kubeconfig")?), "kube-system").await?),
        false => None,
    };
    let own = client.clone();
    let lead = move |leading: &Tasks| {
        let acting_as = |name: &str| accounts.as_ref().map_or_else(|| own.clone(), |accounts| accounts.acting_as(name));
        corten_controllers::start(config.clone(), acting_as, &Informers::new(own.clone(), leading), leading);
    };
    super::elected(flags, "kube-controller-manager", client, tasks, lead)
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
