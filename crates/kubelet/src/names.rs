//! How a pod is called and whom it asks for names: host name, `/etc/hosts` and `/etc/resolv.conf`.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use corten_client::EventType;
use corten_runtime::DnsConfig;

use crate::events::Events;
use crate::pod::PodExt;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
const MAX_NAME: usize = 253;

/// The event of a pod, and of its node, that wants the cluster's DNS where there is none.
pub const MISSING: &str = "MissingClusterDNS";
/// Its message.
pub const NO_CLUSTER_DNS: &str = "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy.";

/// Why a pod cannot be named.
#[derive(Debug, thiserror::Error)]
#[error(
    "Failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long (64 characters is the max, {length} characters requested)"
)]
pub struct NameError {
    fqdn: String,
    length: usize,
}

/// Host name and domain (`sub.ns.svc.cluster.local`, empty without a subdomain) of a pod on its own network.
pub fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec();
    let mut hostname = spec.hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| pod.name().to_owned());
    let mut domain = String::new();
    if let Some(forced) = &spec.hostname_override {
        hostname.clone_from(forced);
    } else if let Some(subdomain) = spec.subdomain.as_ref().filter(|subdomain| !subdomain.is_empty()) {
        domain = format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace());
    }
    if hostname.len() > 63 {
        hostname.truncate(63);
        hostname.truncate(hostname.trim_end_matches(['-', '.']).len());
    }
    (hostname, domain)
}

/// The name set in the pod's UTS namespace.
pub fn kernel_hostname(pod: &Pod, cluster_domain: &str, node: &str) -> Result<String, NameError> {
    if pod.host_network() && pod.spec().hostname_override.is_none() {
        return Ok(node.to_owned());
    }
    let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
    if pod.spec().set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(hostname);
    }
    let fqdn = format!("{hostname}.{domain}");
    if fqdn.len() > 64 {
        return Err(NameError { length: fqdn.len(), fqdn });
    }
    Ok(fqdn)
}

/// `/etc/hosts` of a pod. `host` is the node's own file, for pods on its network.
pub fn hosts(pod: &Pod, cluster_domain: &str, ips: &[IpAddr], host: &str) -> String {
    let mut out = String::new();
    if pod.host_network() {
        out.push_str("# Kubernetes-managed hosts file (host network).\n");
        out.push_str(host);
    } else {
        out.push_str(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
        for ip in ips {
            // Writing to a string cannot fail.
            let _ = if domain.is_empty() {
                writeln!(out, "{ip}\t{hostname}")
            } else {
                writeln!(out, "{ip}\t{hostname}.{domain}\t{hostname}")
            };
        }
    }
    let aliases = pod.spec().host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default();
            let _ = writeln!(out, "{}\t{}", alias.ip, names.join("\t"));
        }
    }
    out
}

/// Warns when the node's resolver configuration is more than pods can take.
pub fn check(path: &Path, cluster_domain: &str, events: &Events) {
    const REASON: &str = "CheckLimitsForResolvConf";
    let fault = match std::fs::read_to_string(path) {
        Ok(text) => resolv_conf_fault(path, &parse_resolv_conf(&text), cluster_domain),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            Some(format!("open {}: no such file or directory", path.display()))
        }
        Err(err) => Some(format!("open {}: {err}", path.display())),
    };
    if let Some(message) = fault {
        events.node(EventType::Warning, REASON, &message);
    }
}

fn resolv_conf_fault(path: &Path, config: &DnsConfig, cluster_domain: &str) -> Option<String> {
    // The cluster's own paths come in front.
    let most = if cluster_domain.is_empty() { MAX_SEARCHES } else { MAX_SEARCHES - 3 };
    let path = path.display();
    if config.searches.len() > most {
        return Some(format!("Resolv.conf file '{path}' contains search line consisting of more than {most} domains!"));
    }
    if config.searches.iter().any(|search| search.len() > MAX_NAME) {
        let what = "contains a search path which length is more than allowed";
        return Some(format!("Resolv.conf file \"{path}\" {what} {MAX_NAME} chars!"));
    }
    (config.searches.join(" ").len() > MAX_SEARCH_CHARS).then(|| {
        format!("Resolv.conf file '{path}' contains search line which length is more than allowed {MAX_SEARCH_CHARS} chars!")
    })
}

/// A resolver configuration from the text of a `resolv.conf`.
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => config.searches = words.map(|word| word.trim_end_matches('.').to_owned()).collect(),
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config.searches.retain(|search| !search.is_empty());
    config
}

/// What pods resolve names with, and warnings for events: reason and message.
pub fn resolver(pod: &Pod, cluster_dns: &[IpAddr], domain: &str, host: &DnsConfig) -> (DnsConfig, Vec<(&'static str, String)>) {
    let mut warnings = Vec::new();
    let spec = pod.spec();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let wants_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !pod.host_network(),
        _ => false,
    };
    let mut config = match policy {
        "None" => DnsConfig::default(),
        _ if wants_cluster && !cluster_dns.is_empty() => {
            let mut searches = vec![format!("{}.svc.{domain}", pod.namespace()), format!("svc.{domain}"), domain.to_owned()];
            searches.extend(host.searches.iter().cloned());
            let servers = cluster_dns.iter().map(ToString::to_string).collect();
            DnsConfig { servers, searches, options: vec!["ndots:5".to_owned()] }
        }
        _ => {
            if wants_cluster {
                warnings.push((MISSING, format!("pod: {:?}. {NO_CLUSTER_DNS}", pod.described())));
            }
            host.clone()
        }
    };
    if let Some(extra) = &spec.dns_config {
        config.servers.extend(extra.nameservers.iter().flatten().cloned());
        config.searches.extend(extra.searches.iter().flatten().map(|search| search.trim_end_matches('.').to_owned()));
        for option in extra.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            config.options.retain(|known| known.split(':').next() != Some(name.as_str()));
            config.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    for list in [&mut config.servers, &mut config.searches] {
        let mut seen = std::collections::HashSet::new();
        list.retain(|entry| seen.insert(entry.clone()));
    }
    limit(&mut config, &mut warnings);
    (config, warnings)
}

fn limit(config: &mut DnsConfig, warnings: &mut Vec<(&'static str, String)>) {
    const REASON: &str = "DNSConfigForming";
    if config.servers.len() > MAX_NAMESERVERS {
        config.servers.truncate(MAX_NAMESERVERS);
        let line = config.servers.join(" ");
        let message = format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {line}"
        );
        warnings.push((REASON, message));
    }
    let before = config.searches.len();
    config.searches.truncate(MAX_SEARCHES);
    // Some resolvers abort on a name that cannot be one.
    config.searches.retain(|search| search.len() <= MAX_NAME);
    while config.searches.join(" ").len() > MAX_SEARCH_CHARS {
        config.searches.pop();
    }
    if config.searches.len() < before {
        let line = config.searches.join(" ");
        let message =
            format!("Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {line}");
        warnings.push((REASON, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::pod;

    #[test]
    #[rustfmt::skip]
    fn the_resolver_follows_the_policy() {
        let cluster = "10.43.0.10 | default.svc.c.local svc.c.local c.local example.org | ndots:5";
        let host = "192.0.2.53 | example.org | rotate";
        check("", cluster);
        check("dnsPolicy: Default", host);
        check("hostNetwork: true", host);
        check("hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet", cluster);
        check("dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1], searches: [a.b.], options: [{name: ndots, value: '2'}, {name: edns0}]}",
              "1.1.1.1 | a.b | ndots:2 edns0");
        check("dnsConfig: {nameservers: [10.43.0.10, 9.9.9.9], options: [{name: ndots, value: '1'}]}",
              "10.43.0.10 9.9.9.9 | default.svc.c.local svc.c.local c.local example.org | ndots:1");

        #[track_caller]
        fn check(spec: &str, expected: &str) {
            let host = parse_resolv_conf("# made by hand\nnameserver 192.0.2.53\nsearch example.org.\noptions rotate\n");
            let dns = ["10.43.0.10".parse().expect("an address")];
            let (config, warnings) = resolver(&pod(&format!("{{{spec}}}")), &dns, "c.local", &host);
            assert!(warnings.is_empty(), "{warnings:?}");
            assert_eq!(format!("{} | {} | {}", config.servers.join(" "), config.searches.join(" "), config.options.join(" ")), expected);
        }
    }

    #[test]
    fn too_many_nameservers_are_named_in_a_warning() {
        let pod = pod("{dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1, 2.2.2.2, 3.3.3.3, 4.4.4.4]}}");
        let (config, warnings) = resolver(&pod, &[], "c", &DnsConfig::default());
        assert_eq!(config.servers.len(), 3);
        assert!(warnings[0].1.ends_with("1.1.1.1 2.2.2.2 3.3.3.3"));
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let pod = pod("{hostname: h, subdomain: sub, hostAliases: [{ip: 1.2.3.4, hostnames: [a, b]}]}");
        let text = hosts(&pod, "c.local", &["10.0.0.1".parse().expect("an address")], "");
        assert!(
            text.ends_with("10.0.0.1\th.sub.default.svc.c.local\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"),
            "{text}"
        );
    }

    #[test]
    fn host_names_are_cut_and_qualified() {
        let mut long = pod("{}");
        long.metadata.name = Some(format!("{}-.tail", "a".repeat(62)));
        assert_eq!(hostname_and_domain(&long, "c").0, "a".repeat(62));
        let qualified = pod("{subdomain: s, setHostnameAsFQDN: true}");
        assert_eq!(kernel_hostname(&qualified, "c", "n").expect("short"), "web.s.default.svc.c");
        assert_eq!(kernel_hostname(&pod("{hostNetwork: true}"), "c", "n").expect("short"), "n");
    }
}
