//! What the parts of an admission policy must look like.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use super::expression::Compiler;
use crate::doc::Read;
use crate::{check, names};

const MAX_CONDITIONS: usize = 64;
const MAX_ANNOTATIONS: usize = 20;
const MAX_ANNOTATION_EXPRESSION: usize = 5 * 1024;

/// The kind of a policy's parameters.
pub(super) fn param_kind(faults: &mut Faults, path: &Path<'_>, found: &Value) {
    let (at, version) = (path.child("apiVersion"), found.text("apiVersion"));
    if version.is_empty() {
        faults.required(&at, "");
    } else if version.matches('/').count() > 1 {
        faults.invalid_str(&at, version, &format!("unexpected GroupVersion string: {version}"));
    } else {
        let (group, short) = version.split_once('/').unwrap_or(("", version));
        if !group.is_empty() {
            joined(faults, &at, group, "", &names::dns_subdomain(group));
        }
        if short.is_empty() {
            faults.invalid_str(&at, version, "version must be specified");
        } else {
            joined(faults, &at, short, "", &names::dns1035_label(short));
        }
    }
    let (at, kind) = (path.child("kind"), found.text("kind"));
    if kind.is_empty() {
        faults.required(&at, "");
    } else {
        let lead = "may have mixed case, but should otherwise match: ";
        joined(faults, &at, kind, lead, &names::dns1035_label(&kind.to_lowercase()));
    }
}

fn joined(faults: &mut Faults, path: &Path<'_>, value: &str, lead: &str, messages: &[String]) {
    if !messages.is_empty() {
        faults.invalid_str(path, value, &format!("{lead}{}", messages.join(",")));
    }
}

/// The conditions of a webhook or policy: few enough, named once each, none empty.
pub(super) fn match_conditions(faults: &mut Faults, path: &Path<'_>, conditions: &[Value], compiler: &Compiler) {
    if conditions.len() > MAX_CONDITIONS {
        faults.too_many(path, conditions.len(), MAX_CONDITIONS);
    }
    let mut seen = std::collections::HashSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let here = path.index(i);
        match condition.text("expression").trim() {
            "" => faults.required(&here.child("expression"), ""),
            expression => compiler.condition(faults, &here.child("expression"), expression),
        }
        let (at, name) = (here.child("name"), condition.text("name"));
        if name.is_empty() {
            faults.required(&at, "");
            continue;
        }
        check::qualified_name(faults, &at, name);
        if !seen.insert(name) {
            check::duplicate(faults, &at, name);
        }
    }
}

/// Names of resources in a policy's rule.
pub(super) fn resource_names(faults: &mut Faults, path: &Path<'_>, rule: &Value) {
    let at = path.child("resourceNames");
    let mut seen = std::collections::HashSet::new();
    for (i, name) in rule.texts("resourceNames").enumerate() {
        check::invalid_each(faults, &at.index(i), name, names::name_is_path_segment(name, false));
        if !seen.insert(name) {
            check::duplicate(faults, &at.index(i), name);
        }
    }
}

/// Named expressions; each may use those before it, and what comes after them all of them.
pub(super) fn variables(faults: &mut Faults, path: &Path<'_>, variables: &[Value], compiler: &mut Compiler) {
    if !variables.is_empty() {
        compiler.declare_variables();
    }
    for (i, variable) in variables.iter().enumerate() {
        let here = path.index(i);
        let name = variable.text("name");
        if name.trim().is_empty() {
            faults.required(&here.child("name"), "name is not specified");
        } else if !is_identifier(name) {
            faults.invalid_str(&here.child("name"), name, "must be a valid CEL identifier");
        }
        let expression = variable.text("expression");
        if expression.trim().is_empty() {
            faults.required(&here.child("expression"), "expression is not specified");
        } else {
            compiler.variable(faults, &here.child("expression"), name, expression);
        }
    }
}

fn is_identifier(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
        && !corten_cel::is_reserved(name)
}

/// What the type checker says of a policy, and its conditions.
pub(super) fn status(status: &Value) -> Faults {
    let mut faults = Faults::default();
    let path = Path::new("status");
    let (checking, at) = (&status["typeChecking"], path.child("typeChecking"));
    let at = at.child("expressionWarnings");
    for (i, warning) in checking.list("expressionWarnings").iter().enumerate() {
        let at = at.index(i);
        if warning.text("warning").is_empty() {
            faults.required(&at.child("warning"), "");
        }
        let place = warning.text("fieldRef").trim();
        if place.is_empty() {
            faults.required(&at.child("fieldRef"), "");
        } else if let Err(why) = crate::json_path::parse(&format!("{{{place}}}")) {
            faults.invalid_str(&at.child("fieldRef"), place, &format!("invalid JSONPath: {why}"));
        }
    }
    check::conditions(&mut faults, &path.child("conditions"), status.list("conditions"));
    faults
}

/// One of a validating policy's validations.
pub(super) fn validation(faults: &mut Faults, path: &Path<'_>, item: &Value, compiler: &Compiler) {
    let text = item.text("expression");
    if text.trim().is_empty() {
        faults.required(&path.child("expression"), "expression is not specified");
    } else {
        compiler.validation(faults, &path.child("expression"), text);
    }
    let text = item.text("messageExpression");
    if !text.trim().is_empty() {
        compiler.message(faults, &path.child("messageExpression"), text);
    } else if !text.is_empty() {
        faults.invalid_str(&path.child("messageExpression"), text, "must be non-empty if specified");
    }
    let text = item.text("message");
    if !text.is_empty() && text.trim().is_empty() {
        faults.invalid_str(&path.child("message"), text, "must be non-empty if specified");
    } else if text.trim().contains(['\n', '\r']) {
        faults.invalid_str(&path.child("message"), text, "must not contain line breaks");
    }
    if let Some(reason) = item.opt_text("reason") {
        check::one_of(faults, &path.child("reason"), reason, &["Forbidden", "Invalid", "RequestEntityTooLarge"]);
    }
}

/// What a policy called `policy` adds to the audit log.
pub(super) fn audit_annotations(faults: &mut Faults, path: &Path<'_>, policy: &str, list: &Value, compiler: &Compiler) {
    let all = list.as_array().map_or(&[][..], Vec::as_slice);
    if all.len() > MAX_ANNOTATIONS {
        faults.invalid(path, list, &format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations"));
    }
    let mut seen = std::collections::HashSet::new();
    for (i, item) in all.iter().enumerate() {
        let here = path.index(i);
        let (at, key) = (here.child("key"), item.text("key"));
        if policy.is_empty() {
            faults.invalid_str(&at, key, "requires metadata.name be non-empty");
        } else {
            check::qualified_name(faults, &at, &format!("{policy}/{key}"));
        }
        let expression = item.text("valueExpression").trim();
        if expression.is_empty() {
            faults.required(&here.child("valueExpression"), "valueExpression is not specified");
        } else if expression.len() > MAX_ANNOTATION_EXPRESSION {
            let detail = format!("must not exceed {MAX_ANNOTATION_EXPRESSION} bytes in length");
            faults.required(&here.child("valueExpression"), &detail);
        } else {
            compiler.annotation(faults, &here.child("valueExpression"), item.text("valueExpression"));
        }
        if !seen.insert(key) {
            check::duplicate(faults, &at, key);
        }
    }
}
