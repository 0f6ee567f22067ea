//! The controllers against the real API server, each with the rights of its own service account: a rollout, what becomes
//! of it when it is deleted, and the end of a namespace. The scheduler and the kubelet are played by the test.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Arc;
use std::time::Duration;

use corten_apiserver::{ApiServer, User};
use corten_client::{Client, Informer, Informers, in_process};
use corten_controllers::Config;
use corten_store::sqlite;
use corten_task::Tasks;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Binding, ConfigMap, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

struct Cluster {
    client: Client,
    informers: Informers,
    changed: watch::Receiver<u64>,
    pods: Informer<Pod>,
    tasks: Tasks,
    _server: ApiServer,
    _directory: tempfile::TempDir,
}

async fn cluster() -> Cluster {
    let directory = tempfile::tempdir().unwrap();
    let tasks = Tasks::root("test");
    let store = sqlite::Sqlite::open(sqlite::Config::new(directory.path().join("store")), &tasks).unwrap();
    let config = corten_apiserver::Config {
        bind_address: [127, 0, 0, 1].into(),
        secure_port: 0,
        advertise_address: Some([127, 0, 0, 1].into()),
        ..corten_apiserver::Config::new(directory.path().join("pki"))
    };
    let server = ApiServer::start(config, Arc::new(store), &tasks).await.unwrap();
    let client = in_process(server.local(User::new("admin", &["system:masters", "system:authenticated"])), "default");
    let manager = User::new("system:kube-controller-manager", &["system:authenticated"]);
    let shared = Informers::new(in_process(server.local(manager), "default"), &tasks);
    let account = |name: &str| {
        let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
        in_process(server.local(User::new(format!("system:serviceaccount:kube-system:{name}"), &groups)), "kube-system")
    };
    let config = Config {
        root_ca: "PEM".into(),
        allocate_node_cidrs: true,
        cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
        ..Config::default()
    };
    corten_controllers::start(config, account, &shared, &tasks);

    let informers = Informers::new(client.clone(), &tasks);
    let (sender, changed) = watch::channel(0);
    let sender = Arc::new(sender);
    let pods = informers.of::<Pod>();
    notify(&pods, &sender);
    notify(&informers.of::<Deployment>(), &sender);
    notify(&informers.of::<ReplicaSet>(), &sender);
    notify(&informers.of::<EndpointSlice>(), &sender);
    notify(&informers.of::<Namespace>(), &sender);
    notify(&informers.of::<Node>(), &sender);
    notify(&informers.of::<ServiceAccount>(), &sender);
    notify(&informers.of::<ConfigMap>(), &sender);
    notify(&informers.of::<ClusterRole>(), &sender);
    Cluster { client, informers, changed, pods, tasks, _server: server, _directory: directory }
}

fn notify<K: corten_client::Object>(informer: &Informer<K>, sender: &Arc<watch::Sender<u64>>) {
    let sender = sender.clone();
    informer.on_change(move |_| sender.send_modify(|count| *count += 1));
}

fn typed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

impl Cluster {
    /// Waits for the caches to show `holds`. Looks again at every change, and gives up after a while.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                self.run_pods().await;
                if holds(self) {
                    return;
                }
                self.changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what} did not come true"));
    }

    /// Plays the scheduler and the kubelet.
    async fn run_pods(&self) {
        for pod in self.pods.list() {
            let (name, namespace) = (pod.metadata.name.clone().unwrap(), pod.metadata.namespace.clone().unwrap());
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            let running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
            if pod.metadata.deletion_timestamp.is_some() {
                let _ = api.delete(&name, &DeleteParams::default().grace_period(0)).await;
            } else if !bound {
                let binding: Binding =
                    typed(json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": namespace},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}}));
                let _: Result<Value, _> =
                    self.post(&format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"), &binding).await;
            } else if !running {
                let status = json!({"status": {"phase": "Running", "podIP": "10.42.0.9", "podIPs": [{"ip": "10.42.0.9"}], "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
                let _ = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
            }
        }
    }

    async fn post(&self, path: &str, body: &impl serde::Serialize) -> kube::Result<Value> {
        let request =
            http::Request::post(path).header("content-type", "application/json").body(serde_json::to_vec(body).unwrap()).unwrap();
        self.client.request(request).await
    }
}

fn web(image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_its_deletion_and_the_end_of_its_namespace() {
    let mut cluster = cluster().await;
    let client = cluster.client.clone();
    let post = PostParams::default();
    Api::<Node>::all(client.clone())
        .create(&post, &typed(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})))
        .await
        .unwrap();
    let shop = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    Api::<Namespace>::all(client.clone()).create(&post, &typed(shop)).await.unwrap();

    cluster
        .until("what every cluster and namespace has", |cluster| {
            let (nodes, accounts) = (cluster.informers.of::<Node>(), cluster.informers.of::<ServiceAccount>());
            let (maps, roles) = (cluster.informers.of::<ConfigMap>(), cluster.informers.of::<ClusterRole>());
            let range = nodes.list().first().and_then(|node| node.spec.as_ref()?.pod_cidr.clone());
            let view = roles.get(&corten_client::Key::cluster("view")).and_then(|role| role.rules.clone()).unwrap_or_default();
            range.as_deref() == Some("10.42.0.0/24")
                && accounts.get(&corten_client::Key::new("shop", "default")).is_some()
                && maps.get(&corten_client::Key::new("shop", "kube-root-ca.crt")).is_some()
                && !view.is_empty()
        })
        .await;

    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "shop");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    Api::<Service>::namespaced(client.clone(), "shop").create(&post, &typed(service)).await.unwrap();
    deployments.create(&post, &typed(web("one"))).await.unwrap();
    let is_rolled_out = |image: &'static str| {
        move |cluster: &Cluster| {
            let deployment = cluster.informers.of::<Deployment>().list().into_iter().next();
            let available = deployment.and_then(|deployment| deployment.status.as_ref()?.available_replicas).unwrap_or(0);
            let pods = cluster.pods.list_in("shop");
            let same =
                pods.iter().all(|pod| pod.spec.as_ref().is_some_and(|spec| spec.containers[0].image.as_deref() == Some(image)));
            let endpoints: usize = cluster
                .informers
                .of::<EndpointSlice>()
                .list_in("shop")
                .iter()
                .map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len))
                .sum();
            available == 3 && pods.len() == 3 && same && endpoints == 3
        }
    };
    cluster.until("the first rollout", is_rolled_out("one")).await;

    let update = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(update)).await.unwrap();
    cluster.until("the update", is_rolled_out("two")).await;
    assert_eq!(cluster.informers.of::<ReplicaSet>().list_in("shop").len(), 2);

    deployments.delete("web", &DeleteParams::foreground()).await.unwrap();
    cluster
        .until("the deletion of all that the deployment owned", |cluster| {
            let (deployments, sets) = (cluster.informers.of::<Deployment>(), cluster.informers.of::<ReplicaSet>());
            deployments.is_empty() && sets.is_empty() && cluster.pods.list_in("shop").is_empty()
        })
        .await;

    Api::<Namespace>::all(client).delete("shop", &DeleteParams::default()).await.unwrap();
    cluster
        .until("the end of the namespace", |cluster| {
            cluster.informers.of::<Namespace>().get(&corten_client::Key::cluster("shop")).is_none()
        })
        .await;
    cluster.tasks.stop().await;
}
