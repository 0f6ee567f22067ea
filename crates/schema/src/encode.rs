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
    fn doubles_are_written_as_go_does() {
        let cases = [(1e19, "10000000000000000000"), (1.5, "1.5"), (1e21, "1e+21"), (2.5e-7, "2.5e-7"), (1e-6, "0.000001")];
        for (value, expected) in cases {
            assert_eq!(go_json(&Value::from(value)), expected.as_bytes());
        }
    }
}
