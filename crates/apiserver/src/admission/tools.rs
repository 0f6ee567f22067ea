//! What plugins share: reading documents, refusals with the right name.

use serde_json::{Map, Value};

use corten_api::status::Status;

use super::{AdmissionRequest, Verdict};

/// The verdict of a plugin that waits for nothing.
pub(super) fn done<'a>(outcome: Result<(), Status>) -> Verdict<'a> {
    Box::pin(std::future::ready(outcome))
}

impl AdmissionRequest {
    /// Whether it is about this resource itself, and not a subresource.
    pub(super) fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.group == group && self.resource == resource
    }

    /// 403 for this request. A name that is still to be generated shows as its prefix, as upstream has it.
    pub(super) fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&self.group, &self.resource, &self.shown_name(), why)
    }

    fn shown_name(&self) -> String {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        let object = self.object.as_ref().unwrap_or(&Value::Null);
        let named = |field| text(object, field);
        let name = [named("/metadata/name"), named("/metadata/generateName")].into_iter().find(|name| !name.is_empty());
        name.unwrap_or("Unknown").to_owned()
    }
}

/// A text of a document; empty when it is absent.
pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list; none when it is absent.
pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The members of a map; none when it is absent.
pub(super) fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The list under `field`, made when there is none.
pub(super) fn list_mut<'v>(object: &'v mut Value, field: &str) -> &'v mut Vec<Value> {
    let place = &mut object[field];
    if !place.is_array() {
        *place = Value::Array(Vec::new());
    }
    place.as_array_mut().expect("made a list above")
}

/// The map under `field`, made when there is none.
pub(super) fn map_mut<'v>(object: &'v mut Value, field: &str) -> &'v mut Map<String, Value> {
    let place = &mut object[field];
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut().expect("made a map above")
}

/// A list as Go's `%q` joins it with commas: `"a", "b"`.
pub(super) fn quoted<'s>(names: impl IntoIterator<Item = &'s str>) -> String {
    names.into_iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// Several errors as Go's aggregate prints them.
pub(super) fn aggregate(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
