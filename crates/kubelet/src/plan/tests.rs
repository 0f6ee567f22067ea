use std::time::Duration;

use super::*;
use crate::test::{container, pod, sandbox};

const NOW: i64 = 1_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

/// `name:state`, where state is `run`, `new`, an exit code, or `run!`/`run?` for a failed liveness and an undecided
/// startup probe.
fn observed(containers: &[&str]) -> Observed {
    let mut seen = Observed { sandboxes: vec![sandbox(0, true)], ..Observed::default() };
    for text in containers {
        let (name, state) = text.split_once(':').expect("name:state");
        let mut made = container(name, 0, ContainerState::Running);
        match state {
            "run" => {}
            "run!" => {
                seen.probes.insert(made.id.clone(), Probes { liveness: Some(false), ..Probes::default() });
            }
            "run?" => {
                seen.probes.insert(made.id.clone(), Probes { has_startup: true, ..Probes::default() });
            }
            "new" => made.state = ContainerState::Created,
            code => {
                made.state = ContainerState::Exited;
                made.exit_code = code.parse().expect("an exit code");
                made.finished_at = NOW * 1_000_000_000;
            }
        }
        seen.containers.push(made);
    }
    seen
}

fn words(plan: &Plan) -> String {
    let mut words = Vec::new();
    words.extend(plan.sandbox.map(|attempt| format!("sandbox {attempt}")));
    words.extend(plan.start.iter().map(|start| format!("start {}#{}", start.name, start.attempt)));
    words.extend(plan.kill.iter().map(|kill| format!("kill {}", kill.name)));
    words.extend(plan.backing_off.keys().map(|name| format!("back-off {name}")));
    if plan.finished {
        words.push("finished".to_owned());
    }
    words.join(", ")
}

#[test]
#[rustfmt::skip]
fn containers_follow_order_and_policy() {
    const ONE: &str = "containers: [{name: a}]";
    const TWO: &str = "containers: [{name: a}, {name: b}]";
    const INIT: &str = "initContainers: [{name: i}, {name: j}], containers: [{name: a}]";
    const SIDE: &str = "initContainers: [{name: s, restartPolicy: Always}, {name: i}], containers: [{name: a}]";
    //    policy       containers  seen                             expected
    check("Always",    ONE,  &[],                                   "start a#0");
    check("Always",    TWO,  &["a:run"],                            "start b#0");
    check("Always",    TWO,  &["a:run", "b:run"],                   "");
    check("Always",    ONE,  &["a:0"],                              "start a#1");
    check("OnFailure", ONE,  &["a:1"],                              "start a#1");
    check("OnFailure", ONE,  &["a:0"],                              "finished");
    check("Never",     ONE,  &["a:1"],                              "finished");
    check("Never",     TWO,  &["a:0", "b:run"],                     "");
    check("Always",    ONE,  &["a:new"],                            "start a#0"); // created, never started
    check("Always",    ONE,  &["a:run!"],                           "kill a");
    // Init containers one after the other.
    check("Always",    INIT, &[],                                   "start i#0");
    check("Always",    INIT, &["i:run"],                            "");
    check("Always",    INIT, &["i:0"],                              "start j#0");
    check("Always",    INIT, &["i:1"],                              "start i#1");
    check("Never",     INIT, &["i:1"],                              "finished");
    check("Always",    INIT, &["i:0", "j:0"],                       "start a#0");
    check("Always",    INIT, &["j:0"],                              "start a#0"); // the first one was collected
    check("Always",    INIT, &["a:run"],                            "");          // initialized before
    // Sidecars start in order, stay, and do not keep the pod alive.
    check("Always",    SIDE, &[],                                   "start s#0");
    check("Always",    SIDE, &["s:run?"],                           "");
    check("Always",    SIDE, &["s:run"],                            "start i#0");
    check("Always",    SIDE, &["s:1", "i:run"],                     "start s#1");
    check("Always",    SIDE, &["s:run", "i:0"],                     "start a#0");
    check("Always",    SIDE, &["s:0", "i:0", "a:run"],              "start s#1");
    check("Never",     SIDE, &["s:run", "i:0", "a:0"],              "finished");
    check("Never",     SIDE, &["s:run!", "i:0", "a:run"],           "kill s");

    #[track_caller]
    fn check(policy: &str, spec: &str, seen: &[&str], expected: &str) {
        let pod = pod(&format!("{{restartPolicy: {policy}, {spec}}}"));
        assert_eq!(words(&plan(&pod, &observed(seen), &Backoff::default(), at(NOW))), expected);
    }
}

#[test]
fn a_dead_sandbox_is_made_again_unless_nothing_would_run() {
    for (policy, exit, expected) in [
        ("Always", "0", "sandbox 1"),
        ("OnFailure", "0", "finished"),
        ("OnFailure", "1", "sandbox 1"),
        ("Never", "1", "finished"),
    ] {
        let pod = pod(&format!("{{restartPolicy: {policy}, containers: [{{name: a}}]}}"));
        let mut seen = observed(&[&format!("a:{exit}")]);
        seen.sandboxes[0].ready = false;
        assert_eq!(words(&plan(&pod, &seen, &Backoff::default(), at(NOW))), expected, "{policy} {exit}");
    }
    let fresh = pod("{containers: [{name: a}]}");
    assert_eq!(words(&plan(&fresh, &Observed::default(), &Backoff::default(), at(NOW))), "sandbox 0");
}

#[test]
fn a_crash_waits_for_its_back_off() {
    let pod = pod("{containers: [{name: a}]}");
    let mut crashes = Backoff::default();
    crashes.next("a", at(NOW - 1), at(NOW - 1));
    let plan = plan(&pod, &observed(&["a:1"]), &crashes, at(NOW + 3));
    assert_eq!(words(&plan), "back-off a");
    assert_eq!(plan.again, Some(at(NOW) + Duration::from_secs(10)));
    assert_eq!(plan.backing_off["a"], "back-off 10s restarting failed container=a pod=web_default(u1)");
}

#[test]
fn what_is_under_way_is_not_begun_twice() {
    let pod = pod("{containers: [{name: a}, {name: b}]}");
    let mut seen = observed(&["b:run!"]);
    seen.starting.insert("a".to_owned());
    seen.killing.insert(seen.containers[0].id.clone());
    assert_eq!(words(&plan(&pod, &seen, &Backoff::default(), at(NOW))), "");
}

#[test]
fn a_new_image_replaces_the_container() {
    let pod = pod("{containers: [{name: a, image: two}]}");
    let mut seen = observed(&["a:run"]);
    seen.containers[0].annotations.insert(CONTAINER_HASH.to_owned(), "other".to_owned());
    let plan = plan(&pod, &seen, &Backoff::default(), at(NOW));
    assert_eq!(plan.kill[0].message, "Container a definition changed, will be restarted");
}

#[test]
fn restart_rules_come_before_the_policy() {
    let pod = pod("{restartPolicy: Never, containers: [{name: a, restartPolicy: Never, \
         restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]}]}");
    assert_eq!(words(&plan(&pod, &observed(&["a:42"]), &Backoff::default(), at(NOW))), "start a#1");
    assert_eq!(words(&plan(&pod, &observed(&["a:1"]), &Backoff::default(), at(NOW))), "finished");
}
