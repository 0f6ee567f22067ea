use super::*;

struct Objects {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Records for Objects {
    fn namespace(&self, name: &str) -> bool {
        name == "ns"
    }
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let same = |service: &&Arc<Service>| {
            service.metadata.name.as_deref() == Some(name) && service.metadata.namespace.as_deref() == Some(namespace)
        };
        self.services.iter().find(same).cloned()
    }
    fn slices(&self, _namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let owned =
            |slice: &&Arc<EndpointSlice>| slice.metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"] == service;
        self.slices.iter().filter(owned).cloned().collect()
    }
    fn service_at(&self, ip: IpAddr) -> Option<Arc<Service>> {
        self.services.iter().find(|service| service.spec.as_ref().unwrap().cluster_ip == Some(ip.to_string())).cloned()
    }
    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        let has = |slice: &&Arc<EndpointSlice>| {
            slice.endpoints.iter().flatten().any(|endpoint| endpoint.addresses.contains(&ip.to_string()))
        };
        self.slices.iter().filter(has).cloned().collect()
    }
}

fn objects() -> Objects {
    let service = |name: &str, spec: serde_json::Value| {
        let object = serde_json::json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
        Arc::new(serde_json::from_value(object).unwrap())
    };
    let slice = |service: &str, endpoints: serde_json::Value| {
        let object = serde_json::json!({
            "metadata": {"namespace": "ns", "name": service, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"name": "http", "protocol": "TCP", "port": 8080}], "endpoints": endpoints,
        });
        Arc::new(serde_json::from_value(object).unwrap())
    };
    let ports = serde_json::json!([{"name": "http", "protocol": "TCP", "port": 80}]);
    let ready = serde_json::json!({"ready": true});
    let not_ready = serde_json::json!({"ready": false});
    Objects {
        services: vec![
            service(
                "web",
                serde_json::json!({"clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7", "fd00:43::7"], "ports": ports}),
            ),
            service("db", serde_json::json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports})),
            service("empty", serde_json::json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports})),
            service("early", serde_json::json!({"clusterIP": "None", "publishNotReadyAddresses": true, "ports": ports})),
            service("out", serde_json::json!({"type": "ExternalName", "externalName": "example.org"})),
        ],
        slices: vec![
            slice("web", serde_json::json!([{"addresses": ["10.42.0.9"], "conditions": ready}])),
            slice(
                "db",
                serde_json::json!([
                    {"addresses": ["10.42.0.5"], "conditions": ready, "hostname": "db-0"},
                    {"addresses": ["10.42.0.6"], "conditions": ready},
                    {"addresses": ["10.42.0.7"], "conditions": not_ready, "hostname": "db-2"},
                ]),
            ),
            slice("empty", serde_json::json!([{"addresses": ["10.42.0.8"], "conditions": not_ready}])),
            slice("early", serde_json::json!([{"addresses": ["10.42.0.8"], "conditions": not_ready}])),
        ],
    }
}

#[test]
#[rustfmt::skip]
fn names_are_answered_as_specified() {
    use RecordType::{A, AAAA, ANY, CNAME, NS, PTR, SOA, SRV, TXT};
    let svc = |rest: &str| format!("{rest}.ns.svc.cluster.local.");
    // Services with a cluster IP
    check(&svc("web"),                A,    "A 10.43.0.7");
    check(&svc("WEB"),                A,    "A 10.43.0.7");
    check(&svc("web"),                AAAA, "AAAA fd00:43::7");
    check(&svc("web"),                TXT,  "NODATA");
    check(&svc("_http._tcp.web"),     SRV,  "SRV 0 100 80 web.ns.svc.cluster.local. + A 10.43.0.7, AAAA fd00:43::7");
    check(&svc("web"),                SRV,  "SRV 0 100 80 web.ns.svc.cluster.local. + A 10.43.0.7, AAAA fd00:43::7");
    check(&svc("_http._udp.web"),     SRV,  "NXDOMAIN");
    check(&svc("_http._tcp.web"),     A,    "NODATA");
    check(&svc("_tcp.web"),           SRV,  "NODATA");   // a name between others
    check(&svc("_udp.web"),           SRV,  "NXDOMAIN");
    check(&svc("none"),               A,    "NXDOMAIN");
    check(&svc("a.b.web"),            A,    "NXDOMAIN");
    // Headless ones
    check(&svc("db"),                 A,    "A 10.42.0.5, A 10.42.0.6");
    check(&svc("db"),                 AAAA, "NODATA");
    check(&svc("db-0.db"),            A,    "A 10.42.0.5");
    check(&svc("10-42-0-6.db"),       A,    "A 10.42.0.6");
    check(&svc("db-2.db"),            A,    "NXDOMAIN"); // not ready
    check(&svc("_http._tcp.db"),      SRV,  "SRV 0 50 8080 db-0.db.ns.svc.cluster.local., \
                                             SRV 0 50 8080 10-42-0-6.db.ns.svc.cluster.local. + A 10.42.0.5, A 10.42.0.6");
    check(&svc("empty"),              A,    "NXDOMAIN");
    check(&svc("early"),              A,    "A 10.42.0.8");
    check(&svc("out"),                CNAME, "CNAME example.org.");
    check(&svc("out"),                A,    "alias of example.org.");
    // Pods
    check("10-42-0-5.ns.pod.cluster.local.", A,    "A 10.42.0.5");
    check("10-42-0-5.ns.pod.cluster.local.", AAAA, "NODATA");
    check("fd00--5.ns.pod.cluster.local.",   AAAA, "AAAA fd00::5");
    check("10-42-0-5.xx.pod.cluster.local.", A,    "NXDOMAIN");
    check("hello.ns.pod.cluster.local.",     A,    "NXDOMAIN");
    // The zone itself
    check("cluster.local.",                  SOA,  "SOA ns.dns.cluster.local.");
    check("cluster.local.",                  NS,   "NS ns.dns.cluster.local. + A 10.43.0.10");
    check("cluster.local.",                  A,    "NODATA");
    check("svc.cluster.local.",              A,    "NODATA");
    check("ns.svc.cluster.local.",           A,    "NODATA");
    check("xx.svc.cluster.local.",           A,    "NXDOMAIN");
    check("ns.dns.cluster.local.",           A,    "A 10.43.0.10");
    check("dns-version.cluster.local.",      TXT,  "TXT 1.1.0");
    check("example.org.cluster.local.",      A,    "NXDOMAIN");
    // Back from addresses
    check("7.0.43.10.in-addr.arpa.",         PTR,  "PTR web.ns.svc.cluster.local.");
    check("5.0.42.10.in-addr.arpa.",         PTR,  "PTR db-0.db.ns.svc.cluster.local.");
    check("6.0.42.10.in-addr.arpa.",         PTR,  "PTR 10-42-0-6.db.ns.svc.cluster.local.");
    check("99.0.42.10.in-addr.arpa.",        PTR,  "NXDOMAIN"); // ours, but nobody's
    check("7.0.43.10.in-addr.arpa.",         ANY,  "NODATA");
    check("1.2.0.192.in-addr.arpa.",         PTR,  "not ours");
    // Others'
    check("example.org.",                    A,    "not ours");
    check("xcluster.local.",                 A,    "not ours");

    #[track_caller]
    fn check(name: &str, kind: RecordType, expected: &str) {
        let zone = Zone {
            domain: Name::from_ascii("cluster.local.").unwrap(),
            ranges: vec!["10.42.0.0/16".parse().unwrap(), "10.43.0.0/16".parse().unwrap()],
            servers: vec![IpAddr::from([10, 43, 0, 10])],
        };
        let name = Name::from_ascii(name).unwrap();
        let got = answer(&zone, &name, kind, &objects());
        let words = match &got {
            Answer::NoData => "NODATA".to_owned(),
            Answer::NoSuchName => "NXDOMAIN".to_owned(),
            Answer::NotOurs => "not ours".to_owned(),
            Answer::Alias { target, .. } => format!("alias of {target}"),
            Answer::Found { answers, additionals } => {
                assert!(answers.iter().all(|record| record.ttl == TTL && record.name.to_lowercase() == name.to_lowercase()));
                let list = |records: &[Record]| records.iter().map(|record| {
                    let data = match &record.data { RData::SOA(soa) => soa.mname.to_string(), RData::TXT(_) => SCHEMA.to_owned(), data => data.to_string() };
                    format!("{} {data}", record.record_type())
                }).collect::<Vec<_>>().join(", ");
                if additionals.is_empty() { list(answers) } else { format!("{} + {}", list(answers), list(additionals)) }
            }
        };
        assert_eq!(words, expected);
    }
}
