//! `admissionregistration.k8s.io` and `apiregistration.k8s.io`: defaults, generations, validation, table rows.

mod expression;
mod policy;

pub use expression::{CompiledPolicy, Expression, Mutation, Validation};

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write, semantic_equal};
use crate::{Column, Context, Strategy, check, columns, meta, names, table};

/// `ValidatingWebhookConfiguration` or `MutatingWebhookConfiguration`.
pub(crate) struct Webhooks {
    pub(crate) mutating: bool,
}

impl Strategy for Webhooks {
    fn default(&self, object: &mut Value) {
        for hook in object.items("webhooks") {
            for (key, value) in
                [("failurePolicy", json!("Fail")), ("matchPolicy", json!("Equivalent")), ("timeoutSeconds", json!(10))]
            {
                if !hook.has(key) {
                    hook.put(key, value);
                }
            }
            if self.mutating && !hook.has("reinvocationPolicy") {
                hook.put("reinvocationPolicy", "Never");
            }
            hook.object("namespaceSelector");
            hook.object("objectSelector");
            hook.items("rules").for_each(default_scope);
            default_port(hook.object("clientConfig"));
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        meta::set_generation(object, 1);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        meta::bump_generation_exactly(object, old, |object| &object["webhooks"]);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        webhooks(object, self.mutating, &Lax::default())
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        webhooks(object, self.mutating, &Lax::of(object.list("webhooks"), old.list("webhooks")))
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        if self.mutating { columns::MUTATINGWEBHOOKCONFIGURATIONS } else { columns::VALIDATINGWEBHOOKCONFIGURATIONS }
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![table::name(object), object.list("webhooks").len().into(), table::age(object, now)]
    }
}

fn default_scope(rule: &mut Value) {
    if !rule.has("scope") {
        rule.put("scope", "*");
    }
}

fn default_port(client: &mut Value) {
    if let Some(service) = client.child("service")
        && !service.has("port")
    {
        service.put("port", 443);
    }
}

/// What the webhooks there have already that is forbidden today, and so may stay.
#[derive(Default)]
struct Lax {
    side_effects: bool,
    versions: bool,
    names: bool,
    labels: bool,
    /// The conditions are what they were: what was good once is not compiled again.
    conditions: bool,
}

impl Lax {
    fn of(new: &[Value], old: &[Value]) -> Self {
        let mut seen = HashSet::new();
        let selector_is_wrong = |hook: &Value, key: &str| {
            let mut faults = Faults::default();
            check::label_selector(&mut faults, &Path::new(key), &hook[key], false);
            !faults.is_empty()
        };
        Self {
            side_effects: old.iter().any(|hook| !SIDE_EFFECTS.contains(&hook.text("sideEffects"))),
            versions: old.iter().any(|hook| hook.texts("admissionReviewVersions").all(|version| !VERSIONS.contains(&version))),
            names: !old.iter().all(|hook| seen.insert(hook.text("name"))),
            labels: old.iter().any(|hook| SELECTORS.iter().any(|key| selector_is_wrong(hook, key))),
            conditions: new.len() == old.len()
                && new.iter().zip(old).all(|(new, old)| new["matchConditions"] == old["matchConditions"]),
        }
    }
}

const SELECTORS: [&str; 2] = ["namespaceSelector", "objectSelector"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

fn webhooks(object: &Value, mutating: bool, lax: &Lax) -> Faults {
    let mut faults = Faults::default();
    let path = Path::new("webhooks");
    let mut seen = HashSet::new();
    for (i, hook) in object.list("webhooks").iter().enumerate() {
        let at = path.index(i);
        let name = hook.text("name");
        if name.is_empty() {
            faults.required(&at.child("name"), "");
        } else {
            check::invalid_each(&mut faults, &at.child("name"), name, names::fully_qualified(name));
        }
        webhook(&mut faults, &at, hook, mutating, lax);
        if !name.is_empty() && !seen.insert(name) && !lax.names {
            check::duplicate(&mut faults, &at.child("name"), name);
        }
    }
    faults
}

fn webhook(faults: &mut Faults, path: &Path<'_>, hook: &Value, mutating: bool, lax: &Lax) {
    let rules = path.child("rules");
    for (i, item) in hook.list("rules").iter().enumerate() {
        rule(faults, &rules.index(i), item);
    }
    check::optional_one_of(faults, path, hook, "failurePolicy", &["Fail", "Ignore"]);
    check::optional_one_of(faults, path, hook, "matchPolicy", &["Equivalent", "Exact"]);
    let effects: &[&str] = if lax.side_effects { &["None", "NoneOnDryRun", "Some", "Unknown"] } else { SIDE_EFFECTS };
    match hook.opt_text("sideEffects") {
        None => faults.required(&path.child("sideEffects"), &format!("must specify one of {}", effects.join(", "))),
        Some(found) => check::one_of(faults, &path.child("sideEffects"), found, effects),
    }
    if let Some(seconds) = hook.opt_int("timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        faults.invalid_int(&path.child("timeoutSeconds"), seconds, detail);
    }
    for key in SELECTORS {
        check::label_selector(faults, &path.child(key), &hook[key], lax.labels);
    }
    if mutating {
        check::optional_one_of(faults, path, hook, "reinvocationPolicy", &["IfNeeded", "Never"]);
    }
    client(faults, &path.child("clientConfig"), &hook["clientConfig"]);
    if !lax.conditions {
        let conditions = hook.list("matchConditions");
        policy::match_conditions(faults, &path.child("matchConditions"), conditions, &expression::Compiler::of_webhook());
    }
    let versions: Vec<&str> = hook.texts("admissionReviewVersions").collect();
    let at = path.child("admissionReviewVersions");
    if versions.is_empty() {
        faults.required(&at, "must specify one of v1, v1beta1");
    } else {
        let mut seen = HashSet::new();
        for (i, version) in versions.iter().enumerate() {
            if !seen.insert(*version) {
                faults.invalid_str(&at.index(i), version, "duplicate version");
                continue;
            }
            check::invalid_each(faults, &at.index(i), version, names::dns1035_label(version));
        }
        if !lax.versions && !versions.iter().any(|version| VERSIONS.contains(version)) {
            faults.invalid(&at, &hook["admissionReviewVersions"], "must include at least one of v1, v1beta1");
        }
    }
}

/// How a webhook is called: at an address, or through a service.
pub(crate) fn client(faults: &mut Faults, path: &Path<'_>, client: &Value) {
    match (client.opt_text("url"), client.opt("service")) {
        (Some(text), None) => url(faults, &path.child("url"), text),
        (None, Some(service)) => service_reference(faults, &path.child("service"), service),
        _ => faults.required(path, "exactly one of url or service is required"),
    }
}

/// The address of a webhook: `https`, a host, and a path at most. Each fault shows the part that is wrong.
fn url(faults: &mut Faults, path: &Path<'_>, url: &str) {
    const FORM: &str = "desired format: https://host[/path]";
    if let Err(why) = parses(url) {
        let shown = corten_api::field::quoted(url);
        return faults.required(path, &format!("url must be a valid URL: parse {shown}: {why}; {FORM}"));
    }
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = match rest.split_once(':') {
        Some((scheme, rest)) if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !scheme.contains('/') => (scheme, rest),
        _ => ("", rest),
    };
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or_default());
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        faults.invalid_str(path, scheme, &format!("'https' is the only allowed URL scheme; {FORM}"));
    }
    if host.is_empty() {
        faults.invalid_str(path, host, &format!("host must be specified; {FORM}"));
    }
    if let Some(user) = user {
        faults.invalid_str(path, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        faults.invalid_str(path, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        faults.invalid_str(path, query, "query parameters are not permitted in the URL");
    }
}

/// The first `%` of a text without two hexadecimal digits behind it, with what is there of them.
fn bad_escape(text: &str) -> Option<&str> {
    text.match_indices('%').map(|(at, _)| &text[at..]).find_map(|rest| {
        let hex = rest.as_bytes().get(1..3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let end = rest.char_indices().nth(3).map_or(rest.len(), |(end, _)| end);
        (!hex).then(|| &rest[..end])
    })
}

/// Whether Go's `net/url` can make sense of a text at all.
fn parses(url: &str) -> Result<(), String> {
    if url.bytes().any(|b| b.is_ascii_control()) {
        return Err("net/url: invalid control character in URL".into());
    }
    let url = url.split_once('#').map_or(url, |(rest, _)| rest);
    if url.starts_with(':') {
        return Err("missing protocol scheme".into());
    }
    let is_scheme = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", url));
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    let escapes = |part: &str| match bad_escape(part) {
        Some(wrong) => Err(format!("invalid URL escape {}", corten_api::field::quoted(wrong))),
        None => Ok(()),
    };
    if !rest.starts_with('/') {
        let segment = rest.split('/').next().unwrap_or_default();
        if scheme.is_empty() && segment.contains(':') {
            return Err("first path segment in URL cannot contain colon".into());
        }
        // What follows a scheme without a slash is opaque.
        return if scheme.is_empty() { escapes(rest) } else { Ok(()) };
    }
    let Some((authority, path)) = rest.strip_prefix("//").map(|rest| rest.split_at(rest.find('/').unwrap_or(rest.len()))) else {
        return escapes(rest);
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(wrong) = host.chars().find(|c| " \"<>\\^`{|}".contains(*c)) {
        return Err(format!("invalid character {} in host name", corten_api::field::quoted(&wrong.to_string())));
    }
    let after = if host.starts_with('[') { host.rfind(']').map_or("", |end| &host[end + 1..]) } else { host };
    match after.rfind(':').map(|at| &after[at..]) {
        Some(port) if !port[1..].bytes().all(|b| b.is_ascii_digit()) => {
            Err(format!("invalid port {} after host", corten_api::field::quoted(port)))
        }
        _ => escapes(host).and_then(|()| escapes(path)),
    }
}

fn service_reference(faults: &mut Faults, path: &Path<'_>, service: &Value) {
    // Upstream takes one for the other, and so tells of the wrong one.
    for (key, told) in [("namespace", "name"), ("name", "namespace")] {
        if service.text(key).is_empty() {
            faults.required(&path.child(told), "");
        }
    }
    let port = service.int("port");
    if !(1..=65535).contains(&port) {
        faults.invalid_int(&path.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    let at = path.child("path");
    let text = match service.text("path") {
        "" | "/" => return,
        "//" => return faults.invalid_str(&at, "//", "segment[0] may not be empty"),
        text => text,
    };
    if !text.starts_with('/') {
        faults.invalid_str(&at, text, "must start with a '/'");
    }
    // The first character counts as the slash, whatever it is.
    let mut rest = text.chars();
    rest.next();
    let rest = rest.as_str();
    for (i, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            faults.invalid_str(&at, text, &format!("segment[{i}] may not be empty"));
            continue;
        }
        for message in names::dns_subdomain(segment) {
            faults.invalid_str(&at, text, &format!("segment[{i}]: {message}"));
        }
    }
}

fn rule(faults: &mut Faults, path: &Path<'_>, rule: &Value) {
    let lists = [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")];
    for (key, what) in lists {
        let all = rule.list(key);
        let at = path.child(key);
        if all.is_empty() {
            faults.required(&at, "");
        }
        if all.len() > 1 && all.contains(&json!("*")) {
            let what = if key == "operations" { "operations" } else { what };
            faults.invalid(&at, &rule[key], &format!("if '*' is present, must not specify other {what}"));
        }
        for (i, value) in rule.texts(key).enumerate() {
            if key == "operations" {
                check::one_of(faults, &at.index(i), value, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]);
            } else if key == "apiVersions" && value.is_empty() {
                faults.required(&at.index(i), "");
            }
        }
    }
    resources(faults, &path.child("resources"), &rule["resources"], rule.texts("resources"));
    check::optional_one_of(faults, path, rule, "scope", &["*", "Cluster", "Namespaced"]);
}

/// The resources of a rule, with or without a subresource: a wildcard must not cover what is named beside it.
fn resources<'a>(faults: &mut Faults, path: &Path<'_>, shown: &Value, all: impl Iterator<Item = &'a str>) {
    let (mut whole, mut of_any) = (HashSet::new(), HashSet::new());
    let (mut count, mut everything, mut any, mut plain) = (0, false, false, false);
    for (i, item) in all.enumerate() {
        count += 1;
        if item.is_empty() {
            faults.required(&path.index(i), "");
            continue;
        }
        everything |= item == "*/*";
        any |= item == "*";
        let Some((resource, sub)) = item.split_once('/') else {
            // Only the last of the plain names counts, as the reference server has it.
            plain = item != "*";
            continue;
        };
        if whole.contains(resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {item}");
            faults.invalid_str(&path.index(i), item, &detail);
        }
        if of_any.contains(sub) {
            let detail = format!("if '*/{sub}' is present, must not specify {item}");
            faults.invalid_str(&path.index(i), item, &detail);
        }
        if sub == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            of_any.insert(sub);
        }
    }
    if count == 0 {
        faults.required(path, "");
    }
    if count > 1 && everything {
        faults.invalid(path, shown, "if '*/*' is present, must not specify other resources");
    }
    if any && plain {
        faults.invalid(path, shown, "if '*' is present, must not specify other resources without subresources");
    }
}

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

    fn prepare_update(&self, object: &mut Value, old: &Value, ctx: &Context<'_>) {
        if ctx.subresource == "status" {
            object.copy_from(old, "spec");
            meta::reset_for_status(object, old);
            return;
        }
        if !self.mutating {
            object.copy_from(old, "status");
        }
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        self.faults(object, None)
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        if ctx.subresource == "status" { policy::status(&object["status"]) } else { self.faults(object, Some(old)) }
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

fn default_match(constraints: &mut Value) {
    if !constraints.has("matchPolicy") {
        constraints.put("matchPolicy", "Equivalent");
    }
    constraints.object("namespaceSelector");
    constraints.object("objectSelector");
    for key in ["resourceRules", "excludeResourceRules"] {
        constraints.items(key).for_each(default_scope);
    }
}

fn match_resources(faults: &mut Faults, path: &Path<'_>, constraints: &Value, needs_rules: bool) {
    check::optional_one_of(faults, path, constraints, "matchPolicy", &["Equivalent", "Exact"]);
    for key in ["namespaceSelector", "objectSelector"] {
        check::label_selector(faults, &path.child(key), &constraints[key], false);
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        let at = path.child(key);
        for (i, item) in constraints.list(key).iter().enumerate() {
            policy::resource_names(faults, &at.index(i), item);
            rule(faults, &at.index(i), item);
        }
    }
    if needs_rules && constraints.list("resourceRules").is_empty() {
        faults.required(&path.child("resourceRules"), "");
    }
}

/// What is deleted cannot be changed.
fn changeable(faults: &mut Faults, path: &Path<'_>, constraints: &Value) {
    let at = path.child("resourceRules");
    for operation in constraints.list("resourceRules").iter().flat_map(|rule| rule.texts("operations")) {
        check::one_of(faults, &at.child("operations"), operation, &["*", "CONNECT", "CREATE", "UPDATE"]);
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

/// `ValidatingAdmissionPolicyBinding` or `MutatingAdmissionPolicyBinding`.
pub(crate) struct PolicyBindings {
    pub(crate) mutating: bool,
}

impl Strategy for PolicyBindings {
    fn default(&self, object: &mut Value) {
        let spec = object.object("spec");
        if spec.has("matchResources") {
            default_match(spec.object("matchResources"));
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        meta::set_generation(object, 1);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let spec = &object["spec"];
        let path = Path::new("spec");
        let name = spec.text("policyName");
        if name.is_empty() {
            faults.required(&path.child("policyName"), "");
        } else {
            check::dns_subdomain(&mut faults, &path.child("policyName"), name);
        }
        if let Some(reference) = spec.opt("paramRef") {
            let at = path.child("paramRef");
            let (named, selected) = (!reference.text("name").is_empty(), reference.has("selector"));
            const ONE: &str = "name and selector are mutually exclusive";
            if named {
                let wrong = names::name_is_path_segment(reference.text("name"), false);
                check::invalid_each(&mut faults, &at.child("name"), reference.text("name"), wrong);
            }
            if named && selected {
                faults.forbidden(&at.child("name"), ONE);
            }
            check::label_selector(&mut faults, &at.child("selector"), &reference["selector"], false);
            if named && selected {
                faults.forbidden(&at.child("selector"), ONE);
            } else if !named && !selected {
                faults.required(&at, "one of name or selector must be specified");
            }
            match reference.opt_text("parameterNotFoundAction").filter(|action| !action.is_empty()) {
                None => faults.required(&at.child("parameterNotFoundAction"), ""),
                Some(action) => check::one_of(&mut faults, &at.child("parameterNotFoundAction"), action, &["Deny", "Allow"]),
            }
        }
        if let Some(found) = spec.opt("matchResources") {
            match_resources(&mut faults, &path.child("matchResources"), found, false);
            if self.mutating {
                changeable(&mut faults, &path.child("matchResources"), found);
            }
        }
        if !self.mutating {
            let at = path.child("validationActions");
            let actions: Vec<&str> = spec.texts("validationActions").collect();
            if actions.is_empty() {
                faults.required(&at, "at least one validation action is required");
            }
            for (i, action) in actions.iter().enumerate() {
                check::one_of(&mut faults, &at.index(i), action, &["Audit", "Deny", "Warn"]);
                if actions[..i].contains(action) {
                    check::duplicate(&mut faults, &at.index(i), action);
                }
            }
            if actions.contains(&"Deny") && actions.contains(&"Warn") {
                let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                              response and headers serves no purpose)";
                faults.invalid(&at, &spec["validationActions"], detail);
            }
        }
        faults
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        if self.mutating { columns::MUTATINGADMISSIONPOLICYBINDINGS } else { columns::VALIDATINGADMISSIONPOLICYBINDINGS }
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let reference = spec.opt("paramRef").map_or("<unset>".to_owned(), |reference| {
            match (reference.opt_text("namespace"), reference.text("name")) {
                (_, "") if self.mutating && reference.has("selector") => selector_text(&reference["selector"]),
                (_, "") => "*".to_owned(),
                (Some(namespace), name) if !namespace.is_empty() => format!("{namespace}/{name}"),
                (_, name) => format!("*/{name}"),
            }
        });
        vec![table::name(object), spec.text("policyName").into(), reference.into(), table::age(object, now)]
    }
}

/// A label selector as Go prints the struct.
fn selector_text(selector: &Value) -> String {
    let labels: Vec<String> = selector
        .map("matchLabels")
        .iter()
        .map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or_default()))
        .collect();
    let requirements = selector.list("matchExpressions").iter().map(|requirement| {
        let values = requirement.texts("values").collect::<Vec<_>>().join(" ");
        let (key, operator) = (requirement.text("key"), requirement.text("operator"));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    });
    let (labels, requirements) = (labels.concat(), requirements.collect::<String>());
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )
}

pub(crate) struct ApiServices;

impl Strategy for ApiServices {
    fn default(&self, object: &mut Value) {
        default_port(object.object("spec"));
        object.object("status");
    }

    fn prepare_create(&self, object: &mut Value, ctx: &Context<'_>) {
        let mut status = json!({});
        if !object["spec"].has("service") {
            status.put(
                "conditions",
                json!([{
                    "type": "Available", "status": "True", "reason": "Local", "message": "Local APIServices are always available",
                    "lastTransitionTime": corten_api::time::seconds(ctx.now),
                }]),
            );
        }
        object.put("status", status);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, ctx: &Context<'_>) {
        if ctx.subresource == "status" {
            object.copy_from(old, "spec");
            meta::reset_for_status(object, old);
        } else {
            object.copy_from(old, "status");
        }
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let spec = &object["spec"];
        let path = Path::new("spec");
        let (group, version) = (spec.text("group"), spec.text("version"));
        if !group.is_empty() {
            check::dns_subdomain(&mut faults, &path.child("group"), group);
        } else if version != "v1" {
            let detail = "only v1 may have an empty group and it better be legacy kube";
            faults.required(&path.child("group"), detail);
        }
        check::invalid_each(&mut faults, &path.child("version"), version, names::dns1035_label(version));
        for (key, below) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let value = spec.int(key);
            if value <= 0 || value > below {
                faults.invalid_int(&path.child(key), value, &format!("must be positive and less than {below}"));
            }
        }
        match spec.opt("service") {
            None => {
                if !spec.text("caBundle").is_empty() {
                    faults.invalid_str(
                        &path.child("caBundle"),
                        &format!("{} bytes", spec.text("caBundle").trim_end_matches('=').len() * 3 / 4),
                        "local APIServices may not have a caBundle",
                    );
                }
                if spec.flag("insecureSkipTLSVerify") {
                    let detail = "local APIServices may not have insecureSkipTLSVerify";
                    faults.invalid(&path.child("insecureSkipTLSVerify"), &json!(true), detail);
                }
            }
            Some(service) => {
                let at = path.child("service");
                for key in ["namespace", "name"] {
                    if service.text(key).is_empty() {
                        faults.required(&at.child(key), "");
                    }
                }
                let port = service.int("port");
                if !(1..=65535).contains(&port) {
                    let detail = "port is not valid: must be between 1 and 65535, inclusive";
                    faults.invalid_int(&at.child("port"), port, detail);
                }
                if spec.flag("insecureSkipTLSVerify") && !spec.text("caBundle").is_empty() {
                    let detail = "may not be true if caBundle is present";
                    faults.invalid(&path.child("insecureSkipTLSVerify"), &json!(true), detail);
                }
            }
        }
        faults
    }

    fn validate_update(&self, object: &Value, _: &Value, ctx: &Context<'_>) -> Faults {
        if ctx.subresource != "status" {
            return self.validate(object, ctx);
        }
        let mut faults = Faults::default();
        let path = Path::new("status");
        let conditions = path.child("conditions");
        for (i, condition) in object["status"].list("conditions").iter().enumerate() {
            let at = conditions.index(i);
            check::one_of(&mut faults, &at.child("status"), condition.text("status"), &["True", "False", "Unknown"]);
        }
        faults
    }

    fn validate_name_of(&self, object: &Value, name: &str, _: bool) -> Vec<String> {
        let wrong = names::name_is_path_segment(name, false);
        let wanted = format!("{}.{}", object["spec"].text("version"), object["spec"].text("group"));
        if wrong.is_empty() && name != wanted {
            return vec![format!("must be `spec.version+\".\"+spec.group`: {}", corten_api::field::quoted(&wanted))];
        }
        wrong
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        columns::APISERVICES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let service = object["spec"]
            .opt("service")
            .map_or("Local".to_owned(), |service| format!("{}/{}", service.text("namespace"), service.text("name")));
        let available = object["status"].list("conditions").iter().find(|condition| condition.text("type") == "Available");
        let state = available.map_or("Unknown".to_owned(), |condition| match condition.text("status") {
            "True" => "True".to_owned(),
            other => format!("{other} ({})", condition.text("reason")),
        });
        vec![table::name(object), service.into(), state.into(), table::age(object, now)]
    }
}
