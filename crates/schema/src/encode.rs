//! From a document to bytes.

use serde_json::Value;

mod yaml;

pub use yaml::yaml;

/// The canonical bytes of a document: members sorted by name, no white space. Equal documents give equal bytes.
#[must_use]
pub fn json(document: &Value) -> Vec<u8> {
    // Writing to memory cannot fail, and a document has no keys that are not strings.
    serde_json::to_vec(document).unwrap_or_default()
}

/// [`json`] with doubles in the form Go gives them: without an exponent where that is not absurd, as quantities and faults show.
#[must_use]
pub fn go_json(document: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, GoNumbers);
    // As above.
    let _ = serde::Serialize::serialize(document, &mut serializer);
    bytes
}

/// Appends a document in the form that Go's encoder gives it: doubles as [`go_json`] has them, and what a browser could take for
/// markup escaped. Raw JSON inside of objects has it: its owners compare it by its bytes, and have it from that encoder.
pub fn go_raw(out: &mut Vec<u8>, document: &Value) {
    let mut serializer = serde_json::Serializer::with_formatter(out, GoRaw);
    // As above.
    let _ = serde::Serialize::serialize(document, &mut serializer);
}

/// Text and doubles as Go's encoder writes them.
struct GoRaw;

impl serde_json::ser::Formatter for GoRaw {
    fn write_f64<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, value: f64) -> std::io::Result<()> {
        GoNumbers.write_f64(writer, value)
    }

    fn write_string_fragment<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, fragment: &str) -> std::io::Result<()> {
        const MARKUP: [char; 5] = ['&', '<', '>', '\u{2028}', '\u{2029}'];
        let mut rest = fragment;
        while let Some(at) = rest.find(MARKUP) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut chars = rest[at..].chars();
            if let Some(found) = chars.next() {
                write!(writer, "\\u{:04x}", u32::from(found))?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Doubles as Go's encoder writes them.
struct GoNumbers;

impl serde_json::ser::Formatter for GoNumbers {
    fn write_f64<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, value: f64) -> std::io::Result<()> {
        let size = value.abs();
        if size != 0.0 && !(1e-6..1e21).contains(&size) {
            let text = format!("{value:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let sign = if exponent.starts_with('-') { '-' } else { '+' };
            return write!(writer, "{digits}e{sign}{}", exponent.trim_start_matches('-'));
        }
        write!(writer, "{value}")
    }
}

/// The bytes of a document for people: a member a line, indented by two spaces.
#[must_use]
pub fn json_pretty(document: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_json_is_escaped_as_go_does() {
        let document = serde_json::json!({"b<": ["a && b > c", 1e21, "\u{2028}é\n"], "a": {}});
        let mut out = Vec::new();
        go_raw(&mut out, &document);
        let expected = r#"{"a":{},"b\u003c":["a \u0026\u0026 b \u003e c",1e+21,"\u2028é\n"]}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn doubles_are_written_as_go_does() {
        let cases = [(1e19, "10000000000000000000"), (1.5, "1.5"), (1e21, "1e+21"), (2.5e-7, "2.5e-7"), (1e-6, "0.000001")];
        for (value, expected) in cases {
            assert_eq!(go_json(&Value::from(value)), expected.as_bytes());
        }
    }
}
