//! Conversions between the language's own types.

use super::time::{self, Time};
use super::{Call, Result};
use crate::value::{EvalError, Value};

/// The first numbers that no longer fit `i64` and `u64`.
const INT_END: f64 = 9_223_372_036_854_775_808.0;
const UINT_END: f64 = 18_446_744_073_709_551_616.0;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "ranges are checked first"
)]
pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Call<'a> {
    let [value] = args else { return None };
    let failed = || EvalError::failed(format!("type conversion error from '{}' to '{function}'", value.type_name()));
    let overflow = || EvalError::failed("integer overflow");
    Some(match (function, value) {
        ("bool", Value::Bool(_))
        | ("bytes", Value::Bytes(_))
        | ("double", Value::Double(_))
        | ("duration", Value::Duration(_))
        | ("int", Value::Int(_))
        | ("string", Value::String(_))
        | ("timestamp", Value::Timestamp(_))
        | ("uint", Value::Uint(_)) => Ok(value.clone()),
        ("bool", Value::String(text)) => match text.as_ref() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => Err(failed()),
        },
        ("bytes", Value::String(text)) => Ok(Value::Bytes(text.as_bytes().into())),
        ("double", Value::Int(number)) => Ok(Value::Double(*number as f64)),
        ("double", Value::Uint(number)) => Ok(Value::Double(*number as f64)),
        ("double", Value::String(text)) => text.parse().map(Value::Double).map_err(|_| failed()),
        ("int", Value::Uint(number)) => i64::try_from(*number).map(Value::Int).map_err(|_| overflow()),
        ("int", Value::Double(number)) => {
            if *number > -INT_END && *number < INT_END {
                Ok(Value::Int(*number as i64))
            } else {
                Err(overflow())
            }
        }
        ("int", Value::String(text)) => text.parse().map(Value::Int).map_err(|_| failed()),
        ("int", Value::Timestamp(time)) => Ok(Value::Int(time.seconds())),
        ("int", Value::Duration(nanoseconds)) => Ok(Value::Int(*nanoseconds)),
        ("uint", Value::Int(number)) => {
            u64::try_from(*number).map(Value::Uint).map_err(|_| EvalError::failed("unsigned integer overflow"))
        }
        ("uint", Value::Double(number)) => {
            if *number >= 0.0 && *number < UINT_END {
                Ok(Value::Uint(*number as u64))
            } else {
                Err(EvalError::failed("unsigned integer overflow"))
            }
        }
        ("uint", Value::String(text)) => text.parse().map(Value::Uint).map_err(|_| failed()),
        ("duration", Value::String(text)) => {
            time::duration(text).map(Value::Duration).ok_or_else(|| failed_to("google.protobuf.Duration"))
        }
        ("timestamp", Value::String(text)) => {
            Time::parse(text).map(Value::Timestamp).ok_or_else(|| failed_to("google.protobuf.Timestamp"))
        }
        ("timestamp", Value::Int(seconds)) => {
            Time::new(*seconds, 0).map(Value::Timestamp).ok_or_else(|| EvalError::failed("timestamp overflow"))
        }
        ("string", _) => text(value)?,
        _ => return None,
    })
}

fn failed_to(name: &str) -> EvalError {
    EvalError::failed(format!("type conversion error from 'string' to '{name}'"))
}

fn text<'a>(value: &Value<'a>) -> Option<Result<Value<'a>>> {
    Some(Ok(Value::text(match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => double(*number),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return Some(Err(EvalError::failed("invalid UTF-8 in bytes, cannot convert to string"))),
        },
        Value::Duration(nanoseconds) => time::shown_duration(*nanoseconds),
        Value::Timestamp(time) => time.to_string(),
        Value::Ip(address) => address.to_string(),
        Value::Cidr(address, length) => format!("{address}/{length}"),
        _ => return None,
    })))
}

/// A number as Go's `%g` prints it, as short as it can be read back.
pub(super) fn double(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let count = i32::try_from(digits.bytes().filter(u8::is_ascii_digit).count()).unwrap_or(i32::MAX);
    let limit = if count > 6 && exponent < count { count } else { 21.min(count.max(6)) };
    if number != 0.0 && (exponent < -4 || exponent >= limit) {
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    format!("{number}")
}
