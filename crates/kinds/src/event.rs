//! Events. Both groups share one store, in the core form; the rules for new events differ by group.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, names, table};

pub(crate) struct Events;

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

    fn validate(&self, object: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = legacy(object, ctx.version);
        if ctx.version != "v1" || object.has("eventTime") && ctx.version.starts_with("events.k8s.io/") {
            new_rules(&mut faults, object);
        }
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = legacy(object, ctx.version);
        if ctx.version.starts_with("events.k8s.io/") {
            for key in ["involvedObject", "reason", "message", "type", "source", "firstTimestamp", "lastTimestamp", "count"] {
                let mut now = object[key].clone();
                if key == "source" && now == json!({}) {
                    now = old[key].clone();
                }
                if now != old[key] {
                    check::immutable(&mut faults, &Path::new(key), &object[key], &old[key]);
                }
            }
            for (key, shown) in
                [("reportingComponent", "reportingController"), ("reportingInstance", "reportingInstance"), ("action", "action"), ("related", "related")]
            {
                check::immutable(&mut faults, &Path::new(shown), &object[key], &old[key]);
            }
            if object["eventTime"] != old["eventTime"] {
                check::immutable(&mut faults, &Path::new("eventTime"), &object["eventTime"], &old["eventTime"]);
            }
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

/// An event belongs to the namespace of what it is about.
fn legacy(object: &Value, version: &str) -> Faults {
    let mut faults = Faults::default();
    let own = object["metadata"].text("namespace");
    let target = &object["involvedObject"];
    let path = Path::new("involvedObject");
    let at = path.child("namespace");
    let theirs = target.text("namespace");
    if version != "v1" && !version.starts_with("events.k8s.io/") {
        return faults;
    }
    if theirs.is_empty() {
        // About a cluster object: from the default namespace, or from the system's.
        if !matches!(own, "default" | "kube-system") {
            faults.invalid_str(&at, theirs, "does not match event.namespace");
        }
    } else if own != theirs {
        faults.invalid_str(&at, theirs, "does not match event.namespace");
    }
    let wrong = names::dns_subdomain(own);
    if !wrong.is_empty() {
        faults.invalid_str(&Path::new("namespace"), own, "");
    }
    faults
}

/// What `events.k8s.io/v1` asks of a new event (KEP-383).
fn new_rules(faults: &mut Faults, object: &Value) {
    // The shown value is always empty, as in the reference server.
    let mut wrong = |path: &Path<'_>, detail: &str| faults.invalid_str(path, "", detail);
    let controller = object.text("reportingComponent");
    let _ = &mut wrong;
    if !object.has("eventTime") {
        faults.required(&Path::new("eventTime"), "");
    }
    if controller.is_empty() {
        faults.required(&Path::new("reportingController"), "");
    }
    check::qualified_name(faults, &Path::new("reportingController"), controller);
    for (key, most) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        let text = object.text(key);
        if text.is_empty() {
            faults.required(&Path::new(key), "");
        }
        if text.len() > most {
            faults.invalid_str(&Path::new(key), "", &format!("can have at most {most} characters"));
        }
    }
    if object.text("message").len() > 1024 {
        faults.invalid_str(&Path::new("message"), "", "can have at most 1024 characters");
    }
    if !matches!(object.text("type"), "Normal" | "Warning") {
        faults.invalid_str(&Path::new("type"), "", &format!("has invalid value: {}", object.text("type")));
    }
    for key in ["firstTimestamp", "lastTimestamp"] {
        if object.has(key) {
            faults.invalid_str(&Path::new(key), "", "needs to be unset");
        }
    }
    if object.int("count") != 0 {
        faults.invalid_str(&Path::new("count"), "", "needs to be unset");
    }
    let source = &object["source"];
    if !source.text("component").is_empty() || !source.text("host").is_empty() {
        faults.invalid_str(&Path::new("source"), "", "needs to be unset");
    }
}
