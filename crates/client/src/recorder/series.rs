//! Events of the newer kind (`events.k8s.io`): what a controller did, to whom, and with whom. Upstream's scheduler writes
//! these. Equal ones become a series: the second is told at once, later ones are counted here and told when the series
//! ends, six minutes after its last, and every half hour meanwhile.

use std::collections::HashMap;
use std::time::Duration;

use corten_task::Tasks;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use super::{CHANNEL, EventType, Written, attempt, namespace_of};

/// Time without another one after which a series has ended.
const FINISH: Duration = Duration::from_secs(6 * 60);
/// How often a series that goes on is told again, so that its event does not expire.
const REFRESH: Duration = Duration::from_secs(30 * 60);
/// Bytes of a note at most.
const NOTE: usize = 1024;

/// Something a controller did.
#[derive(Clone, Debug)]
pub struct Deed {
    /// Who did it: a scheduler's name, for example.
    pub controller: String,
    /// To whom.
    pub regarding: ObjectReference,
    /// With whom, if anybody.
    pub related: Option<ObjectReference>,
    /// Information or warning.
    pub kind: EventType,
    /// Why, in one word.
    pub reason: &'static str,
    /// What, in one word.
    pub action: &'static str,
    /// For people; cut where it is too long.
    pub note: String,
}

/// Records deeds. Clones share the channel and the series.
#[derive(Clone, Debug)]
pub struct DeedRecorder {
    deeds: mpsc::Sender<Deed>,
}

impl DeedRecorder {
    /// A recorder on `host`; its writer runs in `tasks`.
    #[must_use]
    pub fn new(client: Client, host: impl Into<String>, tasks: &Tasks) -> Self {
        let (deeds, incoming) = mpsc::channel(CHANNEL);
        let writer = Writer { client, host: host.into(), known: HashMap::new() };
        tasks.spawn("event recorder", writer.run(incoming));
        Self { deeds }
    }

    /// Records a deed. Returns at once.
    pub fn event(&self, deed: Deed) {
        if self.deeds.try_send(deed).is_err() {
            debug!("dropped an event, too many are waiting");
        }
    }
}

/// What makes two deeds equal: all but the note.
type Key = (String, String, String, &'static str, EventType, &'static str);

struct Writer {
    client: Client,
    host: String,
    known: HashMap<Key, Known>,
}

struct Known {
    event: Event,
    last: Instant,
    /// When the API was last told of it.
    told: Instant,
}

impl Known {
    /// When it has to be told again, or has ended.
    fn due(&self) -> Instant {
        (self.last + FINISH).min(self.told + REFRESH)
    }
}

impl Writer {
    async fn run(mut self, mut incoming: mpsc::Receiver<Deed>) {
        loop {
            let due = self.known.values().map(Known::due).min();
            let wake = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                deed = incoming.recv() => match deed {
                    Some(deed) => self.record(deed).await,
                    None => return,
                },
                () = wake => self.tend().await,
            }
        }
    }

    async fn record(&mut self, deed: Deed) {
        let key = key(&deed);
        let now = Instant::now();
        let at = MicroTime(Timestamp::now());
        if let Some(known) = self.known.get_mut(&key) {
            known.last = now;
            let more = known.event.series.as_ref().map(|series| series.count.saturating_add(1));
            known.event.series = Some(EventSeries { count: more.unwrap_or(2), last_observed_time: at });
            // Only the second is news.
            if more.is_none() {
                known.told = now;
                tell(&self.client, &known.event).await;
            }
            return;
        }
        let event = self.event(deed, at);
        tell(&self.client, &event).await;
        self.known.insert(key, Known { event, last: now, told: now });
    }

    /// Ends series, and tells those that go on.
    async fn tend(&mut self) {
        let now = Instant::now();
        let mut ended = Vec::new();
        for (key, known) in self.known.iter_mut().filter(|(_, known)| known.due() <= now) {
            if known.event.series.is_some() {
                tell(&self.client, &known.event).await;
                known.told = now;
            }
            if known.last + FINISH <= now {
                ended.push(key.clone());
            }
        }
        for key in ended {
            self.known.remove(&key);
        }
    }

    fn event(&self, deed: Deed, at: MicroTime) -> Event {
        let name = deed.regarding.name.as_deref().unwrap_or_default();
        let namespace = namespace_of(&deed.regarding).to_owned();
        let instance = if self.host.is_empty() { deed.controller.clone() } else { format!("{}-{}", deed.controller, self.host) };
        let mut note = deed.note;
        if note.len() > NOTE {
            let end = (0..=NOTE - 4).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
            note.truncate(end);
            note.push_str(" ...");
        }
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", at.0.as_nanosecond())),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            event_time: Some(at),
            reporting_controller: Some(deed.controller),
            reporting_instance: Some(instance),
            action: Some(deed.action.to_owned()),
            reason: Some(deed.reason.to_owned()),
            regarding: Some(deed.regarding),
            related: deed.related,
            note: Some(note),
            type_: Some(deed.kind.as_str().to_owned()),
            ..Event::default()
        }
    }
}

fn key(deed: &Deed) -> Key {
    let identity = |object: &ObjectReference| object.uid.clone().or_else(|| object.name.clone()).unwrap_or_default();
    let related = deed.related.as_ref().map(identity).unwrap_or_default();
    (deed.controller.clone(), identity(&deed.regarding), related, deed.reason, deed.kind, deed.action)
}

/// Writes an event, or how long its series has become.
async fn tell(client: &Client, event: &Event) {
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let (create, patch) = (PostParams::default(), PatchParams::default());
    if let Some(series) = &event.series {
        let name = event.metadata.name.as_deref().unwrap_or_default();
        let change = Patch::Strategic(json!({ "series": series }));
        match attempt(|| api.patch(name, &patch, &change)).await {
            Written::Yes | Written::No => return,
            Written::Gone => {}
        }
    }
    // The outcome is final and logged where it is tried.
    let _ = attempt(|| api.create(&create, event)).await;
}

#[cfg(test)]
mod tests {
    use corten_fakeapi::FakeApi;

    use super::*;

    fn deed(note: &str) -> Deed {
        let regarding = ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some("default".into()),
            name: Some("web".into()),
            uid: Some("u1".into()),
            ..ObjectReference::default()
        };
        Deed {
            controller: "default-scheduler".into(),
            regarding,
            related: None,
            kind: EventType::Warning,
            reason: "FailedScheduling",
            action: "Scheduling",
            note: note.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn equal_deeds_become_a_series_that_ends() {
        let (api, tasks) = (FakeApi::new(), Tasks::root("test"));
        let recorder = DeedRecorder::new(api.client(), "n1", &tasks);
        let path = "/apis/events.k8s.io/v1/events";
        for (seconds, note) in [(0, "first"), (10, "second"), (20, "third")] {
            tokio::time::sleep(Duration::from_secs(if seconds == 0 { 0 } else { 10 })).await;
            recorder.event(deed(note));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let events = api.list(path);
        assert_eq!(events.len(), 1);
        assert_eq!((&events[0]["note"], &events[0]["series"]["count"]), (&json!("first"), &json!(2)));
        assert_eq!(events[0]["reportingInstance"], "default-scheduler-n1");
        assert_eq!(
            (&events[0]["action"], &events[0]["reportingController"]),
            (&json!("Scheduling"), &json!("default-scheduler"))
        );
        tokio::time::sleep(FINISH).await;
        assert_eq!(api.list(path)[0]["series"]["count"], 3);
        recorder.event(deed(&"x".repeat(2000)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let events = api.list(path);
        assert_eq!(events.len(), 2);
        let longest = events.iter().filter_map(|event| event["note"].as_str()).map(str::len).max();
        assert!(longest.is_some_and(|length| length <= NOTE));
        tasks.stop().await;
    }
}
