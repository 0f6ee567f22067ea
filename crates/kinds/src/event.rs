//! Events. Both groups share one store, in the core form; the rules for new events differ by group.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, names, table};

/// The strategy of one of the two groups.
pub(crate) struct Events {
    /// `events.k8s.io`, not core.
    pub(crate) grouped: bool,
}

impl Strategy for Events {
    fn default(&self, object: &mut Value) {
        object.object("involvedObject");
        object.object("source");
        for key in ["firstTimestamp", "lastTimestamp", "eventTime"] {
            // These three are always written, null when unset.
            if object.get(key).is_none()
                && let Some(map) = object.as_object_mut()
            {
                map.insert(key.into(), Value::Null);
            }
        }
        for key in ["reportingComponent", "reportingInstance"] {
            if object.get(key).is_none() {
                object.put(key, "");
            }
        }
    }

    fn validate_first(&self, object: &Value) -> Faults {
        self.common(object)
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        if self.grouped {
            new_rules(&mut faults, object);
        }
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        if !self.grouped {
            return faults;
        }
        if object["series"] != old["series"] {
            series(&mut faults, object);
        }
        // Key, how it is shown, and its internal type.
        const FIXED: &[(&str, &str, &str)] = &[
            ("involvedObject", "involvedObject", "ObjectReference"),
            ("reason", "reason", "s"),
            ("message", "message", "s"),
            ("source", "source", "EventSource"),
            ("firstTimestamp", "firstTimestamp", "time"),
            ("lastTimestamp", "lastTimestamp", "time"),
            ("count", "count", "i"),
            ("reason", "reason", "s"),
            ("type", "type", "s"),
            ("eventTime", "eventTime", "time"),
            ("action", "action", "s"),
            ("related", "related", "*ObjectReference"),
            ("reportingComponent", "reportingController", "s"),
            ("reportingInstance", "reportingInstance", "s"),
        ];
        for (key, shown, kind) in FIXED {
            check::immutable_as(&mut faults, &Path::new(shown), kind, &object[*key], &old[*key]);
        }
        faults
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let target = &object["involvedObject"];
        let source = object["source"].text("component");
        vec![
            ("involvedObject.kind", target.text("kind").into()),
            ("involvedObject.namespace", target.text("namespace").into()),
            ("involvedObject.name", target.text("name").into()),
            ("involvedObject.uid", target.text("uid").into()),
            ("involvedObject.apiVersion", target.text("apiVersion").into()),
            ("involvedObject.resourceVersion", target.text("resourceVersion").into()),
            ("involvedObject.fieldPath", target.text("fieldPath").into()),
            ("reason", object.text("reason").into()),
            ("reportingComponent", object.text("reportingComponent").into()),
            ("source", table::or(source, object.text("reportingComponent")).into()),
            ("type", object.text("type").into()),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        columns::EVENTS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let since = |key: &str| table::since(object.text(key), now);
        let first = if object.has("firstTimestamp") { since("firstTimestamp") } else { since("eventTime") };
        let mut last = if object.has("lastTimestamp") { since("lastTimestamp") } else { first.clone() };
        let mut count = object.int("count");
        if let Some(series) = object.opt("series") {
            last = table::since(series.text("lastObservedTime"), now);
            count = series.int("count");
        } else if count == 0 {
            count = 1;
        }
        let target = &object["involvedObject"];
        let mut shown = target.text("kind").to_lowercase();
        if !target.text("name").is_empty() {
            shown = format!("{shown}/{}", target.text("name"));
        }
        let source = &object["source"];
        let component = table::or(source.text("component"), object.text("reportingComponent"));
        let host = table::or(source.text("host"), object.text("reportingInstance"));
        let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
        vec![
            last.into(),
            object.text("type").into(),
            object.text("reason").into(),
            shown.into(),
            target.text("fieldPath").into(),
            source.into(),
            object.text("message").trim().into(),
            first.into(),
            count.into(),
            table::name(object),
        ]
    }
}

impl Events {
    /// What holds for events of both groups: they belong to the namespace of what they are about; those with an `eventTime`
    /// are of the new kind, and must say who reports what.
    fn common(&self, object: &Value) -> Faults {
        let mut faults = Faults::default();
        let own = object["metadata"].text("namespace");
        let theirs = object["involvedObject"].text("namespace");
        let involved = Path::new("involvedObject");
        let new_kind = object.has("eventTime");
        let strange = match (new_kind, theirs.is_empty()) {
            (false, true) => !matches!(own, "" | "default"),
            (false, false) => own != theirs,
            (true, true) => !matches!(own, "default" | "kube-system"),
            (true, false) => false,
        };
        if strange {
            faults.invalid_str(&involved.child("namespace"), theirs, "does not match event.namespace");
        }
        if new_kind {
            let controller = object.text("reportingComponent");
            let at = Path::new(if self.grouped { "reportingController" } else { "reportingComponent" });
            if controller.is_empty() {
                faults.required(&at, "");
            }
            check::qualified_name(&mut faults, &at, controller);
            for key in ["reportingInstance", "action", "reason"] {
                let text = object.text(key);
                if text.is_empty() {
                    faults.required(&Path::new(key), "");
                }
                // What is too long is not shown.
                if text.len() > 128 {
                    faults.invalid_str(&Path::new(key), "", "can have at most 128 characters");
                }
            }
            if object.text("message").len() > 1024 {
                faults.invalid_str(&Path::new("message"), "", "can have at most 1024 characters");
            }
        }
        check::invalid_each(&mut faults, &Path::new("namespace"), own, names::dns_subdomain(own));
        faults
    }
}

/// What `events.k8s.io/v1` asks of a new event (KEP-383): the fields of old events are unset.
fn new_rules(faults: &mut Faults, object: &Value) {
    series(faults, object);
    if !object.has("eventTime") {
        faults.required(&Path::new("eventTime"), "");
    }
    if !matches!(object.text("type"), "Normal" | "Warning") {
        faults.invalid_str(&Path::new("type"), "", &format!("has invalid value: {}", object.text("type")));
    }
    let source = &object["source"];
    let old_fields = [
        ("firstTimestamp", object.has("firstTimestamp")),
        ("lastTimestamp", object.has("lastTimestamp")),
        ("count", object.int("count") != 0),
        ("source", !source.text("component").is_empty() || !source.text("host").is_empty()),
    ];
    for (key, set) in old_fields {
        if set {
            faults.invalid_str(&Path::new(key), "", "needs to be unset");
        }
    }
}

/// A series begins with the second event.
fn series(faults: &mut Faults, object: &Value) {
    let Some(series) = object.opt("series") else { return };
    if series.int("count") < 2 {
        faults.invalid_str(&Path::new("series.count"), "", "should be at least 2");
    }
    if !series.has("lastObservedTime") {
        faults.required(&Path::new("series.lastObservedTime"), "");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{context, shown};

    #[test]
    fn series_have_two_events_and_a_time() {
        const COUNT: &str = "series.count: Invalid value: \"\": should be at least 2";
        const TIME: &str = "series.lastObservedTime: Required value";
        let event = |series: Value| {
            json!({
                "metadata": { "name": "e", "namespace": "default" }, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal",
                "reportingComponent": "example.com/c", "reportingInstance": "i", "action": "a", "reason": "r", "series": series,
            })
        };
        let time = "2026-01-01T00:00:00.000000Z";
        let cases: [(Value, &[&str]); 3] = [
            (json!({ "count": 2, "lastObservedTime": time }), &[]),
            (json!({ "count": 1, "lastObservedTime": time }), &[COUNT]),
            (json!({ "count": 0 }), &[COUNT, TIME]),
        ];
        for (series, expected) in cases {
            let new = event(series.clone());
            assert_eq!(shown(&Events { grouped: true }.validate(&new, &context(""))), expected, "{series}");
            assert!(Events { grouped: false }.validate(&new, &context("")).is_empty());
            // What is there may stay.
            assert!(Events { grouped: true }.validate_update(&new, &new, &context("")).is_empty());
        }
    }
}
