//! Addresses, Ingresses and Services.

use std::collections::BTreeMap;

use corten_kinds::strategy;
use serde_json::{Value, json};

use super::{context, create, same, update};

#[test]
fn addresses_and_ranges_are_read_strictly() {
    let policy =
        |cidr: &str| json!({ "spec": { "podSelector": {}, "ingress": [{ "from": [{ "ipBlock": { "cidr": cidr } }] }] } });
    let at = "spec.ingress[0].from[0].ipBlock.cidr: Invalid value:";
    check(
        "networkpolicies",
        "networking.k8s.io",
        &policy("192.168.0.5/24"),
        &[&format!("{at} \"192.168.0.5/24\": must not have bits set beyond the prefix length")],
    );
    check(
        "networkpolicies",
        "networking.k8s.io",
        &policy("010.0.0.0/8"),
        &[&format!("{at} \"010.0.0.0/8\": must not have leading 0s in IP or prefix length")],
    );
    check(
        "networkpolicies",
        "networking.k8s.io",
        &policy("10.0.0.0"),
        &[&format!("{at} \"10.0.0.0\": must be a valid CIDR value")],
    );
    let slice = |kind: &str, address: &str| json!({ "addressType": kind, "endpoints": [{ "addresses": [address] }] });
    check(
        "endpointslices",
        "discovery.k8s.io",
        &slice("IPv4", "10.0.0.256"),
        &["endpoints[0].addresses[0]: Invalid value: \"10.0.0.256\": must be a valid IP address"],
    );
    check(
        "endpointslices",
        "discovery.k8s.io",
        &slice("IPv6", "10.0.0.1"),
        &["endpoints[0].addresses: Invalid value: \"10.0.0.1\": must be an IPv6 address"],
    );
    check(
        "endpointslices",
        "discovery.k8s.io",
        &slice("FQDN", "single"),
        &["endpoints[0].addresses[0]: Invalid value: \"single\": should be a domain with at least two segments"],
    );

    #[track_caller]
    fn check(resource: &str, group: &str, object: &Value, want: &[&str]) {
        same(&create(group, resource, object), want);
    }
}

#[test]
fn ingresses_lead_somewhere() {
    check(
        json!({ "defaultBackend": {} }),
        &["spec.defaultBackend: Invalid value: \"\": resource or service backend is required"],
    );
    check(
        json!({ "defaultBackend": { "resource": { "apiGroup": "" } } }),
        &[
            "spec.defaultBackend.resource.apiGroup: Invalid value: \"\": a lowercase RFC 1123 subdomain",
            "spec.defaultBackend.resource.kind: Required value",
            "spec.defaultBackend.resource.name: Required value",
        ],
    );
    // Without a type nothing more is said of the path.
    check(
        json!({ "rules": [{ "http": { "paths": [{ "path": "x" }] } }] }),
        &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
    );

    #[track_caller]
    fn check(spec: Value, want: &[&str]) {
        same(&create("networking.k8s.io", "ingresses", &json!({ "spec": spec })), want);
    }
}

/// What is accepted with a warning.
#[test]
fn deprecated_labels_and_loose_addresses_are_warned_of() {
    let warnings = |group: &str, resource: &str, object: Value| {
        let extra = BTreeMap::new();
        strategy(group, resource).expect("the kind has rules").warnings(&object, None, &context(&extra, ""))
    };
    let arch = "deprecated since v1.14; use \"kubernetes.io/arch\" instead";
    let label = "beta.kubernetes.io/arch";
    let class = json!({ "allowedTopologies": [{ "matchLabelExpressions": [{ "key": label, "values": ["a"] }] }] });
    let want = [format!("allowedTopologies[0].matchLabelExpressions[0].key: {arch}")];
    assert_eq!(warnings("storage.k8s.io", "storageclasses", class), want);
    let capacity = json!({ "nodeTopology": { "matchExpressions": [{ "key": label, "operator": "Exists" }] } });
    let want = [format!("nodeTopology.matchExpressions[0].key: {label} is {arch}")];
    assert_eq!(warnings("storage.k8s.io", "csistoragecapacities", capacity), want);
    let class = json!({ "scheduling": { "nodeSelector": { label: "amd64" } } });
    assert_eq!(warnings("node.k8s.io", "runtimeclasses", class), [format!("scheduling.nodeSelector: {arch}")]);
    let slice = json!({ "addressType": "IPv6", "endpoints": [{ "addresses": ["2001:DB8::1"] }] });
    let want = "endpoints[0].addresses[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")";
    assert_eq!(warnings("discovery.k8s.io", "endpointslices", slice), [want]);
    let policy = json!({ "spec": { "egress": [{ "to": [{ "ipBlock": { "cidr": "2001:DB8::/64" } }] }] } });
    let want = "spec.egress[0].to[0].ipBlock.cidr: IPv6 CIDR value \"2001:DB8::/64\" should be in RFC 5952 canonical format \
                (\"2001:db8::/64\")";
    assert_eq!(warnings("networking.k8s.io", "networkpolicies", policy), [want]);
}

#[test]
fn updates_of_addresses_tell_what_is_wrong_besides_what_changed() {
    let address = json!({ "metadata": { "name": "10.0.0.1" }, "spec": { "parentRef": { "resource": "services", "name": "a" } } });
    let got = update("networking.k8s.io", "ipaddresses", "", &address, &json!({ "spec": { "parentRef": { "name": null } } }));
    let fields: Vec<_> = got.iter().filter_map(|fault| fault.split(':').next()).collect();
    assert_eq!(fields, ["spec.parentRef.name", "spec.parentRef"]);
}
