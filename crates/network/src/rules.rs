//! The node's own nftables table: masquerade of what leaves the cluster, host ports, forwarding. Text only; [`crate::nft`]
//! applies it.
//!
//! Pods hold a host route (/32, /128) and reach each other through the node, never directly over the bridge. So every
//! packet meets these rules and the Service rules, in both directions, without the `br_netfilter` module.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::leases::Lease;
use crate::{HostPort, Protocol};

/// The table's family and name.
pub const TABLE: &str = "inet corten-network";

/// What the table depends on.
pub struct Rules<'a> {
    /// Interface name of the bridge.
    pub bridge: &'a str,
    /// The node's pod ranges.
    pub ranges: &'a [IpNet],
    /// Where pod addresses are left as they are: the cluster's pod ranges.
    pub cluster: &'a [IpNet],
    /// Whether pod traffic to the outside takes the node's address.
    pub masquerade: bool,
}

/// The script that replaces the whole table in one transaction.
#[must_use]
pub fn table<'a>(rules: &Rules<'_>, leases: impl Iterator<Item = &'a Lease>) -> String {
    let bridge = rules.bridge;
    let mut script = format!("table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
    script.push_str(
        "  map host-ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map host-ports-ip { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  map host-ports6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
  map host-ports6-ip { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
  set hairpin { type ipv4_addr . ipv4_addr; }
  set hairpin6 { type ipv6_addr . ipv6_addr; }
  chain host-ports {
    meta l4proto { tcp, udp, sctp } dnat ip to ip daddr . meta l4proto . th dport map @host-ports-ip
    meta l4proto { tcp, udp, sctp } dnat ip6 to ip6 daddr . meta l4proto . th dport map @host-ports6-ip
    meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . th dport map @host-ports
    meta l4proto { tcp, udp, sctp } dnat ip6 to meta l4proto . th dport map @host-ports6
  }
  chain prerouting {
    type nat hook prerouting priority dstnat - 5; policy accept;
    fib daddr type local jump host-ports
  }
  chain output {
    type nat hook output priority -105; policy accept;
    fib daddr type local jump host-ports
  }\n",
    );
    // Local traffic to a host port of 127.0.0.1 needs `route_localnet` on the bridge; the guard chain makes sure that no
    // pod gains access to the node's loopback by it (CVE-2020-8558).
    let _ = write!(
        script,
        "  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname \"{bridge}\" accept
    oifname \"{bridge}\" accept
  }}
  chain redirects {{
    type filter hook output priority filter; policy accept;
    oifname \"{bridge}\" icmpv6 type nd-redirect drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat - 5; policy accept;
    oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade
    ct status dnat ip saddr . ip daddr @hairpin masquerade
    ct status dnat ip6 saddr . ip6 daddr @hairpin6 masquerade\n"
    );
    if rules.masquerade {
        for range in rules.ranges {
            let (family, multicast) = if range.addr().is_ipv4() { ("ip", "224.0.0.0/4") } else { ("ip6", "ff00::/8") };
            let inside: BTreeSet<String> = rules
                .cluster
                .iter()
                .chain([range])
                .filter(|other| other.addr().is_ipv4() == range.addr().is_ipv4())
                .map(|other| other.trunc())
                // nft refuses overlapping intervals; the node's range lies in the cluster's as a rule.
                .filter(|other| !rules.cluster.iter().any(|c| c.trunc() != *other && c.contains(other)))
                .map(|other| other.to_string())
                .collect();
            let inside = inside.into_iter().collect::<Vec<_>>().join(", ");
            let _ = writeln!(
                script,
                "    oifname != \"{bridge}\" {family} saddr {} {family} daddr != {{ {inside}, {multicast} }} masquerade fully-random",
                range.trunc()
            );
        }
    }
    script.push_str("  }\n}\n");
    for lease in leases {
        script.push_str(&add(lease));
    }
    script
}

/// The script that opens the host ports of a lease; empty if it has none.
#[must_use]
pub fn add(lease: &Lease) -> String {
    let mut script = String::new();
    for (map, key, value) in elements(lease) {
        let _ = match value {
            Some(value) => writeln!(script, "add element {TABLE} {map} {{ {key} : {value} }}"),
            None => writeln!(script, "add element {TABLE} {map} {{ {key} }}"),
        };
    }
    script
}

/// The script that closes the host ports of a lease. It adds them first, for deleting what is not there is an error.
#[must_use]
pub fn delete(lease: &Lease) -> String {
    let mut script = add(lease);
    for (map, key, _) in elements(lease) {
        let _ = writeln!(script, "delete element {TABLE} {map} {{ {key} }}");
    }
    script
}

fn elements(lease: &Lease) -> Vec<(&'static str, String, Option<String>)> {
    let mut elements = BTreeSet::new();
    for HostPort { host_ip, host_port, container_port, protocol } in &lease.ports {
        let protocol = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        for ip in &lease.addresses {
            let host_ip = host_ip.filter(|host| !host.is_unspecified());
            if host_ip.is_some_and(|host| host.is_ipv4() != ip.is_ipv4()) {
                continue;
            }
            let map = match (ip, host_ip) {
                (IpAddr::V4(_), None) => "host-ports",
                (IpAddr::V4(_), Some(_)) => "host-ports-ip",
                (IpAddr::V6(_), None) => "host-ports6",
                (IpAddr::V6(_), Some(_)) => "host-ports6-ip",
            };
            let key = match host_ip {
                None => format!("{protocol} . {host_port}"),
                Some(host) => format!("{host} . {protocol} . {host_port}"),
            };
            elements.insert((map, key, Some(format!("{ip} . {container_port}"))));
            let hairpin = if ip.is_ipv4() { "hairpin" } else { "hairpin6" };
            elements.insert((hairpin, format!("{ip} . {ip}"), None));
        }
    }
    elements.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_become_elements_of_their_family() {
        let port = |host_ip: Option<&str>, host_port| HostPort {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port,
            container_port: 80,
            protocol: Protocol::Tcp,
        };
        let lease = Lease {
            addresses: vec!["10.42.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            ports: vec![port(None, 8080), port(Some("192.0.2.1"), 8081), port(Some("0.0.0.0"), 8082)],
        };
        let added = add(&lease);
        for line in [
            "add element inet corten-network host-ports { tcp . 8080 : 10.42.0.5 . 80 }",
            "add element inet corten-network host-ports6 { tcp . 8080 : fd00::5 . 80 }",
            "add element inet corten-network host-ports-ip { 192.0.2.1 . tcp . 8081 : 10.42.0.5 . 80 }",
            "add element inet corten-network host-ports { tcp . 8082 : 10.42.0.5 . 80 }",
            "add element inet corten-network hairpin { 10.42.0.5 . 10.42.0.5 }",
        ] {
            assert!(added.lines().any(|have| have == line), "{line}\nis missing in\n{added}");
        }
        assert!(!added.contains("host-ports6-ip"));
        assert_eq!(add(&Lease { ports: Vec::new(), ..lease }), "");
    }
}
