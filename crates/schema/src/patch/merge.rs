//! JSON Merge Patch (RFC 7386).

use serde_json::Value;

use super::show::Touched;

/// Merges: members that are null in the patch are removed, objects are merged, everything else is replaced.
pub(super) fn apply(document: Value, patch: &Value) -> Value {
    let (Value::Object(mut map), Value::Object(patch)) = (document, patch) else {
        return without_nulls(patch);
    };
    for (key, change) in patch {
        if change.is_null() {
            map.remove(key);
            continue;
        }
        let merged = match map.remove(key) {
            Some(old @ Value::Object(_)) => apply(old, change),
            _ => without_nulls(change),
        };
        map.insert(key.clone(), merged);
    }
    Value::Object(map)
}

/// What a patch looks into.
pub(super) fn touched(patch: &Value) -> Touched {
    let Value::Object(map) = patch else { return Touched::new() };
    Touched { members: map.iter().map(|(name, change)| (name.clone(), touched(change))).collect(), is_new: false }
}

/// What a patch adds: null members of objects are gone, also of those in lists; null items of lists stay.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let members = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(members.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        scalar => scalar.clone(),
    }
}
