use corten_api::facts::Types;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn patched(kind: PatchKind, document: &Value, patch: &Value, ty: &str) -> Result<Value, PatchError> {
    let patch = Patch::read(kind, patch.to_string().as_bytes(), FieldValidation::Warn)?;
    patch.apply(document, Types::get().named(ty))
}

#[test]
#[rustfmt::skip]
fn json_patches() {
    let doc = json!({"a": {"b": 1, "c/d": 2}, "l": [1, 2, 3]});
    let check = |ops: Value, expected: Value| assert_eq!(patched(PatchKind::Json, &doc, &ops, "").unwrap(), expected, "{ops}");
    check(json!([{"op": "add", "path": "/a/x", "value": 9}]), json!({"a": {"b": 1, "c/d": 2, "x": 9}, "l": [1, 2, 3]}));
    check(json!([{"op": "remove", "path": "/a/c~1d"}]), json!({"a": {"b": 1}, "l": [1, 2, 3]}));
    check(json!([{"op": "add", "path": "/l/-", "value": 4}, {"op": "add", "path": "/l/0", "value": 0}]), json!({"a": {"b": 1, "c/d": 2}, "l": [0, 1, 2, 3, 4]}));
    check(json!([{"op": "remove", "path": "/l/-1"}]), json!({"a": {"b": 1, "c/d": 2}, "l": [1, 2]}));
    check(json!([{"op": "replace", "path": "/l/1", "value": 7}]), json!({"a": {"b": 1, "c/d": 2}, "l": [1, 7, 3]}));
    check(json!([{"op": "move", "from": "/a/b", "path": "/m"}, {"op": "copy", "from": "/m", "path": "/n"}]), json!({"a": {"c/d": 2}, "l": [1, 2, 3], "m": 1, "n": 1}));
    check(json!([{"op": "test", "path": "/a/b", "value": 1.0}]), doc.clone());
    check(json!([{"op": "test", "path": "/nope", "value": null}]), doc.clone());
    check(json!([{"op": "add", "path": "x/y", "value": 1}]), json!({"a": {"b": 1, "c/d": 2}, "l": [1, 2, 3], "y": 1})); // no leading slash
    check(json!([{"op": "replace", "path": "", "value": {}}]), json!({}));
    let refuse = |ops: Value| assert!(matches!(patched(PatchKind::Json, &doc, &ops, ""), Err(PatchError::Unprocessable(_))), "{ops}");
    refuse(json!([{"op": "remove", "path": "/nope"}]));
    refuse(json!([{"op": "add", "path": "/no/such", "value": 1}]));
    refuse(json!([{"op": "add", "path": "/l/9", "value": 1}]));
    refuse(json!([{"op": "test", "path": "/a/b", "value": 2}]));
    refuse(json!([{"op": "fly", "path": "/a"}]));
    refuse(json!([{"op": "add", "value": 1}]));
    refuse(json!([{"op": "add", "path": "", "value": 1}]));
}

#[test]
fn json_patches_are_limited() {
    let many = Value::Array(vec![json!({"op": "test", "path": "/a"}); MAX_OPERATIONS + 1]);
    let err = Patch::read(PatchKind::Json, many.to_string().as_bytes(), FieldValidation::Warn).unwrap_err();
    assert_eq!(err.to_string(), "The allowed maximum operations in a JSON patch is 10000, got 10001");
    // Each step doubles the document.
    let doubling = Value::Array(vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 40]);
    let err = patched(PatchKind::Json, &json!({"a": ["x".repeat(1000)]}), &doubling, "").unwrap_err();
    assert!(matches!(err, PatchError::Unprocessable(_)));
}

#[test]
fn unknown_members_of_operations_are_reported() {
    let patch = Patch::read(PatchKind::Json, br#"[{"op":"test","op":"test","path":"/a","x":1}]"#, FieldValidation::Warn).unwrap();
    assert_eq!(patch.strict, ["json patch duplicate field \"[0].op\"", "json patch unknown field \"[0].x\""]);
}

#[test]
#[rustfmt::skip]
fn malformed_patches() {
    check(PatchKind::Merge, "[1]", "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}");
    check(PatchKind::Merge, "null", "Invalid JSON Patch");
    check(PatchKind::Merge, "{", "error decoding patch: unexpected end of JSON input");
    check(PatchKind::Json, "{\"op\": \"add\"}", "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp");
    check(PatchKind::Strategic, "[]", "json: cannot unmarshal array into Go value of type map[string]interface {}");
    #[track_caller]
    fn check(kind: PatchKind, text: &str, expected: &str) {
        let err = Patch::read(kind, text.as_bytes(), FieldValidation::Warn).unwrap_err();
        assert_eq!(err, PatchError::BadRequest(expected.into()));
    }
}

#[test]
#[rustfmt::skip]
fn merge_patches() {
    check(json!({"a": {"b": 1}}), json!({"a": {"b": null, "c": 2}}), json!({"a": {"c": 2}}));
    check(json!({"l": [1, 2]}), json!({"l": [3]}), json!({"l": [3]}));
    check(json!({}), json!({"a": {"b": null, "l": [{"x": null}, null]}}), json!({"a": {"l": [{}, null]}}));
    check(json!({"a": 1}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}}));
    #[track_caller]
    fn check(document: Value, patch: Value, expected: Value) {
        assert_eq!(patched(PatchKind::Merge, &document, &patch, "").unwrap(), expected);
    }
}

#[test]
#[rustfmt::skip]
fn strategic_patches() {
    let pod = json!({"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "2"}]});
    let check = |patch: Value, expected: Value| assert_eq!(patched(PatchKind::Strategic, &pod, &patch, "core.v1.PodSpec").unwrap(), expected, "{patch}");
    check(json!({"containers": [{"name": "a", "image": "3"}]}), json!({"containers": [{"name": "a", "image": "3", "args": ["x"]}, {"name": "b", "image": "2"}]}));
    check(json!({"containers": [{"name": "c", "image": "3"}]}), json!({"containers": [{"name": "c", "image": "3"}, {"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "2"}]}));
    check(json!({"containers": [{"name": "b", "$patch": "delete"}]}), json!({"containers": [{"name": "a", "image": "1", "args": ["x"]}]}));
    check(json!({"containers": [{"$patch": "replace"}, {"name": "n"}]}), json!({"containers": [{"name": "n"}]}));
    check(json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "5"}]}),
        json!({"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "5", "args": ["x"]}]}));
    check(json!({"containers": [{"name": "a", "args": ["y"]}]}), json!({"containers": [{"name": "a", "image": "1", "args": ["y"]}, {"name": "b", "image": "2"}]}));
    check(json!({"hostNetwork": true, "nodeSelector": {"a": null, "b": "1"}}),
        json!({"containers": pod["containers"], "hostNetwork": true, "nodeSelector": {"b": "1"}}));
}

#[test]
#[rustfmt::skip]
fn strategic_directives_on_maps_and_primitives() {
    let check = |ty: &str, doc: Value, patch: Value, expected: Value| assert_eq!(patched(PatchKind::Strategic, &doc, &patch, ty).unwrap(), expected, "{patch}");
    check("core.v1.ConfigMap", json!({"data": {"a": "1"}}), json!({"data": {"$patch": "replace", "z": "1"}}), json!({"data": {"z": "1"}}));
    check("core.v1.ConfigMap", json!({"data": {"a": "1"}}), json!({"data": {"$patch": "delete"}}), json!({"data": {}}));
    check("core.v1.ConfigMap", json!({"data": {"a": "1"}}), json!({"$patch": "delete"}), json!({}));
    check("meta.v1.ObjectMeta", json!({"finalizers": ["a", "b"]}), json!({"$deleteFromPrimitiveList/finalizers": ["a"]}), json!({"finalizers": ["b"]}));
    check("meta.v1.ObjectMeta", json!({"finalizers": ["a", "b"]}), json!({"finalizers": ["c", "a"]}), json!({"finalizers": ["c", "a", "b"]}));
    check("apps.v1.DeploymentSpec", json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {}}}), json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}), json!({"strategy": {"type": "Recreate"}}));
    check("core.v1.ServiceSpec", json!({"ports": [{"port": 80}, {"port": 81}]}), json!({"ports": [{"port": 81, "targetPort": 8081}]}), json!({"ports": [{"port": 80}, {"port": 81, "targetPort": 8081}]}));
}

#[test]
#[rustfmt::skip]
fn faults_of_strategic_patches() {
    let pod = json!({"containers": [{"name": "a"}]});
    let check = |patch: Value, expected: &str| assert_eq!(patched(PatchKind::Strategic, &pod, &patch, "core.v1.PodSpec").unwrap_err().to_string(), expected);
    check(json!({"containers": [{"image": "i:3"}]}), "map: map[image:i:3] does not contain declared merge key: name");
    check(json!({"$patch": "explode"}), "unknown patch type: explode in map: map[$patch:explode]");
    check(json!({"containers": [{"name": "a", "$patch": "merge"}]}), "merging lists cannot yet be specified in the patch");
    check(json!({"containers": ["a"]}), "list element types are not identical: [[map[name:a]] [a]]");
    check(json!({"$retainKeys": ["x"], "hostPID": true}), "invalid patch format of retainKeys");
    check(json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a"}, {"name": "b"}]}),
        "The order in patch list:\n[map[name:a] map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:b] map[name:a]]\n");
    check(json!({"$setElementOrder/containers": ["x"], "containers": [{"$patch": "replace"}]}), "expected a map[string]interface {}, but received a string");
    check(json!({"$setElementOrder/containers": ["x"]}), "value for key 0 is not a map");
    check(json!({"$setElementOrder/volumes": [], "volumes": []}), "no elements in any of the given slices");
}

/// What a patch looked into is sorted, the rest is as the server's encoder wrote it.
#[test]
#[rustfmt::skip]
fn a_refused_document_is_shown_in_the_order_of_its_parts() {
    let document = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": null, "labels": {"b": "<"}}, "spec": {}});
    let name_first = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","creationTimestamp":null,"labels":{"b":"\u003c"}},"spec":{}}"#;
    let name_last = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"creationTimestamp":null,"labels":{"b":"\u003c"},"name":"a"},"spec":{}}"#;
    let check = |kind: PatchKind, patch: Value, shown: &str| {
        let patch = Patch::read(kind, patch.to_string().as_bytes(), FieldValidation::Warn).unwrap();
        assert_eq!(patch.shown(&document, Types::get().named("core.v1.Pod")), shown);
    };
    check(PatchKind::Merge, json!({"spec": {"x": 1}}), name_first);
    check(PatchKind::Merge, json!({"metadata": {"x": 1}}), name_last);
    check(PatchKind::Json, json!([{"op": "add", "path": "/spec/x", "value": 1}]), name_first);
    check(PatchKind::Json, json!([{"op": "add", "path": "/metadata/x", "value": 1}]), name_last);
    check(PatchKind::Json, json!([{"op": "remove", "path": "/metadata"}]), name_first);
}

/// A number keeps its form in these patches, and no integer has a point.
#[test]
fn numbers_of_merge_patches_are_as_written() {
    let merged = patched(PatchKind::Merge, &json!({}), &json!({"spec": {"replicas": 1.0}}), "").unwrap();
    let ty = Types::get().named("apps.v1.Deployment").unwrap();
    let told = crate::decode::normalize(&merged, ty).unwrap_err().to_string();
    assert_eq!(told, "json: cannot unmarshal number 1.0 into Go struct field DeploymentSpec.spec.replicas of type int32");
}

proptest! {
    #[test]
    fn a_merge_patch_changes_only_what_it_names(
        kept in proptest::collection::btree_map("[a-d]", 0..9i32, 0..4),
        named in proptest::collection::btree_map("[e-h]", proptest::option::of(0..9i32), 0..4),
    ) {
        for kind in [PatchKind::Merge, PatchKind::Strategic] {
            let labels: Value = kept.iter().map(|(key, value)| (key.clone(), json!(value.to_string()))).collect::<serde_json::Map<_, _>>().into();
            let patch: Value = named.iter().map(|(key, value)| (key.clone(), value.map_or(Value::Null, |value| json!(value.to_string())))).collect::<serde_json::Map<_, _>>().into();
            let result = patched(kind, &json!({"labels": labels}), &json!({"labels": patch}), "meta.v1.ObjectMeta").unwrap();
            for (key, value) in &kept {
                prop_assert_eq!(&result["labels"][key], &json!(value.to_string()));
            }
            for (key, value) in &named {
                prop_assert_eq!(result["labels"].get(key).is_some(), value.is_some());
            }
        }
    }
}

#[test]
fn foreign_labels_alone_are_told_from_everything_else() {
    let relabels = |kind: PatchKind, body: Value| {
        let patch = Patch::read(kind, body.to_string().as_bytes(), FieldValidation::Warn).unwrap();
        patch.relabels()
    };
    for kind in [PatchKind::Merge, PatchKind::Strategic] {
        let of = |metadata: Value| relabels(kind, json!({"metadata": metadata}));
        assert!(of(json!({"labels": {"app": "a", "example.com/x": null}, "annotations": {"notkubernetes.io/x": ""}})));
        assert!(!of(json!({"labels": {"kubernetes.io/os": "linux"}})));
        assert!(!of(json!({"annotations": {"a.b.k8s.io/x": null}})));
        assert!(!of(json!({"annotations": {"$patch": "replace"}})));
        assert!(!of(json!({"annotations": {"a": 1}})) && !of(json!({"annotations": null})));
        assert!(!of(json!({"labels": {"a": "b"}, "finalizers": []})) && !of(json!({"resourceVersion": "1"})));
        assert!(!relabels(kind, json!({"metadata": {"labels": {"a": "b"}}, "spec": {}})));
    }
    let doubled = Patch::read(PatchKind::Merge, br#"{"metadata":{"labels":{"a":"b","a":"c"}}}"#, FieldValidation::Warn);
    assert!(!doubled.unwrap().relabels());
    let of = |op: Value| relabels(PatchKind::Json, json!([op]));
    assert!(of(json!({"op": "add", "path": "/metadata/labels/example.com~1x", "value": "y"})));
    assert!(of(json!({"op": "remove", "path": "/metadata/annotations/x"})));
    assert!(!of(json!({"op": "add", "path": "/metadata/labels/node.kubernetes.io~1x", "value": "y"})));
    assert!(!of(json!({"op": "add", "path": "/metadata/labels/x", "value": 1})));
    assert!(!of(json!({"op": "add", "path": "/metadata/labels", "value": {}})));
    assert!(!of(json!({"op": "test", "path": "/metadata/labels/x", "value": "y"})));
    assert!(!of(json!({"op": "add", "path": "/spec/x/y", "value": "y"})));
}
