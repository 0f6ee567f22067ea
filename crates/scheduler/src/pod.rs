//! A pod as the scheduler sees it: everything a plugin compares, computed once when the pod arrives.

use std::sync::Arc;

use corten_client::Key;
use k8s_openapi::api::core::v1::{
    NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, PreferredSchedulingTerm, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::resources::{Resources, pod_nonzero_requests, pod_requests};
use crate::selector::{Labels, selects};

/// A pod with what is derived from it.
#[derive(Clone, Debug)]
pub struct PodView {
    /// Its namespace and name.
    pub key: Key,
    /// Its UID.
    pub uid: String,
    /// The object.
    pub pod: Arc<Pod>,
    /// What it requests.
    pub requests: Resources,
    /// CPU (thousandths) and memory (bytes) that scoring assumes.
    pub nonzero: (i64, i64),
    /// Ports of the node it wants.
    pub ports: Vec<HostPort>,
    /// Required affinity to other pods.
    pub affinity: Vec<PodTerm>,
    /// Required anti-affinity.
    pub anti_affinity: Vec<PodTerm>,
    /// Preferred affinity (positive weight) and anti-affinity (negative).
    pub preferred: Vec<(i64, PodTerm)>,
}

/// A port of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Address, `0.0.0.0` for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Port.
    pub port: i32,
}

/// One affinity term: which pods, and over which topology.
#[derive(Clone, Debug)]
pub struct PodTerm {
    selector: Option<LabelSelector>,
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
    /// Label of nodes that makes them one place.
    pub topology_key: String,
}

// === impl PodView ===

impl PodView {
    /// Derives everything from the object.
    pub fn new(pod: Arc<Pod>) -> Self {
        let key = Key::of(&*pod);
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let term = |t: &PodAffinityTerm| PodTerm::new(t, &key.namespace, &labels);
        let affinity = spec.affinity.as_ref();
        let (with, without) =
            (affinity.and_then(|a| a.pod_affinity.as_ref()), affinity.and_then(|a| a.pod_anti_affinity.as_ref()));
        let liked = with.iter().flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten());
        let disliked = without.iter().flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten());
        let preferred = liked
            .map(|w| (i64::from(w.weight), term(&w.pod_affinity_term)))
            .chain(disliked.map(|w| (-i64::from(w.weight), term(&w.pod_affinity_term))))
            .collect();
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            requests: pod_requests(spec),
            nonzero: pod_nonzero_requests(spec),
            ports: host_ports(spec),
            affinity: with
                .iter()
                .flat_map(|a| a.required_during_scheduling_ignored_during_execution.iter().flatten())
                .map(term)
                .collect(),
            anti_affinity: without
                .iter()
                .flat_map(|a| a.required_during_scheduling_ignored_during_execution.iter().flatten())
                .map(term)
                .collect(),
            preferred,
            key,
            pod,
        }
    }

    /// Its specification; an empty one would be a pod without.
    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// The node it is bound to.
    pub fn node(&self) -> Option<&str> {
        self.spec()?.node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.pod.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    /// Its priority; higher goes first.
    pub fn priority(&self) -> i32 {
        self.spec().and_then(|s| s.priority).unwrap_or(0)
    }

    /// What it tolerates.
    pub fn tolerations(&self) -> &[Toleration] {
        self.spec().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
    }

    /// Terms of the required node affinity; `None` when there is none.
    pub fn required_nodes(&self) -> Option<&[NodeSelectorTerm]> {
        let required = self.spec()?.affinity.as_ref()?.node_affinity.as_ref()?;
        Some(&required.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms)
    }

    /// Terms of the preferred node affinity.
    pub fn preferred_nodes(&self) -> &[PreferredSchedulingTerm] {
        let affinity = self.spec().and_then(|s| s.affinity.as_ref()).and_then(|a| a.node_affinity.as_ref());
        affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
    }

    /// Topology spread constraints.
    pub fn spread(&self) -> &[TopologySpreadConstraint] {
        self.spec().and_then(|s| s.topology_spread_constraints.as_deref()).unwrap_or_default()
    }

    /// Whether it holds resources: not yet ended.
    pub fn is_active(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }
}

// === impl PodTerm ===

impl PodTerm {
    fn new(term: &PodAffinityTerm, namespace: &str, own: &Labels) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        let mut selector = term.label_selector.clone();
        // matchLabelKeys (KEP-3633): the values are the pod's own.
        if let Some(selector) = &mut selector {
            for (keys, operator) in [(&term.match_label_keys, "In"), (&term.mismatch_label_keys, "NotIn")] {
                for key in keys.iter().flatten() {
                    if let Some(value) = own.get(key) {
                        let requirement = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
                            key: key.clone(),
                            operator: operator.to_owned(),
                            values: Some(vec![value.clone()]),
                        };
                        selector.match_expressions.get_or_insert_default().push(requirement);
                    }
                }
            }
        }
        Self {
            selector,
            namespaces,
            namespace_selector: term.namespace_selector.clone(),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether the term is about `pod`; `labels_of` gives a namespace's labels.
    pub fn matches(&self, pod: &PodView, labels_of: &dyn Fn(&str) -> Labels) -> bool {
        let namespace = &pod.key.namespace;
        let here = self.namespaces.iter().any(|n| **n == **namespace)
            || self.namespace_selector.as_ref().is_some_and(|s| selects(Some(s), &labels_of(namespace)));
        here && selects(self.selector.as_ref(), pod.labels())
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|n| *n > 0)?;
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some(HostPort { ip, protocol, port: number })
        })
        .collect()
}
