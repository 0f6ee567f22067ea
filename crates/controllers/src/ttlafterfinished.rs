//! Deletes finished Jobs when their TTL has passed: `plan` decides, `reconcile` acts.

use std::sync::Arc;
use std::time::Duration;

use corten_client::{Change, Client, Informer, Key, Queue, Requeue};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use crate::clock::{elapsed, now};
use crate::context::{Context, synced};
use crate::error::{During, Result, gone_is_fine};
use crate::job::finished_at;
use crate::meta::is_deleting;

struct Controller {
    client: Client,
    jobs: Informer<Job>,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Controller { client: ctx.client.clone(), jobs: ctx.informers.of() });
    controller.jobs.on_change({
        let queue = queue.clone();
        move |change: &Change<Job>| {
            if !change.is_deleted() {
                queue.add(Key::of(&**change.object()));
            }
        }
    });
    let synced = synced!(controller.jobs);
    ctx.run(
        "ttl-after-finished",
        5,
        queue,
        synced,
        controller,
        |controller, key| async move { controller.reconcile(&key).await },
    );
}

#[derive(Debug, PartialEq)]
enum Plan {
    Keep,
    Wait(Duration),
    Delete,
}

fn plan(job: &Job, now: Timestamp) -> Plan {
    let ttl = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished);
    let (Some(ttl), Some(finished), false) = (ttl, finished_at(job), is_deleting(&job.metadata)) else { return Plan::Keep };
    let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
    match ttl.saturating_sub(elapsed(finished, now)) {
        Duration::ZERO => Plan::Delete,
        left => Plan::Wait(left),
    }
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(job) = self.jobs.get(key) else { return Ok(Requeue::OnChange) };
        match plan(&job, now()) {
            Plan::Keep => Ok(Requeue::OnChange),
            Plan::Wait(left) => Ok(Requeue::After(left)),
            Plan::Delete => {
                // The cache may lag: the precondition spares a namesake and a job whose TTL was just raised.
                let this =
                    Preconditions { uid: job.metadata.uid.clone(), resource_version: job.metadata.resource_version.clone() };
                let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
                let deleted = api.delete(&key.name, &DeleteParams::foreground().preconditions(this)).await;
                gone_is_fine(deleted).during("delete job", key)?;
                Ok(Requeue::OnChange)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;
    use crate::pods::tests::at;

    #[test]
    #[rustfmt::skip]
    fn plan_follows_the_ttl() {
        let wait = |secs| Plan::Wait(Duration::from_secs(secs));
        //    ttl       finished   now  expected
        check(None,     Some(100), 500, Plan::Keep);   // nobody asked for it to expire
        check(Some(60), None,      500, Plan::Keep);   // still running
        check(Some(60), Some(100), 159, wait(1));
        check(Some(60), Some(100), 160, Plan::Delete); // the boundary belongs to deletion
        check(Some(0),  Some(100), 100, Plan::Delete);
        #[track_caller]
        fn check(ttl: Option<i32>, finished: Option<i64>, now: i64, expected: Plan) {
            let conditions: Vec<_> = finished.iter().map(|&second| json!({"type": "Complete", "status": "True", "lastTransitionTime": at(second).to_string()})).collect();
            let job: Job = from_value(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {},
                "spec": {"ttlSecondsAfterFinished": ttl, "template": {}}, "status": {"conditions": conditions}})).unwrap();
            assert_eq!(plan(&job, at(now)), expected);
        }
    }
}
