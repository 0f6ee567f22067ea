//! STATUS, READY and RESTARTS of pods in every phase of their life.

use serde_json::{Value, json};

use super::row;

#[test]
#[rustfmt::skip]
fn status_says_what_matters_most() {
    let waiting = |name: &str, why: &str| json!({ "name": name, "state": { "waiting": { "reason": why } }, "restartCount": 2 });
    let running = |name: &str| json!({ "name": name, "ready": true, "restartCount": 0, "state": { "running": {} } });
    let ended = |name: &str, code: i64, why: &str| json!({ "name": name, "state": { "terminated": { "exitCode": code, "reason": why } } });
    //    init containers            containers                              phase        ready  status
    check(json!([]),                 json!([]),                              "Pending",   "0/1", "Pending");
    check(json!([]),                 json!([running("c")]),                  "Running",   "1/1", "Running");
    check(json!([]),                 json!([waiting("c", "CrashLoopBackOff")]), "Running", "0/1", "CrashLoopBackOff");
    check(json!([]),                 json!([ended("c", 0, "Completed")]),    "Succeeded", "0/1", "Completed");
    check(json!([]),                 json!([ended("c", 3, "")]),             "Failed",    "0/1", "ExitCode:3");
    check(json!([]),                 json!([ended("c", 0, "Completed"), ended("d", 1, "Error")]), "Running", "0/1", "Error");
    check(json!([]),                 json!([ended("c", 0, "Completed"), running("d")]), "Running", "1/1", "NotReady");
    check(json!([waiting("i", "PodInitializing")]), json!([]),               "Pending",   "0/1", "Init:0/1");
    check(json!([waiting("i", "ErrImagePull")]),    json!([]),               "Pending",   "0/1", "Init:ErrImagePull");
    check(json!([ended("i", 1, "Error")]),          json!([]),               "Pending",   "0/1", "Init:Error");
    check(json!([ended("i", 0, "Completed")]), json!([waiting("c", "PodInitializing")]), "Pending", "0/1", "PodInitializing");

    #[track_caller]
    fn check(init: Value, containers: Value, phase: &str, ready: &str, status: &str) {
        let inits: Vec<Value> = init.as_array().into_iter().flatten().map(|s| json!({ "name": s["name"] })).collect();
        let pod = json!({
            "metadata": { "name": "p", "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "containers": [{ "name": "c" }], "initContainers": inits },
            "status": { "phase": phase, "initContainerStatuses": init, "containerStatuses": containers },
        });
        let cells = row(&pod, "2026-01-01T00:00:10Z".parse().unwrap());
        assert_eq!((&cells[1], &cells[2]), (&json!(ready), &json!(status)));
    }
}

#[test]
fn a_pod_being_deleted_is_terminating_and_counts_its_restarts() {
    let pod = json!({
        "metadata": { "name": "p", "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:05Z" },
        "spec": { "containers": [{ "name": "c" }] },
        "status": { "phase": "Running", "containerStatuses": [{
            "name": "c", "restartCount": 3, "state": { "running": {} }, "ready": true,
            "lastState": { "terminated": { "finishedAt": "2026-01-01T00:00:03Z" } },
        }] },
    });
    let cells = row(&pod, "2026-01-01T00:00:10Z".parse().unwrap());
    assert_eq!(cells[2..5], [json!("Terminating"), json!("3 (7s ago)"), json!("10s")]);
}
