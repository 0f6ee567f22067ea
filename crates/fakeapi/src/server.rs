//! The HTTP face of the double.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use kube::core::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::request::{Recorded, Target};
use crate::state::{State, matches};
use crate::status;

type Fault = Box<dyn Fn(&Recorded) -> Option<Status> + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The server. Clones share its objects.
#[derive(Clone, Default)]
pub struct FakeApi {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    requests: Mutex<Vec<Recorded>>,
    faults: Mutex<Vec<Fault>>,
    revision: watch::Sender<u64>,
    /// Raised to end all running watches.
    epoch: watch::Sender<u64>,
}

impl FakeApi {
    /// A server without objects.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A service for `kube::Client::new`.
    pub fn service(
        &self,
    ) -> impl tower::Service<
        Request<Body>,
        Response = Answer,
        Error = Infallible,
        Future = futures::future::BoxFuture<'static, Result<Answer, Infallible>>,
    > + Send
    + 'static {
        let api = self.clone();
        tower::service_fn(move |request| {
            let api = api.clone();
            Box::pin(async move { Ok::<_, Infallible>(api.answer(request).await) }) as futures::future::BoxFuture<'static, _>
        })
    }

    /// A client of this server.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.service(), "default")
    }

    /// Creates an object at the collection path. Panics when it exists.
    #[track_caller]
    pub fn create(&self, collection: &str, object: Value) -> Value {
        let target = Target::parse(collection).expect("a resource path");
        let created = self.inner.state.lock().create(&target, object).expect("the object is new");
        self.announce();
        created
    }

    /// The object at the path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Value> {
        self.inner.state.lock().get(&Target::parse(path)?).ok()
    }

    /// All objects below the collection path.
    #[must_use]
    pub fn list(&self, collection: &str) -> Vec<Value> {
        let Some(target) = Target::parse(collection) else { return Vec::new() };
        self.inner.state.lock().select(&target, "", "").into_iter().map(|(_, object)| object).collect()
    }

    /// Changes the object at the path, status and metadata included. Panics when it is absent.
    #[track_caller]
    pub fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let target = Target::parse(path).expect("a resource path");
        let mut state = self.inner.state.lock();
        let mut object = state.get(&target).expect("the object exists");
        edit(&mut object);
        state.store(&target, "MODIFIED", object);
        drop(state);
        self.announce();
    }

    /// Deletes the object at the path as a client without options would.
    pub fn delete(&self, path: &str) {
        if let Some(target) = Target::parse(path) {
            // Deleting what is gone is what a test may want to do.
            let _ = self.inner.state.lock().delete(&target, &Value::Null);
        }
        self.announce();
    }

    /// Removes the object at the path at once, whatever its finalizers.
    pub fn remove(&self, path: &str) {
        let Some(target) = Target::parse(path) else { return };
        let mut state = self.inner.state.lock();
        if let Ok(object) = state.get(&target) {
            state.remove(&target, object);
        }
        drop(state);
        self.announce();
    }

    /// Answers GET on `path` with `document`, for what is not a resource (discovery).
    pub fn serve(&self, path: &str, document: Value) {
        self.inner.state.lock().documents.insert(path.into(), document);
    }

    /// Asks `fault` before every request; what it returns is the answer.
    pub fn fail(&self, fault: impl Fn(&Recorded) -> Option<Status> + Send + Sync + 'static) {
        self.inner.faults.lock().push(Box::new(fault));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.inner.faults.lock().clear();
    }

    /// Ends all running watches, as a server does from time to time.
    pub fn cut_watches(&self) {
        self.inner.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Forgets the history, so that a watch from an earlier revision is answered with 410.
    pub fn compact(&self) {
        self.inner.state.lock().log.clear();
    }

    /// The requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.inner.requests.lock().clone()
    }

    /// The requests that may have changed something, as `METHOD path`.
    #[must_use]
    pub fn writes(&self) -> Vec<String> {
        self.inner.requests.lock().iter().filter(|request| request.is_write()).map(Recorded::line).collect()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.inner.requests.lock().clear();
    }

    fn announce(&self) {
        let revision = self.inner.state.lock().revision;
        self.inner.revision.send_replace(revision);
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let recorded = Recorded {
            method: head.method.to_string(),
            path: head.uri.path().into(),
            query: head.uri.query().unwrap_or_default().into(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        self.inner.requests.lock().push(recorded.clone());
        if let Some(status) = self.inner.faults.lock().iter().find_map(|fault| fault(&recorded)) {
            return failure(&status);
        }
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let metadata_only = header("accept").contains("as=PartialObjectMetadata");
        if let Some(document) = self.inner.state.lock().documents.get(&recorded.path) {
            return success(document);
        }
        let Some(target) = Target::parse(&recorded.path) else {
            return failure(&status::failure(404, "NotFound", "the server could not find the requested resource"));
        };
        let query = Query::parse(&recorded.query);
        let answer = match &*recorded.method {
            "GET" if query.get("watch") == "true" => return self.watch(target, &query, metadata_only),
            "GET" if target.name.is_empty() => Ok(self.list_document(&target, &query, metadata_only)),
            "GET" => self.inner.state.lock().get(&target).map(|object| shown(object, metadata_only)),
            "POST" if target.subresource == "eviction" => self.inner.state.lock().delete(&target, &Value::Null),
            "POST" => self.inner.state.lock().create(&target, recorded.body),
            "PUT" => self.inner.state.lock().replace(&target, recorded.body),
            "PATCH" => self.patch(&target, &header("content-type"), &recorded.body),
            "DELETE" if target.name.is_empty() => {
                let mut state = self.inner.state.lock();
                for (id, _) in state.select(&target, &query.get("fieldSelector"), &query.get("labelSelector")) {
                    let one = Target { namespace: id.2, name: id.3, ..target.clone() };
                    let _ = state.delete(&one, &recorded.body);
                }
                Ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            "DELETE" => self.inner.state.lock().delete(&target, &recorded.body),
            _ => Err(status::failure(405, "MethodNotAllowed", "the server does not allow this method")),
        };
        self.announce();
        answer.map_or_else(|status| failure(&status), |object| success(&object))
    }

    fn patch(&self, target: &Target, content_type: &str, patch: &Value) -> Result<Value, Status> {
        let mut state = self.inner.state.lock();
        let mut object = match state.get(target) {
            Err(_) if content_type.contains("apply") => return state.create(target, patch.clone()),
            found => found?,
        };
        let uid = object["metadata"]["uid"].clone();
        if content_type.contains("json-patch") {
            let patch: json_patch::Patch =
                serde_json::from_value(patch.clone()).map_err(|err| status::failure(400, "BadRequest", &err.to_string()))?;
            json_patch::patch(&mut object, &patch).map_err(|err| status::failure(422, "Invalid", &err.to_string()))?;
        } else {
            if patch["metadata"]["uid"].is_string() && patch["metadata"]["uid"] != uid {
                return Err(status::conflict(target, "Precondition failed: UID"));
            }
            let owners = content_type.contains("strategic").then(|| object["metadata"]["ownerReferences"].clone());
            json_patch::merge(&mut object, patch);
            if let (Some(before), Value::Array(changes)) = (owners, &patch["metadata"]["ownerReferences"]) {
                object["metadata"]["ownerReferences"] = merge_owners(before, changes);
            }
        }
        state.replace(target, object)
    }

    fn list_document(&self, target: &Target, query: &Query, metadata_only: bool) -> Value {
        let state = self.inner.state.lock();
        let items = state.select(target, &query.get("fieldSelector"), &query.get("labelSelector"));
        let items: Vec<Value> = items.into_iter().map(|(_, object)| shown(object, metadata_only)).collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": state.revision.to_string()}, "items": items})
    }

    fn watch(&self, target: Target, query: &Query, metadata_only: bool) -> Answer {
        let (fields, labels) = (query.get("fieldSelector"), query.get("labelSelector"));
        let from: u64 = query.get("resourceVersion").parse().unwrap_or(0);
        let state = self.inner.state.lock();
        let mut first = Vec::new();
        let mut at = from;
        if query.get("sendInitialEvents") == "true" || from == 0 {
            for (_, object) in state.select(&target, &fields, &labels) {
                first.push(line("ADDED", shown(object, metadata_only)));
            }
            at = state.revision;
            let meta = json!({"resourceVersion": at.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}});
            first.push(line("BOOKMARK", json!({"kind": "X", "apiVersion": "v1", "metadata": meta})));
        } else if from < state.revision && state.log.first().is_none_or(|(oldest, ..)| *oldest > from + 1) {
            return failure(&status::failure(410, "Expired", &format!("too old resource version: {from} ({})", state.revision)));
        }
        drop(state);
        let watcher = Watcher {
            api: self.clone(),
            revision: self.inner.revision.subscribe(),
            epoch: self.inner.epoch.subscribe(),
            target,
            fields,
            labels,
            metadata_only,
            at,
        };
        let rest = stream::unfold(watcher, |mut watcher| async { watcher.next().await.map(|lines| (lines, watcher)) });
        let lines: BoxStream<'static, Bytes> = stream::iter(first).chain(rest.flat_map(stream::iter)).boxed();
        let frames = lines.map(|line| Ok::<_, Infallible>(http_body::Frame::data(line)));
        Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
    }
}

struct Watcher {
    api: FakeApi,
    revision: watch::Receiver<u64>,
    epoch: watch::Receiver<u64>,
    target: Target,
    fields: String,
    labels: String,
    metadata_only: bool,
    at: u64,
}

impl Watcher {
    /// The next changes; `None` when the watch is cut.
    async fn next(&mut self) -> Option<Vec<Bytes>> {
        loop {
            let at = self.at;
            tokio::select! {
                changed = self.revision.wait_for(|revision| *revision > at) => { changed.ok()?; }
                cut = self.epoch.changed() => {
                    cut.ok()?;
                    return None;
                }
            }
            let state = self.api.inner.state.lock();
            let mut lines = Vec::new();
            for (_, event, id, object) in state.log.iter().filter(|(revision, ..)| *revision > self.at) {
                let was = |object: &Value| matches(object, &self.fields, &self.labels);
                if self.target.covers(id) && was(object) {
                    lines.push(line(event, shown(object.clone(), self.metadata_only)));
                } else if self.target.covers(id) && *event == "MODIFIED" {
                    lines.push(line("DELETED", shown(object.clone(), self.metadata_only)));
                }
            }
            self.at = state.revision;
            if !lines.is_empty() {
                return Some(lines);
            }
        }
    }
}

/// The one list that controllers change by strategic merge: its merge key is the UID.
fn merge_owners(before: Value, changes: &[Value]) -> Value {
    let mut owners = before.as_array().cloned().unwrap_or_default();
    for change in changes {
        owners.retain(|owner| owner["uid"] != change["uid"]);
        if change["$patch"] != "delete" {
            owners.push(change.clone());
        }
    }
    if owners.is_empty() { Value::Null } else { Value::Array(owners) }
}

struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(name, value)| (name.into(), decode(value))).collect())
    }

    fn get(&self, name: &str) -> String {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn shown(object: Value, metadata_only: bool) -> Value {
    if !metadata_only {
        return object;
    }
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn line(event: &str, object: Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": event, "object": object})))
}

fn success(object: &Value) -> Answer {
    Response::new(Full::new(Bytes::from(object.to_string())).boxed_unsync())
}

fn failure(status: &Status) -> Answer {
    let mut document = json!(status);
    document["kind"] = json!("Status");
    document["apiVersion"] = json!("v1");
    let body = Full::new(Bytes::from(document.to_string())).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = http::StatusCode::from_u16(status.code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    answer
}
