//! The bootstrap roles and bindings, from a compact table (`facts/rbac.txt`, written by `tools/rbac.py`).

use serde_json::{Map, Value, json};

use super::Wanted;
use crate::authz::rules::{PolicyRule, missing};

const GROUP: &str = "rbac.authorization.k8s.io";
const TABLE: &str = include_str!("../../facts/rbac.txt");
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Every bootstrap role and binding.
pub(super) fn objects() -> Vec<Wanted> {
    let mut objects: Vec<Wanted> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        if let Some(wanted) = open(&words) {
            objects.push(wanted);
            continue;
        }
        let object = &mut objects.last_mut().expect("the table begins with an object").document;
        match words.as_slice() {
            ["aggregate", label] => {
                let selector = json!({"matchLabels": labels(&[label])});
                push(&mut object["aggregationRule"]["clusterRoleSelectors"], selector);
            }
            ["url", paths, verbs] => push(&mut object["rules"], json!({"nonResourceURLs": list(paths), "verbs": list(verbs)})),
            ["rule", groups, resources, verbs, names @ ..] => {
                let mut rule = json!({"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)});
                if let [names] = names {
                    rule["resourceNames"] = list(names);
                }
                push(&mut object["rules"], rule);
            }
            other => unreachable!("the table is part of the program: {other:?}"),
        }
    }
    objects
}

/// The object that a line opens, without its rules.
fn open(words: &[&str]) -> Option<Wanted> {
    let (kind, resource, namespace, name, rest) = match *words {
        ["clusterrole", name, ref labels @ ..] => ("ClusterRole", "clusterroles", "", name, labels),
        ["role", namespace, name, ref labels @ ..] => ("Role", "roles", namespace, name, labels),
        ["clusterrolebinding", name, ref rest @ ..] => ("ClusterRoleBinding", "clusterrolebindings", "", name, rest),
        ["rolebinding", namespace, name, ref rest @ ..] => ("RoleBinding", "rolebindings", namespace, name, rest),
        _ => return None,
    };
    let mut metadata =
        json!({"name": name, "annotations": {AUTO_UPDATE: "true"}, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}});
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    let mut document = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata});
    if let (Some((role, subjects)), true) = (rest.split_first(), kind.ends_with("Binding")) {
        let (kind, name) = role.split_once('/').expect("a binding names KIND/ROLE");
        document["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": name});
        if !subjects.is_empty() {
            document["subjects"] = subjects.iter().copied().map(subject).collect();
        }
        return Some(Wanted { repair: Some(repair_binding), ..Wanted::new(GROUP, resource, document) });
    }
    if let Some(place) = document["metadata"]["labels"].as_object_mut() {
        place.extend(labels(rest));
    }
    // Aggregated roles get their rules from a controller, and have none until then.
    document["rules"] = Value::Null;
    Some(Wanted { repair: Some(repair_role), ..Wanted::new(GROUP, resource, document) })
}

fn subject(word: &str) -> Value {
    match word.split_once(':').expect("a subject is KIND:NAME") {
        ("user", name) => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
        ("group", name) => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        (_, account) => {
            let (namespace, name) = account.split_once('/').expect("a service account is NAMESPACE/NAME");
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
    }
}

fn labels(words: &[&str]) -> Map<String, Value> {
    words.iter().filter_map(|word| word.split_once('=')).map(|(key, value)| (key.to_owned(), value.into())).collect()
}

fn list(word: &str) -> Value {
    word.split(',').map(|item| if item == "-" { "" } else { item }).collect()
}

fn push(place: &mut Value, item: Value) {
    match place {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

/// Whether the user wants the object to be kept up to date (upstream's annotation).
fn may_repair(found: &Value) -> bool {
    found["metadata"]["annotations"][AUTO_UPDATE] == "true"
}

/// The role with the rules that it lacks.
fn repair_role(found: &Value, wanted: &Value) -> Option<Value> {
    let rules = |object: &Value| serde_json::from_value::<Option<Vec<PolicyRule>>>(object["rules"].clone()).ok().flatten();
    let (held, wanted) = (rules(found).unwrap_or_default(), rules(wanted).unwrap_or_default());
    let lacking = missing(&held, &wanted);
    if lacking.is_empty() || !may_repair(found) {
        return None;
    }
    let mut repaired = found.clone();
    for rule in lacking {
        push(&mut repaired["rules"], serde_json::to_value(rule).ok()?);
    }
    Some(repaired)
}

/// The binding with the subjects that it lacks.
fn repair_binding(found: &Value, wanted: &Value) -> Option<Value> {
    let mut repaired = found.clone();
    let held = found["subjects"].as_array().cloned().unwrap_or_default();
    let wanted = wanted["subjects"].as_array().into_iter().flatten();
    let lacking: Vec<_> = wanted.filter(|subject| !held.contains(subject)).cloned().collect();
    if lacking.is_empty() || !may_repair(found) {
        return None;
    }
    for subject in lacking {
        push(&mut repaired["subjects"], subject);
    }
    Some(repaired)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole() {
        let objects = objects();
        let count = |resource| objects.iter().filter(|object| object.resource == resource).count();
        assert_eq!((count("roles"), count("rolebindings")), (7, 7));
        assert!(count("clusterroles") > 60 && count("clusterrolebindings") >= 50);
        let view = objects.iter().find(|object| object.text("name") == "view").unwrap();
        assert!(view.document["rules"].is_null());
        assert!(view.document["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"].is_object());
    }

    #[test]
    fn lost_rules_come_back_and_added_ones_stay() {
        let rule = |verb: &str| json!({"apiGroups": [""], "resources": ["pods"], "verbs": [verb]});
        let wanted = json!({"rules": [rule("get"), rule("list")]});
        let mut found = json!({"metadata": {"annotations": {AUTO_UPDATE: "true"}}, "rules": [rule("list"), rule("watch")]});
        let repaired = repair_role(&found, &wanted).unwrap();
        assert_eq!(repaired["rules"], json!([rule("list"), rule("watch"), rule("get")]));
        assert_eq!(repair_role(&repaired, &wanted), None);
        found["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        assert_eq!(repair_role(&found, &wanted), None);
    }
}
