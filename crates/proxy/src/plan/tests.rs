use super::*;

fn node() -> Node {
    Node { name: "n1".into(), zone: None, cluster_ranges: vec!["10.42.0.0/16".parse().unwrap()] }
}

fn service(spec: serde_json::Value) -> Service {
    let mut all = serde_json::json!({
        "clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7"], "type": "ClusterIP",
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080}],
    });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(serde_json::json!({
        "metadata": {"namespace": "ns", "name": "web"}, "spec": all,
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}]}},
    }))
    .unwrap()
}

/// Endpoints as (last byte, node).
fn slice(endpoints: &[(u8, &str)]) -> Vec<Arc<EndpointSlice>> {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(last, node)| serde_json::json!({"addresses": [format!("10.42.0.{last}")], "nodeName": node, "conditions": {"ready": true}}))
        .collect();
    vec![Arc::new(
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "ns", "name": "web-x"}, "addressType": "IPv4",
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}], "endpoints": endpoints,
        }))
        .unwrap(),
    )]
}

fn element(map: Map, key: &str, value: &str) -> ((Map, String), Option<String>) {
    ((map, key.to_owned()), (!value.is_empty()).then(|| value.to_owned()))
}

#[track_caller]
fn check(spec: serde_json::Value, endpoints: &[(u8, &str)], chains: &[(&str, &[&str])], elements: &[(Map, &str, &str)]) {
    let fragment = plan(&service(spec), &slice(endpoints), &node());
    let expected: BTreeMap<String, Vec<String>> =
        chains.iter().map(|(name, rules)| ((*name).to_owned(), rules.iter().map(|rule| (*rule).to_owned()).collect())).collect();
    assert_eq!(fragment.v4.chains, expected);
    let expected: BTreeMap<_, _> = elements.iter().map(|(map, key, value)| element(*map, key, value)).collect();
    assert_eq!(fragment.v4.elements, expected);
    assert_eq!(fragment.v6, Part::default());
}

const OFF_CLUSTER: &str = "ip saddr != { 10.42.0.0/16 } jump mark-masquerade";

#[test]
fn a_cluster_ip_leads_to_every_endpoint() {
    check(
        serde_json::json!({}),
        &[(5, "n1"), (6, "n2")],
        &[
            ("service/ns/web/tcp/80", &[OFF_CLUSTER, "goto cluster/ns/web/tcp/80"]),
            (
                "cluster/ns/web/tcp/80",
                &["meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.42.0.5 . 8080, 1 : 10.42.0.6 . 8080 }"],
            ),
        ],
        &[
            (Map::ServiceIps, "10.43.0.7 . tcp . 80", "goto service/ns/web/tcp/80"),
            (Map::Hairpin, "10.42.0.5 . 10.42.0.5", ""),
            (Map::Hairpin, "10.42.0.6 . 10.42.0.6", ""),
        ],
    );
}

#[test]
fn without_endpoints_callers_are_rejected() {
    check(
        serde_json::json!({"type": "NodePort", "externalIPs": ["203.0.113.1"]}),
        &[],
        &[],
        &[
            (Map::NoEndpoints, "10.43.0.7 . tcp . 80", "goto reject-chain"),
            (Map::NoEndpoints, "203.0.113.1 . tcp . 80", "goto reject-chain"),
            (Map::NoEndpointNodePorts, "tcp . 30080", "goto reject-chain"),
        ],
    );
}

#[test]
fn a_node_port_masquerades() {
    check(
        serde_json::json!({"type": "NodePort"}),
        &[(5, "n2")],
        &[
            ("service/ns/web/tcp/80", &[OFF_CLUSTER, "goto cluster/ns/web/tcp/80"]),
            ("external/ns/web/tcp/80", &["jump mark-masquerade", "goto cluster/ns/web/tcp/80"]),
            ("cluster/ns/web/tcp/80", &["meta l4proto tcp dnat ip to 10.42.0.5:8080"]),
        ],
        &[
            (Map::ServiceIps, "10.43.0.7 . tcp . 80", "goto service/ns/web/tcp/80"),
            (Map::NodePorts, "tcp . 30080", "goto external/ns/web/tcp/80"),
            (Map::Hairpin, "10.42.0.5 . 10.42.0.5", ""),
        ],
    );
}

#[test]
fn external_policy_local_keeps_the_source_and_drops_where_no_endpoint_is() {
    let spec = serde_json::json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
    });
    let external: &[&str] = &[
        "ip saddr 10.42.0.0/16 goto cluster/ns/web/tcp/80",
        "fib saddr type local jump mark-masquerade",
        "fib saddr type local goto cluster/ns/web/tcp/80",
    ];
    let firewall: &[&str] = &["ip saddr 192.0.2.0/24 return", "ip saddr 198.51.100.9 return", "drop"];
    let service: &[&str] = &[OFF_CLUSTER, "goto cluster/ns/web/tcp/80"];
    check(
        spec.clone(),
        &[(5, "n2")],
        &[
            ("service/ns/web/tcp/80", service),
            ("external/ns/web/tcp/80", external),
            ("firewall/ns/web/tcp/80", firewall),
            ("cluster/ns/web/tcp/80", &["meta l4proto tcp dnat ip to 10.42.0.5:8080"]),
        ],
        &[
            (Map::ServiceIps, "10.43.0.7 . tcp . 80", "goto service/ns/web/tcp/80"),
            (Map::ServiceIps, "198.51.100.9 . tcp . 80", "goto external/ns/web/tcp/80"),
            (Map::NodePorts, "tcp . 30080", "goto external/ns/web/tcp/80"),
            (Map::NoEndpoints, "198.51.100.9 . tcp . 80", "drop"),
            (Map::NoEndpointNodePorts, "tcp . 30080", "drop"),
            (Map::Firewall, "198.51.100.9 . tcp . 80", "goto firewall/ns/web/tcp/80"),
            (Map::Hairpin, "10.42.0.5 . 10.42.0.5", ""),
        ],
    );
    let local = plan(&self::service(spec), &slice(&[(5, "n1"), (6, "n2")]), &node());
    assert_eq!(local.health, Some(Health { port: 31000, local_endpoints: 1 }));
    assert_eq!(local.v4.chains["external/ns/web/tcp/80"].last().unwrap(), "goto local/ns/web/tcp/80");
    assert_eq!(local.v4.chains["local/ns/web/tcp/80"], ["meta l4proto tcp dnat ip to 10.42.0.5:8080"]);
}

#[test]
fn internal_policy_local_stays_on_the_node() {
    let spec = serde_json::json!({"internalTrafficPolicy": "Local"});
    check(
        spec.clone(),
        &[(5, "n1"), (6, "n2")],
        &[
            ("service/ns/web/tcp/80", &[OFF_CLUSTER, "goto local/ns/web/tcp/80"]),
            ("local/ns/web/tcp/80", &["meta l4proto tcp dnat ip to 10.42.0.5:8080"]),
        ],
        &[(Map::ServiceIps, "10.43.0.7 . tcp . 80", "goto service/ns/web/tcp/80"), (Map::Hairpin, "10.42.0.5 . 10.42.0.5", "")],
    );
    check(spec, &[(6, "n2")], &[], &[(Map::NoEndpoints, "10.43.0.7 . tcp . 80", "drop")]);
}

#[test]
fn affinity_remembers_clients_per_endpoint() {
    let spec = serde_json::json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}});
    let fragment = plan(&service(spec), &slice(&[(5, "n1"), (6, "n2")]), &node());
    assert_eq!(fragment.v4.affinity["affinity/60/ns/web/tcp/80/10.42.0.5/8080"], 60);
    assert_eq!(
        fragment.v4.chains["endpoint/ns/web/tcp/80/10.42.0.5/8080"],
        ["update @affinity/60/ns/web/tcp/80/10.42.0.5/8080 { ip saddr }", "meta l4proto tcp dnat ip to 10.42.0.5:8080"]
    );
    let pick = &fragment.v4.chains["cluster/ns/web/tcp/80"];
    assert_eq!(pick.len(), 3);
    assert_eq!(pick[0], "ip saddr @affinity/60/ns/web/tcp/80/10.42.0.5/8080 goto endpoint/ns/web/tcp/80/10.42.0.5/8080");
}

#[test]
fn services_of_no_concern_have_no_rules() {
    for spec in [
        serde_json::json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        serde_json::json!({"type": "ExternalName", "clusterIP": null, "clusterIPs": null}),
    ] {
        assert_eq!(plan(&service(spec), &slice(&[(5, "n1")]), &node()), Fragment::default());
    }
    let mut foreign = service(serde_json::json!({}));
    foreign.metadata.labels = Some([("service.kubernetes.io/service-proxy-name".to_owned(), "x".to_owned())].into());
    assert_eq!(plan(&foreign, &slice(&[(5, "n1")]), &node()), Fragment::default());
}

#[test]
fn a_udp_entry_knows_where_its_flows_may_lead() {
    let spec =
        serde_json::json!({"type": "NodePort", "ports": [{"name": "http", "protocol": "UDP", "port": 53, "nodePort": 30053}]});
    let mut slices = slice(&[(5, "n1")]);
    Arc::make_mut(&mut slices[0]).ports.as_mut().unwrap()[0].protocol = Some("UDP".into());
    let fragment = plan(&service(spec), &slices, &node());
    let endpoints = BTreeSet::from([(IpAddr::from([10, 42, 0, 5]), 8080)]);
    assert_eq!(
        fragment.udp,
        [
            UdpFrontend { ip: Some(IpAddr::from([10, 43, 0, 7])), port: 53, endpoints: endpoints.clone() },
            UdpFrontend { ip: None, port: 30053, endpoints },
        ]
    );
}
