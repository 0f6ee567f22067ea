//! A write that changes nothing must not change the object: managed fields that differ in their times only are put back.

use std::borrow::Cow;

use serde_json::Value;

/// Gives `new` the times of `old`'s managed fields when nothing else differs. Metadata that the store sets is compared too,
/// so this comes before a new resource version is given.
pub fn keep_times_when_nothing_changed(new: &mut Value, old: &Value) {
    let (Some(news), Some(olds)) = (entries(new), entries(old)) else { return };
    if news == olds || !equal_besides_entries(new, old) {
        return;
    }
    let (Some(news), Some(olds)) = (list(news), list(olds)) else { return };
    let timeless_equal = news.len() == olds.len()
        && news.iter().zip(olds.iter()).all(|(new, old)| match (new.as_object(), old.as_object()) {
            (Some(new), Some(old)) => {
                let plain = |map: &serde_json::Map<String, Value>| map.len() - usize::from(map.contains_key("time"));
                plain(new) == plain(old) && new.iter().all(|(key, value)| key == "time" || old.get(key) == Some(value))
            }
            _ => false,
        });
    if timeless_equal {
        let kept = old["metadata"]["managedFields"].clone();
        new["metadata"]["managedFields"] = kept;
    }
}

fn entries(document: &Value) -> Option<&Value> {
    document.get("metadata")?.get("managedFields")
}

/// Managed fields as a list, whichever form they have.
fn list(entries: &Value) -> Option<Cow<'_, [Value]>> {
    match entries {
        Value::Array(list) => Some(list.as_slice().into()),
        Value::String(text) => Some(serde_json::from_str::<Vec<Value>>(text).ok()?.into()),
        _ => None,
    }
}

fn equal_besides_entries(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return false };
    a.len() == b.len()
        && a.iter().all(|(key, a)| match (b.get(key), key.as_str()) {
            (Some(b), "metadata") => match (a.as_object(), b.as_object()) {
                (Some(a), Some(b)) => {
                    a.len() == b.len() && a.iter().all(|(key, a)| key == "managedFields" || b.get(key) == Some(a))
                }
                _ => a == b,
            },
            (Some(b), _) => a == b,
            (None, _) => false,
        })
}
