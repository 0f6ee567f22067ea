//! Times and durations. Time zones are UTC and fixed offsets; names of places need a database that is not here.

use std::fmt;

use super::{Call, Result};
use crate::value::{EvalError, Value};

const DAY: i64 = 86_400;
const NANOSECONDS: i64 = 1_000_000_000;
/// The years 1 to 9999, in seconds since 1970.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;

/// A point in time of the years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    seconds: i64,
    nanoseconds: u32,
}

impl Time {
    pub(crate) fn new(seconds: i64, nanoseconds: u32) -> Option<Self> {
        (FIRST..=LAST).contains(&seconds).then_some(Self { seconds, nanoseconds })
    }

    pub(crate) fn seconds(self) -> i64 {
        self.seconds
    }

    pub(crate) fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }

    /// `nanoseconds` later.
    pub(crate) fn plus(self, nanoseconds: i64) -> Option<Self> {
        let sum = i64::from(self.nanoseconds) + nanoseconds.rem_euclid(NANOSECONDS);
        let seconds = self.seconds.checked_add(nanoseconds.div_euclid(NANOSECONDS))?.checked_add(sum / NANOSECONDS)?;
        Self::new(seconds, u32::try_from(sum % NANOSECONDS).ok()?)
    }

    /// Reads RFC 3339.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            let digits = bytes.get(from..to)?;
            digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
        };
        let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
            return None;
        }
        if !(1..=days_of(year, month)).contains(&day) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let (mut at, mut nanoseconds) = (19, 0);
        if is(at, b'.') {
            let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            for place in 0..9 {
                let digit = if place < digits { u32::from(bytes[at + 1 + place] - b'0') } else { 0 };
                nanoseconds = nanoseconds * 10 + digit;
            }
            at += 1 + digits;
        }
        let offset = offset(&text[at..])?;
        let seconds = days_since_1970(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
        Self::new(seconds, nanoseconds)
    }

    fn civil(self, offset: i64) -> Civil {
        let local = self.seconds + offset;
        let (days, within) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Civil {
            year,
            month,
            day: of_year - (153 * shifted_month + 2) / 5 + 1,
            day_of_year: days - days_since_1970(year, 1, 1),
            weekday: (days + 4).rem_euclid(7),
            within,
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil = self.civil(0);
        let (hour, minute, second) = (civil.within / 3600, civil.within / 60 % 60, civil.within % 60);
        write!(f, "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}", civil.year, civil.month, civil.day)?;
        if self.nanoseconds > 0 {
            write!(f, ".{}", format!("{:09}", self.nanoseconds).trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// A date, and the seconds since its midnight.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: i64,
    weekday: i64,
    within: i64,
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The seconds that `Z`, `+01:00` or `-01:00` are ahead of UTC.
fn offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |text: &str| text.parse().ok().filter(|_| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()));
    let (hours, minutes): (i64, i64) = (two(hours)?, two(minutes)?);
    (hours <= 24 && minutes <= 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// A zone as the functions take it: also without a sign, and by the name of UTC.
fn zone(name: &str) -> Result<i64> {
    let known = match name {
        "" | "UTC" | "Z" | "GMT" | "Etc/UTC" => Some(0),
        _ if name.starts_with(['+', '-']) => offset(name),
        _ => offset(&format!("+{name}")),
    };
    known.ok_or_else(|| EvalError::failed(format!("unknown time zone {name}")))
}

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Call<'a> {
    match args {
        [Value::Timestamp(time)] => part(function, *time, 0).map(|part| Ok(Value::Int(part))),
        [Value::Timestamp(time), Value::String(name)] => match zone(name) {
            Ok(offset) => part(function, *time, offset).map(|part| Ok(Value::Int(part))),
            Err(fault) => Some(Err(fault)),
        },
        [Value::Duration(nanoseconds)] => {
            let unit = match function {
                "getHours" => 3600 * NANOSECONDS,
                "getMinutes" => 60 * NANOSECONDS,
                "getSeconds" => NANOSECONDS,
                "getMilliseconds" => 1_000_000,
                _ => return None,
            };
            Some(Ok(Value::Int(nanoseconds / unit)))
        }
        _ => None,
    }
}

fn part(function: &str, time: Time, offset: i64) -> Option<i64> {
    let civil = time.civil(offset);
    Some(match function {
        "getFullYear" => civil.year,
        "getMonth" => civil.month - 1,
        "getDayOfYear" => civil.day_of_year,
        "getDayOfMonth" => civil.day - 1,
        "getDate" => civil.day,
        "getDayOfWeek" => civil.weekday,
        "getHours" => civil.within / 3600,
        "getMinutes" => civil.within / 60 % 60,
        "getSeconds" => civil.within % 60,
        "getMilliseconds" => i64::from(time.nanoseconds / 1_000_000),
        _ => return None,
    })
}

/// Nanoseconds of a duration as Go's `time.ParseDuration` reads it, such as `1h30m` or `-1.5s`.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum: i128 = 0;
    while !rest.is_empty() {
        let len = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || whole.is_empty() && fraction.is_empty() || number.len() > 30 {
            return None;
        }
        let len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(len);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        sum = sum.checked_add(whole.checked_mul(scale)?)?;
        let mut place = scale;
        for digit in fraction.bytes() {
            place /= 10;
            sum += i128::from(digit - b'0') * place;
        }
        rest = after;
    }
    i64::try_from(if negative { -sum } else { sum }).ok()
}

/// A duration in seconds, such as `1.5s`.
pub(super) fn shown_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (seconds, rest) = (nanoseconds.unsigned_abs() / 1_000_000_000, nanoseconds.unsigned_abs() % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    format!("{sign}{seconds}.{}s", format!("{rest:09}").trim_end_matches('0'))
}
