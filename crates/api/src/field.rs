//! Faults of an object, each at a field path, in the words of the reference API server
//! (apimachinery's `field.Error`: "the cause list of an Invalid Status").

use std::fmt;

use serde_json::Value;

/// A path to a field, such as `spec.containers[0].env[2].name` or `metadata.labels[app]`. Cheap to extend: a child borrows
/// its parent, and text is made only when there is a fault to report.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A path of one field.
    #[must_use]
    pub const fn new(field: &'a str) -> Self {
        Self { parent: None, step: Step::Field(field) }
    }

    /// `self.field`
    #[must_use]
    pub const fn child<'b>(&'b self, field: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), step: Step::Field(field) }
    }

    /// `self[index]`
    #[must_use]
    pub const fn index<'b>(&'b self, index: usize) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// `self[key]`
    #[must_use]
    pub const fn key<'b>(&'b self, key: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// The kind of a fault; its name is the `reason` of a status cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// `FieldValueRequired`
    Required,
    /// `FieldValueInvalid`
    Invalid,
    /// `FieldValueNotSupported`
    NotSupported,
    /// `FieldValueForbidden`
    Forbidden,
    /// `FieldValueDuplicate`
    Duplicate,
    /// `FieldValueNotFound`
    NotFound,
    /// `FieldValueTooLong`
    TooLong,
    /// `FieldValueTooMany`
    TooMany,
    /// `FieldValueTypeInvalid`
    TypeInvalid,
    /// `InternalError`
    Internal,
}

/// One fault at one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What kind of fault.
    pub kind: FaultKind,
    /// The path as text.
    pub field: String,
    /// The message without the path, exactly as the cause carries it.
    pub message: String,
}

/// Faults in the order they were found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, kind: FaultKind, path: &Path<'_>, message: String) {
        self.0.push(Fault { kind, field: path.to_string(), message });
    }

    /// `Required value: detail`
    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.push(FaultKind::Required, path, with_detail("Required value".into(), detail));
    }

    /// `Invalid value: value: detail`; strings are quoted, composite values are printed as JSON.
    pub fn invalid(&mut self, path: &Path<'_>, value: &Value, detail: &str) {
        self.push(FaultKind::Invalid, path, with_detail(format!("Invalid value: {}", shown(value)), detail));
    }

    /// `Invalid value: shown: detail`, for a composite value whose members have an order of their own.
    pub fn invalid_shown(&mut self, path: &Path<'_>, shown: &str, detail: &str) {
        self.push(FaultKind::Invalid, path, with_detail(format!("Invalid value: {shown}"), detail));
    }

    /// `Invalid value: "text": detail`
    pub fn invalid_str(&mut self, path: &Path<'_>, value: &str, detail: &str) {
        self.push(FaultKind::Invalid, path, with_detail(format!("Invalid value: {}", quoted(value)), detail));
    }

    /// `Invalid value: number: detail`
    pub fn invalid_int(&mut self, path: &Path<'_>, value: i64, detail: &str) {
        self.push(FaultKind::Invalid, path, with_detail(format!("Invalid value: {value}"), detail));
    }

    /// `Unsupported value: "value": supported values: "a", "b"`; `supported` is listed in the order given.
    pub fn not_supported(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        let list = supported.iter().map(|s| quoted(s)).collect::<Vec<_>>().join(", ");
        let detail = if list.is_empty() { String::new() } else { format!("supported values: {list}") };
        self.push(FaultKind::NotSupported, path, with_detail(format!("Unsupported value: {}", quoted(value)), &detail));
    }

    /// `Forbidden: detail`
    pub fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.push(FaultKind::Forbidden, path, with_detail("Forbidden".into(), detail));
    }

    /// `Duplicate value: value`
    pub fn duplicate(&mut self, path: &Path<'_>, value: &Value) {
        self.push(FaultKind::Duplicate, path, format!("Duplicate value: {}", shown(value)));
    }

    /// `Not found: value`
    pub fn not_found(&mut self, path: &Path<'_>, value: &Value) {
        self.push(FaultKind::NotFound, path, format!("Not found: {}", shown(value)));
    }

    /// `Too long: may not be more than N bytes`
    pub fn too_long(&mut self, path: &Path<'_>, max: usize) {
        let unit = if max == 1 { "byte" } else { "bytes" };
        self.push(FaultKind::TooLong, path, format!("Too long: may not be more than {max} {unit}"));
    }

    /// `Too many: actual: must have at most max items`
    pub fn too_many(&mut self, path: &Path<'_>, actual: usize, max: usize) {
        let unit = if max == 1 { "item" } else { "items" };
        self.push(FaultKind::TooMany, path, format!("Too many: {actual}: must have at most {max} {unit}"));
    }

    /// `Invalid value: value: detail`, reason `FieldValueTypeInvalid`
    pub fn type_invalid(&mut self, path: &Path<'_>, value: &Value, detail: &str) {
        self.push(FaultKind::TypeInvalid, path, with_detail(format!("Invalid value: {}", shown(value)), detail));
    }

    /// `Internal error: detail`
    pub fn internal(&mut self, path: &Path<'_>, detail: &str) {
        self.push(FaultKind::Internal, path, with_detail("Internal error".into(), detail));
    }

    /// The `message` of the Status that carries these faults: one bare, several in brackets, doubled ones once.
    #[must_use]
    pub fn aggregate(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for fault in &self.0 {
            let line = format!("{}: {}", fault.field, fault.message);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        }
    }
}

impl FaultKind {
    /// The `reason` of the status cause.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }
}

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() { head } else { format!("{head}: {detail}") }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(s) => quoted(s),
        Value::Null => "null".into(),
        other => other.to_string(),
    }
}

/// A string as Go's `%q` prints it.
#[must_use]
pub fn quoted(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_ascii() || is_printable(c) => out.push(c),
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Whether Go's `unicode.IsPrint` holds of a character that is not ASCII: letters, marks, numbers, punctuation, symbols.
fn is_printable(c: char) -> bool {
    // Only the first character of a text is escaped for being a mark.
    let after_a_letter: String = ['a', c].iter().collect();
    after_a_letter.escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go() {
        for (text, expected) in [
            ("a \"b\"\\", r#""a \"b\"\\""#),
            ("\n\u{1}\u{7f}", r#""\n\x01\x7f""#),
            ("ü日e\u{301}😀", "\"ü日e\u{301}😀\""),
            ("\u{a0}\u{200b}\u{2028}", r#""\u00a0\u200b\u2028""#),
            ("\u{e0001}\u{ad}", r#""\U000e0001\u00ad""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
