//! A node as the scheduler sees it: what it has, and what its pods take, kept up to date incrementally.

use std::collections::HashMap;
use std::sync::Arc;

use corten_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod::{HostPort, PodView};
use crate::resources::Resources;
use crate::selector::Labels;

/// A node and the pods on it, assumed ones included.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// The object; `None` while only pods of it are known.
    pub node: Option<Arc<Node>>,
    /// What pods may take.
    pub allocatable: Resources,
    /// How many pods it may run.
    pub max_pods: i64,
    /// What its pods request.
    pub requested: Resources,
    /// What scoring assumes its pods to use (CPU thousandths, memory bytes).
    pub nonzero: (i64, i64),
    /// Pods on it.
    pub pods: Vec<Arc<PodView>>,
    /// Images on it, by name, with their size in bytes.
    pub images: HashMap<String, i64>,
}

impl NodeView {
    /// Takes over a new state of the object.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref());
        self.allocatable = Resources::of(allocatable);
        self.max_pods = allocatable.and_then(|a| a.get("pods")).and_then(|q| Quantity::parse(&q.0).ok()).map_or(0, |q| q.value());
        let images = status.and_then(|s| s.images.as_deref()).unwrap_or_default();
        self.images = images
            .iter()
            .flat_map(|image| image.names.iter().flatten().map(|name| (name.clone(), image.size_bytes.unwrap_or(0))))
            .collect();
        self.node = Some(node);
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.node.as_ref().and_then(|n| n.metadata.labels.as_ref()).unwrap_or(&NONE)
    }

    /// Its taints.
    pub fn taints(&self) -> &[Taint] {
        self.node.as_ref().and_then(|n| n.spec.as_ref()).and_then(|s| s.taints.as_deref()).unwrap_or_default()
    }

    /// Whether it is cordoned.
    pub fn is_unschedulable(&self) -> bool {
        self.node.as_ref().and_then(|n| n.spec.as_ref()).and_then(|s| s.unschedulable).unwrap_or(false)
    }

    /// Adds a pod.
    pub fn add(&mut self, pod: Arc<PodView>) {
        self.requested.add(&pod.requests);
        self.nonzero.0 += pod.nonzero.0;
        self.nonzero.1 += pod.nonzero.1;
        self.pods.push(pod);
    }

    /// Removes a pod by UID.
    pub fn remove(&mut self, uid: &str) {
        if let Some(at) = self.pods.iter().position(|pod| pod.uid == uid) {
            let pod = self.pods.swap_remove(at);
            self.requested.subtract(&pod.requests);
            self.nonzero.0 -= pod.nonzero.0;
            self.nonzero.1 -= pod.nonzero.1;
        }
    }

    /// Whether a port is taken: by the same protocol and number on the same or on all addresses.
    pub fn port_taken(&self, wanted: &HostPort) -> bool {
        let all = "0.0.0.0";
        self.pods.iter().flat_map(|pod| &pod.ports).any(|used| {
            let address = used.ip == wanted.ip || used.ip == all || wanted.ip == all;
            address && used.protocol == wanted.protocol && used.port == wanted.port
        })
    }
}
