//! Starts and holds a kubelet: its parts in the order they need each other.

use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use tokio::sync::{Notify, watch};

use corten_client::{Client, EventType, Informers, Recorder};
use corten_network::PodNetwork;
use corten_runtime::{Images, Runtime, RuntimeError};
use corten_task::Tasks;

use crate::clock::Clock;
use crate::config::Config;
use crate::context::Context;
use crate::events::Events;
use crate::eviction::Pressure;
use crate::images::ImageManager;
use crate::machine::Machine;
use crate::node::{self, NodeStatusManager};
use crate::pods::Pods;
use crate::{housekeeping, names, server, static_pods};

/// The words of upstream, which will not support cgroup v1 for ever.
const CGROUP_V1: &str = "cgroup v1 detected. cgroup v1 support is deprecated and will be removed in a future release. Please migrate to cgroup v2. More information at https://git.k8s.io/enhancements/keps/sig-node/5573-remove-cgroup-v1";

/// Why a kubelet does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory of its own cannot be made.
    #[error("create {path}")]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The runtime does not answer.
    #[error("ask the container runtime for its containers")]
    Runtime(#[source] RuntimeError),
    /// The node's endpoint cannot be served.
    #[error("serve the node's endpoint")]
    Server(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The configuration has no node name.
    #[error("the node has no name")]
    NoName,
}

/// A running kubelet. It stops with the tasks it was started in; the containers go on.
pub struct Kubelet {
    address: Option<SocketAddr>,
    node: watch::Receiver<Option<Arc<Node>>>,
    registered: watch::Receiver<bool>,
    ready: watch::Sender<Result<(), String>>,
    pods: Arc<Pods>,
}

impl Kubelet {
    /// Starts a kubelet in a child of `tasks`: takes over what an earlier process left running, registers the node, and
    /// runs the pods bound to it. Returns when its endpoint listens; registration goes on in the background.
    pub async fn start(
        config: Config,
        client: Client,
        runtime: Arc<dyn Runtime>,
        images: Arc<dyn Images>,
        network: Arc<dyn PodNetwork>,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        Self::start_at(Clock::System, config, client, runtime, images, network, tasks).await
    }

    pub(crate) async fn start_at(
        clock: Clock,
        config: Config,
        client: Client,
        runtime: Arc<dyn Runtime>,
        images: Arc<dyn Images>,
        network: Arc<dyn PodNetwork>,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        if config.node_name.is_empty() {
            return Err(StartError::NoName);
        }
        for path in [&config.root, &config.pod_logs] {
            std::fs::create_dir_all(path).map_err(|source| StartError::Directory { path: path.clone(), source })?;
        }
        let tasks = tasks.child("kubelet");
        let machine = Machine::read(&config.host);
        let events = Events::new(Recorder::new(client.clone(), "kubelet", config.node_name.clone(), &tasks), &config.node_name);
        let informers = Informers::new(client.clone(), &tasks);
        let (node_sender, node) = watch::channel(None);
        let (pressure_sender, pressure) = watch::channel(Pressure::default());
        let (ready, ready_seen) = watch::channel(Ok(()));
        let changed = Arc::new(Notify::new());
        let manager = ImageManager::new(images.clone(), clock, changed.clone());
        let services = informers.of::<Service>();
        let version = runtime.version();
        let runtime_events = runtime.events();
        let ctx = Arc::new(Context::new(
            config.clone(),
            client.clone(),
            clock,
            runtime,
            network,
            manager,
            events.clone(),
            machine.clone(),
            node.clone(),
            services,
            pressure.clone(),
            tasks.clone(),
        ));
        // Subscribed before the list: nothing that happens in between is missed.
        ctx.cache.relist().await.map_err(StartError::Runtime)?;
        let pods = Pods::new(ctx.clone());
        let address = server::start(&ctx, &pods, images.clone(), &tasks).await.map_err(StartError::Server)?;

        let status = Arc::new(NodeStatusManager {
            config: config.clone(),
            client: client.clone(),
            clock,
            machine,
            events: events.clone(),
            images: images.clone(),
            runtime: version,
            capacity: ctx.capacity.clone(),
            allocatable: ctx.allocatable.clone(),
            port: address.map_or(0, |address| address.port()),
            pressure,
            ready: ready_seen,
            changed,
            last: parking_lot::Mutex::new(None),
        });
        let (registered_sender, registered) = watch::channel(false);
        events.node(EventType::Normal, "Starting", "Starting kubelet.");
        if !ctx.cgroups.is_unified() {
            events.node(EventType::Warning, "CgroupV1", CGROUP_V1);
        }
        names::check(&config.resolv_conf, &config.cluster_domain, &events);
        tasks.spawn("node status", {
            let (status, ctx) = (status.clone(), ctx.clone());
            async move {
                status.register().await;
                registered_sender.send_replace(true);
                enforce_allocatable(&ctx);
                status.report().await;
            }
        });
        tasks.spawn("node lease", {
            let (status, node) = (status, node.clone());
            async move { status.renew(node).await }
        });
        tasks.spawn("node watch", node::follow(client, config.node_name.clone(), events, node_sender));
        tasks.spawn("runtime events", {
            let (ctx, pods) = (ctx.clone(), pods.clone());
            async move { ctx.cache.follow(runtime_events, |uid| pods.wake(uid)).await }
        });
        tasks.spawn("pod watch", pods.clone().follow());
        if config.static_pods.is_some() {
            tasks.spawn("static pods", static_pods::run(ctx.clone(), pods.clone()));
        }
        housekeeping::start(&ctx, &pods, images, pressure_sender, &tasks);
        Ok(Self { address, node, registered, ready, pods })
    }

    /// Where the node's endpoint listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Waits until the node is registered.
    pub async fn registered(&self) {
        // An error means that the kubelet is stopping; whoever waits is stopped with it.
        if self.registered.clone().wait_for(|registered| *registered).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits for the address ranges that the control plane gave to this node's pods, the primary family first.
    pub async fn pod_cidrs(&self) -> Vec<String> {
        let mut node = self.node.clone();
        let cidrs = |node: &Option<Arc<Node>>| -> Option<Vec<String>> {
            let spec = node.as_ref()?.spec.as_ref()?;
            let all = spec.pod_cidrs.clone().filter(|all| !all.is_empty());
            all.or_else(|| spec.pod_cidr.clone().map(|one| vec![one]))
        };
        let given = node.wait_for(|node| cidrs(node).is_some()).await.ok().and_then(|node| cidrs(&node));
        match given {
            Some(cidrs) => cidrs,
            None => std::future::pending().await,
        }
    }

    /// Says whether the node can run pods at all; `Err` has the message of its `Ready` condition.
    pub fn set_ready(&self, ready: Result<(), String>) {
        self.ready.send_if_modified(|known| {
            let news = *known != ready;
            *known = ready;
            news
        });
    }

    /// Waits until the pods of the API are known: those that ran before are looked after again.
    pub async fn synced(&self) {
        self.pods.synced().await;
    }
}

/// Gives the pods' common cgroup what is not reserved of the node, and tells so.
fn enforce_allocatable(ctx: &Context) {
    if !ctx.config.host.manage {
        return;
    }
    let (machine, reserved) = (&ctx.machine, &ctx.config.reserved);
    let limits = crate::cgroups::PodLimits {
        cpu_shares: crate::cgroups::shares(machine.cpus * 1000 - reserved.cpu_milli),
        memory: Some(machine.memory - reserved.memory),
        ..crate::cgroups::PodLimits::default()
    };
    let root = &ctx.config.cgroup_root;
    match ctx.cgroups.create(root).and_then(|()| ctx.cgroups.limit(root, &limits)) {
        Ok(()) => ctx.events.node(EventType::Normal, "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods"),
        Err(err) => {
            let why = crate::chain(&err);
            let message = format!("Failed to update Node Allocatable Limits {root:?}: {why}");
            ctx.events.node(EventType::Warning, "FailedNodeAllocatableEnforcement", &message);
        }
    }
}

#[cfg(test)]
mod tests;
