use serde_json::{Value, json};

use super::PersistentVolumeClaims as Claims;
use crate::Strategy;
use crate::testing::{context, shown};

fn claim(sources: &Value) -> Value {
    let mut claim = json!({ "metadata": { "name": "c" }, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } },
    } });
    for (key, value) in sources.as_object().unwrap() {
        claim["spec"][key] = value.clone();
    }
    Claims.default(&mut claim);
    claim
}

#[test]
fn data_sources_of_new_claims() {
    let group = "snapshot.storage.k8s.io";
    let snapshot = json!({ "apiGroup": group, "kind": "VolumeSnapshot", "name": "s" });
    let other = json!({ "apiGroup": "example.com", "kind": "Populator", "name": "s" });
    let foreign = json!({ "apiGroup": group, "kind": "VolumeSnapshot", "name": "s", "namespace": "n" });
    let null = Value::Null;
    let cases = [
        (json!({ "dataSource": snapshot }), &snapshot, &snapshot),
        (json!({ "dataSourceRef": snapshot }), &snapshot, &snapshot),
        (json!({ "dataSource": other }), &null, &null),
        (json!({ "dataSourceRef": other }), &other, &other),
        (json!({ "dataSourceRef": foreign }), &null, &null),
    ];
    for (sources, source, reference) in cases {
        let mut claim = claim(&sources);
        Claims.prepare_create(&mut claim, &context(""));
        assert_eq!((&claim["spec"]["dataSource"], &claim["spec"]["dataSourceRef"]), (source, reference), "{sources}");
    }
}

#[test]
fn updates_tell_faults_of_the_spec_and_that_it_stays() {
    let old = claim(&json!({}));
    let new = claim(&json!({ "accessModes": ["Often"] }));
    let faults = shown(&Claims.validate_update(&new, &old, &context("")));
    let mode = "spec.accessModes: Unsupported value: \"Often\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \
                \"ReadWriteOnce\", \"ReadWriteOncePod\"";
    assert_eq!(faults[0], mode);
    assert!(faults[1].starts_with("spec: Forbidden: spec is immutable after creation"));
    assert_eq!(faults.len(), 2);
}

#[test]
fn the_beta_class_is_warned_of_at_each_write() {
    let mut object = claim(&json!({}));
    object["metadata"]["annotations"] = json!({ "volume.beta.kubernetes.io/storage-class": "c" });
    let warning = "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" \
                   attribute instead";
    assert_eq!(Claims.warnings(&object, None, &context("")), [warning]);
    assert_eq!(Claims.warnings(&object, Some(&object), &context("")), [warning]);
    assert!(Claims.status_warnings(&object).is_empty());
}
