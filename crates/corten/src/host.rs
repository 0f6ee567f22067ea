//! What the machine tells about itself: its name, its address, whether we may manage it.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, bail};

/// Fails unless the process may create namespaces, mounts and cgroups.
pub fn require_root(command: &str) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "`corten {command}` has to run as root, since it creates namespaces, mounts and cgroups: try `sudo corten {command}`"
        );
    }
    Ok(())
}

/// The node's name: the host name in lower case, which is what upstream's kubelet takes.
pub fn node_name() -> anyhow::Result<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase();
    if name.is_empty() {
        bail!("the machine has no host name: give --node-name");
    }
    Ok(name)
}

/// The address other nodes and pods reach this machine at: the one on the interface of the default route, else the first
/// one that is neither loopback nor link-local.
pub fn node_ip() -> anyhow::Result<IpAddr> {
    let preferred = default_route_interface(&std::fs::read_to_string("/proc/net/route").unwrap_or_default());
    let addresses = nix::ifaddrs::getifaddrs().context("list the machine's addresses")?;
    let candidates: Vec<(String, Ipv4Addr)> = addresses
        .filter_map(|a| Some((a.interface_name, a.address?.as_sockaddr_in()?.ip())))
        .filter(|(name, ip)| !ip.is_loopback() && !ip.is_link_local() && !name.starts_with("corten"))
        .collect();
    let on_default = candidates.iter().find(|(name, _)| Some(name) == preferred.as_ref());
    match on_default.or(candidates.first()) {
        Some((_, ip)) => Ok(IpAddr::V4(*ip)),
        None => bail!("the machine has no address but loopback: give --node-ip"),
    }
}

/// The interface of the default route in `/proc/net/route`: destination and mask are zero.
fn default_route_interface(table: &str) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns.get(1) == Some(&"00000000") && columns.get(7) == Some(&"00000000")).then(|| columns[0].to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_names_the_interface() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                     eth1\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                     eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(default_route_interface(table).as_deref(), Some("eth0"));
        assert_eq!(default_route_interface("Iface\n"), None);
    }
}
