//! Endpoints and EndpointSlices.

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::Value;

use crate::doc::{Read, Write, semantic_equal};
use crate::pod::containers::PROTOCOLS;
use crate::{Column, Context, Strategy, addresses, check, columns, meta, names, table};

pub(crate) struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        for port in object.items("subsets").flat_map(|subset| subset.items("ports")) {
            port.default_to("protocol", "TCP");
        }
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let subsets = Path::new("subsets");
        for (i, subset) in object.list("subsets").iter().enumerate() {
            let at = subsets.index(i);
            let (ready, not_ready) = (subset.list("addresses"), subset.list("notReadyAddresses"));
            if ready.is_empty() && not_ready.is_empty() {
                faults.required(&at, "must specify `addresses` or `notReadyAddresses`");
            }
            for (key, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
                let here = at.child(key);
                for (j, item) in addresses.iter().enumerate() {
                    address(&mut faults, &here.index(j), item);
                }
            }
            let ports = subset.list("ports");
            let here = at.child("ports");
            for (j, item) in ports.iter().enumerate() {
                port(&mut faults, &here.index(j), item, ports.len() > 1);
            }
        }
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let faults = self.validate(object, ctx);
        // What older versions took may stay.
        if !faults.0.is_empty() && semantic_equal(&object["subsets"], &old["subsets"]) {
            return Faults::default();
        }
        faults
    }

    fn warnings(&self, object: &Value, _: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        if object["metadata"]["labels"].text("endpoints.kubernetes.io/managed-by") == "endpoint-controller" {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        for (i, subset) in object.list("subsets").iter().enumerate() {
            for key in ["addresses", "notReadyAddresses"] {
                for (j, address) in subset.list(key).iter().enumerate() {
                    let at = format!("subsets[{i}].{key}[{j}].ip");
                    warnings.extend(addresses::ip_warning(&at, address.text("ip")));
                }
            }
        }
        warnings
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        columns::ENDPOINTS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![table::name(object), shown(object.list("subsets")).into(), table::age(object, now)]
    }
}

fn shown(subsets: &[Value]) -> String {
    const MOST: usize = 3;
    if subsets.is_empty() {
        return "<none>".into();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let ports = subset.list("ports");
        let addresses = || subset.list("addresses").iter().map(|address| address.text("ip"));
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let number = port.int("port");
            all.extend(
                addresses().map(|ip| if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }),
            );
        }
    }
    let more = all.len().saturating_sub(MOST);
    all.truncate(MOST);
    let listed = all.join(",");
    if more > 0 { format!("{listed} + {more} more...") } else { listed }
}

fn address(faults: &mut Faults, path: &Path<'_>, address: &Value) {
    let ip = address.text("ip");
    check::ip(faults, &path.child("ip"), ip);
    if !address.text("hostname").is_empty() {
        check::dns_label(faults, &path.child("hostname"), address.text("hostname"));
    }
    if let Some(node) = address.opt_text("nodeName") {
        check::dns_subdomain(faults, &path.child("nodeName"), node);
    }
    check::non_special_ip(faults, &path.child("ip"), ip);
}

fn port(faults: &mut Faults, path: &Path<'_>, port: &Value, must_be_named: bool) {
    let name = port.text("name");
    if !name.is_empty() {
        check::dns_label(faults, &path.child("name"), name);
    } else if must_be_named {
        faults.required(&path.child("name"), "");
    }
    check::port_number(faults, &path.child("port"), port.int("port"));
    check::required_one_of(faults, &path.child("protocol"), port.text("protocol"), PROTOCOLS);
    if let Some(protocol) = port.opt_text("appProtocol") {
        check::qualified_name(faults, &path.child("appProtocol"), protocol);
    }
}

pub(crate) struct EndpointSlices;

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;

impl Strategy for EndpointSlices {
    fn default(&self, object: &mut Value) {
        for port in object.items("ports") {
            if !port.has("name") {
                port.put("name", "");
            }
            if !port.has("protocol") {
                port.put("protocol", "TCP");
            }
        }
        for endpoint in object.items("endpoints") {
            endpoint.object("conditions");
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        meta::set_generation(object, 1);
        for endpoint in object.items("endpoints") {
            endpoint.drop_key("deprecatedTopology");
        }
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let kind = object.text("addressType");
        address_type(&mut faults, kind);
        slice_ports(&mut faults, object.list("ports"));
        slice_endpoints(&mut faults, object.list("endpoints"), kind);
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        let same = |key: &str| semantic_equal(&object[key], &old[key]);
        let same_endpoints = same("endpoints");
        let labels = semantic_equal(&object["metadata"]["labels"], &old["metadata"]["labels"]);
        let changed = !(same_endpoints && same("ports") && same("addressType") && labels);
        let generation = old["metadata"].int("generation") + i64::from(changed);
        object.object("metadata").put("generation", generation);
        if !same_endpoints {
            for endpoint in object.items("endpoints") {
                endpoint.drop_key("deprecatedTopology");
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        // Endpoints that are as they were may be as bad as they were.
        let same = semantic_equal(&object["endpoints"], &old["endpoints"]);
        let mut faults = Faults::default();
        if same {
            address_type(&mut faults, object.text("addressType"));
            slice_ports(&mut faults, object.list("ports"));
        } else {
            faults = self.validate(object, ctx);
        }
        check::immutable_as(&mut faults, &Path::new("addressType"), "s", &object["addressType"], &old["addressType"]);
        faults
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() && object.text("addressType") == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".into());
        }
        let managed = object["metadata"]["labels"].text("endpointslice.kubernetes.io/managed-by");
        if !["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"].contains(&managed) {
            for (i, endpoint) in object.list("endpoints").iter().enumerate() {
                warnings.extend(addresses::ip_list_warnings(&format!("endpoints[{i}].addresses"), endpoint.texts("addresses")));
            }
        }
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        columns::ENDPOINTSLICES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let ports = object.list("ports").iter().map(|port| match port.opt_int("port") {
            Some(number) => number.to_string(),
            None => port.opt_text("name").unwrap_or("*").to_owned(),
        });
        let addresses = object.list("endpoints").iter().flat_map(|endpoint| endpoint.texts("addresses")).map(str::to_owned);
        vec![
            table::name(object),
            object.text("addressType").into(),
            some(ports.collect()).into(),
            some(addresses.collect()).into(),
            table::age(object, now),
        ]
    }
}

/// The first three, and how many more there are.
fn some(mut all: Vec<String>) -> String {
    let more = all.len().saturating_sub(3);
    all.truncate(3);
    let listed = all.join(",");
    if more > 0 {
        format!("{listed} + {more} more...")
    } else if listed.is_empty() {
        "<unset>".into()
    } else {
        listed
    }
}

fn address_type(faults: &mut Faults, kind: &str) {
    check::required_one_of(faults, &Path::new("addressType"), kind, &["FQDN", "IPv4", "IPv6"]);
}

fn slice_endpoints(faults: &mut Faults, endpoints: &[Value], kind: &str) {
    let path = Path::new("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        return faults.too_many(&path, endpoints.len(), MAX_ENDPOINTS);
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let at = path.index(i);
        let addresses_at = at.child("addresses");
        let addresses: Vec<&str> = endpoint.texts("addresses").collect();
        if addresses.is_empty() {
            faults.required(&addresses_at, "must contain at least 1 address");
        } else if addresses.len() > MAX_ADDRESSES {
            faults.too_many(&addresses_at, addresses.len(), MAX_ADDRESSES);
        }
        for (j, address) in addresses.iter().enumerate() {
            let here = addresses_at.index(j);
            match kind {
                "IPv4" | "IPv6" => {
                    let wanted_v4 = kind == "IPv4";
                    let is_address =
                        if wanted_v4 { check::ip(faults, &here, address) } else { check::canonical_ip(faults, &here, address) };
                    if !is_address {
                        continue;
                    }
                    if names::parse_ip(address).is_none_or(|ip| ip.is_ipv4() != wanted_v4) {
                        let article = if wanted_v4 { "must be an IPv4 address" } else { "must be an IPv6 address" };
                        faults.invalid_str(&addresses_at, address, article);
                    }
                    check::non_special_ip(faults, &here, address);
                }
                "FQDN" => domain_name(faults, &here, address),
                _ => {}
            }
        }
        if let Some(node) = endpoint.opt_text("nodeName") {
            check::dns_subdomain(faults, &at.child("nodeName"), node);
        }
        if let Some(hostname) = endpoint.opt_text("hostname") {
            check::dns_label(faults, &at.child("hostname"), hostname);
        }
        if let Some(hints) = endpoint.opt("hints") {
            slice_hints(faults, &at.child("hints"), hints);
        }
    }
}

/// A domain name of at least two labels; a dot may end it.
fn domain_name(faults: &mut Faults, path: &Path<'_>, name: &str) {
    if name.is_empty() {
        return faults.required(path, "");
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let wrong = names::dns_subdomain(name);
    if !wrong.is_empty() {
        return faults.invalid_str(path, name, &wrong.join(","));
    }
    if !name.contains('.') {
        return faults.invalid_str(path, name, "should be a domain with at least two segments separated by dots");
    }
    let bad = name.split('.').map(|label| (label, names::dns_label(label))).find(|(_, wrong)| !wrong.is_empty());
    if let Some((label, wrong)) = bad {
        faults.invalid_str(path, label, &wrong.join(","));
    }
}

fn slice_hints(faults: &mut Faults, path: &Path<'_>, hints: &Value) {
    for (key, what) in [("forZones", "zones"), ("forNodes", "nodes")] {
        let at = path.child(key);
        let list = hints.list(key);
        if list.len() > MAX_HINTS {
            faults.too_many(&at, list.len(), MAX_HINTS);
            return;
        }
        let mut seen = HashSet::new();
        for (i, hint) in list.iter().enumerate() {
            let here = at.index(i);
            let name = hint.text("name");
            if !seen.insert(name) {
                check::duplicate(faults, &here.child("name"), name);
            }
            if what == "zones" {
                check::invalid_each(faults, &here.child("name"), name, names::label_value(name));
            } else {
                check::dns_subdomain(faults, &here.child("name"), name);
            }
        }
    }
}

fn slice_ports(faults: &mut Faults, ports: &[Value]) {
    let path = Path::new("ports");
    if ports.len() > MAX_PORTS {
        return faults.too_many(&path, ports.len(), MAX_PORTS);
    }
    let mut seen = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = port.text("name");
        if !name.is_empty() {
            check::dns_label(faults, &at.child("name"), name);
        }
        if !seen.insert(name) {
            check::duplicate(faults, &at.child("name"), name);
        }
        match port.opt_text("protocol") {
            None => faults.required(&at.child("protocol"), ""),
            Some(protocol) => check::one_of(faults, &at.child("protocol"), protocol, PROTOCOLS),
        }
        if let Some(protocol) = port.opt_text("appProtocol") {
            check::qualified_name(faults, &at.child("appProtocol"), protocol);
        }
    }
}
