//! The mandatory and the suggested flow schemas and priority levels (KEP-1040), as two tables.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{Wanted, ensure, send};
use crate::cache::{Feed, Interest};
use crate::state::State;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Under which name the objects are written.
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Name, nominal shares, lendable percent, and queues with hand size; without queues excess is rejected.
#[rustfmt::skip]
const LEVELS: [(&str, i32, i32, Option<(i32, i32)>); 7] = [
    ("catch-all",        5,  0, None),
    ("system",          30, 33, Some((64, 6))),
    ("node-high",       40, 25, Some((64, 6))),
    ("leader-election", 10,  0, Some((16, 4))),
    ("workload-high",   40, 50, Some((128, 6))),
    ("workload-low",   100, 90, Some((128, 6))),
    ("global-default",  20, 50, Some((128, 6))),
];

/// What the rules of a schema are about.
enum About {
    Everything,
    Probes,
    Leases,
    Nodes,
}

/// Name, level, precedence, distinguisher, subjects, what it is about.
#[rustfmt::skip]
const SCHEMAS: [(&str, &str, i32, &str, &[&str], About); 11] = [
    ("exempt",                       "exempt",          1,     "",            &["group:system:masters"],                                      About::Everything),
    ("probes",                       "exempt",          2,     "",            &["group:system:unauthenticated", "group:system:authenticated"], About::Probes),
    ("system-leader-election",       "leader-election", 100,   "ByUser",      &["user:system:kube-controller-manager", "user:system:kube-scheduler", "sa:*"], About::Leases),
    ("system-node-high",             "node-high",       400,   "ByUser",      &["group:system:nodes"],                                        About::Nodes),
    ("system-nodes",                 "system",          500,   "ByUser",      &["group:system:nodes"],                                        About::Everything),
    ("kube-controller-manager",      "workload-high",   800,   "ByNamespace", &["user:system:kube-controller-manager"],                       About::Everything),
    ("kube-scheduler",               "workload-high",   800,   "ByNamespace", &["user:system:kube-scheduler"],                                About::Everything),
    ("kube-system-service-accounts", "workload-high",   900,   "ByNamespace", &["sa:*"],                                                      About::Everything),
    ("service-accounts",             "workload-low",    9000,  "ByUser",      &["group:system:serviceaccounts"],                              About::Everything),
    ("global-default",               "global-default",  9900,  "ByUser",      &["group:system:unauthenticated", "group:system:authenticated"], About::Everything),
    ("catch-all",                    "catch-all",       10000, "ByUser",      &["group:system:unauthenticated", "group:system:authenticated"], About::Everything),
];

/// Those without which nothing would be served: nobody's changes to them stay.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];
/// How soon after a change they are looked at (upstream looks every minute).
const EVERY: Duration = Duration::from_secs(60);

/// Brings back what was deleted and what was changed without leave, until the server stops.
pub(crate) async fn keep(state: Arc<State>) {
    let caches = ["flowschemas", "prioritylevelconfigurations"].map(|resource| state.caches.of(GROUP, resource));
    let [Some(schemas), Some(levels)] = caches else { return };
    loop {
        // Watching starts before the look, so that no change is missed.
        let (_, mut schema_changes) = schemas.watch(Interest::All);
        let (_, mut level_changes) = levels.watch(Interest::All);
        restore(&state).await;
        loop {
            let feed = tokio::select! {
                feed = schema_changes.next() => feed,
                feed = level_changes.next() => feed,
            };
            tokio::time::sleep(EVERY).await;
            if matches!(feed, Feed::Cut) {
                break;
            }
            // What has come meanwhile is part of the same look.
            while let Some(Feed::Batch(_)) = schema_changes.try_next() {}
            while let Some(Feed::Batch(_)) = level_changes.try_next() {}
            restore(&state).await;
        }
    }
}

async fn restore(state: &Arc<State>) {
    let objects = objects();
    for resource in ["flowschemas", "prioritylevelconfigurations"] {
        for entry in state.reader.list(GROUP, resource, "") {
            let is_ours = objects.iter().any(|wanted| wanted.resource == resource && *wanted.text("name") == *entry.name);
            let metadata = &entry.decode()["metadata"];
            if is_ours || metadata["annotations"][AUTO_UPDATE] != "true" {
                continue;
            }
            // One of another release, which nobody has made their own.
            let exactly = json!({"kind": "DeleteOptions", "apiVersion": "v1",
                "preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}});
            let path = format!("/apis/{GROUP}/v1/{resource}/{}", entry.name);
            if let Err(status) = send(state, Method::DELETE, &path, super::JSON, &exactly).await {
                tracing::debug!(name = &*entry.name, message = status.message, "an object of flow control was not removed");
            }
        }
    }
    for wanted in objects {
        let name = wanted.text("name").to_owned();
        if let Err(status) = ensure(state, wanted).await {
            tracing::debug!(name, message = status.message, "an object of flow control was not restored");
        }
    }
}

/// The object as it should be, when it is not: mandatory ones always, suggested ones where their annotation, or the lack of any
/// change of theirs, says that nobody has made them their own.
fn repair(found: &Value, wanted: &Value) -> Option<Value> {
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let said = found["metadata"]["annotations"][AUTO_UPDATE].as_str();
    let wish = match said {
        _ if MANDATORY.contains(&name) => true,
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => true,
        Some("0" | "f" | "F" | "false" | "False" | "FALSE") => false,
        _ => found["metadata"]["generation"] == 1,
    };
    let mut spec = wanted["spec"].clone();
    // How much the exempt level lends is for the cluster's owner to say.
    if name == "exempt" && found["spec"]["exempt"].is_object() && spec["exempt"].is_object() {
        spec["exempt"] = found["spec"]["exempt"].clone();
    }
    let mut repaired = found.clone();
    repaired["metadata"]["annotations"][AUTO_UPDATE] = wish.to_string().into();
    if wish && !says(&found["spec"], &spec) {
        repaired["spec"] = spec;
    }
    (repaired != *found).then_some(repaired)
}

/// Whether `found` is `wanted`, with the defaults that are filled in.
fn says(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            let is_default = |value: &Value| matches!(value, Value::Null) || *value == json!(0) || *value == json!({});
            wanted.iter().all(|(key, value)| says(found.get(key).unwrap_or(&Value::Null), value))
                && found.iter().all(|(key, value)| wanted.contains_key(key) || is_default(value))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| says(found, wanted))
        }
        _ => found == wanted,
    }
}

/// All of them.
pub(super) fn objects() -> Vec<Wanted> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let mut objects = vec![level("exempt", exempt)];
    for (name, shares, lendable, queues) in LEVELS {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand)) => {
                json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}})
            }
        };
        let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        objects.push(level(name, json!({"type": "Limited", "limited": limited})));
    }
    objects.extend(SCHEMAS.iter().map(|(name, level, precedence, distinguisher, subjects, about)| {
        let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
            "rules": [rules(subjects, about)]});
        if !distinguisher.is_empty() {
            spec["distinguisherMethod"] = json!({"type": distinguisher});
        }
        object("FlowSchema", "flowschemas", name, spec)
    }));
    objects
}

fn level(name: &str, spec: Value) -> Wanted {
    object("PriorityLevelConfiguration", "prioritylevelconfigurations", name, spec)
}

fn object(kind: &str, resource: &'static str, name: &str, spec: Value) -> Wanted {
    let metadata = json!({"name": name, "annotations": {AUTO_UPDATE: "true"}});
    let document = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec});
    Wanted { repair: Some(repair), manager: PRODUCER, ..Wanted::new(GROUP, resource, document) }
}

fn rules(subjects: &[&str], about: &About) -> Value {
    let resources = |verbs: &[&str], group: &str, resources: &[&str], cluster: bool| {
        let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
        if cluster {
            rule["clusterScope"] = true.into();
        }
        rule
    };
    let mut rules = match about {
        About::Everything => json!({"resourceRules": [resources(&["*"], "*", &["*"], true)],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}),
        About::Probes => json!({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}),
        About::Leases => {
            json!({"resourceRules": [resources(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false)]})
        }
        About::Nodes => json!({"resourceRules": [resources(&["*"], "", &["nodes", "nodes/status"], true),
            resources(&["*"], "coordination.k8s.io", &["leases"], false)]}),
    };
    rules["subjects"] = subjects.iter().copied().map(subject).collect();
    rules
}

fn subject(word: &str) -> Value {
    match word.split_once(':').expect("a subject is KIND:NAME") {
        ("user", name) => json!({"kind": "User", "user": {"name": name}}),
        ("group", name) => json!({"kind": "Group", "group": {"name": name}}),
        (_, name) => json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn changes_stay_where_the_annotation_says_so() {
        //    name            annotation      generation  spec changed  annotation afterwards, spec restored
        check("workload-low", Some("true"),   2,          true,         Some(("true", true)));
        check("workload-low", Some("true"),   1,          false,        None);
        check("workload-low", Some("false"),  2,          true,         None);
        check("workload-low", None,           1,          true,         Some(("true", true)));
        check("workload-low", None,           2,          true,         Some(("false", false)));
        check("workload-low", Some("maybe"),  2,          true,         Some(("false", false)));
        check("catch-all",    Some("false"),  2,          true,         Some(("true", true)));
        #[track_caller]
        fn check(name: &str, annotation: Option<&str>, generation: u64, changed: bool, expected: Option<(&str, bool)>) {
            let wanted = level(name, json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5}})).document;
            let mut found = wanted.clone();
            found["metadata"]["generation"] = generation.into();
            found["metadata"]["annotations"] = match annotation {
                Some(text) => json!({AUTO_UPDATE: text}),
                None => json!({}),
            };
            if changed {
                found["spec"]["limited"]["nominalConcurrencyShares"] = 7.into();
            }
            let repaired = repair(&found, &wanted);
            let got = repaired.as_ref().map(|repaired| {
                let said = repaired["metadata"]["annotations"][AUTO_UPDATE].as_str().unwrap_or_default();
                (said, repaired["spec"] == wanted["spec"])
            });
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn the_owner_says_how_much_the_exempt_level_lends() {
        let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
        let wanted = level("exempt", exempt).document;
        let mut found = wanted.clone();
        found["spec"]["exempt"]["lendablePercent"] = 50.into();
        assert_eq!(repair(&found, &wanted), None);
    }
}
