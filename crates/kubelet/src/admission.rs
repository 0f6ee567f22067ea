//! Whether this node takes a pod that was bound to it: the scheduler may have been wrong, or not asked. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

use crate::eviction::Pressure;
use crate::pod::{PodExt, Qos};
use crate::preemption;
use crate::quantity::{self, Resources};

/// Sysctls that are safe for everyone on a node: namespaced, and without effect on others.
const SAFE_SYSCTLS: [&str; 13] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
];

/// The node as far as admission asks about it.
pub struct NodeView<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    pub taints: &'a [Taint],
    pub allocatable: &'a Resources,
    pub unsafe_sysctls: &'a [String],
    /// What is short.
    pub pressure: Pressure,
}

/// Why a pod is not taken: reason of its status and event, and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

/// Decides about `pod` beside the `active` ones. The answer names the pods that have to go for it: the cluster cannot do
/// without a critical one.
pub fn admit(pod: &Pod, node: &NodeView<'_>, active: &[Arc<Pod>]) -> Result<Vec<Arc<Pod>>, Rejection> {
    let reject = |reason: &str, message: String| Err(Rejection { reason: reason.to_owned(), message });
    let spec = pod.spec();
    if node.pressure.any() && !pod.is_critical() && !bears(pod, node.pressure) {
        return reject("Evicted", format!("The node had condition: {}. ", node.pressure.conditions()));
    }
    for sysctl in spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten()) {
        let name = sysctl.name.replace('/', ".");
        if !allowed(&name, node.unsafe_sysctls) {
            return reject("SysctlForbidden", format!("forbidden sysctl: {name:?} not allowlisted"));
        }
        if spec.host_network == Some(true) && name.starts_with("net.") {
            return reject("SysctlForbidden", format!("forbidden sysctl: {name:?} not allowed with host net enabled"));
        }
    }
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return reject("PodOSSelectorNodeLabelDoesNotMatch", message.to_owned());
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return reject("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS".to_owned());
    }
    let lacking = lacking(pod, node, active);
    let failure = predicate(pod, node, active).map(|(name, why)| (name.to_owned(), format!("Predicate {name} failed: {why}")));
    if pod.is_critical() {
        return match (failure, lacking.is_empty()) {
            (Some((reason, message)), _) => Err(Rejection { reason, message }),
            (None, true) => Ok(Vec::new()),
            (None, false) => preemption::choose(pod, &lacking, active).map_err(|why| Rejection {
                reason: "UnexpectedAdmissionError".to_owned(),
                message: format!("Unexpected error while attempting to recover from admission failure: {why}"),
            }),
        };
    }
    if let Some(first) = lacking.first() {
        return reject(&format!("OutOf{}", first.name), first.message());
    }
    failure.map_or(Ok(Vec::new()), |(reason, message)| Err(Rejection { reason, message }))
}

/// Whether a pod may come though something is short: one that asked for something, or bears it, when that is memory alone.
fn bears(pod: &Pod, pressure: Pressure) -> bool {
    const TAINT: &str = "node.kubernetes.io/memory-pressure";
    let taint = Taint { key: TAINT.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
    let only_memory = !pressure.disk && !pressure.pid;
    only_memory && (pod.qos() != Qos::BestEffort || tolerations.iter().any(|toleration| tolerates(toleration, &taint)))
}

/// A resource of which the node has too little for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub name: String,
    pub requested: i64,
    pub used: i64,
    pub capacity: i64,
}

impl Lack {
    fn message(&self) -> String {
        let Self { name, requested, used, capacity } = self;
        format!("Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}")
    }
}

/// What the node has too little of, in upstream's order.
fn lacking(pod: &Pod, node: &NodeView<'_>, active: &[Arc<Pod>]) -> Vec<Lack> {
    let used = i64::try_from(active.len()).unwrap_or(i64::MAX);
    let capacity = node.allocatable.get("pods").map_or(i64::MAX, quantity::value);
    let count = Lack { name: "pods".to_owned(), requested: 1, used, capacity };
    let mut lacking: Vec<Lack> = Some(count).filter(|count| count.used >= count.capacity).into_iter().collect();
    let mut taken: BTreeMap<String, i64> = BTreeMap::new();
    for other in active {
        for (name, amount) in other.requests() {
            *taken.entry(name).or_default() += amount;
        }
    }
    let requests = pod.requests();
    let first = ["cpu", "memory", "ephemeral-storage"];
    let others = requests.keys().map(String::as_str).filter(|name| !first.contains(name));
    for name in first.into_iter().chain(others) {
        let requested = requests.get(name).copied().unwrap_or(0);
        let used = taken.get(name).copied().unwrap_or(0);
        let capacity = quantity::amount(Some(node.allocatable), name);
        // What no node has of itself is the business of whoever offers it to the whole cluster.
        let elsewhere = capacity.is_none() && name.contains('/') && !name.contains("kubernetes.io/");
        let capacity = capacity.unwrap_or(0);
        if requested > 0 && !elsewhere && used + requested > capacity {
            lacking.push(Lack { name: name.to_owned(), requested, used, capacity });
        }
    }
    lacking
}

/// The first predicate besides resources that a pod fails, and why.
fn predicate(pod: &Pod, node: &NodeView<'_>, active: &[Arc<Pod>]) -> Option<(&'static str, &'static str)> {
    let spec = pod.spec();
    if !matches_node(pod, node) {
        return Some(("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    if spec.node_name.as_deref().is_some_and(|name| !name.is_empty() && name != node.name) {
        return Some(("NodeName", "node(s) didn't match the requested node name"));
    }
    let taken: Vec<_> = active.iter().flat_map(|other| ports(other)).collect();
    if ports(pod).iter().any(|port| taken.iter().any(|other| collide(port, other))) {
        return Some(("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let untolerated = |taint: &&Taint| taint.effect == "NoExecute" && !tolerations.iter().any(|t| tolerates(t, taint));
    if !pod.is_static() && node.taints.iter().any(|taint| untolerated(&taint)) {
        return Some(("TaintToleration", "node(s) had taints that the pod didn't tolerate"));
    }
    None
}

fn allowed(name: &str, patterns: &[String]) -> bool {
    SAFE_SYSCTLS.contains(&name)
        || patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(&prefix.replace('/', ".")),
            None => pattern.replace('/', ".") == name,
        })
}

/// Whether node selector and required node affinity fit the node.
pub fn matches_node(pod: &Pod, node: &NodeView<'_>) -> bool {
    let spec = pod.spec();
    let selector = spec.node_selector.iter().flatten().all(|(key, value)| node.labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selector && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| term_fits(term, node)))
}

fn term_fits(term: &NodeSelectorTerm, node: &NodeView<'_>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // A term without anything matches nothing.
    (!expressions.is_empty() || !fields.is_empty())
        && expressions
            .iter()
            .all(|requirement| requirement_fits(requirement, node.labels.get(&requirement.key).map(String::as_str)))
        && fields
            .iter()
            .all(|requirement| requirement_fits(requirement, (requirement.key == "metadata.name").then_some(node.name)))
}

fn requirement_fits(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|known| known == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let bound = number(values.first().map(String::as_str));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound).is_some_and(|(value, bound)| value > bound),
        "Lt" => number(value).zip(bound).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && ((key.is_empty() && exists) || key == taint.key)
        && (exists || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
}

fn ports(pod: &Pod) -> Vec<(String, String, i32)> {
    let sidecars = pod.init_containers().iter().filter(|container| crate::pod::is_sidecar(container));
    let ports = pod.spec().containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let host = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
        Some((ip, protocol, number))
    });
    host.collect()
}

fn collide(a: &(String, String, i32), b: &(String, String, i32)) -> bool {
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || a.0 == "0.0.0.0" || b.0 == "0.0.0.0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::pod;

    #[test]
    #[rustfmt::skip]
    fn a_pod_must_fit_the_node() {
        const PORT: &str = "containers: [{name: a, ports: [{containerPort: 80, hostPort: 80}]}]";
        const BIG: &str = "containers: [{name: a, resources: {requests: {cpu: 600m}}}]";
        check("", "", None);
        check("nodeSelector: {disk: ssd}", "", None);
        check("nodeSelector: {disk: hdd}", "", Some(("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")));
        check(BIG, "containers: [{name: a, resources: {requests: {cpu: 300m}}}]", None);
        check(BIG, BIG, Some(("OutOfcpu", "Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000")));
        check(PORT, PORT, Some(("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports")));
        check("securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}", "", Some(("SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted")));
        check("securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '1'}]}", "", None);
        check("securityContext: {sysctls: [{name: net.core.somaxconn, value: '1'}]}", "", None);
        check("os: {name: windows}", "", Some(("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")));
        check("affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [n1]}]}]}}}", "", None);

        #[track_caller]
        fn check(spec: &str, other: &str, expected: Option<(&str, &str)>) {
            let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
            let allocatable = Resources::from([("cpu".to_owned(), quantity::from_milli(1000)), ("pods".to_owned(), quantity::whole(3))]);
            let unsafe_sysctls = ["net.core.*".to_owned()];
            let pressure = Pressure::default();
            let node = NodeView { name: "n1", labels: &labels, taints: &[], allocatable: &allocatable, unsafe_sysctls: &unsafe_sysctls, pressure };
            let others = [Arc::new(pod(&format!("{{{other}}}")))];
            let got = admit(&pod(&format!("{{{spec}}}")), &node, &others);
            assert_eq!(got.err().map(|r| (r.reason, r.message)), expected.map(|(r, m)| (r.to_owned(), m.to_owned())));
        }
    }

    #[test]
    fn the_node_holds_so_many_pods() {
        let allocatable = Resources::from([("pods".to_owned(), quantity::whole(1))]);
        let labels = BTreeMap::new();
        let pressure = Pressure::default();
        let node =
            NodeView { name: "n1", labels: &labels, taints: &[], allocatable: &allocatable, unsafe_sysctls: &[], pressure };
        let rejected = admit(&pod("{}"), &node, &[Arc::new(pod("{}"))]).expect_err("full");
        assert_eq!(rejected.reason, "OutOfpods");
        // A critical pod takes the place of another.
        let critical = pod("{priority: 2000000000}");
        let gone = admit(&critical, &node, &[Arc::new(pod("{}"))]).expect("made room");
        assert_eq!(gone.len(), 1);
        let rejected = admit(&critical, &node, &[Arc::new(critical.clone())]).expect_err("full of critical pods");
        assert_eq!(rejected.reason, "UnexpectedAdmissionError");
    }

    #[test]
    #[rustfmt::skip]
    fn a_node_that_is_short_takes_few() {
        const ASKS: &str = "containers: [{name: a, resources: {requests: {memory: 1Mi}}}]";
        const BEARS: &str = "tolerations: [{key: node.kubernetes.io/memory-pressure, operator: Exists}]";
        let (memory, disk) = (Pressure { memory: true, ..Pressure::default() }, Pressure { disk: true, ..Pressure::default() });
        check("",                      memory, Some("The node had condition: [MemoryPressure]. "));
        check(ASKS,                    memory, None);
        check(BEARS,                   memory, None);
        check(ASKS,                    disk,   Some("The node had condition: [DiskPressure]. "));
        check("priority: 2000001000",  disk,   None);
        #[track_caller]
        fn check(spec: &str, pressure: Pressure, expected: Option<&str>) {
            let allocatable = Resources::from([("memory".to_owned(), quantity::bytes(1 << 30))]);
            let labels = BTreeMap::new();
            let node = NodeView { name: "n1", labels: &labels, taints: &[], allocatable: &allocatable, unsafe_sysctls: &[], pressure };
            let got = admit(&pod(&format!("{{{spec}}}")), &node, &[]).err();
            assert_eq!(got.map(|rejection| rejection.message).as_deref(), expected);
        }
    }
}
