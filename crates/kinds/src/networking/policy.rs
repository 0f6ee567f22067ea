//! NetworkPolicies.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, addresses, check, columns, meta, names, table};

pub(crate) struct NetworkPolicies;

impl Strategy for NetworkPolicies {
    fn default(&self, object: &mut Value) {
        let spec = object.object("spec");
        for (key, _) in [("ingress", "from"), ("egress", "to")] {
            for port in spec.items(key).flat_map(|rule| rule.items("ports")) {
                if !port.has("protocol") {
                    port.put("protocol", "TCP");
                }
            }
        }
        if spec.list("policyTypes").is_empty() {
            let types = if spec.list("egress").is_empty() { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
            spec.put("policyTypes", types);
        }
        spec.object("podSelector");
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let spec = &object["spec"];
        let path = Path::new("spec");
        check::label_selector(&mut faults, &path.child("podSelector"), &spec["podSelector"], false);
        for (key, peers) in [("ingress", "from"), ("egress", "to")] {
            let at = path.child(key);
            for (i, rule) in spec.list(key).iter().enumerate() {
                let here = at.index(i);
                let ports = here.child("ports");
                for (j, item) in rule.list("ports").iter().enumerate() {
                    port(&mut faults, &ports.index(j), item);
                }
                let peers_at = here.child(peers);
                for (j, item) in rule.list(peers).iter().enumerate() {
                    peer(&mut faults, &peers_at.index(j), item);
                }
            }
        }
        let types = path.child("policyTypes");
        if spec.list("policyTypes").len() > 2 {
            faults.invalid(&types, &spec["policyTypes"], "may not specify more than two policyTypes");
            return faults;
        }
        for (i, kind) in spec.texts("policyTypes").enumerate() {
            check::one_of(&mut faults, &types.index(i), kind, &["Ingress", "Egress"]);
        }
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        // Compared to the letter: an empty list is not the same as none here.
        let changed = object["spec"] != old["spec"];
        let generation = old["metadata"].int("generation") + i64::from(changed);
        meta::set_generation(object, generation);
    }

    fn warnings(&self, object: &Value, _: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for (i, rule) in object["spec"].list(direction).iter().enumerate() {
                for (j, peer) in rule.list(peers).iter().enumerate() {
                    let Some(block) = peer.opt("ipBlock") else { continue };
                    let at = format!("spec.{direction}[{i}].{peers}[{j}].ipBlock");
                    warnings.extend(addresses::cidr_warnings(&format!("{at}.cidr"), block.text("cidr")));
                    warnings.extend(addresses::cidr_list_warnings(&format!("{at}.except"), block.texts("except")));
                }
            }
        }
        warnings
    }

    fn columns(&self) -> &'static [Column] {
        columns::NETWORKPOLICIES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![table::name(object), table::selector(&object["spec"]["podSelector"]).into(), table::age(object, now)]
    }
}

fn port(faults: &mut Faults, path: &Path<'_>, port: &Value) {
    check::optional_one_of(faults, path, port, "protocol", &["TCP", "UDP", "SCTP"]);
    let number = &port["port"];
    let end = port.opt_int("endPort");
    let end_at = path.child("endPort");
    match number {
        Value::Null => {
            if let Some(end) = end {
                faults.invalid_int(&end_at, end, "may not be specified when `port` is not specified");
            }
        }
        Value::String(name) => {
            if let Some(end) = end {
                faults.invalid_int(&end_at, end, "may not be specified when `port` is non-numeric");
            }
            check::invalid_each(faults, &path.child("port"), name, names::port_name(name));
        }
        _ => {
            let first = number.as_i64().unwrap_or_default();
            check::port_number(faults, &path.child("port"), first);
            if let Some(end) = end {
                if end < first {
                    // The port is shown, not its end.
                    faults.invalid_int(&end_at, first, "must be greater than or equal to `port`");
                }
                check::port_number(faults, &end_at, end);
            }
        }
    }
}

fn peer(faults: &mut Faults, path: &Path<'_>, peer: &Value) {
    let mut count = 0;
    for key in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = peer.opt(key) {
            count += 1;
            check::label_selector(faults, &path.child(key), selector, false);
        }
    }
    if let Some(block) = peer.opt("ipBlock") {
        count += 1;
        ip_block(faults, &path.child("ipBlock"), block);
    }
    if count == 0 {
        faults.required(path, "must specify a peer");
    } else if count > 1 && peer.has("ipBlock") {
        faults.forbidden(path, "may not specify both ipBlock and another peer");
    }
}

fn ip_block(faults: &mut Faults, path: &Path<'_>, block: &Value) {
    let cidr = block.text("cidr");
    if cidr.is_empty() {
        return faults.required(&path.child("cidr"), "");
    }
    check::cidr(faults, &path.child("cidr"), cidr);
    let net =
        |text: &str| names::parse_cidr(text).and_then(|(ip, length)| ipnet::IpNet::new(ip, length).ok()).map(|net| net.trunc());
    let Some(whole) = net(cidr) else { return };
    let at = path.child("except");
    for (i, except) in block.texts("except").enumerate() {
        let here = at.index(i);
        check::cidr(faults, &here, except);
        let Some(part) = net(except) else { continue };
        if !whole.contains(&part) || whole.prefix_len() >= part.prefix_len() {
            faults.invalid_str(&here, except, "must be a strict subset of `cidr`");
        }
    }
}
