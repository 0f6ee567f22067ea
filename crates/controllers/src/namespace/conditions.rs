//! Why a namespace is still there: five conditions, all written at every look. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};

use crate::clock::whole_seconds;

/// What a look at the content found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) discovery_failures: Vec<String>,
    pub(super) content_failures: Vec<String>,
    /// Number of objects left by resource (`pods.` or `deployments.apps`).
    pub(super) remaining: BTreeMap<String, usize>,
    /// Number of objects by finalizer.
    pub(super) finalizers: BTreeMap<String, usize>,
    /// How long the slowest of them may take.
    pub(super) wait: Option<Duration>,
}

impl Findings {
    pub(super) fn is_something_left(&self) -> bool {
        !self.remaining.is_empty()
    }

    pub(super) fn failure(&self) -> Option<&str> {
        self.discovery_failures.first().or(self.content_failures.first()).map(String::as_str)
    }
}

/// The conditions after a look.
pub(super) fn update(namespace: &Namespace, findings: &Findings, now: Timestamp) -> Vec<NamespaceCondition> {
    let counted = |counts: &BTreeMap<String, usize>, what: &str| {
        let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {what} {count} resource instances")).collect();
        parts.join(", ")
    };
    let joined = |failures: &[String]| (!failures.is_empty()).then(|| failures.join(", "));
    let remaining = (!findings.remaining.is_empty())
        .then(|| format!("Some resources are remaining: {}", counted(&findings.remaining, "has")));
    let finalizers = (!findings.finalizers.is_empty())
        .then(|| format!("Some content in the namespace has finalizers remaining: {}", counted(&findings.finalizers, "in")));
    let looked = [
        (
            "NamespaceDeletionDiscoveryFailure",
            "DiscoveryFailed",
            joined(&findings.discovery_failures)
                .map(|text| format!("Discovery failed for some groups, {} failing: {text}", findings.discovery_failures.len())),
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "GroupVersionParsingFailed",
            None,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            "ContentDeletionFailed",
            joined(&findings.content_failures).map(|text| {
                format!("Failed to delete all resource types, {} remaining: {text}", findings.content_failures.len())
            }),
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        ("NamespaceContentRemaining", "SomeResourcesRemain", remaining, "ContentRemoved", "All content successfully removed"),
        (
            "NamespaceFinalizersRemaining",
            "SomeFinalizersRemain",
            finalizers,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    let mut conditions: Vec<NamespaceCondition> =
        namespace.status.iter().flat_map(|status| status.conditions.iter().flatten()).cloned().collect();
    for (kind, bad_reason, problem, good_reason, good) in looked {
        let (status, reason, message) = match problem {
            Some(text) => ("True", bad_reason, text),
            None => ("False", good_reason, good.to_owned()),
        };
        let new = NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(whole_seconds(now)),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            None => conditions.push(new),
            Some(old) if (&old.status, &old.reason, &old.message) == (&new.status, &new.reason, &new.message) => {}
            Some(old) => {
                let since =
                    if old.status == new.status { old.last_transition_time.clone() } else { new.last_transition_time.clone() };
                *old = NamespaceCondition { last_transition_time: since, ..new };
            }
        }
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::tests::at;

    #[test]
    fn conditions_say_what_is_left() {
        let findings = Findings {
            remaining: [("pods.".to_owned(), 2), ("things.example.com".to_owned(), 1)].into(),
            finalizers: [("example.com/wait".to_owned(), 1)].into(),
            ..Findings::default()
        };
        let conditions = update(&Namespace::default(), &findings, at(0));
        let find = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        let remaining = find("NamespaceContentRemaining");
        assert_eq!(remaining.status, "True");
        assert_eq!(
            remaining.message.as_deref(),
            Some("Some resources are remaining: pods. has 2 resource instances, things.example.com has 1 resource instances")
        );
        assert_eq!(
            find("NamespaceFinalizersRemaining").message.as_deref(),
            Some("Some content in the namespace has finalizers remaining: example.com/wait in 1 resource instances")
        );
        assert_eq!(find("NamespaceDeletionDiscoveryFailure").status, "False");
        assert!(Findings::default().failure().is_none());
    }
}
