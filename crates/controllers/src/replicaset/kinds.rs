//! The two kinds.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    Pod, PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Replicas, Status};
use crate::clock::now_time;
use crate::meta::map;
use crate::selector;

const FAILURE: &str = "ReplicaFailure";

impl Replicas for ReplicaSet {
    const COMPONENT: &'static str = "replicaset-controller";

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn selector(&self) -> Option<LabelSelector> {
        self.spec.as_ref().map(|spec| spec.selector.clone())
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn min_ready_seconds(&self) -> Option<i32> {
        self.spec.as_ref()?.min_ready_seconds
    }

    fn covers(&self, pod: &Pod) -> bool {
        self.spec.as_ref().is_some_and(|spec| {
            !selector::is_empty(&spec.selector) && selector::selects(&spec.selector, map(&pod.metadata.labels))
        })
    }

    fn status(&self) -> Status {
        let Some(status) = &self.status else { return Status::default() };
        let failure =
            status.conditions.iter().flatten().find(|condition| condition.type_ == FAILURE && condition.status == "True");
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            // The server drops zero values, so none is zero.
            terminating: Some(status.terminating_replicas.unwrap_or(0)),
            observed_generation: status.observed_generation,
            failure: failure
                .map(|failure| (failure.reason.clone().unwrap_or_default(), failure.message.clone().unwrap_or_default())),
        }
    }

    fn with_status(&self, status: Status) -> Self {
        let mut conditions: Vec<_> = self.status.iter().flat_map(|status| status.conditions.iter().flatten()).cloned().collect();
        conditions.retain(|condition| condition.type_ != FAILURE);
        conditions.extend(status.failure.map(|(reason, message)| ReplicaSetCondition {
            type_: FAILURE.into(),
            status: "True".into(),
            reason: Some(reason),
            message: Some(message),
            last_transition_time: Some(now_time()),
        }));
        let status = ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: Some(status.fully_labeled),
            ready_replicas: Some(status.ready),
            available_replicas: Some(status.available),
            terminating_replicas: status.terminating,
            observed_generation: status.observed_generation,
            conditions: (!conditions.is_empty()).then_some(conditions),
        };
        Self { status: Some(status), ..self.clone() }
    }
}

impl Replicas for ReplicationController {
    const COMPONENT: &'static str = "replication-controller";

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn selector(&self) -> Option<LabelSelector> {
        let labels = self.spec.as_ref()?.selector.clone()?;
        Some(LabelSelector { match_labels: Some(labels), match_expressions: None })
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn min_ready_seconds(&self) -> Option<i32> {
        self.spec.as_ref()?.min_ready_seconds
    }

    fn covers(&self, pod: &Pod) -> bool {
        let labels =
            self.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|labels: &&BTreeMap<_, _>| !labels.is_empty());
        labels.is_some_and(|labels| selector::has_all(labels, map(&pod.metadata.labels)))
    }

    fn status(&self) -> Status {
        let Some(status) = &self.status else { return Status::default() };
        let failure =
            status.conditions.iter().flatten().find(|condition| condition.type_ == FAILURE && condition.status == "True");
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: Some(0),
            observed_generation: status.observed_generation,
            failure: failure
                .map(|failure| (failure.reason.clone().unwrap_or_default(), failure.message.clone().unwrap_or_default())),
        }
    }

    fn with_status(&self, status: Status) -> Self {
        let mut conditions: Vec<_> = self.status.iter().flat_map(|status| status.conditions.iter().flatten()).cloned().collect();
        conditions.retain(|condition| condition.type_ != FAILURE);
        conditions.extend(status.failure.map(|(reason, message)| ReplicationControllerCondition {
            type_: FAILURE.into(),
            status: "True".into(),
            reason: Some(reason),
            message: Some(message),
            last_transition_time: Some(now_time()),
        }));
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: Some(status.fully_labeled),
            ready_replicas: Some(status.ready),
            available_replicas: Some(status.available),
            observed_generation: status.observed_generation,
            conditions: (!conditions.is_empty()).then_some(conditions),
        };
        Self { status: Some(status), ..self.clone() }
    }
}
