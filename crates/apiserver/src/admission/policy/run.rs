//! Runs the expressions of one policy over one request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use corten_cel::eval::PER_CALL_LIMIT;
use corten_cel::{EvalError, Host, Value as Cel, evaluate};
use corten_kinds::{CompiledPolicy, Expression, Mutation};

use super::authorizer::Question;
use super::matching::Matched;
use crate::admission::tools::text;
use crate::admission::{AdmissionRequest, Operation};
use crate::authz::Authorizer;
use crate::reader::Reader;

/// What all expressions of a policy may cost together.
const BUDGET: u64 = 10_000_000;
/// Longest message that is made by an expression, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;
const OUT_OF_BUDGET: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

/// What a policy says of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// A validation does not hold, or failed.
    Violation { index: usize, message: String, reason: String, took: Duration },
    /// The policy cannot be applied, whatever the binding's actions.
    Refuse { message: String },
    /// For the audit log.
    Note { key: String, value: String },
}

/// The names that expressions see.
pub(super) struct Run {
    object: Value,
    old: Value,
    request: Value,
    namespace: Value,
    params: Value,
    authorizer: Question,
    resource: Question,
}

impl Run {
    pub(super) fn new(
        request: &AdmissionRequest,
        matched: &Matched,
        params: Option<&Value>,
        authz: &Arc<Authorizer>,
        reader: &Reader,
    ) -> Self {
        let seen = |object: &Option<Value>| {
            let mut object = object.clone().unwrap_or(Value::Null);
            let (own, wanted) = (api_version(&request.group, &request.version), api_version(&matched.group, &matched.version));
            if !object.is_null() && own != wanted {
                corten_kinds::convert(&request.group, &request.resource, &own, &wanted, &mut object);
            }
            object
        };
        // A namespace is not in itself.
        let itself = request.group.is_empty() && request.kind == "Namespace";
        let namespace =
            if itself || request.namespace.is_empty() { None } else { reader.document("", "namespaces", "", &request.namespace) };
        let authorizer = Question::start(authz, &request.user);
        Self {
            object: seen(&request.object),
            old: seen(&request.old),
            request: described(request, matched),
            namespace: namespace.map_or(Value::Null, shown_namespace),
            params: params.cloned().unwrap_or(Value::Null),
            resource: authorizer.about(request),
            authorizer,
        }
    }

    /// What the policy says. `lenient` lets expressions fail.
    pub(super) fn judge(&self, policy: &CompiledPolicy, spec: &Value, lenient: bool) -> Vec<Judgement> {
        let began = Instant::now();
        // What a fault means: nothing for a lenient policy.
        let fault = |message: String| {
            let violation = Judgement::Violation { index: 0, message, reason: String::new(), took: began.elapsed() };
            if lenient { Vec::new() } else { vec![violation] }
        };
        match self.applies(policy) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(why) => return fault(why),
        }
        let scope = Scope { run: self, policy, values: Rc::default(), budget: Rc::new(Cell::new(BUDGET)) };
        match self.violations(&scope, policy, spec, lenient) {
            Ok(mut found) => {
                let notes = Scope { budget: Rc::new(Cell::new(BUDGET)), values: Rc::default(), ..scope };
                match self.notes(&notes, policy, lenient) {
                    Ok(notes) => found.extend(notes),
                    Err(OutOfBudget) => return fault(OUT_OF_BUDGET.to_owned()),
                }
                found
            }
            Err(OutOfBudget) => fault(OUT_OF_BUDGET.to_owned()),
        }
    }

    /// What a mutation asks to change: a part of an object, or the operations of a JSON patch.
    pub(super) fn patch(&self, policy: &CompiledPolicy, mutation: &Mutation) -> Result<Value, String> {
        let scope = Scope { run: self, policy, values: Rc::default(), budget: Rc::new(Cell::new(BUDGET)) };
        match scope.value(&mutation.expression) {
            Ok(Ok(value)) => value.to_json().ok_or_else(|| {
                "JSONPath valueExpression evaluated to a type that could not marshal to JSON: unsupported type".to_owned()
            }),
            Ok(Err(why)) => Err(why),
            Err(OutOfBudget) => Err(OUT_OF_BUDGET.to_owned()),
        }
    }

    /// Whether all conditions hold. One that does not settles it, even if others fail.
    pub(super) fn applies(&self, policy: &CompiledPolicy) -> Result<bool, String> {
        let scope = Scope { run: self, policy, values: Rc::default(), budget: Rc::new(Cell::new(BUDGET)) };
        let mut faults: Vec<String> = Vec::new();
        for condition in &policy.conditions {
            match scope.value(condition) {
                Ok(Ok(Cel::Bool(false))) => return Ok(false),
                Ok(Ok(_)) => {}
                Ok(Err(why)) => {
                    if !faults.contains(&why) {
                        faults.push(why);
                    }
                }
                Err(OutOfBudget) => return Err(OUT_OF_BUDGET.to_owned()),
            }
        }
        match faults.len() {
            0 => Ok(true),
            1 => Err(faults.remove(0)),
            _ => Err(format!("[{}]", faults.join(", "))),
        }
    }

    fn violations(
        &self,
        scope: &Scope<'_>,
        policy: &CompiledPolicy,
        spec: &Value,
        lenient: bool,
    ) -> Result<Vec<Judgement>, OutOfBudget> {
        let mut found = Vec::new();
        for (index, validation) in policy.validations.iter().enumerate() {
            let written = &spec["validations"][index];
            let began = Instant::now();
            match scope.value(&validation.expression)? {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => {
                    let reason = written["reason"].as_str().unwrap_or("Invalid").to_owned();
                    let message = match validation.message_expression.as_ref().map(|message| scope.value(message)) {
                        None => None,
                        Some(Ok(value)) => value.ok().as_ref().and_then(Cel::as_str).and_then(usable),
                        Some(Err(OutOfBudget)) => {
                            let message = format!("failed messageExpression: {OUT_OF_BUDGET}");
                            if !lenient {
                                found.push(Judgement::Violation { index, message, reason: String::new(), took: began.elapsed() });
                            }
                            continue;
                        }
                    };
                    let fixed = text(written, "/message").trim();
                    let message = message.unwrap_or_else(|| match fixed {
                        "" => format!("failed expression: {}", validation.expression.text.trim()),
                        fixed => fixed.to_owned(),
                    });
                    found.push(Judgement::Violation { index, message, reason, took: began.elapsed() });
                }
                Err(_) if lenient => {}
                Err(message) => found.push(Judgement::Violation { index, message, reason: String::new(), took: began.elapsed() }),
            }
        }
        Ok(found)
    }

    fn notes(&self, scope: &Scope<'_>, policy: &CompiledPolicy, lenient: bool) -> Result<Vec<Judgement>, OutOfBudget> {
        let mut found = Vec::new();
        for (key, expression) in &policy.annotations {
            match scope.value(expression)? {
                Ok(value) => {
                    let value = value.as_str().map(str::trim).filter(|value| !value.is_empty());
                    found.extend(value.map(|value| Judgement::Note { key: key.clone(), value: value.to_owned() }));
                }
                Err(_) if lenient => {}
                Err(message) => found.push(Judgement::Refuse { message }),
            }
        }
        Ok(found)
    }
}

/// A message that an expression made, if it fits one line.
fn usable(message: &str) -> Option<String> {
    let message = message.trim();
    (!message.is_empty() && message.len() <= MAX_MESSAGE && !message.contains('\n')).then(|| message.to_owned())
}

/// The budget of the policy is spent.
struct OutOfBudget;

/// What expressions of one judgement share: names, the values of variables, what may still be spent.
#[derive(Clone)]
struct Scope<'r> {
    run: &'r Run,
    policy: &'r CompiledPolicy,
    values: Rc<RefCell<HashMap<String, Result<Cel<'r>, EvalError>>>>,
    budget: Rc<Cell<u64>>,
}

impl<'r> Scope<'r> {
    /// The value of `expression`, or what to say when it has none.
    fn value(&self, expression: &Expression) -> Result<Result<Cel<'r>, String>, OutOfBudget> {
        let checked = match &expression.compiled {
            Ok(checked) => checked,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        let outcome = evaluate(checked, &|name| self.variable(name), PER_CALL_LIMIT);
        let left = self.budget.get().checked_sub(outcome.cost).ok_or(OutOfBudget)?;
        self.budget.set(left);
        let text = expression.text.trim();
        Ok(outcome.value.map_err(|fault| format!("expression '{text}' resulted in error: {fault}")))
    }

    fn variable(&self, name: &str) -> Option<Cel<'r>> {
        Some(match name {
            "object" => Cel::from(&self.run.object),
            "oldObject" => Cel::from(&self.run.old),
            "request" => Cel::from(&self.run.request),
            "namespaceObject" => Cel::from(&self.run.namespace),
            "params" => Cel::from(&self.run.params),
            "authorizer" => Cel::Host(Rc::new(self.run.authorizer.clone())),
            "authorizer.requestResource" => Cel::Host(Rc::new(self.run.resource.clone())),
            "variables" => Cel::Host(Rc::new(Named(self.clone()))),
            _ => return None,
        })
    }
}

/// `variables`: each is made when it is first asked for.
struct Named<'r>(Scope<'r>);

impl<'r> Host<'r> for Named<'r> {
    fn field(&self, name: &str) -> Result<Cel<'r>, EvalError> {
        let scope = &self.0;
        if let Some(known) = scope.values.borrow().get(name) {
            return known.clone();
        }
        let variables = &scope.policy.variables;
        let (_, expression) =
            variables.iter().find(|(known, _)| known == name).ok_or_else(|| EvalError::NoSuchKey(name.to_owned()))?;
        let value = match &expression.compiled {
            Err(why) => Err(EvalError::Failed(format!("composited variable {name:?} fails to compile: {why}"))),
            Ok(checked) => {
                let outcome = evaluate(checked, &|name| scope.variable(name), PER_CALL_LIMIT);
                scope.budget.set(scope.budget.get().saturating_sub(outcome.cost));
                outcome
                    .value
                    .map_err(|fault| EvalError::Failed(format!("composited variable {name:?} fails to evaluate: {fault}")))
            }
        };
        scope.values.borrow_mut().insert(name.to_owned(), value.clone());
        value
    }

    fn type_name(&self) -> &'static str {
        "kubernetes.variables"
    }
}

/// `apps/v1`, or `v1` of the core group.
pub(super) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `request`: the fields of an AdmissionRequest, those that are empty left out where upstream leaves them out.
fn described(request: &AdmissionRequest, matched: &Matched) -> Value {
    let operation = match request.operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    };
    let user = &request.user;
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    let mut described = json!({
        "uid": "",
        "kind": {"group": matched.group, "version": matched.version, "kind": matched.kind},
        "resource": {"group": matched.group, "version": matched.version, "resource": matched.resource},
        "requestKind": {"group": request.group, "version": request.version, "kind": request.kind},
        "requestResource": {"group": request.group, "version": request.version, "resource": request.resource},
        "operation": operation,
        "userInfo": info,
        "object": null,
        "oldObject": null,
        "dryRun": request.dry_run,
        "options": request.options,
    });
    let optional = [
        ("subResource", &request.subresource),
        ("requestSubResource", &request.subresource),
        ("name", &request.name),
        ("namespace", &request.namespace),
    ];
    for (key, value) in optional.into_iter().filter(|(_, value)| !value.is_empty()) {
        described[key] = json!(value);
    }
    described
}

/// `namespaceObject`: without what nobody but the server cares for.
fn shown_namespace(mut namespace: Value) -> Value {
    if let Some(meta) = namespace["metadata"].as_object_mut() {
        meta.retain(|key, _| !matches!(key.as_str(), "managedFields" | "ownerReferences" | "selfLink"));
    }
    json!({"metadata": namespace["metadata"].take(), "spec": namespace["spec"].take(), "status": namespace["status"].take()})
}
