//! Cells of table rows: ages, lists, selectors, in the form that `kubectl get` shows; and whole rows of what is stored nowhere.

use serde_json::{Map, Value, json};

use crate::doc::Read;
use crate::{Column, columns};

/// What is printed of documents that are made for an answer and have no rules of their own.
#[derive(Debug)]
pub struct Printer {
    /// The headings.
    pub columns: &'static [Column],
    /// The cells of one document.
    pub row: fn(&Value, jiff::Timestamp) -> Vec<Value>,
}

/// `autoscaling/v1 Scale`
pub static SCALES: Printer = Printer {
    columns: columns::SCALES,
    row: |scale, now| {
        let replicas = |part: &str| scale[part]["replicas"].as_i64().unwrap_or(0).into();
        vec![name(scale), replicas("spec"), replicas("status"), age(scale, now)]
    },
};

/// `ComponentStatus`
pub static COMPONENT_STATUSES: Printer = Printer {
    columns: columns::COMPONENTSTATUSES,
    row: |component, _| {
        let conditions = component["conditions"].as_array().into_iter().flatten();
        let health = conditions.clone().find(|condition| condition.text("type") == "Healthy");
        let (status, message, error) = match health {
            Some(health) if health.text("status") == "True" => ("Healthy", health.text("message"), health.text("error")),
            Some(health) => ("Unhealthy", health.text("message"), health.text("error")),
            None => ("Unknown", "", ""),
        };
        vec![name(component), status.into(), message.into(), error.into()]
    },
};

/// The first cell of every row.
pub(crate) fn name(object: &Value) -> Value {
    object["metadata"].text("name").into()
}

/// How long ago the object was created.
pub(crate) fn age(object: &Value, now: jiff::Timestamp) -> Value {
    since(object["metadata"].text("creationTimestamp"), now).into()
}

/// When the object was created, as the tables without own columns show it; what was never created, as the bookmark of a watch,
/// shows the first moment of Go's calendar.
pub(crate) fn created(object: &Value) -> Value {
    match object["metadata"].text("creationTimestamp") {
        "" => "0001-01-01T00:00:00Z".into(),
        time => time.into(),
    }
}

/// The time since `timestamp`, `<unknown>` when there is none.
pub(crate) fn since(timestamp: &str, now: jiff::Timestamp) -> String {
    match timestamp.parse::<jiff::Timestamp>() {
        Ok(then) => duration((now.as_millisecond() - then.as_millisecond()).div_euclid(1000)),
        Err(_) => "<unknown>".into(),
    }
}

/// Seconds between two timestamps.
pub(crate) fn seconds_between(from: &str, to: &str) -> Option<i64> {
    let (from, to): (jiff::Timestamp, jiff::Timestamp) = (from.parse().ok()?, to.parse().ok()?);
    Some(to.as_second() - from.as_second())
}

/// A duration with at most two units, the finer one only while it matters (`duration.HumanDuration`).
pub(crate) fn duration(seconds: i64) -> String {
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(hours / 24, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => two(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

/// The text, or `otherwise` when it is empty.
pub(crate) fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// Names and images of containers, each joined by commas.
pub(crate) fn containers(spec: &Value) -> [Value; 2] {
    let join = |key: &str| spec.list("containers").iter().map(|container| container.text(key)).collect::<Vec<_>>().join(",");
    [join("name").into(), join("image").into()]
}

/// `a=b,c=d`, or `<none>`.
pub(crate) fn labels(map: &Map<String, Value>) -> String {
    if map.is_empty() {
        return "<none>".into();
    }
    let mut pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.sort_unstable();
    pairs.join(",")
}

/// A label selector as `FormatLabelSelector` writes it.
pub(crate) fn selector(selector: &Value) -> String {
    match selector_text(selector) {
        None => "<error>".into(),
        Some(text) if text.is_empty() => "<none>".into(),
        Some(text) => text,
    }
}

/// The requirements of a label selector, which may be none; nothing when one of them is invalid.
pub(crate) fn selector_text(selector: &Value) -> Option<String> {
    let mut parts: Vec<(String, String)> = selector
        .map("matchLabels")
        .iter()
        .map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for requirement in selector.list("matchExpressions") {
        let key = requirement.text("key");
        let mut values: Vec<&str> = requirement.texts("values").collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match requirement.text("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        };
        parts.push((key.to_owned(), text));
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    Some(parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(","))
}

/// Name and age: the row of kinds with nothing more to show.
pub(crate) fn name_and_age(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

/// A number cell.
pub(crate) fn number(object: &Value, key: &str) -> Value {
    json!(object.int(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_created_shows_the_first_moment() {
        assert_eq!(created(&json!({"metadata": {}})), "0001-01-01T00:00:00Z");
        assert_eq!(created(&json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}})), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn answers_are_printed() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let scale = json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"replicas": 3}});
        assert_eq!((SCALES.row)(&scale, now), [json!("web"), json!(3), json!(0), json!("60s")]);
        let row = |conditions| (COMPONENT_STATUSES.row)(&json!({"metadata": {"name": "etcd-0"}, "conditions": conditions}), now);
        let healthy = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
        assert_eq!(row(healthy), ["etcd-0", "Healthy", "ok", ""].map(Value::from));
        let ill = json!([{"type": "Healthy", "status": "False", "error": "gone"}]);
        assert_eq!(row(ill), ["etcd-0", "Unhealthy", "", "gone"].map(Value::from));
        assert_eq!(row(json!([])), ["etcd-0", "Unknown", "", ""].map(Value::from));
    }
}
