//! What the reference warns of in addresses and CIDRs that it accepts although other parsers may read them differently.

use std::net::IpAddr;

use crate::names;

/// The warning for an IP address, if it deserves one (`GetWarningsForIP`).
pub(crate) fn ip_warning(path: &str, value: &str) -> Option<String> {
    let ip = names::parse_ip(value)?;
    if !names::ip_faults(value).is_empty() {
        return Some(format!("{path}: non-standard IP address \"{value}\" is invalid: use \"{ip}\""));
    }
    let canonical = ip.to_string();
    (ip.is_ipv6() && canonical != value)
        .then(|| format!("{path}: IPv6 address \"{value}\" should be in RFC 5952 canonical format (\"{canonical}\")"))
}

/// The warnings for a CIDR (`GetWarningsForCIDR`).
pub(crate) fn cidr_warnings(path: &str, value: &str) -> Vec<String> {
    let Some((ip, length)) = names::parse_cidr(value) else { return Vec::new() };
    let mapped = ip.is_ipv4() && value.contains(':');
    // Go keeps the 128-bit mask of a mapped address, but prints the network in its IPv4 form when it covers one.
    let length = if mapped { length.saturating_sub(96) } else { length };
    let network = ipnet::IpNet::new(ip, length).map_or(ip, |net| net.network());
    let mut warnings = Vec::new();
    if network != ip {
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        warnings.push(format!(
            "{path}: CIDR value \"{value}\" is ambiguous in this context (should be \"{network}/{length}\" or \"{ip}/{whole}\"?)"
        ));
    }
    let zeros =
        |(address, prefix): (&str, &str)| address.parse::<IpAddr>().is_err() || (prefix.len() > 1 && prefix.starts_with('0'));
    if mapped || value.split_once('/').is_some_and(zeros) {
        warnings.push(format!("{path}: non-standard CIDR value \"{value}\" is invalid: use \"{network}/{length}\""));
    }
    let canonical = format!("{network}/{length}");
    if warnings.is_empty() && matches!(ip, IpAddr::V6(_)) && canonical != value {
        warnings.push(format!("{path}: IPv6 CIDR value \"{value}\" should be in RFC 5952 canonical format (\"{canonical}\")"));
    }
    warnings
}

/// The warnings for a list of addresses, each at its index.
pub(crate) fn ip_list_warnings<'a>(path: &str, values: impl Iterator<Item = &'a str>) -> Vec<String> {
    values.enumerate().filter_map(|(i, value)| ip_warning(&format!("{path}[{i}]"), value)).collect()
}

/// The warnings for a list of CIDRs, each at its index.
pub(crate) fn cidr_list_warnings<'a>(path: &str, values: impl Iterator<Item = &'a str>) -> Vec<String> {
    values.enumerate().flat_map(|(i, value)| cidr_warnings(&format!("{path}[{i}]"), value)).collect()
}

#[cfg(test)]
mod tests {
    use corten_api::field::{Faults, Path};

    use super::*;
    use crate::check;

    #[test]
    fn addresses_other_parsers_read_differently() {
        let cases = [
            ("10.0.0.1", None, None),
            ("2001:db8::1", None, None),
            (
                "2001:DB8:0::1",
                None,
                Some(r#"f: IPv6 address "2001:DB8:0::1" should be in RFC 5952 canonical format ("2001:db8::1")"#),
            ),
            (
                "010.0.0.1",
                Some("must not have leading 0s"),
                Some(r#"f: non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1""#),
            ),
            (
                "::ffff:1.2.3.4",
                Some("must not be an IPv4-mapped IPv6 address"),
                Some(r#"f: non-standard IP address "::ffff:1.2.3.4" is invalid: use "1.2.3.4""#),
            ),
            ("300.0.0.1", Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"), None),
        ];
        for (value, fault, warning) in cases {
            let mut faults = Faults::default();
            check::ip(&mut faults, &Path::new("f"), value);
            let messages: Vec<_> = faults.0.iter().map(|f| f.message.clone()).collect();
            let expected: Vec<_> = fault.iter().map(|f| format!("Invalid value: \"{value}\": {f}")).collect();
            assert_eq!(messages, expected, "{value}");
            assert_eq!(ip_warning("f", value).as_deref(), warning, "{value}");
        }
    }

    #[test]
    fn cidrs_other_parsers_read_differently() {
        let cases: [(&str, Option<&str>, &[&str]); 6] = [
            ("10.0.0.0/8", None, &[]),
            ("2001:db8::/64", None, &[]),
            (
                "10.0.0.1/8",
                Some("must not have bits set beyond the prefix length"),
                &[r#"f: CIDR value "10.0.0.1/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.0.0.1/32"?)"#],
            ),
            (
                "10.0.0.0/08",
                Some("must not have leading 0s in IP or prefix length"),
                &[r#"f: non-standard CIDR value "10.0.0.0/08" is invalid: use "10.0.0.0/8""#],
            ),
            ("10.0.0.0/33", Some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"), &[]),
            (
                "2001:DB8::/64",
                None,
                &[r#"f: IPv6 CIDR value "2001:DB8::/64" should be in RFC 5952 canonical format ("2001:db8::/64")"#],
            ),
        ];
        for (value, fault, warnings) in cases {
            let mut faults = Faults::default();
            check::cidr(&mut faults, &Path::new("f"), value);
            let messages: Vec<_> = faults.0.iter().map(|f| f.message.clone()).collect();
            let expected: Vec<_> = fault.iter().map(|f| format!("Invalid value: \"{value}\": {f}")).collect();
            assert_eq!(messages, expected, "{value}");
            assert_eq!(cidr_warnings("f", value), warnings, "{value}");
        }
    }
}
