//! What a Service must be, whatever it was before, and what clients are warned of.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use super::{allocated::cluster_ips, externally_accessible, has_cluster_ip, is_headless, needs_health_check};
use crate::doc::Read;
use crate::pod::containers::PROTOCOLS;
use crate::{addresses, check, internal, names};

/// Longest session affinity, a day.
const MAX_AFFINITY_SECONDS: i64 = 86_400;

const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

pub(super) fn validate(service: &Value) -> Faults {
    let mut faults = Faults::default();
    let spec = &service["spec"];
    let path = Path::new("spec");
    let ports_at = path.child("ports");
    let ports = spec.list("ports");
    let kind = spec.text("type");
    topology_annotations(&mut faults, service);
    if ports.is_empty() && !is_headless(spec) && kind != "ExternalName" {
        faults.required(&ports_at, "");
    }
    by_type(&mut faults, &path, spec);
    let mut seen = HashSet::new();
    for (i, item) in ports.iter().enumerate() {
        port(&mut faults, &ports_at.index(i), item, ports.len() > 1, &mut seen);
    }
    check::labels(&mut faults, &path.child("selector"), spec.map("selector"));
    session_affinity(&mut faults, &path, spec);
    if has_cluster_ip(spec) {
        cluster_ips(&mut faults, &path, spec);
    }
    let externals = path.child("externalIPs");
    for (i, ip) in spec.texts("externalIPs").enumerate() {
        if check::ip(&mut faults, &externals.index(i), ip) {
            check::non_special_ip(&mut faults, &externals.index(i), ip);
        }
    }
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    check::required_one_of(&mut faults, &path.child("type"), kind, &kinds);
    port_numbers(&mut faults, &ports_at, ports, kind);
    source_ranges(&mut faults, &path, service, kind);
    if spec.has("allocateLoadBalancerNodePorts") && kind != "LoadBalancer" {
        let detail = "may only be used when `type` is 'LoadBalancer'";
        faults.forbidden(&path.child("allocateLoadBalancerNodePorts"), detail);
    }
    if kind == "LoadBalancer" && !spec.has("allocateLoadBalancerNodePorts") {
        faults.required(&Path::new("allocateLoadBalancerNodePorts"), "");
    }
    load_balancer_class(&mut faults, spec, None);
    traffic_policies(&mut faults, &path, spec);
    faults
}

fn topology_annotations(faults: &mut Faults, service: &Value) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let annotations = &service["metadata"]["annotations"];
    if let (Some(hints), Some(mode)) = (annotations.opt_text(HINTS), annotations.opt_text(MODE))
        && hints != mode
    {
        let metadata = Path::new("metadata");
        let at = metadata.child("annotations");
        faults.invalid_str(&at.key(MODE), mode, &format!("must match annotations[{HINTS}] when both are specified"));
    }
}

fn by_type(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let kind = spec.text("type");
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            faults.invalid_str(&path.child("clusterIPs").index(0), "None", &detail);
        }
        "ExternalName" => {
            const WHY: &str = "may not be set for ExternalName services";
            for key in ["clusterIPs", "ipFamilies"] {
                if !spec.list(key).is_empty() {
                    faults.forbidden(&path.child(key), WHY);
                }
            }
            if spec.has("ipFamilyPolicy") {
                faults.forbidden(&path.child("ipFamilyPolicy"), WHY);
            }
            let name = spec.text("externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            check::required(faults, &path.child("externalName"), name, check::dns_subdomain);
        }
        _ => {}
    }
}

fn port<'a>(faults: &mut Faults, path: &Path<'_>, port: &'a Value, must_be_named: bool, seen: &mut HashSet<&'a str>) {
    let name = port.text("name");
    if !name.is_empty() {
        check::dns_label(faults, &path.child("name"), name);
        if !seen.insert(name) {
            check::duplicate(faults, &path.child("name"), name);
        }
    } else if must_be_named {
        faults.required(&path.child("name"), "");
    }
    check::port_number(faults, &path.child("port"), port.int("port"));
    check::required_one_of(faults, &path.child("protocol"), port.text("protocol"), PROTOCOLS);
    check::port_number_or_name(faults, &path.child("targetPort"), &port["targetPort"]);
    if let Some(protocol) = port.opt_text("appProtocol") {
        check::qualified_name(faults, &path.child("appProtocol"), protocol);
    }
}

fn session_affinity(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let kind = spec.text("sessionAffinity");
    check::required_one_of(faults, &path.child("sessionAffinity"), kind, &["ClientIP", "None"]);
    let at = path.child("sessionAffinityConfig");
    let config = &spec["sessionAffinityConfig"];
    match kind {
        "ClientIP" => {
            const WHEN: &str = "when session affinity type is ClientIP";
            let client = at.child("clientIP");
            let seconds_at = client.child("timeoutSeconds");
            if config.is_null() {
                faults.required(&at, WHEN);
            } else if !config.has("clientIP") {
                faults.required(&client, WHEN);
            } else {
                match config["clientIP"].opt_int("timeoutSeconds") {
                    None => faults.required(&seconds_at, WHEN),
                    Some(seconds) if seconds <= 0 || seconds > MAX_AFFINITY_SECONDS => {
                        let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                        faults.invalid_int(&seconds_at, seconds, &detail);
                    }
                    Some(_) => {}
                }
            }
        }
        "None" if !config.is_null() => faults.forbidden(&at, "must not be set when session affinity is None"),
        _ => {}
    }
}

fn port_numbers(faults: &mut Faults, path: &Path<'_>, ports: &[Value], kind: &str) {
    if kind == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, port)| port.int("nodePort") != 0) {
            faults.forbidden(&path.index(i).child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut seen = HashSet::new();
    for (i, port) in ports.iter().enumerate().filter(|(_, port)| port.int("nodePort") != 0) {
        if !seen.insert((port.text("protocol"), port.int("nodePort"))) {
            faults.duplicate(&path.index(i).child("nodePort"), &json!(port.int("nodePort")));
        }
    }
    let mut seen = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        if !seen.insert((port.text("protocol"), port.int("port"))) {
            let key = json!({ "protocol": port["protocol"], "port": port["port"] });
            check::duplicate_shown(faults, &path.index(i), &internal::shown("ServicePort", &key), "");
        }
    }
}

fn source_ranges(faults: &mut Faults, path: &Path<'_>, service: &Value, kind: &str) {
    const WHY: &str = "may only be used when `type` is 'LoadBalancer'";
    let ranges = service["spec"].list("loadBalancerSourceRanges");
    if !ranges.is_empty() {
        let at = path.child("LoadBalancerSourceRanges");
        if kind != "LoadBalancer" {
            faults.forbidden(&at, WHY);
        }
        for (i, range) in ranges.iter().enumerate() {
            check::cidr(faults, &at.index(i), range.as_str().unwrap_or_default().trim());
        }
    } else if let Some(annotation) = service["metadata"]["annotations"].opt_text(SOURCE_RANGES) {
        let metadata = Path::new("metadata");
        let annotations = metadata.child("annotations");
        let at = annotations.key(SOURCE_RANGES);
        if kind != "LoadBalancer" {
            faults.forbidden(&at, WHY);
        }
        for range in annotation.trim().split(',').filter(|_| !annotation.trim().is_empty()) {
            check::cidr(faults, &at, range.trim());
        }
    }
}

pub(super) fn load_balancer_class(faults: &mut Faults, spec: &Value, old: Option<&Value>) {
    let root = Path::new("spec");
    let path = root.child("loadBalancerClass");
    let balanced = |spec: &Value| spec.text("type") == "LoadBalancer";
    if old.is_some_and(|old| balanced(old) && balanced(spec) && old["loadBalancerClass"] != spec["loadBalancerClass"]) {
        faults.invalid(&path, &spec["loadBalancerClass"], "may not change once set");
    }
    match spec.opt_text("loadBalancerClass") {
        Some(class) if balanced(spec) => check::qualified_name(faults, &path, class),
        Some(_) => faults.forbidden(&path, "may only be used when `type` is 'LoadBalancer'"),
        None => {}
    }
}

fn traffic_policies(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let policy = spec.text("externalTrafficPolicy");
    let at = path.child("externalTrafficPolicy");
    if externally_accessible(spec) {
        check::required_one_of(faults, &at, policy, &["Cluster", "Local"]);
    } else if !policy.is_empty() {
        faults.invalid_str(&at, policy, "may only be set for externally-accessible services");
    }
    let port = spec.int("healthCheckNodePort");
    let at = path.child("healthCheckNodePort");
    if needs_health_check(spec) {
        if port == 0 {
            faults.required(&at, "");
        } else {
            check::port_number(faults, &at, port);
        }
    } else if port != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        faults.invalid_int(&at, port, detail);
    }
    let at = path.child("internalTrafficPolicy");
    match spec.opt_text("internalTrafficPolicy") {
        None if matches!(spec.text("type"), "NodePort" | "LoadBalancer" | "ClusterIP") => faults.required(&at, ""),
        None => {}
        Some(policy) => check::one_of(faults, &at, policy, &["Cluster", "Local"]),
    }
    let supported = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    check::optional_one_of(faults, path, spec, "trafficDistribution", &supported);
}

pub(super) fn load_balancer_status(faults: &mut Faults, path: &Path<'_>, status: &Value, spec: &Value) {
    let at = path.child("ingress");
    let ingress = status.list("ingress");
    if spec.text("type") != "LoadBalancer" && !ingress.is_empty() {
        return faults.forbidden(&at, "may only be used when `spec.type` is 'LoadBalancer'");
    }
    for (i, point) in ingress.iter().enumerate() {
        let here = at.index(i);
        let (ip, hostname) = (point.text("ip"), point.text("hostname"));
        if !ip.is_empty() {
            check::ip(faults, &here.child("ip"), ip);
        }
        let mode_at = here.child("ipMode");
        match point.opt_text("ipMode") {
            None if !ip.is_empty() => faults.required(&mode_at, "must be specified when `ip` is set"),
            Some(_) if ip.is_empty() => faults.forbidden(&mode_at, "may not be specified when `ip` is not set"),
            Some(mode) => check::one_of(faults, &mode_at, mode, &["Proxy", "VIP"]),
            None => {}
        }
        if !hostname.is_empty() {
            check::dns_subdomain(faults, &here.child("hostname"), hostname);
            if names::parse_ip(hostname).is_some() {
                faults.invalid_str(&here.child("hostname"), hostname, "must be a DNS name, not an IP address");
            }
        }
    }
}

pub(super) fn warnings(service: &Value) -> Vec<String> {
    let spec = &service["spec"];
    let mut warnings = Vec::new();
    if service["metadata"]["annotations"].opt_text("service.kubernetes.io/topology-aware-hints").is_some() {
        warnings.push(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode \
             instead"
                .into(),
        );
    }
    let kind = spec.text("type");
    let headless = kind == "ClusterIP" && spec.text("clusterIP") == "None";
    if !matches!(spec.text("clusterIP"), "" | "None") {
        warnings.extend(addresses::ip_list_warnings("spec.clusterIPs", spec.texts("clusterIPs")));
    }
    if headless {
        let ignored = [
            (!spec.text("loadBalancerIP").is_empty(), "spec.loadBalancerIP"),
            (!spec.list("externalIPs").is_empty(), "spec.externalIPs"),
            (spec.text("sessionAffinity") != "None", "spec.SessionAffinity"),
        ];
        let ignored = ignored.into_iter().filter(|(set, _)| *set);
        warnings.extend(ignored.map(|(_, field)| format!("{field} is ignored for headless services")));
    }
    if !spec.list("externalIPs").is_empty() {
        warnings.extend(addresses::ip_list_warnings("spec.externalIPs", spec.texts("externalIPs")));
        if !headless && kind != "ExternalName" {
            warnings.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
        }
    }
    warnings.extend(addresses::ip_warning("spec.loadBalancerIP", spec.text("loadBalancerIP")));
    warnings.extend(addresses::cidr_list_warnings("spec.loadBalancerSourceRanges", spec.texts("loadBalancerSourceRanges")));
    if kind == "ExternalName" && !spec.list("externalIPs").is_empty() {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if kind != "ExternalName" && !spec.text("externalName").is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        warnings.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
    warnings
}
