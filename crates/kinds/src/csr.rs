//! CertificateSigningRequests.

use base64::Engine;
use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, names, table};

/// The name of a signer: a domain of at least two labels, and a path.
pub(crate) fn signer_name(faults: &mut Faults, path: &Path<'_>, name: &str) {
    const FORM: &str = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    if name.is_empty() {
        return faults.required(path, "");
    }
    let Some((domain, rest)) = name.split_once('/') else { return faults.invalid_str(path, name, FORM) };
    if rest.contains('/') {
        return faults.invalid_str(path, name, FORM);
    }
    if !domain.contains('.') {
        return faults.invalid_str(path, name, FORM);
    }
    for message in names::dns_subdomain(domain) {
        faults.invalid_str(path, domain, &format!("validating label {domain:?}: {message}"));
    }
    for message in names::dns_subdomain(rest) {
        faults.invalid_str(path, rest, &format!("validating label {rest:?}: {message}"));
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
        for condition in object.object("status").items("conditions") {
            condition.default_to("status", "True");
        }
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
        let mut faults = Faults::default();
        let path = Path::new("spec");
        let spec = &object["spec"];
        let request = &spec["request"];
        let bytes = base64::engine::general_purpose::STANDARD.decode(request.as_str().unwrap_or_default()).unwrap_or_default();
        if let Some(why) = crate::pem::request_fault(&bytes) {
            faults.invalid(&path.child("request"), request, &why);
        }
        let usages: Vec<&str> = spec.texts("usages").collect();
        let at = path.child("usages");
        if usages.is_empty() {
            faults.required(&at, "");
        }
        for (i, usage) in usages.iter().enumerate() {
            check::one_of(&mut faults, &at.index(i), usage, USAGES);
        }
        check::unique_texts(&mut faults, &at, usages.into_iter());
        signer_name(&mut faults, &path.child("signerName"), spec.text("signerName"));
        if let Some(seconds) = spec.opt_int("expirationSeconds").filter(|seconds| *seconds < 600) {
            let detail = "may not specify a duration less than 600 seconds (10 minutes)";
            faults.invalid_int(&path.child("expirationSeconds"), seconds, detail);
        }
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, ctx: &Context<'_>) {
        object.copy_from(old, "spec");
        match ctx.subresource {
            "approval" => {
                let conditions = object["status"]["conditions"].clone();
                object.copy_from(old, "status");
                object.object("status").put("conditions", conditions);
                stamp(object, old, ctx, true);
            }
            "status" => {
                // Approval is for those who may approve.
                let kept = old["status"].list("conditions").iter().filter(|condition| is_verdict(condition));
                let mut all: Vec<Value> = kept.cloned().collect();
                let others = object["status"].list("conditions").iter().filter(|condition| !is_verdict(condition));
                all.extend(others.cloned());
                if object["status"].list("conditions").iter().all(|condition| !is_verdict(condition)) {
                    object.object("status").put("conditions", if all.is_empty() { Value::Null } else { json!(all) });
                }
                stamp(object, old, ctx, false);
            }
            _ => object.copy_from(old, "status"),
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let root = Path::new("status");
        let path = root.child("conditions");
        let (now, before) = (object["status"].list("conditions"), old["status"].list("conditions"));
        let count = |list: &[Value], kind: &str| list.iter().filter(|condition| condition.text("type") == kind).count();
        if ctx.subresource == "status" {
            for kind in ["Approved", "Denied"] {
                if count(now, kind) > count(before, kind) {
                    faults.forbidden(&path, &format!("updates may not add a condition of type {kind:?}"));
                }
            }
        }
        for kind in ["Approved", "Denied", "Failed"] {
            if count(now, kind) < count(before, kind) && (kind != "Failed" || ctx.subresource != "approval") {
                faults.forbidden(&path, &format!("updates may not remove a condition of type {kind:?}"));
            }
        }
        let certificate = old["status"].text("certificate");
        if !certificate.is_empty() && object["status"].text("certificate") != certificate {
            faults.forbidden(&root.child("certificate"), "updates may not modify existing certificate content");
        }
        conditions(&mut faults, &path, now);
        faults
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::name_is_subdomain(name, prefix)
    }

    fn create_on_update(&self) -> bool {
        true
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

fn is_verdict(condition: &Value) -> bool {
    matches!(condition.text("type"), "Approved" | "Denied")
}

/// New and changed conditions get the time at which they came.
fn stamp(object: &mut Value, old: &Value, ctx: &Context<'_>, touch: bool) {
    let now = corten_api::time::seconds(ctx.now);
    for condition in object.object("status").items("conditions") {
        let before = old["status"].list("conditions").iter().find(|had| had.text("type") == condition.text("type"));
        if !condition.has("lastTransitionTime") {
            let same = before.filter(|before| before.text("status") == condition.text("status"));
            let time = same.map_or(json!(now), |before| before["lastTransitionTime"].clone());
            condition.put("lastTransitionTime", time);
        }
        if !condition.has("lastUpdateTime") && touch {
            condition.put("lastUpdateTime", now.clone());
        }
    }
}

fn conditions(faults: &mut Faults, path: &Path<'_>, list: &[Value]) {
    let mut seen = std::collections::HashSet::new();
    for (i, condition) in list.iter().enumerate() {
        let at = path.index(i);
        let (kind, status) = (condition.text("type"), condition.text("status"));
        if kind.is_empty() {
            faults.required(&at.child("type"), "");
        }
        match (kind, status) {
            (_, "") => faults.required(&at.child("status"), ""),
            ("Approved" | "Denied" | "Failed", status) => check::one_of(faults, &at.child("status"), status, &["True"]),
            (_, status) => check::one_of(faults, &at.child("status"), status, &["False", "True", "Unknown"]),
        }
        if !seen.insert(kind) {
            check::duplicate(faults, &at.child("type"), kind);
        }
    }
    if seen.contains("Approved") && seen.contains("Denied") {
        let last = list.iter().rev().find(|condition| is_verdict(condition)).map_or("", |condition| condition.text("type"));
        faults.invalid_str(path, last, "Approved and Denied conditions are mutually exclusive");
    }
}
