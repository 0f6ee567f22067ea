//! Jobs: the generated selector, completion modes, policies for failure and success.

pub(super) mod policies;

use corten_api::field::{Fault, FaultKind, Faults, Path};
use serde_json::{Value, json};

use super::job_status;
use crate::doc::{Read, Write, semantic_equal};
use crate::pod::{Options, defaults, validation, warnings};
use crate::{Column, Context, Strategy, check, columns, internal, meta, names, table};

use policies::{failure_policy, success_policy};

pub(crate) struct Jobs;

/// Labels that tie pods to their job: the old names and the ones with a domain.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const MAX_PARALLELISM: i64 = 100_000;
const MAX_FAILED_INDEXES: i64 = 100_000;
const COMPLETIONS_SOFT_LIMIT: i64 = 100_000;
const LIMIT_ABOVE_SOFT: i64 = 10_000;

impl Strategy for Jobs {
    fn default(&self, object: &mut Value) {
        let spec = object.object("spec");
        defaults::template(spec.object("template"));
        let (completions, parallelism) = (spec.has("completions"), spec.has("parallelism"));
        if !completions && !parallelism {
            spec.put("completions", 1);
        }
        if !parallelism {
            spec.put("parallelism", 1);
        }
        if !spec.has("backoffLimit") {
            // With a limit per index there is none for the whole job.
            spec.put("backoffLimit", if spec.has("backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 });
        }
        if !spec.has("completionMode") {
            spec.put("completionMode", "NonIndexed");
        }
        for key in ["suspend", "manualSelector"] {
            if !spec.has(key) {
                spec.put(key, false);
            }
        }
        let replacement = if spec.has("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        if !spec.has("podReplacementPolicy") {
            spec.put("podReplacementPolicy", replacement);
        }
        default_failure_policy(spec);
        let labels = spec["template"]["metadata"]["labels"].clone();
        if labels.as_object().is_some_and(|labels| !labels.is_empty()) && object["metadata"].map("labels").is_empty() {
            object.object("metadata").put("labels", labels);
        }
        object.object("status");
    }

    fn prepare_create(&self, object: &mut Value, ctx: &Context<'_>) {
        if !object["spec"].flag("manualSelector") {
            let shares_labels = !ctx.labels_given && !object["metadata"].map("labels").is_empty();
            generate_selector(object);
            if shares_labels {
                // They are the template's, those that are generated included.
                let labels = object["spec"]["template"]["metadata"]["labels"].clone();
                object.object("metadata").put("labels", labels);
            }
        }
        crate::workload::drop_disabled(object, None);
        object.put("status", json!({}));
        meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        whole(&mut faults, object, &Options::new(false, None), true);
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        crate::workload::drop_disabled(object, Some(old));
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate_status(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        job_status::update(object, old)
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let mut options = Options::new(false, Some(&old["spec"]["template"]));
        options.lax_selectors |= check::has_invalid_label_value(&old["spec"]["selector"]);
        let has_domain_labels = UID_LABELS[1..].iter().all(|key| old["spec"]["template"]["metadata"]["labels"].has(key));
        whole(&mut faults, object, &options, has_domain_labels);
        changes(&mut faults, object, old, &options);
        faults
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let mut found: Vec<String> = crate::workload::name_warning(object, old).into_iter().collect();
        if !crate::workload::same_generation(object, old) {
            spec_warnings(&mut found, &Path::new("spec"), &object["spec"]);
        }
        found
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.successful", object["status"].int("succeeded").to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        columns::JOBS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let done = status.int("succeeded");
        let completions = match (spec.opt_int("completions"), spec.int("parallelism")) {
            (Some(wanted), _) => format!("{done}/{wanted}"),
            (None, parallelism) if parallelism > 1 => format!("{done}/1 of {parallelism}"),
            (None, _) => format!("{done}/1"),
        };
        let duration = match (status.opt_text("startTime"), status.opt_text("completionTime")) {
            (None, _) => String::new(),
            (Some(start), None) => table::since(start, now),
            (Some(start), Some(end)) => table::seconds_between(start, end).map(table::duration).unwrap_or_default(),
        };
        let is = |kind: &str| job_status::is_true(status, kind);
        let state = if is("Complete") {
            "Complete"
        } else if is("Failed") {
            "Failed"
        } else if object["metadata"].has("deletionTimestamp") {
            "Terminating"
        } else if is("Suspended") {
            "Suspended"
        } else if is("FailureTarget") {
            "FailureTarget"
        } else if is("SuccessCriteriaMet") {
            "SuccessCriteriaMet"
        } else {
            "Running"
        };
        let [names, images] = table::containers(&spec["template"]["spec"]);
        vec![
            table::name(object),
            state.into(),
            completions.into(),
            duration.into(),
            table::age(object, now),
            names,
            images,
            table::selector(&spec["selector"]).into(),
        ]
    }
}

/// Warnings about the spec of a job, also of one that a CronJob makes.
pub(super) fn spec_warnings(found: &mut Vec<String>, path: &Path<'_>, spec: &Value) {
    if spec.text("completionMode") == "Indexed"
        && spec.int("completions") > COMPLETIONS_SOFT_LIMIT
        && spec.int("parallelism") > LIMIT_ABOVE_SOFT
    {
        found.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might \
             not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    let template = &spec["template"];
    warnings::spec(found, Some(&path.child("template")), &template["spec"], &template["metadata"]);
}

/// A condition in a failure policy means `True` when it says nothing.
pub(super) fn default_failure_policy(spec: &mut Value) {
    if let Some(policy) = spec.child("podFailurePolicy") {
        for pattern in policy.items("rules").flat_map(|rule| rule.items("onPodConditions")) {
            pattern.default_to("status", "True");
        }
    }
}

/// Unless the user manages it, the selector is the job's uid. What the user wrote stays, for validation to judge.
fn generate_selector(job: &mut Value) {
    let (name, uid) = (job["metadata"].text("name").to_owned(), job["metadata"].text("uid").to_owned());
    let spec = job.object("spec");
    let labels = spec.object("template").object("metadata").object("labels");
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            if !labels.has(key) {
                labels.put(key, value.clone());
            }
        }
    }
    let selector = spec.object("selector").object("matchLabels");
    if !selector.has(UID_LABELS[1]) {
        selector.put(UID_LABELS[1], uid);
    }
}

fn whole(faults: &mut Faults, job: &Value, options: &Options, domain_labels: bool) {
    let spec = &job["spec"];
    generated_selector(faults, job, domain_labels);
    job_spec(faults, &Path::new("spec"), spec, options);
    if spec.text("completionMode") == "Indexed"
        && let Some(completions) = spec.opt_int("completions").filter(|completions| *completions > 0)
    {
        let name = job["metadata"].text("name");
        let last = format!("{name}-{}", completions - 1);
        if !names::dns_label(&last).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {last}");
            faults.invalid_str(&Path::new("metadata").child("name"), name, &detail);
        }
    }
}

fn generated_selector(faults: &mut Faults, job: &Value, domain_labels: bool) {
    let spec = &job["spec"];
    if spec.flag("manualSelector") || !spec.has("selector") {
        return;
    }
    let metadata = &job["metadata"];
    let (name, uid) = (metadata.text("name"), metadata.text("uid"));
    if uid.is_empty() {
        faults.required(&Path::new("metadata").child("uid"), "");
    }
    let root = Path::new("spec");
    let template = root.child("template");
    let at = template.child("metadata");
    let labels_at = at.child("labels");
    let labels = &spec["template"]["metadata"]["labels"];
    let mut expected = serde_json::Map::new();
    for i in 0..if domain_labels { 2 } else { 1 } {
        for (key, value) in [(UID_LABELS[i], uid), (NAME_LABELS[i], name)] {
            match labels.opt_text(key) {
                None => faults.required(&labels_at.key(key), &format!("must be '{value}'")),
                Some(have) if have != value => faults.invalid(&labels_at.key(key), labels, &format!("must be '{value}'")),
                Some(_) => {}
            }
            expected.insert(key.into(), value.into());
        }
    }
    if check::selector_compiles(&spec["selector"]) && !check::selector_matches(&spec["selector"], &expected) {
        check::invalid_selector(faults, &root.child("selector"), &spec["selector"], "`selector` not auto-generated");
    }
}

fn job_spec(faults: &mut Faults, path: &Path<'_>, spec: &Value, options: &Options) {
    common(faults, path, spec, options);
    let selector = &spec["selector"];
    if selector.is_null() {
        faults.required(&path.child("selector"), "");
    } else {
        check::label_selector(faults, &path.child("selector"), selector, options.lax_selectors);
    }
    if check::selector_compiles(selector) && !check::selector_matches(selector, spec["template"]["metadata"].map("labels")) {
        crate::workload::mismatch(faults, &path.child("template"), &spec["template"]);
    }
}

/// What holds for the spec of a job and of a CronJob's template.
pub(super) fn common(faults: &mut Faults, path: &Path<'_>, spec: &Value, options: &Options) {
    for key in
        ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "backoffLimitPerIndex"]
    {
        check::field_not_negative(faults, path, spec, key);
    }
    if spec.has("maxFailedIndexes") {
        check::field_not_negative(faults, path, spec, "maxFailedIndexes");
        if !spec.has("backoffLimitPerIndex") {
            faults.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
        }
    }
    if let Some(manager) = spec.opt_text("managedBy") {
        let at = path.child("managedBy");
        check::domain_prefixed_path(faults, &at, manager);
        if manager.len() > 63 {
            faults.too_long(&at, 63);
        }
    }
    let indexed = spec.text("completionMode") == "Indexed";
    check::optional_one_of(faults, path, spec, "completionMode", &["NonIndexed", "Indexed"]);
    if indexed {
        index_limits(faults, path, spec);
    } else if matches!(spec.opt_text("completionMode"), None | Some("NonIndexed")) {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = spec.opt_int(key) {
                faults.invalid_int(&path.child(key), value, "requires indexed completion mode");
            }
        }
    }
    if let Some(policy) = spec.opt("podFailurePolicy") {
        failure_policy(faults, &path.child("podFailurePolicy"), policy, spec);
    }
    if let Some(policy) = spec.opt("successPolicy") {
        let at = path.child("successPolicy");
        if indexed {
            success_policy(faults, &at, policy, spec);
        } else {
            check::invalid_shown(faults, &at, &internal::shown("SuccessPolicy", policy), "requires indexed completion mode");
        }
    }
    if let Some(policy) = spec.opt_text("podReplacementPolicy") {
        let supported: &[&str] = if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        check::one_of(faults, &path.child("podReplacementPolicy"), policy, supported);
    }
    let template = path.child("template");
    validation::template(faults, &template, &spec["template"], options);
    let pod = template.child("spec");
    let at = pod.child("restartPolicy");
    match spec["template"]["spec"].text("restartPolicy") {
        "" | "Always" => faults.required(&at, "valid values: \"OnFailure\", \"Never\""),
        "Never" => {}
        "OnFailure" if !spec.has("podFailurePolicy") => {}
        "OnFailure" => {
            faults.invalid_str(&at, "OnFailure", "only \"Never\" is supported when podFailurePolicy is specified");
        }
        other => faults.not_supported(&at, other, &["OnFailure", "Never"]),
    }
}

fn index_limits(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let (completions, parallelism) = (spec.opt_int("completions"), spec.opt_int("parallelism"));
    let failed = spec.opt_int("maxFailedIndexes");
    let failed_at = path.child("maxFailedIndexes");
    if completions.is_none() {
        faults.required(&path.child("completions"), "when completion mode is Indexed");
    }
    if let Some(parallelism) = parallelism.filter(|n| *n > MAX_PARALLELISM) {
        let detail = format!("must be less than or equal to {MAX_PARALLELISM} when completion mode is Indexed");
        faults.invalid_int(&path.child("parallelism"), parallelism, &detail);
    }
    if let (Some(completions), Some(failed)) = (completions, failed)
        && failed > completions
    {
        faults.invalid_int(&failed_at, failed, "must be less than or equal to completions");
    }
    if let Some(failed) = failed.filter(|n| *n > MAX_FAILED_INDEXES) {
        faults.invalid_int(&failed_at, failed, &format!("must be less than or equal to {MAX_FAILED_INDEXES}"));
    }
    if completions.is_some_and(|n| n > COMPLETIONS_SOFT_LIMIT) && spec.has("backoffLimitPerIndex") {
        let detail = format!(
            "must be less than or equal to {LIMIT_ABOVE_SOFT} when completions are above {COMPLETIONS_SOFT_LIMIT} and used with backoff \
             limit per index"
        );
        if failed.is_none() {
            let text = format!("must be specified when completions is above {COMPLETIONS_SOFT_LIMIT}");
            faults.required(&failed_at, &text);
        }
        if let Some(parallelism) = parallelism.filter(|n| *n > LIMIT_ABOVE_SOFT) {
            faults.invalid_int(&path.child("parallelism"), parallelism, &detail);
        }
        if let Some(failed) = failed.filter(|n| *n > LIMIT_ABOVE_SOFT) {
            faults.invalid_int(&failed_at, failed, &detail);
        }
    }
}

/// `Invalid value: detail`, for a value that is not worth showing.
pub(super) fn invalid_omitted(faults: &mut Faults, path: &Path<'_>, detail: &str) {
    faults.0.push(Fault { kind: FaultKind::Invalid, field: path.to_string(), message: format!("Invalid value: {detail}") });
}

pub(super) fn falling(before: i64, now: i64) -> String {
    format!("non-increasing order, previous: {before}, current: {now}")
}

fn changes(faults: &mut Faults, job: &Value, old: &Value, options: &Options) {
    let path = Path::new("spec");
    let (spec, before) = (&job["spec"], &old["spec"]);
    job_spec(faults, &path, spec, options);
    let completions = path.child("completions");
    if spec.text("completionMode") != "Indexed" {
        check::immutable(faults, &completions, &spec["completions"], &before["completions"]);
    } else if spec["completions"] != before["completions"]
        && spec.has("completions")
        && spec["completions"] != spec["parallelism"]
    {
        faults.invalid(&completions, &spec["completions"], "can only be modified in tandem with spec.parallelism");
    }
    check::immutable_selector(faults, &path, job, old);
    template_change(faults, &path.child("template"), job, old);
    check::immutable(faults, &path.child("completionMode"), &spec["completionMode"], &before["completionMode"]);
    for (key, kind) in [
        ("podFailurePolicy", "PodFailurePolicy"),
        ("backoffLimitPerIndex", ""),
        ("managedBy", ""),
        ("successPolicy", "SuccessPolicy"),
    ] {
        if !semantic_equal(&spec[key], &before[key]) {
            if kind.is_empty() {
                faults.invalid(&path.child(key), &spec[key], check::IMMUTABLE);
            } else {
                check::invalid_shown(
                    faults,
                    &path.child(key),
                    &internal::shown(&format!("*{kind}"), &spec[key]),
                    check::IMMUTABLE,
                );
            }
        }
    }
}

/// The template is fixed, but for where and with what the pods of a suspended job will run (KEP-2926, KEP-5440).
fn template_change(faults: &mut Faults, path: &Path<'_>, job: &Value, old: &Value) {
    let (template, before) = (&job["spec"]["template"], &old["spec"]["template"]);
    let status = &old["status"];
    let drained = job_status::is_true(status, "Suspended") && status.int("active") == 0;
    let stopped = old["spec"].flag("suspend") && (!status.has("startTime") || drained);
    if !stopped {
        if !semantic_equal(template, before) {
            check::invalid_shown(faults, path, &internal::shown("PodTemplateSpec", template), check::IMMUTABLE);
        }
        return;
    }
    let now = &template["spec"];
    let mut was = before["spec"].clone();
    for key in ["nodeSelector", "tolerations", "schedulingGates"] {
        was.copy_from(now, key);
    }
    if now.has("affinity") || was.has("affinity") {
        let node = now["affinity"]["nodeAffinity"].clone();
        let affinity = was.object("affinity");
        affinity.put("nodeAffinity", node);
        if affinity.as_object().is_some_and(serde_json::Map::is_empty) && !now.has("affinity") {
            was.drop_key("affinity");
        }
    }
    for kind in ["containers", "initContainers"] {
        if was.list(kind).len() == now.list(kind).len() {
            for (container, now) in was.items(kind).zip(now.list(kind)).filter(|(was, now)| was.text("name") == now.text("name"))
            {
                container.copy_from(now, "resources");
            }
        }
    }
    if !semantic_equal(now, &was) {
        check::invalid_shown(faults, &path.child("spec"), &internal::shown("PodSpec", now), check::IMMUTABLE);
    }
}

#[cfg(test)]
mod tests;
