//! Durations as Go writes them (`1m30s`, `300ms`), with its words for what is none.

use std::time::Duration;

/// Reads a duration. A negative one is `None`: nothing here lasts less than no time.
///
/// # Errors
/// The text of Go's `time.ParseDuration`.
pub(crate) fn parse(text: &str) -> Result<Option<Duration>, String> {
    let quoted = || corten_api::field::quoted(text);
    let invalid = || format!("time: invalid duration {}", quoted());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Some(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let digits = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
        let number = &rest[..digits];
        if !number.contains(|c: char| c.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        rest = &rest[digits..];
        let letters = rest.find(is_number).unwrap_or(rest.len());
        let unit = &rest[..letters];
        rest = &rest[letters..];
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            "" => return Err(format!("time: missing unit in duration {}", quoted())),
            unit => return Err(format!("time: unknown unit {} in duration {}", corten_api::field::quoted(unit), quoted())),
        };
        total += number.parse::<f64>().map_err(|_| invalid())? * seconds;
    }
    /// Nanoseconds in 63 bits, as seconds.
    const LONGEST: f64 = 9_223_372_036.0;
    if total > LONGEST {
        return Err(invalid());
    }
    let length = Duration::try_from_secs_f64(total).map_err(|_| invalid())?;
    Ok(if negative { None } else { Some(length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn durations_are_read_as_go_reads_them() {
        let ms = |ms| Ok(Some(Duration::from_millis(ms)));
        let no = |why: &str| Err(why.to_owned());
        check("0",       ms(0));
        check("1m30s",   ms(90_000));
        check("1.5s",    ms(1500));
        check(".5s",     ms(500));
        check("+300ms",  ms(300));
        check("-1s",     Ok(None));
        check("30",      no("time: missing unit in duration \"30\""));
        check("",        no("time: invalid duration \"\""));
        check("soon",    no("time: invalid duration \"soon\""));
        check("1d",      no("time: unknown unit \"d\" in duration \"1d\""));
        check("1s2",     no("time: missing unit in duration \"1s2\""));
        check("1..s",    no("time: invalid duration \"1..s\""));
        check("9999999h", no("time: invalid duration \"9999999h\""));
        #[track_caller]
        fn check(text: &str, expected: Result<Option<Duration>, String>) {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
