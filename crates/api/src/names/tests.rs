use serde_json::{Value, json};

use super::*;
use crate::field::{Faults, Path};

#[test]
#[rustfmt::skip]
fn names() {
    check(dns1123_label, "a", true);
    check(dns1123_label, "a-1", true);
    check(dns1123_label, "", false);
    check(dns1123_label, "-a", false);
    check(dns1123_label, "A", false);
    check(dns1123_label, &"a".repeat(64), false);
    check(dns1123_subdomain, "a.b-c.1", true);
    check(dns1123_subdomain, "a..b", false);
    check(dns1123_subdomain, "a.b.", false);
    check(dns1123_subdomain_with_underscore, "_sip._tcp.example.com", true);
    check(dns1123_subdomain_with_underscore, "a_.b", false);
    check(wildcard_dns1123_subdomain, "*.example.com", true);
    check(wildcard_dns1123_subdomain, "example.com", false);
    check(dns1035_label, "a1", true);
    check(dns1035_label, "1a", false);
    check(qualified_name, "example.com/MyName_1.x", true);
    check(qualified_name, "a/b/c", false);
    check(qualified_name, "/b", false);
    check(qualified_name, "a/", false);
    check(label_value, "", true);
    check(label_value, "a b", false);
    check(c_identifier, "_a1", true);
    check(c_identifier, "1a", false);
    check(port_name, "http-1", true);
    check(port_name, "80", false);
    check(port_name, "a--b", false);
    check(percent, "25%", true);
    check(percent, "%", false);
    check(env_var_name, "A.b-c", true);
    check(env_var_name, "1A", false);
    check(relaxed_env_var_name, "1 A", true);
    check(relaxed_env_var_name, "a=b", false);
    check(config_map_key, "..data", false);
    check(config_map_key, "a.b", true);
    check(fully_qualified_name, "a.example.com", true);
    check(fully_qualified_name, "example.com", false);
    check(domain_prefixed_key, "example.com/a", true);
    check(domain_prefixed_key, "a", false);
    check(decimal_integer, "-10", true);
    check(decimal_integer, "-0", false);
    #[track_caller]
    fn check(rule: fn(&str) -> Vec<String>, value: &str, right: bool) {
        assert_eq!(rule(value).is_empty(), right, "{value:?}: {:?}", rule(value));
    }
}

#[test]
fn the_words_are_upstreams() {
    assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
    assert_eq!(
        dns1123_subdomain("A"),
        [
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        ]
    );
    assert_eq!(
        label_value("-"),
        [
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        ]
    );
}

#[test]
fn a_prefix_may_end_with_a_dash() {
    assert!(name_is_subdomain("web-", true).is_empty());
    assert!(!name_is_subdomain("web-", false).is_empty());
    assert!(name_is_path_segment("..", true).is_empty());
    assert_eq!(name_is_path_segment("..", false), ["may not be '..'"]);
    assert_eq!(name_is_path_segment("a/b%", false), ["may not contain '/'", "may not contain '%'"]);
}

#[test]
fn a_generated_name_fits_in_a_label() {
    assert_eq!(generated("web-", [0, 1, 26, 27, 28]), "web-bc9bc");
    assert_eq!(generated(&"a".repeat(80), [0; 5]).len(), 63);
}

#[test]
#[rustfmt::skip]
fn object_metadata() {
    check(json!({"name": "a", "namespace": "b"}), &[]);
    check(json!({"namespace": "b"}), &["metadata.name: Required value: name or generateName is required"]);
    check(json!({"name": "a"}), &["metadata.namespace: Required value"]);
    check(json!({"name": "a", "namespace": "b", "generation": -1}), &["metadata.generation: Invalid value: -1: must be greater than or equal to 0"]);
    check(json!({"name": "a", "namespace": "b", "finalizers": ["orphan", "foregroundDeletion"]}),
        &["metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set"]);
    check(json!({"name": "a", "namespace": "b", "ownerReferences": [{"apiVersion": "", "kind": "", "name": "x", "uid": "y"}]}),
        &["metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty", "metadata.ownerReferences.kind: Invalid value: \"\": must not be empty"]);
    #[track_caller]
    fn check(meta: Value, expected: &[&str]) {
        let mut faults = Faults::default();
        validate_object_meta(&meta, true, &name_is_subdomain, &Path::new("metadata"), &mut faults);
        let found: Vec<_> = faults.0.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn metadata_of_an_update() {
    let old = json!({"name": "a", "uid": "1", "deletionTimestamp": "2020-01-01T00:00:00Z", "finalizers": ["a/b"]});
    let new = json!({"name": "a", "uid": "2", "finalizers": ["a/b", "c/d"]});
    let mut faults = Faults::default();
    validate_object_meta_update(&new, &old, &Path::new("metadata"), &mut faults);
    let found: Vec<_> = faults.0.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect();
    assert_eq!(
        found,
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"c/d\"}",
            "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
            "metadata.uid: Invalid value: \"2\": field is immutable",
            "metadata.deletionTimestamp: Invalid value: null: field is immutable",
        ]
    );
}

#[test]
fn domain_prefixed_paths() {
    assert!(domain_prefixed_path("acme.io/foo/bar").is_empty());
    assert_eq!(domain_prefixed_path("foo")[0].0, "foo");
    assert_eq!(domain_prefixed_path("ACME/a b").into_iter().map(|(part, _)| part).collect::<Vec<_>>(), ["ACME", "a b"]);
}
