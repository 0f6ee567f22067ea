//! Selectors: of pods by their labels as strings, of nodes by interned labels.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::interner::{Id, Interner};

type Labels = BTreeMap<String, String>;

/// Whether a label selector covers `labels`. No selector covers nothing; an empty one everything.
#[must_use]
pub fn covers(selector: Option<&LabelSelector>, labels: Option<&Labels>) -> bool {
    let Some(selector) = selector else { return false };
    let get = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    let exact = selector.match_labels.iter().flatten().all(|(key, value)| get(key) == Some(value));
    exact
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let value = get(&requirement.key);
            let among = |value: &str| requirement.values.iter().flatten().any(|known| known == value);
            match requirement.operator.as_str() {
                "In" => value.is_some_and(among),
                "NotIn" => !value.is_some_and(among),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// A node selector, compiled against the strings that nodes have said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTerms {
    /// One of them has to hold.
    terms: Vec<NodeTerm>,
}

/// Requirements that all have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTerm {
    requirements: Vec<Requirement>,
    names: Vec<(bool, Vec<Option<Id>>)>,
    /// A term without requirements selects nothing.
    empty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(Option<Id>, Vec<Id>),
    NotIn(Option<Id>, Vec<Id>),
    Exists(Option<Id>),
    DoesNotExist(Option<Id>),
    Greater(Option<Id>, i64),
    Less(Option<Id>, i64),
    Never,
}

impl NodeTerms {
    /// Compiles a node selector.
    #[must_use]
    pub fn new(selector: &NodeSelector, interner: &Interner) -> Self {
        Self { terms: selector.node_selector_terms.iter().map(|term| NodeTerm::new(term, interner)).collect() }
    }

    /// Whether a node with these labels and this name is selected.
    #[must_use]
    pub fn matches(&self, labels: &[(Id, Id)], name: Id, interner: &Interner) -> bool {
        self.terms.iter().any(|term| term.matches(labels, name, interner))
    }
}

impl NodeTerm {
    /// Compiles a term.
    #[must_use]
    pub fn new(term: &NodeSelectorTerm, interner: &Interner) -> Self {
        let requirements: Vec<Requirement> =
            term.match_expressions.iter().flatten().map(|requirement| Requirement::new(requirement, interner)).collect();
        let fields = term.match_fields.iter().flatten();
        let names: Vec<_> = fields
            .filter(|field| field.key == "metadata.name")
            .map(|field| {
                let values = field.values.iter().flatten().map(|value| interner.lookup(value)).collect();
                (field.operator == "In", values)
            })
            .collect();
        let empty = requirements.is_empty() && names.is_empty();
        Self { requirements, names, empty }
    }

    /// Compiles the short form, `nodeSelector`.
    #[must_use]
    pub fn of_map(map: &Labels, interner: &Interner) -> Self {
        let requirements = map
            .iter()
            .map(|(key, value)| Requirement::In(interner.lookup(key), interner.lookup(value).into_iter().collect()))
            .collect();
        Self { requirements, names: Vec::new(), empty: false }
    }

    /// Whether a node with these labels and this name is selected.
    #[must_use]
    pub fn matches(&self, labels: &[(Id, Id)], name: Id, interner: &Interner) -> bool {
        !self.empty
            && self.requirements.iter().all(|requirement| requirement.holds(labels, interner))
            && self.names.iter().all(|(among, names)| names.contains(&Some(name)) == *among)
    }
}

impl Requirement {
    fn new(requirement: &NodeSelectorRequirement, interner: &Interner) -> Self {
        let key = interner.lookup(&requirement.key);
        let values = requirement.values.as_deref().unwrap_or_default();
        let known = || values.iter().filter_map(|value| interner.lookup(value)).collect();
        let number = || values.first().and_then(|value| value.parse::<i64>().ok());
        match requirement.operator.as_str() {
            "In" => Self::In(key, known()),
            "NotIn" => Self::NotIn(key, known()),
            "Exists" => Self::Exists(key),
            "DoesNotExist" => Self::DoesNotExist(key),
            "Gt" => number().map_or(Self::Never, |number| Self::Greater(key, number)),
            "Lt" => number().map_or(Self::Never, |number| Self::Less(key, number)),
            _ => Self::Never,
        }
    }

    fn holds(&self, labels: &[(Id, Id)], interner: &Interner) -> bool {
        let value = |key: &Option<Id>| key.and_then(|key| value(labels, key));
        let number = |key| value(key).and_then(|value| interner.text(value).parse::<i64>().ok());
        match self {
            Self::In(key, values) => value(key).is_some_and(|value| values.contains(&value)),
            Self::NotIn(key, values) => !value(key).is_some_and(|value| values.contains(&value)),
            Self::Exists(key) => value(key).is_some(),
            Self::DoesNotExist(key) => value(key).is_none(),
            Self::Greater(key, bound) => number(key).is_some_and(|number| number > *bound),
            Self::Less(key, bound) => number(key).is_some_and(|number| number < *bound),
            Self::Never => false,
        }
    }
}

/// The value of a label in a sorted list.
#[must_use]
pub fn value(labels: &[(Id, Id)], key: Id) -> Option<Id> {
    labels.binary_search_by_key(&key, |(key, _)| *key).ok().map(|at| labels[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn node_requirements_hold_or_not() {
        //    key     operator        values         expected, on a node a=1, zone=x
        check("a",    "In",           &["1", "2"],   true);
        check("a",    "In",           &["2"],        false);
        check("b",    "In",           &["1"],        false);
        check("a",    "NotIn",        &["1"],        false);
        check("b",    "NotIn",        &["1"],        true);   // no label is not one of them
        check("a",    "Exists",       &[],           true);
        check("b",    "Exists",       &[],           false);
        check("b",    "DoesNotExist", &[],           true);
        check("a",    "Gt",           &["0"],        true);
        check("a",    "Gt",           &["1"],        false);
        check("zone", "Lt",           &["5"],        false);  // not a number
        check("a",    "What",         &["1"],        false);
        #[track_caller]
        fn check(key: &str, operator: &str, values: &[&str], expected: bool) {
            let mut interner = Interner::default();
            let mut labels = vec![(interner.intern("a"), interner.intern("1")), (interner.intern("zone"), interner.intern("x"))];
            labels.sort_unstable();
            let name = interner.intern("n1");
            let term = NodeSelectorTerm {
                match_expressions: Some(vec![NodeSelectorRequirement {
                    key: key.into(),
                    operator: operator.into(),
                    values: Some(values.iter().map(ToString::to_string).collect()),
                }]),
                ..NodeSelectorTerm::default()
            };
            assert_eq!(NodeTerm::new(&term, &interner).matches(&labels, name, &interner), expected);
        }
    }

    #[test]
    fn fields_select_by_name_and_empty_terms_select_nothing() {
        let mut interner = Interner::default();
        let name = interner.intern("n1");
        let field = |value: &str| NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".into(),
                operator: "In".into(),
                values: Some(vec![value.into()]),
            }]),
            ..NodeSelectorTerm::default()
        };
        assert!(NodeTerm::new(&field("n1"), &interner).matches(&[], name, &interner));
        assert!(!NodeTerm::new(&field("n2"), &interner).matches(&[], name, &interner));
        assert!(!NodeTerm::new(&NodeSelectorTerm::default(), &interner).matches(&[], name, &interner));
    }
}
