//! A pod as the scheduler keeps it: the object, and what every cycle would otherwise compute again.

use std::sync::Arc;

use corten_client::Key;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Affinity, ObjectReference, Pod, PodAffinityTerm, PodSpec};

use crate::resources::{self, Resources};

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// Protocol.
    pub protocol: String,
    /// Address on the node; empty for all.
    pub ip: String,
    /// Port on the node.
    pub port: i32,
}

impl PortUse {
    /// Whether both cannot be on one node: all addresses include each.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == "0.0.0.0" || other.ip == "0.0.0.0")
    }
}

/// A pod, compiled.
#[derive(Debug)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: Key,
    /// Identity.
    pub uid: Arc<str>,
    /// The object.
    pub object: Arc<Pod>,
    /// What it asks for.
    pub requests: Resources,
    /// CPU and memory for scoring.
    pub non_zero: (i64, i64),
    /// Priority; higher goes first.
    pub priority: i32,
    /// Host ports.
    pub ports: Vec<PortUse>,
    /// Whether it has required anti-affinity terms, which bind others too.
    pub repels: bool,
    /// Whether it has any pod affinity or anti-affinity terms.
    pub has_affinity: bool,
}

impl PodInfo {
    /// Compiles a pod.
    #[must_use]
    pub fn new(object: Arc<Pod>) -> Self {
        let spec = object.spec.as_ref();
        let host_network = spec.is_some_and(|spec| spec.host_network == Some(true));
        let mut ports = Vec::new();
        let sidecars = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        for container in spec.into_iter().flat_map(|spec| &spec.containers).chain(sidecars) {
            for port in container.ports.iter().flatten() {
                let number = port.host_port.or(host_network.then_some(port.container_port)).unwrap_or(0);
                if number > 0 {
                    let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
                    ports.push(PortUse { protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), ip, port: number });
                }
            }
        }
        let affinity = spec.and_then(|spec| spec.affinity.as_ref());
        let anti = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let repels = anti.is_some_and(|anti| {
            anti.required_during_scheduling_ignored_during_execution.as_ref().is_some_and(|terms| !terms.is_empty())
        });
        Self {
            key: Key::of(&*object),
            uid: Arc::from(object.metadata.uid.as_deref().unwrap_or_default()),
            requests: resources::requests(&object),
            non_zero: resources::non_zero(&object),
            priority: spec.and_then(|spec| spec.priority).unwrap_or(0),
            ports,
            repels,
            has_affinity: anti.is_some() || affinity.is_some_and(|affinity| affinity.pod_affinity.is_some()),
            object,
        }
    }

    /// The specification.
    ///
    /// # Panics
    /// Never: a pod without one is not admitted to the scheduler.
    #[must_use]
    pub fn spec(&self) -> &PodSpec {
        self.object.spec.as_ref().expect("only pods with a specification are compiled")
    }

    /// The node it is assigned to.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.spec().node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Whether it has ended and holds nothing any more.
    #[must_use]
    pub fn ended(&self) -> bool {
        let phase = self.object.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }

    /// Whether it is being deleted.
    #[must_use]
    pub fn deleting(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// Its scheduling gates.
    #[must_use]
    pub fn gates(&self) -> Vec<&str> {
        self.spec().scheduling_gates.iter().flatten().map(|gate| gate.name.as_str()).collect()
    }

    /// Which scheduler is to place it.
    #[must_use]
    pub fn scheduler(&self) -> &str {
        self.spec().scheduler_name.as_deref().unwrap_or("default-scheduler")
    }

    /// The node that preemption made room on for it.
    #[must_use]
    pub fn nominated(&self) -> Option<&str> {
        self.object.status.as_ref()?.nominated_node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// When it started, or was created.
    #[must_use]
    pub fn started(&self) -> Option<Timestamp> {
        let started = self.object.status.as_ref().and_then(|status| status.start_time.as_ref());
        started.or(self.object.metadata.creation_timestamp.as_ref()).map(|time| time.0)
    }

    /// Its affinity.
    #[must_use]
    pub fn affinity(&self) -> Option<&Affinity> {
        self.spec().affinity.as_ref()
    }

    /// The terms that others must fulfil for it to be near them.
    #[must_use]
    pub fn required_affinity(&self) -> &[PodAffinityTerm] {
        let affinity = self.affinity().and_then(|affinity| affinity.pod_affinity.as_ref());
        affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
    }

    /// The terms that keep others away from it.
    #[must_use]
    pub fn required_anti_affinity(&self) -> &[PodAffinityTerm] {
        let affinity = self.affinity().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
    }

    /// A reference for events.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(self.key.name.to_string()),
            namespace: Some(self.key.namespace.to_string()),
            uid: Some(self.uid.to_string()),
            resource_version: self.object.metadata.resource_version.clone(),
            ..ObjectReference::default()
        }
    }
}
