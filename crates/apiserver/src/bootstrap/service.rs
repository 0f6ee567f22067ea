//! The `kubernetes` Service in `default`: how pods reach this server. It has no selector, so its endpoints are ours to write.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use corten_api::status::Status;

use super::{JSON, Wanted, send};
use crate::certs;
use crate::state::State;

/// Makes the Service with its endpoints, or brings them up to this server's address.
pub(super) async fn ensure(state: &Arc<State>) -> Result<(), Status> {
    let Some(cluster_ip) = state.config.service_cluster_ip_range.first().and_then(|range| range.hosts().next()) else {
        return Ok(()); // no service range, no Services
    };
    let address = certs::advertise_address(&state.config);
    let port = state.config.secure_port;
    super::ensure(state, Wanted::new("", "services", service(&cluster_ip.to_string(), port))).await?;
    if address.is_loopback() {
        return Ok(()); // reachable by nobody else; endpoints may not be in the loopback range
    }

    let repair_endpoints = |found: &Value, wanted: &Value| replaced(found, wanted, "subsets");
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address.to_string()}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]});
    let endpoints = Wanted { repair: Some(repair_endpoints), ..Wanted::new("", "endpoints", endpoints) };

    let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family, "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}]});
    let there = state.reader.document("discovery.k8s.io", "endpointslices", "default", "kubernetes");
    if there.is_some_and(|there| there["addressType"] != family) {
        // The family of a slice cannot be changed: it is made again.
        let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
        send(state, Method::DELETE, path, JSON, &json!({})).await?;
    }
    let repair_slice = |found: &Value, wanted: &Value| {
        let repaired = replaced(found, wanted, "endpoints");
        replaced(repaired.as_ref().unwrap_or(found), wanted, "ports").or(repaired)
    };
    let slice = Wanted { repair: Some(repair_slice), ..Wanted::new("discovery.k8s.io", "endpointslices", slice) };
    futures::future::try_join(super::ensure(state, endpoints), super::ensure(state, slice)).await?;
    Ok(())
}

fn service(cluster_ip: &str, port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": cluster_ip, "type": "ClusterIP", "sessionAffinity": "None", "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]}})
}

/// `found` with the field as wanted, if it is different.
fn replaced(found: &Value, wanted: &Value, field: &str) -> Option<Value> {
    if found[field] == wanted[field] {
        return None;
    }
    let mut repaired = found.clone();
    repaired[field] = wanted[field].clone();
    Some(repaired)
}
