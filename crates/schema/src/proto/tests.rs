use corten_api::catalogue::Catalogue;
use corten_api::facts::{Field, Kind, Types};
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use serde_json::json;

use super::*;

fn of(name: &str) -> &'static Type {
    Types::get().named(name).unwrap()
}

fn normal(document: &Value, ty: &Type) -> Value {
    crate::decode::normalize(document, ty).unwrap().document
}

#[test]
fn known_bytes() {
    let document = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let message = encode(&document, of("core.v1.ConfigMap"));
    // What is held by value is there even when it is empty; a pointer, a list or a map is not.
    let metadata = b"\x0a\x01a\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00";
    let expected = [b"\x0a\x11", &metadata[..], b"\x12\x06\x0a\x01k\x12\x01v"].concat();
    assert_eq!(message, expected);
    let sealed = seal("v1", "ConfigMap", &message);
    assert_eq!(&sealed[..4], MAGIC);
    let envelope = open(&sealed).unwrap();
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str(), envelope.raw), ("v1", "ConfigMap", &message[..]));
    assert_eq!(decode(envelope.raw, of("core.v1.ConfigMap")).unwrap(), document);
}

#[test]
#[rustfmt::skip]
fn documents_survive_the_round_trip() {
    check("core.v1.Pod", json!({"metadata": {"name": "a", "creationTimestamp": "2024-01-02T03:04:05Z", "labels": {"x": ""},
        "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}, "time": "2024-01-02T03:04:05Z"}], "deletionGracePeriodSeconds": 0},
        "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "500m"}}, "command": ["", "x"], "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 3}}],
            "volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {"supplementalGroups": [1, 2, 3], "runAsUser": 0}},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-02T03:04:05Z"}]}}));
    check("core.v1.Service", json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 81, "targetPort": "x"}], "allocateLoadBalancerNodePorts": false}}));
    check("core.v1.Secret", json!({"data": {"a": "AAECAw==", "b": ""}, "immutable": false}));
    check("coordination.v1.Lease", json!({"spec": {"renewTime": "2024-01-02T03:04:05.123456Z", "leaseTransitions": 0}}));
    check("authentication.v1.UserInfo", json!({"username": "a", "extra": {"k": ["v", ""]}}));
    check("apps.v1.ControllerRevision", json!({"data": {"spec": {"x": [1, null, 1.5]}}, "revision": 3}));
    check("meta.v1.DeleteOptions", json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "propagationPolicy": "Orphan", "dryRun": ["All"]}));
    check("meta.v1.APIResource", json!({"name": "pods", "verbs": ["get", "list"], "namespaced": true}));
    check("apiextensions.v1.CustomResourceDefinitionVersion", json!({"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "maximum": 1.5, "minimum": 0, "default": null, "additionalProperties": false,
            "properties": {"a": {"items": {"type": "string"}, "enum": [1, "x", null], "default": {"y": 1}}, "b": {"additionalProperties": {"type": "integer"}}}}}}));
    #[track_caller]
    fn check(ty: &str, document: Value) {
        let ty = of(ty);
        let document = normal(&document, ty);
        let mut expected = document.clone();
        // Kind and version are in the envelope.
        if let (Some(map), false) = (expected.as_object_mut(), ty.name == "meta.v1.APIResource") {
            map.remove("kind");
            map.remove("apiVersion");
        }
        let decoded = decode(&encode(&document, ty), ty).unwrap();
        assert_eq!(decoded, expected, "{}", ty.name);
    }
}

#[test]
fn lists_and_watch_frames() {
    let ty = of("core.v1.ConfigMap");
    let items = [encode(&json!({"metadata": {"name": "a"}}), ty), encode(&json!({"metadata": {"name": "b"}}), ty)];
    let metadata = json!({"resourceVersion": "7"});
    let list = encode_list("v1", "ConfigMapList", metadata.as_object().unwrap(), items.iter().map(Vec::as_slice));
    let decoded = decode(open(&list).unwrap().raw, of("core.v1.ConfigMapList")).unwrap();
    assert_eq!(
        decoded,
        json!({"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]})
    );
    let frame = watch_frame("ADDED", &seal("v1", "ConfigMap", &items[0]));
    assert_eq!(usize::try_from(u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]])).unwrap(), frame.len() - 4);
}

#[test]
fn embedded_objects_may_be_sealed() {
    let inner = seal("v1", "Pod", &encode(&json!({"metadata": {"name": "p"}}), of("core.v1.Pod")));
    let mut writer = Writer::default();
    writer.nested(9, |writer| writer.bytes(1, &inner));
    let request = decode(&writer.finish(), of("admission.v1.AdmissionRequest")).unwrap();
    assert_eq!(request["object"]["metadata"]["name"], "p");
    assert_eq!(request["object"]["kind"], "Pod");
}

#[test]
fn hostile_bytes_are_refused() {
    let ty = of("core.v1.Pod");
    assert_eq!(open(b"{}"), Err(ProtoError::Magic));
    assert_eq!(open(b"k8s\0"), Err(ProtoError::EmptyBody));
    assert_eq!(decode(b"\x0a\xff\xff\xff\xff\x0f", ty), Err(ProtoError::Truncated));
    assert!(decode(b"\x0a", ty).is_err() && decode(b"\x00\x00", ty).is_err() && decode(&[0xff; 32], ty).is_err());
    // A schema in a schema in a schema…
    let mut deep = Vec::new();
    for _ in 0..2000 {
        let mut writer = Writer::default();
        writer.bytes(28, &deep);
        deep = writer.finish();
    }
    assert_eq!(decode(&deep, of("apiextensions.v1.JSONSchemaProps")), Err(ProtoError::Depth));
}

#[test]
fn every_stored_kind_has_field_numbers() {
    for resource in Catalogue::builtin().all() {
        for version in &resource.versions {
            assert!(!of(&version.type_name).members.is_empty(), "{}", version.type_name);
        }
    }
}

/// A random document of a type, not too deep.
fn arbitrary(ty: &Type, rng: &mut TestRng, depth: usize) -> Value {
    let mut map = Map::new();
    for field in &ty.fields {
        if depth < 6 && rng.random_ratio(1, 3) && field.name != "kind" && field.name != "apiVersion" {
            map.insert(field.name.into(), arbitrary_value(field, &field.kind, rng, depth));
        }
    }
    Value::Object(map)
}

fn arbitrary_value(field: &Field, kind: &Kind, rng: &mut TestRng, depth: usize) -> Value {
    match kind {
        Kind::String => ["", "a", "é"][rng.random_range(0..3usize)].into(),
        Kind::Bool => rng.random_bool(0.5).into(),
        Kind::Int32 => rng.random::<i32>().into(),
        Kind::Int64 => rng.random::<i64>().into(),
        Kind::Float64 => json!(0.5),
        Kind::Bytes => "AAE=".into(),
        Kind::Quantity => "100m".into(),
        Kind::IntOrString => {
            if rng.random_bool(0.5) {
                json!(5)
            } else {
                json!("50%")
            }
        }
        Kind::Time => "2024-01-02T03:04:05Z".into(),
        Kind::MicroTime => "2024-01-02T03:04:05.000001Z".into(),
        Kind::Duration => "1m0s".into(),
        Kind::FieldsV1 | Kind::RawExtension => json!({"f:a": {}}),
        Kind::Json => json!([1, "x"]),
        Kind::SchemaOrBool => json!(true),
        Kind::SchemaOrArray => json!([{"type": "string"}]),
        Kind::SchemaOrStrings => json!(["a"]),
        Kind::Struct(id) => arbitrary(Types::get().of(*id), rng, depth + 1),
        // An empty list of managed fields is told from none in JSON only.
        Kind::List(item) => (0..rng.random_range(i32::from(field.name == "managedFields")..3))
            .map(|_| arbitrary_value(field, item, rng, depth + 1))
            .collect(),
        // Structs without fields look like maps.
        Kind::Map(_) if field.pointer || field.name == "spec" => json!({}),
        Kind::Map(item) => json!({"k": arbitrary_value(field, item, rng, depth + 1)}),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_document_of_any_kind_survives(seed in any::<[u8; 32]>()) {
        let mut rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &seed);
        for resource in Catalogue::builtin().all() {
            for version in &resource.versions {
                let ty = of(&version.type_name);
                let document = normal(&arbitrary(ty, &mut rng, 0), ty);
                let decoded = decode(&encode(&document, ty), ty).unwrap();
                prop_assert_eq!(decoded, document, "{}", ty.name);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for name in ["core.v1.Pod", "apiextensions.v1.CustomResourceDefinition", "meta.v1.DeleteOptions"] {
            let _ = decode(&bytes, of(name));
        }
    }
}
