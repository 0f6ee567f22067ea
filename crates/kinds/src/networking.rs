//! `networking.k8s.io`: Ingress, IngressClass, NetworkPolicy, IPAddress, ServiceCIDR.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write, semantic_equal};
use crate::{Column, Context, Strategy, check, columns, internal, meta, names, table};

mod ingress;
mod policy;

pub(crate) use ingress::Ingresses;
pub(crate) use policy::NetworkPolicies;

pub(crate) struct IngressClasses;

impl Strategy for IngressClasses {
    fn default(&self, object: &mut Value) {
        if let Some(parameters) = object.object("spec").child("parameters")
            && !parameters.has("scope")
        {
            parameters.put("scope", "Cluster");
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("spec");
        let spec = &object["spec"];
        let at = path.child("controller");
        let controller = spec.text("controller");
        if controller.len() > 250 {
            faults.too_long(&at, 250);
        }
        check::domain_prefixed_path(&mut faults, &at, controller);
        if let Some(parameters) = spec.opt("parameters") {
            class_parameters(&mut faults, &path.child("parameters"), parameters);
        }
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("spec");
        let (now, before) = (&object["spec"]["controller"], &old["spec"]["controller"]);
        check::immutable_as(&mut faults, &path.child("controller"), "s", now, before);
        faults.0.extend(self.validate(object, ctx).0);
        faults
    }

    fn columns(&self) -> &'static [Column] {
        columns::INGRESSCLASSES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let parameters = spec.opt("parameters").map_or("<none>".to_owned(), |reference| {
            let group = reference.text("apiGroup");
            let dot = if group.is_empty() { "" } else { "." };
            format!("{}{dot}{group}/{}", reference.text("kind"), reference.text("name"))
        });
        vec![table::name(object), spec.text("controller").into(), parameters.into(), table::age(object, now)]
    }
}

/// A reference to an object by group, kind and name.
fn typed_reference(faults: &mut Faults, path: &Path<'_>, reference: &Value) {
    if let Some(group) = reference.opt_text("apiGroup") {
        check::dns_subdomain(faults, &path.child("apiGroup"), group);
    }
    for key in ["kind", "name"] {
        let value = reference.text(key);
        if value.is_empty() {
            faults.required(&path.child(key), "");
        } else {
            check::invalid_each(faults, &path.child(key), value, names::name_is_path_segment(value, false));
        }
    }
}

fn class_parameters(faults: &mut Faults, path: &Path<'_>, reference: &Value) {
    typed_reference(faults, path, reference);
    let namespace_at = path.child("namespace");
    let namespace = reference.opt_text("namespace");
    match reference.opt_text("scope") {
        None => faults.required(&path.child("scope"), ""),
        Some("Namespace") => match namespace {
            None => faults.required(&namespace_at, "`parameters.scope` is set to 'Namespace'"),
            Some(namespace) => check::dns_label(faults, &namespace_at, namespace),
        },
        Some("Cluster") => {
            if namespace.is_some() {
                faults.forbidden(&namespace_at, "`parameters.scope` is set to 'Cluster'");
            }
        }
        Some(other) => faults.not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
}

pub(crate) struct IpAddresses;

impl Strategy for IpAddresses {
    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let spec = Path::new("spec");
        let path = spec.child("parentRef");
        let Some(parent) = object["spec"].opt("parentRef") else {
            faults.required(&path, "");
            return faults;
        };
        if !parent.text("group").is_empty() {
            check::dns_subdomain(&mut faults, &path.child("group"), parent.text("group"));
        }
        for (key, needed) in [("resource", true), ("name", true), ("namespace", false)] {
            let value = parent.text(key);
            if !value.is_empty() {
                let wrong = names::name_is_path_segment(value, false);
                check::invalid_each(&mut faults, &path.child(key), value, wrong);
            } else if needed {
                faults.required(&path.child(key), "");
            }
        }
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = self.validate(object, ctx);
        let (now, before) = (&object["spec"]["parentRef"], &old["spec"]["parentRef"]);
        if !semantic_equal(now, before) {
            let shown = internal::shown("*ParentReference", now);
            check::invalid_shown(&mut faults, &Path::new("spec").child("parentRef"), &shown, check::IMMUTABLE);
        }
        faults
    }

    fn validate_name(&self, name: &str, _: bool) -> Vec<String> {
        let wrong = names::ip_faults(name);
        match names::parse_ip(name) {
            Some(ip) if wrong.is_empty() && ip.to_string() != name => {
                vec![format!("must be in canonical form ({:?})", ip.to_string())]
            }
            _ => wrong.into_iter().map(str::to_owned).collect(),
        }
    }

    fn generates_names(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        columns::IPADDRESSES
    }

    /// One cell more than there are columns, as the reference server has it.
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let parent = &object["spec"]["parentRef"];
        let mut shown = parent.text("resource").to_owned();
        if !parent.text("group").is_empty() {
            shown = format!("{shown}.{}", parent.text("group"));
        }
        shown.make_ascii_lowercase();
        if !parent.text("namespace").is_empty() {
            shown = format!("{shown}/{}", parent.text("namespace"));
        }
        shown = format!("{shown}/{}", parent.text("name"));
        if parent.is_null() {
            shown = "<none>".into();
        }
        vec![table::name(object), shown.into(), table::age(object, now)]
    }
}

pub(crate) struct ServiceCidrs;

impl Strategy for ServiceCidrs {
    fn default(&self, object: &mut Value) {
        object.object("spec");
        object.object("status");
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", json!({}));
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let spec = Path::new("spec");
        let path = spec.child("cidrs");
        let all: Vec<&str> = object["spec"].texts("cidrs").collect();
        if all.is_empty() {
            faults.required(&path, "at least one CIDR required");
            return faults;
        }
        if all.len() > 2 {
            let shown = json!({ "CIDRs": all }).to_string();
            check::invalid_shown(&mut faults, &path, &shown, "may only hold up to 2 values");
            return faults;
        }
        let parsed: Vec<_> = all.iter().map(|cidr| names::parse_cidr(cidr)).collect();
        for (i, (cidr, parsed)) in all.iter().zip(&parsed).enumerate() {
            let at = path.index(i);
            if !check::cidr(&mut faults, &at, cidr) {
                continue;
            }
            let network = parsed.and_then(|(ip, length)| ipnet::IpNet::new(ip, length).ok());
            if let Some(wanted) = network.map(|network| network.to_string()).filter(|wanted| wanted != cidr) {
                faults.invalid_str(&at, cidr, &format!("must be in canonical form ({wanted:?})"));
            }
        }
        if matches!(parsed[..], [Some((a, _)), Some((b, _))] if a.is_ipv4() == b.is_ipv4()) {
            let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            faults.invalid(&path, &object["spec"]["cidrs"], detail);
        }
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        meta::keep_all_but_status(object, old);
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let spec = Path::new("spec");
        let path = spec.child("cidrs");
        let (now, before) = (object["spec"].list("cidrs"), old["spec"].list("cidrs"));
        match (before.len(), now.len()) {
            (was, is) if was == is || (was, is) == (1, 2) => {
                for (i, (a, b)) in now.iter().zip(before).enumerate() {
                    check::immutable(&mut faults, &path.index(i), a, b);
                }
                if was != is {
                    faults.0.extend(self.validate(object, ctx).0);
                }
            }
            _ => faults.invalid(&path, &object["spec"]["cidrs"], check::IMMUTABLE),
        }
        faults
    }

    fn columns(&self) -> &'static [Column] {
        columns::SERVICECIDRS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let all = object["spec"].texts("cidrs").collect::<Vec<_>>().join(",");
        vec![table::name(object), all.into(), table::age(object, now)]
    }
}
