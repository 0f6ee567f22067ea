//! The mandatory and the suggested flow schemas and priority levels (KEP-1040), as two tables.

use serde_json::{Value, json};

use super::Wanted;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Name, nominal shares, lendable percent, and queues with hand size; without queues excess is rejected.
#[rustfmt::skip]
const LEVELS: [(&str, i32, i32, Option<(i32, i32)>); 7] = [
    ("catch-all",        5,  0, None),
    ("system",          30, 33, Some((64, 6))),
    ("node-high",       40, 25, Some((64, 6))),
    ("leader-election", 10,  0, Some((16, 4))),
    ("workload-high",   40, 50, Some((128, 6))),
    ("workload-low",   100, 90, Some((128, 6))),
    ("global-default",  20, 50, Some((128, 6))),
];

/// What the rules of a schema are about.
enum About {
    Everything,
    Probes,
    Leases,
    Nodes,
}

/// Name, level, precedence, distinguisher, subjects, what it is about.
#[rustfmt::skip]
const SCHEMAS: [(&str, &str, i32, &str, &[&str], About); 11] = [
    ("exempt",                       "exempt",          1,     "",            &["group:system:masters"],                                      About::Everything),
    ("probes",                       "exempt",          2,     "",            &["group:system:unauthenticated", "group:system:authenticated"], About::Probes),
    ("system-leader-election",       "leader-election", 100,   "ByUser",      &["user:system:kube-controller-manager", "user:system:kube-scheduler", "sa:*"], About::Leases),
    ("system-node-high",             "node-high",       400,   "ByUser",      &["group:system:nodes"],                                        About::Nodes),
    ("system-nodes",                 "system",          500,   "ByUser",      &["group:system:nodes"],                                        About::Everything),
    ("kube-controller-manager",      "workload-high",   800,   "ByNamespace", &["user:system:kube-controller-manager"],                       About::Everything),
    ("kube-scheduler",               "workload-high",   800,   "ByNamespace", &["user:system:kube-scheduler"],                                About::Everything),
    ("kube-system-service-accounts", "workload-high",   900,   "ByNamespace", &["sa:*"],                                                      About::Everything),
    ("service-accounts",             "workload-low",    9000,  "ByUser",      &["group:system:serviceaccounts"],                              About::Everything),
    ("global-default",               "global-default",  9900,  "ByUser",      &["group:system:unauthenticated", "group:system:authenticated"], About::Everything),
    ("catch-all",                    "catch-all",       10000, "ByUser",      &["group:system:unauthenticated", "group:system:authenticated"], About::Everything),
];

/// All of them.
pub(super) fn objects() -> Vec<Wanted> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let mut objects = vec![level("exempt", exempt)];
    for (name, shares, lendable, queues) in LEVELS {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand)) => {
                json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}})
            }
        };
        let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        objects.push(level(name, json!({"type": "Limited", "limited": limited})));
    }
    objects.extend(SCHEMAS.iter().map(|(name, level, precedence, distinguisher, subjects, about)| {
        let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
            "rules": [rules(subjects, about)]});
        if !distinguisher.is_empty() {
            spec["distinguisherMethod"] = json!({"type": distinguisher});
        }
        object("FlowSchema", "flowschemas", name, spec)
    }));
    objects
}

fn level(name: &str, spec: Value) -> Wanted {
    object("PriorityLevelConfiguration", "prioritylevelconfigurations", name, spec)
}

fn object(kind: &str, resource: &'static str, name: &str, spec: Value) -> Wanted {
    let metadata = json!({"name": name, "annotations": {AUTO_UPDATE: "true"}});
    let document = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec});
    Wanted::new(GROUP, resource, document)
}

fn rules(subjects: &[&str], about: &About) -> Value {
    let resources = |verbs: &[&str], group: &str, resources: &[&str], cluster: bool| {
        let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
        if cluster {
            rule["clusterScope"] = true.into();
        }
        rule
    };
    let mut rules = match about {
        About::Everything => json!({"resourceRules": [resources(&["*"], "*", &["*"], true)],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}),
        About::Probes => json!({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}),
        About::Leases => {
            json!({"resourceRules": [resources(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false)]})
        }
        About::Nodes => json!({"resourceRules": [resources(&["*"], "", &["nodes", "nodes/status"], true),
            resources(&["*"], "coordination.k8s.io", &["leases"], false)]}),
    };
    rules["subjects"] = subjects.iter().copied().map(subject).collect();
    rules
}

fn subject(word: &str) -> Value {
    match word.split_once(':').expect("a subject is KIND:NAME") {
        ("user", name) => json!({"kind": "User", "user": {"name": name}}),
        ("group", name) => json!({"kind": "Group", "group": {"name": name}}),
        (_, name) => json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}}),
    }
}
