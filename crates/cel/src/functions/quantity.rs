//! Quantities such as `1.5Gi`, kept as a whole number of billionths, the finest that Kubernetes keeps.

use super::Call;
use crate::value::{EvalError, Value};

const UNIT: i128 = 1_000_000_000;

/// A quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

impl Quantity {
    /// Reads a number with a suffix; what is finer than a billionth is rounded up.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let len = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 30 {
            return None;
        }
        let (binary, decimal) = scale(suffix)?;
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let places = i32::try_from(fraction.len()).ok()?;
        let scaled = digits.checked_mul(1_i128.checked_shl(binary)?)?;
        let power = 9 + decimal - places;
        let amount = match u32::try_from(power) {
            Ok(power) => scaled.checked_mul(10_i128.checked_pow(power)?)?,
            Err(_) => {
                let divisor = 10_i128.checked_pow(power.unsigned_abs())?;
                scaled / divisor + i128::from(scaled % divisor != 0)
            }
        };
        Some(Self(if negative { -amount } else { amount }))
    }

    fn whole(self) -> Option<i64> {
        if self.0 % UNIT == 0 { i64::try_from(self.0 / UNIT).ok() } else { None }
    }
}

/// The power of two and the power of ten that a suffix stands for.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (0, Some(exponent).filter(|exponent| exponent.abs() <= 30)?)
        }
    })
}

#[expect(clippy::cast_precision_loss, reason = "the function's name says that it is approximate")]
pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Call<'a> {
    use Value::{Bool, Int, Quantity as Q, String};
    let overflow = || EvalError::failed("quantity overflow");
    Some(Ok(match (function, args) {
        ("quantity", [String(text)]) => match Quantity::parse(text) {
            Some(quantity) => Q(quantity),
            None => {
                let form = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
                return Some(Err(EvalError::failed(form)));
            }
        },
        ("isQuantity", [String(text)]) => Bool(Quantity::parse(text).is_some()),
        ("sign", [Q(quantity)]) => Int(i64::try_from(quantity.0.signum()).unwrap_or_default()),
        ("isGreaterThan", [Q(left), Q(right)]) => Bool(left > right),
        ("isLessThan", [Q(left), Q(right)]) => Bool(left < right),
        ("compareTo", [Q(left), Q(right)]) => Int(left.cmp(right) as i64),
        ("asApproximateFloat", [Q(quantity)]) => Value::Double(quantity.0 as f64 / UNIT as f64),
        ("isInteger", [Q(quantity)]) => Bool(quantity.whole().is_some()),
        ("asInteger", [Q(quantity)]) => match quantity.whole() {
            Some(whole) => Int(whole),
            None => return Some(Err(EvalError::failed("cannot convert value to integer"))),
        },
        ("add" | "sub", [Q(left), right]) => {
            let right = match right {
                Q(right) => right.0,
                Int(right) => i128::from(*right) * UNIT,
                _ => return None,
            };
            let sum = if function == "add" { left.0.checked_add(right) } else { left.0.checked_sub(right) };
            return Some(sum.map(|sum| Q(Quantity(sum))).ok_or_else(overflow));
        }
        _ => return None,
    }))
}
