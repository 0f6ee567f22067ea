//! Tells of each FlowSchema whether the priority level that it names exists: the condition `Dangling`.
//!
//! Level-triggered: after any change of the two kinds all schemas are looked at, and those whose condition is out of date are
//! written, by server-side apply as upstream does it.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::config::GROUP;
use crate::bootstrap;
use crate::cache::{Feed, Interest};
use crate::state::State;

const LEVELS: &str = "prioritylevelconfigurations";
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

/// Keeps the conditions true until the server stops.
pub(crate) async fn run(state: Arc<State>) {
    let (Some(schemas), Some(levels)) = (state.caches.of(GROUP, "flowschemas"), state.caches.of(GROUP, LEVELS)) else {
        return;
    };
    loop {
        // Watching starts before the look, so that no change is missed.
        let (_, mut schema_changes) = schemas.watch(Interest::All);
        let (_, mut level_changes) = levels.watch(Interest::All);
        loop {
            reconcile(&state).await;
            let feed = tokio::select! {
                feed = schema_changes.next() => feed,
                feed = level_changes.next() => feed,
            };
            if matches!(feed, Feed::Cut) {
                break;
            }
        }
    }
}

async fn reconcile(state: &Arc<State>) {
    for entry in state.reader.list(GROUP, "flowschemas", "") {
        let schema = entry.decode();
        let level = schema.pointer("/spec/priorityLevelConfiguration/name").and_then(Value::as_str).unwrap_or_default();
        let exists = state.reader.get(GROUP, LEVELS, "", level).is_some();
        let Some(condition) = plan(&schema, level, exists, jiff::Timestamp::now()) else { continue };
        let name = schema["metadata"]["name"].as_str().unwrap_or_default();
        let applied = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema",
            "metadata": {"name": name, "uid": schema["metadata"]["uid"]}, "status": {"conditions": [condition]}});
        let path = format!("/apis/{GROUP}/v1/flowschemas/{name}/status?fieldManager={MANAGER}&force=true");
        // A schema that has gone meanwhile needs no condition; the uid keeps a namesake from getting it.
        if let Err(status) = bootstrap::send(state, Method::PATCH, &path, "application/apply-patch+yaml", &applied).await {
            tracing::debug!(name, message = status.message, "the condition of a flow schema was not written");
        }
    }
}

/// The condition to write, when the one there is does not say it.
fn plan(schema: &Value, level: &str, exists: bool, now: jiff::Timestamp) -> Option<Value> {
    let (status, reason, said) = match exists {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let level = corten_api::field::quoted(level);
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level} {said}");
    let conditions = schema.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let there = conditions.into_iter().find(|condition| condition["type"] == "Dangling");
    let mut since = Value::from(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    if let Some(there) = there {
        if there["status"] == status && there["reason"] == reason && there["message"] == message.as_str() {
            return None;
        }
        if there["status"] == status {
            since = there["lastTransitionTime"].clone();
        }
    }
    Some(json!({"type": "Dangling", "status": status, "lastTransitionTime": since, "reason": reason, "message": message}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_when_it_says_something_new() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let found = plan(&json!({}), "a", true, now).unwrap_or_default();
        assert_eq!((&found["status"], &found["lastTransitionTime"]), (&json!("False"), &json!("1970-01-01T00:00:00Z")));
        let schema = json!({"status": {"conditions": [found]}});
        assert_eq!(plan(&schema, "a", true, jiff::Timestamp::MAX), None);
        let later: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap_or_default();
        // The level is another one that exists too: the message changes, the time of the transition does not.
        let other = plan(&schema, "b", true, later).unwrap_or_default();
        assert_eq!(other["lastTransitionTime"], "1970-01-01T00:00:00Z");
        let gone = plan(&schema, "a", false, later).unwrap_or_default();
        assert_eq!((&gone["reason"], &gone["lastTransitionTime"]), (&json!("NotFound"), &json!("2026-01-01T00:00:00Z")));
    }
}
