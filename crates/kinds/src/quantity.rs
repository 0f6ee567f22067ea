//! Quantities as they are found in documents.

use std::fmt;

use corten_api::quantity as api;
use serde_json::Value;

/// An amount, with the comparisons that rules are made of.
#[derive(Clone, Debug)]
pub(crate) struct Quantity(api::Quantity);

impl Default for Quantity {
    fn default() -> Self {
        Self(api::Quantity::new(0, api::Format::DecimalSi))
    }
}

impl Quantity {
    /// The quantity in a document: a string, or a bare number.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => api::Quantity::parse(text).ok().map(Self),
            Value::Number(number) => api::Quantity::parse(&number.to_string()).ok().map(Self),
            _ => None,
        }
    }

    /// What is compared: how it is written does not count.
    pub(crate) fn amount(&self) -> &api::Quantity {
        &self.0
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.0.sign() < 0
    }

    pub(crate) fn is_positive(&self) -> bool {
        self.0.sign() > 0
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0.is_zero()
    }

    /// Whether it is a whole number, to a thousandth.
    pub(crate) fn is_whole(&self) -> bool {
        // What is too large to be counted in thousandths has no fraction that anybody asks for.
        let milli = self.0.milli_value();
        matches!(milli, i64::MIN | i64::MAX) || milli % 1000 == 0
    }

    /// The number, rounded up.
    pub(crate) fn value(&self) -> i64 {
        self.0.value()
    }

    /// Thousandths, rounded up.
    pub(crate) fn milli(&self) -> i64 {
        self.0.milli_value()
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        let mut sum = self.0.clone();
        sum.add(&other.0);
        Self(sum)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The value rounded up to thousandths, when that changes it.
pub(crate) fn rounded_up_to_milli(value: &Value) -> Option<Value> {
    let Quantity(quantity) = Quantity::of(value)?;
    let mut rounded = quantity.clone();
    rounded.round_up(-3);
    (rounded != quantity).then(|| Value::String(rounded.to_string()))
}
