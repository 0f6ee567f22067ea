//! What the rules for one Service have to be: a pure function of the Service, its EndpointSlices and the node.
//!
//! A Service becomes chains of its own and elements of shared maps. A packet meets one map lookup, whatever the number
//! of Services, and then the chain of one of them. A change of endpoints rewrites one chain; a new Service adds a chain
//! and elements. See [`crate::script`] for the frame that holds the maps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::endpoints::{self, Choice};

/// What the plan depends on besides the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name, which endpoints carry.
    pub name: String,
    /// Its zone, for topology hints.
    pub zone: Option<String>,
    /// The pod ranges of the cluster: who calls a cluster IP from elsewhere has its source replaced.
    pub cluster_ranges: Vec<IpNet>,
}

/// The shared maps and sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Map {
    /// Address, protocol and port to a service's chain.
    ServiceIps,
    /// Protocol and node port to a service's chain.
    NodePorts,
    /// Where no endpoint is: address, protocol and port to reject or drop.
    NoEndpoints,
    /// The same for node ports.
    NoEndpointNodePorts,
    /// Load balancer addresses whose sources are limited.
    Firewall,
    /// Endpoints, as a pair of twice the same address: an endpoint that calls itself.
    Hairpin,
}

impl Map {
    /// The name in nftables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceIps => "service-ips",
            Self::NodePorts => "service-nodeports",
            Self::NoEndpoints => "no-endpoint-services",
            Self::NoEndpointNodePorts => "no-endpoint-nodeports",
            Self::Firewall => "firewall-ips",
            Self::Hairpin => "hairpin",
        }
    }
}

/// The part of a service in one family's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Chains by name, each a list of rules.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Sets that remember clients, with their timeout in seconds.
    pub affinity: BTreeMap<String, u32>,
    /// Elements of shared maps; a set's element has no value.
    pub elements: BTreeMap<(Map, String), Option<String>>,
}

/// Everything the rules for one service consist of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// IPv4.
    pub v4: Part,
    /// IPv6.
    pub v6: Part,
    /// Where a load balancer asks whether this node has endpoints.
    pub health: Option<Health>,
    /// UDP addresses and where their flows may lead: others have to be forgotten by connection tracking.
    pub udp: Vec<UdpFrontend>,
}

/// The answer of a `healthCheckNodePort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The port on the node.
    pub port: u16,
    /// Number of endpoints on this node.
    pub local_endpoints: usize,
}

/// A UDP entry to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpFrontend {
    /// The address; none for a node port.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// Where its flows may lead.
    pub endpoints: BTreeSet<(IpAddr, u16)>,
}

/// Plans the rules of one service. Services without a cluster IP, and those another proxy serves, have none.
#[must_use]
pub fn plan(service: &Service, slices: &[Arc<EndpointSlice>], node: &Node) -> Fragment {
    let mut fragment = Fragment::default();
    let Some(spec) = &service.spec else { return fragment };
    let labels = service.metadata.labels.as_ref();
    let foreign = labels.is_some_and(|labels| labels.contains_key("service.kubernetes.io/service-proxy-name"));
    if foreign || spec.type_.as_deref() == Some("ExternalName") || spec.cluster_ip.as_deref() == Some("None") {
        return fragment;
    }
    for ipv4 in [true, false] {
        let entry = Entry::read(service, ipv4);
        if entry.cluster_ips.is_empty() {
            continue;
        }
        for port in spec.ports.as_deref().unwrap_or_default() {
            plan_port(&entry, port, slices, ipv4, node, &mut fragment);
        }
    }
    fragment
}

/// What of a service holds for all its ports, in one family.
struct Entry {
    id: String,
    ipv4: bool,
    cluster_ips: Vec<IpAddr>,
    external_ips: Vec<IpAddr>,
    balancer_ips: Vec<IpAddr>,
    source_ranges: Option<Vec<IpNet>>,
    affinity: Option<u32>,
    internal_local: bool,
    external_local: bool,
    health_port: Option<u16>,
    accessible: bool,
}

impl Entry {
    fn read(service: &Service, ipv4: bool) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let of_family = |ips: Vec<String>| -> Vec<IpAddr> {
            ips.iter().filter_map(|ip| ip.parse().ok()).filter(|ip: &IpAddr| ip.is_ipv4() == ipv4).collect()
        };
        let cluster_ips = spec.cluster_ips.or_else(|| spec.cluster_ip.map(|ip| vec![ip])).unwrap_or_default();
        let balancer = spec.type_.as_deref() == Some("LoadBalancer");
        let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = ingress.and_then(|balancer| balancer.ingress.clone()).unwrap_or_default();
        // An ingress of mode Proxy delivers to the node or pod itself: its address is not ours to catch.
        let ingress = ingress.into_iter().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
        let source_ranges: Vec<IpNet> = spec
            .load_balancer_source_ranges
            .unwrap_or_default()
            .iter()
            .filter_map(|range| range.trim().parse().ok())
            .filter(|range: &IpNet| range.addr().is_ipv4() == ipv4)
            .collect();
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.and_then(|config| config.client_ip);
            config.and_then(|config| config.timeout_seconds).and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(10_800)
        });
        let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        Self {
            id: format!("{namespace}/{name}"),
            ipv4,
            cluster_ips: of_family(cluster_ips),
            external_ips: of_family(spec.external_ips.unwrap_or_default()),
            balancer_ips: if balancer { of_family(ingress.filter_map(|ingress| ingress.ip).collect()) } else { Vec::new() },
            source_ranges: (balancer && !source_ranges.is_empty()).then_some(source_ranges),
            affinity,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local,
            health_port: spec
                .health_check_node_port
                .filter(|_| balancer && external_local)
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0),
            accessible: matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")),
        }
    }

    fn family(&self) -> &'static str {
        if self.ipv4 { "ip" } else { "ip6" }
    }
}

fn plan_port(entry: &Entry, port: &ServicePort, slices: &[Arc<EndpointSlice>], ipv4: bool, node: &Node, fragment: &mut Fragment) {
    let Ok(number) = u16::try_from(port.port) else { return };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let proto = match protocol {
        "TCP" => "tcp",
        "UDP" => "udp",
        "SCTP" => "sctp",
        _ => return,
    };
    let node_port = port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0 && entry.accessible);
    let all = endpoints::collect(slices, port.name.as_deref().unwrap_or_default(), protocol, ipv4, node);
    let choice = endpoints::choose(&all);
    let part = if ipv4 { &mut fragment.v4 } else { &mut fragment.v6 };
    let id = format!("{}/{proto}/{number}", entry.id);

    let external_ips: Vec<IpAddr> = entry.external_ips.iter().chain(&entry.balancer_ips).copied().collect();
    let external = !external_ips.is_empty() || node_port.is_some();
    let family = entry.family();
    let key = |ip: IpAddr| format!("{ip} . {proto} . {number}");

    // Inside the cluster.
    let inner = if entry.internal_local { &choice.local } else { &choice.cluster };
    if inner.is_empty() {
        let verdict = if choice.cluster.is_empty() { "goto reject-chain" } else { "drop" };
        for ip in &entry.cluster_ips {
            part.elements.insert((Map::NoEndpoints, key(*ip)), Some(verdict.to_owned()));
        }
    } else {
        let mut rules = Vec::new();
        let own: Vec<String> = node
            .cluster_ranges
            .iter()
            .filter(|range| range.addr().is_ipv4() == ipv4)
            .map(|range| range.trunc().to_string())
            .collect();
        if !own.is_empty() {
            rules.push(format!("{family} saddr != {{ {} }} jump mark-masquerade", own.join(", ")));
        }
        rules.push(format!("goto {}/{id}", if entry.internal_local { "local" } else { "cluster" }));
        part.chains.insert(format!("service/{id}"), rules);
        for ip in &entry.cluster_ips {
            part.elements.insert((Map::ServiceIps, key(*ip)), Some(format!("goto service/{id}")));
        }
    }

    // From outside, through addresses and node ports.
    let outer = if entry.external_local { &choice.local } else { &choice.cluster };
    if external {
        if outer.is_empty() {
            let verdict = if choice.cluster.is_empty() { "goto reject-chain" } else { "drop" };
            for ip in &external_ips {
                part.elements.insert((Map::NoEndpoints, key(*ip)), Some(verdict.to_owned()));
            }
            if let Some(node_port) = node_port {
                let key = (Map::NoEndpointNodePorts, format!("{proto} . {node_port}"));
                part.elements.insert(key, Some(verdict.to_owned()));
            }
        }
        // With policy Local, callers inside the cluster still reach every endpoint: for them nothing is gained by the
        // source address that the policy preserves.
        if !choice.cluster.is_empty() {
            part.chains.insert(format!("external/{id}"), external_rules(entry, &id, &choice, node));
            for ip in &external_ips {
                part.elements.insert((Map::ServiceIps, key(*ip)), Some(format!("goto external/{id}")));
            }
            if let Some(node_port) = node_port {
                let key = (Map::NodePorts, format!("{proto} . {node_port}"));
                part.elements.insert(key, Some(format!("goto external/{id}")));
            }
        }
    }
    if let Some(ranges) = &entry.source_ranges {
        let mut sources: Vec<String> = ranges.iter().map(|range| range.trunc().to_string()).collect();
        // A node that calls its own load balancer address sends from that address.
        sources.extend(entry.balancer_ips.iter().map(ToString::to_string));
        let sources: BTreeSet<String> = sources.into_iter().collect();
        let rules = sources.iter().map(|source| format!("{family} saddr {source} return")).chain(["drop".to_owned()]);
        part.chains.insert(format!("firewall/{id}"), rules.collect());
        for ip in &entry.balancer_ips {
            part.elements.insert((Map::Firewall, key(*ip)), Some(format!("goto firewall/{id}")));
        }
    }

    let uses_cluster = (!entry.internal_local || external) && !choice.cluster.is_empty();
    let uses_local = (entry.internal_local || (external && entry.external_local)) && !choice.local.is_empty();
    if uses_cluster {
        pick("cluster", entry, &id, proto, &choice.cluster, part);
    }
    if uses_local {
        pick("local", entry, &id, proto, &choice.local, part);
    }

    if let Some(port) = entry.health_port {
        let local_endpoints = all.iter().filter(|endpoint| endpoint.local && endpoint.ready).count();
        let most = fragment.health.as_ref().map_or(0, |health| health.local_endpoints).max(local_endpoints);
        fragment.health = Some(Health { port, local_endpoints: most });
    }
    if proto == "udp" {
        let endpoints: BTreeSet<(IpAddr, u16)> = choice.cluster.iter().chain(&choice.local).copied().collect();
        for ip in entry.cluster_ips.iter().chain(&external_ips) {
            fragment.udp.push(UdpFrontend { ip: Some(*ip), port: number, endpoints: endpoints.clone() });
        }
        fragment.udp.extend(node_port.map(|port| UdpFrontend { ip: None, port, endpoints }));
    }
}

fn external_rules(entry: &Entry, id: &str, choice: &Choice, node: &Node) -> Vec<String> {
    if !entry.external_local {
        return vec!["jump mark-masquerade".to_owned(), format!("goto cluster/{id}")];
    }
    let family = entry.family();
    let mut rules = Vec::new();
    for range in node.cluster_ranges.iter().filter(|range| range.addr().is_ipv4() == entry.ipv4) {
        rules.push(format!("{family} saddr {} goto cluster/{id}", range.trunc()));
    }
    rules.push("fib saddr type local jump mark-masquerade".to_owned());
    rules.push(format!("fib saddr type local goto cluster/{id}"));
    // Without a local endpoint the packet goes on to the filter, which drops it.
    if !choice.local.is_empty() {
        rules.push(format!("goto local/{id}"));
    }
    rules
}

/// The chain that picks an endpoint.
fn pick(kind: &str, entry: &Entry, id: &str, proto: &str, endpoints: &[(IpAddr, u16)], part: &mut Part) {
    for (ip, _) in endpoints {
        part.elements.insert((Map::Hairpin, format!("{ip} . {ip}")), None);
    }
    let family = entry.family();
    let mut rules = Vec::new();
    match entry.affinity {
        None => rules.push(match endpoints {
            [one] => format!("meta l4proto {proto} dnat {family} to {}", target(*one)),
            many => {
                let targets: Vec<String> =
                    many.iter().enumerate().map(|(i, (ip, port))| format!("{i} : {ip} . {port}")).collect();
                format!("meta l4proto {proto} dnat {family} to numgen random mod {} map {{ {} }}", many.len(), targets.join(", "))
            }
        }),
        Some(timeout) => {
            let mut verdicts = Vec::new();
            for (i, (ip, port)) in endpoints.iter().enumerate() {
                // A colon is not allowed in names.
                let name = format!("{id}/{}/{port}", ip.to_string().replace(':', "."));
                // A set's timeout cannot be changed, so it is part of the name.
                let set = format!("affinity/{timeout}/{name}");
                let update = format!("update @{set} {{ {family} saddr }}");
                let rule = format!("meta l4proto {proto} dnat {family} to {}", target((*ip, *port)));
                part.chains.insert(format!("endpoint/{name}"), vec![update, rule]);
                rules.push(format!("{family} saddr @{set} goto endpoint/{name}"));
                part.affinity.insert(set, timeout);
                verdicts.push(format!("{i} : goto endpoint/{name}"));
            }
            rules.push(format!("numgen random mod {} vmap {{ {} }}", endpoints.len(), verdicts.join(", ")));
        }
    }
    part.chains.insert(format!("{kind}/{id}"), rules);
}

fn target((ip, port): (IpAddr, u16)) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}

#[cfg(test)]
mod tests;
