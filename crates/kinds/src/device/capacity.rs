//! How much of a device's capacity one request may take, when several share the device (KEP-5075).

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::Value;

use crate::check;
use crate::doc::Read;
use crate::quantity::Quantity;

/// Most values that a policy may list.
const MAX_VALUES: usize = 10;

/// Faults of one entry of a device's `capacity`.
pub(super) fn entry(faults: &mut Faults, path: &Path<'_>, capacity: &Value, is_shared: bool) {
    let Some(policy) = capacity.opt("requestPolicy") else { return };
    let path = path.child("requestPolicy");
    if !is_shared {
        return faults.forbidden(&path, "allowMultipleAllocations must be true");
    }
    let (values, range) = (policy.list("validValues"), policy.opt("validRange"));
    if !values.is_empty() && range.is_some() {
        let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
        return faults.forbidden(&path, detail);
    }
    let whole = Quantity::of(&capacity["value"]).unwrap_or_default();
    let default = Quantity::of(&policy["default"]);
    let missing = |faults: &mut Faults, key: &str| {
        faults.required(&path.child("default"), &format!("required when {key} is defined"));
    };
    match (range, default) {
        (None, _) if values.is_empty() => {}
        (None, None) => missing(faults, "validValues"),
        (None, Some(default)) => listed(faults, &path.child("validValues"), values, &default, &whole),
        (Some(_), None) => missing(faults, "validRange"),
        (Some(range), Some(default)) => within(faults, &path.child("validRange"), range, &default, &whole),
    }
}

fn listed(faults: &mut Faults, path: &Path<'_>, values: &[Value], default: &Quantity, whole: &Quantity) {
    let values: Vec<Quantity> = values.iter().map(|value| Quantity::of(value).unwrap_or_default()).collect();
    for (i, pair) in values.windows(2).enumerate() {
        if pair[0].amount() > pair[1].amount() {
            faults.invalid_str(&path.index(i + 1), &pair[1].to_string(), "values must be sorted in ascending order");
        }
    }
    // The default is looked for only among values that are looked at.
    let mut found = false;
    if values.len() > MAX_VALUES {
        faults.too_many(path, values.len(), MAX_VALUES);
    } else {
        for (i, value) in values.iter().enumerate() {
            if value.amount() > whole.amount() {
                let detail = format!("option is larger than capacity value: {whole}");
                faults.invalid_str(&path.index(i), &value.to_string(), &detail);
            }
            found |= value.amount() == default.amount();
        }
        let mut seen = HashSet::new();
        for (i, value) in values.iter().enumerate() {
            if !seen.insert(value.value()) {
                check::duplicate(faults, &path.index(i), &value.value().to_string());
            }
        }
    }
    if !found {
        let detail = "default value is not valid according to the requestPolicy";
        faults.invalid_str(path, &default.to_string(), detail);
    }
}

fn within(faults: &mut Faults, path: &Path<'_>, range: &Value, default: &Quantity, whole: &Quantity) {
    let (low_at, high_at, step_at) = (path.child("min"), path.child("max"), path.child("step"));
    let Some(low) = Quantity::of(&range["min"]) else {
        return faults.required(&low_at, "required when validRange is defined");
    };
    let mut wrong = |path: &Path<'_>, shown: &Quantity, detail: String| faults.invalid_str(path, &shown.to_string(), &detail);
    if low.amount() > whole.amount() {
        wrong(&low_at, &low, format!("min is larger than capacity value: {whole}"));
    }
    if default.amount() < low.amount() {
        wrong(&low_at, default, format!("default is less than min: {low}"));
    }
    let high = Quantity::of(&range["max"]);
    if let Some(high) = &high {
        if low.amount() > high.amount() {
            wrong(&high_at, &low, format!("min is larger than max: {high}"));
        }
        if high.amount() > whole.amount() {
            wrong(&high_at, high, format!("max is larger than capacity value: {whole}"));
        }
        if default.amount() > high.amount() {
            wrong(&high_at, default, format!("default is more than max: {high}"));
        }
    }
    let Some(step) = Quantity::of(&range["step"]) else { return };
    let first = low.plus(&step);
    if first.amount() > whole.amount() {
        wrong(&step_at, &step, format!("one step {first} is larger than capacity value: {whole}"));
    }
    for value in [Some(default), high.as_ref()].into_iter().flatten() {
        // Upstream divides by a step of nothing and fails; nothing is a multiple of it here.
        let rest = value.value().wrapping_sub(low.value()).checked_rem(step.value());
        if rest != Some(0) {
            wrong(&step_at, value, format!("value is not a multiple of a given step ({step}) from ({low})"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn policies_fit_the_capacity() {
        check(json!({"default": "1", "validValues": ["1", "2"]}), &[]);
        check(json!({"default": "3", "validValues": ["2", "1"]}), &[
            ".validValues[1]: Invalid value: \"1\": values must be sorted in ascending order",
            ".validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy",
        ]);
        check(json!({"default": "9", "validValues": ["9"]}),
              &[".validValues[0]: Invalid value: \"9\": option is larger than capacity value: 8"]);
        check(json!({"validValues": ["1"]}), &[".default: Required value: required when validValues is defined"]);
        check(json!({"default": "2", "validRange": {"min": "2", "max": "6", "step": "2"}}), &[]);
        check(json!({"default": "3", "validRange": {"min": "2", "step": "2"}}),
              &[".validRange.step: Invalid value: \"3\": value is not a multiple of a given step (2) from (2)"]);
        check(json!({"default": "1", "validRange": {"min": "2", "max": "9"}}), &[
            ".validRange.min: Invalid value: \"1\": default is less than min: 2",
            ".validRange.max: Invalid value: \"9\": max is larger than capacity value: 8",
        ]);
        check(json!({"default": "1", "validRange": {}}), &[".validRange.min: Required value: required when validRange is defined"]);

        #[track_caller]
        fn check(policy: Value, expected: &[&str]) {
            let mut faults = Faults::default();
            entry(&mut faults, &Path::new("c"), &json!({"value": "8", "requestPolicy": policy}), true);
            let told = faults.0.iter().map(|fault| format!("{}: {}", fault.field, fault.message).replacen("c.requestPolicy", "", 1));
            assert_eq!(told.collect::<Vec<_>>(), expected);
        }
    }
}
