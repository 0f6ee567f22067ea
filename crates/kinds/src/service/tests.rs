use serde_json::{Value, json};

use super::Services;
use crate::Strategy;
use crate::testing::context;

fn service(spec: &Value) -> Value {
    let mut service = json!({ "metadata": { "name": "s" }, "spec": spec });
    Services.default(&mut service);
    service
}

#[test]
fn allocated_values_survive_an_update_that_leaves_them_out() {
    let old = json!({ "type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [
        { "name": "a", "port": 80, "nodePort": 30001 }, { "name": "b", "port": 81, "nodePort": 30002 },
    ] });
    // What the client sends, and the addresses and node ports that come of it.
    let cases = [
        // Ports are known by name, not by number.
        (
            json!({ "type": "NodePort", "ports": [{ "name": "a", "port": 8080 }, { "name": "c", "port": 81 }] }),
            json!(["10.0.0.1"]),
            json!([30001, null]),
        ),
        // A number that another port took is not given again.
        (
            json!({ "type": "NodePort", "ports": [{ "name": "b", "port": 81 }, { "name": "a", "port": 80, "nodePort": 30002 }] }),
            json!(["10.0.0.1"]),
            json!([null, 30002]),
        ),
        // Node ports go with the type that has them when no new ones are asked for.
        (
            json!({ "type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": [{ "name": "a", "port": 80, "nodePort": 30001 }] }),
            json!(["10.0.0.1"]),
            json!([null]),
        ),
        (
            json!({ "type": "ClusterIP", "ports": [{ "name": "a", "port": 80, "nodePort": 30003 }] }),
            json!(["10.0.0.1"]),
            json!([30003]),
        ),
        (json!({ "type": "ExternalName", "clusterIPs": ["10.0.0.1"], "externalName": "x", "ports": [] }), Value::Null, json!([])),
    ];
    for (spec, addresses, node_ports) in cases {
        let (mut new, old) = (service(&spec), service(&old));
        super::complete_cluster_ips(&mut new, Some(&old));
        Services.prepare_update(&mut new, &old, &context(""));
        let ports: Vec<&Value> = new["spec"]["ports"].as_array().unwrap().iter().map(|port| &port["nodePort"]).collect();
        assert_eq!(new["spec"]["clusterIPs"], addresses, "{spec}");
        assert_eq!(json!(ports), node_ports, "{spec}");
    }
}

#[test]
fn what_has_no_address_has_no_internal_policy_either() {
    let mut external = service(&json!({ "type": "ExternalName", "externalName": "x", "internalTrafficPolicy": "Local" }));
    assert_eq!(external["spec"]["internalTrafficPolicy"], "Local");
    Services.canonicalize(&mut external);
    assert_eq!(external["spec"]["internalTrafficPolicy"], Value::Null);
}

#[test]
fn node_ports_are_not_kept_by_a_balancer_that_needs_none() {
    let ports = json!([{ "port": 80, "nodePort": 30001 }]);
    let old = service(&json!({ "type": "LoadBalancer", "ports": ports }));
    for (allocates, kept) in [(true, json!(30001)), (false, Value::Null)] {
        let spec = json!({ "type": "LoadBalancer", "allocateLoadBalancerNodePorts": allocates, "ports": [{ "port": 80 }] });
        let mut new = service(&spec);
        super::complete_cluster_ips(&mut new, Some(&old));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], kept);
    }
}

#[test]
fn leaving_the_load_balancer_type_keeps_the_conditions() {
    let mut old = service(&json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] }));
    old["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "1.2.3.4" }] }, "conditions": [{ "type": "A" }] });
    let mut new = service(&json!({ "type": "ClusterIP", "ports": [{ "port": 80 }] }));
    Services.prepare_update(&mut new, &old, &context(""));
    assert_eq!(new["status"], json!({ "loadBalancer": {}, "conditions": [{ "type": "A" }] }));
}

#[test]
fn names_are_labels() {
    for (name, fits) in [("web", true), ("1web", true), ("web-1", true), ("Web", false), ("a.b", false)] {
        assert_eq!(Services.validate_name(name, false).is_empty(), fits, "{name}");
    }
}

#[test]
#[rustfmt::skip]
fn warnings_for_what_has_no_effect() {
    check(json!({ "clusterIP": "None", "externalIPs": ["1.2.3.4"] }), &["spec.externalIPs is ignored for headless services"]);
    check(json!({ "clusterIP": "None", "loadBalancerIP": "1.2.3.4", "sessionAffinity": "ClientIP" }),
          &["spec.loadBalancerIP is ignored for headless services", "spec.SessionAffinity is ignored for headless services"]);
    check(json!({ "externalIPs": ["1.2.3.4"] }), &["spec.externalIPs is deprecated and may no longer be implemented in some clusters"]);
    check(json!({ "type": "ExternalName", "externalName": "x", "externalIPs": ["1.2.3.4"] }),
          &["spec.externalIPs is ignored when spec.type is \"ExternalName\""]);
    check(json!({ "externalName": "x" }), &["spec.externalName is ignored when spec.type is not \"ExternalName\""]);
    check(json!({ "trafficDistribution": "PreferClose" }), &["spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""]);
    check(json!({ "type": "LoadBalancer", "loadBalancerIP": "2001:DB8::1" }),
          &["spec.loadBalancerIP: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")"]);
    check(json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1/8"] }),
          &["spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)"]);

    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        assert_eq!(Services.warnings(&service(&spec), None, &context("")), expected);
    }
}
