//! Audit: a record of who did what, as the policy says, one event a line.
//!
//! A [`Trail`] goes with every request that is recorded. Handlers tell it what they read and answer; the pipeline tells it of
//! the stages. What is kept is what the policy asks for and no more: a body that it does not ask for is not even copied.

mod event;
mod log;
mod policy;
mod sink;
mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use corten_api::status::Status;
use corten_task::Tasks;

use crate::config::Config;
use crate::metrics::Audited;
use crate::request::RequestInfo;
use crate::reviews::user_info;
use crate::user::User;

use event::Event;
pub use event::Stage;
use log::Log;
use policy::{Level, Policy, Recording};
use sink::{Handed, Output, Sink};
use webhook::Webhook;

/// Writes audit events as the policy says.
pub struct Audit {
    target: Option<Arc<Target>>,
}

struct Target {
    policy: Policy,
    sinks: Vec<Sink>,
    counted: Audited,
    /// Owner of what is still being sent when its request is over.
    tasks: Tasks,
}

/// Why auditing could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The policy or the log could not be opened.
    #[error("{}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration of the server that events go to is of no use.
    #[error("{} is no kubeconfig of an audit webhook: {why}", path.display())]
    Webhook {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The policy is none.
    #[error("{} is no audit policy: {why}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What is known of a request before anything is done with it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The id that the client gets as `Audit-Id`.
    pub id: String,
    /// Path and query as they came.
    pub uri: String,
    /// `User-Agent`
    pub user_agent: String,
    /// Where it came from, proxies first; none for requests from inside the process.
    pub sources: Vec<String>,
    /// When it came.
    pub received: Timestamp,
}

impl Audit {
    /// Reads the policy, opens the log and finds the server that events go to.
    ///
    /// # Errors
    /// When the policy or the server's configuration cannot be read or understood, or the log cannot be written. Without a policy
    /// nothing is recorded.
    pub async fn open(config: &Config, counted: Audited, tasks: &Tasks) -> Result<Self, AuditError> {
        let Some(policy) = &config.audit_policy_file else {
            return Ok(Self { target: None });
        };
        let policy = Policy::read(policy)?;
        let mut sinks = Vec::new();
        if let Some(path) = &config.audit_log_path {
            let limits = log::Limits {
                megabytes: config.audit_log_maxsize,
                backups: config.audit_log_maxbackup,
                days: config.audit_log_maxage,
            };
            let compressing = config.audit_log_compress.then(|| tasks.child("audit log"));
            let log = Output::Log(Log::open(path, limits, config.audit_log_format, compressing)?);
            let batch = config.audit_log_batch;
            sinks.push(Sink::start(log, config.audit_log_mode, batch, config.audit_log_truncation, counted.clone(), tasks));
        }
        if let Some(path) = &config.audit_webhook_config_file {
            let webhook = Output::Webhook(Webhook::open(path, config.audit_webhook_initial_backoff).await?);
            let (mode, batch) = (config.audit_webhook_mode, config.audit_webhook_batch);
            sinks.push(Sink::start(webhook, mode, batch, config.audit_webhook_truncation, counted.clone(), tasks));
        }
        let target = (!sinks.is_empty()).then(|| Arc::new(Target { policy, sinks, counted, tasks: tasks.child("audit") }));
        Ok(Self { target })
    }

    /// Whether anything is recorded at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.target.is_some()
    }

    /// The trail of a request by `user` (`None` when that was not found out), if the policy wants one.
    #[must_use]
    pub fn trail(&self, request: Request, info: &RequestInfo, user: Option<&User>) -> Option<Arc<Trail>> {
        let target = self.target.as_ref()?;
        let recording = target.policy.decide(user, info);
        target.counted.level(recording.level.name());
        if recording.level == Level::None {
            return None;
        }
        let event = Event {
            level: recording.level.name(),
            request,
            verb: info.verb.clone(),
            user: user.map_or_else(|| json!({}), user_info),
            impersonated: None,
            constraint: None,
            object: if info.is_resource { event::object_ref(info) } else { Map::new() },
            status: None,
            request_object: None,
            response_object: None,
            annotations: BTreeMap::new(),
        };
        Some(Arc::new(Trail { target: target.clone(), recording, event: Mutex::new(event) }))
    }
}

/// What is recorded of one request.
pub struct Trail {
    target: Arc<Target>,
    recording: Recording,
    event: Mutex<Event>,
}

impl Trail {
    /// Writes an event of this stage, unless the policy omits it, and waits until it is written where that is asked for. False when
    /// it had to be written and could not.
    #[must_use = "in one of the modes a request whose event cannot be written is refused"]
    pub async fn stage(&self, stage: Stage) -> bool {
        let mut accepted = true;
        // Every sink gets it, also after one that refused.
        for (sink, text) in self.texts(stage) {
            accepted &= match self.target.sinks[sink].hand(text, stage) {
                Handed::Over => true,
                Handed::Refused => false,
                Handed::Waits(text) => self.target.sinks[sink].send(text, stage).await,
            };
        }
        accepted
    }

    /// Whether requests wait for their events to be sent.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.target.sinks.iter().any(Sink::is_waited_for)
    }

    /// Writes an event of this stage, unless the policy omits it. Nobody waits for what takes a while.
    fn last_stage(&self, stage: Stage) {
        for (sink, text) in self.texts(stage) {
            if let Handed::Waits(text) = self.target.sinks[sink].hand(text, stage) {
                let target = self.target.clone();
                self.target.tasks.spawn_graceful("audit event", async move {
                    target.sinks[sink].send(text, stage).await;
                });
            }
        }
    }

    /// The event of a stage as each sink takes it, by the sink's place; nothing when the policy omits it.
    fn texts(&self, stage: Stage) -> Vec<(usize, String)> {
        if self.recording.omitted.contains(&stage) {
            return Vec::new();
        }
        let event = self.event.lock();
        let at = if stage == Stage::RequestReceived { event.request.received } else { Timestamp::now() };
        self.target.counted.event();
        let sinks = self.target.sinks.iter().enumerate();
        sinks.filter_map(|(place, sink)| Some((place, sink.encode(&event, stage, at)?))).collect()
    }

    /// In whose name the request is made, and by which verb of constrained impersonation, if by one (KEP-5284).
    pub fn impersonated(&self, user: &User, constraint: Option<&'static str>) {
        let mut event = self.event.lock();
        (event.impersonated, event.constraint) = (Some(user_info(user)), constraint);
    }

    /// Adds an annotation; the first one of a key stays.
    pub fn annotate(&self, key: &str, value: &str) {
        self.event.lock().annotations.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }

    /// The object of the body. Its name is noted where the path has none, its content where the policy wants it.
    pub fn request_object(&self, document: &Value) {
        let mut event = self.event.lock();
        for field in ["namespace", "name", "uid", "resourceVersion"] {
            if let Some(text) = document["metadata"][field].as_str().filter(|text| !text.is_empty()) {
                event.object.entry(field).or_insert_with(|| text.into());
            }
        }
        if self.recording.level >= Level::Request {
            event.request_object = Some(self.shown(document.clone()));
        }
    }

    /// A patch, as it came. What is neither JSON nor YAML has no place in an event.
    pub fn patch(&self, body: &[u8]) {
        if self.recording.level < Level::Request {
            return;
        }
        let document = serde_json::from_slice(body).or_else(|_| serde_yaml_ng::from_slice(body));
        if let Ok(document) = document {
            self.event.lock().request_object = Some(document);
        }
    }

    /// Whether the policy wants the request's body.
    #[must_use]
    pub fn wants_request(&self) -> bool {
        self.recording.level >= Level::Request
    }

    /// Whether the policy wants the answer's body.
    #[must_use]
    pub fn wants_response(&self) -> bool {
        self.recording.level >= Level::RequestResponse
    }

    /// The document that is answered with.
    pub fn response_object(&self, document: Value) {
        if self.wants_response() {
            let document = self.shown(document);
            self.event.lock().response_object = Some(document);
        }
    }

    /// A Status that is answered with.
    pub fn response_status(&self, status: &Value) {
        let mut shown = json!({"metadata": {}});
        for field in ["status", "message", "reason", "details", "code"] {
            if let Some(value) = status.get(field).filter(|value| !value.is_null()) {
                shown[field] = value.clone();
            }
        }
        self.event.lock().status = Some(shown);
        self.response_object(status.clone());
    }

    /// The code of the answer.
    pub fn code(&self, code: u16) {
        let mut event = self.event.lock();
        let status = event.status.get_or_insert_with(|| json!({"metadata": {}}));
        status["code"] = code.into();
    }

    /// A handler panicked with this text.
    pub async fn panicked(&self, text: &str) {
        let message = format!("APIServer panic'd: {text}");
        let status = Status::failure(500, "InternalError", message);
        let mut status = status.to_document();
        if let Some(status) = status.as_object_mut() {
            status.remove("kind");
            status.remove("apiVersion");
        }
        self.event.lock().status = Some(status);
        let _ = self.stage(Stage::Panic).await;
    }

    fn shown(&self, mut document: Value) -> Value {
        if self.recording.omit_managed_fields {
            event::drop_managed_fields(&mut document);
        }
        document
    }
}

/// Ends a trail when the last byte of the answer is sent, or nobody reads it any more.
pub struct Ending(pub Arc<Trail>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.last_stage(Stage::ResponseComplete);
    }
}

/// Where a request came from: through which proxies, as they say, and from which address, which is certain.
#[must_use]
pub fn sources(headers: &HeaderMap, peer: Option<std::net::IpAddr>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let address = |text: &str| text.trim().parse::<std::net::IpAddr>().ok();
    let mut sources: Vec<std::net::IpAddr> = text("x-forwarded-for").split(',').filter_map(address).collect();
    if let Some(real) = address(text("x-real-ip")).filter(|real| !sources.contains(real)) {
        sources.push(real);
    }
    if let Some(peer) = peer.filter(|peer| sources.last() != Some(peer)) {
        sources.push(peer);
    }
    sources.iter().map(std::net::IpAddr::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_begin_with_the_first_proxy_and_end_with_the_peer() {
        let peer = Some([10, 0, 0, 9].into());
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers =
                pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
            sources(&headers.collect(), peer).join(" ")
        };
        assert_eq!(of(&[]), "10.0.0.9");
        assert_eq!(of(&[("x-forwarded-for", "1.1.1.1, x, 2.2.2.2"), ("x-real-ip", "1.1.1.1")]), "1.1.1.1 2.2.2.2 10.0.0.9");
        assert_eq!(of(&[("x-real-ip", "10.0.0.9")]), "10.0.0.9");
    }
}
