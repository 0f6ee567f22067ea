//! The Node object: registered at start, its status reported when something changed and at the latest every five
//! minutes, and its Lease renewed every ten seconds, which alone says that the node lives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSwapStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, watch};

use corten_client::EventType;
use corten_runtime::{Images, RuntimeVersion};

use crate::clock::Clock;
use crate::config::Config;
use crate::events::Events;
use crate::eviction::Pressure;
use crate::machine::{Disk, Machine};
use crate::quantity::{self, Resources};

/// Version this kubelet reports.
pub const VERSION: &str = "v1.36.0";
const MAX_IMAGES: usize = 50;
/// Taint and label domain names.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Capacity and allocatable resources of the node.
pub fn resources(config: &Config, machine: &Machine) -> (Resources, Resources) {
    let disk = i64::try_from(Disk::of(existing(&config.root)).capacity).unwrap_or(0);
    let mut capacity = Resources::from([
        ("cpu".to_owned(), quantity::whole(machine.cpus)),
        ("memory".to_owned(), quantity::kibibytes(machine.memory)),
        ("ephemeral-storage".to_owned(), quantity::kibibytes(disk)),
        ("pods".to_owned(), quantity::whole(i64::from(config.max_pods))),
    ]);
    for (size, count) in &machine.hugepages {
        capacity.insert(format!("hugepages-{}", quantity::bytes(*size).0), quantity::bytes(size * count));
    }
    let mut allocatable = capacity.clone();
    let hard = |signal: &str, whole: i64| {
        let threshold = config.eviction.iter().find(|threshold| threshold.signal == signal && threshold.grace.is_zero());
        threshold.map_or(0, |threshold| threshold.amount(whole))
    };
    let cpu = machine.cpus * 1000 - config.reserved.cpu_milli;
    let memory = machine.memory - config.reserved.memory - hard("memory.available", machine.memory);
    let storage = disk - config.reserved.ephemeral_storage - hard("nodefs.available", disk);
    allocatable.insert("cpu".to_owned(), quantity::from_milli(cpu.max(0)));
    allocatable.insert("memory".to_owned(), quantity::kibibytes(memory.max(0)));
    allocatable.insert("ephemeral-storage".to_owned(), quantity::whole(storage.max(0)));
    (capacity, allocatable)
}

/// The nearest directory above `path` that exists.
fn existing(path: &std::path::Path) -> &std::path::Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(path)
}

/// Keeps the Node object and the Lease.
pub struct NodeStatusManager {
    pub config: Config,
    pub client: Client,
    pub clock: Clock,
    pub machine: Machine,
    pub events: Events,
    pub images: Arc<dyn Images>,
    pub runtime: RuntimeVersion,
    pub capacity: Resources,
    pub allocatable: Resources,
    /// The port the node's endpoint listens on; 0 is none.
    pub port: u16,
    pub pressure: watch::Receiver<Pressure>,
    pub ready: watch::Receiver<Result<(), String>>,
    pub changed: Arc<Notify>,
    pub last: Mutex<Option<NodeStatus>>,
}

impl NodeStatusManager {
    /// Creates the Node object, or brings labels and status of the one that is there up to date. Tries until it works.
    pub async fn register(&self) {
        let mut delay = Duration::from_millis(100);
        loop {
            match self.try_register().await {
                Ok(()) => return,
                Err(err) => tracing::warn!(error = %crate::chain(&err), node = self.config.node_name, "register the node"),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(7));
        }
    }

    async fn try_register(&self) -> Result<(), kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let status = self.status().await;
        let node = Node {
            metadata: ObjectMeta {
                name: Some(self.config.node_name.clone()),
                labels: Some(self.labels()),
                annotations: Some(
                    [("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())].into(),
                ),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                provider_id: self.config.provider_id.clone(),
                taints: Some(self.config.taints.clone()).filter(|taints| !taints.is_empty()),
                unschedulable: Some(true).filter(|_| self.config.unschedulable),
                ..NodeSpec::default()
            }),
            status: Some(status.clone()),
        };
        match nodes.create(&PostParams::default(), &node).await {
            Ok(_) => self.tell(&NodeStatus::default(), &status),
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                let known = nodes.get(&self.config.node_name).await?;
                let labels = known.metadata.labels.unwrap_or_default();
                let missing: BTreeMap<_, _> =
                    self.labels().into_iter().filter(|(name, value)| labels.get(name) != Some(value)).collect();
                if !missing.is_empty() {
                    let patch = json!({ "metadata": { "labels": missing } });
                    nodes.patch(&self.config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await?;
                }
                let before = known.status.unwrap_or_default();
                *self.last.lock() = Some(before.clone());
                let status = self.status().await;
                self.send(&status).await?;
                self.tell(&before, &status);
                let boot = |status: &NodeStatus| status.node_info.as_ref().map(|info| info.boot_id.clone()).unwrap_or_default();
                if !boot(&before).is_empty() && boot(&before) != boot(&status) {
                    let name = &self.config.node_name;
                    let message = format!("Node {name} has been rebooted, boot id: {}", boot(&status));
                    self.events.node(EventType::Warning, "Rebooted", &message);
                }
                *self.last.lock() = Some(status);
                return Ok(());
            }
            Err(err) => return Err(err),
        }
        // A server that drops the status of a new object gets it again.
        self.send(&status).await?;
        *self.last.lock() = Some(status);
        Ok(())
    }

    /// Reports the status when it changes, and every five minutes.
    pub async fn report(&self) {
        let (mut pressure, mut ready) = (self.pressure.clone(), self.ready.clone());
        let mut due = tokio::time::Instant::now() + self.config.status_report;
        loop {
            let full = tokio::select! {
                () = tokio::time::sleep_until(due) => true,
                Ok(()) = pressure.changed() => false,
                Ok(()) = ready.changed() => false,
                () = self.changed.notified() => false,
            };
            let status = self.status().await;
            let old = self.last.lock().clone();
            if !full && old.as_ref().is_some_and(|old| without_times(old) == without_times(&status)) {
                continue;
            }
            if let Some(old) = &old {
                self.tell(old, &status);
            }
            match self.send(&status).await {
                Ok(()) => {
                    *self.last.lock() = Some(status);
                    due = tokio::time::Instant::now() + self.config.status_report;
                }
                Err(err) => {
                    tracing::warn!(error = %crate::chain(&err), "report the node's status");
                    due = tokio::time::Instant::now() + Duration::from_secs(10);
                }
            }
        }
    }

    /// Renews the node's Lease for ever. `uid` is the Node object's.
    pub async fn renew(&self, uid: watch::Receiver<Option<Arc<Node>>>) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let interval = self.config.lease_duration / 4;
        let mut known: Option<Lease> = None;
        loop {
            let owner = uid.borrow().as_ref().and_then(|node| node.metadata.uid.clone());
            let result = self.renew_once(&leases, known.take(), owner).await;
            let pause = match result {
                Ok(lease) => {
                    known = Some(lease);
                    interval
                }
                Err(err) => {
                    tracing::warn!(error = %crate::chain(&err), "renew the node's lease");
                    (interval / 5).min(Duration::from_secs(7))
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn renew_once(&self, leases: &Api<Lease>, known: Option<Lease>, owner: Option<String>) -> Result<Lease, kube::Error> {
        let name = &self.config.node_name;
        let known = match known {
            Some(lease) => Some(lease),
            None => leases.get_opt(name).await?,
        };
        let fresh = known.is_none();
        let mut lease = known.unwrap_or_default();
        lease.metadata.name = Some(name.clone());
        lease.metadata.namespace = Some("kube-node-lease".to_owned());
        lease.metadata.managed_fields = None;
        if let Some(uid) = owner.filter(|_| lease.metadata.owner_references.is_none()) {
            lease.metadata.owner_references = Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: name.clone(),
                uid,
                ..OwnerReference::default()
            }]);
        }
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(name.clone());
        spec.lease_duration_seconds = i32::try_from(self.config.lease_duration.as_secs()).ok();
        spec.renew_time = Some(MicroTime(self.clock.now()));
        if fresh {
            leases.create(&PostParams::default(), &lease).await
        } else {
            leases.replace(name, &PostParams::default(), &lease).await
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.config.labels.clone();
        for (name, value) in [
            (HOSTNAME, self.config.node_name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", self.machine.arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", self.machine.arch),
        ] {
            labels.insert(name.to_owned(), value.to_owned());
        }
        labels
    }

    async fn status(&self) -> NodeStatus {
        let now = self.clock.now();
        let mut addresses: Vec<NodeAddress> = self
            .config
            .node_ips
            .iter()
            .map(|ip| NodeAddress { type_: "InternalIP".to_owned(), address: ip.to_string() })
            .collect();
        addresses.push(NodeAddress { type_: "Hostname".to_owned(), address: self.config.node_name.clone() });
        let machine = &self.machine;
        NodeStatus {
            addresses: Some(addresses),
            capacity: Some(self.capacity.clone()),
            allocatable: Some(self.allocatable.clone()),
            conditions: Some(self.conditions(now)),
            daemon_endpoints: (self.port != 0)
                .then(|| NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(self.port) }) }),
            images: self.image_list().await,
            node_info: Some(NodeSystemInfo {
                architecture: machine.arch.to_owned(),
                boot_id: machine.boot_id.clone(),
                container_runtime_version: format!("{}://{}", self.runtime.name, self.runtime.version),
                kernel_version: machine.kernel.clone(),
                kube_proxy_version: String::new(),
                kubelet_version: VERSION.to_owned(),
                machine_id: machine.machine_id.clone(),
                operating_system: "linux".to_owned(),
                os_image: machine.os_image.clone(),
                swap: (machine.swap > 0).then_some(NodeSwapStatus { capacity: Some(machine.swap) }),
                system_uuid: machine.system_uuid.clone(),
            }),
            ..NodeStatus::default()
        }
    }

    fn conditions(&self, now: Timestamp) -> Vec<NodeCondition> {
        let pressure = *self.pressure.borrow();
        let ready = self.ready.borrow().clone();
        let rows = [
            row(
                "MemoryPressure",
                pressure.memory,
                ["KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"],
                ["kubelet has sufficient memory available", "kubelet has insufficient memory available"],
            ),
            row(
                "DiskPressure",
                pressure.disk,
                ["KubeletHasNoDiskPressure", "KubeletHasDiskPressure"],
                ["kubelet has no disk pressure", "kubelet has disk pressure"],
            ),
            row(
                "PIDPressure",
                pressure.pid,
                ["KubeletHasSufficientPID", "KubeletHasInsufficientPID"],
                ["kubelet has sufficient PID available", "kubelet has insufficient PID available"],
            ),
            match ready {
                Ok(()) => ("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned()),
                Err(why) => ("Ready", false, "KubeletNotReady", why),
            },
        ];
        let last = self.last.lock();
        let known = last.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let conditions = rows.into_iter().map(|(kind, holds, reason, message)| {
            let status = if holds { "True" } else { "False" };
            let before = known.iter().find(|condition| condition.type_ == kind && condition.status == status);
            NodeCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: before.and_then(|condition| condition.last_transition_time.clone()).or(Some(Time(now))),
            }
        });
        conditions.collect()
    }

    async fn image_list(&self) -> Option<Vec<ContainerImage>> {
        let mut images = self.images.list().await.ok()?;
        images.sort_by_key(|image| std::cmp::Reverse(image.size));
        let listed = images.into_iter().take(MAX_IMAGES).map(|image| ContainerImage {
            names: Some(image.digests.into_iter().chain(image.tags).take(5).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        });
        Some(listed.collect())
    }

    async fn send(&self, status: &NodeStatus) -> Result<(), kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Strategic(json!({ "status": status }));
        nodes.patch_status(&self.config.node_name, &PatchParams::default(), &patch).await.map(drop)
    }

    /// Events for conditions that flipped or are new. A new `Ready` is none: every node begins with one.
    fn tell(&self, old: &NodeStatus, new: &NodeStatus) {
        let name = &self.config.node_name;
        for condition in new.conditions.iter().flatten() {
            let before = old.conditions.iter().flatten().find(|known| known.type_ == condition.type_);
            let told = before.map_or(condition.type_ == "Ready", |before| before.status == condition.status);
            if told {
                continue;
            }
            let reason = match (condition.type_.as_str(), condition.status == "True") {
                ("Ready", true) => "NodeReady",
                ("Ready", false) => "NodeNotReady",
                ("MemoryPressure", true) => "NodeHasInsufficientMemory",
                ("MemoryPressure", false) => "NodeHasSufficientMemory",
                ("DiskPressure", true) => "NodeHasDiskPressure",
                ("DiskPressure", false) => "NodeHasNoDiskPressure",
                ("PIDPressure", true) => "NodeHasInsufficientPID",
                _ => "NodeHasSufficientPID",
            };
            self.events.node(EventType::Normal, reason, &format!("Node {name} status is now: {reason}"));
        }
    }
}

fn row(
    kind: &'static str,
    holds: bool,
    reasons: [&'static str; 2],
    messages: [&str; 2],
) -> (&'static str, bool, &'static str, String) {
    (kind, holds, reasons[usize::from(holds)], messages[usize::from(holds)].to_owned())
}

fn without_times(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
        condition.last_transition_time = None;
    }
    status
}

/// Follows the Node object for ever, and tells when it is cordoned or uncordoned.
pub async fn follow(client: Client, name: String, events_of: Events, node: watch::Sender<Option<Arc<Node>>>) {
    let closed = |node: &Node| node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let mut was_closed = false;
    let mut tell = |found: &Node| {
        if std::mem::replace(&mut was_closed, closed(found)) != closed(found) {
            let reason = if closed(found) { "NodeNotSchedulable" } else { "NodeSchedulable" };
            events_of.node(EventType::Normal, reason, &format!("Node {name} status is now: {reason}"));
        }
    };
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(Api::<Node>::all(client), config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(found) | watcher::Event::InitApply(found)) => {
                tell(&found);
                node.send_replace(Some(Arc::new(found)));
            }
            Ok(watcher::Event::Delete(_)) => {
                node.send_replace(None);
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(err) => tracing::debug!(error = %crate::chain(&err), "watch the node"),
        }
    }
}
