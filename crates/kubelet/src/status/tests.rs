use corten_runtime::ContainerState;

use super::*;
use crate::plan::Probes;
use crate::test::{container, pod, sandbox};

fn notes() -> Notes {
    Notes {
        pod_ips: vec!["10.0.0.1".parse().expect("an address")],
        host_ips: vec!["192.0.2.1".parse().expect("an address")],
        sandbox_ready: true,
        runtime: "corten".to_owned(),
        ..Notes::default()
    }
}

/// `name:state` as in the tests of the plan.
fn seen(containers: &[&str]) -> Observed {
    let mut seen = Observed { sandboxes: vec![sandbox(0, true)], ..Observed::default() };
    for text in containers {
        let (name, state) = text.split_once(':').expect("name:state");
        let mut made = container(name, 0, ContainerState::Running);
        match state {
            "run" => {}
            "unready" => {
                seen.probes.insert(made.id.clone(), Probes { has_readiness: true, ..Probes::default() });
            }
            code => {
                made.state = ContainerState::Exited;
                made.exit_code = code.parse().expect("an exit code");
            }
        }
        seen.containers.push(made);
    }
    seen
}

#[test]
#[rustfmt::skip]
fn phases_are_upstreams() {
    const ONE: &str = "containers: [{name: a}]";
    const TWO: &str = "containers: [{name: a}, {name: b}]";
    const INIT: &str = "initContainers: [{name: i}], containers: [{name: a}]";
    const SIDE: &str = "initContainers: [{name: s, restartPolicy: Always}], containers: [{name: a}]";
    //    policy       spec  containers            stopped  phase
    check("Always",    ONE,  &[],                  false,   "Pending");
    check("Always",    ONE,  &["a:run"],           false,   "Running");
    check("Always",    TWO,  &["a:run"],           false,   "Pending");
    check("Always",    ONE,  &["a:1"],             false,   "Running");
    check("OnFailure", ONE,  &["a:0"],             false,   "Succeeded");
    check("OnFailure", ONE,  &["a:1"],             false,   "Running");
    check("Never",     ONE,  &["a:1"],             false,   "Failed");
    check("Never",     TWO,  &["a:1", "b:run"],    false,   "Running");
    check("Never",     TWO,  &["a:0", "b:0"],      false,   "Succeeded");
    check("Always",    INIT, &["i:run"],           false,   "Pending");
    check("Always",    INIT, &["i:1"],             false,   "Pending");
    check("Never",     INIT, &["i:1"],             false,   "Failed");
    check("Always",    INIT, &["i:0", "a:run"],    false,   "Running");
    check("Always",    SIDE, &["s:run"],           false,   "Pending");
    check("Always",    SIDE, &["s:run", "a:run"],  false,   "Running");
    check("Never",     SIDE, &["s:run", "a:0"],    false,   "Running");
    check("Never",     SIDE, &["s:137", "a:0"],    true,    "Succeeded");
    check("Always",    ONE,  &["a:143"],           true,    "Failed");
    check("Always",    ONE,  &["a:0"],             true,    "Succeeded");

    #[track_caller]
    fn check(policy: &str, spec: &str, containers: &[&str], stopped: bool, phase: &str) {
        let pod = pod(&format!("{{restartPolicy: {policy}, {spec}}}"));
        let notes = Notes { stopped, ..notes() };
        let status = generate(&pod, &seen(containers), &notes, &PodStatus::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(status.phase.as_deref(), Some(phase));
    }
}

fn condition(status: &PodStatus, kind: &str) -> String {
    let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == kind).expect("the condition");
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{} {} {}", condition.status, text(&condition.reason), text(&condition.message)).trim_end().to_owned()
}

#[test]
#[rustfmt::skip]
fn conditions_are_upstreams() {
    let spec = "{initContainers: [{name: i}], containers: [{name: a}, {name: b}]}";
    check(spec, &["i:run"], "Initialized", "False ContainersNotInitialized containers with incomplete status: [i]");
    check(spec, &["i:run"], "Ready", "False ContainersNotReady containers with unready status: [a b]");
    check(spec, &["i:0", "a:run", "b:unready"], "ContainersReady", "False ContainersNotReady containers with unready status: [b]");
    check(spec, &["i:0", "a:run", "b:run"], "Ready", "True");
    check(spec, &["i:0", "a:run", "b:run"], "Initialized", "True");
    check("{restartPolicy: Never, containers: [{name: a}]}", &["a:0"], "Ready", "False PodCompleted");
    check("{restartPolicy: Never, containers: [{name: a}]}", &["a:0"], "Initialized", "True PodCompleted");
    check("{restartPolicy: Never, containers: [{name: a}]}", &["a:1"], "Ready", "False PodFailed");
    check("{readinessGates: [{conditionType: x/y}], containers: [{name: a}]}", &["a:run"], "Ready",
          "False ReadinessGatesNotReady corresponding condition of pod readiness gate \"x/y\" does not exist.");
    check("{containers: [{name: a}]}", &["a:run"], "PodReadyToStartContainers", "True");

    #[track_caller]
    fn check(spec: &str, containers: &[&str], kind: &str, expected: &str) {
        let status = generate(&pod(spec), &seen(containers), &notes(), &PodStatus::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(condition(&status, kind), expected);
    }
}

#[test]
fn a_crash_waits_with_its_last_state() {
    let pod = pod("{containers: [{name: a, image: image}]}");
    let mut notes = notes();
    notes.waiting.insert("a".to_owned(), ("CrashLoopBackOff".to_owned(), "back-off".to_owned()));
    let status = generate(&pod, &seen(&["a:1"]), &notes, &PodStatus::default(), Timestamp::UNIX_EPOCH);
    let container = &status.container_statuses.expect("statuses")[0];
    let state = container.state.clone().expect("a state");
    assert_eq!(state.waiting.expect("waiting").reason.as_deref(), Some("CrashLoopBackOff"));
    let last = container.last_state.clone().and_then(|state| state.terminated).expect("a last state");
    assert_eq!((last.exit_code, last.reason.as_deref(), last.container_id.as_deref()), (1, Some("Error"), Some("corten://a-0")));
}

#[test]
fn the_previous_run_is_the_last_state_of_the_next() {
    let pod = pod("{containers: [{name: a, image: image}]}");
    let mut seen = seen(&["a:2"]);
    seen.containers.push(container("a", 1, ContainerState::Running));
    let status = generate(&pod, &seen, &notes(), &PodStatus::default(), Timestamp::UNIX_EPOCH);
    let first = status.container_statuses.clone().expect("statuses")[0].clone();
    assert_eq!((first.restart_count, first.ready, first.started), (1, true, Some(true)));
    assert_eq!(first.last_state.and_then(|state| state.terminated).map(|ended| ended.exit_code), Some(2));
    // The older container is collected: what was reported stays.
    seen.containers.remove(0);
    let later = generate(&pod, &seen, &notes(), &status, Timestamp::UNIX_EPOCH);
    let first = later.container_statuses.expect("statuses")[0].clone();
    assert_eq!(first.last_state.and_then(|state| state.terminated).map(|ended| ended.exit_code), Some(2));
}

#[test]
fn transition_times_move_with_the_status_only() {
    let pod = pod("{containers: [{name: a}]}");
    let early = generate(&pod, &seen(&["a:unready"]), &notes(), &PodStatus::default(), Timestamp::UNIX_EPOCH);
    let at = Timestamp::from_second(100).expect("in range");
    let late = generate(&pod, &seen(&["a:run"]), &notes(), &early, at);
    let time = |status: &PodStatus, kind: &str| {
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == kind).cloned();
        condition.and_then(|condition| condition.last_transition_time).expect("a time").0
    };
    assert_eq!(time(&late, "Initialized"), Timestamp::UNIX_EPOCH);
    assert_eq!(time(&late, "Ready"), at);
}
