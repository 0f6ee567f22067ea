//! The pod network of one node: it gives a sandbox its addresses and interface, and takes them back.
//! Services are unknown here.

#![forbid(unsafe_code)]

mod bridge;
pub mod conntrack;
mod leases;
pub mod local;
pub mod netlink;
pub mod netns;
pub mod nft;
mod rules;

pub use bridge::{Bridge, Config};
pub use local::LocalAddress;

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;

/// A future a trait object can return.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, NetworkError>> + Send + 'a>>;

/// Attaches sandboxes to the pod network. The built-in one is a bridge with addresses from the node's pod range; CNI
/// plugins fit the same seam.
pub trait PodNetwork: Send + Sync + 'static {
    /// Gives the sandbox in network namespace `netns` its loopback, interface, addresses, routes and host ports.
    /// Idempotent for one `sandbox` id: a second call returns the same addresses.
    fn attach<'a>(&'a self, sandbox: &'a str, netns: &'a Path, ports: &'a [HostPort]) -> Answer<'a, Attachment>;
    /// Takes everything back. Idempotent, also when the namespace is already gone.
    fn detach<'a>(&'a self, sandbox: &'a str, netns: Option<&'a Path>) -> Answer<'a, ()>;
    /// Releases what sandboxes not in `live` still hold from an earlier process. A sandbox attached since this one started
    /// keeps what it has, for `live` may have been looked up before.
    fn reconcile<'a>(&'a self, live: &'a [String]) -> Answer<'a, ()>;
}

/// A port of the node that leads to a port of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostPort {
    /// Address on the node; unspecified means all.
    pub host_ip: Option<IpAddr>,
    /// Port on the node.
    pub host_port: u16,
    /// Port in the sandbox.
    pub container_port: u16,
    /// Transport.
    pub protocol: Protocol,
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// What a sandbox got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Addresses, the primary family first.
    pub ips: Vec<IpAddr>,
}

/// Why the network could not do it.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The node's pod range has no address left.
    #[error("no address left in {range}")]
    Exhausted {
        /// The range.
        range: String,
    },
    /// The system refused.
    #[error("{doing}")]
    System {
        /// What was done, to what.
        doing: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync + 'static>,
    },
}
