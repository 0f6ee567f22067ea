//! Small plugins for pods and nodes: default tolerations, the first taint of a node, priority, runtime class, topology labels.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use corten_api::field::quoted;
use corten_api::names;
use corten_api::quantity::{Format, Quantity};
use corten_api::status::{Cause, Status};

use super::quota::usage;
use super::tools::{done, items, list_mut, map_mut, members, text};
use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::cache::Entry;
use crate::reader::Reader;

/// DefaultTolerationSeconds: a pod stays five minutes on a node that is gone, unless it says otherwise.
pub(super) struct DefaultTolerationSeconds {
    pub(super) not_ready: i64,
    pub(super) unreachable: i64,
}

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    /// Pods got their tolerations when they were created; one that was not is seen at its next change of more than labels.
    fn reads_content(&self, _: &AdmissionRequest) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update) && request.is("", "pods")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        let Some(pod) = request.object.as_mut().filter(|pod| !pod["spec"].is_null()) else { return done(Ok(())) };
        let keys = [("node.kubernetes.io/not-ready", self.not_ready), ("node.kubernetes.io/unreachable", self.unreachable)];
        for (key, seconds) in keys {
            let tolerates = |toleration: &Value| {
                let (own, effect) = (text(toleration, "/key"), text(toleration, "/effect"));
                (own.is_empty() || own == key) && (effect.is_empty() || effect == "NoExecute")
            };
            if !items(&pod["spec"]["tolerations"]).any(tolerates) {
                let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
                list_mut(&mut pod["spec"], "tolerations").push(toleration);
            }
        }
        done(Ok(()))
    }
}

/// TaintNodesByCondition: a new node gets no pods before it is known to be ready.
pub(super) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is("", "nodes")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        const KEY: &str = "node.kubernetes.io/not-ready";
        if let Some(node) = &mut request.object {
            let tainted = items(&node["spec"]["taints"]).any(|taint| taint["key"] == KEY && taint["effect"] == "NoSchedule");
            if !tainted {
                map_mut(node, "spec");
                list_mut(&mut node["spec"], "taints").push(json!({"key": KEY, "effect": "NoSchedule"}));
            }
        }
        done(Ok(()))
    }
}

/// Priority: resolves a pod's priority class to the number and the preemption policy that the scheduler reads.
pub(super) struct Priority {
    pub(super) reader: Reader,
}

const SCHEDULING: &str = "scheduling.k8s.io";

impl Priority {
    fn class(&self, name: &str) -> Option<Value> {
        self.reader.document(SCHEDULING, "priorityclasses", "", name)
    }

    /// The class of pods that name none: of those marked as the default the one with the lowest value.
    fn default_class(&self) -> Option<Value> {
        let classes = self.reader.list(SCHEDULING, "priorityclasses", "");
        // A view of each first: every pod that is created asks, and mostly no class is the default.
        let is_default = |entry: &&Arc<Entry>| entry.parse::<ClassView>().is_ok_and(|class| class.global_default);
        let defaults = classes.iter().filter(is_default).map(|entry| entry.decode());
        defaults.min_by_key(|class| class["value"].as_i64().unwrap_or_default())
    }

    fn of_pod(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let Some(mut pod) = request.object.take() else { return Ok(()) };
        let outcome = match (request.operation, &request.old) {
            (Operation::Update, Some(old)) => {
                // Clients of before the fields existed leave them out; they never change.
                for field in ["priority", "preemptionPolicy"] {
                    if pod["spec"].get(field).is_none_or(Value::is_null)
                        && let Some(kept) = old["spec"].get(field).filter(|kept| !kept.is_null())
                    {
                        pod["spec"][field] = kept.clone();
                    }
                }
                Ok(())
            }
            _ => self.resolve(&mut pod),
        };
        request.object = Some(pod);
        outcome.map_err(|why| request.forbidden(&why))
    }

    fn resolve(&self, pod: &mut Value) -> Result<(), String> {
        let name = text(pod, "/spec/priorityClassName").to_owned();
        let class = match name.as_str() {
            "" => self.default_class(),
            name => Some(self.class(name).ok_or_else(|| format!("no PriorityClass with name {name} was found"))?),
        };
        let (value, policy) = match &class {
            Some(class) => {
                if name.is_empty() {
                    pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
                }
                (class["value"].as_i64().unwrap_or_default(), text(class, "/preemptionPolicy"))
            }
            None => (0, ""),
        };
        let policy = if policy.is_empty() { "PreemptLowerPriority" } else { policy };
        if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != value) {
            return Err(format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            ));
        }
        if let Some(given) = pod["spec"]["preemptionPolicy"].as_str().filter(|given| *given != policy) {
            return Err(format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
            ));
        }
        pod["spec"]["priority"] = value.into();
        pod["spec"]["preemptionPolicy"] = policy.into();
        Ok(())
    }

    fn check_class(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let Some(class) = request.object.as_ref().filter(|class| class["globalDefault"] == true) else { return Ok(()) };
        match self.default_class() {
            Some(other) if other["metadata"]["name"] != class["metadata"]["name"] => {
                let name = text(&other, "/metadata/name");
                Err(request.forbidden(&format!("PriorityClass {name} is already marked as default. Only one default can exist")))
            }
            _ => Ok(()),
        }
    }
}

/// What tells a default class from others.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClassView {
    #[serde(default)]
    global_default: bool,
}

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    /// An update keeps what the pod has.
    fn reads_content(&self, request: &AdmissionRequest) -> bool {
        request.resource != "pods"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        writes && (request.is("", "pods") || request.is(SCHEDULING, "priorityclasses"))
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        done(if request.resource == "pods" { self.of_pod(request) } else { Ok(()) })
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        done(if request.resource == "pods" { Ok(()) } else { self.check_class(request) })
    }
}

/// RuntimeClass: the overhead and the scheduling constraints of the class go into the pod.
pub(super) struct RuntimeClass {
    pub(super) reader: Reader,
}

impl RuntimeClass {
    /// The class that the pod names, if it names one.
    fn class(&self, request: &AdmissionRequest, pod: &Value) -> Result<Option<Value>, Status> {
        let Some(name) = pod["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
        if let Some(class) = self.reader.document("node.k8s.io", "runtimeclasses", "", name) {
            return Ok(Some(class));
        }
        // What can be no part of a path is not even asked for.
        if name.is_empty() {
            return Err(Status::failure(500, "", "resource name may not be empty"));
        }
        let wrong = names::name_is_path_segment(name, false);
        if !wrong.is_empty() {
            let why = format!("invalid resource name {}: [{}]", quoted(name), wrong.join(" "));
            return Err(Status::failure(500, "", why));
        }
        Err(request.forbidden(&format!("pod rejected: RuntimeClass {} not found", quoted(name))))
    }

    fn change(class: &Value, pod: &mut Value) -> Result<(), String> {
        let overhead = &class["overhead"]["podFixed"];
        if members(overhead).next().is_some() {
            let given = &pod["spec"]["overhead"];
            if members(given).next().is_some() && given != overhead {
                return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
            }
            pod["spec"]["overhead"] = overhead.clone();
        }
        for (key, value) in members(&class["scheduling"]["nodeSelector"]) {
            let selector = map_mut(&mut pod["spec"], "nodeSelector");
            match selector.get(key) {
                Some(given) if given != value => {
                    let (value, given) = (value.as_str().unwrap_or_default(), given.as_str().unwrap_or_default());
                    return Err(format!(
                        "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {given}"
                    ));
                }
                _ => drop(selector.insert(key.clone(), value.clone())),
            }
        }
        for toleration in items(&class["scheduling"]["tolerations"]) {
            if !items(&pod["spec"]["tolerations"]).any(|own| own == toleration) {
                list_mut(&mut pod["spec"], "tolerations").push(toleration.clone());
            }
        }
        Ok(())
    }

    fn check(class: Option<&Value>, pod: &Value) -> Result<(), String> {
        let given = &pod["spec"]["overhead"];
        match class.map(|class| &class["overhead"]).filter(|overhead| !overhead.is_null()) {
            Some(overhead) if given == &overhead["podFixed"] => Ok(()),
            Some(_) => Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned()),
            None if given.is_null() => Ok(()),
            None => Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned()),
        }
    }
}

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is("", "pods")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        let Some(mut pod) = request.object.take() else { return done(Ok(())) };
        let class = self.class(request, &pod);
        let outcome = class.and_then(|class| {
            let changed = class.as_ref().map_or(Ok(()), |class| Self::change(class, &mut pod));
            // An overhead of nothing is an overhead, but no longer there when the object is judged.
            let is_nothing = pod["spec"]["overhead"].as_object().is_some_and(serde_json::Map::is_empty);
            let judged = changed.and_then(|()| if is_nothing { Self::check(class.as_ref(), &pod) } else { Ok(()) });
            judged.map_err(|why| request.forbidden(&why))
        });
        request.object = Some(pod);
        done(outcome)
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        let Some(pod) = &request.object else { return done(Ok(())) };
        let class = self.class(request, pod);
        done(class.and_then(|class| Self::check(class.as_ref(), pod).map_err(|why| request.forbidden(&why))))
    }
}

/// PodTopologyLabels: a pod that is bound learns the zone and region of its node (KEP-4742).
pub(super) struct PodTopologyLabels {
    pub(super) reader: Reader,
}

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create
            && request.group.is_empty()
            && request.resource == "pods"
            && request.subresource == "binding"
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        let Some(binding) = &mut request.object else { return done(Ok(())) };
        if let Some(node) = self.reader.get("", "nodes", "", text(binding, "/target/name")) {
            for label in ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"] {
                if let Some(value) = node.label(label) {
                    map_mut(binding, "metadata");
                    map_mut(&mut binding["metadata"], "labels").insert(label.into(), value.into());
                }
            }
        }
        done(Ok(()))
    }
}

/// PodResize: what a bound pod asks for after a resize fits its node (KEP-1287).
pub(super) struct PodResize {
    pub(super) reader: Reader,
}

impl PodResize {
    fn check(request: &AdmissionRequest, pod: &Value, node: &Value) -> Result<(), Status> {
        let refuse = |why: &str, reason: &str| {
            let mut status = request.forbidden(why);
            let cause = Cause { reason: reason.to_owned(), ..Cause::default() };
            status.details.get_or_insert_default().causes.push(cause);
            Err(status)
        };
        let name = text(node, "/metadata/name");
        if let Some(os) = node["metadata"]["labels"]["kubernetes.io/os"].as_str().filter(|os| *os != "linux") {
            let why = format!("pod resize is only supported on linux nodes, node {} is {}", quoted(name), quoted(os));
            return refuse(&why, "UnsupportedPlatform");
        }
        let wanted = usage::total(pod, "requests");
        let there = |name: &str| {
            let amount = node["status"]["allocatable"][name].as_str();
            amount.and_then(|amount| Quantity::parse(amount).ok()).unwrap_or_else(|| Quantity::new(0, Format::DecimalSi))
        };
        let counts: [(&str, fn(&Quantity) -> i64); 2] = [("cpu", Quantity::milli_value), ("memory", Quantity::value)];
        let short = counts.iter().filter_map(|(name, count)| {
            let (wanted, there) = (wanted.get(*name)?, there(name));
            let counted = || format!("{name}, requested: {}, allocatable: {}", count(wanted), count(&there));
            (*wanted > there).then(counted)
        });
        let short: Vec<String> = short.collect();
        if short.is_empty() {
            return Ok(());
        }
        refuse(&format!("node didn't have enough allocatable resources: {}", short.join("; ")), "NodeCapacity")
    }
}

impl Plugin for PodResize {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Update
            && request.group.is_empty()
            && request.resource == "pods"
            && request.subresource == "resize"
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        let (Some(pod), Some(old)) = (&request.object, &request.old) else { return done(Ok(())) };
        let node = text(pod, "/spec/nodeName");
        if node.is_empty() || pod["metadata"]["generation"] == old["metadata"]["generation"] {
            return done(Ok(()));
        }
        done(match self.reader.document("", "nodes", "", node) {
            Some(node) => Self::check(request, pod, &node),
            None => Err(request.forbidden(&format!("node {} not found", quoted(node)))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who has an overhead has it from the class, and an empty one is one.
    #[test]
    fn overhead_is_that_of_the_class() {
        let with = json!({ "overhead": { "podFixed": { "cpu": "1" } } });
        let without = json!({});
        let check = |class: Option<&Value>, overhead: Value, fits: bool| {
            let pod = json!({ "spec": { "overhead": overhead } });
            assert_eq!(RuntimeClass::check(class, &pod).is_ok(), fits, "{pod}");
        };
        check(None, Value::Null, true);
        check(None, json!({}), false);
        check(None, json!({ "cpu": "1" }), false);
        check(Some(&without), Value::Null, true);
        check(Some(&without), json!({ "cpu": "1" }), false);
        check(Some(&with), json!({ "cpu": "1" }), true);
        check(Some(&with), json!({ "cpu": "2" }), false);
        check(Some(&with), Value::Null, false);
    }
}
