//! Which ReplicaSet is the new one, and the bookkeeping on the sets: revision, history, the Deployment's size.
//!
//! `kubectl rollout undo` works by these annotations: it finds the set of a revision and puts its template back.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::rollout::Wanted;
use crate::hash::short_hash;
use crate::meta::{annotation, controller_reference, map, name, set_annotation};

pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(crate) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(crate) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(crate) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const HASH_LABEL: &str = "pod-template-hash";
/// Annotations that are about one object, not about the template.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// Length of the revision history, in bytes.
const HISTORY_LENGTH: usize = 2000;

/// The oldest set with the Deployment's template.
pub(crate) fn find_new(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let wanted = &deployment.spec.as_ref()?.template;
    let same = sets.iter().filter(|set| {
        set.spec.as_ref().and_then(|spec| spec.template.as_ref()).is_some_and(|template| is_same(template, wanted))
    });
    // In rare cases there are several; the oldest stays the one.
    same.min_by(|a, b| age(a).cmp(&age(b))).cloned()
}

fn age(set: &ReplicaSet) -> (Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>, &str) {
    (set.metadata.creation_timestamp.as_ref(), name(&set.metadata))
}

/// Whether two templates differ in nothing but the hash label.
pub(crate) fn is_same(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a.spec == b.spec && without_hash(a) == without_hash(b)
}

fn without_hash(template: &PodTemplateSpec) -> ObjectMeta {
    let mut meta = template.metadata.clone().unwrap_or_default();
    // An absent map, an empty one, and a creation time that means "none" are the same thing.
    meta.creation_timestamp = None;
    if let Some(labels) = &mut meta.labels {
        labels.remove(HASH_LABEL);
    }
    meta.labels = meta.labels.filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
    meta
}

pub(crate) fn revision(set: &ReplicaSet) -> i64 {
    annotation(&set.metadata, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// The revision that the new set gets: one more than any old set has.
pub(crate) fn next_revision(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1
}

/// A set for the Deployment's template, without a size.
pub(crate) fn new_set(deployment: &Deployment, next_revision: i64, wanted: &Wanted) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = short_hash(&spec.template, collisions);
    let labelled = |labels: Option<BTreeMap<String, String>>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(HASH_LABEL.into(), hash.clone());
        Some(labels)
    };
    let mut template = spec.template;
    let meta = template.metadata.get_or_insert_default();
    meta.labels = labelled(meta.labels.take());
    let labels = meta.labels.clone();
    let mut selector = spec.selector;
    selector.match_labels = labelled(selector.match_labels);
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name(&deployment.metadata))),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(0),
            selector,
            template: Some(template),
        }),
        status: None,
    };
    annotate(deployment, &mut set.metadata, next_revision);
    annotate_size(&mut set.metadata, wanted);
    set
}

/// Gives the new set its revision and the Deployment's annotations. A set that had a revision before, and comes back by a
/// rollback, keeps it in its history. Returns whether anything changed.
pub(crate) fn annotate(deployment: &Deployment, meta: &mut ObjectMeta, next_revision: i64) -> bool {
    let before = map(&meta.annotations).clone();
    for (name, value) in map(&deployment.metadata.annotations) {
        if !NOT_COPIED.contains(&&**name) {
            set_annotation(meta, name, value.clone());
        }
    }
    let old = annotation(meta, REVISION).map(str::to_owned);
    let old_number: i64 = old.as_deref().and_then(|old| old.parse().ok()).unwrap_or(0);
    if old_number < next_revision {
        set_annotation(meta, REVISION, next_revision.to_string());
        if let Some(old) = old {
            let mut history: Vec<&str> =
                annotation(meta, REVISION_HISTORY).unwrap_or_default().split(',').filter(|one| !one.is_empty()).collect();
            history.push(&old);
            let length = |history: &[&str]| history.iter().map(|one| one.len() + 1).sum::<usize>();
            while length(&history) > HISTORY_LENGTH {
                history.remove(0);
            }
            let history = history.join(",");
            set_annotation(meta, REVISION_HISTORY, history);
        }
    }
    before != *map(&meta.annotations)
}

/// Writes the Deployment's size down, so that a later scaling can be told from a rollout. Returns whether it changed.
pub(crate) fn annotate_size(meta: &mut ObjectMeta, wanted: &Wanted) -> bool {
    let (desired, most) = (wanted.replicas.to_string(), wanted.most().to_string());
    if annotation(meta, DESIRED_REPLICAS) == Some(&desired) && annotation(meta, MAX_REPLICAS) == Some(&most) {
        return false;
    }
    set_annotation(meta, DESIRED_REPLICAS, desired);
    set_annotation(meta, MAX_REPLICAS, most);
    true
}

/// The old sets beyond the history limit that can go, oldest revision first.
pub(crate) fn expired<'a>(deployment: &Deployment, old: &'a [Arc<ReplicaSet>]) -> Vec<&'a Arc<ReplicaSet>> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else { return Vec::new() };
    let mut cleanable: Vec<_> = old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    let surplus = cleanable.len().saturating_sub(limit);
    cleanable.sort_by_key(|set| (revision(set), set.metadata.creation_timestamp.clone()));
    cleanable.truncate(surplus);
    cleanable.retain(|set| is_empty(set));
    cleanable
}

fn is_empty(set: &ReplicaSet) -> bool {
    let status = set.status.as_ref();
    super::rollout::replicas(set) == 0
        && status.is_none_or(|status| status.replicas == 0)
        && status.and_then(|status| status.observed_generation).unwrap_or(0) >= set.metadata.generation.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn deployment(image: &str) -> Deployment {
        from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default", "uid": "u", "annotations": {"team": "a", REVISION: "7",
                "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"replicas": 3, "revisionHistoryLimit": 1, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}
        }))
        .unwrap()
    }

    #[test]
    fn a_new_set_is_found_again_by_its_template() {
        let wanted = Wanted::of(&deployment("a"));
        let set = Arc::new(new_set(&deployment("a"), 3, &wanted));
        let hash = &set.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap()[HASH_LABEL];
        assert_eq!(set.metadata.name, Some(format!("web-{hash}")));
        assert_eq!(set.metadata.labels.as_ref().unwrap()[HASH_LABEL], *hash);
        let annotations: Vec<_> =
            set.metadata.annotations.as_ref().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            annotations,
            [format!("{DESIRED_REPLICAS}=3"), format!("{MAX_REPLICAS}=4"), format!("{REVISION}=3"), "team=a".into()]
        );
        assert_eq!(find_new(&deployment("a"), std::slice::from_ref(&set)), Some(set.clone()));
        assert_eq!(find_new(&deployment("b"), &[set]), None);
    }

    #[test]
    fn a_rollback_moves_the_old_revision_to_the_history() {
        let mut meta = ObjectMeta::default();
        assert!(annotate(&deployment("a"), &mut meta, 1));
        assert!(!annotate(&deployment("a"), &mut meta, 1));
        assert_eq!(annotation(&meta, REVISION_HISTORY), None);
        assert!(annotate(&deployment("a"), &mut meta, 3));
        assert!(annotate(&deployment("a"), &mut meta, 5));
        assert_eq!((annotation(&meta, REVISION), annotation(&meta, REVISION_HISTORY)), (Some("5"), Some("1,3")));
    }

    #[test]
    fn only_empty_sets_beyond_the_limit_expire() {
        let set = |name: &str, revision: u32, replicas: i32| -> Arc<ReplicaSet> {
            Arc::new(from_value(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": {"name": name, "annotations": {REVISION: revision.to_string()}}, "spec": {"replicas": replicas, "selector": {}}})).unwrap())
        };
        let old = [set("c", 3, 0), set("a", 1, 0), set("b", 2, 5), set("d", 4, 0)];
        let names: Vec<_> = expired(&deployment("a"), &old).iter().map(|set| name(&set.metadata)).collect();
        assert_eq!(names, ["a", "c"]);
    }
}
