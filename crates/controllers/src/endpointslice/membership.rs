//! Which pods are endpoints of a Service, at which addresses and ports, and in which condition.

use std::net::IpAddr;
use std::sync::Arc;

use corten_client::{Change, Informer, Key, Queue};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::meta::{is_deleting, map, name, namespace};
use crate::pods::{is_ready, is_terminal, node_name};
use crate::selector::has_all;

/// Adds the services of every pod whose change matters to endpoints.
pub(crate) fn on_pod_change(pods: &Informer<Pod>, services: &Informer<Service>, queue: &Queue) {
    let (services, queue) = (services.clone(), queue.clone());
    pods.on_change(move |change: &Change<Pod>| {
        let new = change.object();
        let old = change.old();
        if let Some(old) = old
            && !is_relevant(old, new)
        {
            return;
        }
        // A pod without an address was no endpoint and is none.
        if addresses(new).next().is_none() && old.is_none_or(|old| addresses(old).next().is_none()) {
            return;
        }
        for service in services.list_in(namespace(&new.metadata)) {
            let Some(selector) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { continue };
            let selects = |pod: &Arc<Pod>| has_all(selector, map(&pod.metadata.labels));
            if selects(new) || old.is_some_and(selects) {
                queue.add(Key::of(&*service));
            }
        }
    });
}

fn is_relevant(old: &Pod, new: &Pod) -> bool {
    let spec = |pod: &Pod| pod.spec.as_ref().map(|spec| (spec.node_name.clone(), spec.hostname.clone(), spec.subdomain.clone()));
    old.metadata.labels != new.metadata.labels
        || is_deleting(&old.metadata) != is_deleting(&new.metadata)
        || is_terminal(old) != is_terminal(new)
        || is_ready(old) != is_ready(new)
        || !addresses(old).eq(addresses(new))
        || spec(old) != spec(new)
}

/// All addresses of a pod.
pub(crate) fn addresses(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    let all = status.into_iter().flat_map(|status| status.pod_ips.iter().flatten()).map(|ip| &*ip.ip);
    let only =
        status.and_then(|status| status.pod_ip.as_deref()).filter(|_| status.is_none_or(|status| status.pod_ips.is_none()));
    all.chain(only).filter(|ip| !ip.is_empty())
}

pub(crate) fn is_of_family(address: &str, family: &str) -> bool {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => family == "IPv4",
        Ok(IpAddr::V6(_)) => family == "IPv6",
        Err(_) => false,
    }
}

/// The endpoint that `pod` is, or none when it has ended or has no address of the family.
pub(crate) fn endpoint(service: &Service, pod: &Pod, family: &str, zone: Option<String>) -> Option<Endpoint> {
    if is_terminal(pod) {
        return None;
    }
    let addresses: Vec<String> = addresses(pod).filter(|address| is_of_family(address, family)).map(str::to_owned).collect();
    if addresses.is_empty() {
        return None;
    }
    let (serving, terminating) = (is_ready(pod), is_deleting(&pod.metadata));
    let ready = publishes_not_ready(service) || (serving && !terminating);
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) }),
        hostname: hostname(service, pod),
        node_name: Some(node_name(pod)).filter(|node| !node.is_empty()).map(str::to_owned),
        target_ref: Some(pod_reference(pod)),
        zone,
        ..Endpoint::default()
    })
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

pub(crate) fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The DNS name of the pod within the service, when the pod asks for one there.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let here = spec.subdomain.as_deref() == Some(name(&service.metadata)) && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname.clone().filter(|hostname| here && !hostname.is_empty())
}

/// The ports of the service as this pod has them. A named port that the pod does not have is left out.
pub(crate) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = |port: &ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(port, pod)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.filter_map(port).collect()
}

/// The number of the port that a service port leads to in `pod`.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let wanted = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(wanted)) if wanted.is_empty() => return Some(port.port),
        Some(IntOrString::String(wanted)) => wanted,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let spec = pod.spec.as_ref()?;
    // Sidecars are init containers that stay, so their ports count.
    let sidecars =
        spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mut named =
        ports.filter(|port| port.name.as_ref() == Some(wanted) && port.protocol.as_deref().unwrap_or("TCP") == protocol);
    named.next().map(|port| port.container_port)
}

/// Says which zone (or node) should use which endpoint, as `spec.trafficDistribution` asks.
pub(crate) fn add_hints(distribution: Option<&str>, endpoints: &mut [Endpoint]) {
    let (zones, nodes) = match distribution {
        Some("PreferClose" | "PreferSameZone") => (true, false),
        Some("PreferSameNode") => (true, true),
        _ => return,
    };
    for endpoint in endpoints {
        if endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(true) {
            continue;
        }
        let for_zones = endpoint.zone.clone().filter(|_| zones).map(|name| vec![ForZone { name }]);
        let for_nodes = endpoint.node_name.clone().filter(|_| nodes).map(|name| vec![ForNode { name }]);
        if for_zones.is_some() || for_nodes.is_some() {
            endpoint.hints = Some(EndpointHints { for_zones, for_nodes });
        }
    }
}
