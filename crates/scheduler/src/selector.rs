//! Selectors of pods and nodes, compiled once per pod from the typed API objects.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether `selector` selects `labels`. An absent selector selects nothing, an empty one everything.
pub fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return false };
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal && selector.match_expressions.iter().flatten().all(|requirement| holds(requirement, labels))
}

fn holds(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = || value.is_some_and(|v| requirement.values.iter().flatten().any(|wanted| wanted == v));
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

/// Whether a node with this name and these labels matches one term: all of its expressions and fields. An empty term
/// matches nothing (API: `NodeSelectorTerm`).
pub fn node_matches(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|r| node_requirement(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| node_requirement(r, (r.key == "metadata.name").then_some(name)))
}

fn node_requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|v| values.iter().any(|wanted| wanted == v));
    let compared =
        |decide: fn(i64, i64) -> bool| match (value.and_then(|v| v.parse().ok()), values.first().and_then(|v| v.parse().ok())) {
            (Some(own), Some(wanted)) => decide(own, wanted),
            _ => false,
        };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(|own, wanted| own > wanted),
        "Lt" => compared(|own, wanted| own < wanted),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn node_terms_follow_their_operators() {
        //     key     operator         values         labels              expected
        check("disk",  "In",            &["ssd"],      &[("disk", "ssd")], true);
        check("disk",  "In",            &["hdd"],      &[("disk", "ssd")], false);
        check("disk",  "NotIn",         &["hdd"],      &[],                true);  // absent is not in
        check("disk",  "Exists",        &[],           &[("disk", "")],    true);
        check("disk",  "DoesNotExist",  &[],           &[("disk", "")],    false);
        check("cores", "Gt",            &["4"],        &[("cores", "8")],  true);
        check("cores", "Lt",            &["4"],        &[("cores", "8")],  false);
        check("cores", "Gt",            &["4"],        &[("cores", "x")],  false); // no number
        #[track_caller]
        fn check(key: &str, operator: &str, values: &[&str], labels: &[(&str, &str)], expected: bool) {
            let term = serde_json::from_value(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})).unwrap();
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(node_matches(&term, "n", &labels), expected);
        }
    }

    #[test]
    fn an_empty_term_matches_no_node() {
        assert!(!node_matches(&NodeSelectorTerm::default(), "n", &Labels::new()));
    }
}
