//! Starts Jobs on a schedule.
//!
//! `schedule` finds the times, `plan` which one is due, `reconcile` creates the Job. A Job's name is made of the time it stands
//! for, so that one time is never started twice, whatever the caches say.

mod schedule;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use corten_client::{Change, Client, EventType, Informer, Key, Queue, Recorder, Requeue};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use crate::clock::{elapsed, now, whole_seconds};
use crate::context::{Context, synced};
use crate::error::{During, Result, gone_is_fine, is_namespace_terminating, message};
use crate::job::finished_at;
use crate::meta::{BY_CONTROLLER, by_controller, controller_key, controller_reference, is_deleting, name, reference, uid};
use schedule::Schedule;

/// More missed times than this are not looked at one by one; upstream says so in an event.
const MANY_MISSED: usize = 100;

struct CronJobs {
    client: Client,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    recorder: Recorder,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(CronJobs {
        client: ctx.client.clone(),
        crons: ctx.informers.of(),
        jobs: ctx.informers.of(),
        recorder: ctx.recorder("cronjob-controller"),
    });
    controller.jobs.index(BY_CONTROLLER, by_controller);
    controller.crons.on_change({
        let queue = queue.clone();
        move |change: &Change<CronJob>| queue.add(Key::of(&**change.object()))
    });
    controller.jobs.on_change({
        let queue = queue.clone();
        move |change: &Change<Job>| {
            if let Some(owner) = controller_key(&change.object().metadata, "CronJob") {
                queue.add(owner);
            }
        }
    });
    let synced = synced!(controller.crons, controller.jobs);
    ctx.run("cronjob", 5, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

/// Which time is due, and when to come back.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// The newest time that has passed and was not started.
    due: Option<Timestamp>,
    /// How many were missed up to it.
    missed: usize,
    next: Option<Timestamp>,
}

/// `last` is the time that was started last.
fn plan(
    schedule: &Schedule,
    zone: &TimeZone,
    created: Timestamp,
    last: Option<Timestamp>,
    deadline: Option<Duration>,
    now: Timestamp,
) -> Plan {
    let mut from = last.unwrap_or(created);
    if let Some(deadline) = deadline {
        // What is too late is not looked at.
        from = from.max(now - deadline);
    }
    let mut plan = Plan { next: schedule.after(now, zone), ..Plan::default() };
    while let Some(time) = schedule.after(plan.due.unwrap_or(from), zone) {
        if time > now {
            break;
        }
        plan.due = Some(time);
        plan.missed += 1;
        if plan.missed > MANY_MISSED {
            // The last one before now, found from a little before now instead of by counting through years.
            let mut step = now - Duration::from_secs(3600);
            while step > from && schedule.after(step, zone).is_none_or(|time| time > now) {
                step -= elapsed(step, now) * 2;
            }
            while let Some(time) = schedule.after(step, zone).filter(|time| *time <= now) {
                plan.due = Some(time);
                step = time;
            }
            break;
        }
    }
    plan
}

impl CronJobs {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(cron) = self.crons.get(key).filter(|cron| !is_deleting(&cron.metadata)) else { return Ok(Requeue::OnChange) };
        let spec = &cron.spec;
        let jobs = self.jobs.indexed(BY_CONTROLLER, uid(&cron.metadata));
        let mut status = self.note_ended(&cron, &jobs);
        self.limit_history(key, &cron, &jobs).await?;
        if spec.suspend == Some(true) {
            self.write_status(key, &cron, status).await?;
            return Ok(Requeue::OnChange);
        }
        let zone = match spec.time_zone.as_deref().map(TimeZone::get) {
            None => TimeZone::UTC,
            Some(Ok(zone)) => zone,
            Some(Err(_)) => {
                let text = format!("invalid timeZone: {:?}", spec.time_zone.as_deref().unwrap_or_default());
                self.recorder.event(&reference(&*cron), EventType::Warning, "UnknownTimeZone", text);
                self.write_status(key, &cron, status).await?;
                return Ok(Requeue::OnChange);
            }
        };
        let Some(schedule) = Schedule::parse(&spec.schedule) else {
            let text = format!("unparseable schedule: {:?}", spec.schedule);
            self.recorder.event(&reference(&*cron), EventType::Warning, "UnparseableSchedule", text);
            self.write_status(key, &cron, status).await?;
            return Ok(Requeue::OnChange);
        };
        let now = now();
        let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
        let last = status.last_schedule_time.as_ref().map(|time| time.0);
        let deadline = spec.starting_deadline_seconds.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        let plan = plan(&schedule, &zone, created, last, deadline, now);
        if plan.missed > MANY_MISSED {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.recorder.event(&reference(&*cron), EventType::Warning, "TooManyMissedTimes", text);
        }
        if let Some(due) = plan.due {
            self.start_job(key, &cron, &mut status, due).await?;
        }
        self.write_status(key, &cron, status).await?;
        // A little later than the time itself, because timers may be early.
        let wait = plan.next.map(|next| elapsed(now, next) + Duration::from_millis(100));
        Ok(wait.map_or(Requeue::OnChange, Requeue::After))
    }

    async fn start_job(&self, key: &Key, cron: &CronJob, status: &mut CronJobStatus, due: Timestamp) -> Result<()> {
        let spec = cron.spec.clone();
        let active = status.active.clone().unwrap_or_default();
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        let job = job(cron, due);
        let job_name = name(&job.metadata).to_owned();
        if self.jobs.get(&Key::new(&key.namespace, &job_name)).is_some() {
            // Started before, and our copy of the status does not show it yet.
            status.last_schedule_time = Some(whole_seconds(due));
            return Ok(());
        }
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.recorder.event(&reference(cron), EventType::Normal, "JobAlreadyActive", text);
                return Ok(());
            }
            Some("Replace") => {
                for job in &active {
                    let job_name = job.name.as_deref().unwrap_or_default();
                    gone_is_fine(jobs.delete(job_name, &DeleteParams::background()).await).during("delete job", job_name)?;
                    let text = format!("Deleted job {job_name}");
                    self.recorder.event(&reference(cron), EventType::Normal, "SuccessfulDelete", text);
                }
                status.active = None;
            }
            _ => {}
        }
        match jobs.create(&PostParams::default(), &job).await {
            Ok(created) => {
                let text = format!("Created job {job_name}");
                self.recorder.event(&reference(cron), EventType::Normal, "SuccessfulCreate", text);
                status
                    .active
                    .get_or_insert_default()
                    .push(ObjectReference { resource_version: created.metadata.resource_version.clone(), ..reference(&created) });
            }
            // Started before, and only the status was not written.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(err) if is_namespace_terminating(&err) => return Ok(()),
            Err(err) => {
                let text = format!("Error creating job: {}", message(&err));
                self.recorder.event(&reference(cron), EventType::Warning, "FailedCreate", text);
                return Err(err).during("create job", &job_name);
            }
        }
        status.last_schedule_time = Some(whole_seconds(due));
        Ok(())
    }

    /// The status without the jobs that have ended or are gone.
    fn note_ended(&self, cron: &CronJob, jobs: &[Arc<Job>]) -> CronJobStatus {
        let mut status = cron.status.clone().unwrap_or_default();
        let mut active = status.active.take().unwrap_or_default();
        active.retain(|known| {
            // Deleted by somebody, or just created and not in the cache yet: then it is found below when it is.
            let Some(job) = jobs.iter().find(|job| job.metadata.uid == known.uid) else { return false };
            let Some(ended) = finished_at(job) else { return true };
            let complete = job
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten())
                .any(|condition| condition.type_ == "Complete" && condition.status == "True");
            let text = format!(
                "Saw completed job: {}, condition: {}",
                name(&job.metadata),
                if complete { "Complete" } else { "Failed" }
            );
            self.recorder.event(&reference(cron), EventType::Normal, "SawCompletedJob", text);
            if complete && status.last_successful_time.as_ref().is_none_or(|last| last.0 < ended) {
                status.last_successful_time = Some(Time(ended));
            }
            false
        });
        // A job that is ours and runs, but is not in the list: the status was not written after its creation.
        for job in jobs.iter().filter(|job| finished_at(job).is_none()) {
            if !active.iter().any(|known| known.uid == job.metadata.uid) {
                active.push(reference(&**job));
            }
        }
        status.active = (!active.is_empty()).then_some(active);
        status
    }

    async fn limit_history(&self, key: &Key, cron: &CronJob, jobs: &[Arc<Job>]) -> Result<()> {
        let spec = cron.spec.clone();
        let is = |job: &Job, kind: &str| {
            job.status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten())
                .any(|condition| condition.type_ == kind && condition.status == "True")
        };
        let limits = [
            ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
            ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
        ];
        let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        for (kind, limit) in limits {
            let mut ended: Vec<&Arc<Job>> = jobs.iter().filter(|job| is(job, kind) && !is_deleting(&job.metadata)).collect();
            ended
                .sort_by_key(|job| (job.status.as_ref().and_then(|status| status.start_time.clone()), job.metadata.name.clone()));
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for job in &ended[..surplus] {
                let job_name = name(&job.metadata);
                gone_is_fine(api.delete(job_name, &DeleteParams::background()).await).during("delete job", job_name)?;
                self.recorder.event(&reference(cron), EventType::Normal, "SuccessfulDelete", format!("Deleted job {job_name}"));
            }
        }
        Ok(())
    }

    async fn write_status(&self, key: &Key, cron: &CronJob, status: CronJobStatus) -> Result<()> {
        if status == cron.status.clone().unwrap_or_default() {
            return Ok(());
        }
        let api: Api<CronJob> = Api::namespaced(self.client.clone(), &key.namespace);
        let next = CronJob { status: Some(status), ..cron.clone() };
        gone_is_fine(api.replace_status(&key.name, &PostParams::default(), &next).await)
            .during("update the status of cron job", key)?;
        Ok(())
    }
}

/// The Job for one time. The minutes since 1970 in its name make it unique.
fn job(cron: &CronJob, due: Timestamp) -> Job {
    let template = cron.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let zone = cron.spec.time_zone.as_deref().and_then(|zone| TimeZone::get(zone).ok()).unwrap_or(TimeZone::UTC);
    let at = due.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z");
    annotations.insert("batch.kubernetes.io/cronjob-scheduled-timestamp".into(), at);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", name(&cron.metadata), due.as_second() / 60)),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
