//! What a Job's `podFailurePolicy` says about a failed pod. Pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::batch::v1::{
    PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::meta::{name, namespace};

/// What becomes of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts against the backoff limit.
    Count,
    /// It does not count.
    Ignore,
    /// Its index has failed for good.
    FailIndex,
    /// The whole job has failed, for this reason.
    FailJob(String),
}

/// The action of the first rule that matches.
pub(super) fn judge(job: &Job, pod: &Pod) -> Verdict {
    let rules = job.spec.iter().filter_map(|spec| spec.pod_failure_policy.as_ref()).flat_map(|policy| &policy.rules);
    for (n, rule) in rules.enumerate() {
        let Some(why) = matching(rule, pod) else { continue };
        return match &*rule.action {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{why} matching {} rule at index {n}", rule.action)),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn matching(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let place = format!("{}/{}", namespace(&pod.metadata), name(&pod.metadata));
    if let Some(requirement) = &rule.on_exit_codes {
        let (container, code) = exit_code(requirement, pod)?;
        return Some(format!("Container {container} for pod {place} failed with exit code {code}"));
    }
    let conditions = rule.on_pod_conditions.iter().flatten();
    let kind = conditions.into_iter().find_map(|pattern| condition(pattern, pod))?;
    Some(format!("Pod {place} has condition {kind}"))
}

fn exit_code(requirement: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<(String, i32)> {
    let status = pod.status.as_ref()?;
    let statuses = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let ended = |status: &ContainerStatus| {
        let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
        let concerned = requirement.container_name.as_ref().is_none_or(|name| *name == status.name);
        let listed = requirement.values.contains(&code);
        // A container that ended well has not failed, whatever is listed.
        let matches = code != 0 && concerned && (requirement.operator == "In") == listed;
        matches.then(|| (status.name.clone(), code))
    };
    statuses.into_iter().find_map(ended)
}

fn condition(pattern: &PodFailurePolicyOnPodConditionsPattern, pod: &Pod) -> Option<String> {
    let wanted = pattern.status.as_deref().unwrap_or("True");
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions
        .find(|condition| condition.type_ == pattern.type_ && condition.status == wanted)
        .map(|condition| condition.type_.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn the_first_matching_rule_decides() {
        let codes = |action: &str, operator: &str, values: &[i32]| json!({"action": action, "onExitCodes": {"operator": operator, "values": values}});
        let fail = "Container main for pod default/p failed with exit code 42 matching FailJob rule at index 1".to_owned();
        //    rules                                                                exit  expected
        check(json!([]),                                                           42,   Verdict::Count);
        check(json!([codes("Ignore", "In", &[1]), codes("FailJob", "In", &[42])]), 42,   Verdict::FailJob(fail));
        check(json!([codes("Ignore", "NotIn", &[1])]),                             42,   Verdict::Ignore);
        check(json!([codes("FailIndex", "In", &[42])]),                            42,   Verdict::FailIndex);
        check(json!([codes("Ignore", "NotIn", &[1])]),                             0,    Verdict::Count);
        check(json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]), 1, Verdict::Ignore);
        #[track_caller]
        fn check(rules: Value, exit: i32, expected: Verdict) {
            let job: Job = from_value(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, "spec": {"template": {}, "podFailurePolicy": {"rules": rules}}})).unwrap();
            let pod: Pod = from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
                "status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}], "containerStatuses": [
                    {"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": exit}}}]}})).unwrap();
            assert_eq!(judge(&job, &pod), expected);
        }
    }
}
