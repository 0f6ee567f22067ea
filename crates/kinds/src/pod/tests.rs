use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use super::*;
use crate::testing::{context, shown};

fn pod(spec: &Value) -> Value {
    let mut pod = json!({ "metadata": { "name": "p", "labels": { "app": "a" } }, "spec": {
        "containers": [{ "name": "c", "image": "i" }],
    } });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    Pods.default(&mut pod);
    pod
}

fn created(spec: &Value) -> Value {
    let mut pod = pod(spec);
    Pods.prepare_create(&mut pod, &context(""));
    pod
}

#[test]
#[rustfmt::skip]
fn faults_of_new_pods() {
    let spread = |keys: Value, selector: Value| json!({ "topologySpreadConstraints": [
        { "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": keys, "labelSelector": selector },
    ] });
    let volumes = |volumes: Value| json!({ "volumes": volumes });
    let claim = json!({ "volumeClaimTemplate": { "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } } });
    check(spread(json!(["app"]), json!({ "matchLabels": { "x": "y" } })), &[]);
    check(spread(json!(["app"]), json!({ "matchLabels": { "app": "a" } })),
          &["spec.topologySpreadConstraints[0][0]: Invalid value: \"app\": exists in both matchLabelKeys and labelSelector"]);
    check(spread(json!(["app"]), Value::Null),
          &["spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"]);
    check(json!({ "securityContext": { "seLinuxChangePolicy": "Recursive" } }), &[]);
    check(json!({ "securityContext": { "seLinuxChangePolicy": "MountOption" } }),
          &["spec.securityContext.seLinuxChangePolicy: Unsupported value: \"MountOption\": supported values: \"Recursive\""]);
    check(volumes(json!([{ "name": "e", "ephemeral": claim }, { "name": "v", "persistentVolumeClaim": { "claimName": "p-e" } }])),
          &["spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: \"p-e\": must not reference a PVC that gets created for an ephemeral volume"]);
    check(volumes(json!([{ "name": "v", "emptyDir": {}, "gcePersistentDisk": { "pdName": "d" } }])),
          &["spec.volumes[0].gcePersistentDisk: Forbidden: may not specify more than 1 volume type"]);
    check(json!({ "hostAliases": [{ "ip": "010.0.0.1", "hostnames": ["h"] }] }),
          &["spec.hostAliases[0].ip: Invalid value: \"010.0.0.1\": must not have leading 0s"]);

    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        let mut pod = created(&spec);
        pod["spec"]["serviceAccountName"] = json!("default");
        assert_eq!(shown(&Pods.validate(&pod, &context(""))), expected);
    }
}

#[test]
fn label_keys_become_part_of_the_selector() {
    let constraint = |selector: Value| json!({ "topologySpreadConstraints": [{ "matchLabelKeys": ["app", "absent"], "labelSelector": selector }] });
    let got = created(&constraint(json!({ "matchLabels": { "x": "y" } })));
    let selector = &got["spec"]["topologySpreadConstraints"][0]["labelSelector"];
    let added = json!([{ "key": "app", "operator": "In", "values": ["a"] }]);
    assert_eq!(selector, &json!({ "matchLabels": { "x": "y" }, "matchExpressions": added }));
}

#[test]
fn fields_of_features_that_are_off_are_dropped() {
    let spec = json!({
        "schedulingGroup": { "name": "g" },
        "containers": [{ "name": "c", "image": "i", "lifecycle": { "stopSignal": "SIGTERM" } }],
        "volumes": [{ "name": "v", "projected": { "sources": [{ "clusterTrustBundle": { "name": "n" } }] } }],
    });
    let check = |spec: &Value| {
        assert!(!spec.has("schedulingGroup"), "{spec}");
        assert!(!spec["containers"][0].has("lifecycle"), "{spec}");
        assert_eq!(spec["volumes"][0]["projected"]["sources"], json!([{}]));
    };
    check(&created(&spec)["spec"]);
    let mut template = json!({ "spec": spec });
    defaults::template(&mut template);
    check(&template["spec"]);
}

#[test]
fn app_armor_annotations_become_fields() {
    let key = "container.apparmor.security.beta.kubernetes.io/c";
    let warning = format!("metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead");
    let cases = [
        ("unconfined", json!({ "type": "Unconfined" }), true),
        ("localhost/x", json!({ "type": "Localhost", "localhostProfile": "x" }), true),
        ("runtime/default", Value::Null, false),
    ];
    for (annotation, profile, warned) in cases {
        let mut pod = pod(&json!({ "securityContext": { "appArmorProfile": { "type": "RuntimeDefault" } } }));
        pod["metadata"]["annotations"] = json!({ key: annotation });
        Pods.prepare_create(&mut pod, &context(""));
        assert_eq!(pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"], profile, "{annotation}");
        let warnings = Pods.warnings(&pod, None, &context(""));
        assert_eq!(warnings, if warned { vec![warning.clone()] } else { vec![] }, "{annotation}");
        let owner = json!({ "f:containers": { "k:{\"name\":\"c\"}": { "f:securityContext": { "f:appArmorProfile": {} } } } });
        pod["metadata"]["managedFields"] = json!([{ "fieldsV1": { "f:spec": owner } }]);
        assert!(Pods.warnings(&pod, None, &context("")).is_empty(), "{annotation}");
    }
}

#[test]
#[rustfmt::skip]
fn faults_of_resource_health() {
    const NOT_A_REQUEST: &str = "must match one of the container's resource requests";
    let status = |name: &str, health: Value| json!([{ "name": name, "resources": health }]);
    check("containerStatuses", status("example.com/gpu", json!([{ "resourceID": "1", "health": "Healthy" }])), &[]);
    check("containerStatuses", status("example.com/other", json!([])),
          &[format!("status.containerStatuses[0].allocatedResourcesStatus[0].name: Invalid value: \"example.com/other\": {NOT_A_REQUEST}")]);
    check("containerStatuses", status("example.com/gpu", json!([{ "resourceID": "1", "health": "Sick" }])),
          &["status.containerStatuses[0].allocatedResourcesStatus[0].resources[0].health: Unsupported value: \"Sick\": supported values: \"Healthy\", \"Unhealthy\", \"Unknown\"".into()]);

    #[track_caller]
    fn check(kind: &str, health: Value, expected: &[String]) {
        let old = pod(&json!({ "containers": [
            { "name": "c", "image": "i", "resources": { "requests": { "example.com/gpu": "1" }, "limits": { "example.com/gpu": "1" } } },
        ] }));
        let mut new = old.clone();
        new["status"] = json!({ kind: [{ "name": "c", "allocatedResourcesStatus": health }] });
        assert_eq!(shown(&Pods.validate_update(&new, &old, &context("status"))), expected);
    }
}

#[test]
fn initiators_of_persistent_volumes() {
    let source = json!({ "targetPortal": "p", "iqn": "iqn.2015-02.example.com:test", "initiatorName": "x" });
    for (volume, expected) in [(None, "must be valid format starting with iqn, eui, or naa"), (Some("v"), "must be valid format")]
    {
        let mut faults = Faults::default();
        volumes::iscsi(&mut faults, &Path::new("iscsi"), &source, volume);
        assert_eq!(shown(&faults), [format!("iscsi.initiatorname: Invalid value: \"x\": {expected}")]);
    }
}
