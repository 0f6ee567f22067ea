//! Texts: the language's own functions, cel-go's strings library, regular expressions.

use super::{Call, Result, convert, shown, time};
use crate::value::{EvalError, List, Value};

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Call<'a> {
    use Value::{Bool, Int, List as Items, String};
    if let ("join", [Items(list), rest @ ..]) = (function, args) {
        return Some(join(list, rest.first()));
    }
    let [String(text), rest @ ..] = args else { return None };
    Some(match (function, rest) {
        ("contains", [String(part)]) => Ok(Bool(text.contains(part.as_ref()))),
        ("startsWith", [String(part)]) => Ok(Bool(text.starts_with(part.as_ref()))),
        ("endsWith", [String(part)]) => Ok(Bool(text.ends_with(part.as_ref()))),
        ("matches", [String(pattern)]) => regex(pattern).map(|regex| Bool(regex.is_match(text))),
        ("find", [String(pattern)]) => {
            regex(pattern).map(|regex| Value::text(regex.find(text).map_or("", |found| found.as_str())))
        }
        ("findAll", [String(pattern)]) => find_all(text, pattern, -1),
        ("findAll", [String(pattern), Int(limit)]) => find_all(text, pattern, *limit),
        ("charAt", [Int(at)]) => char_at(text, *at),
        ("indexOf", [String(part)]) => index_of(text, part, 0),
        ("indexOf", [String(part), Int(from)]) => index_of(text, part, *from),
        ("lastIndexOf", [String(part)]) => last_index_of(text, part, None),
        ("lastIndexOf", [String(part), Int(from)]) => last_index_of(text, part, Some(*from)),
        ("lowerAscii", []) => Ok(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::text(text.to_ascii_uppercase())),
        ("trim", []) => Ok(Value::text(text.trim())),
        ("replace", [String(from), String(to)]) => Ok(Value::text(text.replace(from.as_ref(), to))),
        ("replace", [String(from), String(to), Int(count)]) => Ok(Value::text(match usize::try_from(*count) {
            Ok(count) => text.replacen(from.as_ref(), to, count),
            Err(_) => text.replace(from.as_ref(), to),
        })),
        ("split", [String(by)]) => Ok(split(text, by, -1)),
        ("split", [String(by), Int(limit)]) => Ok(split(text, by, *limit)),
        ("substring", [Int(from)]) => substring(text, *from, None),
        ("substring", [Int(from), Int(to)]) => substring(text, *from, Some(*to)),
        ("strings.quote", []) => Ok(Value::text(format!("{text:?}"))),
        ("format", [Items(values)]) => format(text, values),
        _ => return None,
    })
}

/// A compiled regular expression; its memory is limited, so that no pattern is a burden.
fn regex(pattern: &str) -> Result<regex::Regex> {
    regex::RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .build()
        .map_err(|_| EvalError::failed(format!("error parsing regexp: `{pattern}`")))
}

fn find_all<'a>(text: &str, pattern: &str, limit: i64) -> Result<Value<'a>> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let regex = regex(pattern)?;
    Ok(Value::list(regex.find_iter(text).take(limit).map(|found| Value::text(found.as_str())).collect()))
}

fn out_of_range(index: i64) -> EvalError {
    EvalError::failed(format!("index out of range: {index}"))
}

fn place(index: i64, end: usize) -> Result<usize> {
    usize::try_from(index).ok().filter(|at| *at <= end).ok_or_else(|| out_of_range(index))
}

fn char_at<'a>(text: &str, at: i64) -> Result<Value<'a>> {
    let chars: Vec<char> = text.chars().collect();
    let at = place(at, chars.len())?;
    Ok(Value::text(chars.get(at).map(char::to_string).unwrap_or_default()))
}

fn index<'a>(found: Option<usize>) -> Value<'a> {
    Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn index_of<'a>(text: &str, part: &str, from: i64) -> Result<Value<'a>> {
    let (text, part): (Vec<char>, Vec<char>) = (text.chars().collect(), part.chars().collect());
    let from = place(from, text.len())?;
    Ok(index((from..=text.len().saturating_sub(part.len())).find(|at| text[*at..].starts_with(&part))))
}

fn last_index_of<'a>(text: &str, part: &str, from: Option<i64>) -> Result<Value<'a>> {
    let (text, part): (Vec<char>, Vec<char>) = (text.chars().collect(), part.chars().collect());
    let from = from.map_or(Ok(text.len()), |from| place(from, text.len()))?;
    let Some(last) = text.len().checked_sub(part.len()) else { return Ok(Value::Int(-1)) };
    Ok(index((0..=last.min(from)).rev().find(|at| text[*at..].starts_with(&part))))
}

fn substring<'a>(text: &str, from: i64, to: Option<i64>) -> Result<Value<'a>> {
    let chars: Vec<char> = text.chars().collect();
    let start = place(from, chars.len())?;
    let end = to.map_or(Ok(chars.len()), |to| place(to, chars.len()))?;
    if start > end {
        return Err(EvalError::failed(format!("invalid substring range. start: {start}, end: {end}")));
    }
    Ok(Value::text(chars[start..end].iter().collect::<String>()))
}

/// As Go's `SplitN`: a negative limit is none, and nothing between characters splits into characters.
fn split<'a>(text: &str, by: &str, limit: i64) -> Value<'a> {
    let parts: Vec<String> = match (usize::try_from(limit), by.is_empty()) {
        (Ok(0), _) => Vec::new(),
        (Ok(limit), false) => text.splitn(limit, by).map(str::to_owned).collect(),
        (Err(_), false) => text.split(by).map(str::to_owned).collect(),
        (limit, true) => {
            let chars: Vec<char> = text.chars().collect();
            let whole = limit.unwrap_or(usize::MAX).min(chars.len()).saturating_sub(1);
            let mut parts: Vec<String> = chars[..whole].iter().map(char::to_string).collect();
            if !chars.is_empty() {
                parts.push(chars[whole..].iter().collect());
            }
            parts
        }
    };
    Value::list(parts.into_iter().map(Value::text).collect())
}

fn join<'a>(list: &List<'a>, separator: Option<&Value<'a>>) -> Result<Value<'a>> {
    let separator = match separator {
        None => "",
        Some(value) => value.as_str().ok_or(EvalError::NoSuchOverload)?,
    };
    let mut parts = Vec::with_capacity(list.len());
    for item in list.iter() {
        parts.push(item.as_str().ok_or(EvalError::NoSuchOverload)?.to_owned());
    }
    Ok(Value::text(parts.join(separator)))
}

/// `%s`, `%d`, `%f`, `%e`, `%b`, `%o`, `%x`, `%X` with a precision before `f` and `e`.
fn format<'a>(text: &str, values: &List<'a>) -> Result<Value<'a>> {
    let (mut out, mut rest, mut next) = (String::new(), text.chars().peekable(), 0);
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut precision = None;
        if rest.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let wanted = digits.parse().ok().filter(|digits: &usize| *digits <= 1000);
            precision = Some(wanted.ok_or_else(|| EvalError::failed("could not parse formatting clause: invalid precision"))?);
        }
        let verb = rest.next().ok_or_else(|| EvalError::failed("unexpected end of string"))?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.get(next).ok_or_else(|| EvalError::failed(format!("index {next} out of range")))?;
        next += 1;
        out.push_str(&formatted(verb, precision, &value)?);
    }
    Ok(Value::text(out))
}

fn formatted(verb: char, precision: Option<usize>, value: &Value<'_>) -> Result<String> {
    let digits = precision.unwrap_or(6);
    Ok(match (verb, value) {
        ('s', value) => plain(value),
        ('d', Value::Int(number)) => number.to_string(),
        ('d', Value::Uint(number)) => number.to_string(),
        ('f', Value::Double(number)) => format!("{number:.digits$}"),
        ('e', Value::Double(number)) => {
            let scientific = format!("{number:.digits$e}");
            let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{mantissa}e{sign}{exponent:0>2}")
        }
        ('b', Value::Bool(value)) => u8::from(*value).to_string(),
        ('b' | 'o' | 'x' | 'X', Value::Int(number)) => {
            let sign = if *number < 0 { "-" } else { "" };
            format!("{sign}{}", based(verb, number.unsigned_abs()))
        }
        ('b' | 'o' | 'x' | 'X', Value::Uint(number)) => based(verb, *number),
        ('x' | 'X', Value::String(text)) => hex(verb, text.as_bytes()),
        ('x' | 'X', Value::Bytes(bytes)) => hex(verb, bytes),
        ('d' | 'f' | 'e' | 'b' | 'o' | 'x' | 'X', _) => {
            return Err(EvalError::failed(format!(
                "error during formatting: no such overload for %{verb}: {}",
                value.type_name()
            )));
        }
        _ => {
            let message = format!("could not parse formatting clause: unrecognized formatting clause \"{verb}\"");
            return Err(EvalError::failed(message));
        }
    })
}

fn based(verb: char, number: u64) -> String {
    match verb {
        'b' => format!("{number:b}"),
        'o' => format!("{number:o}"),
        'x' => format!("{number:x}"),
        _ => format!("{number:X}"),
    }
}

fn hex(verb: char, bytes: &[u8]) -> String {
    bytes.iter().map(|byte| if verb == 'x' { format!("{byte:02x}") } else { format!("{byte:02X}") }).collect()
}

/// A value as `%s` prints it.
fn plain(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => text.to_string(),
        Value::Double(number) => convert::double(*number),
        Value::Duration(nanoseconds) => time::shown_duration(*nanoseconds),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::List(list) => format!("[{}]", list.iter().map(|item| plain(&item)).collect::<Vec<_>>().join(", ")),
        Value::Map(map) => {
            let mut entries: Vec<String> =
                map.entries().iter().map(|(key, value)| format!("{}: {}", plain(key), plain(value))).collect();
            entries.sort();
            format!("{{{}}}", entries.join(", "))
        }
        other => shown(other),
    }
}
