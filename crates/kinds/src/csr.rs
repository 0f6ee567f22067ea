//! CertificateSigningRequests.

use base64::Engine;
use corten_api::field::{Faults, Path, quoted};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, names, table};

/// Longest domain, and longest name with its path, of a signer.
const DOMAIN_BYTES: usize = 253;
const SIGNER_BYTES: usize = DOMAIN_BYTES + 1 + DOMAIN_BYTES + 63 + 1;

/// The name of a signer: a domain of at least two labels, and a path.
pub(crate) fn signer_name(faults: &mut Faults, path: &Path<'_>, name: &str) {
    if name.is_empty() {
        return faults.required(path, "");
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return faults.invalid_str(path, name, form);
    };
    if domain.len() > DOMAIN_BYTES {
        faults.too_long(path, DOMAIN_BYTES);
    }
    first_bad_label(faults, path, domain, names::dns_label);
    if !domain.contains('.') {
        faults.invalid_str(path, domain, "should be a domain with at least two segments separated by dots");
    }
    first_bad_label(faults, path, rest, names::dns_subdomain);
    if name.len() > SIGNER_BYTES {
        faults.too_long(path, SIGNER_BYTES);
    }
}

/// Reports only the first part between dots that is wrong: the others would repeat it.
fn first_bad_label(faults: &mut Faults, path: &Path<'_>, text: &str, rule: impl Fn(&str) -> Vec<String>) {
    let found = text.split('.').map(|label| (label, rule(label))).find(|(_, wrong)| !wrong.is_empty());
    if let Some((label, wrong)) = found {
        for message in wrong {
            faults.invalid_str(path, text, &format!("validating label {}: {message}", quoted(label)));
        }
    }
}

/// The strategy.
pub(crate) struct CertificateSigningRequests;

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

impl Strategy for CertificateSigningRequests {
    fn default(&self, object: &mut Value) {
        object.object("status");
    }

    /// The requester is who made the request, whatever the body says.
    fn prepare_create(&self, object: &mut Value, ctx: &Context<'_>) {
        let spec = object.object("spec");
        let text = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
        spec.put("username", text(ctx.user));
        spec.put("uid", text(ctx.user_uid));
        spec.put("groups", if ctx.groups.is_empty() { Value::Null } else { json!(ctx.groups) });
        spec.put("extra", if ctx.extra.is_empty() { Value::Null } else { json!(ctx.extra) });
        object.put("status", json!({}));
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        spec(&object["spec"], None)
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, ctx: &Context<'_>) {
        object.copy_from(old, "spec");
        let conditions = object["status"]["conditions"].clone();
        object.copy_from(old, "status");
        if ctx.subresource == "approval" {
            object.object("status").put("conditions", conditions);
            stamp(object, old, ctx);
        }
    }

    /// Approval is for those who may approve: what there is of it stays as it is, and more or less of it is a fault.
    fn prepare_status(&self, object: &mut Value, old: &Value, ctx: &Context<'_>) {
        object.copy_from(old, "spec");
        for kind in ["Approved", "Denied"] {
            let of_kind = |condition: &&Value| condition.text("type") == kind;
            let before: Vec<Value> = old["status"].list("conditions").iter().filter(of_kind).cloned().collect();
            let now = object["status"].list("conditions").iter().filter(of_kind).count();
            if now == before.len() {
                let places = object.object("status").items("conditions").filter(|one| one.text("type") == kind);
                places.zip(before).for_each(|(place, before)| *place = before);
            }
        }
        stamp(object, old, ctx);
    }

    fn validate_status(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        self.validate_update(object, old, ctx)
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = spec(&object["spec"], Some(&old["spec"]));
        let root = Path::new("status");
        let path = root.child("conditions");
        let (now, before) = (object["status"].list("conditions"), old["status"].list("conditions"));
        conditions(&mut faults, &path, now, before);
        let (certificate, had) = (object["status"].text("certificate"), old["status"].text("certificate"));
        if certificate != had
            && let Some(why) = crate::pem::certificates_fault(&bytes(certificate))
        {
            faults.invalid_str(&root.child("certificate"), "<certificate data>", &why);
        }
        let count = |list: &[Value], kind: &str| list.iter().filter(|condition| condition.text("type") == kind).count();
        for kind in ["Approved", "Denied", "Failed"] {
            if count(now, kind) < count(before, kind) {
                faults.forbidden(&path, &format!("updates may not remove a condition of type {kind:?}"));
            }
        }
        if ctx.subresource != "approval" {
            for kind in ["Approved", "Denied"] {
                if count(now, kind) > count(before, kind) {
                    faults.forbidden(&path, &format!("updates may not add a condition of type {kind:?}"));
                }
            }
        }
        if certificate != had {
            if ctx.subresource != "status" {
                faults.forbidden(&root.child("certificate"), "updates may not set certificate content");
            } else if !had.is_empty() {
                faults.forbidden(&root.child("certificate"), "updates may not modify existing certificate content");
            }
        }
        faults
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        // Any name will do that can stand in a path.
        names::name_is_path_segment(name, prefix)
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", object["spec"].text("signerName").into())]
    }

    fn columns(&self) -> &'static [Column] {
        columns::CERTIFICATESIGNINGREQUESTS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let has = |kind: &str| status.list("conditions").iter().any(|condition| condition.text("type") == kind);
        let mut state = if has("Denied") {
            "Denied".to_owned()
        } else if has("Approved") {
            "Approved".to_owned()
        } else {
            "Pending".to_owned()
        };
        if has("Failed") {
            state.push_str(",Failed");
        }
        if !status.text("certificate").is_empty() {
            state.push_str(",Issued");
        }
        let duration = spec.opt_int("expirationSeconds").map_or("<none>".to_owned(), table::duration);
        vec![
            table::name(object),
            table::age(object, now),
            table::or(spec.text("signerName"), "<none>").into(),
            spec.text("username").into(),
            duration.into(),
            state.into(),
        ]
    }
}

/// What is wrong with a request. Some of what older versions took is let be where the `old` one had it.
fn spec(spec: &Value, old: Option<&Value>) -> Faults {
    let mut faults = Faults::default();
    let path = Path::new("spec");
    let request = &spec["request"];
    if let Some(why) = crate::pem::request_fault(&bytes(request.as_str().unwrap_or_default())) {
        faults.invalid(&path.child("request"), request, &why);
    }
    let usages: Vec<&str> = spec.texts("usages").collect();
    let at = path.child("usages");
    if usages.is_empty() {
        faults.required(&at, "");
    }
    let old_usages: Vec<&str> = old.into_iter().flat_map(|old| old.texts("usages")).collect();
    if old_usages.iter().all(|usage| USAGES.contains(usage)) {
        for (i, usage) in usages.iter().enumerate() {
            check::one_of(&mut faults, &at.index(i), usage, USAGES);
        }
    }
    let mut seen = std::collections::HashSet::new();
    if old_usages.iter().all(|usage| seen.insert(*usage)) {
        check::unique_texts(&mut faults, &at, usages.into_iter());
    }
    const LEGACY: &str = "kubernetes.io/legacy-unknown";
    let at = path.child("signerName");
    match spec.text("signerName") {
        LEGACY if old.is_none_or(|old| old.text("signerName") != LEGACY) => {
            faults.invalid_str(&at, LEGACY, "the legacy signerName is not allowed via this API version");
        }
        name => signer_name(&mut faults, &at, name),
    }
    if let Some(seconds) = spec.opt_int("expirationSeconds").filter(|seconds| *seconds < 600) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        faults.invalid_int(&path.child("expirationSeconds"), seconds, detail);
    }
    faults
}

/// New and changed conditions get the time at which they came.
fn stamp(object: &mut Value, old: &Value, ctx: &Context<'_>) {
    let now = corten_api::time::seconds(ctx.now);
    for condition in object.object("status").items("conditions") {
        if !condition.has("lastTransitionTime") {
            let same = |had: &&Value| ["type", "status"].iter().all(|key| had.text(key) == condition.text(key));
            let mut before = old["status"].list("conditions").iter().filter(same);
            let time = before.find_map(|had| had.opt("lastTransitionTime").cloned());
            condition.put("lastTransitionTime", time.unwrap_or_else(|| json!(now)));
        }
        if !condition.has("lastUpdateTime") {
            condition.put("lastUpdateTime", now.clone());
        }
    }
}

fn conditions(faults: &mut Faults, path: &Path<'_>, list: &[Value], before: &[Value]) {
    let has = |list: &[Value], kind: &str| list.iter().any(|condition| condition.text("type") == kind);
    let (both_before, unnamed_before) = (has(before, "Approved") && has(before, "Denied"), has(before, ""));
    let mut seen = std::collections::HashSet::new();
    let doubled_before = !before.iter().all(|condition| seen.insert(condition.text("type")));
    seen.clear();
    for (i, condition) in list.iter().enumerate() {
        let at = path.index(i);
        let (kind, status) = (condition.text("type"), condition.text("status"));
        if kind.is_empty() && !unnamed_before {
            faults.required(&at.child("type"), "");
        }
        match (kind, status) {
            (_, "") => faults.required(&at.child("status"), ""),
            ("Approved" | "Denied" | "Failed", status) => check::one_of(faults, &at.child("status"), status, &["True"]),
            (_, status) => check::one_of(faults, &at.child("status"), status, &["False", "True", "Unknown"]),
        }
        let opposite = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !opposite.is_empty() && seen.contains(opposite) && !both_before {
            faults.invalid_str(path, kind, "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(kind) && !doubled_before {
            check::duplicate(faults, &at.child("type"), kind);
        }
    }
}

fn bytes(base64: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(base64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{context, shown};

    #[test]
    fn what_was_taken_once_may_stay() {
        let request = |more: Value| {
            let mut spec = json!({"signerName": "a.example/b", "usages": ["any"]});
            for (key, value) in more.as_object().into_iter().flatten() {
                spec[key] = value.clone();
            }
            json!({"spec": spec, "status": {}})
        };
        let faults = |new: Value, old: Value| {
            let all = shown(&CertificateSigningRequests.validate_update(&request(new), &request(old), &context("")));
            // Neither has a request that is one.
            all.into_iter().filter(|fault| !fault.starts_with("spec.request")).collect::<Vec<_>>()
        };
        let odd = json!({"usages": ["x", "x"], "signerName": "kubernetes.io/legacy-unknown"});
        assert_eq!(faults(odd.clone(), odd.clone()), Vec::<String>::new());
        let fresh = faults(odd, json!({}));
        let fields: Vec<&str> = fresh.iter().map(|fault| fault.split(':').next().unwrap()).collect();
        assert_eq!(fields, ["spec.usages[0]", "spec.usages[1]", "spec.usages[1]", "spec.signerName"]);
        let short = json!({"expirationSeconds": 63});
        let why = "spec.expirationSeconds: Invalid value: 63: may not specify a duration less than 600 seconds (10 minutes)";
        assert_eq!(faults(short.clone(), short), [why]);
    }

    #[test]
    fn a_condition_without_a_time_gets_one() {
        let mut object = json!({"status": {"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]}});
        let old = json!({"status": {"conditions": [
            {"type": "A", "status": "True"}, {"type": "B", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            {"type": "B", "status": "True", "lastTransitionTime": "2021-01-01T00:00:00Z"},
        ]}});
        stamp(&mut object, &old, &context("status"));
        let time = |at: usize| object["status"]["conditions"][at]["lastTransitionTime"].as_str().unwrap();
        assert_eq!((time(0), time(1)), ("1970-01-01T00:00:00Z", "2021-01-01T00:00:00Z"));
    }
}
