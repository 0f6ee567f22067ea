//! What belongs to a number of a StatefulSet: the pod's name, its host name, its claims. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};

use crate::history::HASH_LABEL;
use crate::meta::{controller_reference, map, name, namespace};
use crate::pods::from_template;

pub(crate) fn pod_name(set: &StatefulSet, ordinal: u32) -> String {
    format!("{}-{ordinal}", name(&set.metadata))
}

/// The number of a pod, if its name says that it is of this set.
pub(crate) fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<u32> {
    let (parent, ordinal) = name(&pod.metadata).rsplit_once('-')?;
    (parent == name(&set.metadata)).then(|| ordinal.parse().ok()).flatten()
}

pub(crate) fn pod(set: &StatefulSet, template: &PodTemplateSpec, ordinal: u32, revision: &str) -> Pod {
    let mut pod = from_template(template, namespace(&set.metadata), "", controller_reference(set));
    let pod_name = pod_name(set, ordinal);
    pod.metadata.generate_name = Some(format!("{}-", name(&set.metadata)));
    pod.metadata.name = Some(pod_name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert("statefulset.kubernetes.io/pod-name".into(), pod_name.clone());
    labels.insert("apps.kubernetes.io/pod-index".into(), ordinal.to_string());
    labels.insert(HASH_LABEL.into(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(pod_name);
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    // A claim template takes the place of a volume of the same name.
    let claims = templates(set);
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| !claims.iter().any(|claim| name(&claim.metadata) == volume.name));
    for claim in claims {
        let source = PersistentVolumeClaimVolumeSource { claim_name: claim_name(set, claim, ordinal), read_only: Some(false) };
        volumes.push(Volume {
            name: name(&claim.metadata).to_owned(),
            persistent_volume_claim: Some(source),
            ..Volume::default()
        });
    }
    if volumes.is_empty() {
        spec.volumes = None;
    }
    pod
}

/// The claims of a pod. They stay when the pod goes.
pub(crate) fn claims(set: &StatefulSet, ordinal: u32) -> Vec<PersistentVolumeClaim> {
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace = set.metadata.namespace.clone();
        claim.status = None;
        let selector = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
        claim.metadata.labels.get_or_insert_default().extend(map(&selector).clone());
        claim
    };
    templates(set).iter().map(claim).collect()
}

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default()
}

fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: u32) -> String {
    format!("{}-{}-{ordinal}", name(&template.metadata), name(&set.metadata))
}
