//! A set of controllers on a double of the API server, under paused time.

use std::time::Duration;

use corten_client::Informers;
use corten_fakeapi::FakeApi;
use corten_task::Tasks;
use serde_json::{Value, json};

use crate::Config;
use crate::context::Context;

/// Answers discovery with these resources: group, version, plural, kind, namespaced.
pub(crate) fn serve_discovery(api: &FakeApi, resources: &[(&str, &str, &str, &str, bool)]) {
    let verbs = json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
    let list = |core: bool| {
        let of_kind = resources.iter().filter(|(group, ..)| group.is_empty() == core);
        let items: Vec<Value> = of_kind
            .map(|(group, version, plural, kind, namespaced)| {
                let scope = if *namespaced { "Namespaced" } else { "Cluster" };
                let resource = json!({"resource": plural, "responseKind": {"group": group, "version": version, "kind": kind}, "scope": scope, "verbs": verbs});
                json!({"metadata": {"name": group}, "versions": [{"version": version, "resources": [resource]}]})
            })
            .collect();
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items})
    };
    api.serve("/api", list(true));
    api.serve("/apis", list(false));
}

/// A server, and controllers that run against it until the value is dropped.
pub(crate) struct World {
    pub(crate) api: FakeApi,
    tasks: Tasks,
}

impl World {
    /// Starts `controllers` with the default configuration.
    pub(crate) fn new(controllers: &[fn(&Context)]) -> Self {
        Self::with(FakeApi::new(), Config::default(), controllers)
    }

    /// Starts `controllers` on a server that may hold objects already.
    pub(crate) fn with(api: FakeApi, config: Config, controllers: &[fn(&Context)]) -> Self {
        let tasks = Tasks::root("test");
        let client = api.client();
        let informers = Informers::new(client.clone(), &tasks);
        let ctx = Context { config, client, informers, tasks: tasks.clone() };
        controllers.iter().for_each(|start| start(&ctx));
        Self { api, tasks }
    }

    /// Lets the controllers work until nothing is left to do at once.
    pub(crate) async fn settle(&self) {
        self.pass(Duration::from_secs(1)).await;
    }

    /// Lets time pass, and the controllers do what they then do.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    pub(crate) async fn stop(self) {
        self.tasks.stop().await;
    }

    /// The `reason: message` of all events so far, sorted.
    pub(crate) fn events(&self) -> Vec<String> {
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let mut events: Vec<String> = self
            .api
            .list("/api/v1/events")
            .iter()
            .map(|event| format!("{}: {}", text(event, "reason"), text(event, "message")))
            .collect();
        events.sort();
        events
    }

    /// Plays the scheduler and the kubelet for all pods of a namespace: they run and are ready, deleted ones end.
    pub(crate) fn run_pods(&self, namespace: &str) {
        for pod in self.api.list(&format!("/api/v1/namespaces/{namespace}/pods")) {
            let path = format!("/api/v1/namespaces/{namespace}/pods/{}", pod["metadata"]["name"].as_str().unwrap_or_default());
            if pod["metadata"]["deletionTimestamp"].is_string() {
                self.api.remove(&path);
            } else if pod["status"]["phase"].is_null() {
                self.api.edit(&path, |pod| {
                    pod["spec"]["nodeName"] = json!("n1");
                    let since = crate::clock::now_time();
                    pod["status"] = json!({"phase": "Running", "podIP": "10.42.0.9", "podIPs": [{"ip": "10.42.0.9"}],
                        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]});
                });
            }
        }
    }

    /// Lets controllers and pods take turns until nothing changes.
    pub(crate) async fn run(&self, namespace: &str) {
        for _ in 0..50 {
            self.settle().await;
            let before = self.api.requests().iter().filter(|request| request.is_write()).count();
            self.run_pods(namespace);
            self.settle().await;
            if self.api.requests().iter().filter(|request| request.is_write()).count() == before {
                return;
            }
        }
        panic!("the controllers do not come to rest: {:#?}", self.api.writes().iter().rev().take(20).collect::<Vec<_>>());
    }
}
