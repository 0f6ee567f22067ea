//! What the cluster looks like: nodes with their pods. Fed by informers and by the scheduler's own assumptions.
//!
//! A pod is assumed on its node from the moment it was decided until the API shows it there; a binding that fails takes
//! the assumption back. Only the scheduling task reads and writes it.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::node::NodeView;
use crate::pod::PodView;

/// Nodes in a vector, for scanning, and who is where.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: Vec<NodeView>,
    index: HashMap<String, usize>,
    /// Node of each pod that takes resources, by UID, and whether it is only assumed.
    pods: HashMap<String, Place>,
    /// How many pods have affinity of any kind to other pods: without any, nobody has to look.
    affine: usize,
    /// Where the next cycle starts looking, so that all nodes get their turn when not all are looked at.
    pub start: usize,
}

#[derive(Debug)]
struct Place {
    node: usize,
    assumed: bool,
    affine: bool,
}

// === impl Cache ===

impl Cache {
    /// Every node, with gaps: one without an object is only a name that pods refer to.
    pub fn nodes(&self) -> &[NodeView] {
        &self.nodes
    }

    /// Number of nodes with an object.
    pub fn len(&self) -> usize {
        self.nodes.iter().filter(|node| node.node.is_some()).count()
    }

    /// Whether any pod has affinity or anti-affinity to other pods.
    pub fn has_affine_pods(&self) -> bool {
        self.affine > 0
    }

    /// Adds or updates a node.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let at = self.slot(&name);
        self.nodes[at].set_node(node);
    }

    /// Forgets a node's object; its pods stay until they are gone too.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(at) = self.index.get(name) {
            self.nodes[*at].node = None;
        }
    }

    /// Puts a pod on the node the API shows it on; confirms an assumption or corrects it.
    pub fn set_pod(&mut self, pod: Arc<PodView>) {
        let Some(node) = pod.node().map(str::to_owned) else { return };
        self.remove_pod(&pod.uid);
        self.place(&node, pod, false);
    }

    /// Takes a pod off its node.
    pub fn remove_pod(&mut self, uid: &str) {
        if let Some(place) = self.pods.remove(uid) {
            self.nodes[place.node].remove(uid);
            self.affine -= usize::from(place.affine);
        }
    }

    /// Assumes a pod on a node until the API confirms it.
    pub fn assume(&mut self, pod: Arc<PodView>, node: &str) {
        self.remove_pod(&pod.uid);
        self.place(node, pod, true);
    }

    /// Takes an assumption back; a confirmed pod stays.
    pub fn forget(&mut self, uid: &str) {
        if self.pods.get(uid).is_some_and(|place| place.assumed) {
            self.remove_pod(uid);
        }
    }

    /// Whether a pod is already on a node, assumed or confirmed.
    pub fn holds(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    fn place(&mut self, node: &str, pod: Arc<PodView>, assumed: bool) {
        let at = self.slot(node);
        let affine = !pod.affinity.is_empty() || !pod.anti_affinity.is_empty() || !pod.preferred.is_empty();
        self.affine += usize::from(affine);
        self.pods.insert(pod.uid.clone(), Place { node: at, assumed, affine });
        self.nodes[at].add(pod);
    }

    fn slot(&mut self, name: &str) -> usize {
        match self.index.get(name) {
            Some(at) => *at,
            None => {
                self.nodes.push(NodeView { name: name.to_owned(), ..NodeView::default() });
                self.index.insert(name.to_owned(), self.nodes.len() - 1);
                self.nodes.len() - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn an_assumption_holds_resources_until_it_is_taken_back_or_confirmed() {
        let mut cache = Cache::default();
        cache.set_node(node("n", "4", &[]));
        let one = pod("one", "1");
        cache.assume(one.clone(), "n");
        assert_eq!(cache.nodes()[0].requested.cpu, 1000);
        cache.forget(&one.uid);
        assert_eq!(cache.nodes()[0].requested.cpu, 0);

        cache.assume(one.clone(), "n");
        let mut bound = (*one.pod).clone();
        bound.spec.as_mut().unwrap().node_name = Some("n".into());
        cache.set_pod(Arc::new(PodView::new(Arc::new(bound))));
        cache.forget(&one.uid);
        assert_eq!(cache.nodes()[0].requested.cpu, 1000, "a confirmed pod is not an assumption");
    }
}
