//! Admission policies: defaults, generations, validation, table rows.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use super::rules::{changeable, default_match, match_resources};
use super::{expression, policy};
use crate::doc::{Read, Write, semantic_equal};
use crate::{Column, Context, Strategy, check, columns, meta, table};

/// `ValidatingAdmissionPolicy` or `MutatingAdmissionPolicy`.
pub(crate) struct Policies {
    pub(crate) mutating: bool,
}

impl Strategy for Policies {
    fn default(&self, object: &mut Value) {
        let spec = object.object("spec");
        if !spec.has("failurePolicy") {
            spec.put("failurePolicy", "Fail");
        }
        if spec.has("matchConstraints") {
            default_match(spec.object("matchConstraints"));
        }
        if !self.mutating {
            object.object("status");
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        if !self.mutating {
            object.put("status", json!({}));
        }
        meta::set_generation(object, 1);
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        meta::keep_all_but_status(object, old);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        if !self.mutating {
            object.copy_from(old, "status");
        }
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        self.faults(object, None)
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        self.faults(object, Some(old))
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        policy::status(&object["status"])
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        if self.mutating { columns::MUTATINGADMISSIONPOLICIES } else { columns::VALIDATINGADMISSIONPOLICIES }
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let count = spec.list(if self.mutating { "mutations" } else { "validations" }).len();
        let kind = spec
            .opt("paramKind")
            .map_or("<unset>".to_owned(), |kind| format!("{}/{}", kind.text("apiVersion"), kind.text("kind")));
        vec![table::name(object), count.into(), kind.into(), table::age(object, now)]
    }
}

impl Policies {
    fn faults(&self, object: &Value, old: Option<&Value>) -> Faults {
        let mut faults = Faults::default();
        let spec = &object["spec"];
        let path = Path::new("spec");
        check::optional_one_of(&mut faults, &path, spec, "failurePolicy", &["Fail", "Ignore"]);
        if let Some(kind) = spec.opt("paramKind") {
            policy::param_kind(&mut faults, &path.child("paramKind"), kind);
        }
        match spec.opt("matchConstraints") {
            None => faults.required(&path.child("matchConstraints"), ""),
            Some(found) => match_resources(&mut faults, &path.child("matchConstraints"), found, true),
        }
        if self.mutating {
            changeable(&mut faults, &path.child("matchConstraints"), &spec["matchConstraints"]);
        }
        let mut compiler = expression::Compiler::of_policy(spec.has("paramKind"));
        // What was good once is not compiled again.
        let same =
            |old: &Value| ["paramKind", "matchConditions"].iter().all(|key| semantic_equal(&spec[*key], &old["spec"][*key]));
        if !old.is_some_and(same) {
            policy::match_conditions(&mut faults, &path.child("matchConditions"), spec.list("matchConditions"), &compiler);
        }
        policy::variables(&mut faults, &path.child("variables"), spec.list("variables"), &mut compiler);
        if self.mutating {
            mutations(&mut faults, &path, spec, &compiler);
        } else {
            validations(&mut faults, &path, spec, object["metadata"].text("name"), &compiler);
        }
        faults
    }
}

fn validations(faults: &mut Faults, path: &Path<'_>, spec: &Value, name: &str, compiler: &expression::Compiler) {
    let (checks, notes) = (spec.list("validations"), spec.list("auditAnnotations"));
    if checks.is_empty() && notes.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        faults.required(&path.child("validations"), detail);
        faults.required(&path.child("auditAnnotations"), detail);
        return;
    }
    let at = path.child("validations");
    for (i, item) in checks.iter().enumerate() {
        policy::validation(faults, &at.index(i), item, compiler);
    }
    policy::audit_annotations(faults, &path.child("auditAnnotations"), name, &spec["auditAnnotations"], compiler);
}

fn mutations(faults: &mut Faults, path: &Path<'_>, spec: &Value, compiler: &expression::Compiler) {
    let at = path.child("mutations");
    if spec.list("mutations").is_empty() {
        faults.required(&at, "mutations must contain at least one item");
    }
    for (i, item) in spec.list("mutations").iter().enumerate() {
        mutation(faults, &at.index(i), item, compiler);
    }
    match spec.text("reinvocationPolicy") {
        "" => faults.required(&path.child("reinvocationPolicy"), ""),
        policy => check::one_of(faults, &path.child("reinvocationPolicy"), policy, &["IfNeeded", "Never"]),
    }
}

fn mutation(faults: &mut Faults, path: &Path<'_>, item: &Value, compiler: &expression::Compiler) {
    let kind = item.text("patchType");
    let (key, other) = match kind {
        "" => return faults.required(&path.child("patchType"), ""),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
        "JSONPatch" => ("jsonPatch", "applyConfiguration"),
        _ => return faults.not_supported(&path.child("patchType"), kind, &["ApplyConfiguration", "JSONPatch"]),
    };
    let at = path.child(key);
    match item.opt(key) {
        None => faults.required(&at, &format!("must be specified when patchType is {kind}")),
        Some(patch) => compiler.patch(faults, &at.child("expression"), patch.text("expression").trim(), kind),
    }
    if item.has(other) {
        let detail = format!("must not be specified when patchType is {kind}");
        faults.invalid_str(&path.child(other), &format!("{{{other}}}"), &detail);
    }
}
