//! Writes Events: what happened to an object, for people.
//!
//! Recording never waits: an event goes into a bounded channel and is lost when the channel is full, because no
//! component may be slowed down by its own commentary. One task correlates and writes, as client-go's broadcaster does:
//! equal events raise a count, similar ones are combined, and an object that talks too much is cut off (`correlate`).

mod correlate;
mod series;

use std::collections::BTreeMap;
use std::time::Duration;

use corten_task::Tasks;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use correlate::{Correlator, Occurrence, Outcome};

pub use series::{Deed, DeedRecorder};

/// As client-go's broadcaster: more than this waiting, and events are dropped.
const CHANNEL: usize = 1000;
/// As client-go: attempts to write one event, and the pause between them.
const ATTEMPTS: usize = 12;
const PAUSE: Duration = Duration::from_secs(10);

/// The `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Information.
    Normal,
    /// Something may be wrong.
    Warning,
}

impl EventType {
    /// The value of the field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events of one component. Clones share the channel and the correlation.
#[derive(Clone, Debug)]
pub struct Recorder {
    occurrences: mpsc::Sender<Occurrence>,
}

impl Recorder {
    /// A recorder whose events name `component` and `host` (empty for components that are not bound to a node) as their
    /// source. Its writer runs in `tasks`.
    #[must_use]
    pub fn new(client: Client, component: impl Into<String>, host: impl Into<String>, tasks: &Tasks) -> Self {
        let (occurrences, incoming) = mpsc::channel(CHANNEL);
        let source = Source { component: component.into(), host: host.into() };
        tasks.spawn("event recorder", write(client, source, incoming));
        Self { occurrences }
    }

    /// Records that `reason` happened to `object`. Returns at once.
    pub fn event(&self, object: &ObjectReference, kind: EventType, reason: impl Into<String>, message: impl Into<String>) {
        self.annotated(object, kind, reason, message, BTreeMap::new());
    }

    /// As [`Recorder::event`], with annotations of the Event.
    pub fn annotated(
        &self,
        object: &ObjectReference,
        kind: EventType,
        reason: impl Into<String>,
        message: impl Into<String>,
        annotations: BTreeMap<String, String>,
    ) {
        let occurrence = Occurrence { object: object.clone(), kind, reason: reason.into(), message: message.into(), annotations };
        if self.occurrences.try_send(occurrence).is_err() {
            debug!(object = ?object.name, "dropped an event, too many are waiting");
        }
    }
}

struct Source {
    component: String,
    host: String,
}

async fn write(client: Client, source: Source, mut incoming: mpsc::Receiver<Occurrence>) {
    let mut correlator = Correlator::default();
    while let Some(occurrence) = incoming.recv().await {
        let now = Timestamp::now();
        let (id, outcome) = correlator.correlate(&occurrence, now);
        let name = match outcome {
            Outcome::Drop => continue,
            Outcome::Create { message, first, count } => {
                let event = source.event(&occurrence, message, first, now, count);
                create(&client, event).await
            }
            Outcome::Count { name, message, first, count } => {
                let namespace = namespace_of(&occurrence.object);
                let last = Time(now);
                let patch = serde_json::json!({ "count": count, "lastTimestamp": last, "message": message });
                match patch_event(&client, namespace, &name, &patch).await {
                    Written::Yes => Some(name),
                    // It has expired meanwhile; the count goes on under a new name.
                    Written::Gone => create(&client, source.event(&occurrence, message, first, now, count)).await,
                    Written::No => None,
                }
            }
        };
        if let Some(name) = name {
            correlator.written(id, name);
        }
    }
}

enum Written {
    Yes,
    Gone,
    No,
}

async fn create(client: &Client, event: Event) -> Option<String> {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let name = event.metadata.name.clone();
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let params = PostParams::default();
    match attempt(|| api.create(&params, &event)).await {
        Written::Yes => name,
        Written::Gone | Written::No => None,
    }
}

async fn patch_event(client: &Client, namespace: &str, name: &str, patch: &serde_json::Value) -> Written {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
    attempt(|| api.patch(name, &params, &patch)).await
}

/// Tries until the server answers; its answer, whatever it is, is final.
async fn attempt<T, F: Future<Output = kube::Result<T>>>(mut send: impl FnMut() -> F) -> Written {
    for n in 1..=ATTEMPTS {
        match send().await {
            Ok(_) => return Written::Yes,
            Err(kube::Error::Api(status)) if status.is_not_found() => return Written::Gone,
            Err(kube::Error::Api(status)) => {
                // Expected while a namespace is being deleted, and after a retry whose first try did arrive.
                debug!(message = %status.message, "the server rejected an event");
                return Written::No;
            }
            Err(err) if n == ATTEMPTS => warn!(error = %err, "unable to write an event, giving up"),
            Err(err) => {
                debug!(error = %err, "unable to write an event, will retry");
                let pause = if n == 1 { PAUSE.mul_f64(rand::random()) } else { PAUSE };
                tokio::time::sleep(pause).await;
            }
        }
    }
    Written::No
}

impl Source {
    fn event(&self, occurrence: &Occurrence, message: String, first: Timestamp, last: Timestamp, count: i32) -> Event {
        let object = &occurrence.object;
        let name = object.name.as_deref().unwrap_or_default();
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", last.as_nanosecond())),
                namespace: Some(namespace_of(object).to_owned()),
                annotations: Some(occurrence.annotations.clone()).filter(|annotations| !annotations.is_empty()),
                ..ObjectMeta::default()
            },
            involved_object: object.clone(),
            reason: Some(occurrence.reason.clone()),
            message: Some(message),
            type_: Some(occurrence.kind.as_str().to_owned()),
            first_timestamp: Some(Time(first)),
            last_timestamp: Some(Time(last)),
            count: Some(count),
            source: Some(EventSource { component: some(&self.component), host: some(&self.host) }),
            reporting_component: some(&self.component),
            reporting_instance: some(&self.host),
            ..Event::default()
        }
    }
}

/// Events of cluster-scoped objects live in the default namespace.
fn namespace_of(object: &ObjectReference) -> &str {
    object.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
}

#[cfg(test)]
mod tests {
    use corten_fakeapi::{FakeApi, failure};

    use super::*;

    fn object() -> ObjectReference {
        ObjectReference { kind: Some("Node".into()), name: Some("n1".into()), ..ObjectReference::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn equal_events_become_one_with_a_count() {
        let (api, tasks) = (FakeApi::new(), Tasks::root("test"));
        let recorder = Recorder::new(api.client(), "kubelet", "n1", &tasks);
        for _ in 0..3 {
            recorder.event(&object(), EventType::Warning, "Rebooted", "Node n1 has been rebooted");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let events = api.list("/api/v1/events");
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["count"], 3);
        assert_eq!(events[0]["type"], "Warning");
        assert_eq!(events[0]["metadata"]["namespace"], "default");
        assert_eq!(events[0]["source"], serde_json::json!({"component": "kubelet", "host": "n1"}));
        // It expires in the API; the story goes on with its count.
        let name = events[0]["metadata"]["name"].as_str().unwrap().to_owned();
        api.delete(&format!("/api/v1/namespaces/default/events/{name}"));
        recorder.event(&object(), EventType::Warning, "Rebooted", "Node n1 has been rebooted");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(api.list("/api/v1/events")[0]["count"], 4);
        tasks.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_event_is_not_tried_again() {
        let (api, tasks) = (FakeApi::new(), Tasks::root("test"));
        api.fail(|_| Some(failure(403, "Forbidden", "the namespace is being terminated")));
        let recorder = Recorder::new(api.client(), "kubelet", "n1", &tasks);
        recorder.event(&object(), EventType::Normal, "Starting", "Starting kubelet.");
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(api.requests().len(), 1);
        tasks.stop().await;
    }
}
