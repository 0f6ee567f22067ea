//! Whether a default fits its own schema, keyword by keyword, in the words of the reference server's validator.
//!
//! Paths inside of a value are the validator's: `a.b[0].c` below a property, `[1]` and `.key` at the value itself.

use corten_api::field::{Faults, Path, quoted};
use regex::Regex;
use serde_json::{Value, json};

use crate::check;
use crate::doc::Read;

/// Adds what is wrong with `value` where a schema says that it is the default.
pub(super) fn check(faults: &mut Faults, path: &Path<'_>, value: &Value, schema: &Value) {
    let mut validator = Validator { found: Vec::new() };
    validator.schema("", value, schema);
    for (inner, fault) in validator.found {
        let name = inner.trim_start_matches('.');
        let below = path.child(name);
        let at = if name.is_empty() { path } else { &below };
        match fault {
            Fault::Type { shown, told } => faults.type_invalid(at, &shown, &told),
            Fault::Invalid { shown, told } => faults.invalid(at, &shown, &told),
            Fault::Required => faults.required(at, ""),
            Fault::TooLong(max) => faults.too_long(at, max),
            Fault::TooMany { count, max } => faults.too_many(at, count, max),
            Fault::NotListed { shown, listed } => {
                let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
                check::not_supported_shown(faults, at, &shown, &listed);
            }
        }
    }
}

enum Fault {
    Type { shown: Value, told: String },
    Invalid { shown: Value, told: String },
    Required,
    TooLong(usize),
    TooMany { count: usize, max: usize },
    NotListed { shown: String, listed: Vec<String> },
}

struct Validator {
    found: Vec<(String, Fault)>,
}

impl Validator {
    fn invalid(&mut self, at: &str, shown: Value, told: String) {
        self.found.push((at.to_owned(), Fault::Invalid { shown, told }));
    }

    fn schema(&mut self, at: &str, value: &Value, schema: &Value) {
        if !schema.is_object() || (value.is_null() && schema.flag("nullable")) {
            return;
        }
        self.kind(at, value, schema);
        self.junctors(at, value, schema);
        match value {
            Value::String(text) => self.text(at, text, schema),
            Value::Number(_) => self.number(at, value, schema),
            Value::Array(items) => self.list(at, items, schema),
            _ => {}
        }
        let listed = schema.list("enum");
        if !listed.is_empty() && !listed.contains(value) {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let fault = Fault::NotListed { shown: value.to_string(), listed: listed.iter().map(text).collect() };
            self.found.push((at.to_owned(), fault));
        }
        if value.is_object() {
            self.object(at, value, schema);
        }
    }

    /// The type, and the format of a text.
    fn kind(&mut self, at: &str, value: &Value, schema: &Value) {
        let actual = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() && number.as_f64().is_none_or(|number| number.fract() != 0.0) => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let wanted = schema.text("type");
        if !(wanted.is_empty() || wanted == actual || (wanted == "number" && actual == "integer")) {
            let told = format!("{at} in body must be of type {wanted}: \"{actual}\"");
            self.found.push((at.to_owned(), Fault::Type { shown: json!(actual), told }));
        }
    }

    fn text(&mut self, at: &str, text: &str, schema: &Value) {
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(max) = schema.opt_int("maxLength").filter(|max| length > *max) {
            self.found.push((at.to_owned(), Fault::TooLong(usize::try_from(max).unwrap_or_default())));
        }
        if let Some(min) = schema.opt_int("minLength").filter(|min| length < *min) {
            self.invalid(at, json!(text), format!("{at} in body should be at least {min} chars long"));
        }
        let pattern = schema.text("pattern");
        if !pattern.is_empty() && Regex::new(pattern).is_ok_and(|pattern| !pattern.is_match(text)) {
            self.invalid(at, json!(text), format!("{at} in body should match '{pattern}'"));
        }
        let format = schema.text("format");
        if !has_format(text, format) {
            let told = format!("{at} in body must be of type {format}: {}", quoted(text));
            self.found.push((at.to_owned(), Fault::Type { shown: json!(text), told }));
        }
    }

    fn number(&mut self, at: &str, value: &Value, schema: &Value) {
        let Some(number) = value.as_f64() else { return };
        let format = schema.text("format");
        if schema.text("type") == "integer"
            && (number.fract() != 0.0 || (format == "int32" && !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number)))
        {
            let of = if format.is_empty() { "(default format)".to_owned() } else { format!("with format {format}") };
            self.invalid(at, json!(""), format!("Checked value must be of type integer {of} in {at}"));
        }
        let limit = |key: &str| schema[key].as_f64().map(|limit| (limit, &schema[key]));
        if let Some((factor, shown)) = limit("multipleOf")
            && factor > 0.0
            && (number / factor).fract() != 0.0
        {
            self.invalid(at, value.clone(), format!("{at} in body should be a multiple of {shown}"));
        }
        if let Some((max, shown)) = limit("maximum") {
            let strictly = schema.flag("exclusiveMaximum");
            if number > max || (strictly && number >= max) {
                let bound = if strictly { "less than" } else { "less than or equal to" };
                self.invalid(at, value.clone(), format!("{at} in body should be {bound} {shown}"));
            }
        }
        if let Some((min, shown)) = limit("minimum") {
            let strictly = schema.flag("exclusiveMinimum");
            if number < min || (strictly && number <= min) {
                let bound = if strictly { "greater than" } else { "greater than or equal to" };
                self.invalid(at, value.clone(), format!("{at} in body should be {bound} {shown}"));
            }
        }
    }

    fn list(&mut self, at: &str, items: &[Value], schema: &Value) {
        for (i, item) in items.iter().enumerate() {
            self.schema(&format!("{at}[{i}]"), item, &schema["items"]);
        }
        self.sizes(at, items.len(), schema, ("minItems", "maxItems"), "items");
    }

    fn object(&mut self, at: &str, value: &Value, schema: &Value) {
        let members = value.as_object().into_iter().flatten();
        let count = value.as_object().map_or(0, serde_json::Map::len);
        self.sizes(at, count, schema, ("minProperties", "maxProperties"), "properties");
        for (key, below) in members {
            match schema["properties"].opt(key) {
                Some(property) => {
                    let inner = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                    self.schema(&inner, below, property);
                }
                None => self.schema(&format!("{at}.{key}"), below, &schema["additionalProperties"]),
            }
        }
        for key in schema.texts("required").filter(|key| value.get(*key).is_none()) {
            self.found.push((format!("{at}.{key}"), Fault::Required));
        }
    }

    fn sizes(&mut self, at: &str, count: usize, schema: &Value, keys: (&str, &str), what: &str) {
        let limit = |key: &str| schema.opt_int(key).and_then(|limit| usize::try_from(limit).ok());
        if let Some(min) = limit(keys.0).filter(|min| count < *min) {
            self.invalid(at, json!(count), format!("{at} in body should have at least {min} {what}"));
        }
        if let Some(max) = limit(keys.1).filter(|max| count > *max) {
            self.found.push((at.to_owned(), Fault::TooMany { count, max }));
        }
    }

    /// `allOf` and its like: the nested faults are told with them.
    fn junctors(&mut self, at: &str, value: &Value, schema: &Value) {
        let faults_of = |nested: &Value| {
            let mut inner = Self { found: Vec::new() };
            inner.schema(at, value, nested);
            inner.found
        };
        let shown = quoted(at);
        let any = schema.list("anyOf");
        if !any.is_empty() {
            let mut results = any.iter().map(faults_of).collect::<Vec<_>>();
            if results.iter().all(|found| !found.is_empty()) {
                self.invalid(at, json!(""), format!("{shown} must validate at least one schema (anyOf)"));
                self.found.append(&mut results[0]);
            }
        }
        let one = schema.list("oneOf");
        if !one.is_empty() {
            let mut results = one.iter().map(faults_of).collect::<Vec<_>>();
            match results.iter().filter(|found| found.is_empty()).count() {
                1 => {}
                0 => {
                    let why = "must validate one and only one schema (oneOf). Found none valid";
                    self.invalid(at, json!(""), format!("{shown} {why}"));
                    self.found.append(&mut results[0]);
                }
                many => {
                    let why = "must validate one and only one schema (oneOf). Found";
                    self.invalid(at, json!(""), format!("{shown} {why} {many} valid alternatives"));
                }
            }
        }
        let all = schema.list("allOf");
        if !all.is_empty() {
            let results = all.iter().map(faults_of).collect::<Vec<_>>();
            let valid = results.iter().filter(|found| found.is_empty()).count();
            self.found.extend(results.into_iter().flatten());
            if valid < all.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                self.invalid(at, json!(""), format!("{shown} must validate all the schemas (allOf){none}"));
            }
        }
        if let Some(nested) = schema.opt("not")
            && faults_of(nested).is_empty()
        {
            self.invalid(at, json!(""), format!("{shown} must not validate the schema (not)"));
        }
    }
}

/// Whether a text has a format; formats that are not known here pass.
fn has_format(text: &str, format: &str) -> bool {
    let hexadecimal = |groups: &[usize]| {
        let plain = text.replace('-', "");
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        plain.bytes().all(|b| b.is_ascii_hexdigit()) && (lengths == groups || (lengths.len() == 1 && plain.len() == 32))
    };
    match format.replace('-', "").as_str() {
        "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "uuid" => hexadecimal(&[8, 4, 4, 4, 12]),
        "byte" => {
            use base64::Engine as _;
            !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        "uri" => {
            let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
            text.starts_with('/') || scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        }
        "duration" => text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'P')),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn defaults_fit_their_schemas() {
        let text = |more: Value| { let mut schema = json!({"type": "string"}); merge(&mut schema, more); schema };
        let number = |more: Value| { let mut schema = json!({"type": "integer"}); merge(&mut schema, more); schema };
        told(json!("a"), text(json!({"minLength": 3})), &["d: Invalid value: \"a\":  in body should be at least 3 chars long"]);
        told(json!("abc"), text(json!({"maxLength": 2})), &["d: Too long: may not be more than 2 bytes"]);
        told(json!("abc"), text(json!({"pattern": "^b"})), &["d: Invalid value: \"abc\":  in body should match '^b'"]);
        told(json!(3), number(json!({"enum": [1, 2]})), &["d: Unsupported value: 3: supported values: \"1\", \"2\""]);
        told(json!(3), number(json!({"minimum": 3})), &[]);
        told(json!(3), number(json!({"minimum": 3, "exclusiveMinimum": true})), &["d: Invalid value: 3:  in body should be greater than 3"]);
        told(json!("zz"), text(json!({"format": "ipv4"})), &["d: Invalid value: \"zz\":  in body must be of type ipv4: \"zz\""]);
        told(json!([]), json!({"type": "array", "minItems": 1}), &["d: Invalid value: 0:  in body should have at least 1 items"]);
        told(json!(["a", 1]), json!({"type": "array", "items": {"type": "string"}}),
            &["d.[1]: Invalid value: \"integer\": [1] in body must be of type string: \"integer\""]);
        told(json!({}), json!({"type": "object", "required": ["a"]}), &["d.a: Required value"]);
        told(json!({"a": {"b": [5]}}), json!({"type": "object", "properties": {"a": {"type": "object", "properties": {
            "b": {"type": "array", "items": {"type": "integer", "maximum": 3}}}}}}),
            &["d.a.b[0]: Invalid value: 5: a.b[0] in body should be less than or equal to 3"]);
        told(json!({"a": 1}), json!({"type": "object", "additionalProperties": {"type": "string"}}),
            &["d.a: Invalid value: \"integer\": .a in body must be of type string: \"integer\""]);
        told(json!(4), number(json!({"not": {"minimum": 3}})), &["d: Invalid value: \"\": \"\" must not validate the schema (not)"]);

        #[track_caller]
        fn told(value: Value, schema: Value, expected: &[&str]) {
            let mut faults = Faults::default();
            check(&mut faults, &Path::new("d"), &value, &schema);
            assert_eq!(crate::testing::shown(&faults), expected);
        }
        fn merge(schema: &mut Value, more: Value) {
            if let (Value::Object(schema), Value::Object(more)) = (schema, more) { schema.extend(more); }
        }
    }
}
