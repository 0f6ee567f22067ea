//! What the rules of the kinds say of documents with one mistake: every row is a rule, in the words of the reference server.

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

fn job(spec: Value) -> Value {
    let mut job = json!({
        "metadata": { "name": "j", "uid": "1" },
        "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } } },
    });
    merge(&mut job["spec"], &spec);
    job
}

#[test]
fn statuses_of_jobs_are_whole_and_final() {
    let done = json!({ "conditions": [
        { "type": "SuccessCriteriaMet", "status": "True" }, { "type": "Complete", "status": "True" },
    ] });
    let late = "2024-01-01T00:00:10Z";
    check(
        json!({}),
        json!({ "active": 1 }),
        &done,
        &[
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.startTime: Required value: startTime is required for finished job",
        ],
    );
    let finished = json!({ "startTime": late, "completionTime": late, "conditions": done["conditions"] });
    check(
        json!({}),
        finished.clone(),
        &json!({ "completionTime": "2024-01-01T00:00:11Z" }),
        &["status.completionTime: Invalid value: \"2024-01-01T00:00:11Z\": field is immutable"],
    );
    check(
        json!({}),
        finished,
        &json!({ "conditions": [] }),
        &[
            "status.completionTime: Invalid value: \"2024-01-01T00:00:10Z\": cannot set completionTime when there is no Complete=True",
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
        ],
    );
    let indexed = json!({ "completionMode": "Indexed", "completions": 9, "parallelism": 2, "backoffLimitPerIndex": 1 });
    check(
        indexed,
        json!({}),
        &json!({ "completedIndexes": "1-4", "failedIndexes": "0,3" }),
        &["status.failedIndexes: Invalid value: \"0,3\": failedIndexes and completedIndexes overlap at index: 3"],
    );
    check(
        json!({}),
        json!({}),
        &json!({ "completedIndexes": "1" }),
        &[
            "status.completedIndexes: Invalid value: \"1\": error parsing completedIndexes: too large index: \"1\"",
            "status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed",
        ],
    );

    #[track_caller]
    fn check(spec: Value, status: Value, patch: &Value, want: &[&str]) {
        let mut old = job(spec);
        old["status"] = status;
        same(&update("batch", "jobs", "status", &old, &json!({ "status": patch })), want);
    }
}

#[test]
fn cron_jobs_name_their_zone() {
    check("Local", &["spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone"]);
    check("Mars/Olympus", &["spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus"]);
    check("", &["spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"]);

    #[track_caller]
    fn check(zone: &str, want: &[&str]) {
        let spec = json!({ "schedule": "@daily", "timeZone": zone, "jobTemplate": { "spec": job(json!({}))["spec"] } });
        same(&create("batch", "cronjobs", &json!({ "metadata": { "name": "c" }, "spec": spec })), want);
    }
}

#[test]
fn autoscalers_say_what_they_measure() {
    let cpu = json!({ "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 5 } });
    check(
        json!([{ "resource": cpu }]),
        &[
            "spec.metrics[0].type: Required value: must specify a metric source type",
            "spec.metrics[0].type: Unsupported value: \"\"",
            "spec.metrics[0].type: Unsupported value: \"\"",
        ],
    );
    check(
        json!([{ "type": "Pods", "pods": { "metric": {}, "target": { "averageValue": "0" } } }]),
        &[
            "spec.metrics[0].pods.metric.name: Required value: must specify a metric name",
            "spec.metrics[0].pods.target.type: Required value: must specify a metric target type",
            "spec.metrics[0].pods.target.type: Invalid value: \"\": must be either Utilization, Value, or AverageValue",
            "spec.metrics[0].pods.target.averageValue: Invalid value: \"0\": must be positive",
        ],
    );
    check(
        json!([{ "type": "Resource", "resource": cpu, "pods": null, "external": {} }]),
        &[
            "spec.metrics[0].external.metric.name: Required value",
            "spec.metrics[0].external.target.type: Required value",
            "spec.metrics[0].external.target.type: Invalid value",
            "spec.metrics[0].external.target.averageValue: Required value",
            "spec.metrics[0].external: Forbidden: must populate the given metric source only",
        ],
    );
    let container = json!({ "name": "gold", "container": "A", "target": { "type": "Utilization", "averageUtilization": 5 } });
    check(
        json!([{ "type": "ContainerResource", "containerResource": container }]),
        &[
            "spec.metrics[0].containerResource.name: Invalid value: \"gold\": must be a standard resource",
            "spec.metrics[0].containerResource.name: Invalid value: \"gold\": must be a standard resource for containers",
            "spec.metrics[0].containerResource.container: Invalid value: \"A\": a lowercase RFC 1123 label",
        ],
    );

    #[track_caller]
    fn check(metrics: Value, want: &[&str]) {
        let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" });
        let spec = json!({ "maxReplicas": 3, "scaleTargetRef": target, "metrics": metrics });
        same(&create("autoscaling", "horizontalpodautoscalers", &json!({ "metadata": { "name": "h" }, "spec": spec })), want);
    }
}

#[test]
fn addresses_and_ranges_are_read_strictly() {
    let policy =
        |cidr: &str| json!({ "spec": { "podSelector": {}, "ingress": [{ "from": [{ "ipBlock": { "cidr": cidr } }] }] } });
    let at = "spec.ingress[0].from[0].ipBlock.cidr: Invalid value:";
    check(
        "networkpolicies",
        "networking.k8s.io",
        &policy("192.168.0.5/24"),
        &[&format!("{at} \"192.168.0.5/24\": must not have bits set beyond the prefix length")],
    );
    check(
        "networkpolicies",
        "networking.k8s.io",
        &policy("010.0.0.0/8"),
        &[&format!("{at} \"010.0.0.0/8\": must not have leading 0s in IP or prefix length")],
    );
    check(
        "networkpolicies",
        "networking.k8s.io",
        &policy("10.0.0.0"),
        &[&format!("{at} \"10.0.0.0\": must be a valid CIDR value")],
    );
    let slice = |kind: &str, address: &str| json!({ "addressType": kind, "endpoints": [{ "addresses": [address] }] });
    check(
        "endpointslices",
        "discovery.k8s.io",
        &slice("IPv4", "10.0.0.256"),
        &["endpoints[0].addresses[0]: Invalid value: \"10.0.0.256\": must be a valid IP address"],
    );
    check(
        "endpointslices",
        "discovery.k8s.io",
        &slice("IPv6", "10.0.0.1"),
        &["endpoints[0].addresses: Invalid value: \"10.0.0.1\": must be an IPv6 address"],
    );
    check(
        "endpointslices",
        "discovery.k8s.io",
        &slice("FQDN", "single"),
        &["endpoints[0].addresses[0]: Invalid value: \"single\": should be a domain with at least two segments"],
    );

    #[track_caller]
    fn check(resource: &str, group: &str, object: &Value, want: &[&str]) {
        same(&create(group, resource, object), want);
    }
}

#[test]
fn ingresses_lead_somewhere() {
    check(
        json!({ "defaultBackend": {} }),
        &["spec.defaultBackend: Invalid value: \"\": resource or service backend is required"],
    );
    check(
        json!({ "defaultBackend": { "resource": { "apiGroup": "" } } }),
        &[
            "spec.defaultBackend.resource.apiGroup: Invalid value: \"\": a lowercase RFC 1123 subdomain",
            "spec.defaultBackend.resource.kind: Required value",
            "spec.defaultBackend.resource.name: Required value",
        ],
    );
    // Without a type nothing more is said of the path.
    check(
        json!({ "rules": [{ "http": { "paths": [{ "path": "x" }] } }] }),
        &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"],
    );

    #[track_caller]
    fn check(spec: Value, want: &[&str]) {
        same(&create("networking.k8s.io", "ingresses", &json!({ "spec": spec })), want);
    }
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

/// What is accepted with a warning.
#[test]
fn deprecated_labels_and_loose_addresses_are_warned_of() {
    let warnings = |group: &str, resource: &str, object: Value| {
        let extra = BTreeMap::new();
        strategy(group, resource).expect("the kind has rules").warnings(&object, None, &context(&extra, ""))
    };
    let arch = "deprecated since v1.14; use \"kubernetes.io/arch\" instead";
    let label = "beta.kubernetes.io/arch";
    let class = json!({ "allowedTopologies": [{ "matchLabelExpressions": [{ "key": label, "values": ["a"] }] }] });
    let want = [format!("allowedTopologies[0].matchLabelExpressions[0].key: {arch}")];
    assert_eq!(warnings("storage.k8s.io", "storageclasses", class), want);
    let capacity = json!({ "nodeTopology": { "matchExpressions": [{ "key": label, "operator": "Exists" }] } });
    let want = [format!("nodeTopology.matchExpressions[0].key: {label} is {arch}")];
    assert_eq!(warnings("storage.k8s.io", "csistoragecapacities", capacity), want);
    let class = json!({ "scheduling": { "nodeSelector": { label: "amd64" } } });
    assert_eq!(warnings("node.k8s.io", "runtimeclasses", class), [format!("scheduling.nodeSelector: {arch}")]);
    let slice = json!({ "addressType": "IPv6", "endpoints": [{ "addresses": ["2001:DB8::1"] }] });
    let want = "endpoints[0].addresses[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")";
    assert_eq!(warnings("discovery.k8s.io", "endpointslices", slice), [want]);
    let policy = json!({ "spec": { "egress": [{ "to": [{ "ipBlock": { "cidr": "2001:DB8::/64" } }] }] } });
    let want = "spec.egress[0].to[0].ipBlock.cidr: IPv6 CIDR value \"2001:DB8::/64\" should be in RFC 5952 canonical format \
                (\"2001:db8::/64\")";
    assert_eq!(warnings("networking.k8s.io", "networkpolicies", policy), [want]);
}

#[test]
fn budgets_may_have_any_name_that_fits_a_path() {
    let budgets = strategy("policy", "poddisruptionbudgets").expect("the kind has rules");
    assert!(budgets.validate_name("Web_Budget", false).is_empty());
    assert!(!budgets.validate_name("web/budget", false).is_empty());
}

#[test]
fn updates_of_addresses_tell_what_is_wrong_besides_what_changed() {
    let address = json!({ "metadata": { "name": "10.0.0.1" }, "spec": { "parentRef": { "resource": "services", "name": "a" } } });
    let got = update("networking.k8s.io", "ipaddresses", "", &address, &json!({ "spec": { "parentRef": { "name": null } } }));
    let fields: Vec<_> = got.iter().filter_map(|fault| fault.split(':').next()).collect();
    assert_eq!(fields, ["spec.parentRef.name", "spec.parentRef"]);
}

fn stateful_set(spec: Value) -> Value {
    let mut set = json!({
        "metadata": { "name": "s" },
        "spec": {
            "selector": { "matchLabels": { "app": "a" } },
            "template": {
                "metadata": { "labels": { "app": "a" } },
                "spec": { "containers": [{ "name": "c", "image": "i", "volumeMounts": [{ "name": "data", "mountPath": "/d" }] }] },
            },
            "volumeClaimTemplates": [{
                "metadata": { "name": "data" },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
            }],
        },
    });
    merge(&mut set["spec"], &spec);
    set
}

#[test]
fn stateful_sets_judge_what_they_make() {
    let check = |spec: Value, want: &[&str]| same(&create("apps", "statefulsets", &stateful_set(spec)), want);
    check(json!({}), &[]);
    // Claims are judged as such; two of one name are one volume.
    let claim = json!({ "metadata": { "name": "data" }, "spec": { "resources": { "requests": { "storage": "1Gi" } } } });
    check(
        json!({ "volumeClaimTemplates": [claim, claim] }),
        &[
            "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
            "spec.volumeClaimTemplates[1].spec.accessModes: Required value: at least 1 access mode is required",
        ],
    );
    // Names of the pods are the controller's.
    check(json!({ "template": { "spec": { "hostname": "A_", "subdomain": "B_" } } }), &[]);
    check(
        json!({ "selector": { "matchExpressions": [{ "key": "k", "operator": "In" }] } }),
        &[
            "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\"},\"matchExpressions\":[{\"key\":\"k\",\"operator\":\"In\"}]}",
        ],
    );
    // Labels of the template are judged twice.
    check(
        json!({ "template": { "metadata": { "labels": { "-": "x" } } } }),
        &["spec.template.labels: Invalid value: \"-\"", "spec.template.labels: Invalid value: \"-\""],
    );
    let old = stateful_set(json!({ "template": { "spec": { "dnsPolicy": "Odd" } } }));
    same(&update("apps", "statefulsets", "", &old, &json!({ "spec": { "replicas": 3 } })), &[]);
}

#[test]
fn pods_may_not_be_bound_and_nominated() {
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "n", "containers": [{ "name": "c", "image": "i" }] } });
    let check = |status: Value, want: &[&str]| same(&update("", "pods", "status", &pod, &json!({ "status": status })), want);
    check(
        json!({ "nominatedNodeName": "m", "observedGeneration": -1, "conditions": [{ "type": "Ready", "observedGeneration": -2 }] }),
        &[
            "status.conditions[0].observedGeneration: Invalid value: -2: must be a non-negative integer",
            "status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node",
            "status.observedGeneration: Invalid value: -1: must be a non-negative integer",
        ],
    );
    check(
        json!({ "extendedResourceClaimStatus": { "requestMappings": [{ "containerName": "x", "resourceName": "a/b", "requestName": "r" }] } }),
        &[
            "status.extendedResourceClaimStatus.requestMappings[0].containerName: Invalid value: \"x\": must match the name of an entry in",
            "status.extendedResourceClaimStatus.resourceClaimName: Required value",
        ],
    );
}

#[test]
fn revisions_are_counted_before_their_data_is_looked_at() {
    let revision = |data: Value| json!({ "metadata": { "name": "r" }, "revision": -1, "data": data });
    let negative = "revision: Invalid value: -1: must be greater than or equal to 0";
    let at = |object: &Value| create("apps", "controllerrevisions", object);
    same(&at(&revision(Value::Null)), &[negative, "data: Required value: data is mandatory"]);
    same(&at(&revision(json!("x"))), &[negative, "data: Required value: data must be a valid JSON object"]);
    // A change is judged by what was there.
    let old = revision(json!({ "a": 1 }));
    same(
        &update("apps", "controllerrevisions", "", &old, &json!({ "data": null })),
        &[negative, "data: Invalid value: null: field is immutable"],
    );
}
