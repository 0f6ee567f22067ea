//! The normal form of a document that differs from a normal one in few places, as a patched object does.

use corten_api::facts::{Field, Kind, Type, Types};
use serde_json::{Map, Value};

use super::{DecodeError, fields, typed};

/// What differs, in its normal form.
#[derive(Debug)]
pub struct Changed {
    /// Unknown fields, in upstream's words and order.
    pub strict: Vec<String>,
    /// The members that differ, as they were.
    differing: Map<String, Value>,
    /// The same in their normal form; what has none is missing.
    normal: Map<String, Value>,
}

pub(super) fn read(live: &Value, document: &Value, ty: &Type) -> Result<Changed, DecodeError> {
    let (Value::Object(live), Value::Object(document)) = (live, document) else {
        let decoded = typed::document(&crate::encode::json(document), ty, true)?;
        let normal = if let Value::Object(map) = decoded.document { map } else { Map::new() };
        let differing = normal.clone();
        return Ok(Changed { strict: decoded.strict, differing, normal });
    };
    let differing = Value::Object(differing(live, document, ty));
    let decoded = typed::document(&crate::encode::json(&differing), ty, true)?;
    let map = |value| if let Value::Object(map) = value { map } else { Map::new() };
    Ok(Changed { strict: decoded.strict, differing: map(differing), normal: map(decoded.document) })
}

impl Changed {
    /// The normal form of the document that this was read from.
    #[must_use]
    pub fn complete(self, document: Value, ty: &Type) -> Value {
        let map = if let Value::Object(map) = document { map } else { Map::new() };
        Value::Object(complete(map, &self.differing, self.normal, ty))
    }
}

/// The members of `document` that `live` has not, or otherwise. Structs that both have are looked into.
fn differing(live: &Map<String, Value>, document: &Map<String, Value>, ty: &Type) -> Map<String, Value> {
    let mut found = Map::new();
    for (name, value) in document {
        let part = match (live.get(name), value) {
            (Some(was), value) if was == value => continue,
            (Some(Value::Object(was)), Value::Object(is)) => match inner(ty, name) {
                Some((_, inner)) => Value::Object(differing(was, is, inner)),
                None => value.clone(),
            },
            _ => value.clone(),
        };
        found.insert(name.clone(), part);
    }
    found
}

/// The field of this name, and the struct it holds.
fn inner<'t>(ty: &'t Type, name: &str) -> Option<(&'t Field, &'t Type)> {
    let field = ty.field(name)?;
    match field.kind {
        Kind::Struct(id) => Some((field, Types::get().of(id))),
        _ => None,
    }
}

fn complete(
    mut document: Map<String, Value>,
    differing: &Map<String, Value>,
    mut normal: Map<String, Value>,
    ty: &Type,
) -> Map<String, Value> {
    for (name, was) in differing {
        let value = match (inner(ty, name), was, document.remove(name)) {
            // Looked into, or new as a whole: then every member differs, and this is the whole too.
            (Some((field, inner)), Value::Object(was), Some(Value::Object(value))) => {
                let normal = match normal.remove(name) {
                    Some(Value::Object(normal)) => normal,
                    _ => Map::new(),
                };
                fields::kept_as_sent(field, Some(Value::Object(complete(value, was, normal, inner))))
            }
            _ => normal.remove(name),
        };
        if let Some(value) = value {
            document.insert(name.clone(), value);
        }
    }
    for position in &ty.always {
        let field = &ty.fields[*position];
        if !document.contains_key(field.name) {
            document.insert(field.name.into(), fields::zero_field(field));
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The same as reading the whole document, for every kind of difference.
    #[test]
    fn it_is_the_normal_form_of_the_whole() {
        let ty = Types::get().named("core.v1.Pod").unwrap();
        let live = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"a": "b"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}],
                "securityContext": {"runAsUser": 1}}, "status": {"phase": "Running"}});
        let live = super::super::normalize_as_sent(&live, ty).unwrap().document;
        let merges = [
            json!({}),
            json!({"metadata": {"annotations": {"x": "y"}}}),
            json!({"metadata": {"labels": null, "annotations": {}}}),
            json!({"metadata": {"creationTimestamp": null, "bogus": 1}}),
            json!({"metadata": null}),
            json!({"spec": null, "bogus": {"x": 1}}),
            json!({"spec": {"securityContext": {"runAsUser": null}}}),
            json!({"spec": {"securityContext": {}, "containers": [{"name": "d", "resources": {"limits": {"cpu": "0.5"}}}]}}),
            json!({"spec": {"containers": [], "tolerations": [], "hostNetwork": false, "affinity": {"nodeAffinity": {"x": 1}}}}),
            json!({"spec": {"containers": null, "nodeName": ""}, "status": {}}),
            json!({"status": null}),
            json!({"status": {"phase": null, "conditions": [{"type": "Ready"}]}}),
        ];
        for merge in merges {
            let patch = crate::patch::Patch::read(
                crate::patch::PatchKind::Merge,
                merge.to_string().as_bytes(),
                crate::decode::FieldValidation::Warn,
            );
            let document = patch.unwrap().apply(&live, None).unwrap();
            let whole = super::super::normalize_as_sent(&document, ty).unwrap();
            let changed = read(&live, &document, ty).unwrap();
            assert_eq!(changed.strict, whole.strict, "{merge}");
            assert_eq!(changed.complete(document, ty), whole.document, "{merge}");
        }
    }

    #[test]
    fn what_has_a_wrong_type_is_told_with_its_place() {
        let ty = Types::get().named("core.v1.Pod").unwrap();
        let live = super::super::normalize_as_sent(&json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}}), ty);
        let live = live.unwrap().document;
        let mut document = live.clone();
        document["spec"]["nodeName"] = json!(1);
        let whole = super::super::normalize_as_sent(&document, ty).unwrap_err();
        assert_eq!(read(&live, &document, ty).unwrap_err(), whole);
    }
}
