//! What users of `kube` do, over TLS with a token: typed clients, each kind of patch, pages, the watcher and its reflector, a
//! controller with a finalizer, waiting for conditions, and a definition made by the derive.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, predicates, reflector, watcher};
use kube::{Client, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::running::Running;

const NS: &str = "kube";

struct Server {
    client: Client,
    running: Running,
}

impl Server {
    async fn start() -> Self {
        let running = Running::start(|directory, config| {
            let tokens = directory.join("tokens.csv");
            std::fs::write(&tokens, "admin-token,admin,admin,system:masters\n").unwrap();
            config.token_auth_file = Some(tokens);
        });
        let running = running.await;
        let mut config = kube::Config::new(format!("https://{}", running.server.address()).parse().unwrap());
        config.accept_invalid_certs = true;
        config.auth_info.token = Some("admin-token".to_owned().into());
        let client = Client::try_from(config).unwrap();
        let namespace =
            Namespace { metadata: kube::core::ObjectMeta { name: Some(NS.into()), ..Default::default() }, ..Default::default() };
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        Self { client, running }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NS)
    }
}

fn map(name: &str, value: &str) -> ConfigMap {
    let data = BTreeMap::from([("k".to_owned(), value.to_owned())]);
    let mut map = ConfigMap { data: Some(data), ..ConfigMap::default() };
    map.metadata.name = Some(name.to_owned());
    map
}

fn code(err: kube::Error) -> u16 {
    match err {
        kube::Error::Api(status) => status.code,
        other => panic!("{other}"),
    }
}

/// A step that must not take for ever.
async fn soon<T>(what: &str, step: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), step).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typed_objects_live_and_are_patched() {
    let server = Server::start().await;
    let maps = server.api::<ConfigMap>();
    let made = maps.create(&PostParams::default(), &map("one", "1")).await.unwrap();
    assert_eq!(code(maps.create(&PostParams::default(), &map("one", "1")).await.unwrap_err()), 409);
    let mut changed = made.clone();
    changed.data.as_mut().unwrap().insert("l".into(), "2".into());
    maps.replace("one", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(code(maps.replace("one", &PostParams::default(), &changed).await.unwrap_err()), 409);
    assert_eq!(maps.get_metadata("one").await.unwrap().name_any(), "one");
    assert!(maps.get_opt("two").await.unwrap().is_none());

    let merged = maps.patch("one", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": null}}))).await.unwrap();
    assert_eq!(merged.data.unwrap().into_keys().collect::<Vec<_>>(), ["l"]);
    let operations = serde_json::from_value(json!([{"op": "add", "path": "/data/m", "value": "3"}])).unwrap();
    let patched = maps.patch("one", &PatchParams::default(), &Patch::Json::<()>(operations)).await.unwrap();
    assert_eq!(patched.data.unwrap()["m"], "3");
    let mut applied = map("one", "applied");
    applied.metadata.managed_fields = None;
    let applied = maps.patch("one", &PatchParams::apply("tester"), &Patch::Apply(&applied)).await.unwrap();
    assert_eq!(applied.data.unwrap()["k"], "applied");
    let other = maps.patch("one", &PatchParams::apply("other"), &Patch::Apply(&map("one", "mine"))).await.unwrap_err();
    assert_eq!(code(other), 409);
    maps.patch("one", &PatchParams::apply("other").force(), &Patch::Apply(&map("one", "mine"))).await.unwrap();
    assert!(maps.delete("one", &DeleteParams::default()).await.unwrap().is_right());

    let deployments = server.api::<Deployment>();
    let labels = json!({"app": "d"});
    let document = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i", "tty": true}]}}}});
    deployments.create(&PostParams::default(), &serde_json::from_value(document).unwrap()).await.unwrap();
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "j"}]}}}});
    let strategic = deployments.patch("d", &PatchParams::default(), &Patch::Strategic(image)).await.unwrap();
    let container = &strategic.spec.unwrap().template.spec.unwrap().containers[0];
    assert_eq!((container.image.as_deref(), container.tty), (Some("j"), Some(true)));
    let four = Patch::Merge(json!({"spec": {"replicas": 4}}));
    let scale = deployments.patch_scale("d", &PatchParams::default(), &four).await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(4));
    server.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_paged_and_watches_go_on_from_them() {
    let server = Server::start().await;
    let maps = server.api::<ConfigMap>();
    for n in 0..5 {
        maps.create(&PostParams::default(), &map(&format!("m{n}"), "1")).await.unwrap();
    }
    let mut names = Vec::new();
    let mut params = ListParams::default().limit(2);
    loop {
        let page = maps.list(&params).await.unwrap();
        names.extend(page.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);

    let from = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    maps.delete("m1", &DeleteParams::default()).await.unwrap();
    let stream = maps.watch(&WatchParams::default().timeout(20), &from).await.unwrap();
    let first = soon("the event", stream.boxed().try_next()).await.unwrap().unwrap();
    assert!(matches!(first, WatchEvent::Deleted(gone) if gone.name_any() == "m1"));

    // The same through types that are not known when the program is built.
    let kind = kube::core::GroupVersionKind::gvk("", "v1", "ConfigMap");
    let found = kube::discovery::pinned_kind(&server.client, &kind).await;
    let (resource, capabilities): (ApiResource, _) = found.unwrap();
    assert!(capabilities.supports_operation("watch"));
    let objects = Api::<DynamicObject>::namespaced_with(server.client.clone(), NS, &resource);
    assert_eq!(objects.list(&ListParams::default()).await.unwrap().items.len(), 4);
    assert_eq!(objects.get("m2").await.unwrap().data["data"]["k"], "1");
    let groups = kube::discovery::Discovery::new(server.client.clone()).run_aggregated().await.unwrap();
    assert!(groups.has_group("apps"));
    server.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reflector_follows_by_lists_and_by_streams() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let server = Server::start().await;
        let maps = server.api::<ConfigMap>();
        maps.create(&PostParams::default(), &map("before", "1")).await.unwrap();
        let (reader, writer) = reflector::store();
        let events = watcher(maps.clone(), config).default_backoff().reflect(writer).applied_objects();
        let mut events = Box::pin(events.predicate_filter(predicates::resource_version, Default::default()));
        let first = soon("the object that was there", events.try_next()).await.unwrap().unwrap();
        assert_eq!(first.name_any(), "before");
        maps.create(&PostParams::default(), &map("later", "1")).await.unwrap();
        let second = soon("the object that came", events.try_next()).await.unwrap().unwrap();
        assert_eq!(second.name_any(), "later");
        assert_eq!(reader.state().len(), 2);
        server.running.stop().await;
    }
}

struct Context {
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_owns_and_cleans_up() {
    /// Every ConfigMap gets a Secret of its own, and is told to nobody before the Secret is gone.
    async fn reconcile(
        map: Arc<ConfigMap>,
        context: Arc<Context>,
    ) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
        finalizer(&context.maps, "tests.corten.dev/secret", map, |event| async {
            match event {
                Event::Apply(map) => {
                    let owner = map.controller_owner_ref(&()).expect("stored objects have a uid");
                    let secret = json!({"apiVersion": "v1", "kind": "Secret",
                        "metadata": {"name": map.name_any(), "ownerReferences": [owner]}, "stringData": map.data});
                    context.secrets.patch(&map.name_any(), &PatchParams::apply("controller"), &Patch::Apply(secret)).await?;
                }
                Event::Cleanup(map) => {
                    context.secrets.delete(&map.name_any(), &DeleteParams::default()).await?;
                }
            }
            Ok(Action::await_change())
        })
        .await
    }

    let server = Server::start().await;
    let (maps, secrets) = (server.api::<ConfigMap>(), server.api::<Secret>());
    let context = Arc::new(Context { secrets: secrets.clone(), maps: maps.clone() });
    let run = Controller::new(maps.clone(), watcher::Config::default())
        .owns(secrets.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(200)), context)
        .for_each(|_| std::future::ready(()));
    let steps = async {
        maps.create(&PostParams::default(), &map("owned", "1")).await.unwrap();
        let made = await_condition(secrets.clone(), "owned", |secret: Option<&Secret>| secret.is_some());
        soon("the secret", made).await.unwrap();
        let uid = maps.get("owned").await.unwrap().uid().unwrap();
        maps.delete("owned", &DeleteParams::default()).await.unwrap();
        soon("the deletion", await_condition(maps.clone(), "owned", conditions::is_deleted(&uid))).await.unwrap();
        assert!(secrets.get_opt("owned").await.unwrap().is_none(), "the finalizer ran before the object went");
    };
    tokio::select! {
        () = run => panic!("the controller ended"),
        () = steps => {}
    }
    server.running.stop().await;
}

/// A kind as operators define theirs.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize)]
#[kube(group = "tests.corten.dev", version = "v1", kind = "Boat", namespaced, schema = "manual", shortname = "bt")]
#[kube(scale(spec_replicas_path = ".spec.oars", status_replicas_path = ".status.oars"))]
struct BoatSpec {
    oars: i32,
    name: Option<String>,
}

impl JsonSchema for Boat {
    fn schema_name() -> Cow<'static, str> {
        "Boat".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object", "required": ["oars"],
            "properties": {"oars": {"type": "integer", "format": "int32", "minimum": 1}, "name": {"type": "string"}}}}})
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn derived_definitions_are_taken() {
    let server = Server::start().await;
    let definitions = Api::<CustomResourceDefinition>::all(server.client.clone());
    let name = "boats.tests.corten.dev";
    for _ in 0..2 {
        let applied = definitions.patch(name, &PatchParams::apply("operator"), &Patch::Apply(Boat::crd())).await.unwrap();
        assert_eq!(applied.spec.names.plural, "boats");
        assert_eq!(applied.spec.scope, "Namespaced");
    }
    definitions.delete(name, &DeleteParams::default()).await.unwrap();
    server.running.stop().await;
}
