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
    check(json!({ "hostnameOverride": "a", "hostNetwork": true, "setHostnameAsFQDN": true }),
          &["spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
            "spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true"]);
    check(json!({ "hostUsers": false, "containers": [{ "name": "c", "image": "i", "volumeDevices": [{ "name": "x", "devicePath": "/d" }] }] }),
          &["spec.containers[0].volumeDevices[0].name: Not found: \"x\"",
            "spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false"]);
    check(json!({ "tolerations": [{ "key": "k", "operator": "Gt", "value": "1" }] }),
          &["spec.tolerations[0].operator: Unsupported value: \"Gt\": supported values: \"Equal\", \"Exists\", \"Lt\", \"Gt\""]);
    check(json!({ "os": { "name": "windows" }, "resources": { "requests": { "cpu": "1" } } }),
          &["spec.resources: Forbidden: may not be set for a windows pod"]);
    check(json!({ "resources": { "requests": { "cpu": "1" }, "limits": { "hugepages-2Mi": "2Mi", "cpu": "2" } },
                  "containers": [{ "name": "c", "image": "i", "resources": { "limits": { "cpu": "3", "hugepages-2Mi": "4Mi" } } }] }),
          &["spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 3",
            "spec.resources.requests[hugepages-2Mi]: Invalid value: \"2Mi\": must be greater than or equal to aggregate container requests of 4Mi",
            "spec.resources.limits[hugepages-2Mi]: Invalid value: \"2Mi\": must be greater than or equal to aggregate container limits of 4Mi",
            "spec.resources.containers[0][cpu].limits: Invalid value: \"3\": must be less than or equal to pod limits of 2",
            "spec.resources.containers[0][hugepages-2Mi].limits: Invalid value: \"4Mi\": must be less than or equal to pod limits of 2Mi"]);
    // A reference to a file is judged where it is, its volume once all containers were.
    check(json!({ "containers": [{ "name": "c", "image": "", "env": [{ "name": "E", "valueFrom": { "fileKeyRef": { "volumeName": "v", "path": "p", "key": "k" } } }] }] }),
          &["spec.containers[0].image: Required value",
            "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: \"v\""]);
    check(json!({ "initContainers": [{ "name": "i", "image": "i", "resizePolicy": [{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }] }] }),
          &["spec.initContainers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must not be set to 'RestartContainer' for non-sidecar initContainers"]);
    check(json!({ "containers": [{ "name": "c", "image": "i", "restartPolicyRules": [{ "action": "Odd", "exitCodes": { "operator": "Is" } }, {}] }] }),
          &["spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
            "spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"Odd\": supported values: \"Restart\", \"RestartAllContainers\"",
            "spec.containers[0].restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\"",
            "spec.containers[0].restartPolicyRules[1].action: Unsupported value: \"\": supported values: \"Restart\", \"RestartAllContainers\"",
            "spec.containers[0].restartPolicyRules[1].exitCodes: Required value: must be specified"]);
    check(json!({ "initContainers": [{ "name": "i", "image": "i", "restartPolicyRules": [{}] }] }),
          &["spec.initContainers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used"]);
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
    drop_disabled(template.object("spec"), None);
    check(&template["spec"]);
    // What is there already may stay.
    let mut same = spec.clone();
    drop_disabled(&mut same, Some(&spec));
    assert_eq!(same, spec);
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
        let warnings = Pods.early_warnings(&pod);
        assert_eq!(warnings, if warned { vec![warning.clone()] } else { vec![] }, "{annotation}");
        Pods.prepare_create(&mut pod, &context(""));
        assert_eq!(pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"], profile, "{annotation}");
        // Whoever sets the field, too, knows.
        assert!(profile.is_null() || Pods.early_warnings(&pod).is_empty(), "{annotation}");
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
        assert_eq!(shown(&Pods.validate_status(&new, &old, &context("status"))), expected);
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

/// The amounts of a pod follow from those of its containers only where the pod says something itself.
#[test]
fn pod_level_resources_are_completed() {
    let check = |own: Value, expected: Value| {
        let container = json!({ "limits": { "cpu": "2", "hugepages-2Mi": "4Mi" }, "requests": { "cpu": "1" } });
        let got = pod(&json!({ "resources": own, "containers": [{ "name": "c", "image": "i", "resources": container }] }));
        assert_eq!(got["spec"]["resources"], expected);
    };
    check(json!({}), json!({}));
    check(
        json!({ "requests": { "cpu": "3" } }),
        json!({ "requests": { "cpu": "3", "hugepages-2Mi": "4Mi" }, "limits": { "hugepages-2Mi": "4Mi" } }),
    );
    check(
        json!({ "limits": { "memory": "1Gi" } }),
        json!({ "limits": { "memory": "1Gi", "hugepages-2Mi": "4Mi" }, "requests": { "cpu": "1", "hugepages-2Mi": "4Mi", "memory": "1Gi" } }),
    );
    check(json!({ "requests": { "hugepages-2Mi": "2Mi" } }), json!({ "requests": { "hugepages-2Mi": "2Mi" } }));
}

#[test]
fn the_old_address_is_the_first() {
    let check = |status: Value, expected: Value| {
        let mut pod = json!({ "status": status, "spec": {} });
        Pods.default(&mut pod);
        assert_eq!(pod["status"], expected);
    };
    check(json!({ "podIPs": [{ "ip": "1" }, { "ip": "2" }] }), json!({ "podIP": "1", "podIPs": [{ "ip": "1" }, { "ip": "2" }] }));
    check(json!({ "podIP": "3" }), json!({ "podIP": "3", "podIPs": [{ "ip": "3" }] }));
    check(json!({ "podIP": "3", "podIPs": [{ "ip": "1" }, { "ip": "2" }] }), json!({ "podIP": "3", "podIPs": [{ "ip": "3" }] }));
    check(
        json!({ "podIP": "1", "podIPs": [{ "ip": "1" }, { "ip": "2" }] }),
        json!({ "podIP": "1", "podIPs": [{ "ip": "1" }, { "ip": "2" }] }),
    );
}

/// Who may run again after its end, by its own rules, its policy, and the pod's.
#[test]
fn ended_containers_stay_ended() {
    let check = |container: Value, pod_policy: &str, code: i64, allowed: bool| {
        let mut old = pod(&json!({ "restartPolicy": pod_policy }));
        for (key, value) in container.as_object().unwrap() {
            old["spec"]["containers"][0][key] = value.clone();
        }
        old["status"] = json!({ "containerStatuses": [{ "name": "c", "state": { "terminated": { "exitCode": code } } }] });
        let mut new = old.clone();
        new["status"] = json!({ "containerStatuses": [{ "name": "c", "state": { "running": {} } }] });
        let refused =
            ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state".to_owned()];
        let expected: &[String] = if allowed { &[] } else { &refused };
        assert_eq!(shown(&Pods.validate_status(&new, &old, &context("status"))), expected, "{container} {pod_policy} {code}");
    };
    check(json!({}), "Always", 0, true);
    check(json!({}), "OnFailure", 0, false);
    check(json!({}), "OnFailure", 1, true);
    check(json!({}), "Never", 1, false);
    check(json!({ "restartPolicy": "Always" }), "Never", 0, true);
    check(json!({ "restartPolicy": "Never" }), "Always", 0, false);
    let rules = |action: &str| json!({ "restartPolicy": "Never", "restartPolicyRules": [{ "action": action, "exitCodes": { "operator": "In", "values": [42] } }] });
    check(rules("Restart"), "Never", 42, true);
    check(rules("Restart"), "Never", 1, false);
    check(rules("RestartAllContainers"), "Never", 1, true);
}

/// Faults of resizes, each with the pod before and after.
#[test]
fn faults_of_resizes() {
    let check = |before: &Value, after: &Value, expected: &[&str]| {
        let old = created(before);
        let mut new = old.clone();
        for (key, value) in after.as_object().unwrap() {
            new["spec"][key] = value.clone();
        }
        Pods.default(&mut new);
        Pods.prepare_update(&mut new, &old, &context("resize"));
        new["spec"]["serviceAccountName"] = json!("default");
        let mut old = old;
        old["spec"]["serviceAccountName"] = json!("default");
        assert_eq!(shown(&Pods.validate_update(&new, &old, &context("resize"))), expected, "{after}");
    };
    let container = |resources: Value| json!([{ "name": "c", "image": "i", "resources": resources }]);
    let one = json!({ "containers": container(json!({ "requests": { "cpu": "1" } })) });
    check(&one, &json!({ "containers": container(json!({ "requests": { "cpu": "2" } })) }), &[]);
    check(
        &one,
        &json!({ "containers": container(json!({ "requests": { "memory": "1Gi" } })) }),
        &["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
    );
    check(
        &one,
        &json!({ "containers": container(json!({ "requests": { "cpu": "1", "ephemeral-storage": "1" } })) }),
        &["spec: Forbidden: only cpu and memory resources are mutable"],
    );
    check(
        &one,
        &json!({ "containers": [{ "name": "d", "image": "i", "resources": { "requests": { "cpu": "1" } } }] }),
        &["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"],
    );
    let whole = json!({ "containers": [{ "name": "c", "image": "i" }], "resources": { "requests": { "cpu": "1" } } });
    check(&whole, &json!({ "resources": { "requests": { "cpu": "2" } } }), &[]);
    check(
        &whole,
        &json!({ "resources": { "requests": { "cpu": "1", "hugepages-2Mi": "2Mi" }, "limits": { "hugepages-2Mi": "2Mi" } } }),
        &["spec: Forbidden: only cpu and memory resources are mutable at pod-level"],
    );
}
