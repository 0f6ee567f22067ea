//! The parts that run on a node, wired to each other: runtime, network, kubelet, proxy, DNS.

mod network;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use corten_apiserver::certs::Certificates;
use corten_client::Client;
use corten_kubelet::Kubelet;
use corten_network::Bridge;
use corten_runtime::embedded::{self, Embedded};
use corten_task::Tasks;
use ipnet::IpNet;

use crate::paths::Paths;
use crate::up::Config;

pub use network::{Network, Ranges};

/// The embedded runtime of this cluster.
pub fn runtime(config: &Config, tasks: &Tasks) -> anyhow::Result<Arc<Embedded>> {
    open_runtime(&config.paths, &config.cgroup_root, tasks)
}

/// Opens the runtime: containers of an earlier process are taken over, what is dead is cleaned up.
pub fn open_runtime(paths: &Paths, cgroup_root: &str, tasks: &Tasks) -> anyhow::Result<Arc<Embedded>> {
    let this = std::env::current_exe().context("find this program's own file")?;
    let shim = vec![this.into(), "runtime-shim".into()];
    let config = embedded::Config {
        registries: Some(paths.data.clone()),
        shim_cgroup: format!("{}/corten/shims", cgroup_root.trim_end_matches('/')),
        ..embedded::Config::new(paths.runtime(), paths.run.join("runtime"), shim)
    };
    Ok(Arc::new(Embedded::open(config, tasks).context("open the container runtime")?))
}

/// Opens the built-in network with the node's ranges.
pub async fn open_network(paths: &Paths, ranges: Vec<IpNet>, cluster: Ranges, tasks: &Tasks) -> anyhow::Result<Bridge> {
    let config = corten_network::Config {
        ranges,
        cluster_ranges: vec![cluster.pods],
        service_ranges: vec![cluster.services],
        data: paths.network(),
        ..corten_network::Config::default()
    };
    Bridge::open(config, tasks).await.context("set up the pod network")
}

/// The kubelet of this node.
pub async fn kubelet(
    config: &Config,
    certificates: &Arc<Certificates>,
    client: Client,
    runtime: Arc<Embedded>,
    network: Arc<Network>,
    tasks: &Tasks,
) -> anyhow::Result<Arc<Kubelet>> {
    let mut settings = kubelet_config(&config.paths, config.node_name.clone(), config.node_ip, &config.cgroup_root);
    settings.cluster_dns = vec![config.dns_ip()];
    settings.cluster_domain = config.cluster_domain.clone();
    settings.server.client_ca = Some(certificates.directory().join("ca.crt"));
    let (user, names) = (format!("system:node:{}", config.node_name), vec![config.node_name.clone(), config.node_ip.to_string()]);
    settings.server.certificate = Some(certificates.keep_server("kubelet", &user, "system:nodes", names)?);
    let kubelet = Kubelet::start(settings, client, runtime.clone(), runtime, network.clone(), tasks).await;
    let kubelet = Arc::new(kubelet.context("start the kubelet")?);
    let cluster = Ranges { pods: config.pod_cidr, services: config.service_cidr };
    network.open_for(kubelet.clone(), config.paths.clone(), cluster, tasks);
    Ok(kubelet)
}

/// What every kubelet of this binary has in common.
pub fn kubelet_config(paths: &Paths, node_name: String, node_ip: IpAddr, cgroup_root: &str) -> corten_kubelet::Config {
    corten_kubelet::Config {
        node_name,
        node_ips: vec![node_ip],
        root: paths.kubelet(),
        pod_logs: paths.logs(),
        container_logs: None,
        cgroup_root: format!("{}/kubepods", cgroup_root.trim_end_matches('/')),
        ..corten_kubelet::Config::default()
    }
}

/// The service proxy's settings on this node.
pub fn proxy(config: &Config) -> corten_proxy::Config {
    corten_proxy::Config {
        node_name: config.node_name.clone(),
        cluster_ranges: vec![config.pod_cidr],
        ..corten_proxy::Config::default()
    }
}

/// The cluster DNS's settings.
pub fn dns(config: &Config) -> corten_dns::Config {
    corten_dns::Config {
        listen: vec![SocketAddr::new(config.dns_ip(), 53)],
        domain: config.cluster_domain.clone(),
        ranges: vec![config.pod_cidr, config.service_cidr],
        ..corten_dns::Config::default()
    }
}

/// Removes the cgroups of pods below `cgroup_root` in every hierarchy, as far as they are empty.
pub fn remove_cgroups(hierarchies: &Path, cgroup_root: &str) {
    let name = format!("{}/kubepods", cgroup_root.trim_matches('/'));
    let each = fs::read_dir(hierarchies).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in each.chain([hierarchies.to_owned()]) {
        remove_tree(&hierarchy.join(name.trim_start_matches('/')));
    }
}

/// A cgroup's files cannot be removed, only its directories, the deepest first.
fn remove_tree(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // One that is not there, or that somebody else uses, is not ours to remove.
    let _ = fs::remove_dir(directory);
}
