//! Jobs and CronJobs.

mod cron;
mod cron_job;
mod job;
mod job_status;

pub(crate) use cron_job::CronJobs;
pub(crate) use job::Jobs;
