//! Services: validation and defaults. Cluster IPs and node ports are allocated by the API server between `default` and the store.

mod allocated;
mod rules;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, addresses, check, columns, names, table};

use allocated::{cluster_ip_changes, drop_type_dependent, family_changes};
pub use allocated::{cluster_ip_faults, complete_cluster_ips};
use rules::{load_balancer_class, load_balancer_status, validate, warnings};

pub(crate) struct Services;

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

#[cfg(test)]
mod tests;
