//! What a kubelet is told: one plain tree, made once from flags or by the all-in-one binary. Nothing below reads the
//! environment. The defaults are upstream's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use crate::eviction::Threshold;

/// Settings of one kubelet.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the Node object.
    pub node_name: String,
    /// Addresses of the node, the primary family first.
    pub node_ips: Vec<IpAddr>,
    /// Cloud's identifier of this machine, when there is one.
    pub provider_id: Option<String>,
    /// Directory for pods' volumes and files (`/var/lib/corten/kubelet`).
    pub root: PathBuf,
    /// Directory for pods' logs (`/var/log/pods`).
    pub pod_logs: PathBuf,
    /// Directory for links to container logs (`/var/log/containers`), which log collectors read; `None` makes none.
    pub container_logs: Option<PathBuf>,
    /// The machine's own files.
    pub host: Host,
    /// The node's HTTPS endpoint.
    pub server: Server,
    /// Address of cluster DNS; empty turns `ClusterFirst` into `Default`.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster, such as `cluster.local`.
    pub cluster_domain: String,
    /// Resolver configuration that `Default` pods inherit.
    pub resolv_conf: PathBuf,
    /// Most pods at a time.
    pub max_pods: u32,
    /// Most processes in one pod; 0 is no limit.
    pub pod_pids_limit: i64,
    /// cgroup below which all pods' cgroups lie, such as `/kubepods`.
    pub cgroup_root: String,
    /// What is kept from pods: capacity minus this is allocatable.
    pub reserved: Reserved,
    /// Thresholds at which pods are evicted.
    pub eviction: Vec<Threshold>,
    /// Longest grace period of a pod that goes because of a soft threshold.
    pub eviction_max_grace: Duration,
    /// How long a pressure condition outlives its cause.
    pub pressure_transition: Duration,
    /// Directory of static pods' manifests.
    pub static_pods: Option<PathBuf>,
    /// Labels the Node object gets besides the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Taints the Node object is made with.
    pub taints: Vec<Taint>,
    /// Register the node as unschedulable.
    pub unschedulable: bool,
    /// Patterns (`kernel.msg*`) of sysctls allowed besides the safe ones.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Make `RuntimeDefault` of an unset seccomp profile, where upstream's default is `Unconfined`.
    pub seccomp_default: bool,
    /// Disk use in per cent above which images are collected.
    pub image_gc_high: u8,
    /// Disk use in per cent down to which images are collected.
    pub image_gc_low: u8,
    /// Age an unused image must have before it is collected.
    pub image_min_age: Duration,
    /// Size at which a container's log is rotated, bytes.
    pub log_max_size: u64,
    /// Log files kept of one container, the current one included.
    pub log_max_files: u32,
    /// Lease duration; it is renewed four times within it.
    pub lease_duration: Duration,
    /// How often the node's status is sent when nothing changed.
    pub status_report: Duration,
}

/// Where the machine's own files are; tests give a tree of their own.
#[derive(Clone, Debug)]
pub struct Host {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys/fs/cgroup`.
    pub cgroup: PathBuf,
    /// `/etc`.
    pub etc: PathBuf,
    /// Whether cgroups, mounts and ownership are changed; off in tests that do not run as root.
    pub manage: bool,
}

/// The HTTPS endpoint.
#[derive(Clone, Debug)]
pub struct Server {
    /// Address, such as `0.0.0.0:10250`; port 0 takes any free port. `None` serves nothing.
    pub address: Option<SocketAddr>,
    /// Certificate chain and key as PEM files; a self-signed pair is made when `None`.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Certificate authority of client certificates, a PEM file.
    pub client_ca: Option<PathBuf>,
    /// Let requests without credentials through as `system:anonymous`.
    pub anonymous: bool,
    /// Ask the API server who may do what; without, everyone who is authenticated may do everything.
    pub authorize: bool,
}

/// Resources kept from pods.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reserved {
    /// Thousandths of a CPU.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of the root file system.
    pub ephemeral_storage: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            node_ips: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            provider_id: None,
            root: "/var/lib/corten/kubelet".into(),
            pod_logs: "/var/log/pods".into(),
            container_logs: Some("/var/log/containers".into()),
            host: Host::default(),
            server: Server::default(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: "/etc/resolv.conf".into(),
            max_pods: 110,
            pod_pids_limit: 0,
            cgroup_root: "/kubepods".to_owned(),
            reserved: Reserved::default(),
            eviction: Threshold::defaults(),
            eviction_max_grace: Duration::ZERO,
            pressure_transition: Duration::from_secs(300),
            static_pods: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            unschedulable: false,
            allowed_unsafe_sysctls: Vec::new(),
            seccomp_default: true,
            image_gc_high: 85,
            image_gc_low: 80,
            image_min_age: Duration::from_secs(120),
            log_max_size: 10 << 20,
            log_max_files: 5,
            lease_duration: Duration::from_secs(40),
            status_report: Duration::from_secs(300),
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self { proc: "/proc".into(), cgroup: "/sys/fs/cgroup".into(), etc: "/etc".into(), manage: true }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            address: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10250)),
            certificate: None,
            client_ca: None,
            anonymous: false,
            authorize: true,
        }
    }
}
