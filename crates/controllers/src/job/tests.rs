use std::time::Duration;

use serde_json::{Value, json};

use crate::testing::World;

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn job(patch: Value) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work", "namespace": "default"},
        "spec": {"parallelism": 2, "completions": 3, "backoffLimit": 2, "selector": {"matchLabels": {"job": "work"}},
            "template": {"metadata": {"labels": {"job": "work"}}, "spec": {"containers": [{"name": "c"}], "restartPolicy": "Never"}}}});
    crate::pods::tests::merge(&mut job, &patch);
    job
}

/// Ends all running pods, and lets the controller react.
async fn end_pods(world: &World, phase: &str) -> usize {
    let mut ended = 0;
    for pod in world.api.list(PODS) {
        let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
        if pod["status"]["phase"].is_null() {
            ended += 1;
            let at = crate::clock::now_time();
            world.api.edit(&path, |pod| {
                pod["status"] = json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": i32::from(phase == "Failed"), "finishedAt": at}}}]});
            });
        }
    }
    world.settle().await;
    ended
}

fn status(world: &World) -> Value {
    world.api.get(&format!("{JOBS}/work")).unwrap()["status"].clone()
}

fn conditions(world: &World) -> Vec<String> {
    let text = |condition: &Value| format!("{}={}", condition["type"].as_str().unwrap(), condition["reason"].as_str().unwrap());
    status(world)["conditions"].as_array().into_iter().flatten().map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn pods_are_run_until_enough_have_succeeded() {
    let world = World::new(&[super::start]);
    world.api.create(JOBS, job(json!({})));
    world.settle().await;
    assert_eq!(status(&world)["active"], 2);
    assert_eq!(world.api.list(PODS)[0]["metadata"]["finalizers"], json!([super::FINALIZER]));
    assert_eq!(end_pods(&world, "Succeeded").await, 2);
    assert_eq!(status(&world)["succeeded"], 2);
    assert_eq!(end_pods(&world, "Succeeded").await, 1, "no more than is missing");
    assert_eq!(conditions(&world), ["SuccessCriteriaMet=CompletionsReached", "Complete=CompletionsReached"]);
    let status = status(&world);
    assert_eq!((&status["succeeded"], &status["active"], status["completionTime"].is_string()), (&json!(3), &Value::Null, true));
    assert!(world.api.list(PODS).iter().all(|pod| pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)));
    assert!(world.events().contains(&"Completed: Job completed".into()));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_more_and_more_slowly_up_to_the_limit() {
    let world = World::new(&[super::start]);
    world.api.create(JOBS, job(json!({"spec": {"parallelism": 1}})));
    world.settle().await;
    assert_eq!(end_pods(&world, "Failed").await, 1);
    assert_eq!(end_pods(&world, "Failed").await, 0, "the next one waits");
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(end_pods(&world, "Failed").await, 1);
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(end_pods(&world, "Failed").await, 0, "twice as long");
    world.pass(Duration::from_secs(11)).await;
    assert_eq!(end_pods(&world, "Failed").await, 1);
    assert_eq!(conditions(&world), ["FailureTarget=BackoffLimitExceeded", "Failed=BackoffLimitExceeded"]);
    assert_eq!(status(&world)["failed"], 3);
    world.pass(Duration::from_secs(3600)).await;
    assert_eq!(world.api.list(PODS).len(), 3);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_index_is_completed_once() {
    let world = World::new(&[super::start]);
    world.api.create(JOBS, job(json!({"spec": {"completionMode": "Indexed"}})));
    world.settle().await;
    let pod = &world.api.list(PODS)[1];
    assert_eq!(pod["spec"]["hostname"], "work-1");
    assert_eq!(pod["metadata"]["annotations"][super::INDEX], "1");
    assert_eq!(pod["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    end_pods(&world, "Succeeded").await;
    assert_eq!(status(&world)["completedIndexes"], "0,1");
    end_pods(&world, "Succeeded").await;
    assert_eq!(status(&world)["completedIndexes"], "0-2");
    assert_eq!(conditions(&world), ["SuccessCriteriaMet=CompletionsReached", "Complete=CompletionsReached"]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_is_suspended_and_resumed() {
    let world = World::new(&[super::start]);
    world.api.create(JOBS, job(json!({"spec": {"suspend": true}})));
    world.settle().await;
    assert!(world.api.list(PODS).is_empty());
    assert_eq!(conditions(&world), ["Suspended=JobSuspended"]);
    world.api.edit(&format!("{JOBS}/work"), |job| job["spec"]["suspend"] = json!(false));
    world.settle().await;
    assert_eq!(world.api.list(PODS).len(), 2);
    assert_eq!(conditions(&world), ["Suspended=JobResumed"]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_it() {
    let world = World::new(&[super::start]);
    world.api.create(JOBS, job(json!({"spec": {"activeDeadlineSeconds": 30}})));
    world.pass(Duration::from_secs(35)).await;
    assert_eq!(conditions(&world), ["FailureTarget=DeadlineExceeded", "Failed=DeadlineExceeded"]);
    assert!(world.api.list(PODS).is_empty());
    world.stop().await;
}
