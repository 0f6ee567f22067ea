//! Which endpoints of a service port this node sends traffic to.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};

use crate::plan::Node;

/// One endpoint of one service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// Passes its readiness probe and is not terminating.
    pub ready: bool,
    /// Passes its readiness probe, terminating or not.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
    /// Runs on this node.
    pub local: bool,
    /// The nodes that should prefer it, if hinted.
    for_nodes: Option<bool>,
    /// Whether its zone hints name this node's zone, if there are any.
    for_zone: Option<bool>,
}

/// The endpoints of one service port, sorted into what each traffic policy uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// For traffic policy Cluster.
    pub cluster: Vec<(IpAddr, u16)>,
    /// For traffic policy Local.
    pub local: Vec<(IpAddr, u16)>,
}

/// Collects the endpoints of the port called `port` and family `ipv4` from the slices of one service.
#[must_use]
pub fn collect(slices: &[Arc<EndpointSlice>], port: &str, protocol: &str, ipv4: bool, node: &Node) -> Vec<Endpoint> {
    let family = if ipv4 { "IPv4" } else { "IPv6" };
    let mut endpoints = Vec::new();
    for slice in slices.iter().filter(|slice| slice.address_type == family) {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let numbers = ports.iter().filter(|candidate| {
            candidate.name.as_deref().unwrap_or_default() == port && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
        });
        for number in numbers.filter_map(|port| port.port).filter_map(|port| u16::try_from(port).ok()) {
            for endpoint in slice.endpoints.as_deref().unwrap_or_default() {
                endpoints.extend(read(endpoint, number, node));
            }
        }
    }
    // An endpoint may be in two slices while it moves from one to the other: the better word counts.
    endpoints.sort_by(|a, b| (a.ip, a.port, b.ready, b.serving).cmp(&(b.ip, b.port, a.ready, a.serving)));
    endpoints.dedup_by(|next, kept| (next.ip, next.port) == (kept.ip, kept.port));
    endpoints
}

/// Sorts the endpoints by policy. Endpoints that terminate but still serve are used only when no other is left
/// (KEP-1669), for each policy on its own.
#[must_use]
pub fn choose(endpoints: &[Endpoint]) -> Choice {
    let hinted = hinted(endpoints);
    let cluster = or_terminating(endpoints, |endpoint| endpoint.ready && hinted.is_none_or(|by| by(endpoint)), |_| true);
    let local = or_terminating(endpoints, |endpoint| endpoint.ready && endpoint.local, |endpoint| endpoint.local);
    Choice { cluster, local }
}

fn or_terminating(
    endpoints: &[Endpoint],
    usual: impl Fn(&Endpoint) -> bool,
    last_resort: impl Fn(&Endpoint) -> bool,
) -> Vec<(IpAddr, u16)> {
    let pick = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<(IpAddr, u16)> {
        endpoints.iter().filter(|endpoint| wanted(endpoint)).map(|endpoint| (endpoint.ip, endpoint.port)).collect()
    };
    let chosen = pick(&usual);
    if !chosen.is_empty() {
        return chosen;
    }
    pick(&|endpoint| endpoint.serving && endpoint.terminating && last_resort(endpoint))
}

/// Topology hints count only if every ready endpoint has one and at least one is for us: otherwise some endpoint would
/// get no traffic, or we would have none to send to.
fn hinted(endpoints: &[Endpoint]) -> Option<fn(&Endpoint) -> bool> {
    let ready = || endpoints.iter().filter(|endpoint| endpoint.ready);
    let usable = |hint: fn(&Endpoint) -> Option<bool>| {
        ready().all(|endpoint| hint(endpoint).is_some()) && ready().any(|endpoint| hint(endpoint) == Some(true))
    };
    if usable(|endpoint| endpoint.for_nodes) {
        return Some(|endpoint| endpoint.for_nodes == Some(true));
    }
    if usable(|endpoint| endpoint.for_zone) {
        return Some(|endpoint| endpoint.for_zone == Some(true));
    }
    None
}

fn read(endpoint: &SliceEndpoint, port: u16, node: &Node) -> Option<Endpoint> {
    let ip = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let hints = endpoint.hints.as_ref();
    let for_nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).filter(|nodes| !nodes.is_empty());
    let for_zones = hints.and_then(|hints| hints.for_zones.as_ref()).filter(|zones| !zones.is_empty());
    Some(Endpoint {
        ip,
        port,
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        local: endpoint.node_name.as_deref() == Some(node.name.as_str()),
        for_nodes: for_nodes.map(|nodes| nodes.iter().any(|hint| hint.name == node.name)),
        for_zone: for_zones
            .filter(|_| node.zone.is_some())
            .map(|zones| zones.iter().any(|hint| Some(&hint.name) == node.zone.as_ref())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(last: u8, flags: &str) -> Endpoint {
        let has = |flag| flags.contains(flag);
        Endpoint {
            ip: IpAddr::from([10, 42, 0, last]),
            port: 80,
            ready: has('r'),
            serving: has('r') || has('s'),
            terminating: has('t'),
            local: has('l'),
            for_nodes: None,
            for_zone: if has('z') { Some(true) } else { has('o').then_some(false) },
        }
    }

    #[test]
    #[rustfmt::skip]
    fn endpoints_are_chosen_by_policy() {
        // r: ready, s: serving, t: terminating, l: local, z: hinted for our zone, o: for another zone
        //    endpoints              cluster       local
        check(&["r", "rl"],          &[0, 1],      &[1]);
        check(&["r", "l"],           &[0],         &[]);        // a local one that is not ready is of no use
        check(&["st", "rl"],         &[1],         &[1]);       // terminating ones wait for their turn
        check(&["st", "t"],          &[0],         &[]);        // and only if they serve
        check(&["r", "stl"],         &[0],         &[1]);       // each policy falls back on its own
        check(&["rz", "ro"],         &[0],         &[]);        // hints narrow down
        check(&["rz", "r"],          &[0, 1],      &[]);        // one without a hint voids all
        check(&["ro", "ro"],         &[0, 1],      &[]);        // none is for us
        #[track_caller]
        fn check(flags: &[&str], cluster: &[usize], local: &[usize]) {
            let endpoints: Vec<Endpoint> = flags.iter().enumerate().map(|(i, flags)| endpoint(i as u8, flags)).collect();
            let named = |indices: &[usize]| -> Vec<(IpAddr, u16)> { indices.iter().map(|i| (endpoints[*i].ip, 80)).collect() };
            assert_eq!(choose(&endpoints), Choice { cluster: named(cluster), local: named(local) });
        }
    }
}
