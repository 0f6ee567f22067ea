//! Builders for tests.

use k8s_openapi::api::core::v1::Pod;

use corten_runtime::{Container, ContainerState, Resources, Sandbox};

use crate::plan::{POD_NAME, POD_NAMESPACE, POD_UID};

pub mod runtime;

/// The pod `default/web` with UID `u1` and this specification, in YAML.
pub fn pod(spec: &str) -> Pod {
    named("web", "u1", spec)
}

/// A pod in `default`.
pub fn named(name: &str, uid: &str, spec: &str) -> Pod {
    let mut spec: serde_json::Value = serde_yaml_ng::from_str(spec).expect("a specification in YAML");
    let fields = spec.as_object_mut().expect("a mapping");
    fields.entry("containers").or_insert_with(|| serde_json::json!([]));
    let document = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid, "generation": 1},
        "spec": spec,
    });
    serde_json::from_value(document).expect("a pod")
}

pub fn sandbox(attempt: u32, ready: bool) -> Sandbox {
    Sandbox {
        id: format!("sandbox-{attempt}"),
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        uid: "u1".to_owned(),
        attempt,
        ready,
        created_at: i64::from(attempt),
        network_namespace: Some("/run/netns/web".into()),
        labels: [(POD_NAME, "web"), (POD_NAMESPACE, "default"), (POD_UID, "u1")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        annotations: Default::default(),
    }
}

pub fn container(name: &str, attempt: u32, state: ContainerState) -> Container {
    Container {
        id: format!("{name}-{attempt}"),
        sandbox: "sandbox-0".to_owned(),
        name: name.to_owned(),
        attempt,
        image: "image".to_owned(),
        image_id: "sha256:1".to_owned(),
        image_ref: "image@sha256:2".to_owned(),
        state,
        created_at: i64::from(attempt) + 1,
        started_at: i64::from(attempt) + 1,
        finished_at: 0,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        signal: 0,
        pid: 0,
        log_path: Default::default(),
        labels: Default::default(),
        annotations: Default::default(),
        resources: Resources::default(),
        mounts: Vec::new(),
        user: None,
        stop_signal: "SIGTERM".to_owned(),
    }
}
