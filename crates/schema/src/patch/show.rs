//! Values as faults of patches show them: parts of a strategic merge patch as Go's `%v` prints them, and whole documents as the
//! library of the other patches leaves them: sorted where it looked into them, elsewhere as their encoder wrote them.

use std::collections::BTreeMap;

use corten_api::facts::{Kind, Type, Types};
use serde_json::Value;

/// What a patch looked into, from here downwards.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// The members it looked into.
    pub members: BTreeMap<String, Touched>,
    /// It put this whole value here.
    pub is_new: bool,
}

impl Touched {
    /// What the patch put here.
    pub(super) fn new() -> Self {
        Self { is_new: true, ..Self::default() }
    }
}

/// A patched document on one line.
pub(super) fn document(document: &Value, ty: Option<&Type>, touched: &Touched) -> String {
    let mut out = String::new();
    let kind = ty.map(|ty| Kind::Struct(ty.id));
    write(&mut out, document, kind.as_ref(), Some(touched));
    // Go's encoder escapes what HTML knows.
    out.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn write(out: &mut String, value: &Value, kind: Option<&Kind>, touched: Option<&Touched>) {
    match value {
        Value::Object(map) => {
            let ty = match kind {
                Some(Kind::Struct(id)) => Some(Types::get().of(*id)),
                _ => None,
            };
            let mut members: Vec<(&String, &Value)> = map.iter().collect();
            match ty.filter(|_| touched.is_none()) {
                Some(ty) => members.sort_by_key(|(name, _)| ty.field(name).map(|field| field.place)),
                None => members.sort_by_key(|(name, _)| *name),
            }
            out.push('{');
            for (i, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                let kind = match kind {
                    Some(Kind::Map(item)) => Some(&**item),
                    _ => ty.and_then(|ty| ty.field(name)).map(|field| &field.kind),
                };
                write(out, value, kind, below(touched, name));
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (i, value) in list.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                write(out, value, kind.and_then(Kind::item), below(touched, &i.to_string()));
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn below<'t>(touched: Option<&'t Touched>, name: &str) -> Option<&'t Touched> {
    touched.and_then(|touched| if touched.is_new { Some(touched) } else { touched.members.get(name) })
}

/// `map[a:1 b:[x y]]`
#[must_use]
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::Bool(set) => set.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            let members: Vec<_> = members.into_iter().map(|(key, value)| format!("{key}:{}", go_value(value))).collect();
            format!("map[{}]", members.join(" "))
        }
    }
}

/// The name of a value's Go type after untyped decoding.
pub(super) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
