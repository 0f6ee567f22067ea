//! What is allocated to a Service, its cluster IPs of both families and its node ports: what an update keeps of it, and how it may
//! change (KEP-563).

use std::collections::{HashMap, HashSet};

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use super::{externally_accessible, has_cluster_ip, is_headless, needs_health_check};
use crate::doc::{Read, Write};
use crate::{check, names};

/// Fills in what an update leaves out and the Service has already, and makes `clusterIP` the first of `clusterIPs`. The
/// registry does this before it takes addresses and ports, which is before anything else looks at a new state.
pub fn complete_cluster_ips(service: &mut Value, old: Option<&Value>) {
    if let Some(old) = old {
        patch_allocated(service, old);
    }
    normalize_cluster_ips(old, service);
}

/// Whether `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` make sense together; addresses are not taken for a
/// Service where they do not.
#[must_use]
pub fn cluster_ip_faults(service: &Value) -> Faults {
    let mut faults = Faults::default();
    if has_cluster_ip(&service["spec"]) {
        cluster_ips(&mut faults, &Path::new("spec"), &service["spec"]);
    }
    faults
}

/// `clusterIP` is the first of `clusterIPs`; a client may write only one of them.
fn normalize_cluster_ips(old: Option<&Value>, service: &mut Value) {
    let spec = service.object("spec");
    let Some(old) = old else {
        let first = spec.text("clusterIP").to_owned();
        if !first.is_empty() && spec.list("clusterIPs").is_empty() {
            spec.put("clusterIPs", json!([first]));
        }
        return;
    };
    let before = &old["spec"];
    let same_ip = spec.text("clusterIP") == before.text("clusterIP");
    let same_list = spec.list("clusterIPs") == before.list("clusterIPs");
    if same_ip {
        if spec.list("clusterIPs").is_empty() && !before.list("clusterIPs").is_empty() {
            spec.copy_from(before, "clusterIPs");
        }
    } else if same_list {
        match spec.text("clusterIP").to_owned() {
            unset if unset.is_empty() => spec.drop_key("clusterIPs"),
            ip => spec.put("clusterIPs", json!([ip])),
        }
    }
}

/// Fields of another type of service are dropped when the type changes and they were left as they were.
pub(super) fn drop_type_dependent(service: &mut Value, old: &Value) {
    let before = &old["spec"];
    let spec = service.object("spec");
    let needs = |kind: &str, kinds: &[&str]| kinds.contains(&kind);
    let (now, was) = (spec.text("type").to_owned(), before.text("type").to_owned());
    let lost = |kinds: &[&str]| needs(&was, kinds) && !needs(&now, kinds);
    let loses_address = has_cluster_ip(before) && !has_cluster_ip(spec);
    if loses_address && spec["clusterIP"] == before["clusterIP"] && spec["clusterIPs"] == before["clusterIPs"] {
        spec.drop_key("clusterIP");
        spec.drop_key("clusterIPs");
    }
    if loses_address {
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if spec[key] == before[key] {
                spec.drop_key(key);
            }
        }
    }
    if lost(&["NodePort", "LoadBalancer"]) && node_ports(spec).is_subset(&node_ports(before)) {
        spec.items("ports").for_each(|port| port.drop_key("nodePort"));
    }
    if needs_health_check(before) && !needs_health_check(spec) && spec["healthCheckNodePort"] == before["healthCheckNodePort"] {
        spec.drop_key("healthCheckNodePort");
    }
    if lost(&["LoadBalancer"]) {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if spec[key] == before[key] {
                spec.drop_key(key);
            }
        }
    }
    if externally_accessible(before)
        && !externally_accessible(spec)
        && spec["externalTrafficPolicy"] == before["externalTrafficPolicy"]
    {
        spec.drop_key("externalTrafficPolicy");
    }
    if lost(&["LoadBalancer"]) {
        service.object("status").put("loadBalancer", json!({}));
    }
}

fn node_ports(spec: &Value) -> HashSet<i64> {
    spec.list("ports").iter().map(|port| port.int("nodePort")).filter(|port| *port != 0).collect()
}

/// What was allocated is kept when an update leaves it out.
fn patch_allocated(service: &mut Value, old: &Value) {
    let before = &old["spec"];
    let spec = service.object("spec");
    if has_cluster_ip(before) && has_cluster_ip(spec) {
        if spec.text("clusterIP").is_empty() {
            spec.copy_from(before, "clusterIP");
        }
        if spec.list("clusterIPs").is_empty() && !before.list("clusterIPs").is_empty() {
            spec.copy_from(before, "clusterIPs");
        }
    }
    let ports = |spec: &Value| match spec.text("type") {
        "NodePort" => true,
        "LoadBalancer" => spec.opt_flag("allocateLoadBalancerNodePorts") != Some(false),
        _ => false,
    };
    if ports(before) && ports(spec) {
        // A port is known by its name; a number that another port took over is not given again.
        let taken: HashSet<i64> = node_ports(spec).intersection(&node_ports(before)).copied().collect();
        let known: HashMap<&str, i64> =
            before.list("ports").iter().map(|port| (port.text("name"), port.int("nodePort"))).collect();
        for port in spec.items("ports").filter(|port| port.int("nodePort") == 0) {
            if let Some(number) = known.get(port.text("name")).filter(|number| **number != 0 && !taken.contains(number)) {
                port.put("nodePort", *number);
            }
        }
    }
    if needs_health_check(before) && needs_health_check(spec) && spec.int("healthCheckNodePort") == 0 {
        spec.copy_from(before, "healthCheckNodePort");
    }
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` must fit together (KEP-563).
pub(super) fn cluster_ips(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let at = path.child("clusterIPs");
    let shown = &spec["clusterIPs"];
    let all: Vec<&str> = spec.texts("clusterIPs").collect();
    let first = spec.text("clusterIP");
    match (first.is_empty(), all.first()) {
        (false, None) => faults.required(&at, ""),
        (false, Some(have)) if *have != first => faults.invalid(&at, shown, "first value must match `clusterIP`"),
        (true, Some(_)) => faults.invalid(&at, shown, "must be empty when `clusterIP` is not specified"),
        _ => {}
    }
    let families_at = path.child("ipFamilies");
    let mut seen = HashSet::new();
    for (i, family) in spec.texts("ipFamilies").enumerate() {
        check::one_of(faults, &families_at.index(i), family, &["IPv4", "IPv6"]);
        if !seen.insert(family) {
            check::duplicate(faults, &families_at.index(i), family);
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    check::optional_one_of(faults, path, spec, "ipFamilyPolicy", &policies);
    let mut broken = false;
    for (i, ip) in all.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if all.len() > 1 {
                broken = true;
                faults.invalid(&at, shown, "'None' must be the first and only value");
            }
            continue;
        }
        broken |= !check::ip(faults, &at.index(i), ip);
    }
    if all.len() > 2 {
        faults.invalid(&at, shown, "may only hold up to 2 values");
    }
    if broken {
        return;
    }
    let is_v6 = |ip: &str| names::parse_ip(ip).is_some_and(|ip| ip.is_ipv6());
    if all.len() > 1 && !check::is_dual_stack(&all.iter().map(|ip| is_v6(ip)).collect::<Vec<_>>()) {
        faults.invalid(&at, shown, "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return;
    }
    for (i, (ip, family)) in all.iter().zip(spec.texts("ipFamilies")).enumerate() {
        if matches!(family, "IPv4" | "IPv6") && is_v6(ip) != (family == "IPv6") {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            faults.invalid_str(&at.index(i), ip, &detail);
        }
    }
}

/// Cluster IPs may be added and released (the second of two), never replaced.
pub(super) fn cluster_ip_changes(faults: &mut Faults, spec: &Value, old: &Value) {
    if spec.text("type") == "ExternalName" || old.text("type") == "ExternalName" || (is_headless(spec) && is_headless(old)) {
        return;
    }
    let root = Path::new("spec");
    let at = root.child("clusterIPs");
    let (now, before) = (spec.list("clusterIPs"), old.list("clusterIPs"));
    let shown = if now.is_empty() { Value::Null } else { json!(now) };
    let changed = "may not change once set";
    match now.len().cmp(&before.len()) {
        std::cmp::Ordering::Equal => {
            for (i, _) in now.iter().zip(before).enumerate().filter(|(_, (a, b))| a != b) {
                faults.invalid(&at.index(i), &shown, changed);
            }
        }
        std::cmp::Ordering::Less => {
            if now.is_empty() {
                faults.invalid(&at.index(0), &shown, "primary clusterIP can not be unset");
            } else if now[0] != before[0] {
                faults.invalid(&at.index(0), &shown, changed);
            }
            if now.len() == 1 && spec.text("ipFamilyPolicy") != "SingleStack" {
                let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
                faults.invalid(&root.child("ipFamilyPolicy"), &spec["ipFamilyPolicy"], detail);
            }
        }
        std::cmp::Ordering::Greater => {
            if before.first().is_some_and(|first| *first != now[0]) {
                faults.invalid(&at.index(0), &shown, changed);
            }
        }
    }
}

pub(super) fn family_changes(faults: &mut Faults, spec: &Value, old: &Value) {
    if spec.text("type") == "ExternalName" || old.text("type") == "ExternalName" || is_headless(spec) || is_headless(old) {
        return;
    }
    let root = Path::new("spec");
    let at = root.child("ipFamilies");
    let (now, before) = (spec.list("ipFamilies"), old.list("ipFamilies"));
    let changed = "may not change once set";
    match now.len().cmp(&before.len()) {
        std::cmp::Ordering::Equal => {
            for _ in now.iter().zip(before).filter(|(a, b)| a != b) {
                faults.invalid(&at.index(0), &spec["ipFamilies"], changed);
            }
        }
        std::cmp::Ordering::Less => {
            if spec.list("clusterIPs").is_empty() {
                faults.invalid(&at.index(0), &spec["ipFamilies"], "primary ipFamily can not be unset");
            }
            if now.first().is_some_and(|first| *first != before[0]) {
                faults.invalid(&at.index(0), &spec["clusterIPs"], changed);
            }
            if now.len() == 1 && spec.text("ipFamilyPolicy") != "SingleStack" {
                let detail = "must be set to 'SingleStack' when releasing the secondary ipFamily";
                faults.invalid(&root.child("ipFamilyPolicy"), &spec["ipFamilyPolicy"], detail);
            }
        }
        std::cmp::Ordering::Greater => {
            if before.first().is_some_and(|first| *first != now[0]) {
                faults.invalid(&at.index(0), &spec["clusterIPs"], changed);
            }
        }
    }
}
