//! Namespaces, priority classes, the service range, and what extension API servers need to know.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use corten_api::status::Status;

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
        tracking(),
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

/// Since when the use of tokens that live in Secrets is watched (KEP-2799).
fn tracking() -> Wanted {
    let since = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let metadata = json!({"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"since": since}});
    Wanted::new("", "configmaps", map)
}

/// Says of the cluster's own service range that it is ready, unless somebody has said something of it.
pub(super) async fn tell_range_is_ready(state: &Arc<State>) -> Result<(), Status> {
    const MANAGER: &str = "kubernetes-service-cidr-controller";
    let Some(range) = state.reader.document("networking.k8s.io", "servicecidrs", "", "kubernetes") else {
        return Ok(());
    };
    let conditions = range["status"]["conditions"].as_array();
    if conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready") {
        return Ok(());
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now,
            "message": "Kubernetes default Service CIDR is ready"}]}});
    let path = format!("/apis/networking.k8s.io/v1/servicecidrs/kubernetes/status?fieldManager={MANAGER}&force=true");
    super::send(state, Method::PATCH, &path, "application/apply-patch+yaml", &status).await
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
