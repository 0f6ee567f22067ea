//! Reading quantities. The odd corners (`05`, `1.500` keep their text; `1e-12` becomes `1n`) are upstream's, and objects that
//! were written by it must read the same here.

use super::{Format, Quantity, QuantityError};

/// The digits an `i64` surely holds: with no more, upstream does not round.
const EXACT_DIGITS: i64 = 18;
/// Nothing smaller than a billionth is told apart.
const NANO: i32 = -9;
/// More fraction digits than this cannot change a rounded result.
const FRACTION_KEPT: usize = 60;

/// A quantity taken apart.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

pub(super) fn quantity(text: &str) -> Result<Quantity, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let parts = split(text)?;
    let (base, exponent, format) = suffix(parts.suffix).ok_or(QuantityError::Suffix)?;
    if text == "0" {
        return Ok(Quantity { text: Some(text.into()), ..Quantity::ZERO });
    }
    if let Some(quantity) = exact(text, &parts, base, exponent, format)? {
        return Ok(quantity);
    }
    rounded(&parts, base, exponent, format)
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    let (negative, rest) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let rest = rest.trim_start_matches('0');
    if rest.is_empty() {
        return Ok(Parts { negative, whole: "0", fraction: "", suffix: "" });
    }
    let whole = digits(rest);
    let mut after = &rest[whole.len()..];
    let mut fraction = "";
    if let Some(rest) = after.strip_prefix('.') {
        fraction = digits(rest);
        after = &rest[fraction.len()..];
    }
    let letters = after.bytes().take_while(|c| b"eEinumkKMGTP".contains(c)).count();
    let number = after[letters..].strip_prefix(['-', '+']).unwrap_or(&after[letters..]);
    if digits(number).len() != number.len() {
        return Err(QuantityError::Format);
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(Parts { negative, whole, fraction, suffix: after })
}

/// Base, exponent and format of a suffix.
fn suffix(suffix: &str) -> Option<(u8, i32, Format)> {
    let decimal = |exponent| Some((10, exponent, Format::DecimalSi));
    let binary = |exponent| Some((2, exponent, Format::BinarySi));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let number: i32 = exponent.parse().ok()?;
            Some((10, number, Format::DecimalExponent))
        }
    }
}

/// The value without rounding, when it has few enough digits for that.
fn exact(text: &str, parts: &Parts<'_>, base: u8, exponent: i32, format: Format) -> Result<Option<Quantity>, QuantityError> {
    let length = |digits: &str| i64::try_from(digits.len()).unwrap_or(i64::MAX);
    let (precision, factor, scale) = if base == 10 {
        (EXACT_DIGITS - length(parts.whole).saturating_add(length(parts.fraction)), 1, exponent)
    } else if parts.fraction.is_empty() {
        (15 - length(parts.whole) - i64::from(exponent * 3 / 10) - 1, 1_i128 << exponent, 0)
    } else {
        return Ok(None);
    };
    let scale = scale.saturating_sub(i32::try_from(parts.fraction.len()).unwrap_or(i32::MAX));
    if precision < 0 || scale < NANO {
        return Ok(None);
    }
    let shifted = format!("{}{}", parts.whole, parts.fraction);
    let number: i128 = shifted.parse().map_err(|_| QuantityError::Numeric)?;
    let unscaled = if parts.negative { -number * factor } else { number * factor };
    let is_canonical = match format {
        Format::BinarySi => number & 7 != 0,
        _ => scale % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0'),
    };
    Ok(Some(Quantity { unscaled, scale, format, text: is_canonical.then(|| text.into()) }))
}

/// The value rounded up to billionths; binary values are capped at the largest `i64`.
fn rounded(parts: &Parts<'_>, base: u8, exponent: i32, mut format: Format) -> Result<Quantity, QuantityError> {
    let kept = &parts.fraction[..parts.fraction.len().min(FRACTION_KEPT)];
    let mut digits: Vec<u8> = parts.whole.bytes().chain(kept.bytes()).map(|c| c - b'0').collect();
    let mut point = i64::try_from(parts.whole.len()).map_err(|_| QuantityError::Numeric)?;
    if base == 10 {
        point += i64::from(exponent);
    } else {
        if parts.whole.len() > 20 {
            return Ok(capped(parts.negative));
        }
        for _ in 0..exponent {
            double(&mut digits, &mut point);
        }
    }
    let lost = parts.fraction.len() > kept.len();
    // Digits up to the ninth after the point count, what follows rounds up.
    let end = point + i64::from(-NANO);
    if digits.iter().all(|digit| *digit == 0) && !lost {
        return Ok(Quantity { format, ..Quantity::ZERO });
    }
    let wanted = usize::try_from(end.clamp(0, 64)).unwrap_or(0);
    let mut value: i128 = 0;
    for at in 0..wanted {
        let digit = digits.get(at).copied().unwrap_or(0);
        value = value.checked_mul(10).and_then(|value| value.checked_add(digit.into())).ok_or(QuantityError::Numeric)?;
    }
    if end > 64 {
        return Err(QuantityError::Numeric);
    }
    if lost || digits.iter().skip(wanted).any(|digit| *digit != 0) {
        value += 1;
    }
    let largest = i128::from(i64::MAX) * 1_000_000_000;
    if format == Format::BinarySi {
        if value > largest {
            return Ok(capped(parts.negative));
        }
        if value < 1_000_000_000 && value > 0 {
            format = Format::DecimalSi;
        }
    }
    Ok(Quantity { unscaled: if parts.negative { -value } else { value }, scale: NANO, format, text: None })
}

fn capped(negative: bool) -> Quantity {
    let largest = i64::MAX;
    Quantity::new(if negative { -largest } else { largest }, Format::BinarySi)
}

/// Doubles a decimal number; a new leading digit moves the point.
fn double(digits: &mut Vec<u8>, point: &mut i64) {
    let mut carry = 0;
    for digit in digits.iter_mut().rev() {
        let doubled = *digit * 2 + carry;
        (*digit, carry) = (doubled % 10, doubled / 10);
    }
    if carry > 0 {
        digits.insert(0, carry);
        *point += 1;
    }
}

fn digits(text: &str) -> &str {
    &text[..text.bytes().take_while(u8::is_ascii_digit).count()]
}
