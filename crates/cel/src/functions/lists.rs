//! Lists and sets.

use std::cmp::Ordering;

use super::{Call, Result, arithmetic};
use crate::value::{EvalError, List, Value};

/// Longest list that `lists.range` makes.
const MAX_RANGE: i64 = 1_000_000;

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Call<'a> {
    use Value::{Bool, Int, List as Items};
    if let ("lists.range", [Int(count)]) = (function, args) {
        return Some(if *count > MAX_RANGE {
            Err(EvalError::failed(format!("lists.range: {count} is more than {MAX_RANGE}")))
        } else {
            Ok(Value::list((0..*count).map(Int).collect()))
        });
    }
    let [Items(list), rest @ ..] = args else { return None };
    let has = |list: &List<'a>, item: &Value<'a>| list.iter().any(|known| known == *item);
    let within = |part: &List<'a>, whole: &List<'a>| part.iter().all(|item| has(whole, &item));
    Some(match (function, rest) {
        ("isSorted", []) => sorted(list).map(Bool),
        ("sum", []) => sum(list),
        ("max", []) => most(list, Ordering::Greater),
        ("min", []) => most(list, Ordering::Less),
        ("indexOf", [item]) => Ok(index(list.iter().position(|known| known == *item))),
        ("lastIndexOf", [item]) => Ok(index((0..list.len()).rev().find(|at| list.get(*at).as_ref() == Some(item)))),
        ("slice", [Int(from), Int(to)]) => slice(list, *from, *to),
        ("flatten", []) => Ok(Value::list(flat(list, 1))),
        ("flatten", [Int(depth)]) => match usize::try_from(*depth) {
            Ok(depth) => Ok(Value::list(flat(list, depth))),
            Err(_) => Err(EvalError::failed("level must be non-negative")),
        },
        ("sort", []) => sort(list, list),
        ("@sortByAssociatedKeys", [Items(keys)]) => sort(list, keys),
        ("reverse", []) => {
            let mut items: Vec<_> = list.iter().collect();
            items.reverse();
            Ok(Value::list(items))
        }
        ("distinct", []) => {
            let mut items: Vec<Value<'a>> = Vec::new();
            for item in list.iter() {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            Ok(Value::list(items))
        }
        ("sets.contains", [Items(part)]) => Ok(Bool(within(part, list))),
        ("sets.equivalent", [Items(other)]) => Ok(Bool(within(list, other) && within(other, list))),
        ("sets.intersects", [Items(other)]) => Ok(Bool(list.iter().any(|item| has(other, &item)))),
        _ => return None,
    })
}

fn index<'a>(found: Option<usize>) -> Value<'a> {
    Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn sorted(list: &List<'_>) -> Result<bool> {
    let items: Vec<_> = list.iter().collect();
    for pair in items.windows(2) {
        match pair[0].compare(&pair[1]) {
            Some(Ordering::Greater) => return Ok(false),
            Some(_) => {}
            None => return Err(EvalError::NoSuchOverload),
        }
    }
    Ok(true)
}

fn sum<'a>(list: &List<'a>) -> Result<Value<'a>> {
    let mut items = list.iter();
    let Some(mut sum) = items.next() else { return Ok(Value::Int(0)) };
    for item in items {
        sum = arithmetic::call("_+_", &[sum, item]).unwrap_or(Err(EvalError::NoSuchOverload))?;
    }
    Ok(sum)
}

fn most<'a>(list: &List<'a>, wanted: Ordering) -> Result<Value<'a>> {
    let mut items = list.iter();
    let name = if wanted == Ordering::Greater { "max" } else { "min" };
    let mut most = items.next().ok_or_else(|| EvalError::failed(format!("{name} called on empty list")))?;
    for item in items {
        match item.compare(&most) {
            Some(order) if order == wanted => most = item,
            Some(_) => {}
            None => return Err(EvalError::NoSuchOverload),
        }
    }
    Ok(most)
}

fn slice<'a>(list: &List<'a>, from: i64, to: i64) -> Result<Value<'a>> {
    let failed = |why: String| Err(EvalError::failed(format!("cannot slice({from}, {to}), {why}")));
    let (Ok(start), Ok(end)) = (usize::try_from(from), usize::try_from(to)) else {
        return failed("negative indexes not supported".to_owned());
    };
    if start > end {
        return failed("start index must be less than or equal to end index".to_owned());
    }
    if end > list.len() {
        return failed(format!("list is length {}", list.len()));
    }
    Ok(Value::list((start..end).filter_map(|at| list.get(at)).collect()))
}

fn flat<'a>(list: &List<'a>, depth: usize) -> Vec<Value<'a>> {
    let mut items = Vec::new();
    for item in list.iter() {
        match item {
            Value::List(inner) if depth > 0 => items.extend(flat(&inner, depth - 1)),
            other => items.push(other),
        }
    }
    items
}

fn sort<'a>(list: &List<'a>, keys: &List<'a>) -> Result<Value<'a>> {
    let mut pairs: Vec<_> = keys.iter().zip(list.iter()).collect();
    let same = pairs.windows(2).all(|pair| pair[0].0.compare(&pair[1].0).is_some());
    if !same {
        return Err(EvalError::failed("list elements must have the same type"));
    }
    pairs.sort_by(|left, right| left.0.compare(&right.0).unwrap_or(Ordering::Equal));
    Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect()))
}
