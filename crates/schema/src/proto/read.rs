//! From messages to documents.

use base64::Engine as _;
use corten_api::facts::{Field, Kind, MemberKind, Type, Types};
use corten_api::{quantity, time};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::ProtoError;
use super::wire::{Reader, Wire};
use crate::decode::MAX_DEPTH;
use crate::decode::fields::{is_kept, zero_field};

/// Reads the fields of a struct into a document of the encoder's form.
pub(super) fn message(bytes: &[u8], ty: &Type, depth: usize) -> Result<Map<String, Value>, ProtoError> {
    let mut map = Map::new();
    fill(bytes, ty, &mut map, depth)?;
    map.retain(|name, value| ty.field(name).is_some_and(|field| is_kept(field, value)));
    for at in &ty.always {
        let field = &ty.fields[*at];
        if !map.contains_key(field.name) {
            map.insert(field.name.into(), zero_field(field));
        }
    }
    Ok(map)
}

fn fill(bytes: &[u8], ty: &Type, map: &mut Map<String, Value>, depth: usize) -> Result<(), ProtoError> {
    if depth > MAX_DEPTH {
        return Err(ProtoError::Depth);
    }
    let mut reader = Reader::new(bytes, ty.name);
    while let Some((number, wire)) = reader.field()? {
        // What the type does not know is from a newer version.
        let Ok(at) = ty.members.binary_search_by(|member| member.number.cmp(&number)) else { continue };
        match ty.members[at].what {
            MemberKind::Inlined(id) => fill(wire.bytes(ty.name)?, Types::get().of(id), map, depth + 1)?,
            MemberKind::Field(at) => field(wire, &ty.fields[at], ty.name, map, depth)?,
        }
    }
    Ok(())
}

fn field(
    wire: Wire<'_>,
    field: &Field,
    message: &'static str,
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtoError> {
    match &field.kind {
        Kind::List(_) if field.go == Some("v1.Verbs") => {
            let list = value(wire, &field.kind, message, depth)?;
            map.insert(field.name.into(), list);
        }
        Kind::List(item) => {
            let list = map.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else { return Ok(()) };
            match (&**item, wire) {
                // Packed numbers are as good as single ones.
                (Kind::Int32 | Kind::Int64 | Kind::Bool, Wire::Bytes(packed)) => {
                    let mut reader = Reader::new(packed, message);
                    while !reader.is_at_end() {
                        list.push(value(Wire::Varint(reader.varint()?), item, message, depth)?);
                    }
                }
                (item, wire) => list.push(value(wire, item, message, depth + 1)?),
            }
        }
        Kind::Map(item) => {
            let entries = map.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(entries) = entries else { return Ok(()) };
            let bytes = wire.bytes(message)?;
            if bytes.is_empty() && field.pointer {
                return Ok(());
            }
            let (mut key, mut found) = (String::new(), None);
            let mut entry = Reader::new(bytes, message);
            while let Some((number, wire)) = entry.field()? {
                match number {
                    1 => key = wire.text(message)?,
                    2 => found = Some(value(wire, item, message, depth + 1)?),
                    _ => {}
                }
            }
            let found = match found {
                Some(found) => found,
                None => value(Wire::Bytes(&[]), item, message, depth + 1)?,
            };
            entries.insert(key, found);
        }
        kind => {
            let value = value(wire, kind, message, depth + 1)?;
            map.insert(field.name.into(), value);
        }
    }
    Ok(())
}

fn value(wire: Wire<'_>, kind: &Kind, message: &'static str, depth: usize) -> Result<Value, ProtoError> {
    Ok(match kind {
        Kind::String => wire.text(message)?.into(),
        Kind::Bool => (wire.number(message)? != 0).into(),
        #[expect(clippy::cast_possible_truncation, reason = "as Go does with a number that is too large")]
        Kind::Int32 => (wire.number(message)? as i32).into(),
        Kind::Int64 => wire.number(message)?.into(),
        Kind::Float64 => match wire {
            Wire::Fixed64(bits) => double(f64::from_bits(bits)),
            _ => return Err(ProtoError::Illegal { message }),
        },
        Kind::Bytes => base64::engine::general_purpose::STANDARD.encode(wire.bytes(message)?).into(),
        Kind::Quantity => {
            let text = sub_text(wire, 1, message)?;
            if text.is_empty() {
                "0".into()
            } else {
                let canonical = quantity::canonical(&text).map_err(|err| ProtoError::Value(err.to_string()))?;
                canonical.into_owned().into()
            }
        }
        Kind::IntOrString => int_or_string(wire, message)?,
        Kind::Time => instant(wire, message, time::seconds)?,
        Kind::MicroTime => instant(wire, message, time::micros)?,
        Kind::Duration => {
            let mut nanos = 0;
            let mut reader = Reader::new(wire.bytes(message)?, message);
            while let Some((number, wire)) = reader.field()? {
                if number == 1 {
                    nanos = wire.number(message)?;
                }
            }
            time::format_duration(nanos).into()
        }
        Kind::RawExtension | Kind::FieldsV1 | Kind::Json => raw(wire, message)?,
        Kind::SchemaOrBool | Kind::SchemaOrArray | Kind::SchemaOrStrings => schema_or(wire, kind, message, depth)?,
        Kind::Struct(id) => Value::Object(self::message(wire.bytes(message)?, Types::get().of(*id), depth)?),
        Kind::List(item) => {
            let mut list = Vec::new();
            let mut reader = Reader::new(wire.bytes(message)?, message);
            while let Some((number, wire)) = reader.field()? {
                if number == 1 {
                    list.push(value(wire, item, message, depth + 1)?);
                }
            }
            Value::Array(list)
        }
        // No type of the API has a map in a map.
        Kind::Map(_) => return Err(ProtoError::Illegal { message }),
    })
}

fn int_or_string(wire: Wire<'_>, message: &'static str) -> Result<Value, ProtoError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    let mut reader = Reader::new(wire.bytes(message)?, message);
    while let Some((field, wire)) = reader.field()? {
        match field {
            1 => is_text = wire.number(message)? == 1,
            2 => number = wire.number(message)?,
            3 => text = wire.text(message)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

fn instant(wire: Wire<'_>, message: &'static str, written: fn(Timestamp) -> String) -> Result<Value, ProtoError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(wire.bytes(message)?, message);
    while let Some((field, wire)) = reader.field()? {
        match field {
            1 => seconds = wire.number(message)?,
            2 => nanos = wire.number(message)?,
            _ => {}
        }
    }
    // Neither is how Go's zero time is written.
    if seconds == 0 && nanos == 0 {
        return Ok(Value::Null);
    }
    let out_of_range = || ProtoError::Value(format!("time {seconds}.{nanos:09} is out of range"));
    let nanos = i32::try_from(nanos).ok().filter(|nanos| (0..1_000_000_000).contains(nanos)).ok_or_else(out_of_range)?;
    let time = Timestamp::new(seconds, nanos).map_err(|_| out_of_range())?;
    Ok(written(time).into())
}

/// Embedded JSON, or an object that was sealed as protobuf.
fn raw(wire: Wire<'_>, message: &'static str) -> Result<Value, ProtoError> {
    let bytes = sub_bytes(wire, 1, message)?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if bytes.starts_with(super::MAGIC) {
        let envelope = super::open(bytes)?;
        let (group, version) = envelope.api_version.split_once('/').unwrap_or(("", &envelope.api_version));
        let resource = corten_api::catalogue::Catalogue::builtin().kind(group, &envelope.kind);
        let name = resource.and_then(|resource| resource.version(version)).map(|version| version.type_name.as_str());
        let ty = name.and_then(|name| Types::get().named(name));
        let unknown =
            || ProtoError::Value(format!("no kind \"{}\" is registered for version \"{}\"", envelope.kind, envelope.api_version));
        let mut document = super::decode(envelope.raw, ty.ok_or_else(unknown)?)?;
        document["apiVersion"] = envelope.api_version.as_str().into();
        document["kind"] = envelope.kind.as_str().into();
        return Ok(document);
    }
    let decoded = crate::decode::decode_any(bytes, crate::decode::Format::Json);
    decoded.map(|decoded| decoded.document).map_err(|err| ProtoError::Value(err.to_string()))
}

fn schema_or(wire: Wire<'_>, kind: &Kind, message: &'static str, depth: usize) -> Result<Value, ProtoError> {
    if depth > MAX_DEPTH {
        return Err(ProtoError::Depth);
    }
    let Some(ty) = Types::get().named("apiextensions.v1.JSONSchemaProps") else { return Ok(Value::Null) };
    let schema = |wire: Wire<'_>| self::message(wire.bytes(message)?, ty, depth + 1).map(Value::Object);
    let mut reader = Reader::new(wire.bytes(message)?, message);
    let (mut found, mut list) = (Value::Null, Vec::new());
    while let Some((number, wire)) = reader.field()? {
        match (kind, number) {
            // A schema wins over the boolean beside it, in whatever order they come.
            (Kind::SchemaOrBool, 1) if !found.is_object() => found = (wire.number(message)? != 0).into(),
            (Kind::SchemaOrBool, 2) | (Kind::SchemaOrArray | Kind::SchemaOrStrings, 1) => found = schema(wire)?,
            (Kind::SchemaOrArray, 2) => list.push(schema(wire)?),
            (Kind::SchemaOrStrings, 2) => list.push(wire.text(message)?.into()),
            _ => {}
        }
    }
    Ok(if list.is_empty() { found } else { Value::Array(list) })
}

fn sub_bytes<'a>(wire: Wire<'a>, field: u32, message: &'static str) -> Result<&'a [u8], ProtoError> {
    let mut found: &[u8] = &[];
    let mut reader = Reader::new(wire.bytes(message)?, message);
    while let Some((number, wire)) = reader.field()? {
        if number == field {
            found = wire.bytes(message)?;
        }
    }
    Ok(found)
}

fn sub_text(wire: Wire<'_>, field: u32, message: &'static str) -> Result<String, ProtoError> {
    Ok(String::from_utf8_lossy(sub_bytes(wire, field, message)?).into_owned())
}

fn double(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    if value.fract() == 0.0 && value.abs() < 1e15 { (value as i64).into() } else { value.into() }
}
