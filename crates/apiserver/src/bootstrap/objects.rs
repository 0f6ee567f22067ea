//! Namespaces, priority classes, the service range, and what extension API servers need to know.

use serde_json::{Value, json};

use super::Wanted;
use crate::state::State;

/// The namespaces of every cluster.
pub(super) fn namespaces() -> Vec<Wanted> {
    let namespace = |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let names = ["default", "kube-system", "kube-public", "kube-node-lease"];
    names.map(|name| Wanted::new("", "namespaces", namespace(name))).into()
}

/// Single objects of several kinds.
pub(super) fn others(state: &State) -> Vec<Wanted> {
    let mut wanted = vec![
        priority_class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        priority_class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        authentication(state),
    ];
    let cidrs: Vec<_> = state.config.service_cluster_ip_range.iter().map(|range| range.trunc().to_string()).collect();
    if !cidrs.is_empty() {
        let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}});
        wanted.push(Wanted::new("networking.k8s.io", "servicecidrs", range));
    }
    wanted
}

fn priority_class(name: &str, value: i64, description: &str) -> Wanted {
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
        "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority"});
    Wanted::new("scheduling.k8s.io", "priorityclasses", class)
}

/// How extension API servers authenticate requests that come through this one.
fn authentication(state: &State) -> Wanted {
    let list = |names: &[&str]| serde_json::to_string(names).unwrap_or_default();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
    "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
    "data": {
        "client-ca-file": state.certs.client_ca(),
        "requestheader-allowed-names": list(&["front-proxy-client"]),
        "requestheader-client-ca-file": state.certs.front_proxy_ca(),
        "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
        "requestheader-group-headers": list(&["X-Remote-Group"]),
        "requestheader-uid-headers": list(&["X-Remote-Uid"]),
        "requestheader-username-headers": list(&["X-Remote-User"]),
    }});
    let repair = |found: &Value, wanted: &Value| {
        let mut repaired = found.clone();
        repaired["data"] = wanted["data"].clone();
        (repaired != *found).then_some(repaired)
    };
    Wanted { repair: Some(repair), ..Wanted::new("", "configmaps", map) }
}
