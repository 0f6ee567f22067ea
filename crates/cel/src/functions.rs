//! What the functions of the libraries do. Methods get their receiver as the first argument.

mod arithmetic;
mod convert;
mod formats;
mod lists;
mod network;
pub(crate) mod quantity;
pub(crate) mod semver;
mod strings;
pub(crate) mod time;
pub(crate) mod url;

use std::cmp::Ordering;
use std::rc::Rc;

use crate::eval::optional_select;
use crate::value::{EvalError, List, Map, Value};

pub(crate) type Result<T, E = EvalError> = std::result::Result<T, E>;

/// How much text one unit of cost goes through.
const CHARACTERS: usize = 10;

/// Calls `function`.
pub(crate) fn call<'a>(function: &str, method: bool, args: &[Value<'a>]) -> Result<Value<'a>> {
    if let (true, Some((Value::Host(host), rest))) = (method, args.split_first()) {
        return host.call(function, rest);
    }
    let libraries =
        [operators, arithmetic::call, convert::call, strings::call, lists::call, time::call, network::call, numbers, optionals];
    for library in libraries {
        if let Some(result) = library(function, args) {
            return result;
        }
    }
    formats::call(function, args).unwrap_or(Err(EvalError::NoSuchOverload))
}

/// What a call costs beyond the one unit of every call: texts and lists are gone through.
pub(crate) fn cost(function: &str, args: &[Value<'_>]) -> u64 {
    let text = |value: &Value<'_>| match value {
        Value::String(text) => text.len().div_ceil(CHARACTERS),
        Value::Bytes(bytes) => bytes.len().div_ceil(CHARACTERS),
        _ => 0,
    };
    let items = |value: &Value<'_>| match value {
        Value::List(list) => list.len(),
        _ => 0,
    };
    let sum = |of: &dyn Fn(&Value<'_>) -> usize| args.iter().map(of).sum::<usize>();
    let cost = match function {
        "@in" | "indexOf" | "lastIndexOf" | "isSorted" | "sum" | "max" | "min" | "flatten" | "slice" | "reverse" | "sort"
        | "join" | "format" => sum(&items) + sum(&text),
        "distinct" | "sets.contains" | "sets.intersects" | "sets.equivalent" => {
            let sizes: Vec<usize> = args.iter().map(items).collect();
            match sizes.as_slice() {
                [one] => one * one,
                sizes => sizes.iter().product(),
            }
        }
        "matches" | "find" | "findAll" => match args {
            // A pattern is run over the whole text.
            [value, pattern, ..] => (text(value) + 1) * (text(pattern) + 1),
            _ => 0,
        },
        "_+_" | "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" | "contains" | "startsWith" | "endsWith" | "replace"
        | "split" | "substring" | "trim" | "lowerAscii" | "upperAscii" | "string" | "bytes" | "quantity" | "isQuantity"
        | "ip" | "isIP" | "cidr" | "isCIDR" | "url" | "isURL" | "semver" | "isSemver" | "validate" | "charAt" => sum(&text),
        "lists.range" => match args {
            [Value::Int(count)] => usize::try_from(*count).unwrap_or_default(),
            _ => 0,
        },
        _ => 0,
    };
    u64::try_from(cost).unwrap_or(u64::MAX)
}

/// A value in a message.
pub(crate) fn shown(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => text.to_string(),
        other => format!("{other:?}"),
    }
}

/// A call of a library: nothing when the function is none of its own or takes no such values.
type Call<'a> = Option<Result<Value<'a>>>;

fn operators<'a>(function: &str, args: &[Value<'a>]) -> Call<'a> {
    Some(match (function, args) {
        ("!_", [Value::Bool(value)]) => Ok(Value::Bool(!value)),
        ("_==_", [left, right]) => Ok(Value::Bool(left == right)),
        ("_!=_", [left, right]) => Ok(Value::Bool(left != right)),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [left, right]) => {
            let order = match left.compare(right) {
                Some(order) => order,
                // Not a number is neither more nor less than any.
                None if matches!((left, right), (Value::Double(_), _) | (_, Value::Double(_))) => {
                    return Some(Ok(Value::Bool(false)));
                }
                None => return None,
            };
            Ok(Value::Bool(match function {
                "_<_" => order == Ordering::Less,
                "_<=_" => order != Ordering::Greater,
                "_>_" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }))
        }
        ("_[_]", [Value::Optional(_), _]) | ("_[?_]", [_, _]) => optional_select(&args[0], &args[1]),
        ("_[_]", [Value::List(list), index]) => index_of_list(list, index),
        ("_[_]", [Value::Map(map), key]) => map.get(key).ok_or_else(|| EvalError::NoSuchKey(shown(key))),
        ("_[_]", [Value::Host(host), Value::String(name)]) => host.field(name),
        ("@in", [item, Value::List(list)]) => Ok(Value::Bool(list.iter().any(|known| known == *item))),
        ("@in", [key, Value::Map(map)]) => Ok(Value::Bool(map.get(key).is_some())),
        ("size", [value]) => {
            let size = match value {
                Value::String(text) => text.chars().count(),
                Value::Bytes(bytes) => bytes.len(),
                Value::List(list) => list.len(),
                Value::Map(map) => map.len(),
                _ => return None,
            };
            Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
        }
        ("type", [value]) => Ok(Value::Type(value.type_name().to_owned().into())),
        ("dyn", [value]) => Ok(value.clone()),
        ("cel.@mapInsert", [Value::Map(map), key, value]) => inserted(map, vec![(key.clone(), value.clone())]),
        ("cel.@mapInsert", [Value::Map(map), Value::Map(more)]) => inserted(map, more.entries()),
        _ => return None,
    })
}

fn index_of_list<'a>(list: &List<'a>, index: &Value<'a>) -> Result<Value<'a>> {
    let at = match index {
        Value::Int(at) => usize::try_from(*at).ok(),
        Value::Uint(at) => usize::try_from(*at).ok(),
        _ => return Err(EvalError::failed(format!("unsupported index type '{}' in list", index.type_name()))),
    };
    at.and_then(|at| list.get(at)).ok_or_else(|| EvalError::failed(format!("index out of bounds: {}", shown(index))))
}

fn inserted<'a>(map: &Map<'a>, more: Vec<(Value<'a>, Value<'a>)>) -> Result<Value<'a>> {
    let mut entries = map.entries();
    for (key, value) in more {
        if entries.iter().any(|(known, _)| *known == key) {
            return Err(EvalError::failed(format!("insert failed: key {} already exists", shown(&key))));
        }
        entries.push((key, value));
    }
    Ok(Value::Map(Map::Made(Rc::new(entries))))
}

/// Quantities and versions.
fn numbers<'a>(function: &str, args: &[Value<'a>]) -> Call<'a> {
    quantity::call(function, args).or_else(|| semver::call(function, args))
}

fn optionals<'a>(function: &str, args: &[Value<'a>]) -> Call<'a> {
    let some = |value: &Value<'a>| Value::Optional(Some(Rc::new(value.clone())));
    let end = |list: &List<'a>, at: Option<usize>| Value::Optional(at.and_then(|at| list.get(at)).map(Rc::new));
    Some(Ok(match (function, args) {
        ("optional.of", [value]) => some(value),
        ("optional.ofNonZeroValue", [value]) => {
            if value.is_zero() {
                Value::Optional(None)
            } else {
                some(value)
            }
        }
        ("optional.none", []) => Value::Optional(None),
        ("hasValue", [Value::Optional(value)]) => Value::Bool(value.is_some()),
        ("value", [Value::Optional(Some(value))]) => (**value).clone(),
        ("value", [Value::Optional(None)]) => return Some(Err(EvalError::failed("optional.none() dereference"))),
        ("first", [Value::List(list)]) => end(list, Some(0)),
        ("last", [Value::List(list)]) => end(list, list.len().checked_sub(1)),
        ("optional.unwrap" | "unwrapOpt", [Value::List(list)]) => {
            let values = list.iter().filter_map(|value| match value {
                Value::Optional(value) => value.map(|value| (*value).clone()),
                other => Some(other),
            });
            Value::list(values.collect())
        }
        _ => return None,
    }))
}
