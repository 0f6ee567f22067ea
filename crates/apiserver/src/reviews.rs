//! Resources that are questions: token and access reviews. Nothing is stored.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use corten_api::facts::Types;
use corten_api::field::{Fault, FaultKind, Faults, Path};
use corten_api::names;
use corten_api::selector::{FieldSelector, LabelSelector};
use corten_api::status::Status;

use crate::authz::{Attributes, Decision};
use crate::pipeline::Call;
use crate::state::State;
use crate::tokens::{Audiences, VerifyError};
use crate::user::User;

const AUTHORIZATION: &str = "authorization.k8s.io";

/// Answers a posted review with the same document and its status filled in.
///
/// # Errors
/// 422 and 400 in upstream's words for a question that makes no sense.
pub async fn create(state: &Arc<State>, call: &Call, body: Value) -> Result<Value, Status> {
    let info = call.info();
    match (info.group.as_str(), info.resource.as_str()) {
        ("authentication.k8s.io", "tokenreviews") => token_review(state, body),
        ("authentication.k8s.io", "selfsubjectreviews") => Ok(self_subject_review(&info.api_version(), call.user())),
        (AUTHORIZATION, "selfsubjectaccessreviews") => {
            check_access(&body, Question::Own)?;
            Ok(access_review(state, body, call.user()))
        }
        (AUTHORIZATION, "subjectaccessreviews") => {
            check_access(&body, Question::Subject)?;
            let user = subject(&body["spec"]);
            Ok(access_review(state, body, &user))
        }
        (AUTHORIZATION, "localsubjectaccessreviews") => {
            check_access(&body, Question::Local(&info.namespace))?;
            let user = subject(&body["spec"]);
            Ok(access_review(state, body, &user))
        }
        (AUTHORIZATION, "selfsubjectrulesreviews") => rules_review(state, call.user(), &body),
        _ => Err(Status::not_found(&info.group, &info.resource, "")),
    }
}

fn token_review(state: &State, mut body: Value) -> Result<Value, Status> {
    let token = text(&body, "/spec/token");
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = Audiences::of(strings(&body["spec"]["audiences"]));
    body["status"] = match state.authn.token(token, &audiences) {
        Ok(found) => json!({"authenticated": true, "user": user_info(&found.user), "audiences": found.audiences}),
        Err(VerifyError::Foreign) => json!({"user": {}, "error": "invalid bearer token"}),
        // Every authenticator is asked, and the one that knows the token says more.
        Err(why) => json!({"user": {}, "error": format!("[invalid bearer token, {why}]")}),
    };
    Ok(body)
}

fn self_subject_review(api_version: &str, user: &User) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"kind": "SelfSubjectReview", "apiVersion": api_version, "metadata": {"creationTimestamp": now},
        "status": {"userInfo": user_info(user)}})
}

/// A user as the API shows one: what is empty is left out.
pub(crate) fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    for (key, value) in [("username", &user.name), ("uid", &user.uid)] {
        if !value.is_empty() {
            info.insert(key.into(), value.clone().into());
        }
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    info.into()
}

fn access_review(state: &State, mut body: Value, user: &User) -> Value {
    let spec = &body["spec"];
    let selector = field_selector(&spec["resourceAttributes"]["fieldSelector"]);
    let attributes = match spec.get("resourceAttributes").filter(|attributes| !attributes.is_null()) {
        Some(resource) => Attributes {
            subresource: text(resource, "/subresource"),
            namespace: text(resource, "/namespace"),
            field_selector: &selector,
            ..Attributes::resource(
                user,
                text(resource, "/verb"),
                text(resource, "/group"),
                text(resource, "/resource"),
                text(resource, "/name"),
            )
        },
        None => Attributes {
            is_resource: false,
            path: text(spec, "/nonResourceAttributes/path"),
            ..Attributes::resource(user, text(spec, "/nonResourceAttributes/verb"), "", "", "")
        },
    };
    let mut status = Map::new();
    let (allowed, reason) = match state.authz.decide(&attributes) {
        Decision::Allow(reason) => (true, reason),
        Decision::NoOpinion(reason) => (false, reason),
        Decision::Deny(reason) => {
            status.insert("denied".into(), true.into());
            (false, reason)
        }
    };
    status.insert("allowed".into(), allowed.into());
    if !reason.is_empty() {
        status.insert("reason".into(), reason.into());
    }
    let ignored = ignored_selectors(&body["spec"]["resourceAttributes"]);
    if !ignored.is_empty() {
        status.insert("evaluationError".into(), ignored.join("; ").into());
    }
    body["status"] = status.into();
    body
}

/// Requirements as one selector text; only demands for one value matter to an authorizer.
fn field_selector(selector: &Value) -> String {
    if let Some(raw) = selector["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let terms = requirements.filter_map(|requirement| {
        match (requirement["operator"].as_str()?, strings(&requirement["values"]).as_slice()) {
            ("In", [value]) => Some(format!("{}={value}", requirement["key"].as_str()?)),
            _ => None,
        }
    });
    terms.collect::<Vec<_>>().join(",")
}

/// What is told of selectors that cannot be understood, or only in part: the question is taken as one for more.
fn ignored_selectors(resource: &Value) -> Vec<String> {
    let of_fields = |requirement: &Value| {
        matches!(text(requirement, "/operator"), "In" | "NotIn") && strings(&requirement["values"]).len() == 1
    };
    let of_labels = |requirement: &Value| matches!(text(requirement, "/operator"), "In" | "NotIn" | "Exists" | "DoesNotExist");
    let told = |key: &str, parses: &dyn Fn(&str) -> bool, known: &dyn Fn(&Value) -> bool| {
        let all = resource[key]["requirements"].as_array().map_or(&[][..], Vec::as_slice);
        let fits = all.iter().filter(|requirement| known(requirement)).count();
        let raw_is_wrong = all.is_empty() && !parses(text(&resource[key], "/rawSelector"));
        let part = if fits > 0 { "partially " } else { "" };
        (raw_is_wrong || fits < all.len()).then(|| format!("spec.resourceAttributes.{key} {part}ignored due to parse error"))
    };
    let fields = told("fieldSelector", &|raw| FieldSelector::parse(raw).is_ok(), &of_fields);
    let labels = told("labelSelector", &|raw| LabelSelector::parse(raw).is_ok(), &of_labels);
    fields.into_iter().chain(labels).collect()
}

/// The user that a SubjectAccessReview asks about.
fn subject(spec: &Value) -> User {
    let extra = spec["extra"].as_object().into_iter().flatten();
    User {
        name: text(spec, "/user").to_owned(),
        uid: text(spec, "/uid").to_owned(),
        groups: strings(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), strings(values))).collect(),
    }
}

fn rules_review(state: &State, user: &User, body: &Value) -> Result<Value, Status> {
    let namespace = text(body, "/spec/namespace");
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let found = state.authz.rules_for(user, namespace);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in &found.rules {
        if !rule.resources.is_empty() {
            let mut shown = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
            if !rule.resource_names.is_empty() {
                shown["resourceNames"] = json!(rule.resource_names);
            }
            resources.push(shown);
        }
        if !rule.non_resource_urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": found.incomplete});
    if !found.errors.is_empty() {
        status["evaluationError"] = found.errors.join(", ").into();
    }
    Ok(json!({"kind": "SelfSubjectRulesReview", "apiVersion": body["apiVersion"], "metadata": {}, "spec": {}, "status": status}))
}

/// Whose access is asked for.
#[derive(Clone, Copy)]
enum Question<'a> {
    Own,
    Subject,
    /// In this namespace.
    Local(&'a str),
}

fn check_access(body: &Value, question: Question<'_>) -> Result<(), Status> {
    let mut faults = Faults::default();
    let spec = &body["spec"];
    let path = Path::new("spec");
    let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let (resource_path, other_path) = (path.child("resourceAttributes"), path.child("nonResourceAttributes"));
    let shown = json!({"Path": text(other, "/path"), "Verb": text(other, "/verb")});
    if !resource.is_null() && !other.is_null() {
        faults.invalid(&other_path, &shown, "cannot be specified in combination with resourceAttributes");
    }
    if resource.is_null() && other.is_null() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        faults.invalid(&resource_path, &Value::Null, why);
    }
    let named = !text(spec, "/user").is_empty() || !strings(&spec["groups"]).is_empty();
    if !named && !matches!(question, Question::Own) {
        faults.invalid_str(&path.child("user"), "", "at least one of user or group must be specified");
    }
    for kind in ["fieldSelector", "labelSelector"] {
        check_selector(&resource[kind], kind, &resource_path, &mut faults);
    }
    let mut meta = body["metadata"].as_object().cloned().unwrap_or_default();
    // What the server sets is nobody's to give.
    for field in ["uid", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        meta.remove(field);
    }
    let told = Value::Object(meta.clone());
    meta.remove("managedFields");
    if matches!(question, Question::Local(_)) {
        meta.remove("namespace");
    }
    if meta.values().any(|value| !value.is_null()) {
        let what = if matches!(question, Question::Local(_)) { "must be empty except for namespace" } else { "must be empty" };
        let message = format!("Invalid value: {}: {what}", shown_meta(&told));
        faults.0.push(Fault { kind: FaultKind::Invalid, field: "metadata".into(), message });
    }
    if let Question::Local(namespace) = question {
        let asked = text(resource, "/namespace");
        if !resource.is_null() && asked != namespace {
            faults.invalid_str(&resource_path.child("namespace"), asked, "must match metadata.namespace");
        }
        if !other.is_null() {
            faults.invalid(&other_path, &shown, "disallowed on this kind of request");
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Status::invalid(AUTHORIZATION, "", "", &faults)) }
}

/// Metadata as JSON, in the order of its declaration.
fn shown_meta(meta: &Value) -> String {
    let Some(ty) = Types::get().named("meta.v1.ObjectMeta") else {
        return meta.to_string();
    };
    let mut members: Vec<_> = meta.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()).collect();
    members.sort_by_key(|(name, _)| ty.field(name).map(|field| field.place));
    let members: Vec<_> = members.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
    format!("{{{}}}", members.join(","))
}

fn check_selector(selector: &Value, kind: &str, path: &Path<'_>, faults: &mut Faults) {
    if selector.is_null() {
        return;
    }
    let path = path.child(kind);
    let raw = text(selector, "/rawSelector");
    let requirements = selector["requirements"].as_array().map_or(0, Vec::len);
    if !raw.is_empty() && requirements > 0 {
        faults.invalid_str(&path.child("rawSelector"), raw, "may not specified at the same time as requirements");
    }
    if raw.is_empty() && requirements == 0 {
        let why = format!("when {path} is specified, requirements or rawSelector is required");
        faults.required(&path.child("requirements"), &why);
    }
    let all = path.child("requirements");
    for (index, requirement) in selector["requirements"].as_array().into_iter().flatten().enumerate() {
        check_requirement(requirement, kind == "labelSelector", &all.index(index), faults);
    }
}

/// Operators that are not known pass: clients may know more of them.
fn check_requirement(requirement: &Value, of_labels: bool, path: &Path<'_>, faults: &mut Faults) {
    let (key, values) = (text(requirement, "/key"), strings(&requirement["values"]));
    let (key_path, values_path) = (path.child("key"), path.child("values"));
    if key.is_empty() && !of_labels {
        faults.required(&key_path, "must be specified");
    }
    match text(requirement, "/operator") {
        "In" | "NotIn" if values.is_empty() => {
            faults.required(&values_path, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            faults.forbidden(&values_path, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        _ => {}
    }
    if of_labels {
        for why in names::qualified_name(key) {
            faults.invalid_str(&key_path, key, &why);
        }
        for (index, value) in values.iter().enumerate() {
            for why in names::label_value(value) {
                faults.invalid_str(&values_path.index(index), value, &why);
            }
        }
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_of_selectors_are_checked_but_for_operators_nobody_knows() {
        let faults = |kind: &str, requirement: Value| {
            let spec = json!({"user": "u", "resourceAttributes": {"verb": "get", kind: {"requirements": [requirement]}}});
            check_access(&json!({"spec": spec}), Question::Subject).err().map(|status| status.message).unwrap_or_default()
        };
        let at = |kind: &str, rest: &str| {
            format!(".authorization.k8s.io \"\" is invalid: spec.resourceAttributes.{kind}.requirements[0].{rest}")
        };
        assert_eq!(faults("labelSelector", json!({"key": "a", "operator": "Like"})), "");
        assert_eq!(
            faults("fieldSelector", json!({"operator": "Like"})),
            at("fieldSelector", "key: Required value: must be specified")
        );
        assert_eq!(
            faults("fieldSelector", json!({"key": "a", "operator": "In"})),
            at("fieldSelector", "values: Required value: must be specified when `operator` is 'In' or 'NotIn'")
        );
        assert_eq!(
            faults("labelSelector", json!({"key": "a", "operator": "Exists", "values": ["b"]})),
            at("labelSelector", "values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        );
        let value = faults("labelSelector", json!({"key": "a", "operator": "In", "values": ["$"]}));
        assert!(value.starts_with(&at("labelSelector", "values[0]: Invalid value: \"$\"")), "{value}");
    }
}
