//! What upstream's environment checks once the types fit: literal arguments that could never be read, and literals that mix
//! types where the checker lets `dyn` pass.

use crate::ast::{Expr, ExprKind, Literal};
use crate::environment::Checked;
use crate::issue::Issues;
use crate::types::Type;

/// Reports what is wrong with `checked`.
pub(crate) fn validate(checked: &Checked, issues: &mut Issues) {
    visit(checked, &checked.expr, false, issues);
}

/// `mixed` allows literals of mixed types: the arguments of `format` are printed, not compared.
fn visit(checked: &Checked, expr: &Expr, mixed: bool, issues: &mut Issues) {
    let mut mixed = mixed;
    match &expr.kind {
        ExprKind::Call { function, args, .. } => {
            mixed |= function == "format";
            if let Some(Expr { id, kind: ExprKind::Literal(literal) }) = args.first()
                && !is_readable(function, literal)
            {
                report(checked, *id, format!("invalid {function} argument"), issues);
            }
        }
        ExprKind::List(elements) if !mixed => {
            let types = elements.iter().map(|element| (element.value.id, item_type(checked, &element.value, element.optional)));
            // One fault for a list is enough.
            same(checked, types, true, issues);
        }
        ExprKind::Map(entries) if !mixed => {
            same(checked, entries.iter().map(|entry| (entry.key.id, item_type(checked, &entry.key, false))), false, issues);
            let values = entries.iter().map(|entry| (entry.value.id, item_type(checked, &entry.value, entry.optional)));
            same(checked, values, false, issues);
        }
        _ => {}
    }
    for child in expr.children() {
        visit(checked, child, mixed, issues);
    }
}

fn item_type<'a>(checked: &'a Checked, expr: &Expr, optional: bool) -> &'a Type {
    let kind = &checked.types[expr.id as usize];
    if optional { kind.unwrapped().unwrap_or(kind) } else { kind }
}

fn same<'a>(checked: &Checked, mut types: impl Iterator<Item = (u32, &'a Type)>, once: bool, issues: &mut Issues) {
    let Some((_, first)) = types.next() else { return };
    for (id, kind) in types.filter(|(_, kind)| *kind != first) {
        report(checked, id, format!("expected type '{}' but found '{}'", first.shown(), kind.shown()), issues);
        if once {
            return;
        }
    }
}

fn report(checked: &Checked, id: u32, message: String, issues: &mut Issues) {
    issues.report(checked.offsets.get(id as usize).copied(), message);
}

fn is_readable(function: &str, literal: &Literal) -> bool {
    match (function, literal) {
        ("duration", Literal::String(text)) => is_duration(text),
        ("timestamp", Literal::String(text)) => is_timestamp(text),
        // Seconds since 1970 in the years 1 to 9999.
        ("timestamp", Literal::Int(seconds)) => (-62_135_596_800..=253_402_300_799).contains(seconds),
        ("matches", Literal::String(text)) => regex::Regex::new(text).is_ok(),
        _ => true,
    }
}

/// Whether Go's `time.ParseDuration` takes `text`, such as `1h30m` or `-1.5s`.
pub(crate) fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut nanoseconds = 0.0_f64;
    while !rest.is_empty() {
        let len = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(len);
        let Some(amount) = number.parse::<f64>().ok().filter(|_| number.bytes().any(|b| b.is_ascii_digit())) else {
            return false;
        };
        let len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(len);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 6e10,
            "h" => 3.6e12,
            _ => return false,
        };
        nanoseconds += amount * scale;
        rest = after;
    }
    !text.trim_start_matches(['+', '-']).is_empty() && nanoseconds < 9.223_372_036_854_775e18
}

/// Whether `text` is a time of RFC 3339 in the years 1 to 9999.
fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<u32> {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |sum, b| sum * 10 + u32::from(b - b'0')))
    };
    let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
    let (Some(year), Some(month), Some(day)) = (number(0, 4), number(5, 7), number(8, 10)) else { return false };
    let (Some(hour), Some(minute), Some(second)) = (number(11, 13), number(14, 16), number(17, 19)) else { return false };
    let shaped = is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':');
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    if !shaped || year == 0 || !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return false;
    }
    let mut at = 19;
    if is(at, b'.') {
        let digits = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return false;
        }
        at += 1 + digits;
    }
    match bytes.get(at) {
        Some(b'Z') => at + 1 == bytes.len(),
        Some(b'+' | b'-') => {
            number(at + 1, at + 3).is_some_and(|hour| hour <= 24)
                && is(at + 3, b':')
                && number(at + 4, at + 6).is_some_and(|minute| minute <= 60)
                && at + 6 == bytes.len()
        }
        _ => false,
    }
}
