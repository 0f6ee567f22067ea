//! CronJobs.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use super::{cron, job};
use crate::doc::{Read, Write};
use crate::pod::{Options, defaults};
use crate::{Column, Context, Strategy, check, columns, meta, table};

pub(crate) struct CronJobs;

impl Strategy for CronJobs {
    fn default(&self, object: &mut Value) {
        let spec = object.object("spec");
        spec.default_to("concurrencyPolicy", "Allow");
        if !spec.has("suspend") {
            spec.put("suspend", false);
        }
        for (key, value) in [("successfulJobsHistoryLimit", 3), ("failedJobsHistoryLimit", 1)] {
            if !spec.has(key) {
                spec.put(key, value);
            }
        }
        let job = spec.object("jobTemplate").object("spec");
        defaults::template(job.object("template"));
        job::default_failure_policy(job);
        object.object("status");
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", json!({}));
        drop_disabled(object, None);
        meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, &object["spec"], None);
        let name = object["metadata"].text("name");
        // The controller appends eleven characters to name a Job.
        if name.len() > 52 {
            faults.invalid_str(&Path::new("metadata").child("name"), name, "must be no more than 52 characters");
        }
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        drop_disabled(object, Some(old));
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, &object["spec"], Some(&old["spec"]));
        faults
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let mut found: Vec<String> = crate::workload::name_warning(object, old).into_iter().collect();
        if !crate::workload::same_generation(object, old) {
            let spec = Path::new("spec");
            let template = spec.child("jobTemplate");
            job::spec_warnings(&mut found, &template.child("spec"), &object["spec"]["jobTemplate"]["spec"]);
        }
        if old.is_some() && object["spec"].text("schedule").contains("TZ") {
            // The doubled word is the reference server's.
            found.push(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .into(),
            );
        }
        found
    }

    fn columns(&self) -> &'static [Column] {
        columns::CRONJOBS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let job = &spec["jobTemplate"]["spec"];
        let [names, images] = table::containers(&job["template"]["spec"]);
        let last = status.opt_text("lastScheduleTime").map_or("<none>".into(), |time| table::since(time, now));
        let suspend = match spec.opt_flag("suspend") {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        vec![
            table::name(object),
            spec.text("schedule").into(),
            spec.opt_text("timeZone").unwrap_or("<none>").into(),
            suspend.into(),
            status.list("active").len().into(),
            last.into(),
            table::age(object, now),
            names,
            images,
            table::selector(&job["selector"]).into(),
        ]
    }
}

/// Drops what belongs to features that are switched off, unless the object has it already.
fn drop_disabled(object: &mut Value, old: Option<&Value>) {
    let old = old.map(|old| &old["spec"]["jobTemplate"]);
    crate::workload::drop_disabled(object.object("spec").object("jobTemplate"), old);
}

fn spec(faults: &mut Faults, spec: &Value, old: Option<&Value>) {
    let path = Path::new("spec");
    let schedule = spec.text("schedule");
    let at = path.child("schedule");
    if schedule.is_empty() {
        faults.required(&at, "");
    } else {
        if let Some(fault) = cron::fault(schedule) {
            faults.invalid_str(&at, schedule, &fault);
        }
        let had_zone = old.is_some_and(|old| old.text("schedule").contains("TZ"));
        if schedule.contains("TZ") {
            if !had_zone {
                faults.invalid_str(&at, schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
            } else if spec.has("timeZone") {
                faults.invalid_str(&at, schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
            }
        }
    }
    check::field_not_negative(faults, &path, spec, "startingDeadlineSeconds");
    if old.is_none_or(|old| old["timeZone"] != spec["timeZone"])
        && let Some(zone) = spec.opt_text("timeZone")
    {
        time_zone(faults, &path.child("timeZone"), zone);
    }
    let policies = ["Allow", "Forbid", "Replace"];
    check::required_one_of(faults, &path.child("concurrencyPolicy"), spec.text("concurrencyPolicy"), &policies);
    let template = path.child("jobTemplate");
    let at = template.child("spec");
    let job = &spec["jobTemplate"]["spec"];
    let options = Options::new(false, old.map(|old| &old["jobTemplate"]["spec"]["template"]));
    job::common(faults, &at, job, &options);
    if let Some(selector) = job.opt("selector") {
        check::invalid_selector(faults, &at.child("selector"), selector, "`selector` will be auto-generated");
    }
    if job.flag("manualSelector") {
        check::not_supported_shown(faults, &at.child("manualSelector"), "true", &["nil", "false"]);
    }
    for key in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        check::field_not_negative(faults, &path, spec, key);
    }
}

fn time_zone(faults: &mut Faults, path: &Path<'_>, zone: &str) {
    let unknown = format!("unknown time zone {zone}");
    let part_fits = |part: &str| {
        (1..=14).contains(&part.len())
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
    };
    if zone.is_empty() {
        faults.invalid_str(path, zone, "timeZone must be nil or non-empty string");
    } else if !zone.split('/').all(part_fits) {
        faults.invalid_str(path, zone, &unknown);
    } else {
        if zone.eq_ignore_ascii_case("local") {
            let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
            faults.invalid_str(path, zone, detail);
        }
        // Exactly `Local` is known to the reference's library; in another case it is one more fault.
        if zone != "Local" && !cron::is_zone(zone) {
            faults.invalid_str(path, zone, &unknown);
        }
    }
}
