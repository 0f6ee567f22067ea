use corten_api::facts::Types;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn of(ty: &str, text: &str) -> Result<Decoded, DecodeError> {
    decode(text.as_bytes(), Format::Json, Types::get().named(ty).unwrap())
}

#[test]
#[rustfmt::skip]
fn documents_take_the_form_of_the_encoder() {
    let map = "core.v1.ConfigMap";
    check(map, json!({"data": {"a": "1"}}), json!({"metadata": {}, "data": {"a": "1"}}));
    check(map, json!({"metadata": {"name": "", "labels": {}, "annotations": null}}), json!({"metadata": {}}));
    check(map, json!({"data": {"a": null}, "immutable": false}), json!({"metadata": {}, "data": {"a": ""}, "immutable": false}));
    check(map, json!({"metadata": {"creationTimestamp": null}}), json!({"metadata": {}}));
    check("core.v1.ContainerPort", json!({"hostPort": 0}), json!({"containerPort": 0}));
    check("core.v1.Container", json!({"name": "a", "command": [null]}), json!({"name": "a", "command": [""], "resources": {}}));
    check("core.v1.PodSpec", json!({}), json!({"containers": null}));
    check("core.v1.PodSpec", json!({"containers": []}), json!({"containers": null}));
    check("core.v1.Service", json!({}), json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}}));
    check("core.v1.ServicePort", json!({"port": 80}), json!({"port": 80, "targetPort": 0}));
    check("core.v1.ResourceRequirements", json!({"limits": {"cpu": 0.5, "memory": "1024Mi", "x": null}}), json!({"limits": {"cpu": "500m", "memory": "1Gi", "x": "0"}}));
    check("core.v1.PodCondition", json!({"type": "a", "status": "True", "lastProbeTime": "2024-01-02T03:04:05.6+01:00"}),
        json!({"type": "a", "status": "True", "lastProbeTime": "2024-01-02T02:04:05Z", "lastTransitionTime": null}));
    check("apps.v1.DeploymentSpec", json!({"replicas": 0, "minReadySeconds": 0}),
        json!({"replicas": 0, "selector": null, "strategy": {}, "template": {"metadata": {}, "spec": {"containers": null}}}));
    check("core.v1.Volume", json!({"name": "v", "emptyDir": {}}), json!({"name": "v", "emptyDir": {}}));
    check("core.v1.Secret", json!({"data": {"a": "YQ==", "b": null}}), json!({"metadata": {}, "data": {"a": "YQ==", "b": ""}}));
    check("apiextensions.v1.JSONSchemaProps", json!({"default": null, "maximum": 1.0, "additionalProperties": true, "items": {"type": "string"}}),
        json!({"maximum": 1, "additionalProperties": true, "items": {"type": "string"}}));
    #[track_caller]
    fn check(ty: &str, given: Value, expected: Value) {
        let decoded = of(ty, &given.to_string()).unwrap();
        assert_eq!(decoded, Decoded { document: expected.clone(), strict: Vec::new() });
        // Reading what was written changes nothing.
        assert_eq!(normalize(&expected, Types::get().named(ty).unwrap()).unwrap().document, expected);
    }
}

#[test]
#[rustfmt::skip]
fn wrong_types() {
    let field = |field: &str| format!("json: cannot unmarshal {field}");
    check(r#"{"spec":{"containers":"x"}}"#, &field("string into Go struct field PodSpec.spec.containers of type []v1.Container"));
    check(r#"{"spec":{"containers":{}}}"#, &field("object into Go struct field PodSpec.spec.containers of type []v1.Container"));
    check(r#"{"spec":{"hostNetwork":"x"}}"#, &field("string into Go struct field PodSpec.spec.hostNetwork of type bool"));
    check(r#"{"spec":{"volumes":[1]}}"#, &field("number into Go struct field PodSpec.spec.volumes of type v1.Volume"));
    check(r#"{"spec":{"activeDeadlineSeconds":1.5}}"#, &field("number 1.5 into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64"));
    check(r#"{"spec":{"priority":3000000000}}"#, &field("number 3000000000 into Go struct field PodSpec.spec.priority of type int32"));
    check(r#"{"metadata":{"labels":[]}}"#, &field("array into Go struct field ObjectMeta.metadata.labels of type map[string]string"));
    check(r#"{"metadata":{"labels":{"a":1}}}"#, &field("number into Go struct field ObjectMeta.metadata.labels of type string"));
    check(r#"{"spec":{"containers":[{"ports":[{"protocol":1}]}]}}"#, &field("number into Go struct field ContainerPort.spec.containers.ports.protocol of type v1.Protocol"));
    check(r#"{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":true}}}]}}"#, &field("bool into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32"));
    check(r#"{"metadata":{"creationTimestamp":1}}"#, &field("number into Go struct field ObjectMeta.metadata.creationTimestamp of type string"));
    check("[]", &field("array into Go value of type v1.Pod"));
    // The first wrong value is told, but a quantity stops everything.
    check(r#"{"spec":{"hostNetwork":1,"hostPID":1}}"#, &field("number into Go struct field PodSpec.spec.hostNetwork of type bool"));
    check(r#"{"spec":{"hostNetwork":1,"overhead":{"cpu":"1ee3"}}}"#, "unable to parse quantity's suffix");
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(of("core.v1.Pod", text).unwrap_err().to_string(), expected);
    }
}

#[test]
#[rustfmt::skip]
fn syntax_errors_are_gos() {
    check("", "unexpected end of JSON input");
    check("{", "unexpected end of JSON input");
    check(r#"{"a": 1, }"#, "invalid character '}' looking for beginning of object key string");
    check(r#"{"a" 1}"#, "invalid character '1' after object key");
    check(r#"{"a": 1 "b"}"#, "invalid character '\"' after object key:value pair");
    check(r#"{"a": [1 2]}"#, "invalid character '2' after array element");
    check(r#"{"a": tru}"#, "invalid character '}' in literal true (expecting 'e')");
    check(r#"{"a": 1.}"#, "invalid character '}' after decimal point in numeric literal");
    check(r#"{"a": "\x"}"#, "invalid character 'x' in string escape code");
    check("{\"a\": \"\n\"}", "invalid character '\\n' in string literal");
    check("{} x", "invalid character 'x' after top-level value");
    check("hello", "invalid character 'h' looking for beginning of value");
    check("\0", "invalid character '\\x00' looking for beginning of value");
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(of("core.v1.Pod", text).unwrap_err().to_string(), expected);
        assert_eq!(decode_any(text.as_bytes(), Format::Json).unwrap_err().to_string(), expected);
        let meta = type_meta(text.as_bytes(), Format::Json).unwrap_err();
        assert_eq!(meta.to_string(), format!("couldn't get version/kind; json parse error: {expected}"));
    }
}

#[test]
fn unknown_and_duplicate_fields_are_reported_in_order() {
    let text = r#"{"Metadata": {}, "metadata": {"name": "a", "name": "b", "labels": {"x": "1", "x": "2"}},
        "spec": {"containers": [{"ports": [{"portz": 1}], "resourcez": {}}]}}"#;
    let decoded = of("core.v1.Pod", text).unwrap();
    assert_eq!(
        decoded.strict_error().unwrap(),
        "strict decoding error: unknown field \"Metadata\", duplicate field \"metadata.name\", duplicate field \"metadata.labels.x\", unknown field \"spec.containers[0].ports[0].portz\", unknown field \"spec.containers[0].resourcez\""
    );
    assert_eq!(decoded.document["metadata"], json!({"name": "b", "labels": {"x": "2"}}));
}

#[test]
fn strings_are_repaired_as_go_does() {
    let decoded = decode_any(b"{\"a\": \"\xff\\u00e9\\ud83d\\ude00\\ud800\"}", Format::Json).unwrap();
    assert_eq!(decoded.document, json!({"a": "\u{fffd}é😀\u{fffd}"}));
}

#[test]
fn depth_is_limited_everywhere() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        assert!(decode_any(deep.as_bytes(), Format::Json).is_err());
        assert!(of("core.v1.Pod", &format!("{{\"x\": {deep}}}")).is_err());
        assert!(type_meta(deep.as_bytes(), Format::Json).is_err());
    }
    let schema = format!("{}{{}}{}", "{\"not\":".repeat(100_000), "}".repeat(100_000));
    assert!(of("apiextensions.v1.JSONSchemaProps", &schema).is_err());
    for open in ["[", "{a: ", "- ", "? ", "a:\n "] {
        let _ = yaml_to_json(open.repeat(100_000).as_bytes());
    }
}

#[test]
fn yaml_is_read_as_yaml_1_1() {
    let text = "a: yes\nb: 'yes'\nc: 0644\nd: 1.5\ne: ~\nf: 1e3\ng: 0x10\nh: 1_000\ni: 2024-01-01\nj: |\n  x\n  y\n";
    let decoded = decode_any(text.as_bytes(), Format::Yaml).unwrap();
    assert_eq!(
        decoded.document,
        json!({"a": true, "b": "yes", "c": 420, "d": 1.5, "e": null, "f": 1000, "g": 16, "h": 1000, "i": "2024-01-01", "j": "x\ny\n"})
    );
}

#[test]
fn yaml_duplicates_are_reported_with_their_line() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: '1'\n  a: '2'\n";
    let decoded = decode(text.as_bytes(), Format::Yaml, Types::get().named("core.v1.ConfigMap").unwrap()).unwrap();
    assert_eq!(decoded.document["data"]["a"], "2");
    assert_eq!(decoded.strict, ["yaml: unmarshal errors:\n  line 7: key \"a\" already set in map"]);
}

#[test]
fn yaml_anchors_and_merges_unfold_within_limits() {
    let text = "base: &b {x: 1, z: 2}\nmine:\n  <<: *b\n  z: 3\n";
    let decoded = decode_any(text.as_bytes(), Format::Yaml).unwrap();
    assert_eq!(decoded.document["mine"], json!({"x": 1, "z": 3}));
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for n in 1..10 {
        bomb.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(",")));
    }
    assert!(decode_any(bomb.as_bytes(), Format::Yaml).is_err());
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 1000].join(","));
    assert!(decode_any(long.as_bytes(), Format::Yaml).is_err());
    assert!(decode_any(b"a: &a [*a]", Format::Yaml).is_err());
}

#[test]
fn custom_resources_keep_everything_but_odd_metadata() {
    let text = r#"{"kind": "Widget", "metadata": {"name": "w", "bogus": 1}, "spec": {"x": null, "x": 1.0}}"#;
    let decoded = decode_custom(text.as_bytes(), Format::Json).unwrap();
    assert_eq!(decoded.document, json!({"kind": "Widget", "metadata": {"name": "w"}, "spec": {"x": 1}}));
    assert_eq!(decoded.strict, ["unknown field \"metadata.bogus\"", "duplicate field \"spec.x\""]);
}

#[test]
fn the_kind_of_a_body() {
    let meta = type_meta(br#"{"kind": "Pod", "apiVersion": "v1", "spec": []}"#, Format::Json).unwrap();
    assert_eq!(meta, TypeMeta { api_version: "v1".into(), kind: "Pod".into() });
    assert_eq!(
        type_meta(b"[]", Format::Json).unwrap_err().to_string(),
        "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }"
    );
    assert_eq!((summary(b""), summary(b"[]"), summary(b"{")), ("<empty>".into(), "5b5d".into(), "{".into()));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"'\\\\&*!|>#%@`?a-z0-9 \n.-]{0,60}") {
        let pod = Types::get().named("core.v1.Pod").unwrap();
        for format in [Format::Json, Format::Yaml] {
            let _ = decode(text.as_bytes(), format, pod);
            let _ = type_meta(text.as_bytes(), format);
        }
        if let Ok(decoded) = decode_any(text.as_bytes(), Format::Yaml) {
            // What is written as YAML reads as the same.
            let again = decode_any(&crate::encode::yaml(&decoded.document), Format::Yaml).unwrap();
            prop_assert_eq!(again.document, decoded.document);
        }
    }

    #[test]
    fn any_string_survives_yaml(text in any::<String>(), key in any::<String>()) {
        let document = json!({"list": [text, [key]], "map": {key.clone(): text, "x": {"y": text}}});
        let yaml = crate::encode::yaml(&document);
        let again = decode_any(&yaml, Format::Yaml);
        prop_assert_eq!(again.map(|decoded| decoded.document), Ok(document), "{}", String::from_utf8_lossy(&yaml));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode_any(&bytes, Format::Json);
        let _ = decode_any(&bytes, Format::Yaml);
    }
}

#[test]
fn empty_lists_stay_until_they_are_settled() {
    let ty = corten_api::facts::Types::get().named("rbac.v1.ClusterRole").unwrap();
    let body = br#"{"rules":[{"verbs":[],"apiGroups":[]}],"metadata":{"finalizers":[]}}"#;
    let mut document = decode_as_sent(body, Format::Json, ty).unwrap().document;
    assert_eq!(document["rules"], json!([{"verbs": [], "apiGroups": []}]));
    assert!(has_empty_list(&document));
    let mut owned = document.clone();
    drop_unwritten(&mut owned, ty);
    // A list that is owned as a whole has changed when one of its items has an empty list more.
    assert_eq!((&owned["rules"], &owned["metadata"]), (&document["rules"], &json!({})));
    let pod = corten_api::facts::Types::get().named("core.v1.Pod").unwrap();
    let mut owned = json!({"spec": {"containers": [{"name": "c", "args": []}], "tolerations": []}});
    drop_unwritten(&mut owned, pod);
    assert_eq!(owned, json!({"spec": {"containers": [{"name": "c"}]}}));
    settle(&mut document, ty);
    assert_eq!(document["rules"], json!([{"verbs": null}]));
    assert_eq!(decode(body, Format::Json, ty).unwrap().document, document);
}

#[test]
#[rustfmt::skip]
fn faults_of_yaml_are_gos() {
    check("a: b: c\n",                        "yaml: mapping values are not allowed in this context");
    check("a: 1\nb:\n\tc: 1\n",               "yaml: line 3: found character that cannot start any token");
    check("a:\n  b: 1\n c: 1\n",              "yaml: line 2: did not find expected key");
    check("a: 1\nb: {c: [1}\n",               "yaml: line 1: did not find expected ',' or ']'");
    check("a: .inf\n",                        "json: unsupported value: +Inf");
    check("a: -.Inf\n",                       "json: unsupported value: -Inf");
    check("a: 1\n[b, {c: 2}]: 1\n",           "yaml: invalid map key: []interface {}{\"b\", map[interface {}]interface {}{\"c\":2}}");
    check("a: !!binary '?'\n",                "yaml: !!binary value contains invalid base64 data");
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(yaml_to_json(text.as_bytes()).unwrap_err().to_string(), expected);
    }
    let converted = yaml_to_json(b"a: !!binary aGk=\ny: 1\ny: 2\n").unwrap();
    assert_eq!(converted.json, br#"{"a":"hi","true":2}"#);
    assert_eq!(converted.duplicates.unwrap(), "yaml: unmarshal errors:\n  line 3: key true already set in map");
}

#[test]
fn values_are_printed_as_go_prints_them() {
    let value = serde_json::json!({"a": [1, "b", null, true], "c": {}});
    assert_eq!(go::plain(&value), "map[a:[1 b <nil> true] c:map[]]");
    let expected =
        r#"map[string]interface {}{"a":[]interface {}{1, "b", interface {}(nil), true}, "c":map[string]interface {}{}}"#;
    assert_eq!(go::syntax(&value, "string"), expected);
}

#[test]
fn what_is_dropped_may_be_as_deep_as_go_reads() {
    let nested = |depth: usize| format!("{{\"x\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(of("core.v1.ConfigMap", &nested(5_000)).unwrap().strict, ["unknown field \"x\""]);
    let err = type_meta(nested(10_000).as_bytes(), Format::Json).unwrap_err().to_string();
    assert!(err.ends_with("invalid character '[' exceeded max depth"), "{err}");
}

#[test]
#[rustfmt::skip]
fn what_does_not_fit_is_told_otherwise_by_the_converter() {
    check(r#"{"spec":{"containers":{}}}"#,                     "cannot restore slice from map");
    check(r#"{"spec":{"containers":["x"]}}"#,                  "cannot restore struct from: string");
    check(r#"{"spec":{"nodeSelector":[]}}"#,                   "cannot restore map from slice");
    check(r#"{"spec":{"nodeName":1}}"#,                        "cannot convert int64 to string");
    check(r#"{"spec":{"nodeName":1.5}}"#,                      "unrecognized type: string");
    check(r#"{"spec":{"hostNetwork":"x"}}"#,                   "unrecognized type: bool");
    check(r#"{"spec":{"priority":"1"}}"#,                      "unrecognized type: int32");
    check(r#"{"spec":{"priority":1.5}}"#,                      "cannot convert float64 to int32");
    check(r#"{"metadata":{"creationTimestamp":1}}"#,           "json: cannot unmarshal number into Go value of type string");
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(of("core.v1.Pod", text).unwrap_err().converted(), expected);
    }
}

#[test]
fn a_field_that_is_there_twice_is_decoded_into_what_is_there() {
    let text = br#"{"metadata":{"name":"a"},"data":{"a":"1","b":"1"},"data":{"b":"2"},"metadata":{"labels":{"l":""}},"immutable":true,"immutable":null}"#;
    let decoded = decode(text, Format::Json, Types::get().named("core.v1.ConfigMap").unwrap()).unwrap();
    assert_eq!(decoded.document, json!({"metadata": {"name": "a", "labels": {"l": ""}}, "data": {"a": "1", "b": "2"}}));
    assert_eq!(decoded.strict.len(), 3);
}
