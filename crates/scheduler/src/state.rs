//! What the scheduler knows of the cluster, laid out for scanning: one array per node attribute, indexed by node.
//!
//! It has one owner, the scheduling loop, which applies changes between cycles. So a cycle sees a state that does not
//! move, without any copy: cache and snapshot are the same thing. Pods that were placed but whose binding is still on
//! its way are in it as *assumed*.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use corten_client::Key;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};

use crate::interner::{Id, Interner};
use crate::pod::{PodInfo, PortUse};
use crate::resources::Resources;
use crate::selectors;

/// Position of a node in the arrays.
pub type NodeId = usize;

/// The label that names a node's zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// The label that names a node's region.
pub const REGION: &str = "topology.kubernetes.io/region";

/// A taint, interned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Key.
    pub key: Id,
    /// Value; the empty string if none.
    pub value: Id,
    /// What it does to pods that do not tolerate it.
    pub effect: Effect,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Keeps new pods away.
    NoSchedule,
    /// Keeps new pods away if it can.
    PreferNoSchedule,
    /// Keeps new pods away and evicts running ones.
    NoExecute,
}

impl Effect {
    /// Reads the API's word.
    #[must_use]
    pub fn read(word: &str) -> Option<Self> {
        match word {
            "NoSchedule" => Some(Self::NoSchedule),
            "PreferNoSchedule" => Some(Self::PreferNoSchedule),
            "NoExecute" => Some(Self::NoExecute),
            _ => None,
        }
    }
}

/// The nodes, an array for each attribute. A removed node leaves a hole that the next new one fills.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// Whether there is a node at this position.
    pub live: Vec<bool>,
    /// Names.
    pub name: Vec<Arc<str>>,
    /// Names, interned.
    pub name_id: Vec<Id>,
    /// Allocatable CPU in thousandths.
    pub cpu: Vec<i64>,
    /// Allocatable memory in bytes.
    pub memory: Vec<i64>,
    /// Allocatable ephemeral storage in bytes.
    pub storage: Vec<i64>,
    /// Greatest number of pods.
    pub pods: Vec<i64>,
    /// Allocatable extended resources.
    pub scalar: Vec<Vec<(Id, i64)>>,
    /// Requested CPU.
    pub used_cpu: Vec<i64>,
    /// Requested memory.
    pub used_memory: Vec<i64>,
    /// Requested ephemeral storage.
    pub used_storage: Vec<i64>,
    /// Requested extended resources.
    pub used_scalar: Vec<Vec<(Id, i64)>>,
    /// Requested CPU and memory for scoring.
    pub non_zero: Vec<(i64, i64)>,
    /// Labels, sorted by key.
    pub labels: Vec<Vec<(Id, Id)>>,
    /// Taints.
    pub taints: Vec<Vec<Taint>>,
    /// Whether it is cordoned.
    pub unschedulable: Vec<bool>,
    /// Host ports in use.
    pub ports: Vec<Vec<PortUse>>,
    /// Images present, with their size, sorted.
    pub images: Vec<Vec<(Id, i64)>>,
    /// Its pods, assumed ones too.
    pub placed: Vec<Vec<Arc<PodInfo>>>,
    /// The object, for what is rarely needed.
    pub object: Vec<Arc<Node>>,
}

struct Placed {
    info: Arc<PodInfo>,
    node: Arc<str>,
    assumed: bool,
}

/// The cluster.
#[derive(Default)]
pub struct State {
    /// Strings of nodes.
    pub interner: Interner,
    /// The nodes.
    pub nodes: Nodes,
    by_name: HashMap<Arc<str>, NodeId>,
    free: Vec<NodeId>,
    /// Live nodes, one zone after the other in turn, so that a sample of them spreads over zones.
    order: Vec<NodeId>,
    order_stale: bool,
    pods: HashMap<Arc<str>, Placed>,
    /// Pods whose node is not known (yet).
    homeless: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    /// Nodes with pods that repel others.
    repelling: BTreeMap<NodeId, usize>,
    /// Nodes with pods that have any pod affinity.
    affine: BTreeMap<NodeId, usize>,
    /// On how many nodes an image is.
    pub image_spread: HashMap<Id, usize>,
    /// Pods that preemption made room for, by node.
    pub nominated: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    /// Namespaces by name.
    pub namespaces: HashMap<Arc<str>, Arc<Namespace>>,
    /// Claims.
    pub claims: HashMap<Key, Arc<PersistentVolumeClaim>>,
    /// Volumes by name.
    pub volumes: HashMap<Arc<str>, Arc<PersistentVolume>>,
    /// Volumes that were given to a claim, before the cluster shows it.
    pub promised: HashMap<Arc<str>, Key>,
    /// Storage classes by name.
    pub classes: HashMap<Arc<str>, Arc<StorageClass>>,
    /// CSI drivers of nodes by node name.
    pub csi_nodes: HashMap<Arc<str>, Arc<CSINode>>,
    /// Disruption budgets.
    pub budgets: HashMap<Key, Arc<PodDisruptionBudget>>,
}

// === impl State ===

impl State {
    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The position of a node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    /// The live nodes in the order in which to look at them.
    pub fn order(&mut self) -> &[NodeId] {
        if std::mem::take(&mut self.order_stale) {
            self.order = self.interleaved();
        }
        &self.order
    }

    /// The order as it was last computed; [`State::order`] has to be called first in a cycle.
    #[must_use]
    pub fn known_order(&self) -> &[NodeId] {
        &self.order
    }

    /// Nodes with pods that have required anti-affinity.
    pub fn repelling(&self) -> impl Iterator<Item = NodeId> {
        self.repelling.keys().copied()
    }

    /// Nodes with pods that have any pod affinity or anti-affinity.
    pub fn affine(&self) -> impl Iterator<Item = NodeId> {
        self.affine.keys().copied()
    }

    /// The value of a label of a node.
    #[must_use]
    pub fn label(&self, node: NodeId, key: Id) -> Option<Id> {
        selectors::value(&self.nodes.labels[node], key)
    }

    /// Takes a node, new or changed.
    pub fn set_node(&mut self, object: Arc<Node>) -> NodeId {
        let name: Arc<str> = Arc::from(object.metadata.name.as_deref().unwrap_or_default());
        let id = match self.by_name.get(&name) {
            Some(id) => *id,
            None => {
                let id = self.free.pop().unwrap_or_else(|| self.nodes.grow());
                self.by_name.insert(name.clone(), id);
                self.order_stale = true;
                self.nodes.live[id] = true;
                id
            }
        };
        self.describe(id, &name, object);
        for pod in self.homeless.remove(&name).unwrap_or_default() {
            self.occupy(id, &pod);
        }
        id
    }

    /// Forgets a node. Its pods are remembered until they are deleted.
    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self.by_name.remove(name) else { return };
        let pods = std::mem::take(&mut self.nodes.placed[id]);
        for (image, _) in std::mem::take(&mut self.nodes.images[id]) {
            self.unspread(image);
        }
        self.repelling.remove(&id);
        self.affine.remove(&id);
        if !pods.is_empty() {
            self.homeless.insert(Arc::from(name), pods);
        }
        self.nodes.clear(id);
        self.free.push(id);
        self.order_stale = true;
    }

    /// Takes an assigned pod, new, changed, or assumed before.
    pub fn set_pod(&mut self, info: Arc<PodInfo>, node: &str) {
        self.place(info, node, false);
    }

    /// Takes a pod as if it were assigned already.
    pub fn assume(&mut self, info: Arc<PodInfo>, node: &str) {
        self.place(info, node, true);
    }

    /// Whether a pod is placed, assumed or not.
    #[must_use]
    pub fn holds(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Whether a pod is assumed.
    #[must_use]
    pub fn assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|placed| placed.assumed)
    }

    /// Forgets a pod, and says where it was.
    pub fn remove_pod(&mut self, uid: &str) -> Option<(Arc<PodInfo>, Arc<str>)> {
        let placed = self.pods.remove(uid)?;
        match self.by_name.get(&placed.node) {
            Some(id) => self.vacate(*id, &placed.info),
            None => {
                if let Some(pods) = self.homeless.get_mut(&placed.node) {
                    pods.retain(|pod| pod.uid != placed.info.uid);
                    if pods.is_empty() {
                        self.homeless.remove(&placed.node);
                    }
                }
            }
        }
        Some((placed.info, placed.node))
    }

    /// Remembers that room was made for `pod` on `node`.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.unnominate(&pod.uid);
        self.nominated.entry(Arc::from(node)).or_default().push(pod);
    }

    /// Forgets it.
    pub fn unnominate(&mut self, uid: &str) {
        self.nominated.retain(|_, pods| {
            pods.retain(|pod| &*pod.uid != uid);
            !pods.is_empty()
        });
    }

    /// Takes a pod off its node for a moment, to see what would be without it.
    pub fn vacate(&mut self, id: NodeId, info: &PodInfo) {
        let nodes = &mut self.nodes;
        let Some(at) = nodes.placed[id].iter().position(|pod| pod.uid == info.uid) else { return };
        nodes.placed[id].swap_remove(at);
        self.account(id, info, -1);
        let nodes = &mut self.nodes;
        for port in &info.ports {
            if let Some(at) = nodes.ports[id].iter().position(|used| used == port) {
                nodes.ports[id].swap_remove(at);
            }
        }
        decrease(&mut self.repelling, id, info.repels);
        decrease(&mut self.affine, id, info.has_affinity);
    }

    /// Puts a pod on a node.
    pub fn occupy(&mut self, id: NodeId, info: &Arc<PodInfo>) {
        self.nodes.placed[id].push(info.clone());
        self.nodes.ports[id].extend(info.ports.iter().cloned());
        self.account(id, info, 1);
        if info.repels {
            *self.repelling.entry(id).or_default() += 1;
        }
        if info.has_affinity {
            *self.affine.entry(id).or_default() += 1;
        }
    }

    fn place(&mut self, info: Arc<PodInfo>, node: &str, assumed: bool) {
        self.remove_pod(&info.uid);
        self.unnominate(&info.uid);
        let node: Arc<str> = Arc::from(node);
        match self.by_name.get(&node) {
            Some(id) => self.occupy(*id, &info),
            None => self.homeless.entry(node.clone()).or_default().push(info.clone()),
        }
        self.pods.insert(info.uid.clone(), Placed { info, node, assumed });
    }

    fn account(&mut self, id: NodeId, info: &PodInfo, sign: i64) {
        let Resources { cpu, memory, storage, scalar, .. } = &info.requests;
        let nodes = &mut self.nodes;
        nodes.used_cpu[id] += sign * cpu;
        nodes.used_memory[id] += sign * memory;
        nodes.used_storage[id] += sign * storage;
        nodes.non_zero[id].0 += sign * info.non_zero.0;
        nodes.non_zero[id].1 += sign * info.non_zero.1;
        for (name, amount) in scalar {
            let name = self.interner.intern(name);
            let used = &mut self.nodes.used_scalar[id];
            match used.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known += sign * amount,
                None => used.push((name, sign * amount)),
            }
        }
    }

    fn describe(&mut self, id: NodeId, name: &Arc<str>, object: Arc<Node>) {
        let allocatable = object.status.as_ref().and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        let resources = allocatable.map(Resources::read).unwrap_or_default();
        let interner = &mut self.interner;
        let mut labels: Vec<(Id, Id)> =
            object.metadata.labels.iter().flatten().map(|(key, value)| (interner.intern(key), interner.intern(value))).collect();
        labels.sort_unstable();
        let spec = object.spec.as_ref();
        let taints = spec
            .and_then(|spec| spec.taints.as_ref())
            .into_iter()
            .flatten()
            .filter_map(|taint| {
                let value = interner.intern(taint.value.as_deref().unwrap_or_default());
                Some(Taint { key: interner.intern(&taint.key), value, effect: Effect::read(&taint.effect)? })
            })
            .collect();
        let images = object.status.as_ref().and_then(|status| status.images.as_ref());
        let images: BTreeSet<(Id, i64)> = images
            .into_iter()
            .flatten()
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(|name| (interner.intern(name), size)).collect::<Vec<_>>()
            })
            .collect();
        let scalar = resources.scalar.iter().map(|(name, amount)| (interner.intern(name), *amount)).collect();
        let name_id = interner.intern(name);
        let zone = [ZONE, REGION].map(|key| interner.lookup(key));
        let before = zone.map(|key| key.and_then(|key| selectors::value(&self.nodes.labels[id], key)));
        let after = zone.map(|key| key.and_then(|key| selectors::value(&labels, key)));
        self.order_stale |= before != after;
        for (image, _) in std::mem::take(&mut self.nodes.images[id]) {
            self.unspread(image);
        }
        for (image, _) in &images {
            *self.image_spread.entry(*image).or_default() += 1;
        }
        let nodes = &mut self.nodes;
        nodes.name[id] = name.clone();
        nodes.name_id[id] = name_id;
        nodes.cpu[id] = resources.cpu;
        nodes.memory[id] = resources.memory;
        nodes.storage[id] = resources.storage;
        nodes.pods[id] = resources.pods;
        nodes.scalar[id] = scalar;
        nodes.labels[id] = labels;
        nodes.taints[id] = taints;
        nodes.unschedulable[id] = spec.is_some_and(|spec| spec.unschedulable == Some(true));
        nodes.images[id] = images.into_iter().collect();
        nodes.object[id] = object;
    }

    fn unspread(&mut self, image: Id) {
        if let Some(count) = self.image_spread.get_mut(&image) {
            *count -= 1;
            if *count == 0 {
                self.image_spread.remove(&image);
            }
        }
    }

    fn interleaved(&self) -> Vec<NodeId> {
        let mut zones: BTreeMap<(Option<Id>, Option<Id>), Vec<NodeId>> = BTreeMap::new();
        let keys = [REGION, ZONE].map(|key| self.interner.lookup(key));
        for id in (0..self.nodes.live.len()).filter(|id| self.nodes.live[*id]) {
            let [region, zone] = keys.map(|key| key.and_then(|key| self.label(id, key)));
            zones.entry((region, zone)).or_default().push(id);
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or(0);
        (0..longest).flat_map(|i| zones.values().filter_map(move |zone| zone.get(i).copied())).collect()
    }
}

fn decrease(counts: &mut BTreeMap<NodeId, usize>, id: NodeId, really: bool) {
    if let Some(count) = counts.get_mut(&id).filter(|_| really) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&id);
        }
    }
}

// === impl Nodes ===

impl Nodes {
    fn grow(&mut self) -> NodeId {
        let id = self.live.len();
        self.live.push(false);
        self.name.push(Arc::from(""));
        self.name_id.push(0);
        for numbers in [
            &mut self.cpu,
            &mut self.memory,
            &mut self.storage,
            &mut self.pods,
            &mut self.used_cpu,
            &mut self.used_memory,
            &mut self.used_storage,
        ] {
            numbers.push(0);
        }
        self.scalar.push(Vec::new());
        self.used_scalar.push(Vec::new());
        self.non_zero.push((0, 0));
        self.labels.push(Vec::new());
        self.taints.push(Vec::new());
        self.unschedulable.push(false);
        self.ports.push(Vec::new());
        self.images.push(Vec::new());
        self.placed.push(Vec::new());
        self.object.push(Arc::default());
        id
    }

    fn clear(&mut self, id: NodeId) {
        self.live[id] = false;
        self.used_cpu[id] = 0;
        self.used_memory[id] = 0;
        self.used_storage[id] = 0;
        self.non_zero[id] = (0, 0);
        self.used_scalar[id].clear();
        self.labels[id].clear();
        self.ports[id].clear();
        self.placed[id].clear();
        self.object[id] = Arc::default();
    }
}
