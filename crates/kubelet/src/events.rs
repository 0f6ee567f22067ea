//! Events of pods, containers and the node, under the names upstream gives to what they are about.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use corten_client::{EventType, Recorder};

use crate::pod::PodExt;

/// Writes events.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    node: String,
}

impl Events {
    pub fn new(recorder: Recorder, node: &str) -> Self {
        Self { recorder, node: node.to_owned() }
    }

    /// Something happened to the node.
    pub fn node(&self, kind: EventType, reason: &str, message: &str) {
        let object = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node.clone()),
            uid: Some(self.node.clone()),
            ..ObjectReference::default()
        };
        self.recorder.event(&object, kind, reason, message);
    }

    /// Something happened to a pod.
    pub fn pod(&self, pod: &Pod, kind: EventType, reason: &str, message: &str) {
        self.recorder.event(&reference(pod, None), kind, reason, message);
    }

    /// As [`Events::pod`], with annotations of the event.
    pub fn annotated(
        &self,
        pod: &Pod,
        kind: EventType,
        reason: &str,
        message: &str,
        annotations: std::collections::BTreeMap<String, String>,
    ) {
        self.recorder.annotated(&reference(pod, None), kind, reason, message, annotations);
    }

    /// Something happened to a container of a pod.
    pub fn container(&self, pod: &Pod, name: &str, kind: EventType, reason: &str, message: &str) {
        let list = if pod.init_containers().iter().any(|container| container.name == name) {
            "initContainers"
        } else if pod.ephemeral_containers().iter().any(|container| container.name == name) {
            "ephemeralContainers"
        } else {
            "containers"
        };
        let path = format!("spec.{list}{{{name}}}");
        self.recorder.event(&reference(pod, Some(path)), kind, reason, message);
    }
}

fn reference(pod: &Pod, field_path: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace().to_owned()),
        name: Some(pod.name().to_owned()),
        uid: Some(pod.uid().to_owned()),
        resource_version: pod.metadata.resource_version.clone(),
        field_path,
    }
}
