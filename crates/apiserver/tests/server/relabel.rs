//! A change of labels and annotations alone takes a shorter way through the server. It must lead to the same as the long one.

use serde_json::{Value, json};

use crate::running::{Running, admin, request};

/// Sends a patch of a kind, and returns the answer.
async fn patch(api: &Running, path: &str, kind: &str, body: &Value) -> (u16, Value) {
    let content_type = format!("application/{kind}-patch+json");
    let query = format!("{path}?fieldManager=somebody");
    let answer = api.ask(admin(), request("PATCH", &query, &content_type), body.to_string()).await;
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap())
}

async fn create(api: &Running, path: &str, object: &Value) -> Value {
    let answer = api.ask(admin(), request("POST", path, "application/json"), object.to_string()).await;
    assert_eq!(answer.status(), 201, "{:?}", answer.body());
    serde_json::from_slice(answer.body()).unwrap()
}

/// An answer without what differs between two objects anyway.
fn alike((code, mut answer): (u16, Value), name: &str) -> (u16, String) {
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        answer["metadata"].as_object_mut().map(|meta| meta.remove(field));
    }
    if let Some(entries) = answer["metadata"]["managedFields"].as_array_mut() {
        // They are ordered by time, to the second, which is another one for the second object now and then.
        entries.iter_mut().for_each(|entry| drop(entry["time"].take()));
        entries.sort_by_key(|entry| entry["manager"].to_string());
    }
    (code, answer.to_string().replace(name, "NAME"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_short_way_leads_where_the_long_one_does() {
    let api = Running::start(|_, config| config.disable_admission_plugins.push("ServiceAccount".into())).await;
    create(&api, "/api/v1/namespaces", &json!({"metadata": {"name": "a"}})).await;
    let objects = [
        (
            "pods",
            json!({"spec": {"containers": [{"name": "c", "image": "i", "args": []}], "tolerations": [{"operator": "Exists"}]}}),
        ),
        ("configmaps", json!({"data": {"x": "[]"}, "immutable": true})),
    ];
    // Each once as it is, and once with an operation that tests something: which is the long way.
    let replace = |field: &str, value: Value| json!([{"op": "add", "path": format!("/metadata/{field}"), "value": value}]);
    let remove = |field: &str| json!([{"op": "remove", "path": format!("/metadata/{field}")}]);
    let patches = [
        replace("labels/example.com~1x", json!("1")),
        replace("labels/example.com~1x", json!("2")),
        replace("labels/example.com~1x", json!("2")),
        replace("annotations/note", json!("some [] {} \"words\"")),
        replace("labels/bad", json!("no label value!")),
        replace("annotations/-bad-", json!("")),
        remove("annotations/absent"),
        remove("annotations/note"),
        remove("labels/example.com~1x"),
        replace("labels/app", json!("web")),
    ];
    for (plural, object) in objects {
        let path = format!("/api/v1/namespaces/a/{plural}");
        for name in ["short", "long"] {
            let mut object = object.clone();
            object["metadata"] = json!({"name": name, "labels": {"app": "x"}, "annotations": {"first": "1"}});
            create(&api, &path, &object).await;
        }
        for body in &patches {
            let short = patch(&api, &format!("{path}/short"), "json", body).await;
            let mut tested = body.clone();
            tested.as_array_mut().unwrap().insert(0, json!({"op": "test", "path": "/metadata/name", "value": "long"}));
            let long = patch(&api, &format!("{path}/long"), "json", &tested).await;
            assert_eq!(alike(short, "short"), alike(long, "long"), "{plural}: {body}");
        }
        let ways: Vec<_> = [("short", json!({})), ("long", json!({"metadata": {"generateName": ""}}))].into();
        for (name, mut aside) in ways {
            aside["metadata"]["annotations"] = json!({"note": "n", "first": null});
            assert_eq!(patch(&api, &format!("{path}/{name}"), "merge", &aside).await.0, 200);
            aside["metadata"]["annotations"] = json!({"note": null});
            aside["metadata"]["labels"] = json!({"b": "c"});
            assert_eq!(patch(&api, &format!("{path}/{name}"), "strategic-merge", &aside).await.0, 200);
        }
        let mut last = Vec::new();
        for name in ["short", "long"] {
            let answer = api.ask(admin(), request("GET", &format!("{path}/{name}"), "application/json"), "").await;
            last.push(alike((answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap()), name));
        }
        assert_eq!(last[0], last[1]);
        assert!(last[0].1.contains("\"b\":\"c\"") && !last[0].1.contains("note"), "{}", last[0].1);
    }
    api.stop().await;
}
