//! Values in the forms Go's types have: numbers, base64, and the words of type errors.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::DecodeError;

/// Go does not mind bits after the last byte.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// A value as Go's `%v` prints what was decoded without a type.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let members: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

/// A value as Go's `%#v` prints what was decoded without a type into maps with keys of `key_type`.
pub(crate) fn syntax(value: &Value, key_type: &str) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::String(text) => corten_api::field::quoted(text),
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(|item| syntax(item, key_type)).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(map) => {
            let members =
                map.iter().map(|(key, value)| format!("{}:{}", corten_api::field::quoted(key), syntax(value, key_type)));
            format!("map[{key_type}]interface {{}}{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A number without a type: an integer when it is written as one and fits, otherwise a double.
pub(super) fn number(text: &str) -> Result<Value, DecodeError> {
    if !text.contains('.')
        && let Ok(whole) = text.parse::<i64>()
    {
        return Ok(whole.into());
    }
    float(text).ok_or_else(|| DecodeError::Value(format!("json: cannot unmarshal number {text} into Go value of type float64")))
}

/// A double in Go's form: without a point when it is whole.
pub(super) fn float(text: &str) -> Option<Value> {
    let float: f64 = text.parse().ok().filter(|float: &f64| float.is_finite())?;
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    if float.fract() == 0.0 && float.abs() < 1e15 {
        return Some((float as i64).into());
    }
    Some(float.into())
}

/// Base64 in canonical form, or nothing when the text has it already.
pub(super) fn base64(text: &str) -> Result<Option<String>, DecodeError> {
    let bytes = text.as_bytes();
    let well_formed =
        bytes.len().is_multiple_of(4) && !bytes.is_empty() && bytes[..bytes.len() - 2].iter().all(|byte| is_base64(*byte));
    let text: std::borrow::Cow<'_, str> = if well_formed { text.into() } else { text.replace(['\r', '\n'], "").into() };
    match LENIENT.decode(text.as_bytes()) {
        Ok(decoded) => {
            let canonical = base64::engine::general_purpose::STANDARD.encode(decoded);
            Ok((canonical.as_bytes() != bytes).then_some(canonical))
        }
        Err(_) => Err(DecodeError::Value(format!("illegal base64 data at input byte {}", first_illegal(&text)))),
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

/// Where Go's decoder gives up.
fn first_illegal(text: &str) -> usize {
    let bytes = text.as_bytes();
    let plain = bytes.iter().position(|byte| !is_base64(*byte)).unwrap_or(bytes.len());
    if plain == bytes.len() {
        // Too short: the quantum that is not full begins here.
        return plain - plain % 4;
    }
    match (plain % 4, bytes[plain]) {
        (2, b'=') if bytes.get(plain + 1) == Some(&b'=') => plain + 2,
        (2, b'=') => plain + 1,
        (3, b'=') => plain + 1,
        _ => plain,
    }
    .min(bytes.len())
}
