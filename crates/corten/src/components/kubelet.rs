//! `corten kubelet`: kubelet's flags, on the embedded runtime and network.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use corten_kubelet::{Config, Kubelet};
use corten_task::Tasks;
use ipnet::IpNet;

use super::client;
use crate::flags::{Component, Flags};
use crate::node::{self, Network, Ranges};
use crate::paths::Paths;
use crate::{host, image};

/// The command line.
pub const COMPONENT: Component = Component {
    name: "kubelet",
    about: "Run the pods of this node (kubelet's flags)",
    known: include_str!("../flags/kubelet.txt"),
    effective: &[
        ("data-dir", "Directory for everything durable [default: /var/lib/corten]"),
        ("kubeconfig", "How to reach the API server"),
        ("hostname-override", "Name of this node [default: the host name]"),
        ("node-ip", "Address of this node [default: that of the default route's interface]"),
        ("cluster-dns", "Addresses of the cluster DNS"),
        ("cluster-domain", "DNS domain of the cluster [default: cluster.local]"),
        ("cgroup-root", "cgroup below which the pods' cgroups are made [default: /]"),
        ("max-pods", "Most pods at a time [default: 110]"),
        ("pod-manifest-path", "Directory of static pods"),
        ("eviction-hard", "Thresholds at which pods are evicted at once, such as memory.available<1Gi,nodefs.available<10%"),
        ("eviction-soft", "Thresholds at which pods are evicted when they are met for their grace period"),
        ("eviction-soft-grace-period", "How long each soft threshold has to be met, such as memory.available=1m30s"),
        ("eviction-minimum-reclaim", "How far above its amount a signal has to come, such as nodefs.available=500Mi"),
        ("eviction-max-pod-grace-period", "Longest grace period in seconds of a pod evicted by a soft threshold [default: 0]"),
        ("eviction-pressure-transition-period", "How long a pressure condition outlives its cause [default: 5m0s]"),
        ("client-ca-file", "CA of clients of this node's endpoint"),
        ("tls-cert-file", "Certificate of this node's endpoint, by a CA that the API server knows [default: self-signed]"),
        ("tls-private-key-file", "Its private key"),
        ("cluster-cidr", "Addresses of all pods [default: 10.42.0.0/16]"),
        ("service-cluster-ip-range", "Addresses of Services [default: 10.43.0.0/16]"),
        ("v", "Verbosity of the log"),
    ],
    harmless: &[],
    refused: &[],
};

/// Starts the node.
pub async fn start(flags: &Flags, tasks: &Tasks) -> anyhow::Result<Arc<Kubelet>> {
    host::require_root("kubelet")?;
    let client = client(flags).await?;
    let paths = Paths::new(Path::new(flags.text("data-dir").unwrap_or("/var/lib/corten")));
    let range = |name: &str, default: &str| -> anyhow::Result<IpNet> {
        let text = flags.text(name).unwrap_or(default);
        text.parse().with_context(|| format!("invalid value {text:?} for --{name}"))
    };
    let node_name = flags.text("hostname-override").map_or_else(host::node_name, |name| Ok(name.to_owned()))?;
    let node_ip: IpAddr = flags.parsed("node-ip")?.map_or_else(host::node_ip, Ok)?;
    let cgroup_root = flags.text("cgroup-root").unwrap_or("/");
    let cluster =
        Ranges { pods: range("cluster-cidr", "10.42.0.0/16")?, services: range("service-cluster-ip-range", "10.43.0.0/16")? };
    let network = Network::pending();
    let runtime = node::open_runtime(&paths, cgroup_root, tasks)?;
    image::serve(&paths, runtime.clone(), tasks)?;
    let mut config = Config {
        cluster_domain: flags.text("cluster-domain").unwrap_or("cluster.local").to_owned(),
        static_pods: flags.text("pod-manifest-path").map(Into::into),
        ..node::kubelet_config(&paths, node_name, node_ip, cgroup_root)
    };
    for text in flags.list("cluster-dns") {
        config.cluster_dns.push(text.parse().with_context(|| format!("invalid value {text:?} for --cluster-dns"))?);
    }
    if let Some(max) = flags.parsed("max-pods")? {
        config.max_pods = max;
    }
    eviction(flags, &mut config)?;
    config.server.client_ca = flags.text("client-ca-file").map(Into::into);
    config.server.certificate = match (flags.text("tls-cert-file"), flags.text("tls-private-key-file")) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => anyhow::bail!("--tls-cert-file and --tls-private-key-file must be given together"),
    };
    let kubelet = Kubelet::start(config, client, runtime.clone(), runtime, network.clone(), tasks).await;
    let kubelet = Arc::new(kubelet.context("start the kubelet")?);
    network.open_for(kubelet.clone(), paths, cluster, tasks);
    Ok(kubelet)
}

/// Takes the flags of eviction.
fn eviction(flags: &Flags, config: &mut Config) -> anyhow::Result<()> {
    let map = |name: &str, between| {
        let parsed = corten_kubelet::parse_thresholds(flags.text(name).unwrap_or_default(), between);
        parsed.with_context(|| format!("invalid value {:?} for --{name}", flags.text(name).unwrap_or_default()))
    };
    let soft = map("eviction-soft", '<')?;
    let (grace, reclaim) = (map("eviction-soft-grace-period", '=')?, map("eviction-minimum-reclaim", '=')?);
    let hard = match flags.text("eviction-hard") {
        Some(_) => map("eviction-hard", '<')?,
        None => corten_kubelet::parse_thresholds(corten_kubelet::HARD_THRESHOLDS, '<')?,
    };
    config.eviction = corten_kubelet::thresholds(&hard, &soft, &grace, &reclaim).context("invalid eviction thresholds")?;
    if let Some(seconds) = flags.parsed("eviction-max-pod-grace-period")? {
        config.eviction_max_grace = Duration::from_secs(seconds);
    }
    if let Some(period) = flags.duration("eviction-pressure-transition-period")? {
        config.pressure_transition = period;
    }
    Ok(())
}
