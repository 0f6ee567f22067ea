use serde_json::{Value, json};

use super::*;
use crate::testing::World;

const CRONS: &str = "/apis/batch/v1/namespaces/default/cronjobs";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

fn cron(patch: Value) -> Value {
    let mut cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick", "namespace": "default"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": {"containers": []}}}}}});
    crate::pods::tests::merge(&mut cron, &patch);
    cron
}

fn end_jobs(world: &World, kind: &str) {
    for job in world.api.list(JOBS) {
        if job["status"].is_null() {
            let at = crate::clock::now_time();
            world.api.edit(&format!("{JOBS}/{}", job["metadata"]["name"].as_str().unwrap()), |job| {
                job["status"] =
                    json!({"startTime": at, "conditions": [{"type": kind, "status": "True", "lastTransitionTime": at}]});
            });
        }
    }
}

#[test]
#[rustfmt::skip]
fn plan_finds_the_newest_missed_time() {
    let minute = |n: i64| Timestamp::from_second(n * 60).unwrap();
    let hourly = Schedule::parse("0 * * * *").unwrap();
    let check = |last: Option<i64>, deadline: Option<u64>, now: i64, due: Option<i64>, missed: usize| {
        let plan = plan(&hourly, &TimeZone::UTC, minute(30), last.map(minute), deadline.map(Duration::from_secs), minute(now));
        assert_eq!((plan.due, plan.missed), (due.map(minute), missed));
        assert!(plan.next > Some(minute(now)));
    };
    //    last        deadline     now   due         missed
    check(None,       None,        59,   None,       0);
    check(None,       None,        60,   Some(60),   1);
    check(Some(60),   None,        61,   None,       0);
    check(Some(60),   None,        190,  Some(180),  2);
    check(Some(60),   Some(300),   190,  None,       0);  // ten minutes late is too late
    check(Some(60),   Some(900),   190,  Some(180),  1);
    check(Some(60),   None,        60_005, Some(60_000), 101);
}

#[tokio::test(start_paused = true)]
async fn a_job_every_minute_and_a_bounded_history() {
    let world = World::new(&[start]);
    world.api.create(CRONS, cron(json!({})));
    for _ in 0..6 {
        world.pass(Duration::from_secs(60)).await;
        end_jobs(&world, "Complete");
    }
    world.settle().await;
    assert_eq!(world.api.list(JOBS).len(), 3);
    let status = world.api.get(&format!("{CRONS}/tick")).unwrap()["status"].clone();
    assert!(status["lastScheduleTime"].is_string() && status["lastSuccessfulTime"].is_string() && status["active"].is_null());
    let events = world.events();
    assert_eq!(events.iter().filter(|event| event.starts_with("SuccessfulCreate: Created job tick-")).count(), 6);
    assert_eq!(events.iter().filter(|event| event.starts_with("SuccessfulDelete: Deleted job tick-")).count(), 3);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_as_asked() {
    for (policy, expected) in [("Allow", 3), ("Forbid", 1), ("Replace", 1)] {
        let world = World::new(&[start]);
        world.api.create(CRONS, cron(json!({"spec": {"concurrencyPolicy": policy}})));
        for _ in 0..3 {
            world.pass(Duration::from_secs(60)).await;
        }
        assert_eq!(world.api.list(JOBS).len(), expected, "{policy}");
        assert_eq!(world.api.get(&format!("{CRONS}/tick")).unwrap()["status"]["active"].as_array().unwrap().len(), expected);
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn suspended_means_nothing_is_started() {
    let world = World::new(&[start]);
    world.api.create(CRONS, cron(json!({"spec": {"suspend": true}})));
    world.pass(Duration::from_secs(600)).await;
    assert!(world.api.list(JOBS).is_empty());
    world.stop().await;
}
