//! Small pods and nodes for tests.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::node::NodeView;
use crate::pod::PodView;

/// A pod that requests `cpu`.
pub fn pod(name: &str, cpu: &str) -> Arc<PodView> {
    pod_with(name, cpu, json!({}))
}

/// A pod that requests `cpu`, with more in its specification.
pub fn pod_with(name: &str, cpu: &str, spec: Value) -> Arc<PodView> {
    labelled_pod(name, cpu, &[], spec)
}

/// A pod with labels.
pub fn labelled_pod(name: &str, cpu: &str, labels: &[(&str, &str)], spec: Value) -> Arc<PodView> {
    let mut full = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
    merge(&mut full, spec);
    let labels: serde_json::Map<String, Value> = labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    let object = json!({"metadata": {"name": name, "namespace": "default", "uid": name, "labels": labels}, "spec": full});
    let pod: Pod = serde_json::from_value(object).unwrap();
    Arc::new(PodView::new(Arc::new(pod)))
}

/// A node with `cpu`, 8 GiB, 10 pods and labels.
pub fn node(name: &str, cpu: &str, labels: &[(&str, &str)]) -> Arc<Node> {
    node_with(name, cpu, labels, json!({}))
}

/// A node with more in its specification.
pub fn node_with(name: &str, cpu: &str, labels: &[(&str, &str)], spec: Value) -> Arc<Node> {
    let mut all: serde_json::Map<String, Value> = labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    all.insert("kubernetes.io/hostname".into(), json!(name));
    let object = json!({
        "metadata": {"name": name, "labels": all},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}},
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

/// The view of a node.
pub fn view(node: Arc<Node>, pods: &[Arc<PodView>]) -> NodeView {
    let mut view = NodeView { name: node.metadata.name.clone().unwrap(), ..NodeView::default() };
    view.set_node(node);
    for pod in pods {
        view.add(pod.clone());
    }
    view
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}
