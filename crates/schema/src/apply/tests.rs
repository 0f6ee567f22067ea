use proptest::prelude::*;
use serde_json::json;

use super::*;

fn versions(ty: &str) -> OneVersion {
    let api_version = if ty.starts_with("apps.") { "apps/v1" } else { "v1" };
    OneVersion::new(api_version, Types::get().named(ty).unwrap())
}

fn writer<'a>(manager: &'a str, versions: &'a OneVersion) -> Writer<'a> {
    Writer {
        manager,
        api_version: &versions.api_version,
        subresource: "",
        now: Timestamp::from_second(1000).unwrap(),
        reset: None,
    }
}

/// Applies a configuration without kind and version to an object, and normalizes the result as the server does.
fn applied(ty: &str, live: Option<&Value>, config: Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
    let versions = versions(ty);
    let mut config = config;
    config["apiVersion"] = versions.api_version.as_str().into();
    config["kind"] = versions.kind.as_str().into();
    config["metadata"]["name"] = "x".into();
    let out = apply(&versions, live, &config, &versions.kind, &writer(manager, &versions), force)?;
    let mut document = crate::decode::normalize(&out.document, Types::get().named(ty).unwrap()).unwrap().document;
    document["metadata"]["uid"] = "u".into();
    Ok(document)
}

/// [`update`], in the form that the API knows.
fn updated(versions: &OneVersion, live: Option<&Value>, new: Value, writer: &Writer<'_>) -> Value {
    let mut document = update(versions, live, new, writer);
    unfold(&mut document);
    document
}

fn changed(ty: &str, live: Option<&Value>, new: Value, manager: &str) -> Value {
    let versions = versions(ty);
    let mut document = crate::decode::normalize(&new, Types::get().named(ty).unwrap()).unwrap().document;
    document["metadata"]["uid"] = "u".into();
    updated(&versions, live, document, &writer(manager, &versions))
}

fn fields(document: &Value, manager: &str) -> Value {
    let entries = document["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.into_iter().find(|entry| entry["manager"] == manager).map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

const MAP: &str = "core.v1.ConfigMap";

#[test]
fn a_first_apply_owns_what_it_sets() {
    let one = applied(MAP, None, json!({"data": {"a": "1"}, "metadata": {"labels": {"l": "1"}}}), "one", false).unwrap();
    assert_eq!(fields(&one, "one"), json!({"f:data": {"f:a": {}}, "f:metadata": {"f:labels": {"f:l": {}}}}));
    let entry = &one["metadata"]["managedFields"][0];
    assert_eq!(entry["time"], "1970-01-01T00:16:40Z");
    assert_eq!(
        (&entry["operation"], &entry["apiVersion"], &entry["fieldsType"]),
        (&json!("Apply"), &json!("v1"), &json!("FieldsV1"))
    );
}

#[test]
fn conflicts_name_the_owner() {
    let one = applied(MAP, None, json!({"data": {"a": "1", "b": "1"}}), "one", false).unwrap();
    let err = applied(MAP, Some(&one), json!({"data": {"a": "2"}}), "two", false).unwrap_err();
    assert_eq!(err.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    let err = applied(MAP, Some(&one), json!({"data": {"a": "2", "b": "2"}}), "two", false).unwrap_err();
    assert_eq!(err.to_string(), "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b");
    let status = Status::from(err).to_document();
    assert_eq!((&status["code"], &status["reason"]), (&json!(409), &json!("Conflict")));
    assert_eq!(
        status["details"]["causes"][1],
        json!({"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.b"})
    );
    let two = applied(MAP, Some(&one), json!({"data": {"a": "2"}}), "two", true).unwrap();
    assert_eq!(two["data"], json!({"a": "2", "b": "1"}));
    assert_eq!((fields(&two, "one"), fields(&two, "two")), (json!({"f:data": {"f:b": {}}}), json!({"f:data": {"f:a": {}}})));
}

#[test]
fn what_is_no_longer_applied_is_removed_unless_shared() {
    let one = applied(MAP, None, json!({"data": {"a": "1", "b": "1"}}), "one", false).unwrap();
    let less = applied(MAP, Some(&one), json!({"data": {"a": "1"}}), "one", false).unwrap();
    assert_eq!(less["data"], json!({"a": "1"}));
    let shared = applied(MAP, Some(&one), json!({"data": {"b": "1"}}), "two", false).unwrap();
    let less = applied(MAP, Some(&shared), json!({"data": {"a": "1"}}), "one", false).unwrap();
    assert_eq!(less["data"], json!({"a": "1", "b": "1"}));
    assert_eq!(fields(&less, "one"), json!({"f:data": {"f:a": {}}}));
    let none = applied(MAP, Some(&one), json!({}), "one", false).unwrap();
    assert_eq!((none.get("data"), fields(&none, "one")), (None, Value::Null));
}

#[test]
fn items_of_keyed_lists_are_owned_one_by_one() {
    let ty = "apps.v1.Deployment";
    let one = json!({"spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {"spec": {"containers": [{"name": "a", "image": "i:1"}]}}}});
    let one = applied(ty, None, one, "one", false).unwrap();
    let two = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "env": [{"name": "E", "value": "v"}]}]}}}});
    let two = applied(ty, Some(&one), two, "two", false).unwrap();
    let container = json!({"name": "a", "image": "i:1", "env": [{"name": "E", "value": "v"}], "resources": {}});
    assert_eq!(two["spec"]["template"]["spec"]["containers"], json!([container]));
    assert_eq!(
        fields(&two, "two"),
        json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
            ".": {}, "f:name": {}, "f:env": {"k:{\"name\":\"E\"}": {".": {}, "f:name": {}, "f:value": {}}}}}}}}})
    );
    assert_eq!(fields(&two, "one")["f:spec"]["f:selector"], json!({}), "selectors are owned as a whole");
    let gone = applied(ty, Some(&two), json!({"spec": {}}), "two", false).unwrap();
    assert_eq!(gone["spec"]["template"]["spec"]["containers"], json!([{"name": "a", "image": "i:1", "resources": {}}]));
}

#[test]
fn keys_have_defaults() {
    let ty = "core.v1.Service";
    let config = json!({"spec": {"ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}]}});
    let one = applied(ty, None, config, "one", false).unwrap();
    let ports = fields(&one, "one")["f:spec"]["f:ports"].as_object().cloned().unwrap();
    assert_eq!(
        ports.keys().collect::<Vec<_>>(),
        ["k:{\"port\":80,\"protocol\":\"TCP\"}", "k:{\"port\":80,\"protocol\":\"UDP\"}"]
    );
    let config = json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}});
    assert_eq!(
        applied(ty, None, config, "one", false).unwrap_err().to_string(),
        "failed to create typed patch object (/x; /v1, Kind=Service): .spec.ports: duplicate entries for key [port=80,protocol=\"TCP\"]"
    );
}

#[test]
fn sets_and_atomic_lists() {
    let one = applied(MAP, None, json!({"metadata": {"finalizers": ["example.com/a"]}}), "one", false).unwrap();
    let two = applied(MAP, Some(&one), json!({"metadata": {"finalizers": ["example.com/b"]}}), "two", false).unwrap();
    assert_eq!(two["metadata"]["finalizers"], json!(["example.com/a", "example.com/b"]));
    let none = applied(MAP, Some(&two), json!({}), "one", false).unwrap();
    assert_eq!(none["metadata"]["finalizers"], json!(["example.com/b"]));
    let pvc = "core.v1.PersistentVolumeClaim";
    let one = applied(pvc, None, json!({"spec": {"accessModes": ["ReadWriteOnce"]}}), "one", false).unwrap();
    let err = applied(pvc, Some(&one), json!({"spec": {"accessModes": ["ReadOnlyMany"]}}), "two", false).unwrap_err();
    assert_eq!(err.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.accessModes");
}

#[test]
#[rustfmt::skip]
fn refused_configurations() {
    let check = |config: Value, expected: &str| {
        let versions = versions(MAP);
        let err = apply(&versions, None, &config, "ConfigMap", &writer("m", &versions), false).unwrap_err();
        assert_eq!(err.to_string(), expected);
    };
    check(json!({"apiVersion": "v2", "kind": "ConfigMap"}), "invalid object type: /v2, Kind=ConfigMap");
    check(json!({"apiVersion": "apps/v1", "kind": "X"}), "invalid object type: apps/v1, Kind=X");
    check(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": []}}), "metadata.managedFields must be nil");
    check(json!({"apiVersion": "v1", "kind": "ConfigMap", "bogus": 1, "metadata": {"name": "c"}}), "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .bogus: field not declared in schema");
}

#[test]
fn bodies_of_applies() {
    let config = Config::read(b"data:\n  a: '1'\n  a: '2'\n").unwrap();
    assert_eq!(config.document, json!({"data": {"a": "2"}}));
    assert_eq!(
        config.strict_error().unwrap().to_string(),
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 3: key \"a\" already set in map"
    );
    assert_eq!(
        Config::read(b"- a").unwrap_err().to_string(),
        "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}"
    );
}

#[test]
fn updates_are_tracked() {
    let made = changed(MAP, None, json!({"metadata": {"name": "x"}, "data": {"a": "1", "b": "1"}}), "maker");
    assert_eq!(fields(&made, "maker"), json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}}));
    let patched = changed(MAP, Some(&made), json!({"metadata": {"name": "x"}, "data": {"a": "1", "b": "2"}}), "patcher");
    assert_eq!(fields(&patched, "maker"), json!({"f:data": {".": {}, "f:a": {}}}));
    assert_eq!(fields(&patched, "patcher"), json!({"f:data": {"f:b": {}}}));
    let err = applied(MAP, Some(&patched), json!({"data": {"b": "3"}}), "one", false).unwrap_err();
    assert_eq!(err.to_string(), "Apply failed with 1 conflict: conflict with \"patcher\" using v1: .data.b");
}

#[test]
fn documents_with_items_that_nothing_identifies_are_not_tracked() {
    let account = |secret: Value| json!({"metadata": {"name": "a"}, "secrets": [secret]});
    let made = changed("core.v1.ServiceAccount", None, account(json!({"kind": "Secret"})), "m");
    assert_eq!(made["metadata"].get("managedFields"), None);
    let made = changed("core.v1.ServiceAccount", None, account(json!({"name": "s"})), "m");
    let changed = changed("core.v1.ServiceAccount", Some(&made), account(json!({})), "m");
    assert_eq!(changed["metadata"].get("managedFields"), None);
}

#[test]
fn what_no_type_holds_back_is_not_owned_on_create() {
    let pod = json!({"metadata": {"name": "x", "labels": {"a": "1"}}, "spec": {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}});
    let made = changed("core.v1.Pod", None, pod, "maker");
    assert_eq!(
        fields(&made, "maker"),
        json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
            ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
            "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}})
    );
}

#[test]
fn managed_fields_are_reset_and_stay_so_until_the_first_apply() {
    let made = changed(MAP, None, json!({"data": {"a": "1"}}), "maker");
    for reset in [json!([]), json!([{}])] {
        let cleared = changed(MAP, Some(&made), json!({"data": {"a": "1"}, "metadata": {"managedFields": reset}}), "any");
        assert_eq!(cleared["metadata"].get("managedFields"), None);
        let later = changed(MAP, Some(&cleared), json!({"data": {"a": "2"}}), "any");
        assert_eq!(later["metadata"].get("managedFields"), None);
        let err = applied(MAP, Some(&cleared), json!({"data": {"a": "2"}}), "one", false).unwrap_err();
        assert_eq!(err.to_string(), "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a");
    }
}

#[test]
fn reset_fields_are_not_owned() {
    let versions = versions("apps.v1.Deployment");
    let status = Set::of(&[&["status"]]);
    let writer = Writer { reset: Some(&status), ..writer("m", &versions) };
    let new = json!({"metadata": {}, "spec": {"paused": true}, "status": {"replicas": 1}});
    let out = updated(&versions, None, new, &writer);
    let owned = fields(&out, "m");
    assert_eq!(owned.get("f:status"), None);
    assert_eq!(owned["f:spec"]["f:paused"], json!({}));
}

#[test]
fn old_updaters_are_merged() {
    let mut live: Option<Value> = None;
    for n in 0..15 {
        let mut data = Map::new();
        for at in 0..=n {
            data.insert(format!("k{at:02}"), "1".into());
        }
        live = Some(changed(MAP, live.as_ref(), json!({"data": data}), &format!("m{n:02}")));
    }
    let live = live.unwrap();
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    let ancient = fields(&live, "ancient-changes");
    assert_eq!(ancient["f:data"].as_object().unwrap().len(), 1 + 6, "the oldest six and the map itself");
}

#[test]
fn an_apply_that_changes_nothing_keeps_the_time() {
    let one = applied(MAP, None, json!({"data": {"a": "1"}}), "one", false).unwrap();
    let versions = versions(MAP);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "1"}});
    let later = Writer { now: Timestamp::from_second(9999).unwrap(), ..writer("one", &versions) };
    let again = apply(&versions, Some(&one), &config, "ConfigMap", &later, false).unwrap();
    assert_eq!(again, Applied { document: one, changed: false });
}

#[test]
fn times_alone_are_no_change() {
    let old = changed(MAP, None, json!({"data": {"a": "1"}}), "m");
    let mut folded = old.clone();
    folded["metadata"]["managedFields"] = folded["metadata"]["managedFields"].to_string().into();
    let mut new = old.clone();
    keep_times_when_nothing_changed(&mut new, &folded);
    assert_eq!(new, folded);
    let mut new = old.clone();
    new["metadata"]["managedFields"][0]["time"] = "2030-01-01T00:00:00Z".into();
    keep_times_when_nothing_changed(&mut new, &old);
    assert_eq!(new, old);
    new["metadata"]["managedFields"][0]["time"] = "2030-01-01T00:00:00Z".into();
    new["data"]["a"] = "2".into();
    let kept = new.clone();
    keep_times_when_nothing_changed(&mut new, &old);
    assert_eq!(new, kept);
}

#[test]
fn client_side_apply_is_taken_over() {
    let last = "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"data\":{\"a\":\"1\"}}";
    let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    let made = changed(
        MAP,
        None,
        json!({"metadata": {"annotations": annotations}, "data": {"a": "1", "b": "1"}}),
        "kubectl-client-side-apply",
    );
    let taken = applied(MAP, Some(&made), json!({"data": {"a": "2"}}), "kubectl", false).unwrap();
    assert_eq!(taken["data"]["a"], "2");
    let refreshed = taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    assert!(refreshed.contains("\"a\":\"2\"") && refreshed.ends_with('\n'));
    assert!(applied(MAP, Some(&made), json!({"data": {"b": "2"}}), "kubectl", false).is_err());
}

#[test]
fn replicas_of_a_scale_are_the_parents() {
    let parent = json!([{"manager": "one", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:replicas": {}, "f:paused": {}}}, "time": "2020-01-01T00:00:00Z"}]);
    let parent = parent.as_array().unwrap();
    let scale = scale_from_parent(parent, &["spec", "replicas"]);
    assert_eq!(
        (&scale[0]["apiVersion"], &scale[0]["fieldsV1"]),
        (&json!("autoscaling/v1"), &json!({"f:spec": {"f:replicas": {}}}))
    );
    let written = json!([{"manager": "scaler", "operation": "Apply", "subresource": "scale", "apiVersion": "autoscaling/v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
    let back = scale_to_parent(parent, written.as_array().unwrap(), "apps/v1", &["spec", "replicas"]);
    assert_eq!((&back[0]["manager"], &back[0]["fieldsV1"]), (&json!("scaler"), &json!({"f:spec": {"f:replicas": {}}})));
    assert_eq!((&back[1]["manager"], &back[1]["fieldsV1"]), (&json!("one"), &json!({"f:spec": {"f:paused": {}}})));
}

#[test]
fn fields_are_read_and_written() {
    let fields = json!({"f:a": {".": {}, "k:{\"x\":1,\"y\":\"z\"}": {}, "v:true": {}}, "f:b": {"f:c": {}}, "i:3": {}});
    assert_eq!(Set::from_fields(&fields).unwrap().to_fields(), fields);
    assert_eq!(Set::from_fields(&json!({"q:new": {}})).unwrap(), Set::default());
    assert!(Set::from_fields(&json!({"f": {}})).is_err() && Set::from_fields(&json!({"k:[": {}})).is_err());
}

#[test]
fn text_is_written_as_a_document_would_be() {
    let fields = json!({"f:a\"\\\u{1}": {}, "f:ports": {".": {}, "k:{\"port\":10250}": {".": {}, "f:port": {}}, "k:{\"port\":9090}": {}},
        "f:é": {"v:\"x\"": {}, "v:1": {}, "i:10": {}, "i:9": {}}});
    let set = Set::from_fields(&fields).unwrap();
    let mut text = Vec::new();
    set.write(&mut text);
    assert_eq!(String::from_utf8(text.clone()).unwrap(), fields.to_string());
    assert_eq!(Set::from_text(std::str::from_utf8(&text).unwrap()), Ok(set));
    assert_eq!(Set::from_text(r#"{"q:new":{},"f:a":{"q:b":{}}}"#), Set::from_fields(&json!({"q:new": {}, "f:a": {"q:b": {}}})));
    for bad in ["{\"f\":{}}", "{\"k:[\":{}}", "{", "1"] {
        assert!(Set::from_text(bad).is_err(), "{bad}");
    }
}

prop_compose! {
    fn service()(
        ports in proptest::collection::btree_map(prop_oneof![Just(80), Just(443), Just(9090), Just(10250)], "[a-c]", 0..4),
        labels in proptest::collection::btree_map("[a-c]", "[0-1]", 0..3),
        policy in prop_oneof![Just("Local"), Just("Cluster")],
        finalizers in proptest::collection::btree_set("[a-c]/x", 0..3),
    ) -> Value {
        let ports: Vec<Value> = ports.iter().map(|(port, name)| json!({"port": port, "name": name, "protocol": "TCP"})).collect();
        json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"ports": ports, "externalTrafficPolicy": policy}})
    }
}

prop_compose! {
    fn data()(map in proptest::collection::btree_map("[a-e]", "[0-2]", 0..5)) -> Value {
        json!({"data": map.into_iter().map(|(key, value)| (key, json!(value))).collect::<Map<_, _>>()})
    }
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(first in data(), second in data()) {
        let live = applied(MAP, None, first, "one", true).unwrap();
        let once = applied(MAP, Some(&live), second.clone(), "two", true).unwrap();
        let twice = applied(MAP, Some(&once), second.clone(), "two", true).unwrap();
        prop_assert_eq!(&once, &twice);
        for (key, value) in second["data"].as_object().unwrap() {
            prop_assert_eq!(&once["data"][key], value);
        }
    }

    #[test]
    fn text_and_list_say_the_same(writes in proptest::collection::vec((service(), "[a-l]", any::<bool>()), 1..14)) {
        let ty = "core.v1.Service";
        let versions = versions(ty);
        let mut live: Option<Value> = None;
        for (at, (new, manager, keeps)) in writes.into_iter().enumerate() {
            let mut document = crate::decode::normalize(&new, Types::get().named(ty).unwrap()).unwrap().document;
            document["metadata"]["uid"] = "u".into();
            let now = Timestamp::from_second(at as i64).unwrap();
            let writer = Writer { now, ..writer(&manager, &versions) };
            let mut list = live.clone();
            list.iter_mut().for_each(unfold);
            let of_list = updated(&versions, list.as_ref(), document.clone(), &writer);
            if let (true, Some(entries)) = (keeps, live.as_ref().and_then(|live| live["metadata"].get("managedFields"))) {
                document["metadata"]["managedFields"] = entries.clone();
            }
            let of_text = update(&versions, live.as_ref(), document, &writer);
            prop_assert!(of_text["metadata"]["managedFields"].is_string());
            let mut shown = of_text.clone();
            unfold(&mut shown);
            prop_assert_eq!(&shown, &of_list);
            prop_assert_eq!(of_text["metadata"]["managedFields"].as_str().unwrap(), shown["metadata"]["managedFields"].to_string());
            live = Some(of_text);
        }
    }

    #[test]
    fn set_algebra(a in proptest::collection::vec("[a-c]{1,3}", 0..6), b in proptest::collection::vec("[a-c]{1,3}", 0..6)) {
        let set = |paths: &[String]| {
            let mut set = Set::default();
            for path in paths {
                set.insert(&path.chars().map(|c| set::Element::Field(c.to_string().into())).collect::<Vec<_>>());
            }
            set
        };
        let (a, b) = (set(&a), set(&b));
        prop_assert_eq!(a.intersection(&b).union(&a.clone().difference(&b)), a.clone());
        prop_assert!(a.clone().difference(&a).is_empty());
        prop_assert_eq!(a.clone().union(&b), b.clone().union(&a));
    }
}
