//! Which cluster IPs and node ports are free. An address is taken by making its IPAddress object (KEP-1880), so that several
//! servers on one store cannot give it out twice; a node port is taken while a Service has it or a write holds it.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;
use rand::Rng;
use serde::Deserialize;

use crate::cache::Map;
use crate::config::Config;
use crate::reader::Reader;

/// The allocators of one server.
pub struct Allocators {
    /// The configured ranges, the primary family's first.
    ranges: Vec<IpNet>,
    reader: Reader,
    ports: Arc<Ports>,
}

/// The configured ranges are of no use.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// There is none, or more than two.
    #[error("--service-cluster-ip-range must have one range, or one of each family, not {0}")]
    Number(usize),
    /// Both are of one family.
    #[error("the ranges of --service-cluster-ip-range are of one family")]
    SameFamily,
}

/// Why an address or a port cannot be had, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Taken {
    /// Somebody has the address.
    #[error("provided IP is already allocated")]
    Address,
    /// No range has the address.
    #[error("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}")]
    AddressOutside {
        /// The address.
        ip: IpAddr,
        /// The range it should be in.
        range: String,
    },
    /// Somebody has the port.
    #[error("provided port is already allocated")]
    Port,
    /// The port is none of ours.
    #[error("provided port is not in the valid range. The range of valid ports is {0}")]
    PortOutside(String),
    /// There is nothing left.
    #[error("range is full")]
    Full,
}

/// IP families, by upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `IPv4`
    V4,
    /// `IPv6`
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// `IPv4` or `IPv6`
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The family of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    fn of_range(range: &IpNet) -> Self {
        Self::of(range.addr())
    }
}

impl Allocators {
    /// Allocators over the configured ranges.
    pub fn new(config: &Config, reader: &Reader) -> Result<Self, RangeError> {
        let ranges: Vec<IpNet> = config.service_cluster_ip_range.iter().map(IpNet::trunc).collect();
        match ranges.as_slice() {
            [_] => {}
            [a, b] if Family::of_range(a) == Family::of_range(b) => return Err(RangeError::SameFamily),
            [_, _] => {}
            other => return Err(RangeError::Number(other.len())),
        }
        let ports = Arc::new(Ports { range: config.service_node_port_range.clone(), state: Mutex::default() });
        Ok(Self { ranges, reader: reader.clone(), ports })
    }

    /// The family of Services that name none.
    #[must_use]
    pub fn default_family(&self) -> Family {
        Family::of_range(&self.ranges[0])
    }

    /// Whether Services may have addresses of a family.
    #[must_use]
    pub fn has(&self, family: Family) -> bool {
        self.ranges.iter().any(|range| Family::of_range(range) == family)
    }

    /// Whether there are two families.
    #[must_use]
    pub fn is_dual(&self) -> bool {
        self.ranges.len() == 2
    }

    /// The ranges of a family: the configured one, and those of ServiceCIDR objects that are not going away.
    fn ranges(&self, family: Family) -> Vec<IpNet> {
        #[derive(Deserialize)]
        struct Cidr {
            spec: Spec,
        }
        #[derive(Deserialize)]
        struct Spec {
            #[serde(default)]
            cidrs: Vec<String>,
        }
        let mut ranges: Vec<IpNet> = self.ranges.clone();
        for entry in self.reader.list("networking.k8s.io", "servicecidrs", "") {
            if entry.deleting {
                continue;
            }
            let cidrs = entry.parse::<Cidr>().map(|cidr| cidr.spec.cidrs).unwrap_or_default();
            ranges.extend(cidrs.iter().filter_map(|cidr| cidr.parse::<IpNet>().ok()).map(|range| range.trunc()));
        }
        ranges.retain(|range| Family::of_range(range) == family);
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }

    /// Whether an address that a client asks for may be given out.
    pub fn check(&self, ip: IpAddr) -> Result<(), Taken> {
        let ranges = self.ranges(Family::of(ip));
        let Some(range) = ranges.iter().find(|range| range.contains(&ip)) else {
            let range = ranges.first().map(ToString::to_string).unwrap_or_default();
            return Err(Taken::AddressOutside { ip, range });
        };
        if !usable(range, ip) {
            return Err(Taken::AddressOutside { ip, range: range.to_string() });
        }
        if self.is_taken(ip) { Err(Taken::Address) } else { Ok(()) }
    }

    fn is_taken(&self, ip: IpAddr) -> bool {
        self.reader.get("networking.k8s.io", "ipaddresses", "", &ip.to_string()).is_some()
    }

    /// What a write that only tries is told: the address of the range, which no Service has.
    pub fn tried_address(&self, family: Family) -> Result<IpAddr, Taken> {
        self.ranges(family).first().map(IpNet::network).ok_or(Taken::Full)
    }

    /// A free address, by chance from the upper part of the range and from the lower part, which people choose from, only
    /// when the upper is full (KEP-3070).
    pub fn free_address(&self, family: Family) -> Result<IpAddr, Taken> {
        for range in self.ranges(family) {
            let size = size(&range);
            let reserved = (size / 16).clamp(16, 256).min(size);
            for (from, to) in [(reserved, size), (0, reserved)] {
                if let Some(ip) = self.free_between(&range, from, to) {
                    return Ok(ip);
                }
            }
        }
        Err(Taken::Full)
    }

    fn free_between(&self, range: &IpNet, from: u128, to: u128) -> Option<IpAddr> {
        if from >= to {
            return None;
        }
        let start = rand::rng().random_range(from..to);
        // A range of a whole /64 is not searched through; a few thousand tries by chance find a free one.
        let tries = (to - from).min(1 << 16);
        (0..tries)
            .map(|n| nth(range, from + (start - from + n) % (to - from)))
            .find(|ip| usable(range, *ip) && !self.is_taken(*ip))
    }

    /// How many addresses of each range are given out and are free.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, u128, u128)> {
        let taken = self.reader.snapshot("networking.k8s.io", "ipaddresses");
        let taken: Vec<IpAddr> = taken.keys().filter_map(|key| key.parse().ok()).collect();
        let families = [Family::of_range(&self.ranges[0])].into_iter().chain(self.ranges.get(1).map(Family::of_range));
        let ranges = families.flat_map(|family| self.ranges(family));
        let counted = ranges.map(|range| {
            let used = taken.iter().filter(|ip| range.contains(*ip)).count() as u128;
            let usable = size(&range).saturating_sub(if range.network().is_ipv4() { 2 } else { 1 });
            (range.to_string(), used, usable.saturating_sub(used))
        });
        counted.collect()
    }

    /// How many node ports are given out and are free.
    #[must_use]
    pub fn ports_used(&self) -> (usize, usize) {
        let mut state = self.ports.state.lock();
        state.follow(self.reader.snapshot("", "services"));
        let used = state.used.keys().filter(|port| self.ports.range.contains(port)).count();
        (used, self.ports.range.len().saturating_sub(used))
    }

    /// Begins taking ports for one write. One that only tries (`dryRun`) takes none: it is told whether the ports it asks for
    /// are free, and gets numbers that nobody can have for others.
    #[must_use]
    pub fn ports(&self, dry_run: bool) -> PortClaim {
        let services = self.reader.snapshot("", "services");
        self.ports.state.lock().follow(services);
        PortClaim { ports: self.ports.clone(), held: Vec::new(), dry_run }
    }
}

/// Number of addresses in a range, as far as it matters.
fn size(range: &IpNet) -> u128 {
    let bits = range.max_prefix_len() - range.prefix_len();
    1u128 << bits.min(64)
}

fn nth(range: &IpNet, n: u128) -> IpAddr {
    match range.network() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from(u32::from(ip).wrapping_add(n as u32))),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip).wrapping_add(n))),
    }
}

/// The first address of a range is the network's, and the last IPv4 one its broadcast.
fn usable(range: &IpNet, ip: IpAddr) -> bool {
    ip != range.network() && !(ip.is_ipv4() && ip == range.broadcast())
}

struct Ports {
    range: RangeInclusive<u16>,
    state: Mutex<PortState>,
}

#[derive(Default)]
struct PortState {
    /// The Services that `used` was read from.
    seen: Map,
    /// How many Services have each port.
    used: HashMap<u16, usize>,
    /// Ports of writes under way.
    held: BTreeSet<u16>,
}

impl PortState {
    /// Takes in what changed since the last look.
    fn follow(&mut self, services: Map) {
        let seen = std::mem::replace(&mut self.seen, services.clone());
        for change in seen.diff(&services) {
            use imbl::ordmap::DiffItem;
            let (old, new) = match change {
                DiffItem::Add(_, new) => (None, Some(new)),
                DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
                DiffItem::Remove(_, old) => (Some(old), None),
            };
            for port in old.map(|entry| ports_of(entry)).unwrap_or_default() {
                if let Some(count) = self.used.get_mut(&port) {
                    *count -= 1;
                    if *count == 0 {
                        self.used.remove(&port);
                    }
                }
            }
            for port in new.map(|entry| ports_of(entry)).unwrap_or_default() {
                *self.used.entry(port).or_default() += 1;
            }
        }
    }

    fn is_free(&self, port: u16) -> bool {
        !self.used.contains_key(&port) && !self.held.contains(&port)
    }
}

/// The node ports of a Service, each once.
fn ports_of(entry: &crate::cache::Entry) -> BTreeSet<u16> {
    #[derive(Deserialize)]
    struct Service {
        spec: Spec,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        #[serde(default)]
        ports: Vec<Port>,
        #[serde(default)]
        health_check_node_port: u16,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Port {
        #[serde(default)]
        node_port: u16,
    }
    let Ok(service) = entry.parse::<Service>() else {
        return BTreeSet::new();
    };
    let ports = service.spec.ports.iter().map(|port| port.node_port).chain([service.spec.health_check_node_port]);
    ports.filter(|port| *port != 0).collect()
}

/// Ports that one write holds until it is over: then the Service in the cache has them, or nobody.
pub struct PortClaim {
    ports: Arc<Ports>,
    held: Vec<u16>,
    dry_run: bool,
}

/// The first port that a write which only tries is told, just above the ports that there usually are.
const TRIED_PORT: u16 = 32_769;

impl PortClaim {
    /// Takes the port that a client asks for.
    pub fn take(&mut self, port: i64) -> Result<(), Taken> {
        if self.dry_run {
            // Whether it is in the range is not looked at, as upstream.
            let Ok(port) = u16::try_from(port) else {
                return Ok(());
            };
            if self.held.contains(&port) || !self.ports.state.lock().is_free(port) {
                return Err(Taken::Port);
            }
            self.held.push(port);
            return Ok(());
        }
        let range = &self.ports.range;
        let outside = || Taken::PortOutside(format!("{}-{}", range.start(), range.end()));
        let port = u16::try_from(port).map_err(|_| outside())?;
        if !range.contains(&port) {
            return Err(outside());
        }
        let mut state = self.ports.state.lock();
        if !state.is_free(port) {
            return Err(Taken::Port);
        }
        state.held.insert(port);
        self.held.push(port);
        Ok(())
    }

    /// Takes a free port, from the upper part of the range first (KEP-3668).
    pub fn take_any(&mut self) -> Result<u16, Taken> {
        if self.dry_run {
            let port = self.held.iter().max().map_or(TRIED_PORT, |last| last.saturating_add(1));
            self.held.push(port);
            return Ok(port);
        }
        let (first, last) = (*self.ports.range.start(), *self.ports.range.end());
        let size = u32::from(last - first) + 1;
        let reserved = if size < 32 { 0 } else { (size / 32).clamp(16, 128) };
        let mut state = self.ports.state.lock();
        for (from, to) in [(reserved, size), (0, reserved)] {
            if from >= to {
                continue;
            }
            let start = rand::rng().random_range(from..to);
            let port = (0..to - from)
                .map(|n| first + (from + (start - from + n) % (to - from)) as u16)
                .find(|port| state.is_free(*port));
            if let Some(port) = port {
                state.held.insert(port);
                self.held.push(port);
                return Ok(port);
            }
        }
        Err(Taken::Full)
    }
}

impl Drop for PortClaim {
    fn drop(&mut self) {
        if self.dry_run {
            return;
        }
        let mut state = self.ports.state.lock();
        for port in &self.held {
            state.held.remove(port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_leave_their_ends_out() {
        let range: IpNet = "10.0.0.0/30".parse().unwrap();
        let usable: Vec<IpAddr> = (0..size(&range)).map(|n| nth(&range, n)).filter(|ip| usable(&range, *ip)).collect();
        assert_eq!(usable, ["10.0.0.1".parse::<IpAddr>().unwrap(), "10.0.0.2".parse().unwrap()]);
        let range: IpNet = "fd00::/64".parse().unwrap();
        assert_eq!(nth(&range, 5), "fd00::5".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_claim_gives_its_ports_back() {
        let ports = Arc::new(Ports { range: 30000..=30001, state: Mutex::default() });
        let claim = || PortClaim { ports: ports.clone(), held: Vec::new(), dry_run: false };
        let mut one = claim();
        one.take(30000).unwrap();
        assert_eq!(one.take(30000), Err(Taken::Port));
        assert_eq!(one.take(80), Err(Taken::PortOutside("30000-30001".into())));
        assert_eq!(claim().take_any(), Ok(30001));
        let mut all = claim();
        all.take_any().unwrap();
        assert_eq!(all.take_any(), Err(Taken::Full));
        drop((one, all));
        claim().take(30000).unwrap();
    }

    #[test]
    fn a_trial_takes_nothing() {
        let ports = Arc::new(Ports { range: 30000..=30001, state: Mutex::default() });
        let claim = |dry_run| PortClaim { ports: ports.clone(), held: Vec::new(), dry_run };
        let mut trial = claim(true);
        trial.take(30000).unwrap();
        assert_eq!(trial.take(30000), Err(Taken::Port));
        trial.take(80).unwrap();
        assert_eq!(claim(true).take_any(), Ok(TRIED_PORT));
        assert_eq!(trial.take_any(), Ok(30001));
        let mut real = claim(false);
        real.take(30000).unwrap();
        assert_eq!(claim(true).take(30000), Err(Taken::Port));
    }
}
