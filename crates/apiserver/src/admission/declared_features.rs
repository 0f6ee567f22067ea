//! NodeDeclaredFeatureValidator: what a change of a bound pod needs of its node is among what the node says it can
//! (KEP-5328). Features that only matter where a pod is placed are the scheduler's business.

use corten_api::field::quoted;
use serde_json::Value;

use super::tools::{done, items, text};
use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::reader::Reader;

pub(super) struct NodeDeclaredFeatures {
    pub(super) reader: Reader,
}

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    /// Only that of a change that raises the generation, which labels and annotations do not.
    fn reads_content(&self, _: &AdmissionRequest) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Update
            && request.group.is_empty()
            && request.resource == "pods"
            && matches!(request.subresource.as_str(), "" | "resize")
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        let (Some(pod), Some(old)) = (&request.object, &request.old) else { return done(Ok(())) };
        let node = text(pod, "/spec/nodeName");
        // Generations count changes of the specification.
        if node.is_empty() || pod["metadata"]["generation"] == old["metadata"]["generation"] {
            return done(Ok(()));
        }
        let needed = needed(old, pod);
        if needed.is_empty() {
            return done(Ok(()));
        }
        done(match self.reader.document("", "nodes", "", node) {
            None => Err(request.forbidden(&format!("node {} not found", quoted(node)))),
            Some(found) => match missing(&needed, &found) {
                missing if missing.is_empty() => Ok(()),
                missing => Err(request.forbidden(&format!(
                    "pod update requires features {} which are not available on node {}",
                    missing.join(", "),
                    quoted(node)
                ))),
            },
        })
    }
}

/// What a node must be able to do for this change, by name.
fn needed(old: &Value, new: &Value) -> Vec<&'static str> {
    let mut needed = Vec::new();
    if old["spec"]["resources"] != new["spec"]["resources"] {
        needed.push("InPlacePodLevelResourcesVerticalScaling");
    }
    // Sidecars go on like other containers do; whatever else starts before them has to be resized while the pod starts.
    let (before, after) = (items(&old["spec"]["initContainers"]), items(&new["spec"]["initContainers"]));
    let resized = |(old, new): (&Value, &Value)| old["restartPolicy"] != "Always" && old["resources"] != new["resources"];
    if before.zip(after).any(resized) {
        needed.push("InPlacePodVerticalScalingInitContainers");
    }
    needed
}

/// What of it the node does not say that it can.
fn missing<'n>(needed: &[&'n str], node: &Value) -> Vec<&'n str> {
    let declares = |name: &&str| items(&node["status"]["declaredFeatures"]).any(|declared| declared == *name);
    needed.iter().copied().filter(|name| !declares(name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_needs_what_its_node_declares() {
        let pod = |resources: Value, init: Value, sidecar: Value| {
            json!({"spec": {"resources": resources, "initContainers": [
                {"name": "i", "resources": init}, {"name": "s", "restartPolicy": "Always", "resources": sidecar},
            ]}})
        };
        let (none, one) = (json!({}), json!({"requests": {"cpu": "1"}}));
        let old = pod(none.clone(), none.clone(), none.clone());
        assert!(needed(&old, &pod(none.clone(), none.clone(), one.clone())).is_empty(), "a sidecar");
        let both = needed(&old, &pod(one.clone(), one, none));
        assert_eq!(both, ["InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers"]);
        let node = json!({"status": {"declaredFeatures": ["InPlacePodLevelResourcesVerticalScaling"]}});
        assert_eq!(missing(&both, &node), ["InPlacePodVerticalScalingInitContainers"]);
        assert_eq!(missing(&both, &json!({})), both);
    }
}
