//! Audit: a record of who did what, as the policy says, one JSON document a line.
//!
//! Events are written when a request is answered (stage `ResponseComplete`). Bodies are not recorded: a rule that asks for
//! them gets the metadata.

mod log;
mod policy;

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::config::Config;
use crate::metrics::Audited;
use crate::request::RequestInfo;
use crate::reviews::user_info;
use crate::user::User;

use log::Log;
use policy::{Level, Policy};

/// Writes audit events as the policy says.
pub struct Audit {
    target: Option<(Policy, Log)>,
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
    /// The policy is none.
    #[error("{} is no audit policy: {why}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// What is known of a request when it is answered.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The id that the client got as `Audit-Id`.
    pub id: &'a str,
    /// What was asked for.
    pub info: &'a RequestInfo,
    /// Path and query as they came.
    pub uri: &'a str,
    /// In whose name; `None` when that was not found out.
    pub user: Option<&'a User>,
    /// Who really sent it, when that is somebody else.
    pub impersonator: Option<&'a User>,
    /// `User-Agent`
    pub user_agent: &'a str,
    /// Where it came from; empty for requests from inside the process.
    pub source: &'a str,
    /// The code of the answer.
    pub code: u16,
    /// When it came.
    pub received: Timestamp,
}

impl Audit {
    /// Reads the policy and opens the log.
    ///
    /// # Errors
    /// When the policy cannot be read or understood, or the log cannot be written. Without a policy nothing is recorded.
    pub fn open(config: &Config) -> Result<Self, AuditError> {
        let (Some(policy), Some(log)) = (&config.audit_policy_file, &config.audit_log_path) else {
            return Ok(Self { target: None });
        };
        let policy = Policy::read(policy)?;
        let log = Log::open(log, config.audit_log_maxsize, config.audit_log_maxbackup)?;
        Ok(Self { target: Some((policy, log)) })
    }

    /// Whether anything is recorded at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.target.is_some()
    }

    /// A request was answered, and is counted in `metrics` by what the policy says of it.
    pub fn answered(&self, record: &Record<'_>, metrics: &Audited) {
        let Some((policy, log)) = &self.target else { return };
        let (level, has_stage) = policy.decide(record.user, record.info, "ResponseComplete");
        let is_written = level != Level::None && has_stage;
        if is_written {
            log.write(&event(record, level));
        }
        metrics.audited(level.name(), u64::from(is_written));
    }
}

fn event(record: &Record<'_>, level: Level) -> Value {
    let info = record.info;
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level.name(), "auditID": record.id,
        "stage": "ResponseComplete", "requestURI": record.uri, "verb": info.verb,
        "user": record.user.map_or_else(|| json!({}), user_info),
        "responseStatus": {"metadata": {}, "code": record.code},
        "requestReceivedTimestamp": corten_api::time::micros(record.received),
        "stageTimestamp": corten_api::time::micros(Timestamp::now()),
    });
    if let Some(impersonator) = record.impersonator {
        // In upstream's events `user` is who was authenticated.
        event["impersonatedUser"] = event["user"].take();
        event["user"] = user_info(impersonator);
    }
    if !record.source.is_empty() {
        event["sourceIPs"] = json!([record.source]);
    }
    if !record.user_agent.is_empty() {
        event["userAgent"] = record.user_agent.into();
    }
    if info.is_resource {
        let mut object = serde_json::Map::new();
        for (key, value) in [
            ("resource", &info.resource),
            ("namespace", &info.namespace),
            ("name", &info.name),
            ("apiGroup", &info.group),
            ("apiVersion", &info.version),
            ("subresource", &info.subresource),
        ] {
            if !value.is_empty() {
                object.insert(key.into(), value.clone().into());
            }
        }
        event["objectRef"] = object.into();
    }
    event
}
