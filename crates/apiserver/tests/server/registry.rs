//! An API server on a temporary store, driven in process: what a client sees of the generic registry and the watch cache.

use std::sync::Arc;

use crate::running::{Running, admin, request};
use serde_json::{Value, json};

struct Api(Running);

impl Api {
    async fn start() -> Self {
        let api = Self(Running::start(|_, _| {}).await);
        let namespace = json!({"metadata": {"name": "a"}});
        assert_eq!(api.send("POST", "/api/v1/namespaces", Some(namespace)).await.0, 201);
        api
    }

    /// Stops the server and starts another one on the same directory.
    async fn restart(self) -> Self {
        Self(self.0.restart().await)
    }

    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let answer = self.0.ask(admin(), request(method, path, kind), body).await;
        let (code, bytes) = (answer.status().as_u16(), answer.into_body());
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned())))
    }

    async fn create(&self, name: &str, labels: Value) -> Value {
        let object = json!({"metadata": {"name": name, "labels": labels}, "data": {"k": name}});
        let (code, object) = self.send("POST", "/api/v1/namespaces/a/configmaps", Some(object)).await;
        assert_eq!(code, 201, "{object}");
        object
    }

    /// The events of a watch until it ends.
    async fn watch(&self, query: &str) -> Vec<(String, Value)> {
        let path = format!("/api/v1/namespaces/a/configmaps?watch=1&timeoutSeconds=1&{query}");
        let (code, body) = self.send("GET", &path, None).await;
        assert_eq!(code, 200, "{body}");
        let text = body.as_str().map_or_else(|| if body.is_null() { String::new() } else { body.to_string() }, str::to_owned);
        let events = text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.map(|event| (event["type"].as_str().unwrap().to_owned(), event["object"].clone())).collect()
    }
}

fn revision(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_created_read_changed_and_deleted() {
    let api = Api::start().await;
    let created = api.create("one", json!({"app": "x"})).await;
    assert_eq!(created["kind"], "ConfigMap");
    assert!(created["metadata"]["uid"].is_string() && created["metadata"]["creationTimestamp"].is_string());
    let path = "/api/v1/namespaces/a/configmaps/one";
    assert_eq!(api.send("GET", path, None).await, (200, created.clone()));

    let mut changed = created.clone();
    changed["data"] = json!({"k": "v"});
    let (code, updated) = api.send("PUT", path, Some(changed.clone())).await;
    assert_eq!((code, &updated["data"]), (200, &json!({"k": "v"})));
    let (code, stale) = api.send("PUT", path, Some(changed)).await;
    assert_eq!((code, stale["reason"].as_str()), (409, Some("Conflict")));
    let (code, same) = api.send("PUT", path, Some(updated.clone())).await;
    assert_eq!((code, revision(&same)), (200, revision(&updated)), "an update that changes nothing does not write");
    let (code, patched) = api.send("PATCH", path, Some(json!({"data": {"k": null, "n": "1"}}))).await;
    assert_eq!((code, &patched["data"]), (200, &json!({"n": "1"})));

    let (code, again) = api.send("POST", "/api/v1/namespaces/a/configmaps", Some(json!({"metadata": {"name": "one"}}))).await;
    assert_eq!((code, again["reason"].as_str()), (409, Some("AlreadyExists")));
    let (code, gone) = api.send("DELETE", path, None).await;
    assert_eq!((code, gone["status"].as_str()), (200, Some("Success")));
    assert_eq!(api.send("GET", path, None).await.0, 404);
    api.0.stop().await;
}

/// What waits for its finalizers is marked and otherwise as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_changes_no_more_than_its_marks() {
    let api = Api::start().await;
    api.create("held", json!({})).await;
    let path = "/api/v1/namespaces/a/configmaps/held";
    let (_, held) = api.send("PATCH", path, Some(json!({"metadata": {"finalizers": ["a.b/c"]}}))).await;
    let managers = held["metadata"]["managedFields"].as_array().unwrap();
    for query in ["?dryRun=All", ""] {
        let (code, marked) = api.send("DELETE", &format!("{path}{query}"), None).await;
        assert_eq!(code, 200, "{marked}");
        assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
        assert_eq!(marked["metadata"]["managedFields"].as_array(), Some(managers));
        assert_eq!(marked["data"], held["data"]);
    }
    let (_, waiting) = api.send("GET", path, None).await;
    assert_eq!(waiting["metadata"]["managedFields"].as_array(), Some(managers));
    api.send("PATCH", path, Some(json!({"metadata": {"finalizers": null}}))).await;
    assert_eq!(api.send("GET", path, None).await.0, 404);
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_selected_and_paged_at_one_revision() {
    let api = Api::start().await;
    for n in 0..5 {
        api.create(&format!("c{n}"), json!({"parity": if n % 2 == 0 { "even" } else { "odd" }})).await;
    }
    let names = |list: &Value| {
        let items = list["items"].as_array().unwrap();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let path = "/api/v1/namespaces/a/configmaps";
    let (_, odd) = api.send("GET", &format!("{path}?labelSelector=parity%3Dodd"), None).await;
    assert_eq!(names(&odd), ["c1", "c3"]);
    assert!(odd["items"][0].get("kind").is_none(), "items of a list have no kind");

    let (_, first) = api.send("GET", &format!("{path}?limit=2"), None).await;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["c0".to_owned(), "c1".to_owned()], &json!(3)));
    api.send("DELETE", &format!("{path}/c2"), None).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = api.send("GET", &format!("{path}?continue={token}"), None).await;
    assert_eq!(names(&rest), ["c2", "c3", "c4"], "a page shows the revision of the first one");
    assert_eq!(revision(&rest), revision(&first));
    // A page at a revision is of just this revision. One object has no pages.
    let at = format!("{path}?limit=3&resourceVersion={}", revision(&first));
    assert_eq!(names(&api.send("GET", &at, None).await.1), ["c0", "c1", "c2"]);
    let one = format!("{at}&fieldSelector=metadata.name%3Dc2");
    assert_eq!(names(&api.send("GET", &one, None).await.1), Vec::<String>::new(), "it is gone by now");
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_collection_no_more_goes_than_is_meant() {
    let api = Api::start().await;
    let mut uids = Vec::new();
    for n in 0..6 {
        uids.push(api.create(&format!("c{n}"), json!({})).await["metadata"]["uid"].clone());
    }
    let path = "/api/v1/namespaces/a/configmaps";
    let left = async || {
        let (_, list) = api.send("GET", path, None).await;
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let (_, first) = api.send("GET", &format!("{path}?limit=4"), None).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (code, gone) = api.send("DELETE", &format!("{path}?continue={token}"), None).await;
    assert_eq!((code, gone["items"].as_array().unwrap().len()), (200, 2));
    assert_eq!(left().await, "c0 c1 c2 c3", "only what comes behind the token");
    let (_, page) = api.send("DELETE", &format!("{path}?limit=1"), None).await;
    assert_eq!((page["items"].as_array().unwrap().len(), &page["metadata"]["remainingItemCount"]), (1, &json!(3)));
    // The first one is not the one that is meant: those after it are left alone.
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uids[2]}});
    assert_eq!(api.send("DELETE", path, Some(options)).await.0, 409);
    assert_eq!(left().await, "c1 c2 c3");
    assert_eq!(api.send("DELETE", &format!("{path}?dryRun=All"), None).await.0, 200);
    assert_eq!(left().await, "c1 c2 c3");
    assert_eq!(api.send("DELETE", path, None).await.0, 200);
    assert_eq!(left().await, "");
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_what_a_selector_sees() {
    let api = Api::start().await;
    let one = api.create("one", json!({"a": "1"})).await;
    api.send("PATCH", "/api/v1/namespaces/a/configmaps/one", Some(json!({"data": {"k": "2"}}))).await;
    api.send("PATCH", "/api/v1/namespaces/a/configmaps/one", Some(json!({"metadata": {"labels": {"a": "2"}}}))).await;
    api.create("two", json!({"a": "1"})).await;
    api.send("DELETE", "/api/v1/namespaces/a/configmaps/two", None).await;

    let kinds = |events: Vec<(String, Value)>| events.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
    let from = format!("resourceVersion={}&labelSelector=a%3D1", revision(&one));
    assert_eq!(kinds(api.watch(&from).await), ["MODIFIED", "DELETED", "ADDED", "DELETED"]);
    assert_eq!(kinds(api.watch("resourceVersion=0").await), ["ADDED"]);
    let listed = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let events = api.watch(listed).await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].1["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/a/configmaps/held";
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/f"]}});
    api.send("POST", "/api/v1/namespaces/a/configmaps", Some(held)).await;
    let (code, marked) = api.send("DELETE", path, None).await;
    assert_eq!((code, marked["metadata"]["deletionTimestamp"].is_string()), (200, true));
    assert_eq!(api.send("GET", path, None).await.0, 200);
    let (code, _) = api.send("PATCH", path, Some(json!({"metadata": {"finalizers": null}}))).await;
    assert_eq!(code, 200);
    assert_eq!(api.send("GET", path, None).await.0, 404);
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_finds_everything_as_it_was() {
    let api = Api::start().await;
    let one = api.create("one", json!({})).await;
    let (_, before) = api.send("GET", "/api/v1/namespaces", None).await;
    let api = api.restart().await;
    assert_eq!(api.send("GET", "/api/v1/namespaces/a/configmaps/one", None).await, (200, one.clone()));
    assert_eq!(api.send("GET", "/api/v1/namespaces", None).await.1["items"], before["items"]);
    let two = api.create("two", json!({})).await;
    let number = |object: &Value| revision(object).parse::<u64>().unwrap();
    assert!(number(&two) > number(&one), "revisions go on");
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_get_addresses_and_ports_and_give_them_back() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/a/services";
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let (code, one) = api.send("POST", path, Some(service("one"))).await;
    assert_eq!(code, 201, "{one}");
    let ip = one["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let port = one["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30000..=32767).contains(&port));
    let address = format!("/apis/networking.k8s.io/v1/ipaddresses/{ip}");
    assert_eq!(api.send("GET", &address, None).await.1["spec"]["parentRef"]["name"], "one");

    let mut two = service("two");
    two["spec"]["clusterIP"] = ip.as_str().into();
    assert_eq!(api.send("POST", path, Some(two.clone())).await.0, 422);
    two["spec"]["clusterIP"] = Value::Null;
    two["spec"]["ports"][0]["nodePort"] = port.into();
    let (code, refused) = api.send("POST", path, Some(two.clone())).await;
    assert_eq!((code, refused["details"]["causes"][0]["field"].as_str()), (422, Some("spec.ports[0].nodePort")));

    api.send("DELETE", &format!("{path}/one"), None).await;
    assert_eq!(api.send("GET", &address, None).await.0, 404);
    assert_eq!(api.send("POST", path, Some(two)).await.0, 201, "the port is free again");
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_and_ports_outlive_a_restart_and_are_given_back() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/a/services";
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let (_, one) = api.send("POST", path, Some(service("one"))).await;
    let (ip, port) = (one["spec"]["clusterIP"].clone(), one["spec"]["ports"][0]["nodePort"].clone());
    let api = api.restart().await;
    let mut same = service("two");
    same["spec"]["clusterIP"] = ip.clone();
    assert_eq!(api.send("POST", path, Some(same.clone())).await.0, 422, "the address is taken after a restart");
    same["spec"]["clusterIP"] = Value::Null;
    same["spec"]["ports"][0]["nodePort"] = port.clone();
    assert_eq!(api.send("POST", path, Some(same.clone())).await.0, 422, "and so is the port");
    // A port that a Service no longer wants is free, and so is everything of one that is gone or was never stored.
    let internal = json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80, "nodePort": null}]}});
    let (code, changed) = api.send("PATCH", &format!("{path}/one"), Some(internal)).await;
    assert_eq!((code, &changed["spec"]["ports"][0]["nodePort"]), (200, &Value::Null), "{changed}");
    assert_eq!(api.send("POST", &format!("{path}?dryRun=All"), Some(same.clone())).await.0, 201);
    assert_eq!(api.send("POST", path, Some(same.clone())).await.0, 201);
    api.send("DELETE", &format!("{path}/one"), None).await;
    let mut three = service("three");
    three["spec"]["clusterIP"] = ip;
    assert_eq!(api.send("POST", path, Some(three)).await.0, 201, "the address is free again");
    let (_, addresses) = api.send("GET", "/apis/networking.k8s.io/v1/ipaddresses", None).await;
    // Those of two, three and the API server's own Service.
    assert_eq!(addresses["items"].as_array().unwrap().len(), 3, "{addresses}");
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_one_object_never_lose_an_update() {
    let api = Arc::new(Api::start().await);
    api.create("shared", json!({})).await;
    let path = "/api/v1/namespaces/a/configmaps/shared";
    let writers = (0..16).map(|n| {
        let api = api.clone();
        async move { api.send("PATCH", path, Some(json!({"data": {format!("w{n}"): "x"}}))).await.0 }
    });
    assert_eq!(futures::future::join_all(writers).await, vec![200; 16]);
    assert_eq!(api.send("GET", path, None).await.1["data"].as_object().unwrap().len(), 17);
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patched_document_is_read_as_the_version_it_says_it_is_of() {
    const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
    let api = Api::start().await;
    let target = |name: &str, utilization: i64| json!({"type": "Resource", "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": utilization}}});
    let scaler = json!({
        "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "metrics": [target("memory", 60)], "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}},
    });
    let of = |version: &str| format!("/apis/autoscaling/{version}/namespaces/a/horizontalpodautoscalers");
    assert_eq!(api.send("POST", &of("v2"), Some(scaler)).await.0, 201);
    // What v2 does not know is dropped, and what is missing then gets v2's defaults.
    let say = json!({"apiVersion": "autoscaling/v2", "spec": {"targetCPUUtilizationPercentage": 77}});
    let (code, shown) = api.send("PATCH", &format!("{}/h", of("v1")), Some(say.clone())).await;
    assert_eq!(
        (code, &shown["apiVersion"], &shown["spec"]["targetCPUUtilizationPercentage"]),
        (200, &json!("autoscaling/v1"), &json!(80))
    );
    assert_eq!(shown["metadata"]["annotations"][METRICS], Value::Null);
    let (code, refused) = api.send("PATCH", &format!("{}/h?fieldValidation=Strict", of("v1")), Some(say)).await;
    let why = refused["message"].as_str().unwrap_or_default();
    assert!(code == 422 && why.contains("unknown field \"spec.targetCPUUtilizationPercentage\""), "{refused}");
    // The form inside the server has no fields that a client may name, and there is none of it in another group.
    for (version, code, why) in [
        ("autoscaling/", 400, "name must be provided"),
        ("autoscaling/__internal", 400, "name must be provided"),
        ("apps/", 422, "no kind \"HorizontalPodAutoscaler\" is registered for the internal version of group \"apps\""),
        ("autoscaling/v9", 422, "no kind \"HorizontalPodAutoscaler\" is registered for version \"autoscaling/v9\""),
    ] {
        let (refused, status) = api.send("PATCH", &format!("{}/h", of("v2")), Some(json!({"apiVersion": version}))).await;
        let said = status["message"].as_str().unwrap_or_default();
        assert!(refused == code && said.contains(&why.replace('"', "\\\"")) || said.contains(why), "{version}: {status}");
    }
    // A version that is not served any more is understood nevertheless, in whichever group it was.
    let deployment = json!({
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    });
    let path = "/apis/apps/v1/namespaces/a/deployments";
    assert_eq!(api.send("POST", path, Some(deployment)).await.0, 201);
    let old = json!({"apiVersion": "extensions/v1beta1", "spec": {"replicas": 4}});
    let (code, shown) = api.send("PATCH", &format!("{path}/d"), Some(old)).await;
    assert_eq!((code, &shown["apiVersion"], &shown["spec"]["replicas"]), (200, &json!("apps/v1"), &json!(4)), "{shown}");
    api.0.stop().await;
}
