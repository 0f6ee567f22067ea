//! Compares the documents with the facts of the reference API, where they are at hand: every path, operation, parameter,
//! media type and schema of the versions we serve.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

/// A path of the reference that is not served unless a flag says so.
const NOT_SERVED: &str = "/logs/";
/// A path that the reference leaves out, although it is served.
const LEFT_OUT: &str = "/.well-known/openid-configuration/";

fn facts(name: &str) -> Option<Map<String, Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference").join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("no reference at {}: nothing is compared", path.display());
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

fn everything() -> Catalogue {
    Catalogue::builtin().serving(|_, _, _, _| true)
}

#[test]
fn operations_are_those_of_the_reference() {
    let Some(expected) = facts("operations.json") else { return };
    let catalogue = everything();
    let mut ours = BTreeMap::new();
    for (_, document) in documents(&catalogue) {
        let made = version_3(&catalogue, &document);
        ours.extend(made["paths"].as_object().unwrap().iter().map(|(path, item)| (path.clone(), outline(item))));
    }
    ours.remove(LEFT_OUT);
    let mut theirs: BTreeMap<String, Value> = expected.into_iter().filter(|(path, _)| !path.starts_with(NOT_SERVED)).collect();
    theirs.values_mut().for_each(without_cbor);
    check(&ours, &theirs);

    /// The facts were taken with every feature on; this one is off unless a flag says so.
    fn without_cbor(item: &mut Value) {
        for (_, operation) in item.as_object_mut().unwrap() {
            operation["body"].as_array_mut().unwrap().retain(|kind| !kind.as_str().unwrap().contains("cbor"));
        }
    }

    /// A path item as the reference tells it.
    fn outline(item: &Value) -> Value {
        let names = |of: &Value| -> Vec<String> {
            let all = of["parameters"].as_array().into_iter().flatten();
            all.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
        };
        let sorted_keys = |map: &Value| {
            let mut keys: Vec<_> = map.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
            keys.sort();
            keys
        };
        let mut methods = Map::new();
        for (method, operation) in item.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters") {
            let mut parameters = names(item);
            parameters.extend(names(operation));
            parameters.sort();
            let kind = &operation["x-kubernetes-group-version-kind"];
            let text = |key: &str| kind[key].as_str().unwrap().to_owned();
            let kind = (!kind.is_null()).then(|| format!("{}/{}/{}", text("group"), text("version"), text("kind")));
            methods.insert(
                method.clone(),
                json!({"action": operation["x-kubernetes-action"], "body": sorted_keys(&operation["requestBody"]["content"]),
                    "gvk": kind, "id": operation["operationId"], "params": parameters,
                    "responses": sorted_keys(&operation["responses"])}),
            );
        }
        methods.into()
    }
}

#[test]
fn schemas_are_those_of_the_reference() {
    let Some(expected) = facts("definitions.json") else { return };
    let catalogue = everything();
    let mut ours = BTreeMap::new();
    for (_, document) in documents(&catalogue) {
        let made = version_3(&catalogue, &document);
        for (name, schema) in made["components"]["schemas"].as_object().into_iter().flatten() {
            ours.insert(name.clone(), plain(schema.clone(), name));
        }
    }
    let theirs: BTreeMap<String, Value> = expected.into_iter().collect();
    check(&ours, &theirs);

    /// A schema as the reference tells it: without words, closed lists of values, defaults of items, and with the first of the many kinds that
    /// some are.
    fn plain(mut schema: Value, name: &str) -> Value {
        strip(&mut schema);
        let is_of_many = ["DeleteOptions", "WatchEvent"].iter().any(|kind| name.ends_with(&format!("meta.v1.{kind}")));
        if let Some(Value::Array(kinds)) = schema.get_mut("x-kubernetes-group-version-kind")
            && is_of_many
        {
            kinds.truncate(1);
        }
        schema
    }

    fn strip(schema: &mut Value) {
        let Value::Object(map) = schema else { return };
        map.remove("description");
        map.remove("enum");
        for inner in ["items", "additionalProperties"] {
            if let Some(Value::Object(item)) = map.get_mut(inner) {
                item.remove("default");
                item.remove("enum");
                if let Some(Value::Array(all)) = item.remove("allOf") {
                    map.insert(inner.into(), all.into_iter().next().unwrap());
                }
            }
            if let Some(item) = map.get_mut(inner) {
                strip(item);
            }
        }
        if let Some(Value::Object(properties)) = map.get_mut("properties") {
            properties.values_mut().for_each(strip);
        }
    }
}

#[track_caller]
fn check(ours: &BTreeMap<String, Value>, theirs: &BTreeMap<String, Value>) {
    let mut differences = Vec::new();
    for (name, expected) in theirs {
        match ours.get(name) {
            None => differences.push(format!("{name} is missing")),
            Some(got) => compare(name, got, expected, &mut differences),
        }
    }
    let more = ours.keys().filter(|name| !theirs.contains_key(*name));
    differences.extend(more.map(|name| format!("{name} is too much")));
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

fn compare(at: &str, got: &Value, expected: &Value, differences: &mut Vec<String>) {
    match (got, expected) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let mut keys: Vec<_> = ours.keys().chain(theirs.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let (got, expected) = (ours.get(key).unwrap_or(&Value::Null), theirs.get(key).unwrap_or(&Value::Null));
                compare(&format!("{at} {key}"), got, expected, differences);
            }
        }
        _ if got == expected => {}
        _ => differences.push(format!("{at}: {got} instead of {expected}")),
    }
}
