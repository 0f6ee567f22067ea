//! Whole kubelets under paused time, on a runtime and an API server in memory.

use std::time::Duration;

use corten_fakeapi::FakeApi;
use corten_task::Tasks;
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::config::{Host, Server};
use crate::test::runtime::FakeRuntime;

const POD: &str = "/api/v1/namespaces/default/pods/web";

struct TestNode {
    api: FakeApi,
    runtime: FakeRuntime,
    tasks: Tasks,
    dir: tempfile::TempDir,
    clock: Clock,
    kubelet: Option<Kubelet>,
    token_requests: Arc<parking_lot::Mutex<Vec<Value>>>,
}

impl TestNode {
    async fn new() -> Self {
        // Whole seconds: the API keeps no more.
        let now = Timestamp::from_second(Timestamp::now().as_second()).expect("in range");
        let clock = Clock::From(now, tokio::time::Instant::now());
        let node = Self {
            api: FakeApi::new(),
            runtime: FakeRuntime::new(clock),
            tasks: Tasks::root("test"),
            dir: tempfile::tempdir().expect("a directory"),
            clock,
            kubelet: None,
            token_requests: Arc::default(),
        };
        node.api.create(
            "/api/v1/namespaces/default/services",
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default"},
                "spec": {"clusterIP": "10.43.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]},
            }),
        );
        node
    }

    async fn started() -> Self {
        let mut node = Self::new().await;
        node.start().await;
        node
    }

    async fn start(&mut self) {
        let path = self.dir.path();
        let config = Config {
            node_name: "n1".to_owned(),
            node_ips: vec!["192.0.2.1".parse().expect("an address")],
            root: path.join("kubelet"),
            pod_logs: path.join("logs"),
            container_logs: None,
            host: Host { manage: false, ..Host::default() },
            server: Server { address: None, ..Server::default() },
            resolv_conf: path.join("resolv.conf"),
            eviction: Vec::new(),
            ..Config::default()
        };
        let tasks = self.tasks.child("node");
        let (runtime, images, network) =
            (Arc::new(self.runtime.clone()), Arc::new(self.runtime.clone()), Arc::new(self.runtime.clone()));
        let started = Kubelet::start_at(self.clock, config, self.client(), runtime, images, network, &tasks).await;
        let kubelet = started.expect("started");
        kubelet.synced().await;
        self.kubelet = Some(kubelet);
        self.tasks = tasks;
    }

    /// A client of the fake server, which does not know of tokens: those are answered here.
    fn client(&self) -> Client {
        let (api, requests, clock) = (self.api.clone(), self.token_requests.clone(), self.clock);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (api, requests) = (api.clone(), requests.clone());
            async move {
                if !request.uri().path().ends_with("/token") {
                    let answer = api.service().oneshot(request).await?;
                    return Ok::<_, tower::BoxError>(
                        answer.map(|body| body.map_err(Into::<tower::BoxError>::into).boxed_unsync()),
                    );
                }
                let body = request.into_body().collect_bytes().await?;
                let mut review: Value = serde_json::from_slice(&body)?;
                let number = {
                    let mut requests = requests.lock();
                    requests.push(review.clone());
                    requests.len()
                };
                let life = Duration::from_secs(review["spec"]["expirationSeconds"].as_u64().expect("a number"));
                review["status"] =
                    json!({"token": format!("token {number}"), "expirationTimestamp": (clock.now() + life).to_string()});
                let body = http_body_util::Full::new(bytes::Bytes::from(review.to_string()));
                Ok(http::Response::new(body.map_err(|never| match never {}).boxed_unsync()))
            }
        });
        corten_client::in_process(service, "default")
    }

    fn create(&self, spec: &str) {
        self.create_with(spec, json!({}));
    }

    fn create_with(&self, spec: &str, meta: Value) {
        let mut spec: Value = serde_yaml_ng::from_str(spec).expect("a specification in YAML");
        spec["nodeName"] = json!("n1");
        let mut object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "namespace": "default", "uid": "u1", "generation": 1},
            "spec": spec,
        });
        for (key, value) in meta.as_object().expect("a mapping") {
            object["metadata"][key] = value.clone();
        }
        self.api.create("/api/v1/namespaces/default/pods", object);
    }

    fn pod(&self) -> Value {
        self.api.get(POD).unwrap_or_default()
    }

    /// Waits until `holds` of the pod's object, for at most `seconds`.
    #[track_caller]
    fn until<'a>(&'a self, seconds: u64, holds: impl Fn(&Value) -> bool + 'a) -> impl Future<Output = ()> + 'a {
        let place = std::panic::Location::caller();
        async move {
            for _ in 0..seconds * 20 {
                if holds(&self.pod()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("{place}: not in {seconds} s: {:#}\ncalls: {:#?}", self.pod()["status"], self.runtime.calls());
        }
    }

    fn events(&self) -> Vec<String> {
        let events = self.api.list("/api/v1/namespaces/default/events");
        let line =
            |event: &Value| format!("{} {}", event["reason"].as_str().unwrap_or(""), event["message"].as_str().unwrap_or(""));
        events.iter().map(line).collect()
    }

    fn ask_to_delete(&self, grace: i64) {
        let at = (self.clock.now() + Duration::from_secs(u64::try_from(grace).expect("positive"))).to_string();
        self.api.edit(POD, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!(at);
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        });
    }
}

fn waiting(pod: &Value) -> &str {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    pod["status"]["phase"] == "Running" && conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_reports_and_goes() {
    let node = TestNode::started().await;
    node.create(
        "{containers: [{name: a, image: 'image:1', env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]}]}",
    );
    node.until(5, is_ready).await;
    let status = node.pod()["status"].clone();
    assert_eq!(
        (&status["podIP"], &status["hostIP"], &status["qosClass"]),
        (&json!("10.42.0.1"), &json!("192.0.2.1"), &json!("BestEffort"))
    );
    let container = &status["containerStatuses"][0];
    assert_eq!((&container["started"], &container["restartCount"]), (&json!(true), &json!(0)));
    assert!(container["containerID"].as_str().is_some_and(|id| id.starts_with("corten://a-")));
    let config = node.runtime.config("a");
    assert!(config.env.contains(&("IP".to_owned(), "10.42.0.1".to_owned())));
    assert!(config.env.contains(&("KUBERNETES_SERVICE_HOST".to_owned(), "10.43.0.1".to_owned())));
    assert!(config.mounts.iter().any(|mount| mount.container_path.ends_with("etc/hosts")));

    node.ask_to_delete(30);
    node.until(5, Value::is_null).await;
    assert!(node.runtime.calls().iter().any(|call| call.starts_with("stop a ")));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((node.runtime.sandboxes(), node.runtime.attachments()), (0, 0));
    assert!(!node.dir.path().join("kubelet/pods/u1").exists());
    let events = node.events();
    for expected in ["Created Container created", "Started Container started", "Killing Stopping container a"] {
        assert!(events.iter().any(|event| event == expected), "{expected} in {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn volumes_show_config_maps_and_follow_them() {
    let node = TestNode::started().await;
    let map = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": "default"}, "data": {"key": value}});
    node.api.create("/api/v1/namespaces/default/configmaps", map("one"));
    node.create("{containers: [{name: a, image: 'image:1', volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, configMap: {name: cm}}]}");
    node.until(5, is_ready).await;
    let mount = node
        .runtime
        .config("a")
        .mounts
        .into_iter()
        .find(|mount| mount.container_path == std::path::Path::new("/v"))
        .expect("mounted");
    assert!(mount.readonly);
    let file = mount.host_path.join("key");
    assert_eq!(std::fs::read_to_string(&file).expect("readable"), "one");
    node.api.edit("/api/v1/namespaces/default/configmaps/cm", |map| map["data"]["key"] = json!("two"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(std::fs::read_to_string(&file).expect("readable"), "two");
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_waited_for() {
    let node = TestNode::started().await;
    node.create("{containers: [{name: a, image: 'image:1', env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}]}");
    node.until(5, |pod| waiting(pod) == "CreateContainerConfigError").await;
    let message = node.pod()["status"]["containerStatuses"][0]["state"]["waiting"]["message"].clone();
    assert_eq!(message, json!("secret \"s\" not found"));
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}, "data": {"k": "eA=="}});
    node.api.create("/api/v1/namespaces/default/secrets", secret);
    node.until(2, is_ready).await;
    assert!(node.runtime.config("a").env.contains(&("A".to_owned(), "x".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn crashes_back_off() {
    let node = TestNode::started().await;
    node.create("{containers: [{name: a, image: 'image:1'}]}");
    node.until(5, is_ready).await;
    node.runtime.exit("a", 1);
    node.until(2, |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    node.runtime.exit("a", 1);
    node.until(2, |pod| waiting(pod) == "CrashLoopBackOff").await;
    let container = node.pod()["status"]["containerStatuses"][0].clone();
    assert_eq!(container["lastState"]["terminated"]["exitCode"], json!(1));
    assert_eq!(container["state"]["waiting"]["message"], json!("back-off 10s restarting failed container=a pod=web_default(u1)"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node.runtime.container("a").expect("there").attempt, 1);
    node.until(6, |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 2).await;
}

#[tokio::test(start_paused = true)]
async fn pulls_use_credentials_and_back_off() {
    let node = TestNode::started().await;
    node.runtime.publish("reg.example/app:1", Some("word"));
    node.create("{imagePullSecrets: [{name: pull}], containers: [{name: a, image: 'reg.example/app:1'}]}");
    node.until(5, |pod| waiting(pod) == "ErrImagePull").await;
    node.until(5, |pod| waiting(pod) == "ImagePullBackOff").await;
    let config = "eyJhdXRocyI6eyJyZWcuZXhhbXBsZSI6eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6IndvcmQifX19"; // {"auths":{"reg.example":{"username":"u","password":"word"}}}
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull", "namespace": "default"}, "data": {".dockerconfigjson": config}});
    node.api.create("/api/v1/namespaces/default/secrets", secret);
    node.until(30, is_ready).await;
    assert!(node.runtime.calls().contains(&"pull reg.example/app:1 u".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn deletion_waits_for_hooks_within_the_grace_period() {
    let node = TestNode::started().await;
    node.runtime.make_stubborn("a");
    node.create("{terminationGracePeriodSeconds: 20, containers: [{name: a, image: 'image:1', lifecycle: {preStop: {sleep: {seconds: 5}}}}]}");
    node.until(5, is_ready).await;
    let asked = tokio::time::Instant::now();
    node.ask_to_delete(20);
    node.until(40, Value::is_null).await;
    let took = asked.elapsed().as_secs();
    assert!((19..=22).contains(&took), "{took}");
    assert!(node.runtime.calls().contains(&"stop a 15s".to_owned()), "{:?}", node.runtime.calls());
}

#[tokio::test(start_paused = true)]
async fn a_forced_deletion_cuts_the_grace_period() {
    let node = TestNode::started().await;
    node.runtime.make_stubborn("a");
    node.create("{containers: [{name: a, image: 'image:1'}]}");
    node.until(5, is_ready).await;
    node.ask_to_delete(1000);
    tokio::time::sleep(Duration::from_secs(5)).await;
    node.api.edit(POD, |pod| pod["metadata"]["deletionGracePeriodSeconds"] = json!(0));
    node.until(10, Value::is_null).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_kubelet_restarts_nothing() {
    let mut node = TestNode::started().await;
    node.create("{containers: [{name: a, image: 'image:1'}]}");
    node.until(5, is_ready).await;
    node.tasks.stop().await;
    node.runtime.clear_calls();
    node.tasks = Tasks::root("again");
    node.start().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(node.runtime.calls(), Vec::<String>::new());
    assert!(is_ready(&node.pod()));
    node.ask_to_delete(1);
    node.until(5, Value::is_null).await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_is_removed_at_start() {
    let mut node = TestNode::started().await;
    node.create("{containers: [{name: a, image: 'image:1'}]}");
    node.until(5, is_ready).await;
    node.tasks.stop().await;
    node.api.remove(POD);
    node.tasks = Tasks::root("again");
    node.start().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((node.runtime.sandboxes(), node.runtime.attachments()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failed_liveness_probe_restarts_the_container() {
    let node = TestNode::started().await;
    node.create("{containers: [{name: a, image: 'image:1', livenessProbe: {exec: {command: [check]}, periodSeconds: 5, failureThreshold: 2}}]}");
    node.until(5, is_ready).await;
    node.runtime.exec_code("check", 1);
    node.until(20, |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    let events = node.events();
    for expected in ["Unhealthy Liveness probe failed: output", "Killing Container a failed liveness probe, will be restarted"] {
        assert!(events.iter().any(|event| event == expected), "{expected} in {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_its_probe() {
    let node = TestNode::started().await;
    node.runtime.exec_code("ready", 1);
    node.create("{containers: [{name: a, image: 'image:1', readinessProbe: {exec: {command: [ready]}, periodSeconds: 1}}]}");
    node.until(5, |pod| pod["status"]["phase"] == "Running").await;
    assert!(!is_ready(&node.pod()));
    node.runtime.exec_code("ready", 0);
    node.until(3, is_ready).await;
    node.runtime.exec_code("ready", 1);
    node.until(5, |pod| !is_ready(pod)).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_runs_to_its_end_keeps_its_status() {
    let node = TestNode::started().await;
    node.create(
        "{restartPolicy: Never, initContainers: [{name: s, image: 'image:1', restartPolicy: Always}, {name: i, image: 'image:1'}], \
         containers: [{name: a, image: 'image:1'}]}",
    );
    node.until(5, |_| node.runtime.container("i").is_some()).await;
    assert!(node.runtime.container("a").is_none());
    node.runtime.exit("i", 0);
    node.until(5, is_ready).await;
    node.runtime.exit("a", 0);
    node.until(5, |pod| pod["status"]["phase"] == "Succeeded").await;
    assert!(node.runtime.calls().iter().any(|call| call.starts_with("stop s ")));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.runtime.attachments(), 0);
    assert!(node.runtime.container("a").is_some(), "its log is still there");
    assert_eq!(node.pod()["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], json!("Completed"));
    node.api.delete(POD);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.runtime.sandboxes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_fit_fails() {
    let node = TestNode::started().await;
    node.create("{containers: [{name: a, image: 'image:1', resources: {requests: {cpu: '1000'}}}]}");
    node.until(5, |pod| pod["status"]["phase"] == "Failed").await;
    let status = node.pod()["status"].clone();
    assert_eq!(status["reason"], json!("OutOfcpu"));
    assert!(
        status["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("Pod was rejected: Node didn't have enough resource: cpu"))
    );
    assert_eq!(node.runtime.sandboxes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_pod() {
    let node = TestNode::started().await;
    node.create("{activeDeadlineSeconds: 5, containers: [{name: a, image: 'image:1'}]}");
    node.until(4, is_ready).await;
    node.until(10, |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(node.pod()["status"]["reason"], json!("DeadlineExceeded"));
}

#[tokio::test(start_paused = true)]
async fn the_node_is_registered_and_its_lease_renewed() {
    let node = TestNode::started().await;
    let kubelet = node.kubelet.as_ref().expect("started");
    kubelet.registered().await;
    let object = node.api.get("/api/v1/nodes/n1").expect("registered");
    assert_eq!(object["metadata"]["labels"]["kubernetes.io/hostname"], json!("n1"));
    let conditions = object["status"]["conditions"].as_array().expect("conditions").clone();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").expect("Ready");
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("True"), &json!("KubeletReady")));
    let lease = || node.api.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1").expect("a lease");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let first = lease()["spec"]["renewTime"].clone();
    node.api.clear_requests();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_ne!(lease()["spec"]["renewTime"], first);
    // An idle kubelet does nothing else.
    let writes = node.api.writes();
    assert!(writes.iter().all(|line| line.contains("/leases/")), "{writes:?}");
    node.api.edit("/api/v1/nodes/n1", |node| node["spec"]["podCIDRs"] = json!(["10.42.0.0/24"]));
    assert_eq!(kubelet.pod_cidrs().await, ["10.42.0.0/24"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_sandbox_is_made_again() {
    let node = TestNode::started().await;
    node.create("{containers: [{name: a, image: 'image:1'}]}");
    node.until(5, is_ready).await;
    let id = node.runtime.container("a").expect("there").sandbox;
    corten_runtime::Runtime::stop_sandbox(&node.runtime, &id).await.expect("stopped");
    node.until(30, |pod| is_ready(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert!(node.runtime.calls().contains(&"run_sandbox web#1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_resize_changes_the_running_container() {
    let node = TestNode::started().await;
    node.create("{containers: [{name: a, image: 'image:1', resources: {requests: {cpu: 100m}}}]}");
    node.until(5, is_ready).await;
    node.api.edit(POD, |pod| pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("200m"));
    node.until(5, |pod| pod["status"]["containerStatuses"][0]["allocatedResources"]["cpu"] == "200m").await;
    assert!(node.runtime.calls().contains(&"update a cpu=204".to_owned()));
    assert_eq!(node.runtime.container("a").expect("there").attempt, 0);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_missing_is_tried_with_growing_pauses() {
    let node = TestNode::started().await;
    node.create("{containers: [{name: a, image: 'image:1'}], volumes: [{name: v, secret: {secretName: s}}]}");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let failures = node.api.list("/api/v1/namespaces/default/events");
    let failure = failures.iter().find(|event| event["reason"] == "FailedMount").expect("told");
    assert_eq!(failure["message"], json!("MountVolume.SetUp failed for volume \"v\" : secret \"s\" not found"));
    let count = failure["count"].as_u64().expect("a count");
    assert!((3..=8).contains(&count), "{count}");
    assert!(node.runtime.container("a").is_none());
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}, "data": {"k": "eA=="}});
    node.api.create("/api/v1/namespaces/default/secrets", secret);
    node.until(1, is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn old_runs_are_collected() {
    let node = TestNode::started().await;
    node.create("{containers: [{name: a, image: 'image:1'}]}");
    node.until(5, is_ready).await;
    for restarts in 1..4 {
        node.runtime.exit("a", 1);
        node.until(100, |pod| pod["status"]["containerStatuses"][0]["restartCount"] == restarts && is_ready(pod)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let kept = corten_runtime::Runtime::list_containers(&node.runtime).await.expect("listed");
    let mut attempts: Vec<u32> = kept.iter().map(|container| container.attempt).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_count_goes_on_though_the_containers_are_gone() {
    let mut node = TestNode::started().await;
    node.create("{containers: [{name: a, image: 'image:1'}]}");
    node.until(5, is_ready).await;
    let restarts =
        |count: i64| move |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == count && is_ready(pod);
    node.tasks.stop().await;
    node.runtime.forget_everything();
    node.tasks = Tasks::root("test");
    node.start().await;
    node.until(100, restarts(1)).await;
    let last = node.pod()["status"]["containerStatuses"][0]["lastState"]["terminated"].clone();
    assert_eq!((&last["reason"], &last["exitCode"]), (&json!("ContainerStatusUnknown"), &json!(137)));
    node.runtime.exit("a", 1);
    node.until(100, restarts(2)).await;
    let last = node.pod()["status"]["containerStatuses"][0]["lastState"]["terminated"].clone();
    assert_eq!((&last["reason"], &last["exitCode"]), (&json!("Error"), &json!(1)));
}

#[tokio::test(start_paused = true)]
async fn logs_are_rotated_when_they_have_grown() {
    let node = TestNode::started().await;
    node.create("{containers: [{name: a, image: 'image:1'}]}");
    node.until(5, is_ready).await;
    let log = node.runtime.container("a").expect("runs").log_path;
    let write = |bytes: usize| {
        let mut file = std::fs::File::options().append(true).open(&log).expect("opens the log");
        std::io::Write::write_all(&mut file, &vec![b'x'; bytes]).expect("writes the log");
    };
    let reopened = || node.runtime.calls().iter().filter(|call| *call == "reopen_log a").count();
    for round in 1..=2 {
        write(6 << 20);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(reopened(), round - 1, "small enough");
        write(6 << 20);
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!((reopened(), crate::logs::rotated(&log).len()), (round, round));
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_over_its_limit_costs_the_pod() {
    let node = TestNode::started().await;
    node.create(
        "{containers: [{name: a, image: 'image:1', volumeMounts: [{name: v, mountPath: /v}]}],
          volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]}",
    );
    node.until(5, is_ready).await;
    let volume = node.dir.path().join("kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v");
    std::fs::write(volume.join("file"), vec![1; 512 << 10]).expect("writes into the volume");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(is_ready(&node.pod()));
    std::fs::write(volume.join("more"), vec![1; 768 << 10]).expect("writes into the volume");
    node.until(15, |pod| pod["status"]["phase"] == "Failed").await;
    let status = &node.pod()["status"];
    assert_eq!(
        (&status["reason"], &status["message"]),
        (&json!("Evicted"), &json!("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "))
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_account_token_is_bound_and_renewed() {
    let node = TestNode::started().await;
    node.create(
        "{serviceAccountName: robot, containers: [{name: a, image: 'image:1', volumeMounts: [{name: v, mountPath: /v}]}], \
         volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: token, audience: them, expirationSeconds: 600}}]}}]}",
    );
    node.until(5, is_ready).await;
    let file = node
        .runtime
        .config("a")
        .mounts
        .into_iter()
        .find(|mount| mount.container_path == std::path::Path::new("/v"))
        .expect("mounted")
        .host_path
        .join("token");
    assert_eq!(std::fs::read_to_string(&file).expect("readable"), "token 1");
    let request = node.token_requests.lock()[0].clone();
    assert_eq!(request["spec"]["boundObjectRef"], json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u1"}));
    assert_eq!((&request["spec"]["audiences"], &request["spec"]["expirationSeconds"]), (&json!(["them"]), &json!(600)));
    tokio::time::sleep(Duration::from_secs(470)).await;
    assert_eq!(std::fs::read_to_string(&file).expect("readable"), "token 1");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(std::fs::read_to_string(&file).expect("readable"), "token 2");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_cannot_start_is_told() {
    let node = TestNode::started().await;
    node.runtime.fail_start(Some("exec: \"nope\": executable file not found in $PATH"));
    node.create("{containers: [{name: a, image: 'image:1'}]}");
    node.until(5, |pod| waiting(pod) == "RunContainerError").await;
    let container = node.pod()["status"]["containerStatuses"][0].clone();
    assert_eq!(container["lastState"]["terminated"]["reason"], json!("StartError"));
    node.runtime.fail_start(None);
    node.until(30, is_ready).await;
}
