//! Services: validation and defaults. Cluster IPs and node ports are allocated by the API server between `default` and the store.

use std::collections::{HashMap, HashSet};

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::pod::containers::PROTOCOLS;
use crate::{Column, Context, Strategy, addresses, check, columns, internal, names, table};

pub(crate) struct Services;

/// Longest session affinity, a day.
const MAX_AFFINITY_SECONDS: i64 = 86_400;
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

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

impl Strategy for Services {
    fn default(&self, object: &mut Value) {
        let spec = object.object("spec");
        spec.default_to("sessionAffinity", "None");
        match spec.text("sessionAffinity") {
            "None" => spec.drop_key("sessionAffinityConfig"),
            "ClientIP" if !spec["sessionAffinityConfig"]["clientIP"].has("timeoutSeconds") => {
                spec.put("sessionAffinityConfig", json!({ "clientIP": { "timeoutSeconds": 10_800 } }));
            }
            _ => {}
        }
        spec.default_to("type", "ClusterIP");
        for port in spec.items("ports") {
            port.default_to("protocol", "TCP");
            if matches!(&port["targetPort"], Value::Null) || port["targetPort"] == json!(0) || port["targetPort"] == json!("") {
                let number = port.int("port");
                port.put("targetPort", number);
            }
        }
        if externally_accessible(spec) {
            spec.default_to("externalTrafficPolicy", "Cluster");
        }
        let balanced = spec.text("type") == "LoadBalancer";
        if !spec.has("internalTrafficPolicy") && matches!(spec.text("type"), "NodePort" | "LoadBalancer" | "ClusterIP") {
            spec.put("internalTrafficPolicy", "Cluster");
        }
        if balanced && !spec.has("allocateLoadBalancerNodePorts") {
            spec.put("allocateLoadBalancerNodePorts", true);
        }
        let status = object.object("status").object("loadBalancer");
        if balanced {
            for ingress in status.items("ingress") {
                if !ingress.text("ip").is_empty() && !ingress.has("ipMode") {
                    ingress.put("ipMode", "VIP");
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", json!({ "loadBalancer": {} }));
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        validate(object)
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        drop_type_dependent(object, old);
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let status = Path::new("status");
        load_balancer_status(&mut faults, &status.child("loadBalancer"), &object["status"]["loadBalancer"], &object["spec"]);
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        cluster_ip_changes(&mut faults, &object["spec"], &old["spec"]);
        family_changes(&mut faults, &object["spec"], &old["spec"]);
        load_balancer_class(&mut faults, &object["spec"], Some(&old["spec"]));
        if needs_health_check(&old["spec"]) && needs_health_check(&object["spec"]) {
            let port = |spec: &Value| spec.int("healthCheckNodePort");
            if port(&object["spec"]) != port(&old["spec"]) {
                faults.forbidden(&Path::new("spec").child("healthCheckNodePort"), check::IMMUTABLE);
            }
        }
        faults.0.extend(validate(object).0);
        faults
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::name_is_label(name, prefix)
    }

    fn warnings(&self, object: &Value, _: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        warnings(object)
    }

    fn status_warnings(&self, object: &Value) -> Vec<String> {
        let points = object["status"]["loadBalancer"].list("ingress").iter().map(|point| point.text("ip"));
        addresses::ip_list_warnings("status.loadBalancer.ingress", points)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    /// Services that only name another host once got the field although it means nothing there.
    fn canonicalize(&self, object: &mut Value) {
        if !has_cluster_ip(&object["spec"]) {
            object.object("spec").drop_key("internalTrafficPolicy");
        }
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.clusterIP", object["spec"].text("clusterIP").into()), ("spec.type", object["spec"].text("type").into())]
    }

    fn columns(&self) -> &'static [Column] {
        columns::SERVICES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let internal = spec.list("clusterIPs").first().and_then(Value::as_str).unwrap_or("<none>");
        let ports: Vec<String> = spec
            .list("ports")
            .iter()
            .map(|port| {
                let (number, protocol) = (port.int("port"), port.text("protocol"));
                match port.int("nodePort") {
                    0 => format!("{number}/{protocol}"),
                    node => format!("{number}:{node}/{protocol}"),
                }
            })
            .collect();
        vec![
            table::name(object),
            spec.text("type").into(),
            internal.into(),
            external(object).into(),
            table::or(&ports.join(","), "<none>").into(),
            table::age(object, now),
            table::labels(spec.map("selector")).into(),
        ]
    }
}

fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let own: Vec<&str> = spec.texts("externalIPs").collect();
    match spec.text("type") {
        "ClusterIP" | "NodePort" => table::or(&own.join(","), "<none>").to_owned(),
        "LoadBalancer" => {
            let points = service["status"]["loadBalancer"].list("ingress").iter();
            let mut all: Vec<&str> = points.map(|point| table::or(point.text("ip"), point.text("hostname"))).collect();
            all.retain(|point| !point.is_empty());
            all.sort_unstable();
            all.dedup();
            all.extend(own);
            table::or(&all.join(","), "<pending>").to_owned()
        }
        "ExternalName" => spec.text("externalName").to_owned(),
        _ => "<unknown>".into(),
    }
}

fn externally_accessible(spec: &Value) -> bool {
    matches!(spec.text("type"), "LoadBalancer" | "NodePort")
        || (spec.text("type") == "ClusterIP" && !spec.list("externalIPs").is_empty())
}

/// Whether a load balancer must learn which nodes have endpoints.
pub(crate) fn needs_health_check(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

/// Whether a Service of this type has addresses; one of an unknown type has them until validation refuses it.
fn has_cluster_ip(spec: &Value) -> bool {
    spec.text("type") != "ExternalName"
}

fn is_headless(spec: &Value) -> bool {
    spec.list("clusterIPs") == [json!("None")]
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
fn drop_type_dependent(service: &mut Value, old: &Value) {
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

fn validate(service: &Value) -> Faults {
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
            if name.is_empty() {
                faults.required(&path.child("externalName"), "");
            } else {
                check::dns_subdomain(faults, &path.child("externalName"), name);
            }
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

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` must fit together (KEP-563).
pub(crate) fn cluster_ips(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
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

fn load_balancer_class(faults: &mut Faults, spec: &Value, old: Option<&Value>) {
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

fn load_balancer_status(faults: &mut Faults, path: &Path<'_>, status: &Value, spec: &Value) {
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

/// Cluster IPs may be added and released (the second of two), never replaced.
fn cluster_ip_changes(faults: &mut Faults, spec: &Value, old: &Value) {
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

fn family_changes(faults: &mut Faults, spec: &Value, old: &Value) {
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

fn warnings(service: &Value) -> Vec<String> {
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

#[cfg(test)]
mod tests;
