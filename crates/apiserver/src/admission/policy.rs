//! ValidatingAdmissionPolicy: what policies that users write in CEL refuse, warn of and note for audit (KEP-3488).
//!
//! A request is judged by each policy whose rules it matches, once for each binding and each object of parameters. Policies that
//! change requests, found and run in the same way, are in [`mutating`].

mod authorizer;
mod compiled;
mod matching;
mod mutating;
mod params;
mod run;

pub(super) use mutating::MutatingAdmissionPolicies;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use serde_json::{Value, json};

use corten_api::catalogue::Catalogue;
use corten_api::status::{Cause, Status};

use super::metrics::{CelMetrics, PolicyMetrics};
use super::tools::{done, items, text};
use super::{AdmissionRequest, Plugin, Verdict};
use crate::authz::Authorizer;
use crate::reader::Reader;
use crate::state::State;

use compiled::{Policies, Policy};
use matching::Matched;
use run::{Judgement, Run};

const GROUP: &str = "admissionregistration.k8s.io";
const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";
/// Annotations for audit are cut off here, in bytes.
const MAX_ANNOTATION: usize = 10 * 1024;

/// Resources that no policy judges: what makes policies, or nobody could undo them, and questions that store nothing.
const EXEMPT: [(&str, &str); 12] = [
    (GROUP, "validatingwebhookconfigurations"),
    (GROUP, "mutatingwebhookconfigurations"),
    (GROUP, POLICIES),
    (GROUP, BINDINGS),
    (GROUP, "mutatingadmissionpolicies"),
    (GROUP, "mutatingadmissionpolicybindings"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

pub(super) struct ValidatingAdmissionPolicies {
    reader: Reader,
    authz: Arc<Authorizer>,
    /// The server, for the kinds it serves. Weak: the server owns this plugin.
    state: OnceLock<Weak<State>>,
    policies: Policies,
    metrics: PolicyMetrics,
}

/// A reason to refuse the request.
struct Denial {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: String,
}

impl ValidatingAdmissionPolicies {
    pub(super) fn new(reader: Reader, authz: Arc<Authorizer>, metrics: PolicyMetrics, cel: CelMetrics) -> Self {
        let policies = Policies::new(reader.clone(), POLICIES, BINDINGS, cel);
        Self { reader, authz, state: OnceLock::new(), policies, metrics }
    }

    fn decide(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let Some(state) = self.state.get().and_then(Weak::upgrade) else { return Ok(()) };
        let catalogue = state.catalogue();
        let mut denials = Vec::new();
        for policy in self.policies.all().iter() {
            let mut notes = BTreeMap::new();
            match matching::matches(&policy.spec["matchConstraints"], request, &catalogue, &self.reader) {
                Ok(None) => continue,
                Ok(Some(matched)) => self.apply(policy, &matched, request, &catalogue, &mut denials, &mut notes),
                Err(why) => fault(policy, None, format!("failed to configure policy: {why}"), &mut denials),
            }
            for (key, values) in notes {
                request.audit_annotations.insert(format!("{}/{key}", policy.name), values.join(", "));
            }
        }
        match denials.into_iter().next() {
            None => Ok(()),
            Some(denial) => Err(denial.status(request)),
        }
    }

    /// Judges a request that `policy` is about by each of its bindings.
    fn apply(
        &self,
        policy: &Policy,
        matched: &Matched,
        request: &mut AdmissionRequest,
        catalogue: &Catalogue,
        denials: &mut Vec<Denial>,
        notes: &mut BTreeMap<String, Vec<String>>,
    ) {
        for binding in &policy.bindings {
            let name = text(binding, "/metadata/name");
            let resources = &binding["spec"]["matchResources"];
            if !resources.is_null() {
                match matching::matches(resources, request, catalogue, &self.reader) {
                    Ok(None) => continue,
                    Ok(Some(_)) => {}
                    Err(why) => {
                        fault(policy, Some(name), format!("failed to configure binding: {why}"), denials);
                        continue;
                    }
                }
            }
            let objects =
                match params::of(&policy.spec["paramKind"], &binding["spec"], &request.namespace, catalogue, &self.reader) {
                    Ok(objects) => objects,
                    Err(params::Fault::Policy(why)) => {
                        fault(policy, None, format!("failed to configure policy: {why}"), denials);
                        return;
                    }
                    Err(params::Fault::Binding(why)) => {
                        fault(policy, Some(name), format!("failed to configure binding: {why}"), denials);
                        continue;
                    }
                };
            for object in &objects {
                let run = Run::new(request, matched, object.as_ref(), &self.authz, &self.reader);
                let began = Instant::now();
                let judgements = run.judge(&policy.expressions, &policy.spec, policy.ignores_faults());
                self.policies.cel().evaluated(began.elapsed());
                self.record(policy, binding, judgements, request, denials, notes);
            }
        }
    }

    /// Does what the binding asks for with what was found.
    fn record(
        &self,
        policy: &Policy,
        binding: &Value,
        judgements: Vec<Judgement>,
        request: &mut AdmissionRequest,
        denials: &mut Vec<Denial>,
        notes: &mut BTreeMap<String, Vec<String>>,
    ) {
        let name = text(binding, "/metadata/name");
        let denial = |message: String, reason: String| Denial {
            policy: policy.name.clone(),
            binding: Some(name.to_owned()),
            message,
            reason,
        };
        let actions = &binding["spec"]["validationActions"];
        for judgement in judgements {
            match judgement {
                Judgement::Note { key, mut value } => {
                    let mut end = value.len().min(MAX_ANNOTATION);
                    while !value.is_char_boundary(end) {
                        end -= 1;
                    }
                    value.truncate(end);
                    let values = notes.entry(key).or_default();
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
                Judgement::Refuse { message } => denials.push(denial(message, String::new())),
                Judgement::Violation { index, message, reason, took } => {
                    for action in items(actions).filter_map(Value::as_str) {
                        self.metrics.failed(&policy.name, name, &action.to_ascii_lowercase(), &message, took);
                        match action {
                            "Deny" => denials.push(denial(message.clone(), reason.clone())),
                            "Warn" => request.warnings.push(format!(
                                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{name}': {message}",
                                policy.name
                            )),
                            _ => {
                                let value = json!([{
                                    "message": message, "policy": policy.name, "binding": name, "expressionIndex": index,
                                    "validationActions": actions,
                                }]);
                                let key = "validation.policy.admission.k8s.io/validation_failure";
                                request.audit_annotations.insert(key.to_owned(), value.to_string());
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A policy that cannot be applied refuses the request, unless it says otherwise.
fn fault(policy: &Policy, binding: Option<&str>, message: String, denials: &mut Vec<Denial>) {
    if !policy.ignores_faults() {
        let (policy, binding) = (policy.name.clone(), binding.map(str::to_owned));
        denials.push(Denial { policy, binding, message, reason: String::new() });
    }
}

impl Denial {
    fn status(self, request: &AdmissionRequest) -> Status {
        let Self { policy, binding, message, reason } = self;
        let binding = binding.map(|binding| format!(" with binding '{binding}'")).unwrap_or_default();
        let message = format!("ValidatingAdmissionPolicy '{policy}'{binding} denied request: {message}");
        let mut status = request.forbidden(&message);
        status.reason = if reason.is_empty() { "Invalid".to_owned() } else { reason };
        status.code = match status.reason.as_str() {
            "Forbidden" => 403,
            "Unauthorized" => 401,
            "RequestEntityTooLarge" => 413,
            _ => 422,
        };
        if let Some(details) = &mut status.details {
            details.causes.push(Cause { message, ..Cause::default() });
        }
        status
    }
}

/// Whether no policy has a say in this.
fn is_exempt(request: &AdmissionRequest) -> bool {
    EXEMPT.iter().any(|(group, resource)| request.group == *group && request.resource == *resource)
}

impl Plugin for ValidatingAdmissionPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        !is_exempt(request) && self.policies.are_bound()
    }

    fn attach(&self, state: &Arc<State>) {
        // Attached once, when the server is put together.
        let _ = self.state.set(Arc::downgrade(state));
    }

    fn judge<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        done(self.decide(request))
    }
}
