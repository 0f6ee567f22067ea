//! Managed fields: who owns which field, kept for every write.

use serde_json::Value;

use corten_api::status::Status;

use super::write::Writing;

/// Records what this write changed under its manager's name.
pub(crate) fn track(_writing: &Writing<'_>, _old: Option<&Value>, _document: &mut Value) -> Result<(), Status> {
    Ok(())
}

/// When nothing but times in the managed fields differs, nothing differs.
pub(crate) fn keep_times(document: &mut Value, old: &Value) {
    let (Some(new_fields), Some(old_fields)) =
        (document["metadata"]["managedFields"].as_array(), old["metadata"]["managedFields"].as_array())
    else {
        return;
    };
    let same = new_fields.len() == old_fields.len()
        && new_fields.iter().zip(old_fields).all(|(a, b)| {
            let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return false };
            let without_time = |map: &serde_json::Map<String, Value>| {
                map.iter().filter(|(key, _)| *key != "time").map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>()
            };
            without_time(a) == without_time(b)
        });
    if same {
        // Compared without the fields themselves, which are the same already.
        let ours = document["metadata"]["managedFields"].take();
        document["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
        if *document != *old {
            document["metadata"]["managedFields"] = ours;
        }
    }
}

/// Reads and checks an applied configuration.
pub(crate) fn read_applied(_writing: &Writing<'_>, _body: &[u8], _name: &str) -> Result<Value, Status> {
    Err(Status::internal("apply"))
}

/// The state that results from applying a configuration to the live object.
pub(crate) fn apply(_writing: &mut Writing<'_>, _live: Option<&Value>, _applied: &Value, _force: bool) -> Result<Value, Status> {
    Err(Status::internal("apply"))
}
