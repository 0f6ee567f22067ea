//! What holds for any sequence of writes and any selector, against a server in the process.

use std::collections::BTreeMap;

use bytes::Bytes;
use corten_apiserver::User;
use http_body_util::Full;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::running::{Running, admin, request};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

struct Api(Running);

impl Api {
    async fn start() -> Self {
        Self(Running::start(|_, _| {}).await)
    }

    async fn send(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> (u16, Bytes) {
        let answer = self.0.ask(admin(), request(method, path, kind), body).await;
        (answer.status().as_u16(), answer.into_body())
    }

    async fn json(&self, method: &str, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let (code, bytes) = self.send(method, path, kind, body).await;
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.json("GET", path, "application/json", &Value::Null).await
    }
}

/// Runs `case` for many inputs on one server.
fn check<S, F>(cases: u32, strategy: S, case: F)
where
    S: Strategy,
    F: AsyncFn(&Api, S::Value),
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let api = runtime.block_on(Api::start());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&strategy, |value| {
        runtime.block_on(case(&api, value));
        Ok(())
    });
    runtime.block_on(api.0.stop());
    outcome.unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    /// Creates the object or changes its label and data.
    Put {
        name: u8,
        color: Option<u8>,
        data: u8,
    },
    Delete {
        name: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = (0u8..5, proptest::option::of(0u8..3), 0u8..3).prop_map(|(name, color, data)| Step::Put { name, color, data });
    let delete = (0u8..5).prop_map(|name| Step::Delete { name });
    proptest::collection::vec(prop_oneof![3 => put, 1 => delete], 0..12)
}

fn selector() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "labelSelector=color%3D1",
        "labelSelector=color%21%3D1",
        "labelSelector=color%20in%20(0,2)",
        "labelSelector=color%20notin%20(0,1)",
        "labelSelector=color",
        "labelSelector=%21color",
        "labelSelector=color%3E0",
        "labelSelector=color%3C2",
        "labelSelector=color%3E0,color%3C2",
        "fieldSelector=metadata.name%3Do1",
        "fieldSelector=metadata.name%21%3Do1",
        "labelSelector=color%3D1&fieldSelector=metadata.name%21%3Do1",
        "labelSelector=",
    ])
}

async fn play(api: &Api, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Put { name, color, data } => {
                let labels = color.map_or_else(|| json!({}), |color| json!({"color": color.to_string()}));
                let object = json!({"metadata": {"name": format!("o{name}"), "labels": labels}, "data": {"k": data.to_string()}});
                let (code, body) = api.json("PUT", &format!("{MAPS}/o{name}"), "application/json", &object).await;
                if code == 404 {
                    let (code, body) = api.json("POST", MAPS, "application/json", &object).await;
                    assert_eq!(code, 201, "{body}");
                } else {
                    assert_eq!(code, 200, "{body}");
                }
            }
            Step::Delete { name } => {
                api.json("DELETE", &format!("{MAPS}/o{name}"), "application/json", &Value::Null).await;
            }
        }
    }
}

/// Objects of a list by name, as far as a watch must reproduce them.
fn by_name(list: &Value) -> BTreeMap<String, Value> {
    let item = |item: &Value| {
        let metadata = &item["metadata"];
        let shown = json!([metadata["resourceVersion"], metadata["labels"], item["data"]]);
        (metadata["name"].as_str().unwrap().to_owned(), shown)
    };
    list["items"].as_array().unwrap().iter().map(item).collect()
}

#[test]
fn a_list_and_the_watch_from_it_make_the_later_list() {
    check(24, (steps(), steps(), selector()), async |api, (before, after, selector)| {
        play(api, &before).await;
        let (_, list) = api.get(&format!("{MAPS}?{selector}")).await;
        let mut model = by_name(&list);
        play(api, &after).await;
        let (_, later) = api.get(&format!("{MAPS}?{selector}")).await;
        let expected = by_name(&later);

        // The old list can be asked for again.
        let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
        let exact = format!("{MAPS}?{selector}&resourceVersion={revision}&resourceVersionMatch=Exact");
        assert_eq!(by_name(&api.get(&exact).await.1), model);

        let path = format!("{MAPS}?watch=1&resourceVersion={revision}&timeoutSeconds=1&{selector}");
        let (code, body) = api.send("GET", &path, "application/json", Vec::new()).await;
        assert_eq!(code, 200);
        for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line).unwrap();
            let object = json!({"items": [event["object"]]});
            let (name, shown) = by_name(&object).pop_first().unwrap();
            let was_there = model.contains_key(&name);
            match event["type"].as_str().unwrap() {
                "ADDED" => assert!(!was_there, "{name} was there already"),
                "MODIFIED" | "DELETED" => assert!(was_there, "{name} was not there"),
                other => panic!("{other}"),
            }
            match event["type"].as_str().unwrap() {
                "DELETED" => model.remove(&name),
                _ => model.insert(name, shown),
            };
        }
        assert_eq!(model, expected, "{selector}");
    });
}

/// A small document of data, labels and annotations.
fn document() -> impl Strategy<Value = Value> {
    let texts = || proptest::collection::btree_map("[a-d]", "[x-z]{1,2}", 0..4);
    (texts(), texts(), texts()).prop_map(|(data, labels, annotations)| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"labels": labels, "annotations": annotations}, "data": data})
    })
}

#[test]
fn apply_is_idempotent_and_owns_what_it_says() {
    check(40, (document(), document(), "[m-p]"), async |api, (first, second, name)| {
        let path = format!("{MAPS}/apply-{name}?fieldManager=one&force=true");
        for mut document in [first, second] {
            document["metadata"]["name"] = format!("apply-{name}").into();
            let document = &document;
            let (code, once) = api.json("PATCH", &path, APPLY, document).await;
            assert!(code < 300, "{once}");
            let (code, twice) = api.json("PATCH", &path, APPLY, document).await;
            assert_eq!((code, &twice), (200, &once), "the second time changes nothing, not even the revision");
            // The only manager: what it no longer says is gone.
            for field in ["/data", "/metadata/labels", "/metadata/annotations"] {
                let wanted = document.pointer(field).filter(|map| map.as_object().is_some_and(|map| !map.is_empty()));
                let got = once.pointer(field).filter(|map| map.as_object().is_some_and(|map| !map.is_empty()));
                assert_eq!(got, wanted, "{field}");
            }
        }
    });
}

#[test]
fn a_patch_changes_only_what_it_names() {
    check(40, (document(), "[a-d]", proptest::option::of("[x-z]{1,2}"), 0usize..3), async |api, (object, key, value, kind)| {
        let mut object = object;
        object["metadata"]["generateName"] = "patch-".into();
        let (code, made) = api.json("POST", MAPS, "application/json", &object).await;
        assert_eq!(code, 201, "{made}");
        let path = format!("{MAPS}/{}", made["metadata"]["name"].as_str().unwrap());
        let (kind, patch) = match kind {
            0 => (MERGE, json!({"data": {&key: value}})),
            1 => ("application/strategic-merge-patch+json", json!({"data": {&key: value}})),
            _ => {
                let all = made["data"].as_object().cloned().unwrap_or_default();
                let mut all: BTreeMap<String, Value> = all.into_iter().collect();
                match &value {
                    Some(value) => all.insert(key.clone(), value.as_str().into()),
                    None => all.remove(&key),
                };
                ("application/json-patch+json", json!([{"op": "add", "path": "/data", "value": all}]))
            }
        };
        let (code, patched) = api.json("PATCH", &path, kind, &patch).await;
        assert_eq!(code, 200, "{patched}");
        let mut expected = made["data"].as_object().cloned().unwrap_or_default();
        match value {
            Some(value) => expected.insert(key, value.into()),
            None => expected.remove(&key),
        };
        assert_eq!(patched["data"].as_object().cloned().unwrap_or_default(), expected);
        for field in ["labels", "annotations", "uid", "name", "creationTimestamp"] {
            assert_eq!(patched["metadata"][field], made["metadata"][field], "{field}");
        }
    });
}

#[test]
fn writers_of_one_object_are_linearizable() {
    check(6, (2usize..6, 1usize..8), async |api, (writers, rounds)| {
        let (_, made) =
            api.json("POST", MAPS, "application/json", &json!({"metadata": {"generateName": "n-"}, "data": {"n": "0"}})).await;
        let path = &format!("{MAPS}/{}", made["metadata"]["name"].as_str().unwrap());
        // Each adds one to what it has read, and again when somebody was faster.
        let writer = async || {
            let mut seen = Vec::new();
            while seen.len() < rounds {
                let (_, mut object) = api.get(path).await;
                let next = object["data"]["n"].as_str().unwrap().parse::<u64>().unwrap() + 1;
                object["data"]["n"] = next.to_string().into();
                let (code, written) = api.json("PUT", path, "application/json", &object).await;
                match code {
                    200 => seen.push((written["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap(), next)),
                    409 => {}
                    code => panic!("{code}: {written}"),
                }
            }
            seen
        };
        let written = futures::future::join_all((0..writers).map(|_| writer())).await;
        let mut all: Vec<(u64, u64)> = written.into_iter().flatten().collect();
        all.sort_unstable();
        let numbers: Vec<u64> = all.iter().map(|(_, number)| *number).collect();
        let expected: Vec<u64> = (1..=(writers * rounds) as u64).collect();
        assert_eq!(numbers, expected, "in the order of revisions every write saw the one before it");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_client_does_not_keep_another_waiting() {
    let api = Api::start().await;
    let lists = |user: &'static str| {
        let request = http::Request::get("/api/v1/configmaps").body(Full::new(Bytes::new())).unwrap();
        let service = api.0.server.local(User::new(user, &["flood", "system:authenticated"]));
        async move { service.oneshot(request).await.unwrap().status().as_u16() }
    };
    // A level of one seat and short queues for the group, told apart by user.
    let level = json!({"metadata": {"name": "flood"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1,
        "lendablePercent": 0, "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Queue", "queuing": {"queues": 64, "handSize": 2, "queueLengthLimit": 4}}}}});
    let schema = json!({"metadata": {"name": "flood"}, "spec": {"matchingPrecedence": 2,
        "priorityLevelConfiguration": {"name": "flood"}, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "Group", "group": {"name": "flood"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}]}]}});
    // The groups of administrators are exempt: these users are none.
    let binding = json!({"metadata": {"name": "flood"}, "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io",
        "name": "flood"}], "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}});
    for (path, object) in [
        ("flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations", level),
        ("flowcontrol.apiserver.k8s.io/v1/flowschemas", schema),
        ("rbac.authorization.k8s.io/v1/clusterrolebindings", binding),
    ] {
        let (code, body) = api.json("POST", &format!("/apis/{path}"), "application/json", &object).await;
        assert_eq!(code, 201, "{body}");
    }
    let flood = futures::future::join_all((0..500).map(|_| lists("noisy")));
    let quiet = async {
        let mut codes = Vec::new();
        for _ in 0..20 {
            codes.push(lists("quiet").await);
        }
        codes
    };
    let (noisy, quiet) = tokio::join!(flood, quiet);
    assert_eq!(quiet, [200; 20], "the quiet one has queues of its own");
    assert!(noisy.iter().all(|code| matches!(code, 200 | 429)), "{noisy:?}");
    let (_, text) = api.send("GET", "/metrics", "", Vec::new()).await;
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains(r#"apiserver_flowcontrol_dispatched_requests_total{flow_schema="flood",priority_level="flood"}"#));
    assert!(text.contains(r#"apiserver_flowcontrol_nominal_limit_seats{priority_level="flood"}"#));
    api.0.stop().await;
}
