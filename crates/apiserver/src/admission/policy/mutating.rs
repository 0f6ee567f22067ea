//! MutatingAdmissionPolicy: what policies that users write in CEL change in a request (KEP-3962).
//!
//! Policies run one after another, each on what those before it left. When one of them has run, all plugins that change requests run
//! once more, and of the policies those that want it (`reinvocationPolicy: IfNeeded`) and ran before.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use jiff::Timestamp;
use serde_json::Value;

use corten_api::catalogue::Catalogue;
use corten_api::facts::{Type, Types};
use corten_api::status::{Cause, Status};
use corten_kinds::Mutation;
use corten_schema::decode::{self, FieldValidation};
use corten_schema::patch::{Patch, PatchError, PatchKind};

use super::compiled::{Policies, Policy};
use super::matching::{self, Matched};
use super::params;
use super::run::{Run, api_version};
use crate::admission::metrics::CelMetrics;
use crate::admission::tools::{done, text};
use crate::admission::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::authz::Authorizer;
use crate::reader::Reader;
use crate::state::State;

pub(in crate::admission) struct MutatingAdmissionPolicies {
    reader: Reader,
    authz: Arc<Authorizer>,
    /// The server, for the kinds it serves. Weak: the server owns this plugin.
    state: OnceLock<Weak<State>>,
    policies: Policies,
}

/// One policy with one binding and one object of parameters.
struct Invocation<'p> {
    policy: &'p Policy,
    binding: &'p str,
    params: Option<Value>,
    matched: Matched,
}

/// Why a policy did not do what it should.
struct Fault {
    binding: Option<String>,
    message: String,
    /// The reason of the answer; that of any refusal when it is empty.
    reason: &'static str,
}

impl MutatingAdmissionPolicies {
    pub(in crate::admission) fn new(reader: Reader, authz: Arc<Authorizer>, cel: CelMetrics) -> Self {
        let policies = Policies::new(reader.clone(), "mutatingadmissionpolicies", "mutatingadmissionpolicybindings", cel);
        Self { reader, authz, state: OnceLock::new(), policies }
    }

    fn change(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let Some(state) = self.state.get().and_then(Weak::upgrade) else { return Ok(()) };
        let catalogue = state.catalogue();
        let policies = self.policies.all();
        let mut refusals = Vec::new();
        // All that have a say are found before the first of them changes anything.
        let mut invocations = Vec::new();
        for policy in policies.iter() {
            let (found, faults) = self.invocations(policy, request, &catalogue);
            invocations.extend(found);
            refusals.extend(faults.into_iter().filter(|_| !policy.ignores_faults()).map(|fault| fault.told(policy)));
        }
        for invocation in &invocations {
            let began = Instant::now();
            let faults = self.invoke(invocation, request, &catalogue)?;
            self.policies.cel().evaluated(began.elapsed());
            let strict = faults.into_iter().filter(|_| !invocation.policy.ignores_faults());
            refusals.extend(strict.map(|fault| fault.told(invocation.policy)));
        }
        if refusals.is_empty() { Ok(()) } else { Err(refused(request, refusals)) }
    }

    /// What `policy` has to do with the request.
    fn invocations<'p>(
        &self,
        policy: &'p Policy,
        request: &AdmissionRequest,
        catalogue: &Catalogue,
    ) -> (Vec<Invocation<'p>>, Vec<Fault>) {
        let (mut found, mut faults) = (Vec::new(), Vec::new());
        let fault = |binding: Option<&str>, why: String| {
            let what = if binding.is_some() { "binding" } else { "policy" };
            Fault { binding: binding.map(str::to_owned), message: format!("failed to configure {what}: {why}"), reason: "" }
        };
        let matched = match matching::matches(&policy.spec["matchConstraints"], request, catalogue, &self.reader) {
            Ok(Some(matched)) => matched,
            Ok(None) => return (found, faults),
            Err(why) => return (found, vec![fault(None, why)]),
        };
        for binding in &policy.bindings {
            let name = text(binding, "/metadata/name");
            let resources = &binding["spec"]["matchResources"];
            if !resources.is_null() {
                match matching::matches(resources, request, catalogue, &self.reader) {
                    Ok(Some(_)) => {}
                    Ok(None) => continue,
                    Err(why) => {
                        faults.push(fault(Some(name), why));
                        continue;
                    }
                }
            }
            match params::of(&policy.spec["paramKind"], &binding["spec"], &request.namespace, catalogue, &self.reader) {
                Ok(all) => found.extend(all.into_iter().map(|params| Invocation {
                    policy,
                    binding: name,
                    params,
                    matched: matched.clone(),
                })),
                Err(params::Fault::Policy(why)) => faults.push(fault(None, why)),
                Err(params::Fault::Binding(why)) => faults.push(fault(Some(name), why)),
            }
        }
        (found, faults)
    }

    /// Lets one policy change the object; what it could not do is in the faults.
    fn invoke(&self, call: &Invocation<'_>, request: &mut AdmissionRequest, catalogue: &Catalogue) -> Result<Vec<Fault>, Status> {
        let Invocation { policy, binding, params, matched } = call;
        let fault = |message: String| Fault { binding: Some((*binding).to_owned()), message, reason: "Invalid" };
        let run = |request: &AdmissionRequest| Run::new(request, matched, params.as_ref(), &self.authz, &self.reader);
        match run(request).applies(&policy.expressions) {
            Ok(true) => {}
            Ok(false) => return Ok(Vec::new()),
            Err(why) => return Ok(vec![fault(why)]),
        }
        let key = invocation_key(call);
        let pass = &mut request.reinvocation;
        if pass.again && !pass.invoked.contains(&key) {
            return Ok(Vec::new());
        }
        let mut faults = Vec::new();
        for mutation in &policy.expressions.mutations {
            if request.object.is_none() {
                break;
            }
            let patched = match run(request).patch(&policy.expressions, mutation) {
                Ok(patch) => self.patched(request, matched, mutation, patch, catalogue),
                Err(why) => Err(Failure::Policy(why)),
            };
            match patched {
                Ok(object) => {
                    request.object = Some(object);
                    request.reinvocation.wanted = true;
                }
                Err(Failure::Policy(why)) => faults.push(fault(why)),
                Err(Failure::Server(status)) => return Err(*status),
            }
        }
        if policy.spec["reinvocationPolicy"] == "IfNeeded" && !request.reinvocation.again {
            request.reinvocation.invoked.push(key);
        }
        Ok(faults)
    }

    /// The object with a patch, which is in the version that the policy sees.
    fn patched(
        &self,
        request: &AdmissionRequest,
        matched: &Matched,
        mutation: &Mutation,
        patch: Value,
        catalogue: &Catalogue,
    ) -> Result<Value, Failure> {
        let Some(ty) = type_of(request, matched, catalogue) else {
            let why = format!("Resource kind {}/{}, Kind={} not found.", matched.group, matched.version, matched.kind);
            return Err(Failure::Server(Box::new(Status::failure(503, "ServiceUnavailable", why))));
        };
        let (own, seen) = (api_version(&request.group, &request.version), api_version(&matched.group, &matched.version));
        let convert = |object: &mut Value, from: &str, to: &str| {
            if from != to {
                corten_kinds::convert(&request.group, &request.resource, from, to, object);
            }
        };
        let mut object = request.object.clone().unwrap_or_default();
        convert(&mut object, &own, &seen);
        let (kind, version) = (object["kind"].clone(), object["apiVersion"].clone());
        let patched = if mutation.json_patch {
            json_patched(&object, &patch)?
        } else {
            let mut patch = patch;
            patch["kind"] = kind.clone();
            patch["apiVersion"] = version.clone();
            corten_schema::apply::merge_patch(ty, &object, &patch)
                .map_err(|why| Failure::Policy(format!("error applying patch: {why}")))?
        };
        let normal = decode::normalize_as_sent(&patched, ty)
            .map_err(|fault| Failure::Server(Box::new(Status::internal(fault.to_string()))))?;
        if let (true, Some(fault)) = (mutation.json_patch, normal.strict_error()) {
            return Err(Failure::Server(Box::new(Status::internal(fault))));
        }
        let mut object = normal.document;
        object["kind"] = kind;
        object["apiVersion"] = version;
        convert(&mut object, &seen, &own);
        if let Some(strategy) = corten_kinds::strategy(&request.group, &request.resource).filter(|_| is_whole(request)) {
            strategy.default_at(&mut object, Timestamp::now());
        }
        Ok(object)
    }
}

/// Why an object could not be patched.
enum Failure {
    /// The policy is wrong; its failure policy says what that means.
    Policy(String),
    /// What came of it is no such object.
    Server(Box<Status>),
}

fn json_patched(object: &Value, patch: &Value) -> Result<Value, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::Policy(format!("JSON Patch: {why}"));
    let bytes = corten_schema::encode::json(patch);
    let patch = Patch::read(PatchKind::Json, &bytes, FieldValidation::Ignore).map_err(|err| wrong(&err))?;
    match patch.apply(object, None) {
        Ok(patched) => Ok(patched),
        // A test that fails is a condition that does not hold.
        Err(PatchError::Unprocessable(why)) if why.ends_with(": test failed") => Ok(object.clone()),
        Err(err) => Err(wrong(&err)),
    }
}

/// Whether the object is the resource's own, and not that of a subresource.
fn is_whole(request: &AdmissionRequest) -> bool {
    matches!(request.subresource.as_str(), "" | "status" | "ephemeralcontainers" | "resize" | "approval" | "finalize")
}

/// The type of the object in the version that the policy sees.
fn type_of(request: &AdmissionRequest, matched: &Matched, catalogue: &Catalogue) -> Option<&'static Type> {
    let resource = catalogue.resource(&matched.group, &matched.resource)?;
    let version = resource.version(&matched.version)?;
    let name = match version.subresource(&request.subresource) {
        Some(sub) if !is_whole(request) => &sub.type_name,
        _ => &version.type_name,
    };
    Types::get().named(name)
}

/// What makes an invocation the same in both passes.
fn invocation_key(call: &Invocation<'_>) -> String {
    let params = call.params.as_ref().unwrap_or(&Value::Null);
    let of_params = |field| text(params, field);
    format!("{}/{}/{}/{}", call.policy.name, call.binding, of_params("/metadata/namespace"), of_params("/metadata/name"))
}

impl Fault {
    /// What is told of it, and the reason.
    fn told(self, policy: &Policy) -> (String, &'static str) {
        let told = match self.binding {
            Some(binding) => format!("policy '{}' with binding '{binding}' denied request: {}", policy.name, self.message),
            None => format!("policy {:?} denied request: {}", policy.name, self.message),
        };
        (told, self.reason)
    }
}

/// The answer to a request that policies could not be applied to: the first one's words, and all of them as causes.
fn refused(request: &AdmissionRequest, refusals: Vec<(String, &'static str)>) -> Status {
    let mut status = request.forbidden("");
    if let Some((message, reason)) = refusals.first() {
        status.message.clone_from(message);
        if !reason.is_empty() {
            (*reason).clone_into(&mut status.reason);
        }
    }
    if let Some(details) = &mut status.details {
        details.causes.extend(refusals.into_iter().map(|(message, _)| Cause { message, ..Cause::default() }));
    }
    status
}

impl Plugin for MutatingAdmissionPolicies {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        // What is deleted cannot be changed.
        request.operation != Operation::Delete && !super::is_exempt(request) && self.policies.are_bound()
    }

    fn attach(&self, state: &Arc<State>) {
        // Attached once, when the server is put together.
        let _ = self.state.set(Arc::downgrade(state));
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        done(self.change(request))
    }

    fn judge<'a>(&'a self, _: &'a mut AdmissionRequest) -> Verdict<'a> {
        done(Ok(()))
    }
}
