//! What all workers of one kubelet share.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use parking_lot::Mutex;
use tokio::sync::watch;

use corten_client::{Client, Informer};
use corten_network::PodNetwork;
use corten_runtime::{DnsConfig, Runtime};
use corten_task::Tasks;

use crate::cache::Cache;
use crate::cgroups::Tree;
use crate::clock::Clock;
use crate::config::Config;
use crate::events::Events;
use crate::eviction::Pressure;
use crate::images::ImageManager;
use crate::machine::Machine;
use crate::mirror::Mirrors;
use crate::names::parse_resolv_conf;
use crate::quantity::Resources;
use crate::services::ServiceVars;
use crate::volumes::Volumes;

/// One kubelet's means.
pub struct Context {
    pub config: Config,
    pub client: Client,
    pub clock: Clock,
    pub runtime: Arc<dyn Runtime>,
    pub network: Arc<dyn PodNetwork>,
    pub images: ImageManager,
    pub cache: Cache,
    pub volumes: Volumes,
    pub cgroups: Tree,
    pub events: Events,
    pub machine: Machine,
    pub capacity: Resources,
    pub allocatable: Resources,
    /// `corten`, for container ids.
    pub runtime_name: String,
    pub node: watch::Receiver<Option<Arc<core::Node>>>,
    pub services: Informer<core::Service>,
    /// What the node is short of.
    pub pressure: watch::Receiver<Pressure>,
    pub mirrors: Mirrors,
    pub tasks: Tasks,
    resolver: Mutex<Option<DnsConfig>>,
}

impl Context {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        config: Config,
        client: Client,
        clock: Clock,
        runtime: Arc<dyn Runtime>,
        network: Arc<dyn PodNetwork>,
        images: ImageManager,
        events: Events,
        machine: Machine,
        node: watch::Receiver<Option<Arc<core::Node>>>,
        services: Informer<core::Service>,
        pressure: watch::Receiver<Pressure>,
        tasks: Tasks,
    ) -> Self {
        let volumes = Volumes {
            root: config.root.clone(),
            config_maps: crate::objects::Objects::new(client.clone(), tasks.clone()),
            secrets: crate::objects::Objects::new(client.clone(), tasks.clone()),
            tokens: crate::tokens::Tokens::new(client.clone(), clock),
            client: client.clone(),
            manage: config.host.manage,
        };
        let (capacity, allocatable) = crate::node::resources(&config, &machine);
        Self {
            cgroups: Tree::at(&config.host.cgroup),
            cache: Cache::new(runtime.clone()),
            runtime_name: runtime.version().name,
            mirrors: Mirrors::new(client.clone(), &config.node_name),
            resolver: Mutex::new(None),
            config,
            client,
            clock,
            runtime,
            network,
            images,
            volumes,
            events,
            machine,
            capacity,
            allocatable,
            node,
            services,
            pressure,
            tasks,
        }
    }

    /// The node's own resolver configuration, read once.
    pub fn host_resolver(&self) -> DnsConfig {
        let mut known = self.resolver.lock();
        known
            .get_or_insert_with(|| parse_resolv_conf(&std::fs::read_to_string(&self.config.resolv_conf).unwrap_or_default()))
            .clone()
    }

    /// The Services whose variables a pod of `namespace` may get.
    pub fn service_vars(&self, namespace: &str) -> Vec<ServiceVars> {
        let mut services = self.services.list_in(namespace);
        if namespace != "default" {
            services.extend(self.services.get(&corten_client::Key::new("default", "kubernetes")));
        }
        services.iter().filter_map(|service| ServiceVars::of(service)).collect()
    }

    /// Where the kubelet keeps what belongs to one container of a pod.
    pub fn container_dir(&self, uid: &str, container: &str) -> PathBuf {
        self.volumes.pod_dir(uid).join("containers").join(container)
    }

    /// Where the logs of a pod are.
    pub fn log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.config.pod_logs.join(format!("{namespace}_{name}_{uid}"))
    }

    /// What the values of containers' cgroups depend on.
    pub fn cgroup_node(&self) -> crate::cgroups::Node<'_> {
        let machine = &self.machine;
        crate::cgroups::Node { memory: machine.memory, hugepages: &machine.hugepages, unified: self.cgroups.has_unified_memory() }
    }

    pub fn host_ips(&self) -> &[IpAddr] {
        &self.config.node_ips
    }
}
