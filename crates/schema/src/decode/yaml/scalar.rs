//! Scalars of YAML 1.1 as Go's YAML reader resolves them.

use serde_json::{Number, Value};

/// The value of a scalar. Only plain scalars without a tag can be anything but text.
pub(super) fn resolve(text: &str, plain: bool, tag: Option<&str>) -> Result<Value, String> {
    match tag {
        Some("str") => return Ok(text.into()),
        Some("binary") => return binary(text),
        None if !plain => return Ok(text.into()),
        _ => {}
    }
    let value = implicit(text);
    let fits = match tag {
        Some("int") => value.is_i64() || value.is_u64(),
        Some("float") => value.is_number(),
        Some("bool") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => true,
    };
    if fits {
        return Ok(value);
    }
    let found = match &value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        _ => "str",
    };
    Err(format!("cannot decode !!{found} `{text}` as a !!{}", tag.unwrap_or_default()))
}

/// `!!binary`: text that is written as base64.
fn binary(text: &str) -> Result<Value, String> {
    use base64::Engine as _;
    let text: String = text.split_ascii_whitespace().collect();
    match base64::engine::general_purpose::STANDARD.decode(text) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned().into()),
        Err(_) => Err("!!binary value contains invalid base64 data".into()),
    }
}

/// The name that Go's JSON encoder refuses a number under that JSON does not have.
pub(super) fn unsupported(text: &str) -> Option<&'static str> {
    match text {
        ".nan" | ".NaN" | ".NAN" => Some("NaN"),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Some("+Inf"),
        "-.inf" | "-.Inf" | "-.INF" => Some("-Inf"),
        _ => None,
    }
}

fn implicit(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return true.into(),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return false.into(),
        _ => {}
    }
    let looks_numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if looks_numeric {
        let plain = text.replace('_', "");
        if let Some(number) = integer(&plain) {
            return number;
        }
        if let Some(number) = float(&plain) {
            return number;
        }
    }
    text.into()
}

/// Decimal, `0x`, `0b`, `0o` and the octal of YAML 1.1 with a leading zero.
fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        (16, hex)
    } else if let Some(binary) = digits.strip_prefix("0b").or_else(|| digits.strip_prefix("0B")) {
        (2, binary)
    } else if let Some(octal) = digits.strip_prefix("0o").or_else(|| digits.strip_prefix("0O")) {
        (8, octal)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, &digits[1..])
    } else {
        (10, digits)
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    let number = i64::try_from(value).map(Number::from).or_else(|_| u64::try_from(value).map(Number::from));
    number.ok().map(Value::Number)
}

fn float(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut digits = 0;
    let mut rest = unsigned;
    while rest.starts_with(|c: char| c.is_ascii_digit()) {
        rest = &rest[1..];
        digits += 1;
    }
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        while rest.starts_with(|c: char| c.is_ascii_digit()) {
            rest = &rest[1..];
            digits += 1;
        }
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if exponent.is_empty() || !exponent.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        rest = "";
    }
    if digits == 0 || !rest.is_empty() {
        return None;
    }
    super::super::go::float(text.strip_prefix('+').unwrap_or(text))
}
