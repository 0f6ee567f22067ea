//! Arithmetic on resource quantities (`100m`, `1Gi`, `1e3`) as far as a node needs it. The API server has validated
//! them: text that is no quantity counts as zero.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A map of resource name to quantity, as it stands in requests, limits and capacities.
pub type Resources = BTreeMap<String, Quantity>;

/// The whole value, rounded up.
pub fn value(quantity: &Quantity) -> i64 {
    ceil_div(nanos(&quantity.0), 1_000_000_000)
}

/// The value in thousandths, rounded up.
pub fn milli(quantity: &Quantity) -> i64 {
    ceil_div(nanos(&quantity.0), 1_000_000)
}

/// The value divided by `divisor`, rounded up, as `resourceFieldRef` shows it.
pub fn divided(quantity: i64, divisor: i64) -> i64 {
    ceil_div(i128::from(quantity), i128::from(divisor.max(1)))
}

/// A whole number.
pub fn whole(value: i64) -> Quantity {
    Quantity(value.to_string())
}

/// Thousandths of a CPU: `2`, `500m`.
pub fn from_milli(milli: i64) -> Quantity {
    Quantity(if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") })
}

/// Bytes with the largest binary suffix that fits without a rest, as a canonical binary quantity is written.
pub fn bytes(value: i64) -> Quantity {
    let (mut rest, mut suffix) = (value, "");
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        if rest == 0 || rest % 1024 != 0 {
            break;
        }
        (rest, suffix) = (rest / 1024, next);
    }
    Quantity(format!("{rest}{suffix}"))
}

/// A number with the largest decimal suffix that fits without a rest.
pub fn decimal(value: i64) -> Quantity {
    let (mut rest, mut suffix) = (value, "");
    for next in ["k", "M", "G", "T", "P", "E"] {
        if rest == 0 || rest % 1000 != 0 {
            break;
        }
        (rest, suffix) = (rest / 1000, next);
    }
    Quantity(format!("{rest}{suffix}"))
}

/// The whole value of a text, rounded up; `None` when it is no quantity.
pub fn parse(text: &str) -> Option<i64> {
    let digits = text.bytes().any(|byte| byte.is_ascii_digit());
    let zero = text.bytes().all(|byte| !matches!(byte, b'1'..=b'9'));
    let value = value(&Quantity(text.to_owned()));
    // What is no quantity counts as zero, which only a text without other digits may mean.
    (digits && (value != 0 || zero)).then_some(value)
}

/// Bytes in Ki, the way upstream reports memory and storage capacities.
pub fn kibibytes(value: i64) -> Quantity {
    Quantity(format!("{}Ki", value / 1024))
}

/// The value of `name` in `resources`, in thousandths for `cpu`, else whole.
pub fn amount(resources: Option<&Resources>, name: &str) -> Option<i64> {
    let quantity = resources?.get(name)?;
    Some(if name == "cpu" { milli(quantity) } else { value(quantity) })
}

fn nanos(text: &str) -> i128 {
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let scale: i128 = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => 1_000_000_000,
        "k" => 1_000_000_000_000,
        "M" => 1_000_000_000_000_000,
        "G" => 1_000_000_000_000_000_000,
        "T" => 1_000_000_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000_000_000_000,
        "Ki" => 1_000_000_000 << 10,
        "Mi" => 1_000_000_000 << 20,
        "Gi" => 1_000_000_000 << 30,
        "Ti" => 1_000_000_000 << 40,
        "Pi" => 1_000_000_000 << 50,
        "Ei" => 1_000_000_000 << 60,
        exponent => match exponent.strip_prefix(['e', 'E']).and_then(|e| e.parse::<i32>().ok()) {
            Some(e @ 0..=18) => 1_000_000_000 * 10_i128.pow(e.unsigned_abs()),
            Some(e @ -9..0) => 10_i128.pow((9 + e).unsigned_abs()),
            _ => return 0,
        },
    };
    let negative = number.starts_with('-');
    let number = number.trim_start_matches(['-', '+']);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(0) };
    let mut total = whole.saturating_mul(scale);
    let mut unit = scale;
    for digit in fraction.bytes() {
        unit /= 10;
        total = total.saturating_add(i128::from(digit.saturating_sub(b'0')) * unit);
    }
    if negative { -total } else { total }
}

fn ceil_div(value: i128, by: i128) -> i64 {
    let quotient = value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0);
    quotient.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_and_written() {
        for (text, whole, thousandths) in [
            ("100m", 1, 100),
            ("1", 1, 1000),
            ("1.5", 2, 1500),
            ("1Ki", 1024, 1_024_000),
            ("0.5Gi", 536_870_912, 536_870_912_000),
            ("1e3", 1000, 1_000_000),
            ("100k", 100_000, 100_000_000),
            ("500u", 1, 1),
            ("", 0, 0),
        ] {
            let quantity = Quantity(text.to_owned());
            assert_eq!((value(&quantity), milli(&quantity)), (whole, thousandths), "{text}");
        }
        assert_eq!(bytes(128 << 20).0, "128Mi");
        assert_eq!(bytes(1000).0, "1000");
        assert_eq!(from_milli(1500).0, "1500m");
        assert_eq!(divided(100 << 20, 1 << 20), 100);
    }
}
