//! The audit log of a server: what each level of a policy records of real requests, stage by stage.

use std::path::PathBuf;

use crate::running::{Running, request};
use corten_apiserver::config::{AuditFormat, AuditMode};
use corten_apiserver::{Config, User};
use corten_task::Tasks;
use serde_json::{Value, json};

struct Api(Running);

impl Api {
    async fn start(policy: &str, change: impl FnOnce(&mut Config)) -> Self {
        let running = Running::start(|directory, config| {
            let file = directory.join("policy.yaml");
            std::fs::write(&file, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{policy}")).unwrap();
            config.audit_policy_file = Some(file);
            config.audit_log_path = Some(directory.join("audit.log"));
            change(config);
        });
        Self(running.await)
    }

    async fn send(&self, user: &str, method: &str, path: &str, kind: &str, body: &str) -> (u16, Value) {
        let groups: &[&str] = if user == "admin" { &["system:masters"] } else { &[] };
        let answer = self.0.ask(User::new(user, groups), request(method, path, kind), body.to_owned()).await;
        (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("audit.log")
    }

    /// Events of requests by other than the server's own components, in order.
    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log()).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| matches!(event["user"]["username"].as_str(), Some("admin" | "nobody"))).collect()
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_level_records_what_it_names() {
    let policy = "omitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
                  - {level: Metadata, resources: [{group: '', resources: [secrets]}]}\n\
                  - {level: Request, verbs: [create, patch, delete]}\n\
                  - {level: RequestResponse, resources: [{group: '', resources: [configmaps]}]}\n\
                  - {level: None}\n";
    let api = Api::start(policy, |_| {}).await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}}).to_string();
    api.send("admin", "POST", "/api/v1/namespaces/default/secrets", JSON, &secret).await;
    let map = json!({"metadata": {"generateName": "m-"}, "data": {"k": "first"}}).to_string();
    let (_, made) = api.send("admin", "POST", MAPS, JSON, &map).await;
    let name = made["metadata"]["name"].as_str().unwrap();
    api.send("admin", "PATCH", &format!("{MAPS}/{name}"), "application/merge-patch+json", r#"{"data":{"k":"second"}}"#).await;
    api.send("admin", "GET", &format!("{MAPS}/{name}"), JSON, "").await;
    api.send("admin", "GET", MAPS, JSON, "").await;
    api.send("admin", "GET", &format!("{MAPS}/none"), JSON, "").await;
    api.send("admin", "GET", "/api/v1/namespaces", JSON, "").await;
    api.send("nobody", "GET", &format!("{MAPS}/{name}"), JSON, "").await;
    let body = r#"{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}"#;
    api.send("admin", "DELETE", &format!("{MAPS}/{name}"), JSON, body).await;
    let text = std::fs::read_to_string(api.log()).unwrap();
    assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "a secret is in the log");
    assert!(!text.contains("managedFields"));
    let events = api.events();
    assert!(events.iter().all(|event| event["stage"] == "ResponseComplete"));
    let verbs: Vec<&str> = events.iter().map(|event| event["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["create", "create", "patch", "get", "list", "get", "get", "delete"]);
    let [secret, created, patched, read, listed, missing, denied, deleted] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&secret["level"], &secret["objectRef"]["name"]), (&json!("Metadata"), &json!("s")));
    assert_eq!((&secret["requestObject"], &secret["responseObject"]), (&Value::Null, &Value::Null));
    assert_eq!(secret["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(created["requestObject"]["data"]["k"], "first");
    assert_eq!((&created["responseObject"], &created["objectRef"]["name"]), (&Value::Null, &Value::Null));
    assert_eq!(patched["requestObject"], json!({"data": {"k": "second"}}));
    assert_eq!(read["responseObject"]["data"]["k"], "second");
    assert_eq!(read["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(listed["responseObject"]["kind"], "ConfigMapList");
    assert!(listed["responseObject"]["items"].as_array().unwrap().iter().any(|item| item["metadata"]["name"] == name));
    assert_eq!((&missing["responseStatus"]["reason"], &missing["responseStatus"]["code"]), (&json!("NotFound"), &json!(404)));
    assert_eq!(missing["responseObject"]["kind"], "Status");
    assert_eq!(
        (&denied["annotations"]["authorization.k8s.io/decision"], &denied["responseStatus"]["code"]),
        (&json!("forbid"), &json!(403))
    );
    assert_eq!(deleted["requestObject"]["propagationPolicy"], "Background");
    assert_eq!(deleted["responseStatus"]["status"], "Success");
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_has_a_beginning_and_an_end() {
    let api = Api::start("rules: [{level: RequestResponse}]", |_| {}).await;
    api.send("admin", "GET", &format!("{MAPS}?watch=1&timeoutSeconds=1"), JSON, "").await;
    let events = api.events();
    let stages: Vec<&str> = events.iter().map(|event| event["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
    assert!(events.iter().all(|event| event["auditID"] == events[0]["auditID"] && event["responseObject"].is_null()));
    assert_eq!(events[0]["responseStatus"], Value::Null);
    assert_eq!(events[0]["stageTimestamp"], events[0]["requestReceivedTimestamp"]);
    assert_eq!(events[2]["responseStatus"]["code"], 200);
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_written_before_the_server_ends() {
    let api = Api::start("rules: [{level: Metadata}]", |config| {
        config.audit_log_mode = AuditMode::Batch;
        config.audit_log_format = AuditFormat::Legacy;
    })
    .await;
    for _ in 0..50 {
        api.send("admin", "GET", MAPS, JSON, "").await;
    }
    api.0.stop().await;
    let text = std::fs::read_to_string(api.log()).unwrap();
    let lines = text.lines().filter(|line| line.contains(" user=\"admin\" ") && line.contains(" AUDIT: id=\""));
    assert_eq!(lines.count(), 100, "two stages of each request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_done_that_cannot_be_recorded() {
    for (mode, code) in [(AuditMode::Blocking, 200), (AuditMode::BlockingStrict, 500)] {
        let api = Api::start("rules: [{level: Metadata, users: [admin]}]", |config| {
            // Every write to it fails: no space left on the device.
            config.audit_log_path = Some("/dev/full".into());
            config.audit_log_mode = mode;
        })
        .await;
        assert_eq!(api.send("admin", "GET", MAPS, JSON, "").await.0, code, "{mode:?}");
        api.0.stop().await;
    }
}

/// A server that takes lists of events and answers with a code, and the bodies that it got. It runs as long as `tasks`.
async fn receiver(code: u16, tasks: &Tasks) -> (u16, tokio::sync::mpsc::UnboundedReceiver<(String, Value)>) {
    use http_body_util::{BodyExt, Empty};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let connections = tasks.child("connections");
    tasks.spawn("receiver", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let sender = sender.clone();
                async move {
                    let path = request.uri().to_string();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let _ = sender.send((path, serde_json::from_slice(&body).unwrap()));
                    Ok::<_, std::convert::Infallible>(
                        http::Response::builder().status(code).body(Empty::<bytes::Bytes>::new()).unwrap(),
                    )
                }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            connections.spawn("connection", async move {
                let _ = connection.await;
            });
        }
    });
    (port, receiver)
}

fn send_to(port: u16, path: &std::path::Path) {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}/audit")}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    });
    std::fs::write(path, kubeconfig.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_sent_to_a_webhook() {
    let tasks = Tasks::root("test");
    for mode in [AuditMode::Batch, AuditMode::Blocking] {
        let (port, mut received) = receiver(200, &tasks).await;
        let api = Api::start("omitStages: [RequestReceived]\nrules: [{level: Request, users: [admin]}]", |config| {
            let file = config.cert_dir.with_file_name("webhook.json");
            send_to(port, &file);
            config.audit_webhook_config_file = Some(file);
            config.audit_log_path = None;
            config.audit_webhook_mode = mode;
            config.audit_webhook_truncation.enabled = true;
            config.audit_webhook_truncation.max_event_size = 2000;
        })
        .await;
        let map = json!({"metadata": {"name": "m"}, "data": {"k": "x".repeat(4000)}}).to_string();
        assert_eq!(api.send("admin", "POST", MAPS, JSON, &map).await.0, 201);
        api.send("admin", "GET", MAPS, JSON, "").await;
        // What waits for others is sent at the latest when the server ends.
        api.0.stop().await;
        let mut events = Vec::new();
        while let Ok((path, list)) = received.try_recv() {
            assert_eq!(
                (path.as_str(), &list["kind"], &list["apiVersion"]),
                ("/audit", &json!("EventList"), &json!("audit.k8s.io/v1"))
            );
            events.extend(list["items"].as_array().unwrap().clone());
        }
        let verbs: Vec<&str> = events.iter().map(|event| event["verb"].as_str().unwrap()).collect();
        assert_eq!(verbs, ["create", "list"], "{mode:?}");
        assert_eq!(
            (&events[0]["requestObject"], &events[0]["annotations"]["audit.k8s.io/truncated"]),
            (&Value::Null, &json!("true"))
        );
    }
    tasks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_takes_nothing_stops_what_must_be_recorded() {
    let tasks = Tasks::root("test");
    let (port, mut received) = receiver(500, &tasks).await;
    let api = Api::start("rules: [{level: Metadata, users: [admin]}]", |config| {
        let file = config.cert_dir.with_file_name("webhook.json");
        send_to(port, &file);
        config.audit_webhook_config_file = Some(file);
        config.audit_webhook_mode = AuditMode::BlockingStrict;
        config.audit_webhook_initial_backoff = std::time::Duration::from_millis(1);
    })
    .await;
    assert_eq!(api.send("admin", "GET", MAPS, JSON, "").await.0, 500);
    let mut attempts = 0;
    while received.try_recv().is_ok() {
        attempts += 1;
    }
    assert!(attempts >= 5, "{attempts}");
    api.0.stop().await;
    tasks.stop().await;
}
