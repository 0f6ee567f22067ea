//! Sends a pod's status to the API: only what changed, one report at a time, the newest always last. Changes that come
//! while a report is under way are sent together in the next one.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Map, Value, json};

use super::Done;
use crate::backoff::Retry;
use crate::context::Context;
use crate::pod::PodExt;

/// What the API last took, and what is on its way.
pub struct Reporter {
    acknowledged: PodStatus,
    wanted: PodStatus,
    in_flight: bool,
    retry: Retry,
    /// The object is gone: nothing is reported any more.
    gone: bool,
}

/// How a report ended.
pub enum Outcome {
    Taken(Box<PodStatus>),
    Gone,
    Failed,
}

impl Reporter {
    pub fn new(known: PodStatus) -> Self {
        Self { wanted: known.clone(), acknowledged: known, in_flight: false, retry: Retry::default(), gone: false }
    }

    /// Whether the API has the newest status.
    pub fn is_current(&self) -> bool {
        self.gone || (!self.in_flight && self.acknowledged == self.wanted)
    }

    /// The report to send now, if any, and when to try again after a failure.
    pub fn next(
        &mut self,
        ctx: &Arc<Context>,
        pod: &Arc<Pod>,
        status: PodStatus,
        now: Timestamp,
    ) -> (Option<BoxFuture<'static, Done>>, Option<Timestamp>) {
        self.wanted = status;
        if self.in_flight || self.gone || self.acknowledged == self.wanted {
            return (None, None);
        }
        if !self.retry.due(now) {
            return (None, self.retry.at);
        }
        let Some(patch) = difference(&self.acknowledged, &self.wanted) else {
            self.acknowledged = self.wanted.clone();
            return (None, None);
        };
        self.in_flight = true;
        let (ctx, pod, status) = (ctx.clone(), pod.clone(), self.wanted.clone());
        let report = async move { Done::Reported(send(&ctx, &pod, patch, status).await) };
        (Some(Box::pin(report)), None)
    }

    pub fn finished(&mut self, outcome: Outcome, now: Timestamp) {
        self.in_flight = false;
        match outcome {
            Outcome::Taken(status) => {
                self.acknowledged = *status;
                self.retry.reset();
            }
            Outcome::Gone => self.gone = true,
            Outcome::Failed => self.retry.failed(Duration::from_millis(500), Duration::from_secs(30), now),
        }
    }
}

/// Lists of a status that a strategic patch merges, by the key of their elements.
const KEYED: [(&str, &str); 3] = [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];

/// Adds a merged list to `patch`: its elements, their order, and the deletion of those that went.
fn keyed(patch: &mut Map<String, Value>, name: &str, key: &str, old: Option<&Value>, new: &Value) {
    let elements = |list: Option<&Value>| list.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut list = elements(Some(new));
    let keys: Vec<Value> = list.iter().map(|element| json!({ key: element[key] })).collect();
    for gone in elements(old).iter().filter(|old| list.iter().all(|new| new[key] != old[key])).cloned().collect::<Vec<_>>() {
        list.push(json!({ "$patch": "delete", key: gone[key] }));
    }
    patch.insert(name.to_owned(), Value::Array(list));
    patch.insert(format!("$setElementOrder/{name}"), Value::Array(keys));
}

/// The fields of `status` that differ, `null` for those that went; `None` when nothing does.
fn difference(old: &PodStatus, new: &PodStatus) -> Option<Map<String, Value>> {
    let fields = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (old, new) = (fields(old), fields(new));
    let mut patch = Map::new();
    for (name, value) in &new {
        if old.get(name) == Some(value) {
            continue;
        }
        match KEYED.iter().find(|(list, _)| list == name) {
            Some((_, key)) => keyed(&mut patch, name, key, old.get(name), value),
            None => drop(patch.insert(name.clone(), value.clone())),
        }
    }
    // What this kubelet does not report (nominatedNodeName, resourceClaimStatuses) belongs to others.
    let others =
        ["nominatedNodeName", "resourceClaimStatuses", "extendedResourceClaimStatus", "nodeAllocatableResourceClaimStatuses"];
    for name in old.keys().filter(|name| !new.contains_key(*name) && !others.contains(&name.as_str())) {
        patch.insert(name.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(patch)
}

async fn send(ctx: &Context, pod: &Pod, status: Map<String, Value>, taken: PodStatus) -> Outcome {
    let uid = if pod.is_static() {
        match ctx.mirrors.uid(pod.namespace(), pod.name()) {
            Some(uid) => uid,
            // Reported when the mirror is there, which wakes the worker.
            None => return Outcome::Failed,
        }
    } else {
        pod.uid().to_owned()
    };
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), pod.namespace());
    // The UID is a precondition: a namesake must not get this status.
    let patch = json!({ "metadata": { "uid": uid }, "status": status });
    match pods.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(_) => Outcome::Taken(Box::new(taken)),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Outcome::Gone,
        Err(err) => {
            tracing::warn!(pod = %pod.described(), error = %crate::chain(&err), "report a pod's status");
            Outcome::Failed
        }
    }
}

/// Deletes the object of a pod of which nothing is left; whether it is gone.
pub async fn delete(ctx: &Context, pod: &Pod) -> bool {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), pod.namespace());
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(pod.uid().to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    match pods.delete(pod.name(), &params).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
        Err(err) => {
            tracing::warn!(pod = %pod.described(), error = %crate::chain(&err), "delete a pod");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_from_a_merged_list_is_deleted() {
        let status = |value: Value| serde_json::from_value::<PodStatus>(value).expect("a status");
        let old = status(
            json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "status": "True"}]}),
        );
        let new = status(
            json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}], "conditions": [{"type": "Ready", "status": "True"}]}),
        );
        let patch = difference(&old, &new).expect("a difference");
        let expected = json!({
            "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}],
            "$setElementOrder/podIPs": [{"ip": "10.0.0.2"}],
        });
        assert_eq!(Value::Object(patch), expected);
        assert_eq!(difference(&old, &old), None);
    }
}
