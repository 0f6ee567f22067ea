//! One event (`audit.k8s.io/v1 Event`): what is known of a request at a stage, as JSON or as a line for people.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use corten_api::field::quoted;

use super::Request;
use crate::request::RequestInfo;

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// It has come, and its sender is known.
    RequestReceived,
    /// The answer has begun and will go on for long; also of requests that do not get as far as a handler.
    ResponseStarted,
    /// The answer is sent.
    ResponseComplete,
    /// A handler panicked.
    Panic,
}

impl Stage {
    /// As events have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// Bytes of a User-Agent that are recorded.
const LONGEST_AGENT: usize = 1024;

pub(super) struct Event {
    pub(super) level: &'static str,
    pub(super) request: Request,
    pub(super) verb: String,
    pub(super) user: Value,
    pub(super) impersonated: Option<Value>,
    /// The verb that allowed that.
    pub(super) constraint: Option<&'static str>,
    /// `objectRef`
    pub(super) object: Map<String, Value>,
    pub(super) status: Option<Value>,
    pub(super) request_object: Option<Value>,
    pub(super) response_object: Option<Value>,
    pub(super) annotations: BTreeMap<String, String>,
}

impl Event {
    /// As JSON.
    pub(super) fn document(&self, stage: Stage, at: Timestamp) -> Value {
        let request = &self.request;
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": self.level, "auditID": request.id,
            "stage": stage.name(), "requestURI": request.uri, "verb": self.verb, "user": self.user,
            "requestReceivedTimestamp": corten_api::time::micros(request.received),
            "stageTimestamp": corten_api::time::micros(at),
        });
        let mut add = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                event[field] = value;
            }
        };
        add("impersonatedUser", self.impersonated.clone());
        add("authenticationMetadata", self.constraint.map(|verb| json!({"impersonationConstraint": verb})));
        add("sourceIPs", (!request.sources.is_empty()).then(|| json!(request.sources)));
        add("userAgent", (!request.user_agent.is_empty()).then(|| cut(&request.user_agent).into()));
        add("objectRef", (!self.object.is_empty()).then(|| self.object.clone().into()));
        add("responseStatus", self.status.clone());
        add("requestObject", self.request_object.clone());
        add("responseObject", self.response_object.clone());
        add("annotations", (!self.annotations.is_empty()).then(|| json!(self.annotations)));
        event
    }

    /// As the line of upstream's `legacy` format.
    pub(super) fn line(&self, stage: Stage) -> String {
        let text = |value: &Value, field: &str, none: &str| value[field].as_str().unwrap_or(none).to_owned();
        let groups = |user: &Value, none: &str| match user["groups"].as_array() {
            Some(groups) => groups.iter().filter_map(Value::as_str).map(quoted).collect::<Vec<_>>().join(","),
            None => none.to_owned(),
        };
        let (user, user_groups) = match self.user["username"].as_str() {
            Some(name) => (name.to_owned(), groups(&self.user, "<none>")),
            None => ("<none>".to_owned(), "<none>".to_owned()),
        };
        let (other, other_groups) = match &self.impersonated {
            Some(other) => (text(other, "username", ""), groups(other, "<lookup>")),
            None => ("<self>".to_owned(), "<lookup>".to_owned()),
        };
        let namespace = self.object.get("namespace").and_then(Value::as_str).unwrap_or("<none>");
        let code = self.status.as_ref().map_or_else(|| "<deferred>".to_owned(), |status| status["code"].to_string());
        let request = &self.request;
        let source = request.sources.first().map_or("<unknown>", String::as_str);
        format!(
            "{} AUDIT: id={} stage={} ip={} method={} user={} groups={} as={} asgroups={} user-agent={} namespace={} uri={} \
             response=\"{code}\"",
            request.received,
            quoted(&request.id),
            quoted(stage.name()),
            quoted(source),
            quoted(&self.verb),
            quoted(&user),
            quoted(&user_groups),
            quoted(&other),
            quoted(&other_groups),
            quoted(&cut(&request.user_agent)),
            quoted(namespace),
            quoted(&request.uri),
        )
    }
}

/// What the path says of the object.
pub(super) fn object_ref(info: &RequestInfo) -> Map<String, Value> {
    let fields = [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ];
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.as_str().into()))
        .collect()
}

/// Takes out who owns which field: of an object, of the items of a list, of the rows of a Table.
pub(super) fn drop_managed_fields(document: &mut Value) {
    fn drop_of(object: Option<&mut Value>) {
        if let Some(metadata) = object.and_then(|object| object.get_mut("metadata")).and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
    drop_of(Some(document));
    for item in document.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        drop_of(Some(item));
    }
    for row in document.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        drop_of(row.get_mut("object"));
    }
}

fn cut(agent: &str) -> String {
    if agent.len() <= LONGEST_AGENT {
        return agent.to_owned();
    }
    let end = (0..=LONGEST_AGENT).rev().find(|at| agent.is_char_boundary(*at)).unwrap_or(0);
    format!("{}...TRUNCATED", &agent[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            level: "Metadata",
            request: Request {
                id: "1".into(),
                uri: "/api/v1/pods".into(),
                user_agent: "a\"b".into(),
                sources: vec!["10.0.0.1".into()],
                received: Timestamp::UNIX_EPOCH,
            },
            verb: "list".into(),
            user: json!({"username": "u", "groups": ["g", "h"]}),
            impersonated: None,
            constraint: None,
            object: Map::new(),
            status: None,
            request_object: None,
            response_object: None,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn lines_are_upstreams() {
        let mut event = event();
        let start = "1970-01-01T00:00:00Z AUDIT: id=\"1\" stage=\"RequestReceived\" ip=\"10.0.0.1\" method=\"list\" user=\"u\" \
                     groups=\"\\\"g\\\",\\\"h\\\"\"";
        let rest = "as=\"<self>\" asgroups=\"<lookup>\" user-agent=\"a\\\"b\" namespace=\"<none>\" uri=\"/api/v1/pods\"";
        assert_eq!(event.line(Stage::RequestReceived), format!("{start} {rest} response=\"<deferred>\""));
        event.status = Some(json!({"metadata": {}, "code": 200}));
        event.impersonated = Some(json!({"username": "o"}));
        event.object.insert("namespace".into(), "n".into());
        let line = event.line(Stage::ResponseComplete);
        assert!(line.contains("as=\"o\" asgroups=\"<lookup>\"") && line.ends_with("response=\"200\""), "{line}");
        assert!(line.contains("namespace=\"n\""), "{line}");
    }

    #[test]
    fn documents_have_what_is_known() {
        let mut event = event();
        event.request.user_agent = "x".repeat(2000);
        let document = event.document(Stage::Panic, Timestamp::UNIX_EPOCH);
        assert_eq!((&document["stage"], &document["responseStatus"]), (&json!("Panic"), &Value::Null));
        assert_eq!(document["userAgent"].as_str().unwrap().len(), 1024 + "...TRUNCATED".len());
        assert_eq!(document["requestReceivedTimestamp"], "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn owners_of_fields_are_taken_out_everywhere() {
        let object = || json!({"metadata": {"name": "a", "managedFields": []}});
        for mut document in [object(), json!({"items": [object()]}), json!({"rows": [{"object": object()}]})] {
            drop_managed_fields(&mut document);
            assert!(!document.to_string().contains("managedFields"), "{document}");
        }
        drop_managed_fields(&mut json!({"rows": [{"object": null}]}));
    }
}
