//! Which fields of a struct are written, as Go's struct tags say: what decoding JSON and protobuf have in common.

use corten_api::facts::{Field, Kind, ListType, Type, Types};
use serde_json::{Map, Value};

/// What the encoder writes of a struct in which nothing is set.
pub(crate) fn zero_struct(ty: &Type) -> Map<String, Value> {
    let mut map = Map::new();
    for at in &ty.always {
        let field = &ty.fields[*at];
        map.insert(field.name.into(), zero_field(field));
    }
    map
}

/// What is written of a field that is not set.
pub(crate) fn zero_field(field: &Field) -> Value {
    if field.pointer { Value::Null } else { zero(&field.kind) }
}

/// The encoded zero value of a kind that is held by value.
pub(crate) fn zero(kind: &Kind) -> Value {
    match kind {
        Kind::String => "".into(),
        Kind::Bool => false.into(),
        Kind::Int32 | Kind::Int64 | Kind::Float64 | Kind::IntOrString => 0.into(),
        Kind::Quantity => "0".into(),
        Kind::Duration => "0s".into(),
        Kind::Struct(id) => Value::Object(zero_struct(Types::get().of(*id))),
        _ => Value::Null,
    }
}

/// The value a field is written with, or nothing when the encoder leaves the field out. What is always written although it
/// is not set is filled in at the end of the struct.
pub(crate) fn kept(field: &Field, value: Option<Value>) -> Option<Value> {
    value.filter(|value| is_kept(field, value))
}

/// [`kept`], and empty lists too: a client's `[]` is not the same as nothing until the object is stored. The same holds for the
/// few maps of which validation and admission tell.
pub(crate) fn kept_as_sent(field: &Field, value: Option<Value>) -> Option<Value> {
    value.filter(|value| value.is_array() || is_told_map(field, value) || is_kept(field, value))
}

/// Whether a value is an empty map of which it matters that it was sent.
fn is_told_map(field: &Field, value: &Value) -> bool {
    let told = match &field.kind {
        // Devices have capacities of another kind.
        Kind::Map(item) => field.name != "capacity" || **item == Kind::Quantity,
        _ => false,
    };
    told && is_told_name(field.name, value)
}

/// Whether a value may be such a map, going by its name.
fn is_told_name(name: &str, value: &Value) -> bool {
    const NAMES: [&str; 12] = [
        "binaryData",
        "capacity",
        "data",
        "labels",
        "limits",
        "matchLabels",
        "options",
        "overhead",
        "parameters",
        "podFixed",
        "requests",
        "volumeAttributes",
    ];
    value.as_object().is_some_and(Map::is_empty) && NAMES.contains(&name)
}

/// Turns the empty lists of a document into what they are once stored: nothing, or null where the encoder always writes. With
/// `owned` they become what ownership goes by.
pub(crate) fn settle(map: &mut Map<String, Value>, ty: &Type, owned: bool) {
    settle_at(map, ty, owned, 0);
}

fn settle_at(map: &mut Map<String, Value>, ty: &Type, owned: bool, depth: usize) {
    map.retain(|name, value| {
        let Some(field) = ty.field(name) else { return true };
        // Of the object itself an empty list of managed fields asks for forgetting them.
        let forgets = depth == 1 && name == "managedFields";
        if (is_empty_list(value) && !forgets) || is_told_map(field, value) {
            let always = ty.position(name).is_some_and(|at| ty.always.contains(&at));
            if always && !owned {
                *value = Value::Null;
            }
            return always;
        }
        // Lists that are owned as a whole are compared as they were sent.
        let is_whole = owned && matches!(field.kind, Kind::List(_)) && field.list == ListType::Atomic;
        if !is_whole {
            settle_value(value, &field.kind, owned, depth + 1);
        }
        true
    });
}

fn settle_value(value: &mut Value, kind: &Kind, owned: bool, depth: usize) {
    match (kind, value) {
        (Kind::Struct(id), Value::Object(map)) => settle_at(map, Types::get().of(*id), owned, depth),
        (Kind::List(item), Value::Array(list)) => list.iter_mut().for_each(|value| settle_value(value, item, owned, depth + 1)),
        (Kind::Map(item), Value::Object(map)) => map.values_mut().for_each(|value| settle_value(value, item, owned, depth + 1)),
        _ => {}
    }
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

/// Whether there is an empty list, or a map as good as one, anywhere in a value.
pub(crate) fn has_empty_list(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty() || list.iter().any(has_empty_list),
        Value::Object(map) => map.iter().any(|(name, value)| is_told_name(name, value) || has_empty_list(value)),
        _ => false,
    }
}

/// Whether a field with this value is written.
pub(crate) fn is_kept(field: &Field, value: &Value) -> bool {
    if field.pointer {
        return !value.is_null();
    }
    match (&field.kind, value) {
        (Kind::String | Kind::Bytes, Value::String(text)) => !text.is_empty(),
        (Kind::Bool, Value::Bool(set)) => *set,
        (Kind::Int32 | Kind::Int64 | Kind::Float64, Value::Number(number)) => number.as_f64() != Some(0.0),
        // Storing turns an empty list or map into none. An empty list of managed fields asks for forgetting them.
        (Kind::List(_), Value::Array(list)) => !list.is_empty() || field.name == "managedFields",
        (Kind::Map(_), Value::Object(map)) => !map.is_empty(),
        _ => !(field.omit_zero && *value == zero(&field.kind)),
    }
}
