//! Cluster DNS in process: answers for Services and pods from the informers' caches, everything else from the node's
//! resolvers.
//!
//! `answer` is the Kubernetes DNS specification 1.1 as a pure function; `records` reads the caches for it; `server` speaks
//! UDP and TCP; `forward` asks upstream. The message format is `hickory-proto`'s. Its server framework is not used: an
//! upstream's answer passes through as it came, and half of a server would have to be replaced for that.

#![forbid(unsafe_code)]

mod answer;
mod forward;
mod records;
mod resolv;
mod server;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use corten_client::Informers;
use corten_network::LocalAddress;
use corten_task::Tasks;
use hickory_proto::rr::Name;
use ipnet::IpNet;

pub use answer::{Answer, Records, Zone, answer};

/// What the server is to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to answer, over UDP and TCP: the cluster DNS address, port 53.
    pub listen: Vec<SocketAddr>,
    /// Whether to give the node the addresses of `listen` first.
    pub claim: bool,
    /// The cluster domain.
    pub domain: String,
    /// The pod and Service ranges: a reverse question about one of their addresses is never asked upstream.
    pub ranges: Vec<IpNet>,
    /// Where other names are asked for.
    pub upstream: Upstream,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([10, 43, 0, 10], 53))],
            claim: true,
            domain: "cluster.local".to_owned(),
            ranges: Vec::new(),
            upstream: Upstream::File(PathBuf::from("/etc/resolv.conf")),
        }
    }
}

/// Who is asked for names outside of the cluster.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// The name servers of a resolv.conf, read again when it changes.
    File(PathBuf),
    /// These.
    Servers(Vec<SocketAddr>),
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The domain is not a name.
    #[error("{domain:?} is not a domain name")]
    Domain {
        /// The domain.
        domain: String,
    },
    /// The node could not be given the address.
    #[error("give the node the DNS address {address}")]
    Claim {
        /// The address.
        address: std::net::IpAddr,
        /// The cause.
        source: io::Error,
    },
    /// The address is taken, or not the node's.
    #[error("listen for DNS at {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
}

/// A running server.
#[derive(Clone, Debug)]
pub struct Dns {
    listen: Vec<SocketAddr>,
}

impl Dns {
    /// Binds and serves. Names of the cluster are answered with SERVFAIL until the caches are complete: a wrong "no such
    /// name" would be remembered.
    ///
    /// # Errors
    /// When an address cannot be claimed or bound.
    pub async fn start(config: Config, informers: &Informers, tasks: &Tasks) -> Result<Self, StartError> {
        let domain = Name::from_ascii(&config.domain).map(|mut name| {
            name.set_fqdn(true);
            name.to_lowercase()
        });
        let domain = domain.map_err(|_| StartError::Domain { domain: config.domain.clone() })?;
        if config.claim {
            for address in config.listen.iter().map(SocketAddr::ip) {
                LocalAddress::add(address).map_err(|source| StartError::Claim { address, source })?;
            }
        }
        let zone = Zone { domain, ranges: config.ranges, servers: config.listen.iter().map(SocketAddr::ip).collect() };
        let forwarder = forward::Forwarder::new(config.upstream, &config.listen);
        let listen = server::start(&config.listen, zone, records::Cached::new(informers), forwarder, &tasks.child("dns")).await?;
        Ok(Self { listen })
    }

    /// Where it listens; the ports are known now, also if they were asked for as 0.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.listen
    }
}
