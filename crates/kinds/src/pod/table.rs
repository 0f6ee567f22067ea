//! The row of a pod in a table. STATUS is the first thing about the pod that a person should know.

use serde_json::{Value, json};

use crate::doc::Read;
use crate::pod::aggregate;
use crate::table;

/// Restarts, and when the last one was.
#[derive(Default)]
struct Restarts<'a> {
    count: i64,
    last: &'a str,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: &'a Value) {
        self.count += status.int("restartCount");
        // Timestamps of one form sort as text.
        self.last = self.last.max(status["lastState"]["terminated"].text("finishedAt"));
    }
}

/// The cells of a pod's row.
pub(super) fn row(pod: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecars = spec.list("initContainers").iter().filter(|container| aggregate::is_sidecar(container)).count();
    let total = spec.list("containers").len() + sidecars;
    let mut reason = first_reason(status);
    let mut ready = 0;
    let mut restarts = Restarts::default();
    let mut sidecar_restarts = Restarts::default();
    let initializing = init_phase(spec, status, &mut reason, &mut ready, &mut restarts, &mut sidecar_restarts);
    if !initializing || has_condition(status, "Initialized") {
        restarts = sidecar_restarts;
        main_phase(status, &mut reason, &mut ready, &mut restarts);
    }
    if pod["metadata"].has("deletionTimestamp") {
        if status.text("reason") == "NodeLost" {
            reason = "Unknown".into();
        } else if !matches!(status.text("phase"), "Succeeded" | "Failed") {
            reason = "Terminating".into();
        }
    }
    let restarts = if restarts.count != 0 && !restarts.last.is_empty() {
        format!("{} ({} ago)", restarts.count, table::since(restarts.last, now))
    } else {
        restarts.count.to_string()
    };
    let ip = status.list("podIPs").first().map_or_else(|| status.text("podIP"), |first| first.text("ip"));
    vec![
        table::name(pod),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.into(),
        table::age(pod, now),
        table::or(ip, "<none>").into(),
        table::or(spec.text("nodeName"), "<none>").into(),
        table::or(status.text("nominatedNodeName"), "<none>").into(),
        readiness_gates(spec, status).into(),
    ]
}

/// What the table says about pods that are over.
pub(super) fn row_conditions(pod: &Value) -> Vec<Value> {
    let (reason, message) = match pod["status"].text("phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({ "type": "Completed", "status": "True", "reason": reason, "message": message })]
}

fn first_reason(status: &Value) -> String {
    let gated = status
        .list("conditions")
        .iter()
        .any(|condition| condition.text("type") == "PodScheduled" && condition.text("reason") == "SchedulingGated");
    if gated { "SchedulingGated".into() } else { table::or(status.text("reason"), status.text("phase")).into() }
}

fn has_condition(status: &Value, kind: &str) -> bool {
    status.list("conditions").iter().any(|condition| condition.text("type") == kind && condition.text("status") == "True")
}

/// `Signal:9` or `ExitCode:1`, for a container that ended without a reason.
fn exit(ended: &Value) -> String {
    match ended.int("signal") {
        0 => format!("ExitCode:{}", ended.int("exitCode")),
        signal => format!("Signal:{signal}"),
    }
}

/// Goes through init containers up to the first that is not done. Returns whether there is one.
fn init_phase<'a>(
    spec: &Value,
    status: &'a Value,
    reason: &mut String,
    ready: &mut usize,
    restarts: &mut Restarts<'a>,
    sidecar_restarts: &mut Restarts<'a>,
) -> bool {
    let containers = spec.list("initContainers");
    for (i, container) in status.list("initContainerStatuses").iter().enumerate() {
        let own = containers.iter().find(|have| have.text("name") == container.text("name"));
        let sidecar = own.is_some_and(aggregate::is_sidecar);
        restarts.add(container);
        if sidecar {
            sidecar_restarts.add(container);
        }
        let state = &container["state"];
        let waiting = state["waiting"].text("reason");
        match state.opt("terminated") {
            Some(ended) if ended.int("exitCode") == 0 => continue,
            _ if sidecar && container.flag("started") => {
                *ready += usize::from(container.flag("ready"));
                continue;
            }
            Some(ended) if ended.text("reason").is_empty() => *reason = format!("Init:{}", exit(ended)),
            Some(ended) => *reason = format!("Init:{}", ended.text("reason")),
            None if !waiting.is_empty() && waiting != "PodInitializing" => *reason = format!("Init:{waiting}"),
            None => *reason = format!("Init:{i}/{}", containers.len()),
        }
        return true;
    }
    false
}

fn main_phase<'a>(status: &'a Value, reason: &mut String, ready: &mut usize, restarts: &mut Restarts<'a>) {
    let mut running = false;
    // Why the first of those that failed did.
    let mut failure = None;
    for container in status.list("containerStatuses").iter().rev() {
        restarts.add(container);
        let state = &container["state"];
        let waiting = state["waiting"].text("reason");
        if !waiting.is_empty() {
            *reason = waiting.into();
        } else if let Some(ended) = state.opt("terminated") {
            let why = ended.text("reason");
            *reason = if why.is_empty() { exit(ended) } else { why.into() };
            if ended.int("exitCode") != 0 {
                failure = Some(reason.clone());
            }
        } else if container.flag("ready") && state.has("running") {
            running = true;
            *ready += 1;
        }
    }
    if reason == "Completed" {
        match failure {
            _ if running && has_condition(status, "Ready") => *reason = "Running".into(),
            Some(failure) => *reason = failure,
            None if running => *reason = "NotReady".into(),
            None => {}
        }
    }
}

fn readiness_gates(spec: &Value, status: &Value) -> String {
    let gates = spec.list("readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|gate| has_condition(status, gate.text("conditionType"))).count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests;
