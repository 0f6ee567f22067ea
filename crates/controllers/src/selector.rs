//! Label selectors.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

type Labels = BTreeMap<String, String>;

/// Whether `selector` selects everything.
pub(crate) fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty) && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Whether `selector` selects an object with `labels`. An empty selector selects everything; one with an operator that is
/// not known selects nothing.
pub(crate) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    selector.match_labels.iter().flatten().all(|(name, value)| labels.get(name) == Some(value))
        && selector.match_expressions.iter().flatten().all(|requirement| holds(requirement, labels))
}

/// Whether `labels` has every pair of `wanted`.
pub(crate) fn has_all(wanted: &Labels, labels: &Labels) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

fn holds(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = |value: &String| requirement.values.iter().flatten().any(|listed| listed == value);
    match &*requirement.operator {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn operators() {
        //    operator        values        value        expected
        check("In",           &["a", "b"],  Some("a"),   true);
        check("In",           &["a", "b"],  Some("c"),   false);
        check("In",           &["a"],       None,        false);
        check("NotIn",        &["a"],       Some("a"),   false);
        check("NotIn",        &["a"],       None,        true);
        check("Exists",       &[],          Some(""),    true);
        check("Exists",       &[],          None,        false);
        check("DoesNotExist", &[],          None,        true);
        check("Unknown",      &[],          Some("a"),   false);
        #[track_caller]
        fn check(operator: &str, values: &[&str], value: Option<&str>, expected: bool) {
            let requirement = LabelSelectorRequirement {
                key: "app".into(),
                operator: operator.into(),
                values: Some(values.iter().map(|&value| value.into()).collect()),
            };
            let selector = LabelSelector { match_expressions: Some(vec![requirement]), match_labels: None };
            let labels = value.map(|value| ("app".to_owned(), value.to_owned())).into_iter().collect();
            assert_eq!(selects(&selector, &labels), expected);
        }
    }
}
