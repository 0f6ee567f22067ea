//! The expressions of webhooks and admission policies: which names they may use (KEP-3488, KEP-3716, KEP-3962), and what they
//! must evaluate to. Objects are `dyn` here; a policy is checked against the schemas of its kinds by a controller, which only
//! warns.

use std::sync::LazyLock;

use corten_api::field::{Faults, Path};
use corten_cel::{Checked, Environment, Type};
use serde_json::Value;

use crate::doc::Read;

/// The message whose fields are a policy's variables.
const VARIABLES: &str = "kubernetes.variables";

/// What every expression of admission sees.
static ADMISSION: LazyLock<Environment> = LazyLock::new(|| {
    let (text, texts) = (|| Type::String, || Type::list(Type::String));
    let group_version = || [("group", Type::String), ("version", Type::String)];
    let kind = || Type::structure("kubernetes.GroupVersionKind");
    let resource = || Type::structure("kubernetes.GroupVersionResource");
    let labels = || Type::map(Type::String, Type::String);
    Environment::base()
        .message("kubernetes.GroupVersionKind", group_version().into_iter().chain([("kind", text())]))
        .message("kubernetes.GroupVersionResource", group_version().into_iter().chain([("resource", text())]))
        .message(
            "kubernetes.UserInfo",
            [("username", text()), ("uid", text()), ("groups", texts()), ("extra", Type::map(Type::String, texts()))],
        )
        .message(
            "kubernetes.AdmissionRequest",
            [
                ("kind", kind()),
                ("resource", resource()),
                ("subResource", text()),
                ("requestKind", kind()),
                ("requestResource", resource()),
                ("requestSubResource", text()),
                ("name", text()),
                ("namespace", text()),
                ("operation", text()),
                ("userInfo", Type::structure("kubernetes.UserInfo")),
                ("dryRun", Type::Bool),
                ("options", Type::Dyn),
            ],
        )
        .message("kubernetes.NamespaceSpec", [("finalizers", texts())])
        .message(
            "kubernetes.NamespaceCondition",
            [
                ("status", text()),
                ("type", text()),
                ("lastTransitionTime", Type::Timestamp),
                ("message", text()),
                ("reason", text()),
            ],
        )
        .message(
            "kubernetes.NamespaceStatus",
            [("conditions", Type::list(Type::structure("kubernetes.NamespaceCondition"))), ("phase", text())],
        )
        .message(
            "kubernetes.NamespaceMetadata",
            [
                ("name", text()),
                ("generateName", text()),
                ("namespace", text()),
                ("labels", labels()),
                ("annotations", labels()),
                ("UID", text()),
                ("creationTimestamp", Type::Timestamp),
                ("deletionGracePeriodSeconds", Type::Int),
                ("deletionTimestamp", Type::Timestamp),
                ("generation", Type::Int),
                ("resourceVersion", text()),
                ("finalizers", texts()),
            ],
        )
        .message(
            "kubernetes.Namespace",
            [
                ("metadata", Type::structure("kubernetes.NamespaceMetadata")),
                ("spec", Type::structure("kubernetes.NamespaceSpec")),
                ("status", Type::structure("kubernetes.NamespaceStatus")),
            ],
        )
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .variable("namespaceObject", Type::structure("kubernetes.Namespace"))
        .variable("request", Type::structure("kubernetes.AdmissionRequest"))
});

/// The same with what tells whether a user may do something.
static AUTHORIZED: LazyLock<Environment> = LazyLock::new(|| {
    ADMISSION
        .clone()
        .variable("authorizer", Type::structure("kubernetes.authorization.Authorizer"))
        .variable("authorizer.requestResource", Type::structure("kubernetes.authorization.ResourceCheck"))
});

/// An expression that can be run. One that does not compile stands for what is wrong with it: a policy may have been stored
/// when more names were known.
#[derive(Debug)]
pub struct Expression {
    /// As it is written.
    pub text: String,
    /// Compiled, or why not.
    pub compiled: Result<Checked, String>,
}

/// One assertion of a policy.
#[derive(Debug)]
pub struct Validation {
    /// What must be true.
    pub expression: Expression,
    /// What is said when it is not.
    pub message_expression: Option<Expression>,
}

/// One change that a policy makes.
#[derive(Debug)]
pub struct Mutation {
    /// Whether it makes the operations of a JSON patch, and not a part of the object.
    pub json_patch: bool,
    /// What makes it.
    pub expression: Expression,
}

/// The expressions of a `ValidatingAdmissionPolicy` or a `MutatingAdmissionPolicy`, in its order.
#[derive(Debug)]
pub struct CompiledPolicy {
    /// What must be true for the policy to apply.
    pub conditions: Vec<Expression>,
    /// Values by name, for all but conditions.
    pub variables: Vec<(String, Expression)>,
    /// What must be true of the request.
    pub validations: Vec<Validation>,
    /// What is changed in the request.
    pub mutations: Vec<Mutation>,
    /// Values of audit annotations by key.
    pub annotations: Vec<(String, Expression)>,
}

impl CompiledPolicy {
    /// Compiles the expressions of `spec`.
    #[must_use]
    pub fn of(spec: &Value) -> Self {
        let mut compiler = Compiler::of_policy(spec.has("paramKind"));
        let expression = |environment: &Environment, text: &str, wanted: &[Type]| Expression {
            text: text.trim().to_owned(),
            compiled: checked(environment, text, wanted),
        };
        let conditions = spec.list("matchConditions").iter();
        let conditions =
            conditions.map(|item| expression(&compiler.conditions, item.text("expression"), &[Type::Bool])).collect();
        let mut variables = Vec::new();
        if !spec.list("variables").is_empty() {
            compiler.declare_variables();
        }
        for item in spec.list("variables") {
            let (name, found) = (item.text("name"), expression(&compiler.full, item.text("expression"), &[]));
            compiler.declare(name, found.compiled.as_ref().map_or(Type::Dyn, |found| declared(found.output())));
            variables.push((name.to_owned(), found));
        }
        let validation = |item: &Value| Validation {
            expression: expression(&compiler.full, item.text("expression"), &[Type::Bool]),
            message_expression: item
                .opt_text("messageExpression")
                .map(|text| expression(&compiler.message, text, &[Type::String])),
        };
        let annotation = |item: &Value| {
            let value = expression(&compiler.full, item.text("valueExpression"), &[Type::String, Type::Null]);
            (item.text("key").to_owned(), value)
        };
        let patching = compiler.full.clone().patches();
        let mutation = |item: &Value| {
            let json_patch = item.text("patchType") == "JSONPatch";
            let patch = &item[if json_patch { "jsonPatch" } else { "applyConfiguration" }];
            Mutation { json_patch, expression: expression(&patching, patch.text("expression"), &[patch_type(json_patch)]) }
        };
        Self {
            mutations: spec.list("mutations").iter().map(mutation).collect(),
            conditions,
            variables,
            validations: spec.list("validations").iter().map(validation).collect(),
            annotations: spec.list("auditAnnotations").iter().map(annotation).collect(),
        }
    }
}

/// Compiles the expressions of one webhook or policy.
pub(super) struct Compiler {
    /// For all expressions but messages.
    full: Environment,
    /// For messages, which may not ask the authorizer.
    message: Environment,
    /// Match conditions run before variables exist.
    conditions: Environment,
}

impl Compiler {
    /// For the match conditions of a webhook.
    pub(super) fn of_webhook() -> Self {
        Self::of_policy(false)
    }

    /// For a policy, with or without parameters.
    pub(super) fn of_policy(params: bool) -> Self {
        let with = |environment: &Environment| {
            let environment = environment.clone();
            if params { environment.variable("params", Type::Dyn) } else { environment }
        };
        let full = with(&AUTHORIZED);
        Self { conditions: full.clone(), full, message: with(&ADMISSION) }
    }

    /// A policy that has variables, even if none of them is right, may use `variables`.
    pub(super) fn declare_variables(&mut self) {
        for environment in [&mut self.full, &mut self.message] {
            *environment = environment.clone().variable("variables", Type::structure(VARIABLES)).message(VARIABLES, []);
        }
    }

    /// A match condition.
    pub(super) fn condition(&self, faults: &mut Faults, path: &Path<'_>, text: &str) {
        compile(&self.conditions, faults, path, text, text, &[Type::Bool]);
    }

    /// A variable, which may be of any type; expressions compiled from now on may use it.
    pub(super) fn variable(&mut self, faults: &mut Faults, path: &Path<'_>, name: &str, text: &str) {
        let kind = compile(&self.full, faults, path, text, text, &[]).map_or(Type::Dyn, |kind| declared(&kind));
        self.declare(name, kind);
    }

    fn declare(&mut self, name: &str, kind: Type) {
        for environment in [&mut self.full, &mut self.message] {
            environment.add_field(VARIABLES, name, kind.clone());
        }
    }

    /// What a validation asserts.
    pub(super) fn validation(&self, faults: &mut Faults, path: &Path<'_>, text: &str) {
        compile(&self.full, faults, path, text, text, &[Type::Bool]);
    }

    /// What is said when a validation fails.
    pub(super) fn message(&self, faults: &mut Faults, path: &Path<'_>, text: &str) {
        compile(&self.message, faults, path, text, text, &[Type::String]);
    }

    /// The value of an audit annotation.
    pub(super) fn annotation(&self, faults: &mut Faults, path: &Path<'_>, text: &str) {
        compile(&self.full, faults, path, text.trim(), text, &[Type::String, Type::Null]);
    }

    /// What a mutation changes, for the given type of patch.
    pub(super) fn patch(&self, faults: &mut Faults, path: &Path<'_>, text: &str, patch: &str) {
        if text.is_empty() {
            return faults.required(path, "");
        }
        compile(&self.full.clone().patches(), faults, path, text, text, &[patch_type(patch == "JSONPatch")]);
    }
}

/// What a mutation must evaluate to.
fn patch_type(json: bool) -> Type {
    if json { Type::list(Type::structure("JSONPatch")) } else { Type::structure("Object") }
}

/// Compiles `text`, shown as `shown` in faults, and finds its type.
fn compile(
    environment: &Environment,
    faults: &mut Faults,
    path: &Path<'_>,
    text: &str,
    shown: &str,
    wanted: &[Type],
) -> Option<Type> {
    match checked(environment, text, wanted) {
        Ok(checked) => Some(checked.output().clone()),
        Err(detail) => {
            faults.invalid_str(path, shown, &detail);
            None
        }
    }
}

/// `text` compiled, if its type is one of `wanted` or that is empty; or what is wrong with it.
fn checked(environment: &Environment, text: &str, wanted: &[Type]) -> Result<Checked, String> {
    let checked = environment.compile(text).map_err(|issues| format!("compilation failed: {issues}"))?;
    let kind = checked.output();
    if wanted.is_empty() || wanted.contains(kind) {
        return Ok(checked);
    }
    Err(match wanted {
        [one] => format!("must evaluate to {one} but got {kind}"),
        many => {
            let names: Vec<String> = many.iter().map(ToString::to_string).collect();
            format!("must evaluate to one of [{}] but got {kind}", names.join(" "))
        }
    })
}

/// A variable's type as others see it: messages and the types of libraries are only known when the expression runs.
fn declared(kind: &Type) -> Type {
    match kind {
        Type::List(item) => Type::list(declared(item)),
        Type::Map(pair) => Type::map(declared(&pair.0), declared(&pair.1)),
        Type::Struct(_) | Type::Opaque(..) | Type::Type(_) | Type::Error | Type::Unspecified => Type::Dyn,
        known => known.clone(),
    }
}

#[cfg(test)]
mod tests;
