//! What the answer to a question about the cluster is: the Kubernetes DNS specification 1.1 as a pure function.
//!
//! The difference between "no such name" and "no data of this type" matters: resolvers go on with the next search
//! domain after the first, and give up on the name after the second.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hickory_proto::rr::rdata::{CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Seconds an answer about the cluster may be remembered.
pub const TTL: u32 = 5;
/// The version of the specification.
const SCHEMA: &str = "1.1.0";

/// What the server is responsible for.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The cluster domain, lower case, absolute.
    pub domain: Name,
    /// The pod and Service ranges.
    pub ranges: Vec<IpNet>,
    /// The addresses of the server itself.
    pub servers: Vec<IpAddr>,
}

/// What the cluster knows.
pub trait Records {
    /// Whether there is such a namespace.
    fn namespace(&self, name: &str) -> bool;
    /// The service.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// The slices of a service.
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    /// The service with this cluster IP.
    fn service_at(&self, ip: IpAddr) -> Option<Arc<Service>>;
    /// The slices that have an endpoint with this address.
    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>>;
}

/// The answer, before it becomes a message.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it does not stay")]
pub enum Answer {
    /// Records.
    Found {
        /// The answer section.
        answers: Vec<Record>,
        /// Addresses of the targets.
        additionals: Vec<Record>,
    },
    /// The name exists, but has no records of this type.
    NoData,
    /// There is no such name, nor one below it.
    NoSuchName,
    /// The name is another one's alias; that has to be looked up too.
    Alias {
        /// The alias record.
        record: Record,
        /// What it stands for.
        target: Name,
    },
    /// Somebody else has to be asked.
    NotOurs,
}

/// The answer to the question for records of type `kind` of `name`.
#[must_use]
pub fn answer(zone: &Zone, name: &Name, kind: RecordType, records: &dyn Records) -> Answer {
    if let Some(ip) = reverse_address(name) {
        return reverse(zone, name, kind, ip, records);
    }
    if !zone.domain.zone_of(name) {
        return Answer::NotOurs;
    }
    let own = usize::from(zone.domain.num_labels());
    let labels: Vec<String> = name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let labels: Vec<&str> = labels[..labels.len() - own].iter().map(String::as_str).collect();
    let asked = Asked { zone, name, kind, records };
    match labels.as_slice() {
        [] => asked.apex(),
        ["svc" | "pod"] => Answer::NoData,
        ["dns-version"] => asked.only(RecordType::TXT, || vec![RData::TXT(TXT::new(vec![SCHEMA.to_owned()]))]),
        ["dns"] => Answer::NoData,
        ["ns", "dns"] => asked.addresses(zone.servers.iter().copied()),
        [namespace, "svc" | "pod"] => {
            if records.namespace(namespace) {
                Answer::NoData
            } else {
                Answer::NoSuchName
            }
        }
        [dashed, namespace, "pod"] => asked.pod(dashed, namespace),
        [below @ .., service, namespace, "svc"] => match records.service(namespace, service) {
            Some(found) => asked.service(below, &found, namespace, service),
            None => Answer::NoSuchName,
        },
        _ => Answer::NoSuchName,
    }
}

/// The start-of-authority record, which goes with every negative answer (RFC 2308).
#[must_use]
pub fn authority(zone: &Zone, serial: u32) -> Record {
    let soa = SOA::new(below(&["ns", "dns"], &zone.domain), below(&["hostmaster"], &zone.domain), serial, 7200, 1800, 86400, TTL);
    Record::from_rdata(zone.domain.clone(), TTL, RData::SOA(soa))
}

/// One endpoint of a service, as DNS sees it.
struct Host {
    name: String,
    ip: IpAddr,
    ports: Vec<(String, String, u16)>,
}

struct Asked<'a> {
    zone: &'a Zone,
    name: &'a Name,
    kind: RecordType,
    records: &'a dyn Records,
}

impl Asked<'_> {
    fn apex(&self) -> Answer {
        match self.kind {
            RecordType::SOA => Answer::Found { answers: vec![authority(self.zone, 0)], additionals: Vec::new() },
            RecordType::NS => {
                let server = below(&["ns", "dns"], &self.zone.domain);
                let additionals = self.zone.servers.iter().map(|ip| address(&server, *ip)).collect();
                Answer::Found { answers: vec![self.record(RData::NS(NS(server)))], additionals }
            }
            _ => Answer::NoData,
        }
    }

    /// `1-2-3-4.namespace.pod`: the address is in the name. As in upstream's default mode, nobody checks that there is
    /// such a pod.
    fn pod(&self, dashed: &str, namespace: &str) -> Answer {
        if !self.records.namespace(namespace) {
            return Answer::NoSuchName;
        }
        match dashed_address(dashed) {
            Some(ip) => self.addresses([ip].into_iter()),
            None => Answer::NoSuchName,
        }
    }

    fn service(&self, below: &[&str], service: &Service, namespace: &str, name: &str) -> Answer {
        let spec = service.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            return match below {
                [] => self.alias(spec.external_name.as_deref().unwrap_or_default()),
                _ => Answer::NoSuchName,
            };
        }
        let cluster_ips: Vec<IpAddr> = spec
            .cluster_ips
            .or_else(|| spec.cluster_ip.map(|ip| vec![ip]))
            .unwrap_or_default()
            .iter()
            .filter_map(|ip| ip.parse().ok())
            .collect();
        let headless = cluster_ips.is_empty();
        let hosts = || hosts(&self.records.slices(namespace, name), spec.publish_not_ready_addresses.unwrap_or(false));
        match below {
            [] if !headless && self.kind != RecordType::SRV => self.addresses(cluster_ips.iter().copied()),
            [] if headless => {
                let hosts = hosts();
                // Without a ready endpoint the name does not exist.
                if hosts.is_empty() {
                    return Answer::NoSuchName;
                }
                if self.kind == RecordType::SRV {
                    return self.endpoint_ports(&hosts, None, namespace, name);
                }
                let mut ips: Vec<IpAddr> = hosts.iter().map(|host| host.ip).collect();
                ips.sort_unstable();
                ips.dedup();
                self.addresses(ips.into_iter())
            }
            [] => self.service_ports(&spec.ports.unwrap_or_default(), None, &cluster_ips, namespace, name),
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let (port, protocol) = (&port[1..], &protocol[1..]);
                if headless {
                    self.endpoint_ports(&hosts(), Some((port, protocol)), namespace, name)
                } else {
                    let ports = spec.ports.unwrap_or_default();
                    self.service_ports(&ports, Some((port, protocol)), &cluster_ips, namespace, name)
                }
            }
            // An empty name between a service and its ports.
            [protocol] if protocol.starts_with('_') => {
                let protocol = &protocol[1..];
                let known = if headless {
                    hosts().iter().any(|host| host.ports.iter().any(|(_, known, _)| known == protocol))
                } else {
                    let mut ports = spec.ports.iter().flatten();
                    ports.any(|port| port.protocol.as_deref().unwrap_or("TCP").eq_ignore_ascii_case(protocol))
                };
                if known { Answer::NoData } else { Answer::NoSuchName }
            }
            [host] => {
                let mut ips: Vec<IpAddr> = hosts().into_iter().filter(|known| known.name == *host).map(|host| host.ip).collect();
                if ips.is_empty() {
                    return Answer::NoSuchName;
                }
                ips.sort_unstable();
                ips.dedup();
                self.addresses(ips.into_iter())
            }
            _ => Answer::NoSuchName,
        }
    }

    fn alias(&self, external: &str) -> Answer {
        let Ok(mut target) = Name::from_ascii(external) else { return Answer::NoSuchName };
        target.set_fqdn(true);
        let record = self.record(RData::CNAME(CNAME(target.clone())));
        match self.kind {
            RecordType::CNAME => Answer::Found { answers: vec![record], additionals: Vec::new() },
            _ => Answer::Alias { record, target },
        }
    }

    /// The ports of a service with a cluster IP; all of them if none is named.
    fn service_ports(
        &self,
        ports: &[k8s_openapi::api::core::v1::ServicePort],
        wanted: Option<(&str, &str)>,
        ips: &[IpAddr],
        namespace: &str,
        name: &str,
    ) -> Answer {
        let target = below(&[name, namespace, "svc"], &self.zone.domain);
        let matching: Vec<u16> = ports
            .iter()
            .filter(|port| {
                wanted.is_none_or(|(name, protocol)| {
                    port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP").eq_ignore_ascii_case(protocol)
                })
            })
            .filter_map(|port| u16::try_from(port.port).ok())
            .collect();
        if matching.is_empty() {
            return if wanted.is_some() { Answer::NoSuchName } else { Answer::NoData };
        }
        if self.kind != RecordType::SRV {
            return Answer::NoData;
        }
        let answers = matching.iter().map(|port| self.record(RData::SRV(SRV::new(0, 100, *port, target.clone())))).collect();
        Answer::Found { answers, additionals: ips.iter().map(|ip| address(&target, *ip)).collect() }
    }

    /// The ports of every endpoint of a headless service.
    fn endpoint_ports(&self, hosts: &[Host], wanted: Option<(&str, &str)>, namespace: &str, name: &str) -> Answer {
        let mut found = Vec::new();
        for host in hosts {
            for (port, protocol, number) in &host.ports {
                if wanted.is_none_or(|wanted| wanted == (port.as_str(), protocol.as_str())) {
                    found.push((host, *number));
                }
            }
        }
        if found.is_empty() {
            return if wanted.is_some() { Answer::NoSuchName } else { Answer::NoData };
        }
        if self.kind != RecordType::SRV {
            return Answer::NoData;
        }
        let weight = u16::try_from(100 / found.len()).unwrap_or(1).max(1);
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        for (host, number) in found {
            let target = below(&[&host.name, name, namespace, "svc"], &self.zone.domain);
            let record = address(&target, host.ip);
            if !additionals.contains(&record) {
                additionals.push(record);
            }
            let record = self.record(RData::SRV(SRV::new(0, weight, number, target)));
            // Two addresses of one host are one target.
            if !answers.contains(&record) {
                answers.push(record);
            }
        }
        Answer::Found { answers, additionals }
    }

    /// Addresses of the family that was asked for.
    fn addresses(&self, ips: impl Iterator<Item = IpAddr>) -> Answer {
        let answers: Vec<Record> = ips
            .filter(|ip| match self.kind {
                RecordType::A => ip.is_ipv4(),
                RecordType::AAAA => ip.is_ipv6(),
                _ => false,
            })
            .map(|ip| address(self.name, ip))
            .collect();
        if answers.is_empty() { Answer::NoData } else { Answer::Found { answers, additionals: Vec::new() } }
    }

    fn only(&self, kind: RecordType, data: impl FnOnce() -> Vec<RData>) -> Answer {
        if self.kind != kind {
            return Answer::NoData;
        }
        Answer::Found { answers: data().into_iter().map(|data| self.record(data)).collect(), additionals: Vec::new() }
    }

    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.name.clone(), TTL, data)
    }
}

fn reverse(zone: &Zone, name: &Name, kind: RecordType, ip: IpAddr, records: &dyn Records) -> Answer {
    let mut targets = Vec::new();
    if let Some(service) = records.service_at(ip) {
        let meta = &service.metadata;
        let (service, namespace) = (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
        targets.push(below(&[service, namespace, "svc"], &zone.domain));
    } else {
        for slice in records.slices_at(ip) {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            let Some(owner) = slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name")) else {
                continue;
            };
            let Some(service) = records.service(namespace, owner) else { continue };
            let headless = service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"));
            if !headless {
                continue;
            }
            for endpoint in slice.endpoints.iter().flatten() {
                if endpoint.addresses.iter().any(|known| known.parse() == Ok(ip)) {
                    targets.push(below(&[&host_name(endpoint, ip), owner, namespace, "svc"], &zone.domain));
                }
            }
        }
    }
    if targets.is_empty() {
        let ours = zone.ranges.iter().any(|range| range.contains(&ip));
        return if ours { Answer::NoSuchName } else { Answer::NotOurs };
    }
    if kind != RecordType::PTR {
        return Answer::NoData;
    }
    let answers = targets.into_iter().map(|target| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target)))).collect();
    Answer::Found { answers, additionals: Vec::new() }
}

/// The address that a complete name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

fn hosts(slices: &[Arc<EndpointSlice>], not_ready_too: bool) -> Vec<Host> {
    let mut hosts = Vec::new();
    for slice in slices.iter().filter(|slice| slice.address_type != "FQDN") {
        let ports: Vec<(String, String, u16)> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                let number = u16::try_from(port.port?).ok()?;
                let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
                Some((port.name.clone().unwrap_or_default(), protocol, number))
            })
            .collect();
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            if !ready && !not_ready_too {
                continue;
            }
            for ip in endpoint.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
                hosts.push(Host { name: host_name(endpoint, ip), ip, ports: ports.clone() });
            }
        }
    }
    hosts
}

/// The name of an endpoint below its service: its host name, or one made from its address.
fn host_name(endpoint: &Endpoint, ip: IpAddr) -> String {
    match &endpoint.hostname {
        Some(name) if !name.is_empty() => name.clone(),
        _ => ip.to_string().replace(['.', ':'], "-"),
    }
}

fn dashed_address(dashed: &str) -> Option<IpAddr> {
    if let Ok(ip) = dashed.replace('-', ".").parse::<Ipv4Addr>() {
        return Some(ip.into());
    }
    dashed.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::from)
}

fn below(labels: &[&str], domain: &Name) -> Name {
    let name = Name::from_labels(labels.iter().map(|label| label.as_bytes())).and_then(|name| name.append_domain(domain));
    // Names of objects are valid labels; one that is too long in all has no records.
    name.unwrap_or_else(|_| domain.clone())
}

fn address(name: &Name, ip: IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(ip.into()),
        IpAddr::V6(ip) => RData::AAAA(ip.into()),
    };
    Record::from_rdata(name.clone(), TTL, data)
}

#[cfg(test)]
mod tests;
