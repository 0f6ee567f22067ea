//! `resource.Quantity`: amounts such as `500m`, `1.5Gi` or `1e3`, exactly as the reference implementation reads, computes and
//! writes them. A value is a whole number times a power of ten, so that nothing is lost; how it was written (decimal,
//! binary or with an exponent) is kept for writing it again.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

mod parse;

/// An amount of something.
#[derive(Clone, Debug)]
pub struct Quantity {
    /// `unscaled * 10^scale`
    unscaled: i128,
    scale: i32,
    format: Format,
    /// The text it was read from, where that is taken as canonical already.
    text: Option<Box<str>>,
}

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Powers of ten with a letter: `500m`, `1k`.
    #[default]
    DecimalSi,
    /// Powers of 1024: `1Gi`.
    BinarySi,
    /// Powers of ten as an exponent: `1e3`.
    DecimalExponent,
}

/// Why a text is no quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not shaped like a quantity.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number is none, or has more digits than we can hold.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

// === impl Quantity ===

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { unscaled: 0, scale: 0, format: Format::DecimalSi, text: None };

    /// Reads a quantity. White space around it is not allowed here; JSON decoding trims it.
    ///
    /// # Errors
    ///
    /// [`QuantityError`], whose text is what the reference API server answers.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse::quantity(text)
    }

    /// A whole number.
    #[must_use]
    pub fn new(value: i64, format: Format) -> Self {
        Self { unscaled: value.into(), scale: 0, format, text: None }
    }

    /// A number of thousandths.
    #[must_use]
    pub fn from_milli(value: i64, format: Format) -> Self {
        Self { unscaled: value.into(), scale: -3, format, text: None }
    }

    /// How it is written.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.unscaled == 0
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn sign(&self) -> i32 {
        match self.unscaled.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }
    }

    /// The value, rounded up (away from zero) to a whole number; the nearest `i64` when it is beyond that.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// The value in thousandths, rounded up.
    #[must_use]
    pub fn milli_value(&self) -> i64 {
        self.scaled(-3)
    }

    /// The value in units of `10^scale`, rounded up.
    #[must_use]
    pub fn scaled(&self, scale: i32) -> i64 {
        let (value, _) = self.at_scale(scale);
        i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
    }

    /// The value if it is a whole number that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self.at_scale(0) {
            (value, true) => i64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The nearest double.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an approximation is asked for")]
    pub fn to_f64(&self) -> f64 {
        self.unscaled as f64 * 10f64.powi(self.scale)
    }

    /// Compares with a whole number.
    #[must_use]
    pub fn cmp_i64(&self, other: i64) -> Ordering {
        compare((self.unscaled, self.scale), (other.into(), 0))
    }

    /// Adds; nothing takes the other's format.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i128::saturating_add);
    }

    /// Subtracts; nothing takes the other's format.
    pub fn sub(&mut self, other: &Self) {
        self.combine(other, i128::saturating_sub);
    }

    /// Multiplies.
    pub fn mul(&mut self, factor: i64) {
        self.text = None;
        self.unscaled = self.unscaled.saturating_mul(factor.into());
    }

    /// Turns the sign around.
    pub fn neg(&mut self) {
        self.text = None;
        self.unscaled = self.unscaled.saturating_neg();
    }

    /// Rounds up (away from zero) to a multiple of `10^scale`, as the defaults of core/v1 do with `-3`.
    pub fn round_up(&mut self, scale: i32) {
        if self.scale < scale {
            let (value, _) = self.at_scale(scale);
            *self = Self { unscaled: value, scale, format: self.format, text: None };
        }
    }

    fn combine(&mut self, other: &Self, op: fn(i128, i128) -> i128) {
        if self.is_zero() {
            self.format = other.format;
        }
        self.text = None;
        let scale = self.scale.min(other.scale);
        let (ours, theirs) = (self.at_scale(scale).0, other.at_scale(scale).0);
        (self.unscaled, self.scale) = (op(ours, theirs), scale);
    }

    /// The value in units of `10^scale` rounded away from zero, and whether it is exact. Saturates.
    fn at_scale(&self, scale: i32) -> (i128, bool) {
        let shift = i64::from(self.scale) - i64::from(scale);
        if self.unscaled == 0 || shift == 0 {
            return (self.unscaled, true);
        }
        let factor = u32::try_from(shift.unsigned_abs()).ok().and_then(|shift| 10_i128.checked_pow(shift));
        let sign = self.unscaled.signum();
        match (shift > 0, factor) {
            (true, Some(factor)) => (self.unscaled.saturating_mul(factor), true),
            (true, None) => (if sign < 0 { i128::MIN } else { i128::MAX }, false),
            (false, None) => (sign, false),
            (false, Some(factor)) => match (self.unscaled / factor, self.unscaled % factor) {
                (value, 0) => (value, true),
                (value, _) => (value + sign, false),
            },
        }
    }
}

/// The canonical form of a quantity in JSON: what the server writes after it has read `text`.
///
/// # Errors
///
/// As [`Quantity::parse`].
pub fn canonical(text: &str) -> Result<Cow<'_, str>, QuantityError> {
    let text = text.trim();
    let quantity = Quantity::parse(text)?;
    Ok(match &quantity.text {
        Some(same) if **same == *text => Cow::Borrowed(text),
        _ => Cow::Owned(quantity.to_string()),
    })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            return f.write_str(text);
        }
        if self.is_zero() {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi
            && (self.cmp_i64(-1024).is_le() || self.cmp_i64(1024).is_ge())
            && let (mut value, true) = self.at_scale(0)
        {
            let mut times = 0;
            while value % 1024 == 0 {
                value /= 1024;
                times += 1;
            }
            let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].get(times).unwrap_or(&"");
            return write!(f, "{value}{suffix}");
        }
        // Fractions and small numbers lose the binary form rather than precision.
        let (mut value, mut exponent) = (self.unscaled, i64::from(self.scale));
        while value % 10 == 0 {
            value /= 10;
            exponent += 1;
        }
        let shift = exponent.rem_euclid(3);
        value = value.saturating_mul(if shift == 0 {
            1
        } else if shift == 1 {
            10
        } else {
            100
        });
        exponent -= shift;
        write!(f, "{value}")?;
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { Ok(()) } else { write!(f, "e{exponent}") };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        f.write_str(suffix)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        compare((self.unscaled, self.scale), (other.unscaled, other.scale))
    }
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

/// Compares `a.0 * 10^a.1` with `b.0 * 10^b.1` without computing powers that do not fit.
fn compare(a: (i128, i32), b: (i128, i32)) -> Ordering {
    let (sign_a, sign_b) = (a.0.signum(), b.0.signum());
    if sign_a != sign_b || sign_a == 0 {
        return sign_a.cmp(&sign_b);
    }
    let digits = |n: i128| i64::from(n.unsigned_abs().ilog10());
    let (size_a, size_b) = (digits(a.0) + i64::from(a.1), digits(b.0) + i64::from(b.1));
    let by_size = |x: i64, y: i64| if sign_a > 0 { x.cmp(&y) } else { y.cmp(&x) };
    if size_a != size_b {
        return by_size(size_a, size_b);
    }
    // Of equal magnitude: the exponents differ by less than the digits we hold.
    let low = a.1.min(b.1);
    let (shift_a, shift_b) = (a.1.abs_diff(low), b.1.abs_diff(low));
    let shifted = |n: i128, shift: u32| 10_i128.checked_pow(shift).and_then(|factor| n.checked_mul(factor));
    match (shifted(a.0, shift_a), shifted(b.0, shift_b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (None, _) => by_size(1, 0),
        (_, None) => by_size(0, 1),
    }
}

#[cfg(test)]
mod tests;
