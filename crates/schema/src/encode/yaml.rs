//! YAML in the style of upstream's writer: block style, members sorted, items of a list not indented. Text that a reader of
//! YAML 1.1 would take for something else is quoted.

use serde_json::Value;

use crate::decode::reads_as_text;

/// The YAML of a document, with a line break at the end.
#[must_use]
pub fn yaml(document: &Value) -> Vec<u8> {
    let mut out = String::new();
    match document {
        Value::Object(map) if !map.is_empty() => block(&mut out, document, 0),
        Value::Array(list) if !list.is_empty() => block(&mut out, document, 0),
        scalar => {
            inline(&mut out, scalar, 0);
            out.push('\n');
        }
    }
    out.into_bytes()
}

/// A value that is not empty, on lines of its own.
fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) => {
            for (at, (key, value)) in map.iter().enumerate() {
                // The first member of an item stands behind its dash.
                if at > 0 || out.is_empty() || out.ends_with('\n') {
                    push_indent(out, indent);
                }
                member_key(out, key);
                out.push(':');
                member(out, value, indent);
            }
        }
        Value::Array(list) => {
            for (at, item) in list.iter().enumerate() {
                if at > 0 || out.is_empty() || out.ends_with('\n') {
                    push_indent(out, indent);
                }
                out.push('-');
                if is_block(item) {
                    out.push(' ');
                    block(out, item, indent + 2);
                } else {
                    out.push(' ');
                    inline(out, item, indent + 2);
                    out.push('\n');
                }
            }
        }
        _ => {}
    }
}

fn member(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            block(out, value, indent + 2);
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            block(out, value, indent);
        }
        scalar => {
            out.push(' ');
            inline(out, scalar, indent + 2);
            out.push('\n');
        }
    }
}

/// A scalar or an empty collection; `indent` is that of further lines.
fn inline(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(text) if text.contains('\n') && is_literal(text) => literal(out, text, indent),
        Value::String(text) => quoted_as_needed(out, text, Some(indent)),
    }
}

fn member_key(out: &mut String, key: &str) {
    // A merge key would take the value apart.
    if key == "<<" || key.len() > 128 {
        double_quoted(out, key, None);
    } else {
        quoted_as_needed(out, key, None);
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

/// Text, which may go on at `indent` of further lines where it is long.
fn quoted_as_needed(out: &mut String, text: &str, indent: Option<usize>) {
    let printable = text.chars().all(is_printable);
    if !printable || !reads_as_text(text) || looks_like_time(text) {
        double_quoted(out, text, indent);
    } else if is_plain(text) {
        let mut line = Line::new(out, indent);
        line.text(text, |out, c| out.push(c));
    } else {
        out.push('\'');
        let mut line = Line::new(out, indent);
        line.text(text, |out, c| match c {
            '\'' => out.push_str("''"),
            c => out.push(c),
        });
        out.push('\'');
    }
}

/// Writes words, and begins a new line for the next one once a line is long.
struct Line<'o> {
    out: &'o mut String,
    indent: Option<usize>,
    /// Characters on the line.
    column: usize,
}

impl<'o> Line<'o> {
    /// A line as long as this goes no further.
    const WIDTH: usize = 80;

    fn new(out: &'o mut String, indent: Option<usize>) -> Self {
        let column = out.rsplit('\n').next().unwrap_or_default().chars().count();
        Self { out, indent, column }
    }

    fn text(&mut self, text: &str, put: impl Fn(&mut String, char)) {
        let mut after_space = true; // nothing is broken before the first word
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            let breaks = c == ' ' && !after_space && rest.peek().is_some_and(|next| *next != ' ');
            if !(breaks && self.wrap()) {
                let before = self.out.len();
                put(self.out, c);
                self.column += self.out[before..].chars().count();
            }
            after_space = c == ' ';
        }
    }

    /// Begins a new line when this one is full.
    fn wrap(&mut self) -> bool {
        let Some(indent) = self.indent.filter(|_| self.column > Self::WIDTH) else { return false };
        self.out.push('\n');
        push_indent(self.out, indent);
        self.column = indent;
        true
    }
}

/// Whether text can stand without quotes.
fn is_plain(text: &str) -> bool {
    let first_ok = match text.as_bytes() {
        [] => false,
        [b'-' | b'?' | b':'] => false,
        [b'-' | b'?' | b':', b' ', ..] => false,
        [first, ..] => !b",[]{}#&*!|>'\"%@`".contains(first),
    };
    first_ok
        && !text.starts_with(' ')
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.starts_with("---")
        && !text.starts_with("...")
}

/// Dates, which readers of YAML 1.1 take for times.
fn looks_like_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 8 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-'
}

/// Whether text of several lines can stand as a literal block: nothing in it may be lost or mistaken for indentation.
fn is_literal(text: &str) -> bool {
    let lines_ok = text.lines().all(|line| !line.ends_with([' ', '\t', '\r']) && line.chars().all(is_printable));
    lines_ok && !text.starts_with([' ', '\n', '\t']) && !text.contains('\r') && !text.ends_with("\n\n")
}

fn literal(out: &mut String, text: &str, indent: usize) {
    out.push('|');
    if !text.ends_with('\n') {
        out.push('-');
    }
    for line in text.lines() {
        out.push('\n');
        if !line.is_empty() {
            push_indent(out, indent);
            out.push_str(line);
        }
    }
}

fn double_quoted(out: &mut String, text: &str, indent: Option<usize>) {
    out.push('"');
    Line::new(out, indent).text(text, |out, c| match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if is_printable(c) => out.push(c),
        c if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02X}", u32::from(c))),
        c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04X}", u32::from(c))),
        c => out.push_str(&format!("\\U{:08X}", u32::from(c))),
    });
    out.push('"');
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a1}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..='\u{1fffd}')
}

fn push_indent(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_written_in_upstreams_style() {
        let document = json!({
            "apiVersion": "v1",
            "data": {"a": "1", "b": "yes", "c": "x: y", "d": "", "e": "one\ntwo\n", "f": "one\ntwo", "g": "it's", "h": "2024-01-01T00:00:00Z"},
            "empty": {}, "list": [], "none": null,
            "items": [{"name": "a", "args": ["x", "--y"]}, ["z"], 5],
        });
        let expected = "apiVersion: v1\ndata:\n  a: \"1\"\n  b: \"yes\"\n  c: 'x: y'\n  d: \"\"\n  e: |\n    one\n    two\n  f: |-\n    one\n    two\n  g: it's\n  h: \"2024-01-01T00:00:00Z\"\nempty: {}\nitems:\n- args:\n  - x\n  - --y\n  name: a\n- - z\n- 5\nlist: []\nnone: null\n";
        assert_eq!(String::from_utf8(yaml(&document)).unwrap(), expected);
    }

    #[test]
    fn long_text_goes_on_in_further_lines() {
        let words = |count: usize| vec!["word"; count].join(" ");
        let written = |document: serde_json::Value| String::from_utf8(yaml(&document)).unwrap();
        let expected = format!("a: {}\n  {}\n", words(16), words(4));
        assert_eq!(written(json!({"a": words(20)})), expected);
        let expected = format!("- b: 'x: {}\n    {}'\n", words(15), words(2));
        assert_eq!(written(json!([{"b": format!("x: {}", words(17))}])), expected);
        let long = "x".repeat(100);
        assert_eq!(written(json!({"a": format!("{long} y  z")})), format!("a: {long}\n  y  z\n"));
        assert_eq!(written(json!({&long: format!("{long} y")})), format!("{long}: {long}\n  y\n"));
    }
}
