//! Node heartbeats in the Node's status. A kubelet tells every five minutes that its conditions still hold; such a write
//! need not reach the disk at once, like the Lease that says the same every ten seconds.

use serde_json::Value;

use super::write::Writing;

/// Whether nothing but the heartbeat times of a Node's conditions differs between `document` and `old`.
pub(super) fn is_all(writing: &Writing<'_>, document: &Value, old: &Value) -> bool {
    let stored = &writing.target.stored;
    let node = stored.group.is_empty() && stored.plural == "nodes" && writing.subresource == "status";
    node && without_times(document) == without_times(old)
}

fn without_times(node: &Value) -> Value {
    let mut node = node.clone();
    if let Some(meta) = node.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
        meta.remove("resourceVersion");
    }
    let conditions = node.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        condition.remove("lastHeartbeatTime");
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_of_conditions_are_a_heartbeat() {
        let node = |time: &str, status: &str, version: &str| {
            serde_json::json!({
                "metadata": {"name": "n", "resourceVersion": version, "managedFields": [{"time": time}]},
                "status": {"conditions": [{"type": "Ready", "status": status, "lastHeartbeatTime": time}]},
            })
        };
        let old = node("2026-01-01T00:00:00Z", "True", "1");
        assert_eq!(without_times(&node("2026-01-01T00:05:00Z", "True", "2")), without_times(&old));
        assert_ne!(without_times(&node("2026-01-01T00:05:00Z", "False", "2")), without_times(&old));
    }
}
