//! A small cluster for the tables of the plugins.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::framework::{Check, Cycle, Plugin, Prefilter};
use crate::pod::PodInfo;
use crate::state::{NodeId, State};

/// Nodes in the order in which they were added.
#[derive(Default)]
pub struct Cluster {
    pub state: State,
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

impl Cluster {
    /// A node with room for everything, changed by `json`.
    pub fn node(&mut self, name: &str, json: serde_json::Value) -> NodeId {
        let mut object = serde_json::json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {},
            "status": {"allocatable": {"cpu": "100", "memory": "100Gi", "pods": "110", "ephemeral-storage": "100Gi"}},
        });
        merge(&mut object, json);
        let node: Node = serde_json::from_value(object).unwrap();
        let id = self.state.set_node(Arc::new(node));
        self.state.order();
        id
    }

    pub fn sized(&mut self, name: &str, cpu: &str, memory: &str, pods: u32) -> NodeId {
        self.node(name, serde_json::json!({"status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods.to_string()}}}))
    }

    pub fn place(&mut self, pod: PodInfo, node: &str) {
        self.state.set_pod(Arc::new(pod), node);
    }

    fn ids(&self) -> Vec<NodeId> {
        (0..self.state.nodes.live.len()).filter(|id| self.state.nodes.live[*id]).collect()
    }

    pub fn check(&self, plugin: &dyn Plugin, pod: &PodInfo, node: &str) -> Check {
        match plugin.filter(Cycle { pod, state: &self.state }) {
            Prefilter::Skip => Check::Pass,
            Prefilter::Filter(filter) => filter.check(self.state.node(node).unwrap()),
            Prefilter::Reject { .. } => Check::Unresolvable,
        }
    }

    /// The rejected nodes with their reasons.
    #[track_caller]
    pub fn filtered(&self, plugin: &dyn Plugin, pod: &PodInfo) -> Vec<(String, String)> {
        match plugin.filter(Cycle { pod, state: &self.state }) {
            Prefilter::Skip => Vec::new(),
            Prefilter::Reject { reason } => vec![("*".to_owned(), reason)],
            Prefilter::Filter(filter) => {
                let rejected = self.ids().into_iter().filter(|id| filter.check(*id) != Check::Pass);
                rejected.map(|id| (self.state.nodes.name[id].to_string(), filter.reasons(id).join(", "))).collect()
            }
        }
    }

    /// The normalized scores of all nodes; empty if the plugin does not care.
    pub fn scored(&self, plugin: &dyn Plugin, pod: &PodInfo) -> Vec<(String, i64)> {
        let ids = self.ids();
        let Some(scorer) = plugin.score(Cycle { pod, state: &self.state }, &ids) else { return Vec::new() };
        let mut scores: Vec<i64> = ids.iter().map(|id| scorer.score(*id)).collect();
        scorer.normalize(&mut scores);
        ids.iter().zip(scores).map(|(id, score)| (self.state.nodes.name[*id].to_string(), score)).collect()
    }
}

/// A pod of namespace `ns` with this specification; `metadata` in it goes to the metadata.
pub fn pod(name: &str, mut spec: serde_json::Value) -> PodInfo {
    let mut metadata = serde_json::json!({"namespace": "ns", "name": name, "uid": name});
    if let Some(more) = spec.as_object_mut().unwrap().remove("metadata") {
        merge(&mut metadata, more);
    }
    if spec.get("containers").is_none() {
        spec["containers"] = serde_json::json!([{"name": "c"}]);
    }
    let object: Pod = serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec})).unwrap();
    PodInfo::new(Arc::new(object))
}

pub fn requesting(name: &str, cpu: &str, memory: &str) -> PodInfo {
    pod(name, serde_json::json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}))
}
