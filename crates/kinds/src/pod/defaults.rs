//! Defaults of pods and of pod templates: what the API server fills in when a field is left out.

use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::pod::aggregate;
use crate::quantity::{self, Quantity};
use crate::resources;

/// Defaults of a `v1.Pod`.
pub(crate) fn pod(pod: &mut Value) {
    drop_alpha_annotations(pod);
    if let Some(status) = pod.child("status") {
        addresses(status);
    }
    spec(pod.object("spec"));
    let spec = pod.object("spec");
    for kind in ["containers", "initContainers"] {
        for container in spec.items(kind) {
            limits_become_requests(container);
        }
    }
    pod_level_resources(spec);
    if !spec.has("enableServiceLinks") {
        spec.put("enableServiceLinks", true);
    }
    if spec.flag("hostNetwork") {
        for kind in ["containers", "initContainers"] {
            for port in spec.items(kind).flat_map(|container| container.items("ports")) {
                let number = port.int("containerPort");
                if port.int("hostPort") == 0 && number != 0 {
                    port.put("hostPort", number);
                }
            }
        }
    }
}

/// `podIP` is the old form of `podIPs`: it is the first of them, and the only one when they differ.
fn addresses(status: &mut Value) {
    let first = status.list("podIPs").first().map(|first| first.text("ip").to_owned());
    match (status.text("podIP"), first) {
        ("", Some(first)) => status.put("podIP", first),
        (ip, first) if !ip.is_empty() && first.as_deref() != Some(ip) => {
            let only = json!([{ "ip": ip }]);
            status.put("podIPs", only);
        }
        _ => {}
    }
}

/// Defaults of a `v1.PodTemplateSpec`.
pub(crate) fn template(template: &mut Value) {
    drop_alpha_annotations(template);
    spec(template.object("spec"));
}

/// Defaults of a `v1.PodSpec`, wherever it is.
pub(crate) fn spec(spec: &mut Value) {
    spec.default_to("dnsPolicy", "ClusterFirst");
    spec.default_to("restartPolicy", "Always");
    spec.object("securityContext");
    if !spec.has("terminationGracePeriodSeconds") {
        spec.put("terminationGracePeriodSeconds", 30);
    }
    spec.default_to("schedulerName", "default-scheduler");
    service_account(spec);
    for item in spec.items("volumes") {
        volume(item);
    }
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for item in spec.items(kind) {
            container(item);
        }
    }
    round_up(spec, "overhead");
    if let Some(resources) = spec.child("resources") {
        requirements(resources);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always shown.
fn service_account(spec: &mut Value) {
    if spec.text("serviceAccountName").is_empty() {
        let old = spec.text("serviceAccount").to_owned();
        if !old.is_empty() {
            spec.put("serviceAccountName", old);
        }
    }
    let name = spec.text("serviceAccountName").to_owned();
    if name.is_empty() {
        spec.drop_key("serviceAccount");
    } else {
        spec.put("serviceAccount", name);
    }
}

/// Init containers were annotations before they were fields; those annotations are no longer read.
fn drop_alpha_annotations(object: &mut Value) {
    let Some(annotations) = object.child("metadata").and_then(|metadata| metadata.get_mut("annotations")) else { return };
    let Some(map) = annotations.as_object_mut() else { return };
    for version in ["alpha", "beta"] {
        for kind in ["init-containers", "init-container-statuses"] {
            map.remove(&format!("pod.{version}.kubernetes.io/{kind}"));
        }
    }
    if map.is_empty() {
        object.object("metadata").drop_key("annotations");
    }
}

/// The sources a `v1.Volume` can have.
pub(crate) const VOLUME_SOURCES: &[&str] = &[
    "hostPath",
    "emptyDir",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "azureFile",
    "configMap",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "projected",
    "portworxVolume",
    "scaleIO",
    "storageos",
    "csi",
    "ephemeral",
    "image",
];

const FILE_MODE: i64 = 0o644;

fn volume(volume: &mut Value) {
    if VOLUME_SOURCES.iter().all(|source| !volume.has(source)) {
        volume.put("emptyDir", json!({}));
    }
    if let Some(image) = volume.child("image") {
        let policy = pull_policy(image.text("reference"));
        image.default_to("pullPolicy", policy);
    }
    common_volume_source(volume);
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.child(source)
            && !source.has("defaultMode")
        {
            source.put("defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = volume.child("downwardAPI") {
        source.items("items").for_each(field_ref);
    }
    if let Some(projected) = volume.child("projected") {
        projected.items("sources").for_each(projection);
    }
    if let Some(template) = volume.child("ephemeral").and_then(|source| source.child("volumeClaimTemplate")) {
        claim_spec(template.object("spec"));
    }
}

/// Defaults of the sources that persistent volumes have too.
pub(crate) fn common_volume_source(volume: &mut Value) {
    if let Some(source) = volume.child("hostPath")
        && !source.has("type")
    {
        source.put("type", "");
    }
    if let Some(source) = volume.child("iscsi") {
        source.default_to("iscsiInterface", "default");
    }
    if let Some(source) = volume.child("rbd") {
        source.default_to("pool", "rbd");
        source.default_to("user", "admin");
        source.default_to("keyring", "/etc/ceph/keyring");
    }
    if let Some(source) = volume.child("azureDisk") {
        for (key, value) in [("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4")] {
            if !source.has(key) {
                source.put(key, value);
            }
        }
        if !source.has("readOnly") {
            source.put("readOnly", false);
        }
    }
    if let Some(source) = volume.child("scaleIO") {
        source.default_to("storageMode", "ThinProvisioned");
        source.default_to("fsType", "xfs");
    }
}

fn projection(source: &mut Value) {
    if let Some(downward) = source.child("downwardAPI") {
        downward.items("items").for_each(field_ref);
    }
    if let Some(token) = source.child("serviceAccountToken")
        && !token.has("expirationSeconds")
    {
        token.put("expirationSeconds", 3600);
    }
    if let Some(certificate) = source.child("podCertificate")
        && !certificate.has("maxExpirationSeconds")
    {
        certificate.put("maxExpirationSeconds", 86400);
    }
}

fn field_ref(item: &mut Value) {
    if let Some(reference) = item.child("fieldRef") {
        reference.default_to("apiVersion", "v1");
    }
}

/// Defaults of a `v1.PersistentVolumeClaimSpec`.
pub(crate) fn claim_spec(spec: &mut Value) {
    if !spec.has("volumeMode") {
        spec.put("volumeMode", "Filesystem");
    }
    if let Some(resources) = spec.child("resources") {
        requirements(resources);
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(container.text("image"));
    container.default_to("imagePullPolicy", policy);
    container.default_to("terminationMessagePath", "/dev/termination-log");
    container.default_to("terminationMessagePolicy", "File");
    for port in container.items("ports") {
        port.default_to("protocol", "TCP");
    }
    for variable in container.items("env") {
        if let Some(source) = variable.child("valueFrom") {
            field_ref(source);
            if let Some(file) = source.child("fileKeyRef")
                && !file.has("optional")
            {
                file.put("optional", false);
            }
        }
    }
    if let Some(resources) = container.child("resources") {
        requirements(resources);
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.child(kind) {
            probe(found);
        }
    }
    if let Some(lifecycle) = container.child("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.child(hook) {
                http_get(handler);
            }
        }
    }
}

/// `:latest`, written or implied, is always pulled; another tag, a digest alone, or what is no reference only when it is absent.
fn pull_policy(image: &str) -> &'static str {
    match crate::image::tag(image) {
        Some("latest") => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Value) {
    probe.default_int("timeoutSeconds", 1);
    probe.default_int("periodSeconds", 10);
    probe.default_int("successThreshold", 1);
    probe.default_int("failureThreshold", 3);
    http_get(probe);
    if let Some(grpc) = probe.child("grpc")
        && !grpc.has("service")
    {
        grpc.put("service", "");
    }
}

fn http_get(handler: &mut Value) {
    if let Some(action) = handler.child("httpGet") {
        action.default_to("path", "/");
        action.default_to("scheme", "HTTP");
    }
}

fn requirements(resources: &mut Value) {
    round_up(resources, "limits");
    round_up(resources, "requests");
}

/// Quantities finer than a thousandth are rounded up to one.
pub(crate) fn round_up(object: &mut Value, key: &str) {
    let Some(Value::Object(list)) = object.get_mut(key) else { return };
    for amount in list.values_mut() {
        if let Some(rounded) = quantity::rounded_up_to_milli(amount) {
            *amount = rounded;
        }
    }
}

fn limits_become_requests(container: &mut Value) {
    let limits = container["resources"].map("limits").clone();
    if limits.is_empty() {
        return;
    }
    let requests = container.object("resources").object("requests");
    for (name, amount) in limits {
        if !requests.has(&name) {
            requests.put(&name, amount);
        }
    }
}

/// Pod-level requests and limits follow from the containers' when they are only partly set (KEP-2837).
fn pod_level_resources(spec: &mut Value) {
    if spec.has("resources") {
        huge_page_limits(spec);
        default_pod_requests(spec);
    }
}

/// Huge pages that the containers are limited to and of which the pod says nothing.
fn huge_page_limits(spec: &mut Value) {
    let own = &spec["resources"];
    if own.map("limits").is_empty() && own.map("requests").is_empty() {
        return;
    }
    let missing = |name: &str| {
        resources::is_huge_page(name) && !own.map("requests").contains_key(name) && !own.map("limits").contains_key(name)
    };
    let found: Vec<(String, Quantity)> = aggregate::limits(spec).into_iter().filter(|(name, _)| missing(name)).collect();
    for (name, amount) in found {
        spec.object("resources").object("limits").put(&name, amount.to_string());
    }
}

fn default_pod_requests(spec: &mut Value) {
    let limits = spec["resources"].map("limits").clone();
    if limits.is_empty() {
        return;
    }
    let mut requests = spec["resources"].map("requests").clone();
    for (name, amount) in aggregate::requests(spec) {
        if !requests.contains_key(&name) && resources::is_pod_level(&name) && resources::is_overcommit_allowed(&name) {
            requests.insert(name, amount.to_string().into());
        }
    }
    for (name, amount) in limits {
        if resources::is_pod_level(&name) {
            requests.entry(name).or_insert(amount);
        }
    }
    if !requests.is_empty() {
        spec.object("resources").put("requests", requests);
    }
}
