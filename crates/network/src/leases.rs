//! Which sandbox holds which addresses.
//!
//! A lease is one file, written under a temporary name and renamed, so that a crash leaves it whole or absent. Nothing
//! is synced: a lease has to survive the process, not the machine, for the namespaces it speaks of do not survive that
//! either. Addresses go round: the search starts behind the last one given out, so that an address rests as long as
//! possible before its next owner gets it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::HostPort;

/// What one sandbox holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its addresses, one for each range.
    pub addresses: Vec<IpAddr>,
    /// The ports of the node that lead to it.
    #[serde(default)]
    pub ports: Vec<HostPort>,
}

/// All leases of the node.
pub struct Leases {
    directory: PathBuf,
    ranges: Vec<IpNet>,
    last: Vec<Option<IpAddr>>,
    held: HashMap<IpAddr, String>,
    leases: BTreeMap<String, Lease>,
    /// Leases of an earlier process that nobody has asked for since.
    inherited: BTreeSet<String>,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Every address is taken.
    #[error("no address left in {range}")]
    Exhausted {
        /// The range.
        range: IpNet,
    },
    /// A file could not be read or written.
    #[error("lease file {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl Leases {
    /// Reads what an earlier process left in `directory`. Leases outside of `ranges` are kept: their pods still use them.
    pub fn open(directory: &Path, ranges: &[IpNet]) -> Result<Self, LeaseError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| LeaseError::File { path, source }
        };
        std::fs::create_dir_all(directory).map_err(at(directory))?;
        let mut this = Self {
            directory: directory.to_owned(),
            ranges: ranges.to_vec(),
            last: vec![None; ranges.len()],
            held: HashMap::new(),
            leases: BTreeMap::new(),
            inherited: BTreeSet::new(),
        };
        for entry in std::fs::read_dir(directory).map_err(at(directory))? {
            let path = entry.map_err(at(directory))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            match name.strip_suffix(".lease") {
                Some(sandbox) => {
                    let text = std::fs::read(&path).map_err(at(&path))?;
                    match serde_json::from_slice::<Lease>(&text) {
                        Ok(lease) => this.remember(sandbox, lease),
                        // Only a machine that lost power leaves such a file, and its sandboxes are gone.
                        Err(error) => tracing::warn!(path = %path.display(), %error, "dropping an unreadable lease"),
                    }
                }
                None if name == "last" => {
                    let text = std::fs::read_to_string(&path).map_err(at(&path))?;
                    for ip in text.lines().filter_map(|line| line.parse::<IpAddr>().ok()) {
                        if let Some(position) = ranges.iter().position(|range| range.contains(&ip)) {
                            this.last[position] = Some(ip);
                        }
                    }
                }
                None => {}
            }
        }
        this.inherited = this.leases.keys().cloned().collect();
        Ok(this)
    }

    /// The lease of `sandbox`, made if there is none, with these ports.
    pub fn acquire(&mut self, sandbox: &str, ports: &[HostPort]) -> Result<Lease, LeaseError> {
        self.inherited.remove(sandbox);
        if let Some(lease) = self.leases.get(sandbox) {
            if lease.ports == ports {
                return Ok(lease.clone());
            }
            let lease = Lease { addresses: lease.addresses.clone(), ports: ports.to_vec() };
            self.write(&format!("{sandbox}.lease"), &encode(&lease))?;
            self.leases.insert(sandbox.to_owned(), lease.clone());
            return Ok(lease);
        }
        let mut addresses = Vec::with_capacity(self.ranges.len());
        for (range, last) in self.ranges.iter().zip(&self.last) {
            let ip = next_free(range, *last, |ip| self.held.contains_key(&ip));
            addresses.push(ip.ok_or(LeaseError::Exhausted { range: *range })?);
        }
        let lease = Lease { addresses, ports: ports.to_vec() };
        self.write(&format!("{sandbox}.lease"), &encode(&lease))?;
        self.last = lease.addresses.iter().copied().map(Some).collect();
        let last: String = lease.addresses.iter().map(|ip| format!("{ip}\n")).collect();
        self.write("last", last.as_bytes())?;
        self.remember(sandbox, lease.clone());
        Ok(lease)
    }

    /// The lease of `sandbox`.
    #[must_use]
    pub fn get(&self, sandbox: &str) -> Option<&Lease> {
        self.leases.get(sandbox)
    }

    /// The sandboxes whose leases an earlier process left and nobody has asked for since.
    pub fn inherited(&self) -> impl Iterator<Item = &str> {
        self.inherited.iter().map(String::as_str)
    }

    /// Gives the addresses back.
    pub fn release(&mut self, sandbox: &str) -> Result<Option<Lease>, LeaseError> {
        let Some(lease) = self.leases.get(sandbox) else { return Ok(None) };
        let path = self.directory.join(format!("{sandbox}.lease"));
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(LeaseError::File { path, source }),
        }
        for ip in &lease.addresses {
            self.held.remove(ip);
        }
        self.inherited.remove(sandbox);
        Ok(self.leases.remove(sandbox))
    }

    /// Every lease, by sandbox.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Lease)> {
        self.leases.iter().map(|(sandbox, lease)| (sandbox.as_str(), lease))
    }

    fn remember(&mut self, sandbox: &str, lease: Lease) {
        for ip in &lease.addresses {
            self.held.insert(*ip, sandbox.to_owned());
        }
        self.leases.insert(sandbox.to_owned(), lease);
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), LeaseError> {
        let path = self.directory.join(name);
        let temporary = self.directory.join(format!(".{name}.tmp"));
        std::fs::write(&temporary, bytes)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|source| LeaseError::File { path, source })
    }
}

/// The node's own address in a range: the first usable one.
#[must_use]
pub fn gateway(range: &IpNet) -> IpAddr {
    at(range, 1)
}

fn encode(lease: &Lease) -> Vec<u8> {
    serde_json::to_vec(lease).expect("a lease has string keys only")
}

/// The first address behind `last`, going round, that nobody holds. The network's own address, the gateway's, and in
/// IPv4 the broadcast address are never given out.
fn next_free(range: &IpNet, last: Option<IpAddr>, held: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let bits = range.max_prefix_len() - range.prefix_len();
    let size = 1u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX);
    let end = if range.addr().is_ipv4() { size.saturating_sub(1) } else { size };
    let first = 2u128;
    if end <= first {
        return None;
    }
    let start = last.map_or(first, |ip| offset(range, ip).saturating_add(1)).clamp(first, end);
    (start..end).chain(first..start.min(end)).map(|offset| at(range, offset)).find(|ip| !held(*ip))
}

fn at(range: &IpNet, offset: u128) -> IpAddr {
    match range.network() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip).wrapping_add(offset as u32)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip).wrapping_add(offset)).into()),
    }
}

fn offset(range: &IpNet, ip: IpAddr) -> u128 {
    match (range.network(), ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => u128::from(u32::from(ip).wrapping_sub(u32::from(network))),
        (IpAddr::V6(network), IpAddr::V6(ip)) => u128::from(ip).wrapping_sub(u128::from(network)),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn addresses_go_round() {
        //    range           last          held            expected
        check("10.0.0.0/29",  None,         &[],            Some("10.0.0.2")); // .0 is the network, .1 the gateway
        check("10.0.0.0/29",  Some("10.0.0.2"), &[],        Some("10.0.0.3")); // .2 rests, though it is free
        check("10.0.0.0/29",  Some("10.0.0.6"), &[],        Some("10.0.0.2")); // .7 is the broadcast address
        check("10.0.0.0/29",  Some("10.0.0.6"), &["10.0.0.2"], Some("10.0.0.3"));
        check("10.0.0.0/30",  Some("10.0.0.2"), &["10.0.0.2"], None);
        check("10.0.0.0/31",  None,         &[],            None);
        check("fd00::/64",    None,         &[],            Some("fd00::2"));
        check("fd00::/64",    Some("fd00::ff"), &["fd00::100"], Some("fd00::101"));
        #[track_caller]
        fn check(range: &str, last: Option<&str>, held: &[&str], expected: Option<&str>) {
            let parse = |text: &str| text.parse::<IpAddr>().unwrap();
            let held: Vec<IpAddr> = held.iter().map(|ip| parse(ip)).collect();
            let got = next_free(&range.parse().unwrap(), last.map(parse), |ip| held.contains(&ip));
            assert_eq!(got, expected.map(parse));
        }
    }

    #[test]
    fn leases_survive_the_process_and_half_written_files() {
        let directory = tempfile::tempdir().unwrap();
        let ranges = ["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let mut leases = Leases::open(directory.path(), &ranges).unwrap();
        let a = leases.acquire("a", &[]).unwrap();
        let b = leases.acquire("b", &[]).unwrap();
        assert_ne!(a, b);
        assert_eq!(leases.acquire("a", &[]).unwrap(), a);
        leases.release("b").unwrap();
        std::fs::write(directory.path().join(".c.lease.tmp"), b"{\"addr").unwrap();
        std::fs::write(directory.path().join("d.lease"), b"").unwrap();

        let mut again = Leases::open(directory.path(), &ranges).unwrap();
        assert_eq!(again.get("a"), Some(&a));
        assert_eq!(again.iter().count(), 1);
        let c = again.acquire("c", &[]).unwrap();
        assert!(!b.addresses.iter().any(|ip| c.addresses.contains(ip)), "a released address rests");
    }

    #[test]
    fn a_full_range_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let mut leases = Leases::open(directory.path(), &["10.0.0.0/30".parse().unwrap()]).unwrap();
        leases.acquire("a", &[]).unwrap();
        assert_eq!(leases.acquire("b", &[]).unwrap_err().to_string(), "no address left in 10.0.0.0/30");
    }
}
