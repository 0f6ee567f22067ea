//! What the rules of the kinds say of documents with one mistake: every row is a rule, in the words of the reference server.

mod extension;
mod network;
mod workloads;

use std::collections::BTreeMap;

use corten_kinds::{Context, strategy};
use serde_json::{Value, json};

/// Puts the members of `patch` into `document`; null removes one.
fn merge(document: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else { return document.clone_from(patch) };
    if !document.is_object() {
        *document = json!({});
    }
    let Some(members) = document.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            members.remove(key);
        } else {
            merge(members.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn context<'a>(extra: &'a BTreeMap<String, Vec<String>>, subresource: &'a str) -> Context<'a> {
    let now = jiff::Timestamp::UNIX_EPOCH;
    Context { now, namespace: "n", user: "u", user_uid: "", groups: &[], extra, subresource, labels_given: true, version: "v1" }
}

/// The faults of a new object, each as `field: message`.
fn create(group: &str, resource: &str, object: &Value) -> Vec<String> {
    let strategy = strategy(group, resource).expect("the kind has rules");
    let extra = BTreeMap::new();
    let ctx = context(&extra, "");
    let mut object = object.clone();
    strategy.default(&mut object);
    strategy.prepare_create(&mut object, &ctx);
    texts(&strategy.validate(&object, &ctx))
}

/// The faults of a change.
fn update(group: &str, resource: &str, subresource: &str, old: &Value, patch: &Value) -> Vec<String> {
    let strategy = strategy(group, resource).expect("the kind has rules");
    let extra = BTreeMap::new();
    let ctx = context(&extra, subresource);
    let mut old = old.clone();
    strategy.default(&mut old);
    let mut new = old.clone();
    merge(&mut new, patch);
    strategy.default(&mut new);
    if subresource == "status" {
        strategy.prepare_status(&mut new, &old, &ctx);
        return texts(&strategy.validate_status(&new, &old, &ctx));
    }
    strategy.prepare_update(&mut new, &old, &ctx);
    texts(&strategy.validate_update(&new, &old, &ctx))
}

fn texts(faults: &corten_api::field::Faults) -> Vec<String> {
    faults.0.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect()
}

/// Each fault begins as the row says; texts that list a rule's pattern are long.
#[track_caller]
fn same(got: &[String], want: &[&str]) {
    let fits = got.len() == want.len() && got.iter().zip(want).all(|(got, want)| got.starts_with(want));
    assert!(fits, "got {got:#?}, want {want:#?}");
}

#[test]
fn signers_have_a_domain_and_a_path() {
    check("single/path", &["spec.signerName: Invalid value: \"single\": should be a domain with at least two segments"]);
    check("a.B.c/path", &["spec.signerName: Invalid value: \"a.B.c\": validating label \"B\": a lowercase RFC 1123 label"]);
    check("a.b/c/d", &["spec.signerName: Invalid value: \"a.b/c/d\": must be a fully qualified domain and path"]);
    check(
        "kubernetes.io/legacy-unknown",
        &["spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed"],
    );

    #[track_caller]
    fn check(signer: &str, want: &[&str]) {
        let spec = json!({ "signerName": signer, "usages": ["any"] });
        let got = create("certificates.k8s.io", "certificatesigningrequests", &json!({ "spec": spec }));
        let got: Vec<String> = got.into_iter().filter(|text| !text.starts_with("spec.request")).collect();
        same(&got, want);
    }
}

#[test]
fn storage_keeps_what_it_was_made_with() {
    let class = json!({ "provisioner": "P", "parameters": { "a": "b" } });
    same(
        &update("storage.k8s.io", "storageclasses", "", &class, &json!({ "provisioner": "Bad Name" })),
        &[
            "provisioner: Invalid value: \"bad name\": name part must consist of",
            "provisioner: Invalid value: \"Bad Name\": field is immutable",
        ],
    );
    let driver = json!({ "spec": { "attachRequired": true } });
    same(
        &update("storage.k8s.io", "csidrivers", "", &driver, &json!({ "spec": { "attachRequired": false } })),
        &["spec.attachedRequired: Invalid value: false: field is immutable"],
    );
    let attachment = json!({ "spec": { "attacher": "a", "nodeName": "n", "source": { "persistentVolumeName": "p" } } });
    let failed = json!({ "status": { "attachError": { "errorCode": -1 } } });
    same(
        &update("storage.k8s.io", "volumeattachments", "status", &attachment, &failed),
        &["status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
    );
}

#[test]
fn mandatory_flows_stay_as_they_are() {
    let subjects = json!([{ "kind": "Group", "group": { "name": "system:authenticated" } }]);
    let schema = json!({ "metadata": { "name": "catch-all" }, "spec": {
        "priorityLevelConfiguration": { "name": "elsewhere" }, "matchingPrecedence": 10000, "rules": [
            { "subjects": subjects, "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }] }] } });
    let got = create("flowcontrol.apiserver.k8s.io", "flowschemas", &schema);
    assert!(got.iter().any(|fault| fault.contains("spec of 'catch-all' must equal the fixed value")), "{got:#?}");
}

#[test]
fn claims_are_reserved_for_someone_known() {
    let claim = json!({ "metadata": { "name": "a", "namespace": "n", "resourceVersion": "1" }, "spec": {} });
    let patch = json!({ "status": { "reservedFor": [{ "resource": "pods", "name": "a" }] } });
    same(
        &update("resource.k8s.io", "resourceclaims", "status", &claim, &patch),
        &[
            "status.reservedFor[0].uid: Required value",
            "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
        ],
    );
}

#[test]
fn templates_have_no_names_and_administrators_their_own_namespaces() {
    let metadata = json!({ "uid": "u", "labels": { "a": "b" }, "finalizers": ["a/b"] });
    let template = json!({ "metadata": { "name": "a" }, "spec": { "metadata": metadata, "spec": {} } });
    same(
        &create("resource.k8s.io", "resourceclaimtemplates", &template),
        &["spec.metadata.uID: Forbidden: cannot be set", "spec.metadata.finalizers: Forbidden: cannot be set"],
    );
    let requests =
        json!([{ "name": "r", "exactly": { "adminAccess": false } }, { "name": "s", "exactly": { "adminAccess": true } }]);
    let spec = json!({ "devices": { "requests": requests } });
    let results = json!({ "devices": { "results": [{ "adminAccess": true }] } });
    let claim = json!({ "spec": spec, "status": { "allocation": results } });
    let faults = |object: &Value, old: Option<&Value>| texts(&corten_kinds::admin_access_faults(object, old));
    let why = "Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label";
    let wanted = format!("spec.devices.requests[1].adminAccess: {why}");
    same(&faults(&claim, None), &[&wanted]);
    same(&faults(&json!({ "spec": claim }), None), &[&wanted]);
    same(&faults(&claim, Some(&json!({ "spec": {} }))), &[&format!("status.allocation.devices.results[0].adminAccess: {why}")]);
    same(&faults(&claim, Some(&claim)), &[]);
}

#[test]
fn what_is_deleted_is_not_mutated() {
    let rule = json!({ "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE", "DELETE"] });
    let mutation = json!({ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": "Object{}" } });
    let spec = json!({ "matchConstraints": { "resourceRules": [rule] }, "mutations": [mutation], "reinvocationPolicy": "Never" });
    let faults = create(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicies",
        &json!({ "metadata": { "name": "a" }, "spec": spec }),
    );
    let want =
        "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\"";
    same(&faults, &[want]);
}
