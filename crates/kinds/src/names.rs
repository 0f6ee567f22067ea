//! The rules for names of the vocabulary crate, and the few more that only kinds need.

use std::net::{IpAddr, Ipv4Addr};

pub(crate) use corten_api::names::{
    config_map_key, dns1035_label, dns1123_label as dns_label, dns1123_subdomain as dns_subdomain,
    dns1123_subdomain_with_underscore as dns_subdomain_with_underscore, http_header_name, label_value, name_is_label,
    name_is_path_segment, name_is_subdomain, port_name, qualified_name, relaxed_env_var_name as env_var_name,
    wildcard_dns1123_subdomain as wildcard_dns_subdomain,
};

/// An address as Go's older parser took it: IPv4 numbers may have leading zeros, an IPv4-mapped IPv6 address is an IPv4 one.
pub(crate) fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.to_canonical());
    }
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))?;
        *octet = part.parse::<u32>().ok().and_then(|n| u8::try_from(n).ok())?;
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// A CIDR: the address as written, and the prefix length.
pub(crate) fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let ip = parse_ip(address)?;
    let length = Some(length).filter(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_digit()))?;
    let length: u8 = length.parse().ok()?;
    (length <= if address.contains(':') { 128 } else { 32 }).then_some((ip, length))
}

/// What is wrong with the text of an IP address, read strictly.
pub(crate) fn ip_faults(text: &str) -> Vec<&'static str> {
    if parse_ip(text).is_none() {
        return vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"];
    }
    match text.parse::<IpAddr>() {
        Err(_) => vec!["must not have leading 0s"],
        Ok(ip) if is_mapped(ip) => vec!["must not be an IPv4-mapped IPv6 address"],
        Ok(_) => Vec::new(),
    }
}

/// What is wrong with the text of a CIDR, read strictly.
pub(crate) fn cidr_fault(text: &str) -> Option<&'static str> {
    let Some((_, length)) = parse_cidr(text) else {
        return Some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    };
    let (address, prefix) = text.split_once('/')?;
    let Ok(ip) = address.parse::<IpAddr>() else { return Some("must not have leading 0s in IP or prefix length") };
    if prefix.len() > 1 && prefix.starts_with('0') {
        return Some("must not have leading 0s in IP or prefix length");
    }
    if is_mapped(ip) {
        return Some("must not have an IPv4-mapped IPv6 address");
    }
    let network = ipnet::IpNet::new(ip, length).ok()?;
    (network.network() != ip).then_some("must not have bits set beyond the prefix length")
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// A name checked as a prefix may end with a dash: what is checked then stands for a longer name.
pub(crate) fn mask_trailing_dash(name: &str) -> String {
    match name.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut kept: String = rest.to_owned();
            kept.pop();
            kept.push('a');
            kept
        }
        _ => name.to_owned(),
    }
}

/// Whether the text is a 32-bit number as the pod deletion cost is written: no leading zeros, no plus sign.
pub(crate) fn is_deletion_cost(text: &str) -> bool {
    let fits = text == "0" || text.strip_prefix('-').unwrap_or(text).starts_with(|c: char| ('1'..='9').contains(&c));
    fits && text.parse::<i32>().is_ok()
}

/// `example.com/name`: a domain and a path.
pub(crate) fn domain_prefixed_path(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["must not be empty".into()];
    }
    let Some((domain, path)) = value.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty()) else {
        return vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".into()];
    };
    let mut wrong: Vec<String> = dns_subdomain(domain).into_iter().map(|message| format!("prefix part {message}")).collect();
    let fits = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    if !path.chars().all(fits) {
        wrong.push(corten_api::names::regex_fault(
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
            "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+",
            &[],
        ));
    }
    wrong
}

/// The reason of a condition.
pub(crate) fn condition_reason(reason: &str) -> Vec<String> {
    let edge = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let fits = reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.ends_with(edge)
        && reason.chars().all(|c| edge(c) || matches!(c, ',' | ':'));
    if fits {
        return Vec::new();
    }
    vec![corten_api::names::regex_fault(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', \
         and must end with an alphanumeric character or '_'",
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
    )]
}

/// A name of at least three segments, as webhooks have.
pub(crate) fn fully_qualified(name: &str) -> Vec<String> {
    if name.is_empty() {
        return Vec::new();
    }
    let wrong = dns_subdomain(name);
    if !wrong.is_empty() {
        return wrong;
    }
    if name.split('.').count() < 3 {
        return vec!["should be a domain with at least three segments separated by dots".into()];
    }
    Vec::new()
}
