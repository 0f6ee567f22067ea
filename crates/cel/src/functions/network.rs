//! Addresses and networks. As upstream, addresses of one family in the form of the other, and zones, are refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Call, url};
use crate::value::{EvalError, Value};

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Call<'a> {
    use Value::{Bool, Cidr, Int, Ip, String};
    Some(Ok(match (function, args) {
        ("ip", [String(text)]) => return Some(parse_ip(text).map(Ip)),
        ("isIP", [String(text)]) => Bool(parse_ip(text).is_ok()),
        ("ip.isCanonical", [String(text)]) => return Some(parse_ip(text).map(|ip| Bool(ip.to_string() == **text))),
        ("family", [Ip(ip)]) => Int(if ip.is_ipv4() { 4 } else { 6 }),
        ("isUnspecified", [Ip(ip)]) => Bool(ip.is_unspecified()),
        ("isLoopback", [Ip(ip)]) => Bool(ip.is_loopback()),
        ("isLinkLocalMulticast", [Ip(ip)]) => Bool(match ip {
            IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
            IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
        }),
        ("isLinkLocalUnicast", [Ip(ip)]) => Bool(is_link_local(ip)),
        ("isGlobalUnicast", [Ip(ip)]) => Bool(
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip))
                && *ip != IpAddr::V4(Ipv4Addr::BROADCAST),
        ),
        ("cidr", [String(text)]) => return Some(parse_cidr(text).map(|(ip, length)| Cidr(ip, length))),
        ("isCIDR", [String(text)]) => Bool(parse_cidr(text).is_ok()),
        ("ip", [Cidr(ip, _)]) => Ip(*ip),
        ("prefixLength", [Cidr(_, length)]) => Int(i64::from(*length)),
        ("masked", [Cidr(ip, length)]) => Cidr(masked(*ip, *length), *length),
        ("containsIP", [Cidr(ip, length), Ip(other)]) => Bool(contains(*ip, *length, *other)),
        ("containsIP", [Cidr(ip, length), String(text)]) => {
            return Some(parse_ip(text).map(|other| Bool(contains(*ip, *length, other))));
        }
        ("containsCIDR", [Cidr(ip, length), Cidr(other, other_length)]) => {
            Bool(other_length >= length && contains(*ip, *length, *other))
        }
        ("containsCIDR", [Cidr(ip, length), String(text)]) => {
            let parsed = parse_cidr(text);
            return Some(parsed.map(|(other, other_length)| Bool(other_length >= *length && contains(*ip, *length, other))));
        }
        _ => return url::call(function, args),
    }))
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, EvalError> {
    let ip: IpAddr =
        text.parse().map_err(|_| EvalError::failed(format!("IP Address {text:?} parse error during conversion from string")))?;
    match ip {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            Err(EvalError::failed(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        ip => Ok(ip),
    }
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), EvalError> {
    let failed = || EvalError::failed(format!("network address parse error during conversion from string: {text:?}"));
    let (address, length) = text.split_once('/').ok_or_else(failed)?;
    let ip = parse_ip(address).map_err(|_| failed())?;
    let digits = length.bytes().all(|byte| byte.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let length = length.parse().ok().filter(|length| digits && *length <= most).ok_or_else(failed)?;
    Ok((ip, length))
}

fn masked(ip: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & u32::MAX.checked_shl(32 - length).unwrap_or(0)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & u128::MAX.checked_shl(128 - length).unwrap_or(0)).into(),
    }
}

fn contains(network: IpAddr, length: u8, ip: IpAddr) -> bool {
    network.is_ipv4() == ip.is_ipv4() && masked(network, length) == masked(ip, length)
}
