//! Whether a DaemonSet's pod belongs on a node, and how a pod is tied to its node. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};

use crate::meta::{annotation, map, name};

/// Taints that every daemon pod tolerates: it serves the node, whatever state the node is in.
const TOLERATED: [(&str, &str); 7] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ("node.kubernetes.io/network-unavailable", "NoSchedule"),
];

/// Whether a pod should be started on `node`, and whether one that runs there may stay.
pub(super) fn on_node(set: &DaemonSet, node: &Node) -> (bool, bool) {
    let template = set.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
    if template.node_name.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != name(&node.metadata))
        || !is_selected(&template, node)
    {
        return (false, false);
    }
    let tolerations = tolerations(&template);
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let untolerated: Vec<&Taint> =
        taints.filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint))).collect();
    let repels = |effects: &[&str]| untolerated.iter().any(|taint| effects.contains(&&*taint.effect));
    (!repels(&["NoSchedule", "NoExecute"]), !repels(&["NoExecute"]))
}

fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let toleration = |(key, effect): &(&str, &str)| Toleration {
        key: Some((*key).to_owned()),
        operator: Some("Exists".into()),
        effect: Some((*effect).to_owned()),
        ..Toleration::default()
    };
    let own = spec.tolerations.iter().flatten().cloned();
    // A pod in the host's network does not need the pod network to be up.
    let added = TOLERATED
        .iter()
        .filter(|(key, _)| *key != "node.kubernetes.io/network-unavailable" || spec.host_network == Some(true))
        .map(toleration);
    let mut all: Vec<Toleration> = own.collect();
    for toleration in added {
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let any = |text: &Option<String>, value: &str| text.as_deref().is_none_or(|text| text.is_empty() || text == value);
    let exists = toleration.operator.as_deref() == Some("Exists");
    any(&toleration.effect, &taint.effect)
        && any(&toleration.key, &taint.key)
        && (exists || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}

fn is_selected(spec: &PodSpec, node: &Node) -> bool {
    let labels = map(&node.metadata.labels);
    let selector = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = required.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selector && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| term_holds(term, node)))
}

fn term_holds(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions: Vec<_> = term.match_expressions.iter().flatten().collect();
    let fields: Vec<_> = term.match_fields.iter().flatten().collect();
    // An empty term selects nothing.
    (!expressions.is_empty() || !fields.is_empty())
        && expressions
            .iter()
            .all(|requirement| holds(requirement, map(&node.metadata.labels).get(&requirement.key).map(String::as_str)))
        && fields
            .iter()
            .all(|requirement| holds(requirement, Some(name(&node.metadata)).filter(|_| requirement.key == "metadata.name")))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|listed| listed == value);
    let compare = |greater: bool| {
        let (Some(value), Some(limit)) =
            (value.and_then(|value| value.parse::<i64>().ok()), values.first().and_then(|limit| limit.parse().ok()))
        else {
            return false;
        };
        if greater { value > limit } else { value < limit }
    };
    match &*requirement.operator {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(true),
        "Lt" => compare(false),
        _ => false,
    }
}

/// Whether a change of a node can change where pods belong.
pub(super) fn is_relevant(old: &Node, new: &Node) -> bool {
    let spec = |node: &Node| node.spec.as_ref().map(|spec| (spec.taints.clone(), spec.unschedulable));
    old.metadata.labels != new.metadata.labels || spec(old) != spec(new)
}

/// `pod` with what ties it to `node`: the scheduler will put it nowhere else.
pub(super) fn for_node(mut pod: Pod, node: &str) -> Pod {
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let field =
        NodeSelectorRequirement { key: "metadata.name".into(), operator: "In".into(), values: Some(vec![node.to_owned()]) };
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let required = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    let required = required.required_during_scheduling_ignored_during_execution.get_or_insert_with(NodeSelector::default);
    // The node was chosen by the other terms already, so the name alone remains.
    required.node_selector_terms = vec![NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None }];
    pod
}

/// The node that a pod is on, or is meant for.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let required =
        spec.affinity.as_ref()?.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
    names.next()?.values.as_ref()?.first().map(String::as_str)
}

/// The legacy generation of the template, kept in an annotation by the API server.
pub(super) fn template_generation(set: &DaemonSet) -> String {
    annotation(&set.metadata, "deprecated.daemonset.template.generation").unwrap_or("1").to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn which_nodes() {
        let taint = |key: &str, effect: &str| json!({"taints": [{"key": key, "effect": effect}]});
        let affinity = |operator: &str, values: &[&str]| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": operator, "values": values}]}]}}}});
        //    pod template                               node spec                                            expected
        check(json!({}),                                 json!({}),                                           (true, true));
        check(json!({"nodeName": "n2"}),                 json!({}),                                           (false, false));
        check(json!({"nodeSelector": {"disk": "ssd"}}),  json!({}),                                           (true, true));
        check(json!({"nodeSelector": {"disk": "hdd"}}),  json!({}),                                           (false, false));
        check(affinity("In", &["ssd"]),                  json!({}),                                           (true, true));
        check(affinity("NotIn", &["ssd"]),               json!({}),                                           (false, false));
        check(json!({}),                                 taint("gpu", "NoSchedule"),                          (false, true));
        check(json!({}),                                 taint("gpu", "NoExecute"),                           (false, false));
        check(json!({}),                                 taint("gpu", "PreferNoSchedule"),                    (true, true));
        check(json!({}),                                 taint("node.kubernetes.io/unschedulable", "NoSchedule"), (true, true));
        check(json!({}),                                 taint("node.kubernetes.io/network-unavailable", "NoSchedule"), (false, true));
        check(json!({"hostNetwork": true}),              taint("node.kubernetes.io/network-unavailable", "NoSchedule"), (true, true));
        check(json!({"tolerations": [{"operator": "Exists"}]}), taint("gpu", "NoExecute"),                    (true, true));
        #[track_caller]
        fn check(mut template: Value, node: Value, expected: (bool, bool)) {
            template["containers"] = json!([]);
            let set = from_value(json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {}, "spec": {"selector": {}, "template": {"spec": template}}})).unwrap();
            let node = from_value(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"disk": "ssd"}}, "spec": node})).unwrap();
            assert_eq!(on_node(&set, &node), expected);
        }
    }
}
