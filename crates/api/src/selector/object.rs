//! `metav1.LabelSelector`: the object form of label selectors.

use serde_json::Value;

use super::{LabelSelector, Operator, Requirement, SelectorError};
use crate::field::{Faults, Path, quoted};
use crate::names::{label_value, validate_label_key, validate_labels};

impl LabelSelector {
    /// A selector from its object form. An absent selector selects nothing, an empty one everything.
    ///
    /// # Errors
    ///
    /// [`SelectorError`] in upstream's words.
    pub fn from_object(object: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(object) = object.filter(|object| !object.is_null()) else {
            return Ok(Self::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in object["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in object["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!("{} is not a valid label selector operator", quoted(other))));
                }
            };
            let key = expression["key"].as_str().unwrap_or_default();
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(Into::into).collect();
            requirements.push(Requirement::new(key, operator, values)?);
        }
        Ok(Self::of(requirements))
    }

    /// A selector of exact labels (`spec.selector` of a Service); the labels are taken as they are.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirement = |(key, value): (&str, &str)| Requirement::exact(key, value);
        Self::of(labels.into_iter().map(requirement).collect())
    }
}

/// Faults of a label selector in object form. `allow_invalid_values` is for objects that were stored before values were
/// checked.
pub fn validate_label_selector(selector: &Value, allow_invalid_values: bool, path: &Path<'_>, faults: &mut Faults) {
    if let Some(labels) = selector["matchLabels"].as_object() {
        validate_labels(labels, &path.child("matchLabels"), faults);
    }
    let list = path.child("matchExpressions");
    for (at, expression) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        let path = list.index(at);
        let values = expression["values"].as_array().map_or(&[][..], Vec::as_slice);
        validate_operator(expression, values, &path, faults);
        validate_label_key(expression["key"].as_str().unwrap_or_default(), &path.child("key"), faults);
        if allow_invalid_values {
            continue;
        }
        let list = path.child("values");
        for (at, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            for fault in label_value(value) {
                faults.invalid_str(&list.index(at), value, &fault);
            }
        }
    }
}

/// Faults of one requirement of a field selector in object form.
pub fn validate_field_requirement(requirement: &Value, path: &Path<'_>, faults: &mut Faults) {
    if requirement["key"].as_str().unwrap_or_default().is_empty() {
        faults.required(&path.child("key"), "must be specified");
    }
    let values = requirement["values"].as_array().map_or(&[][..], Vec::as_slice);
    validate_operator(requirement, values, path, faults);
}

fn validate_operator(expression: &Value, values: &[Value], path: &Path<'_>, faults: &mut Faults) {
    match expression["operator"].as_str().unwrap_or_default() {
        "In" | "NotIn" => {
            if values.is_empty() {
                faults.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let fault = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                faults.forbidden(&path.child("values"), fault);
            }
        }
        other => faults.invalid_str(&path.child("operator"), other, "not a valid selector operator"),
    }
}
