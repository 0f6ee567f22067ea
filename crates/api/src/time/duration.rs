//! Go's duration strings: `1h2m3.5s`.

use super::{TimeError, quoted};

const SECOND: u64 = 1_000_000_000;

/// Reads a duration; the result is in nanoseconds.
///
/// # Errors
///
/// [`TimeError`] in the words of Go's `time.ParseDuration`.
pub fn parse_duration(text: &str) -> Result<i64, TimeError> {
    let invalid = || TimeError(format!("time: invalid duration {}", quoted(text)));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let whole = digits(rest);
        let after = &rest[whole.len()..];
        let fraction = after.strip_prefix('.').map(digits);
        if whole.is_empty() && fraction.is_none_or(str::is_empty) {
            return Err(invalid());
        }
        rest = &after[fraction.map_or(0, |fraction| 1 + fraction.len())..];
        let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let (name, next) = rest.split_at(end);
        if name.is_empty() {
            return Err(TimeError(format!("time: missing unit in duration {}", quoted(text))));
        }
        let unit =
            unit(name).ok_or_else(|| TimeError(format!("time: unknown unit {} in duration {}", quoted(name), quoted(text))))?;
        rest = next;
        let number = if whole.is_empty() { 0 } else { whole.parse::<u64>().map_err(|_| invalid())? };
        let part = number.checked_mul(unit).filter(|part| *part <= 1 << 63).ok_or_else(invalid)?;
        total =
            total.checked_add(part).ok_or_else(invalid)?.checked_add(share(fraction.unwrap_or(""), unit)).ok_or_else(invalid)?;
        if total > 1 << 63 {
            return Err(invalid());
        }
    }
    match (negative, i64::try_from(total)) {
        (true, Ok(total)) => Ok(-total),
        (true, Err(_)) => Ok(i64::MIN),
        (false, Ok(total)) => Ok(total),
        (false, Err(_)) => Err(invalid()),
    }
}

/// Writes nanoseconds as Go does: `1h0m0s`, `1.5s`, `100ms`, `0s`.
#[must_use]
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    if n == 0 {
        return "0s".into();
    }
    if n < SECOND {
        return match n {
            n if n < 1000 => format!("{sign}{n}ns"),
            n if n < 1_000_000 => format!("{sign}{}µs", decimal(n, 1000)),
            n => format!("{sign}{}ms", decimal(n, 1_000_000)),
        };
    }
    let (hours, minutes) = (n / (3600 * SECOND), n / (60 * SECOND) % 60);
    let seconds = decimal(n % (60 * SECOND), SECOND);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

fn digits(text: &str) -> &str {
    &text[..text.bytes().take_while(u8::is_ascii_digit).count()]
}

fn unit(name: &str) -> Option<u64> {
    Some(match name {
        "ns" => 1,
        "us" | "µs" | "μs" => 1000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3600 * SECOND,
        _ => return None,
    })
}

/// The nanoseconds of a decimal fraction of a unit; digits beyond what a `u64` can tell are ignored, as in Go.
fn share(fraction: &str, unit: u64) -> u64 {
    let (mut number, mut scale) = (0_u128, 1_u128);
    for digit in fraction.bytes().take(18) {
        number = number * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    u64::try_from(number * u128::from(unit) / scale).unwrap_or(u64::MAX)
}

/// A quotient without trailing zeros after the point.
fn decimal(n: u64, unit: u64) -> String {
    let (whole, mut part, mut scale) = (n / unit, n % unit, unit / 10);
    let mut out = whole.to_string();
    if part > 0 {
        out.push('.');
        while part > 0 {
            out.push(char::from(b'0' + u8::try_from(part / scale).unwrap_or(0)));
            part %= scale;
            scale /= 10;
        }
    }
    out
}
