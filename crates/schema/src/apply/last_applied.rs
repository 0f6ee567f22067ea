//! The way from client-side to server-side apply: `kubectl apply` kept what it applied in an annotation, and what stands
//! there may be taken over by `kubectl apply --server-side` without a conflict.

use serde_json::Value;

use super::Conflict;
use super::schema::Schema;
use super::set::shown;
use super::walk::{compare, field_set};

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The conflicts that remain; nothing when all of them are about fields that were applied by the client.
pub(super) fn resolve<S: Schema>(
    schema: &S,
    live: &Value,
    conflicts: Vec<Conflict>,
    api_version: &str,
) -> Option<super::ApplyError> {
    let allowed = allowed(schema, live, api_version).unwrap_or_default();
    let left: Vec<Conflict> = conflicts.into_iter().filter(|conflict| !allowed.contains(&conflict.field)).collect();
    (!left.is_empty()).then_some(super::ApplyError::Conflicts(left))
}

/// Writes the annotation anew when the object has one, so that the client's tools see what is applied now.
pub(super) fn refresh(document: &mut Value, config: &Value) {
    let Some(annotations) = document.get_mut("metadata").and_then(|meta| meta.get_mut("annotations")) else { return };
    let Some(annotation) = annotations.get_mut(ANNOTATION).filter(|text| text.as_str().is_some_and(|text| !text.is_empty()))
    else {
        return;
    };
    let mut config = config.clone();
    if let Some(own) = config.get_mut("metadata").and_then(|meta| meta.get_mut("annotations")).and_then(Value::as_object_mut) {
        own.remove(ANNOTATION);
    }
    *annotation = format!("{config}\n").into();
}

/// The fields that the annotation sets and that are still as it says.
fn allowed<S: Schema>(schema: &S, live: &Value, api_version: &str) -> Option<Vec<String>> {
    let text = live["metadata"]["annotations"][ANNOTATION].as_str()?;
    let applied: Value = serde_json::from_str(text).ok()?;
    if applied["apiVersion"] != api_version {
        return None;
    }
    let found = compare(schema, &applied, live);
    let set = field_set(schema, &applied).difference(&found.modified).difference(&found.added).difference(&found.removed);
    Some(set.paths().iter().map(|path| shown(path)).collect())
}
