//! Ingresses.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, addresses, check, columns, meta, names, table};

pub(crate) struct Ingresses;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

impl Strategy for Ingresses {
    fn default(&self, object: &mut Value) {
        object.object("spec");
        object.object("status").object("loadBalancer");
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", json!({ "loadBalancer": {} }));
        meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, &object["spec"]);
        let class = object["metadata"]["annotations"].opt_text(CLASS_ANNOTATION);
        if let Some(class) =
            class.filter(|class| object["spec"].has("ingressClassName") && *class != object["spec"].text("ingressClassName"))
        {
            let at = Path::new("annotations");
            let detail = "must match `ingressClassName` when both are specified";
            faults.invalid_str(&at.child(CLASS_ANNOTATION), class, detail);
        }
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate_update(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, &object["spec"]);
        faults
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let status = Path::new("status");
        let balancer = status.child("loadBalancer");
        let path = balancer.child("ingress");
        for (i, point) in object["status"]["loadBalancer"].list("ingress").iter().enumerate() {
            let at = path.index(i);
            if !point.text("ip").is_empty() {
                check::ip(&mut faults, &at.child("ip"), point.text("ip"));
            }
            let hostname = point.text("hostname");
            if !hostname.is_empty() {
                check::dns_subdomain(&mut faults, &at.child("hostname"), hostname);
                if names::parse_ip(hostname).is_some() {
                    faults.invalid_str(&at.child("hostname"), hostname, "must be a DNS name, not an IP address");
                }
            }
        }
        faults
    }

    fn status_warnings(&self, object: &Value) -> Vec<String> {
        let points = object["status"]["loadBalancer"].list("ingress").iter().map(|point| point.text("ip"));
        addresses::ip_list_warnings("status.loadBalancer.ingress", points)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let annotated = object["metadata"]["annotations"].opt_text(CLASS_ANNOTATION).is_some();
        if annotated && !object["spec"].has("ingressClassName") {
            return vec![format!("annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead")];
        }
        Vec::new()
    }

    fn columns(&self) -> &'static [Column] {
        columns::INGRESSES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let class = spec.opt_text("ingressClassName");
        let points = object["status"]["loadBalancer"].list("ingress");
        let mut addresses: Vec<&str> = points.iter().map(|point| table::or(point.text("ip"), point.text("hostname"))).collect();
        addresses.retain(|address| !address.is_empty());
        addresses.sort_unstable();
        addresses.dedup();
        let ports = if spec.list("tls").is_empty() { "80" } else { "80, 443" };
        vec![
            table::name(object),
            class.unwrap_or("<none>").into(),
            hosts(spec.list("rules")).into(),
            addresses.join(",").into(),
            ports.into(),
            table::age(object, now),
        ]
    }
}

/// The first three hosts, and how many rules more there are once three have been found.
fn hosts(rules: &[Value]) -> String {
    const MOST: usize = 3;
    let mut named = rules.iter().enumerate().filter(|(_, rule)| !rule.text("host").is_empty());
    let found: Vec<(usize, &str)> = named.by_ref().take(MOST).map(|(i, rule)| (i, rule.text("host"))).collect();
    let listed = found.iter().map(|(_, host)| *host).collect::<Vec<_>>().join(",");
    match found.get(MOST - 1) {
        Some((last, _)) if last + 1 < rules.len() => format!("{listed} + {} more...", rules.len() - MOST),
        _ if listed.is_empty() => "*".to_owned(),
        _ => listed,
    }
}

fn spec(faults: &mut Faults, spec: &Value) {
    let path = Path::new("spec");
    if spec.list("rules").is_empty() && !spec.has("defaultBackend") {
        faults.invalid(&path, &spec["rules"], "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(default) = spec.opt("defaultBackend") {
        backend(faults, &path.child("defaultBackend"), default);
    }
    let rules = path.child("rules");
    for (i, item) in spec.list("rules").iter().enumerate() {
        rule(faults, &rules.index(i), item);
    }
    let tls = path.child("tls");
    for (i, item) in spec.list("tls").iter().enumerate() {
        let at = tls.index(i);
        let hosts = at.child("hosts");
        for (j, name) in item.texts("hosts").enumerate() {
            host(faults, &hosts.index(j), name);
        }
        if !item.text("secretName").is_empty() {
            check::dns_subdomain(faults, &at.child("secretName"), item.text("secretName"));
        }
    }
    if let Some(class) = spec.opt_text("ingressClassName") {
        check::dns_subdomain(faults, &path.child("ingressClassName"), class);
    }
}

fn host(faults: &mut Faults, path: &Path<'_>, host: &str) {
    if host.contains('*') {
        check::invalid_each(faults, path, host, names::wildcard_dns_subdomain(host));
    } else {
        check::dns_subdomain(faults, path, host);
    }
}

fn rule(faults: &mut Faults, path: &Path<'_>, rule: &Value) {
    let name = rule.text("host");
    if !name.is_empty() {
        if names::parse_ip(name).is_some() {
            faults.invalid_str(&path.child("host"), name, "must be a DNS name, not an IP address");
        }
        host(faults, &path.child("host"), name);
    }
    let Some(http) = rule.opt("http") else { return };
    let parent = path.child("http");
    let at = parent.child("paths");
    if http.list("paths").is_empty() {
        faults.required(&at, "");
    }
    for (i, item) in http.list("paths").iter().enumerate() {
        http_path(faults, &at.index(i), item);
    }
}

fn http_path(faults: &mut Faults, path: &Path<'_>, item: &Value) {
    let at = path.child("path");
    let text = item.text("path");
    match item.opt_text("pathType") {
        None => return faults.required(&path.child("pathType"), "pathType must be specified"),
        Some("Exact" | "Prefix") => {
            if !text.starts_with('/') {
                faults.invalid_str(&at, text, "must be an absolute path");
            }
            if !text.is_empty() {
                for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                    if text.contains(bad) {
                        faults.invalid_str(&at, text, &format!("must not contain '{bad}'"));
                    }
                }
                for bad in ["/..", "/."] {
                    if text.ends_with(bad) {
                        faults.invalid_str(&at, text, &format!("cannot end with '{bad}'"));
                    }
                }
            }
        }
        Some("ImplementationSpecific") => {
            if !text.is_empty() && !text.starts_with('/') {
                faults.invalid_str(&at, text, "must be an absolute path");
            }
        }
        Some(other) => {
            faults.not_supported(&path.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]);
        }
    }
    backend(faults, &path.child("backend"), &item["backend"]);
}

fn backend(faults: &mut Faults, path: &Path<'_>, backend: &Value) {
    match (backend.opt("service"), backend.opt("resource")) {
        (Some(_), Some(_)) => faults.invalid_str(path, "", "cannot set both resource and service backends"),
        (None, Some(resource)) => {
            let at = path.child("resource");
            super::typed_reference(faults, &at, resource);
        }
        (None, None) => faults.invalid_str(path, "", "resource or service backend is required"),
        (Some(service), None) => {
            let parent = path.child("service");
            let name = service.text("name");
            if name.is_empty() {
                faults.required(&parent.child("name"), "");
            } else {
                check::invalid_each(faults, &parent.child("name"), name, names::dns_label(name));
            }
            let port = &service["port"];
            let at = parent.child("port");
            match (port.text("name"), port.int("number")) {
                ("", 0) => faults.required(path, "port name or number is required"),
                (name, 0) => check::invalid_each(faults, &at.child("name"), name, names::port_name(name)),
                ("", number) => check::port_number(faults, &at.child("number"), number),
                _ => faults.invalid_str(path, "", "cannot set both port name & port number"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_balancers_are_to_be_written_as_everybody_does() {
        let ingress =
            |ip: &str| json!({ "status": { "loadBalancer": { "ingress": [{ "hostname": "a.example" }, { "ip": ip }] } } });
        assert!(Ingresses.status_warnings(&ingress("fd00::1")).is_empty());
        let warning =
            "status.loadBalancer.ingress[1]: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")";
        assert_eq!(Ingresses.status_warnings(&ingress("FD00::1")), [warning]);
    }
}
