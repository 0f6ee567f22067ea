//! How the reference server shows composite values in its messages: as JSON of its internal types, whose field names and order
//! are not those of the API, and as line diffs of that JSON.
//!
//! `types.txt` has one `T Type` line per type and one line per field: internal name, API name, kind. Kinds: `s` string, `i`
//! number, `b` boolean, `q` quantity, `is` number or string, `json` shown as in the API, `meta` object metadata (embedded),
//! `time`, or a type; prefixes are `*` pointer, `[]` list, `{}` map; with `?` at the end an empty value is not shown. A field at `^` is one level up in the API.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::doc::Read;

mod diff;

#[derive(Debug)]
struct Field {
    shown: &'static str,
    name: &'static str,
    kind: &'static str,
}

static TYPES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let mut types = HashMap::new();
    let mut current: Vec<Field> = Vec::new();
    let mut name = "";
    for line in include_str!("internal/types.txt").lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("T"), Some(next), None) => {
                types.insert(name, std::mem::take(&mut current));
                name = next;
            }
            (Some(shown), Some(field), Some(kind)) => current.push(Field { shown, name: field, kind }),
            _ => {}
        }
    }
    types.insert(name, current);
    types
});

/// The fields of object metadata in the order of their declaration.
const METADATA: &[(&str, &str)] = &[
    ("name", "json"),
    ("generateName", "json"),
    ("namespace", "json"),
    ("selfLink", "json"),
    ("uid", "json"),
    ("resourceVersion", "json"),
    ("generation", "json"),
    ("creationTimestamp", "json"),
    ("deletionTimestamp", "json"),
    ("deletionGracePeriodSeconds", "json"),
    ("labels", "json"),
    ("annotations", "json"),
    ("ownerReferences", "[]OwnerReference"),
    ("finalizers", "json"),
    ("managedFields", "json"),
];

/// The value as compact JSON of its internal type.
pub(crate) fn shown(kind: &str, value: &Value) -> String {
    let mut out = String::new();
    Printer { out: &mut out, indent: None }.value(kind, value, &Value::Null, 0);
    out
}

/// A list of values as compact JSON of their internal type.
pub(crate) fn shown_list(kind: &str, values: &Value) -> String {
    let Some(values) = values.as_array() else { return "null".into() };
    let items: Vec<String> = values.iter().map(|value| shown(kind, value)).collect();
    format!("[{}]", items.join(","))
}

/// What differs between two values of an internal type, as a unified diff of their JSON.
pub(crate) fn diff(kind: &str, old: &Value, new: &Value) -> String {
    let print = |value: &Value| {
        let mut out = String::new();
        Printer { out: &mut out, indent: Some(" ") }.value(kind, value, &Value::Null, 0);
        out
    };
    diff::unified(&print(old), &print(new))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

struct Printer<'a> {
    out: &'a mut String,
    /// `None` prints everything on one line.
    indent: Option<&'static str>,
}

impl Printer<'_> {
    fn value(&mut self, kind: &str, value: &Value, parent: &Value, depth: usize) {
        if let Some(inner) = kind.strip_prefix('*') {
            return if value.is_null() { self.out.push_str("null") } else { self.value(inner, value, parent, depth) };
        }
        if let Some(inner) = kind.strip_prefix("[]") {
            if inner == "byte" {
                return self.scalar(value);
            }
            let Some(items) = value.as_array() else { return self.out.push_str("null") };
            return self.all('[', ']', items.len(), depth, |printer, i, depth| printer.value(inner, &items[i], value, depth));
        }
        if let Some(inner) = kind.strip_prefix("{}") {
            let Some(map) = value.as_object() else { return self.out.push_str("null") };
            let members: Vec<_> = map.iter().collect();
            return self.all('{', '}', members.len(), depth, |printer, i, depth| {
                let (key, value) = members[i];
                printer.key(key);
                printer.value(inner, value, &Value::Null, depth);
            });
        }
        match kind {
            "s" => self.string(value.as_str().unwrap_or_default()),
            "i" => self.out.push_str(&value.as_i64().unwrap_or_default().to_string()),
            "b" => self.out.push_str(if value.as_bool().unwrap_or_default() { "true" } else { "false" }),
            "q" => self.string(value.as_str().unwrap_or("0")),
            "is" => match value {
                Value::Null => self.out.push('0'),
                other => self.scalar(other),
            },
            "time" => self.scalar(value),
            "json" => self.plain(value, depth),
            "schemas" => self.either(value, depth, value.is_array(), ["Schema", "JSONSchemas"], "[]JSONSchemaProps"),
            "properties" => self.either(value, depth, value.is_array(), ["Schema", "Property"], "[]s"),
            "schemaBool" => self.all('{', '}', 2, depth, |printer, i, depth| {
                printer.key(["Allows", "Schema"][i]);
                match (i, value) {
                    (0, Value::Bool(allows)) => printer.scalar(&Value::Bool(*allows)),
                    (0, _) => printer.out.push_str("true"),
                    (_, Value::Object(_)) => printer.value("JSONSchemaProps", value, &Value::Null, depth),
                    _ => printer.out.push_str("null"),
                }
            }),
            _ => self.structure(kind, value, parent, depth),
        }
    }

    /// One of two fields: a schema, or a list.
    fn either(&mut self, value: &Value, depth: usize, listed: bool, names: [&str; 2], list: &str) {
        self.all('{', '}', 2, depth, |printer, i, depth| {
            printer.key(names[i]);
            match (i, listed) {
                (0, false) => printer.value("JSONSchemaProps", value, &Value::Null, depth),
                (1, true) => printer.value(list, value, &Value::Null, depth),
                _ => printer.out.push_str("null"),
            }
        });
    }

    fn structure(&mut self, kind: &str, value: &Value, parent: &Value, depth: usize) {
        let Some(fields) = TYPES.get(kind) else { return self.plain(value, depth) };
        let mut parts: Vec<(&str, &str, &Value)> = Vec::with_capacity(fields.len());
        for field in fields {
            if field.kind == "meta" && field.shown == "-" {
                // Embedded metadata keeps the API's own names and order, and shows only what is set.
                let given = value.map(field.name);
                let set = METADATA.iter().filter_map(|(name, kind)| Some((*name, *kind, given.get(*name)?)));
                parts.extend(set.filter(|(_, _, value)| !is_empty(value)));
                continue;
            }
            let found = match field.name.strip_prefix('^') {
                Some(name) => &parent[name],
                None => &value[field.name],
            };
            let kind = match field.kind.strip_suffix('?') {
                Some(_) if is_empty(found) => continue,
                Some(kind) => kind,
                None => field.kind,
            };
            parts.push((field.shown, kind, found));
        }
        self.all('{', '}', parts.len(), depth, |printer, i, depth| {
            let (shown, kind, found) = parts[i];
            printer.key(shown);
            printer.value(kind, found, value, depth);
        });
    }

    fn plain(&mut self, value: &Value, depth: usize) {
        match value {
            Value::Object(map) => {
                let members: Vec<_> = map.iter().collect();
                self.all('{', '}', members.len(), depth, |printer, i, depth| {
                    printer.key(members[i].0);
                    printer.plain(members[i].1, depth);
                });
            }
            Value::Array(items) => self.all('[', ']', items.len(), depth, |printer, i, depth| printer.plain(&items[i], depth)),
            other => self.scalar(other),
        }
    }

    fn all(&mut self, open: char, close: char, count: usize, depth: usize, mut one: impl FnMut(&mut Self, usize, usize)) {
        self.out.push(open);
        for i in 0..count {
            if i > 0 {
                self.out.push(',');
            }
            self.line(depth + 1);
            one(self, i, depth + 1);
        }
        if count > 0 {
            self.line(depth);
        }
        self.out.push(close);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn key(&mut self, key: &str) {
        self.string(key);
        self.out.push(':');
        if self.indent.is_some() {
            self.out.push(' ');
        }
    }

    fn scalar(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.string(text),
            other => self.out.push_str(&other.to_string()),
        }
    }

    /// A string as Go's `encoding/json` writes it: `<`, `>` and `&` are escaped.
    fn string(&mut self, text: &str) {
        let quoted = Value::from(text).to_string();
        for c in quoted.chars() {
            match c {
                '<' => self.out.push_str("\\u003c"),
                '>' => self.out.push_str("\\u003e"),
                '&' => self.out.push_str("\\u0026"),
                other => self.out.push(other),
            }
        }
    }
}
