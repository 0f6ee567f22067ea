//! From documents to messages.

use base64::Engine as _;
use corten_api::facts::{Field, Kind, MemberKind, Type, Types};
use corten_api::time;
use serde_json::{Map, Value};

use super::wire::Writer;

/// Writes the fields of a struct as upstream's generated code does: what is held by value is written even when it is zero,
/// pointers, lists and maps when they are set.
pub(super) fn message(writer: &mut Writer, map: &Map<String, Value>, ty: &Type) {
    for member in &ty.members {
        match member.what {
            MemberKind::Field(at) => {
                let field = &ty.fields[at];
                match map.get(field.name).filter(|value| !value.is_null()) {
                    Some(value) => self::field(writer, member.number, field, value),
                    None if field.pointer => {}
                    None => zero(writer, member.number, &field.kind),
                }
            }
            MemberKind::Inlined(id) => writer.nested(member.number, |writer| message(writer, map, Types::get().of(id))),
        }
    }
}

/// The zero of what is held by value.
fn zero(writer: &mut Writer, number: u32, kind: &Kind) {
    match kind {
        Kind::String => writer.text(number, ""),
        Kind::Bool | Kind::Int32 | Kind::Int64 => writer.number(number, 0),
        Kind::Float64 => writer.double(number, 0.0),
        Kind::Quantity => writer.nested(number, |writer| writer.text(1, "0")),
        Kind::IntOrString => value(writer, number, kind, &0.into()),
        Kind::Time | Kind::MicroTime | Kind::RawExtension | Kind::FieldsV1 | Kind::Json => writer.bytes(number, &[]),
        Kind::Duration => writer.nested(number, |writer| writer.number(1, 0)),
        Kind::Struct(id) => writer.nested(number, |writer| message(writer, &Map::new(), Types::get().of(*id))),
        // Nothing is what is in an empty list, and the unions of schemas are always pointers.
        Kind::List(_) | Kind::Map(_) | Kind::Bytes | Kind::SchemaOrBool | Kind::SchemaOrArray | Kind::SchemaOrStrings => {}
    }
}

fn field(writer: &mut Writer, number: u32, field: &Field, value: &Value) {
    match (&field.kind, value) {
        // The one named list that is a message of its own.
        (Kind::List(item), Value::Array(list)) if field.go == Some("v1.Verbs") => {
            writer.nested(number, |writer| list.iter().for_each(|value| self::value(writer, 1, item, value)));
        }
        (Kind::List(item), Value::Array(list)) => list.iter().for_each(|value| self::value(writer, number, item, value)),
        // A struct without fields looks like a map.
        (Kind::Map(_), Value::Object(map)) if map.is_empty() && field.pointer => writer.bytes(number, &[]),
        (Kind::Map(item), Value::Object(map)) => {
            for (key, value) in map {
                writer.nested(number, |writer| {
                    writer.text(1, key);
                    self::value(writer, 2, item, value);
                });
            }
        }
        (kind, value) => self::value(writer, number, kind, value),
    }
}

/// One value that is no list or map of its own field.
fn value(writer: &mut Writer, number: u32, kind: &Kind, value: &Value) {
    match (kind, value) {
        (Kind::String, Value::String(text)) => writer.text(number, text),
        (Kind::Bool, Value::Bool(set)) => writer.number(number, i64::from(*set)),
        (Kind::Int32 | Kind::Int64, Value::Number(n)) => writer.number(number, n.as_i64().unwrap_or_default()),
        (Kind::Float64, Value::Number(n)) => writer.double(number, n.as_f64().unwrap_or_default()),
        (Kind::Bytes, Value::String(text)) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
            writer.bytes(number, &bytes);
        }
        (Kind::Quantity, Value::String(text)) => writer.nested(number, |writer| writer.text(1, text)),
        (Kind::IntOrString, Value::String(text)) => writer.nested(number, |writer| {
            writer.number(1, 1);
            writer.number(2, 0);
            writer.text(3, text);
        }),
        (Kind::IntOrString, Value::Number(n)) => writer.nested(number, |writer| {
            writer.number(1, 0);
            writer.number(2, n.as_i64().unwrap_or_default());
            writer.text(3, "");
        }),
        (Kind::Time, Value::String(text)) => instant(writer, number, time::parse(text).ok()),
        (Kind::MicroTime, Value::String(text)) => instant(writer, number, time::parse_micros(text).ok()),
        (Kind::Time | Kind::MicroTime, _) => instant(writer, number, None),
        (Kind::Duration, Value::String(text)) => {
            let nanos = time::parse_duration(text).unwrap_or_default();
            writer.nested(number, |writer| writer.number(1, nanos));
        }
        (Kind::RawExtension | Kind::Json, value) => {
            let mut raw = Vec::new();
            crate::encode::go_raw(&mut raw, value);
            writer.nested(number, |writer| writer.bytes(1, &raw));
        }
        (Kind::FieldsV1, value) => {
            writer.nested(number, |writer| writer.bytes(1, &crate::encode::json(value)));
        }
        (Kind::SchemaOrBool, value) => writer.nested(number, |writer| {
            writer.number(1, i64::from(value.as_bool().unwrap_or(true)));
            schema(writer, 2, value);
        }),
        (Kind::SchemaOrArray, Value::Array(list)) => {
            writer.nested(number, |writer| list.iter().for_each(|value| schema(writer, 2, value)));
        }
        (Kind::SchemaOrArray, value) => writer.nested(number, |writer| schema(writer, 1, value)),
        (Kind::SchemaOrStrings, Value::Array(list)) => writer.nested(number, |writer| {
            list.iter().filter_map(Value::as_str).for_each(|text| writer.text(2, text));
        }),
        (Kind::SchemaOrStrings, value) => writer.nested(number, |writer| schema(writer, 1, value)),
        (Kind::Struct(id), Value::Object(map)) => {
            writer.nested(number, |writer| message(writer, map, Types::get().of(*id)));
        }
        // A list inside of a map is a message that holds it (`ExtraValue`).
        (Kind::List(item), Value::Array(list)) => {
            writer.nested(number, |writer| list.iter().for_each(|value| self::value(writer, 1, item, value)));
        }
        // The document does not fit its type: it was never normalized, and the field is no part of the message.
        _ => {}
    }
}

fn instant(writer: &mut Writer, number: u32, time: Option<jiff::Timestamp>) {
    writer.nested(number, |writer| {
        if let Some(time) = time {
            // Go counts nanoseconds forward from the second before.
            let (mut seconds, mut nanos) = (time.as_second(), i64::from(time.subsec_nanosecond()));
            if nanos < 0 {
                seconds -= 1;
                nanos += 1_000_000_000;
            }
            writer.number(1, seconds);
            writer.number(2, nanos);
        }
    });
}

fn schema(writer: &mut Writer, number: u32, value: &Value) {
    if let (Some(map), Some(ty)) = (value.as_object(), Types::get().named("apiextensions.v1.JSONSchemaProps")) {
        writer.nested(number, |writer| message(writer, map, ty));
    }
}
