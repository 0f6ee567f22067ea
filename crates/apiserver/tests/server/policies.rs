//! Policies in CEL, row by row: which requests they refuse, in which words, what they warn of, whose parameters they read.

use crate::running::{Running, admin, request};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const MAPS: &str = "/api/v1/namespaces/a/configmaps";

struct Api(Running);

impl Api {
    async fn start() -> Self {
        let api = Self(Running::start(|_, _| {}).await);
        for name in ["a", "b"] {
            api.made("/api/v1/namespaces", json!({"metadata": {"name": name}})).await;
        }
        api
    }

    async fn stop(self) {
        self.0.stop().await;
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> (u16, HeaderMap, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let (parts, body) = self.0.ask(admin(), request(method, path, kind), bytes(body)).await.into_parts();
        (parts.status.as_u16(), parts.headers, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn made(&self, path: &str, body: Value) {
        let (code, _, answer) = self.send("POST", path, &body).await;
        assert_eq!(code, 201, "{answer}");
    }

    /// A policy on config maps, bound with `actions`; `more` is merged into its spec.
    async fn policy(&self, name: &str, more: Value, binding: Value) {
        let mut spec = json!({"matchConstraints": {"resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"],
        }]}});
        merge(&mut spec, more);
        self.made(POLICIES, json!({"metadata": {"name": name}, "spec": spec})).await;
        let mut spec = json!({"policyName": name, "validationActions": ["Deny"]});
        merge(&mut spec, binding);
        self.made(BINDINGS, json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    /// What creating a config map with this name and data is answered, as a dry run: the code, and the words after the
    /// policy's name.
    async fn answer(&self, name: &str, data: Value) -> (u16, String) {
        let object = json!({"metadata": {"name": name, "labels": {"app": name}}, "data": data});
        let (code, _, answer) = self.send("POST", &format!("{MAPS}?dryRun=All"), &object).await;
        let message = answer["message"].as_str().unwrap_or_default();
        (code, message.split_once("denied request: ").map_or(message, |(_, why)| why).to_owned())
    }

    async fn remove(&self, name: &str) {
        for path in [POLICIES, BINDINGS] {
            let (code, ..) = self.send("DELETE", &format!("{path}/{name}"), &Value::Null).await;
            assert_eq!(code, 200);
        }
    }
}

fn bytes(body: &Value) -> Bytes {
    if body.is_null() { Bytes::new() } else { body.to_string().into() }
}

fn merge(into: &mut Value, more: Value) {
    let Value::Object(more) = more else { return };
    for (key, value) in more {
        into[key] = value;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_refuse_what_does_not_hold() {
    let api = Api::start().await;
    let validation = |expression: &str| json!({"validations": [{"expression": expression}]});
    let long = "expression 'object.data.nope == 'x'' resulted in error: no such key: nope";
    #[rustfmt::skip]
    let table = [
        (validation("object.metadata.name != 'x'"), 422, "failed expression: object.metadata.name != 'x'"),
        (validation("object.metadata.name == 'x'"), 201, ""),
        (validation("object.data.nope == 'x'"), 422, long),
        (json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.data.nope == 'x'"}]}), 201, ""),
        (validation("request.operation == 'CREATE' && request.userInfo.username == 'admin' && request.dryRun"), 201, ""),
        (validation("namespaceObject.metadata.name == 'a' && oldObject == null"), 201, ""),
        (validation("authorizer.group('').resource('pods').namespace('a').check('create').allowed()"), 201, ""),
        (validation("authorizer.serviceAccount('a', 'b').group('').resource('pods').check('get').allowed()"), 422,
            "failed expression: authorizer.serviceAccount('a', 'b').group('').resource('pods').check('get').allowed()"),
        (validation("authorizer.requestResource.check('delete').allowed()"), 201, ""),
        (json!({"validations": [{"expression": "false", "message": "not here", "reason": "Forbidden"}]}), 403, "not here"),
        (json!({"variables": [{"name": "n", "expression": "object.data.size()"}, {"name": "m", "expression": "variables.n * 2"}],
            "validations": [{"expression": "variables.m < 2", "messageExpression": "'has ' + string(variables.n)"}]}), 422, "has 1"),
        (json!({"matchConditions": [{"name": "c", "expression": "object.metadata.name == 'y'"}],
            "validations": [{"expression": "false"}]}), 201, ""),
        (json!({"matchConditions": [{"name": "c", "expression": "object.nope == 1"}], "validations": [{"expression": "true"}]}), 422,
            "expression 'object.nope == 1' resulted in error: no such key: nope"),
    ];
    for (i, (spec, code, message)) in table.into_iter().enumerate() {
        let name = format!("p{i}");
        api.policy(&name, spec.clone(), json!({})).await;
        assert_eq!(api.answer("x", json!({"k": "v"})).await, (code, message.to_owned()), "{spec}");
        api.remove(&name).await;
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bindings_say_where_and_what() {
    let api = Api::start().await;
    let never = || json!({"validations": [{"expression": "false", "message": "never"}]});
    let elsewhere = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "b"}}}});
    api.policy("elsewhere", never(), elsewhere).await;
    assert_eq!(api.answer("x", json!({})).await.0, 201);
    api.policy("labelled", never(), json!({"matchResources": {"objectSelector": {"matchLabels": {"app": "y"}}}})).await;
    assert_eq!(api.answer("x", json!({})).await.0, 201);
    assert_eq!(api.answer("y", json!({})).await, (422, "never".into()));

    api.policy("warns", never(), json!({"validationActions": ["Warn", "Audit"]})).await;
    let (code, headers, _) = api.send("POST", MAPS, &json!({"metadata": {"name": "x"}})).await;
    let warning = headers.get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!(code, 201);
    assert!(warning.contains("Validation failed for ValidatingAdmissionPolicy 'warns' with binding 'warns': never"), "{warning}");
    api.remove("warns").await;

    let params = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ServiceAccount"},
        "validations": [{"expression": "object.metadata.name.size() <= int(params.metadata.annotations.max)"}],
    });
    let reference = json!({"paramRef": {"name": "limits", "namespace": "b", "parameterNotFoundAction": "Deny"}});
    api.policy("params", params, reference).await;
    let why = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert_eq!(api.answer("abcd", json!({})).await, (422, why.into()));
    let limits = json!({"metadata": {"name": "limits", "annotations": {"max": "3"}}});
    api.made("/api/v1/namespaces/b/serviceaccounts", limits).await;
    let why = "failed expression: object.metadata.name.size() <= int(params.metadata.annotations.max)";
    assert_eq!(api.answer("abcd", json!({})).await, (422, why.into()));
    assert_eq!(api.answer("abc", json!({})).await.0, 201);
    api.stop().await;
}
