//! Times and durations in the forms the API uses: `metav1.Time` (RFC 3339, seconds, UTC), `metav1.MicroTime` (microseconds) and
//! Go's duration strings. Faults are in the words of Go's `time` package, since the API server passes them on.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

mod duration;

pub use duration::{format_duration, parse_duration};

/// Go's layout of RFC 3339, as its faults quote it.
const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
/// The layout of `metav1.MicroTime`.
const MICRO_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Why a text is no time or duration, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TimeError(pub(crate) String);

/// `2006-01-02T15:04:05Z`: how `metav1.Time` is written. Fractions of a second are cut off.
#[must_use]
pub fn seconds(time: Timestamp) -> String {
    let t = Offset::UTC.to_datetime(time);
    format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", t.year(), t.month(), t.day(), t.hour(), t.minute(), t.second())
}

/// `2006-01-02T15:04:05.000000Z`: how `metav1.MicroTime` is written.
#[must_use]
pub fn micros(time: Timestamp) -> String {
    let t = Offset::UTC.to_datetime(time);
    let micros = t.subsec_nanosecond() / 1000;
    let (date, clock) = (t.date(), t.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{micros:06}Z",
        date.year(),
        date.month(),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    )
}

/// Reads RFC 3339, as `metav1.Time` does.
///
/// # Errors
///
/// [`TimeError`] in the words of Go's `time.Parse`.
pub fn parse(text: &str) -> Result<Timestamp, TimeError> {
    read(text, LAYOUT, false)
}

/// Reads RFC 3339 with a fraction, as `metav1.MicroTime` does.
///
/// # Errors
///
/// [`TimeError`] in the words of Go's `time.Parse`.
pub fn parse_micros(text: &str) -> Result<Timestamp, TimeError> {
    read(text, MICRO_LAYOUT, true)
}

/// The canonical form of a `metav1.Time`; `None` when the text has it already.
///
/// # Errors
///
/// As [`parse`].
pub fn canonical(text: &str) -> Result<Option<String>, TimeError> {
    let time = parse(text)?;
    let written = seconds(time);
    Ok((written != text).then_some(written))
}

/// The canonical form of a `metav1.MicroTime`; `None` when the text has it already.
///
/// # Errors
///
/// As [`parse_micros`].
pub fn canonical_micros(text: &str) -> Result<Option<String>, TimeError> {
    let time = parse_micros(text)?;
    let written = micros(time);
    Ok((written != text).then_some(written))
}

/// A reader over one text; what is left of it goes into faults.
struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    layout: &'static str,
}

fn read(text: &str, layout: &'static str, fraction: bool) -> Result<Timestamp, TimeError> {
    let mut r = Reader { text, rest: text, layout };
    let year = r.digits(4, "2006")?;
    r.literal("-")?;
    let month = r.ranged(r#"01"#, "month", 1..=12)?;
    r.literal("-")?;
    let day = r.digits(2, "02")?;
    r.literal("T")?;
    let hour = r.hour()?;
    r.literal(":")?;
    let minute = r.ranged("04", "minute", 0..=59)?;
    r.literal(":")?;
    let second = r.ranged("05", "second", 0..=59)?;
    let nanos = r.fraction(fraction)?;
    let offset = r.zone()?;
    if !r.rest.is_empty() {
        return Err(r.says(&format!("extra text: {}", quoted(r.rest))));
    }
    let part = |n: i32| i8::try_from(n).unwrap_or(i8::MAX);
    let year = i16::try_from(year).unwrap_or(i16::MAX);
    let civil = DateTime::new(year, part(month), part(day), part(hour), part(minute), part(second), nanos);
    let out_of_range = || r.says("day out of range");
    let local = civil.map_err(|_| out_of_range())?;
    let offset = Offset::from_seconds(offset).map_err(|_| r.says("time zone offset hour out of range"))?;
    offset.to_timestamp(local).map_err(|_| out_of_range())
}

impl Reader<'_> {
    fn says(&self, what: &str) -> TimeError {
        TimeError(format!("parsing time {}: {what}", quoted(self.text)))
    }

    fn cannot(&self, element: &str) -> TimeError {
        let (text, layout, rest) = (quoted(self.text), quoted(self.layout), quoted(self.rest));
        TimeError(format!("parsing time {text} as {layout}: cannot parse {rest} as {}", quoted(element)))
    }

    fn digits(&mut self, count: usize, element: &str) -> Result<i32, TimeError> {
        let head = self.rest.get(..count).filter(|head| head.bytes().all(|c| c.is_ascii_digit()));
        let number = head.and_then(|head| head.parse().ok()).ok_or_else(|| self.cannot(element))?;
        self.rest = &self.rest[count..];
        Ok(number)
    }

    fn ranged(&mut self, element: &str, name: &str, range: std::ops::RangeInclusive<i32>) -> Result<i32, TimeError> {
        let number = self.digits(2, element)?;
        if range.contains(&number) { Ok(number) } else { Err(self.says(&format!("{name} out of range"))) }
    }

    /// Go takes an hour of one digit.
    fn hour(&mut self) -> Result<i32, TimeError> {
        let bytes = self.rest.as_bytes();
        let one = bytes.first().is_some_and(u8::is_ascii_digit) && !bytes.get(1).is_some_and(u8::is_ascii_digit);
        let number = self.digits(if one { 1 } else { 2 }, "15")?;
        if number < 24 { Ok(number) } else { Err(self.says("hour out of range")) }
    }

    fn literal(&mut self, literal: &str) -> Result<(), TimeError> {
        self.rest = self.rest.strip_prefix(literal).ok_or_else(|| self.cannot(literal))?;
        Ok(())
    }

    /// The fraction as nanoseconds. `exact` asks for six digits, as the layout with them does.
    fn fraction(&mut self, exact: bool) -> Result<i32, TimeError> {
        let digits = match self.rest.strip_prefix(['.', ',']) {
            Some(rest) => rest.bytes().take_while(u8::is_ascii_digit).count(),
            None => 0,
        };
        if exact {
            if digits < 6 {
                return Err(self.cannot(".000000"));
            }
        } else if digits == 0 {
            return Ok(0);
        }
        let taken = if exact { 6 } else { digits };
        let text = &self.rest[1..=taken];
        self.rest = &self.rest[1 + taken..];
        let mut nanos = 0;
        for digit in text.bytes().chain(std::iter::repeat(b'0')).take(9) {
            nanos = nanos * 10 + i32::from(digit - b'0');
        }
        Ok(nanos)
    }

    /// The zone as seconds east of UTC.
    fn zone(&mut self) -> Result<i32, TimeError> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let zone = self.rest.get(..6).map(str::as_bytes);
        let Some(&[sign @ (b'+' | b'-'), h1, h2, b':', m1, m2]) = zone else {
            return Err(self.cannot("Z07:00"));
        };
        if ![h1, h2, m1, m2].iter().all(u8::is_ascii_digit) {
            return Err(self.cannot("Z07:00"));
        }
        let number = |a: u8, b: u8| i32::from(a - b'0') * 10 + i32::from(b - b'0');
        let (hours, minutes) = (number(h1, h2), number(m1, m2));
        if hours > 24 {
            return Err(self.says("time zone offset hour out of range"));
        }
        if minutes > 60 {
            return Err(self.says("time zone offset minute out of range"));
        }
        self.rest = &self.rest[6..];
        let seconds = hours * 3600 + minutes * 60;
        Ok(if sign == b'-' { -seconds } else { seconds })
    }
}

/// A text as Go's `time` package quotes it.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    out.push_str(&format!("\\x{byte:02x}"));
                }
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
