//! An address of the node's own that is on no wire: the cluster DNS address, for instance.

use std::io;
use std::net::IpAddr;

use crate::netlink::{Netlink, Request};

/// An address on the loopback interface, so that the node answers for it and routing stays as it is.
///
/// It is not taken away on drop: open connections of pods would break at every restart of the process. Whoever cleans a
/// node up calls [`LocalAddress::remove`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalAddress {
    ip: IpAddr,
}

impl LocalAddress {
    /// Adds `ip` to the loopback interface, which is brought up. Idempotent.
    pub fn add(ip: IpAddr) -> io::Result<Self> {
        let mut netlink = Netlink::open()?;
        let index = loopback(&mut netlink)?;
        netlink.apply(vec![Request::up(index), Request::address(index, ip, host_prefix(ip))])?;
        Ok(Self { ip })
    }

    /// The address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Takes it away. Idempotent.
    pub fn remove(self) -> io::Result<()> {
        let mut netlink = Netlink::open()?;
        let index = loopback(&mut netlink)?;
        netlink.apply(vec![Request::delete_address(index, self.ip, host_prefix(self.ip))])
    }
}

/// All addresses of the node's interfaces.
pub fn node_addresses() -> io::Result<Vec<IpAddr>> {
    Netlink::open()?.addresses(None)
}

/// Brings up the loopback interface of the calling thread's namespace.
pub fn loopback_up() -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let index = loopback(&mut netlink)?;
    netlink.apply(vec![Request::up(index)])
}

fn loopback(netlink: &mut Netlink) -> io::Result<u32> {
    Ok(netlink.link("lo")?.map_or(1, |link| link.index))
}

/// The prefix length that means one address.
#[must_use]
pub(crate) fn host_prefix(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}
