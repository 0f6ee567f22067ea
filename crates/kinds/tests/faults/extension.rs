//! What extends the API: webhooks, policies and definitions of custom resources.

use corten_kinds::strategy;
use serde_json::{Value, json};

use super::{create, merge, same};

#[test]
fn webhooks_are_called_at_plain_addresses() {
    let url = |url: &str| json!({ "url": url });
    check(
        url("http://u:p@/x?q#f"),
        &[
            "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format",
            "webhooks[0].clientConfig.url: Invalid value: \"\": host must be specified; desired format",
            "webhooks[0].clientConfig.url: Invalid value: \"u:p\": user information is not permitted in the URL",
            "webhooks[0].clientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL",
            "webhooks[0].clientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL",
        ],
    );
    let escape = "webhooks[0].clientConfig.url: Required value: url must be a valid URL: parse";
    for text in ["10%", "https://a/%", "https://a%/"] {
        check(url(text), &[&format!("{escape} \"{text}\": invalid URL escape \"%\"; desired format: https://host[/path]")]);
    }
    check(url("https://a/%zzz"), &[&format!("{escape} \"https://a/%zzz\": invalid URL escape \"%zz\"")]);
    check(url("https://a/%2F"), &[]);
    check(
        json!({ "service": { "name": "s", "namespace": "", "port": 443, "path": "/a//B" } }),
        &[
            "webhooks[0].clientConfig.service.name: Required value",
            "webhooks[0].clientConfig.service.path: Invalid value: \"/a//B\": segment[1] may not be empty",
            "webhooks[0].clientConfig.service.path: Invalid value: \"/a//B\": segment[2]: a lowercase RFC 1123 subdomain",
        ],
    );

    #[track_caller]
    fn check(client: Value, want: &[&str]) {
        let hook = json!({ "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": client });
        same(&create("admissionregistration.k8s.io", "validatingwebhookconfigurations", &json!({ "webhooks": [hook] })), want);
    }
}

#[test]
fn wildcards_of_rules_cover_nothing_named_beside_them() {
    check(
        json!(["pods/*", "pods/log"]),
        &["[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log"],
    );
    check(json!(["*/scale", "pods/scale"]), &["[1]: Invalid value: \"pods/scale\": if '*/scale' is present"]);
    check(
        json!(["*", "pods"]),
        &[": Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without"],
    );
    check(json!([""]), &["[0]: Required value"]);

    #[track_caller]
    fn check(resources: Value, want: &[&str]) {
        let rule = json!({ "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources });
        let hook = json!({
            "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [rule],
            "clientConfig": { "url": "https://example.com" },
        });
        let want: Vec<String> = want.iter().map(|want| format!("webhooks[0].rules[0].resources{want}")).collect();
        let want: Vec<&str> = want.iter().map(String::as_str).collect();
        same(&create("admissionregistration.k8s.io", "mutatingwebhookconfigurations", &json!({ "webhooks": [hook] })), &want);
    }
}

fn definition(spec: &Value) -> Value {
    let mut definition = json!({
        "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": { "plural": "widgets", "kind": "Widget" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": { "type": "object" } } }],
        },
    });
    merge(&mut definition["spec"], spec);
    definition
}

#[test]
fn definitions_name_what_they_define() {
    check(json!({ "group": "single" }), &["spec.group: Invalid value: \"single\": should be a domain with at least one dot"]);
    let rules = strategy("apiextensions.k8s.io", "customresourcedefinitions").expect("the kind has rules");
    let name = |plural: &str| rules.validate_name_of(&definition(&json!({})), plural, false);
    assert_eq!(name("widgets.example.com"), [""; 0]);
    assert_eq!(name("gadgets.example.com"), ["must be spec.names.plural+\".\"+spec.group"]);
    check(
        json!({ "scope": "Galaxy" }),
        &["spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\""],
    );
    check(
        json!({ "names": { "listKind": "Widget", "shortNames": ["W"] } }),
        &[
            "spec.names.shortNames[0]: Invalid value: \"W\": a DNS-1035 label",
            "spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same",
        ],
    );
    check(
        json!({ "names": { "kind": null } }),
        &["spec.names.singular: Required value", "spec.names.kind: Required value", "spec.names.listKind: Required value"],
    );
    check(
        json!({ "preserveUnknownFields": true }),
        &["spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields"],
    );
    check(
        json!({ "conversion": { "strategy": "None", "webhook": { "conversionReviewVersions": ["v1"] } } }),
        &["spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook"],
    );
    let protected = json!({ "group": "x.k8s.io" });
    let want = "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation";
    check(protected, &[want]);

    #[track_caller]
    fn check(spec: Value, want: &[&str]) {
        same(&create("apiextensions.k8s.io", "customresourcedefinitions", &definition(&spec)), want);
    }
}

#[test]
fn schemas_of_definitions_are_structural() {
    let of = |schema: Value| json!({ "type": "object", "properties": { "a": schema } });
    let at = "properties[a]";
    check(of(json!({})), &[&format!("{at}.type: Required value: must not be empty for specified object fields")]);
    check(of(json!({ "type": "array" })), &[&format!("{at}.items: Required value: must be specified")]);
    check(
        of(json!({ "type": "string", "allOf": [{ "type": "string" }] })),
        &[&format!("{at}.allOf[0].type: Forbidden: must be empty to be structural")],
    );
    check(of(json!({ "type": "widget" })), &[&format!("{at}.type: Unsupported value: \"widget\": supported values: \"array\"")]);
    check(of(json!({ "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] })), &[]);
    check(
        of(json!({ "type": "array", "x-kubernetes-list-type": "map", "items": { "type": "object" } })),
        &[&format!("{at}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map")],
    );
    let keyed = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "items": { "type": "object", "properties": { "k": { "type": "string" } } },
    });
    check(
        of(keyed),
        &[&format!("{at}.items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys")],
    );
    check(
        of(json!({ "type": "object", "default": { "z": 1 } })),
        &[&format!("{at}.default: Invalid value: {{\"z\":1}}: must not have unknown fields")],
    );
    check(
        of(json!({ "type": "string", "x-kubernetes-validations": [{ "rule": " " }] })),
        &[&format!("{at}.x-kubernetes-validations[0].rule: Required value: rule is not specified")],
    );
    check(
        json!({ "type": "object", "properties": { "metadata": { "type": "object", "description": "d" } } }),
        &["properties[metadata]: Forbidden: must not specify anything other than name and generateName"],
    );

    #[track_caller]
    fn check(schema: Value, want: &[&str]) {
        let version = json!({ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } });
        let got = create("apiextensions.k8s.io", "customresourcedefinitions", &definition(&json!({ "versions": [version] })));
        let want: Vec<String> = want.iter().map(|want| format!("spec.validation.openAPIV3Schema.{want}")).collect();
        same(&got, &want.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
