//! Arithmetic, which never wraps around.

use super::{Call, Result};
use crate::value::{EvalError, List, Value};

const SECOND: i64 = 1_000_000_000;

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Call<'a> {
    use Value::{Bytes, Double, Duration, Int, String, Timestamp, Uint};
    Some(match (function, args) {
        ("_+_", [Int(a), Int(b)]) => int(a.checked_add(*b)),
        ("_-_", [Int(a), Int(b)]) => int(a.checked_sub(*b)),
        ("_*_", [Int(a), Int(b)]) => int(a.checked_mul(*b)),
        ("_/_", [Int(_), Int(0)]) | ("_/_", [Uint(_), Uint(0)]) => Err(EvalError::failed("division by zero")),
        ("_%_", [Int(_), Int(0)]) | ("_%_", [Uint(_), Uint(0)]) => Err(EvalError::failed("modulus by zero")),
        ("_/_", [Int(a), Int(b)]) => int(a.checked_div(*b)),
        ("_%_", [Int(a), Int(b)]) => int(a.checked_rem(*b)),
        ("-_", [Int(a)]) => int(a.checked_neg()),
        ("_+_", [Uint(a), Uint(b)]) => uint(a.checked_add(*b)),
        ("_-_", [Uint(a), Uint(b)]) => uint(a.checked_sub(*b)),
        ("_*_", [Uint(a), Uint(b)]) => uint(a.checked_mul(*b)),
        ("_/_", [Uint(a), Uint(b)]) => uint(a.checked_div(*b)),
        ("_%_", [Uint(a), Uint(b)]) => uint(a.checked_rem(*b)),
        ("_+_", [Double(a), Double(b)]) => Ok(Double(a + b)),
        ("_-_", [Double(a), Double(b)]) => Ok(Double(a - b)),
        ("_*_", [Double(a), Double(b)]) => Ok(Double(a * b)),
        ("_/_", [Double(a), Double(b)]) => Ok(Double(a / b)),
        ("-_", [Double(a)]) => Ok(Double(-a)),
        ("_+_", [String(a), String(b)]) => Ok(Value::text(format!("{a}{b}"))),
        ("_+_", [Bytes(a), Bytes(b)]) => Ok(Bytes(a.iter().chain(b.iter()).copied().collect())),
        ("_+_", [Value::List(a), Value::List(b)]) => Ok(joined(a, b)),
        ("_+_", [Duration(a), Duration(b)]) => duration(a.checked_add(*b)),
        ("_-_", [Duration(a), Duration(b)]) => duration(a.checked_sub(*b)),
        ("_+_", [Timestamp(time), Duration(by)] | [Duration(by), Timestamp(time)]) => {
            time.plus(*by).map(Timestamp).ok_or_else(|| EvalError::failed("timestamp overflow"))
        }
        ("_-_", [Timestamp(time), Duration(by)]) => {
            by.checked_neg().and_then(|by| time.plus(by)).map(Timestamp).ok_or_else(|| EvalError::failed("timestamp overflow"))
        }
        ("_-_", [Timestamp(a), Timestamp(b)]) => {
            let seconds = a.seconds().checked_sub(b.seconds()).and_then(|seconds| seconds.checked_mul(SECOND));
            duration(seconds.and_then(|seconds| seconds.checked_add(i64::from(a.nanoseconds()) - i64::from(b.nanoseconds()))))
        }
        _ => return None,
    })
}

fn joined<'a>(left: &List<'a>, right: &List<'a>) -> Value<'a> {
    Value::list(left.iter().chain(right.iter()).collect())
}

fn int<'a>(value: Option<i64>) -> Result<Value<'a>> {
    value.map(Value::Int).ok_or_else(|| EvalError::failed("integer overflow"))
}

fn uint<'a>(value: Option<u64>) -> Result<Value<'a>> {
    value.map(Value::Uint).ok_or_else(|| EvalError::failed("unsigned integer overflow"))
}

fn duration<'a>(value: Option<i64>) -> Result<Value<'a>> {
    value.map(Value::Duration).ok_or_else(|| EvalError::failed("duration overflow"))
}
