//! OpenAPI documents as protobuf (`com.github.proto-openapi.spec`): what client-go's validation and `kubectl explain` of
//! version 2 ask for, and read nothing else than.
//!
//! The messages are those of the `gnostic` project. They follow the documents key by key, so that a table of field numbers and one
//! walk are enough; a map becomes a list of pairs, an open value becomes its text as YAML.

mod v2;
mod v3;

use serde_json::{Map, Value};

use super::wire::Writer;
use crate::encode;

/// The message of a document of version 2, `openapi.v2.Document`.
#[must_use]
pub fn encode_v2(document: &Value) -> Vec<u8> {
    message_of(document, &v2::DOCUMENT)
}

/// The message of a document of version 3, `openapi.v3.Document`.
#[must_use]
pub fn encode_v3(document: &Value) -> Vec<u8> {
    message_of(document, &v3::DOCUMENT)
}

/// How a JSON value is written.
enum Shape {
    Text,
    Flag,
    Count,
    Number,
    /// A value of any kind: `Any`, which holds it as text.
    Open,
    /// Each item as a field of the same number.
    List(&'static Self),
    /// A message with a single repeated field of number 1; a value that is no list stands for a list of one.
    Listed(&'static Self),
    Message(&'static Message),
    /// A message with a single field out of several, chosen by the value.
    Choice(&'static [Case]),
}

/// An object with known keys, and rules for the others.
struct Message {
    fields: &'static [(&'static str, u32, Shape)],
    /// Where `x-` keys go, as pairs of a name and an open value.
    extensions: Option<u32>,
    /// Where all other keys go, as pairs of a name and a value.
    pairs: Option<(u32, &'static Shape)>,
}

struct Case {
    when: When,
    number: u32,
    shape: Shape,
}

enum When {
    Has(&'static str),
    Is(&'static str, &'static str),
    Text,
    Flag,
    Number,
    Object,
}

// === impl Message ===

impl Message {
    const fn new(fields: &'static [(&'static str, u32, Shape)], extensions: u32) -> Self {
        Self { fields, extensions: Some(extensions), pairs: None }
    }

    /// A message that is a map and nothing else.
    const fn map(of: &'static Shape) -> Self {
        Self { fields: &[], extensions: None, pairs: Some((1, of)) }
    }

    const fn with_pairs(self, number: u32, of: &'static Shape) -> Self {
        Self { fields: self.fields, extensions: self.extensions, pairs: Some((number, of)) }
    }
}

// === impl When ===

impl When {
    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::Has(key) => value.get(key).is_some(),
            Self::Is(key, text) => value.get(key).and_then(Value::as_str) == Some(text),
            Self::Text => value.is_string(),
            Self::Flag => value.is_boolean(),
            Self::Number => value.is_number(),
            Self::Object => value.is_object(),
        }
    }
}

fn message_of(document: &Value, message: &Message) -> Vec<u8> {
    let mut writer = Writer::default();
    if let Value::Object(map) = document {
        fill(&mut writer, map, message);
    }
    writer.finish()
}

/// Writes the fields of an object.
fn fill(writer: &mut Writer, map: &Map<String, Value>, message: &Message) {
    for (key, number, shape) in message.fields {
        if let Some(value) = map.get(*key) {
            field(writer, *number, value, shape);
        }
    }
    for (key, value) in map.iter().filter(|(key, _)| !message.fields.iter().any(|(known, ..)| known == key)) {
        let (number, shape) = match (message.extensions, message.pairs) {
            (Some(number), _) if key.starts_with("x-") => (number, &Shape::Open),
            (_, Some(pairs)) => pairs,
            _ => continue,
        };
        writer.nested(number, |pair| {
            pair.text(1, key);
            item(pair, 2, value, shape);
        });
    }
}

/// Writes a field of a message, unless it holds what a missing field means.
fn field(writer: &mut Writer, number: u32, value: &Value, shape: &Shape) {
    let is_implied = match (shape, value) {
        (Shape::Text, Value::String(text)) => text.is_empty(),
        (Shape::Flag, Value::Bool(flag)) => !flag,
        (Shape::Count | Shape::Number, Value::Number(value)) => value.as_f64() == Some(0.0),
        _ => false,
    };
    if !is_implied {
        item(writer, number, value, shape);
    }
}

/// Writes a value as a field, whatever it holds. A value of another type than the table says is left out.
fn item(writer: &mut Writer, number: u32, value: &Value, shape: &Shape) {
    match (shape, value) {
        (Shape::Text, Value::String(text)) => writer.text(number, text),
        (Shape::Flag, Value::Bool(flag)) => writer.number(number, i64::from(*flag)),
        (Shape::Count, Value::Number(value)) => writer.number(number, value.as_i64().unwrap_or_default()),
        (Shape::Number, Value::Number(value)) => writer.double(number, value.as_f64().unwrap_or_default()),
        (Shape::Open, value) => writer.nested(number, |any| any.text(2, &String::from_utf8_lossy(&encode::yaml(value)))),
        (Shape::List(of), Value::Array(items)) => items.iter().for_each(|value| item(writer, number, value, of)),
        (Shape::Listed(of), Value::Array(items)) => {
            writer.nested(number, |list| items.iter().for_each(|value| item(list, 1, value, of)));
        }
        (Shape::Listed(of), value) => writer.nested(number, |list| item(list, 1, value, of)),
        (Shape::Message(message), Value::Object(map)) => writer.nested(number, |inner| fill(inner, map, message)),
        (Shape::Choice(cases), value) => {
            let case = cases.iter().find(|case| case.when.holds(value));
            writer.nested(number, |inner| {
                if let Some(case) = case {
                    item(inner, case.number, value, &case.shape);
                }
            });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
