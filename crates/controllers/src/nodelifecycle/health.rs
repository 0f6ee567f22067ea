//! What a node's conditions say, and how a zone is doing. Pure.

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::meta::label;

/// Conditions that the kubelet keeps up; they are unknown when it does not.
const KEPT_BY_KUBELET: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

fn conditions(node: &Node) -> impl Iterator<Item = &NodeCondition> {
    node.status.iter().flat_map(|status| status.conditions.iter().flatten())
}

/// The status of a condition.
pub(super) fn status<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    conditions(node).find(|condition| condition.type_ == kind).map(|condition| &*condition.status)
}

pub(super) fn ready_status(node: &Node) -> Option<&str> {
    status(node, "Ready")
}

/// All conditions without their times.
pub(super) fn statuses(node: &Node) -> Vec<(&str, &str)> {
    conditions(node).map(|condition| (&*condition.type_, &*condition.status)).collect()
}

/// When the kubelet last wrote the Ready condition.
pub(super) fn heartbeat(node: &Node) -> Option<&Time> {
    conditions(node).find(|condition| condition.type_ == "Ready")?.last_heartbeat_time.as_ref()
}

/// The node with all conditions of its kubelet unknown, and whether that is news.
pub(super) fn silenced(node: &Node, now: Time) -> (Node, bool) {
    let mut node = node.clone();
    let created = node.metadata.creation_timestamp.clone();
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut changed = false;
    for kind in KEPT_BY_KUBELET {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status == "Unknown" => continue,
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(now.clone());
            }
            None => conditions.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: created.clone(),
                last_transition_time: Some(now.clone()),
            }),
        }
        changed = true;
    }
    (node, changed)
}

/// Region and zone.
pub(super) fn zone_of(node: &Node) -> String {
    let part = |name: &str| label(&node.metadata, name).unwrap_or_default();
    format!("{}:\0:{}", part("topology.kubernetes.io/region"), part("topology.kubernetes.io/zone"))
}

/// How a zone is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZoneState {
    Normal,
    PartialDisruption,
    FullDisruption,
}

/// More than two, and at least 55 % (`--unhealthy-zone-threshold`), are a disruption.
pub(super) const fn zone_state(ready: usize, unready: usize) -> ZoneState {
    match (ready, unready) {
        (0, 1..) => ZoneState::FullDisruption,
        (_, 3..) if unready * 100 >= (ready + unready) * 55 => ZoneState::PartialDisruption,
        _ => ZoneState::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn zones() {
        assert_eq!(zone_state(0, 0), ZoneState::Normal);
        assert_eq!(zone_state(0, 1), ZoneState::FullDisruption);
        assert_eq!(zone_state(1, 2), ZoneState::Normal);            // two may be a coincidence
        assert_eq!(zone_state(2, 3), ZoneState::PartialDisruption);
        assert_eq!(zone_state(3, 3), ZoneState::Normal);            // 50 %
        assert_eq!(zone_state(9, 11), ZoneState::PartialDisruption); // 55 %
    }

    #[test]
    fn a_silent_node_is_unknown_in_all_it_reports() {
        let node: Node = serde_json::from_value(serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {}, "status": {"conditions": [
            {"type": "Ready", "status": "True"}, {"type": "MemoryPressure", "status": "Unknown"}, {"type": "NetworkUnavailable", "status": "False"}]}}))
        .unwrap();
        let (node, changed) = silenced(&node, Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(changed);
        let expected = [
            ("Ready", "Unknown"),
            ("MemoryPressure", "Unknown"),
            ("NetworkUnavailable", "False"),
            ("DiskPressure", "Unknown"),
            ("PIDPressure", "Unknown"),
        ];
        assert_eq!(statuses(&node), expected);
        assert!(!silenced(&node, Time(jiff::Timestamp::UNIX_EPOCH)).1);
    }
}
