//! Which fields of a struct are written, as Go's struct tags say: what decoding JSON and protobuf have in common.

use corten_api::facts::{Field, Kind, Type, Types};
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

/// [`kept`], and empty lists too: a client's `[]` is not the same as nothing until the object is stored.
pub(crate) fn kept_as_sent(field: &Field, value: Option<Value>) -> Option<Value> {
    value.filter(|value| value.is_array() || is_kept(field, value))
}

/// Turns the empty lists of a document into what they are once stored: nothing, or null where the encoder always writes.
pub(crate) fn settle(map: &mut Map<String, Value>, ty: &Type, owned: bool) {
    map.retain(|name, value| {
        let Some(field) = ty.field(name) else { return true };
        if is_empty_list(value) && name != "managedFields" {
            let always = ty.position(name).is_some_and(|at| ty.always.contains(&at));
            if always && !owned {
                *value = Value::Null;
            }
            return always;
        }
        settle_value(value, &field.kind, owned);
        true
    });
}

fn settle_value(value: &mut Value, kind: &Kind, owned: bool) {
    match (kind, value) {
        (Kind::Struct(id), Value::Object(map)) => settle(map, Types::get().of(*id), owned),
        (Kind::List(item), Value::Array(list)) => list.iter_mut().for_each(|value| settle_value(value, item, owned)),
        (Kind::Map(item), Value::Object(map)) => map.values_mut().for_each(|value| settle_value(value, item, owned)),
        _ => {}
    }
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

/// Whether there is an empty list anywhere in a value.
pub(crate) fn has_empty_list(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty() || list.iter().any(has_empty_list),
        Value::Object(map) => map.values().any(has_empty_list),
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
