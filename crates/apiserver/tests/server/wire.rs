//! What every request has in common on the wire, row by row: codes, words and headers for what is wrong with a path, a
//! method, an option, a content type or a body.

use crate::running::{Running, admin};
use corten_apiserver::User;
use http::HeaderMap;
use serde_json::{Value, json};

struct Api(Running);

struct Answer {
    code: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn document(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    fn message(&self) -> String {
        match self.document()["message"].as_str() {
            Some(message) => message.to_owned(),
            None => self.text.clone(),
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Api {
    async fn start() -> Self {
        let api = Self(Running::start(|_, _| {}).await);
        for name in ["a", "b"] {
            let object = json!({"metadata": {"name": name}});
            assert_eq!(api.send("POST", "/api/v1/namespaces", &[], &object.to_string()).await.code, 201);
        }
        let object = json!({"metadata": {"name": "one", "labels": {"a": "1"}}, "data": {"k": "v"}});
        assert_eq!(api.send("POST", MAPS, &[], &object.to_string()).await.code, 201);
        api
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send_as("admin", method, path, headers, body).await
    }

    async fn send_as(&self, user: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let user = if user == "admin" { admin() } else { User::new(user, &["system:authenticated"]) };
        let (parts, bytes) = self.0.ask(user, request, body.to_owned()).await.into_parts();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { code: parts.status.as_u16(), headers: parts.headers, text }
    }
}

const MAPS: &str = "/api/v1/namespaces/a/configmaps";
const ONE: &str = "/api/v1/namespaces/a/configmaps/one";
const NO_PAGE: &str = "404 page not found\n";
const NO_RESOURCE: &str = "the server could not find the requested resource";
const NO_METHOD: &str = "the server does not allow this method on the requested resource";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[rustfmt::skip]
async fn paths_and_methods_lead_where_upstreams_lead() {
    let api = Api::start().await;
    let rows = [
        // What is there.
        ("GET",     "/".to_owned(),                          200, ""),
        ("POST",    "/".to_owned(),                          200, ""),
        ("GET",     "/api".to_owned(),                       200, ""),
        ("GET",     "/api/v1/".to_owned(),                   200, ""),
        ("GET",     "/apis/apps/v1".to_owned(),              200, ""),
        ("GET",     ONE.to_owned(),                          200, ""),
        ("GET",     format!("{ONE}/"),                       200, ""),
        // What is not.
        ("GET",     "/nope".to_owned(),                      404, NO_PAGE),
        ("GET",     "/apis/nope".to_owned(),                 404, NO_PAGE),
        ("GET",     "/apis/nope/v1/things".to_owned(),       404, NO_PAGE),
        ("GET",     "/apis/apps/v9".to_owned(),              404, NO_RESOURCE),
        ("GET",     "/apis/apps/v9/deployments".to_owned(),  404, NO_RESOURCE),
        ("GET",     "/api/v1/nopes".to_owned(),              404, NO_RESOURCE),
        ("GET",     format!("{ONE}/nope"),                   404, NO_RESOURCE),
        ("GET",     "/api/v1/configmaps/one".to_owned(),     404, NO_RESOURCE),
        ("GET",     "/api/v1/namespaces/a/nodes".to_owned(), 404, NO_RESOURCE),
        ("GET",     format!("{MAPS}/none"),                  404, "configmaps \"none\" not found"),
        ("GET",     "/api/v1/componentstatuses/none".to_owned(), 404, "componentstatus \"none\" not found"),
        ("POST",    "/api/v1/bindings".to_owned(),           404, NO_RESOURCE),
        ("GET",     "/api/v1/bindings".to_owned(),           404, NO_RESOURCE),
        ("PUT",     "/api/v1/watch/namespaces/a/pods/p/status".to_owned(), 404, NO_RESOURCE),
        ("GET",     "/api/v1/watch".to_owned(),              500, "Internal Server Error: \"/api/v1/watch\": failed to create RequestInfo: unable to determine kind and namespace from url, /api/v1/watch\n"),
        // Methods.
        ("POST",    "/version".to_owned(),                   405, NO_METHOD),
        ("HEAD",    "/api".to_owned(),                       405, ""),
        ("HEAD",    ONE.to_owned(),                          405, ""),
        ("OPTIONS", ONE.to_owned(),                          405, NO_METHOD),
        ("POST",    ONE.to_owned(),                          405, NO_METHOD),
        ("PUT",     MAPS.to_owned(),                         405, NO_METHOD),
        ("PATCH",   MAPS.to_owned(),                         405, NO_METHOD),
        ("DELETE",  "/api/v1/configmaps".to_owned(),         405, NO_METHOD),
        ("POST",    "/api/v1/configmaps".to_owned(),         405, NO_METHOD),
        ("DELETE",  "/api/v1/namespaces".to_owned(),         405, NO_METHOD),
        ("PUT",     "/api/v1/namespaces/a/pods/p/eviction".to_owned(), 405, NO_METHOD),
        ("DELETE",  "/apis/apps/v1/namespaces/a/deployments/d/scale".to_owned(), 405, NO_METHOD),
    ];
    for (method, path, code, message) in rows {
        let answer = api.send(method, &path, &[], "").await;
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.text);
        if !message.is_empty() {
            assert_eq!(answer.message(), message, "{method} {path}");
        }
        if message == NO_PAGE {
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
    }
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[rustfmt::skip]
async fn list_options_are_checked_in_every_combination() {
    let api = Api::start().await;
    let page = api.send("GET", "/api/v1/namespaces?limit=1", &[], "").await.document();
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    let rv = page["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let invalid = |causes: &str| format!("ListOptions.meta.k8s.io \"\" is invalid: {causes}");
    let several = |causes: &[&str]| invalid(&format!("[{}]", causes.join(", ")));
    let without = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
    let unsupported = "resourceVersionMatch: Unsupported value: \"Newest\": supported values: \"Exact\", \"NotOlderThan\", \"\"";
    let with_token = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided";
    let zero = "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
    let for_list = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list";
    let needs_match = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
    let for_watch = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
    let watch_only = "resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"";
    let rows = [
        // Lists.
        ("limit=1".to_owned(),                                                     200, String::new()),
        ("resourceVersion=0".to_owned(),                                           200, String::new()),
        ("resourceVersion=0&limit=1".to_owned(),                                   200, String::new()),
        ("resourceVersion=00&limit=1".to_owned(),                                  200, String::new()),
        ("resourceVersion=00&resourceVersionMatch=Exact".to_owned(),               200, String::new()),
        ("fieldSelector=name%3Da".to_owned(),                                      400, "field label not supported: name".into()),
        (format!("resourceVersion={rv}&resourceVersionMatch=Exact"),               200, String::new()),
        (format!("resourceVersion={rv}&resourceVersionMatch=NotOlderThan&limit=1"), 200, String::new()),
        (format!("continue={token}"),                                              200, String::new()),
        (format!("continue={token}&limit=1"),                                      200, String::new()),
        (format!("continue={token}&resourceVersion=0"),                            200, String::new()),
        (format!("continue={token}&resourceVersion={rv}"),                         400, "specifying resource version is not allowed when using continue".into()),
        ("resourceVersionMatch=Exact".to_owned(),                                  422, invalid(without)),
        ("resourceVersionMatch=Newest&resourceVersion=1".to_owned(),               422, invalid(unsupported)),
        ("resourceVersionMatch=Exact&resourceVersion=0".to_owned(),                422, invalid(zero)),
        (format!("resourceVersionMatch=NotOlderThan&resourceVersion={rv}&continue={token}"), 422, invalid(with_token)),
        (format!("resourceVersionMatch=NotOlderThan&continue={token}"),            422, several(&[without, with_token])),
        ("sendInitialEvents=true".to_owned(),                                      422, invalid(for_list)),
        ("sendInitialEvents=false&resourceVersionMatch=Exact".to_owned(),          422, several(&[without, for_list])),
        ("limit=x&labelSelector=a+in".to_owned(),                                  400, "strconv.ParseInt: parsing \"x\": invalid syntax".into()),
        ("limit=x".to_owned(),                                                     400, "strconv.ParseInt: parsing \"x\": invalid syntax".into()),
        ("limit=".to_owned(),                                                      400, "strconv.ParseInt: parsing \"\": invalid syntax".into()),
        ("limit=99999999999999999999".to_owned(),                                  400, "strconv.ParseInt: parsing \"99999999999999999999\": value out of range".into()),
        ("limit=-1".to_owned(),                                                    200, String::new()),
        ("timeoutSeconds=soon".to_owned(),                                         400, "strconv.ParseInt: parsing \"soon\": invalid syntax".into()),
        ("resourceVersion=x".to_owned(),                                           400, "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax".into()),
        // Watches.
        ("watch=1&timeoutSeconds=1&resourceVersion=0".to_owned(),                  200, String::new()),
        ("watch=1&timeoutSeconds=9223372036854775807".to_owned(),                  200, String::new()),
        ("watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=99999999".to_owned(), 200, String::new()),
        ("watch=1&sendInitialEvents=true".to_owned(),                              422, invalid(needs_match)),
        ("watch=1&sendInitialEvents=false".to_owned(),                             422, invalid(needs_match)),
        ("watch=1&sendInitialEvents=true&resourceVersionMatch=Exact".to_owned(),   422, several(&[needs_match, watch_only])),
        ("watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1".to_owned(), 422, invalid(for_watch)),
        ("watch=1&resourceVersionMatch=Exact&resourceVersion=1".to_owned(),        422, several(&[for_watch, watch_only])),
        (format!("watch=1&resourceVersion=1&continue={token}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), 422, invalid(with_token)),
        (format!("watch=1&continue={token}"),                                      422, invalid(with_token)), // the default match
    ];
    for (query, code, message) in rows {
        let answer = api.send("GET", &format!("/api/v1/namespaces?{query}"), &[], "").await;
        assert_eq!(answer.code, code, "{query}: {}", answer.text);
        if query.ends_with("=99999999") {
            assert!(answer.text.contains("Timeout: Too large resource version: 99999999"), "{query}: {}", answer.text);
        }
        if !message.is_empty() {
            assert!(answer.message().ends_with(&message), "{query}: {}", answer.message());
        }
    }
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_any_revision_says_where_the_first_state_ends() {
    let api = Api::start().await;
    for query in ["", "&resourceVersion=0"] {
        let path = format!("{MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true{query}");
        let answer = api.send("GET", &path, &[], "").await;
        let last: Value = serde_json::from_str(answer.text.lines().last().unwrap()).unwrap();
        assert_eq!(last["type"], "BOOKMARK");
        assert_eq!(last["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true", "{query}");
    }
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[rustfmt::skip]
async fn options_of_writes_are_checked() {
    let api = Api::start().await;
    let long = "m".repeat(129);
    let rows = [
        ("POST",   MAPS, "CreateOptions", "dryRun=Some".to_owned(), "dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"".to_owned()),
        ("POST",   MAPS, "CreateOptions", "fieldValidation=strict".to_owned(), "fieldValidation: Unsupported value: \"strict\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"".to_owned()),
        ("POST",   MAPS, "CreateOptions", format!("fieldManager={long}"), "fieldManager: Too long: may not be more than 128 bytes".to_owned()),
        ("PUT",    ONE,  "UpdateOptions", "fieldManager=a%07b".to_owned(), "fieldManager: Invalid value: \"a\\ab\": invalid character U+0007 (at position 1)".to_owned()),
        ("PATCH",  ONE,  "PatchOptions",  "force=true".to_owned(), "force: Forbidden: may not be specified for non-apply patch".to_owned()),
        ("DELETE", ONE,  "DeleteOptions", "propagationPolicy=Now".to_owned(), "propagationPolicy: Unsupported value: \"Now\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"".to_owned()),
        ("DELETE", ONE,  "DeleteOptions", "propagationPolicy=Orphan&orphanDependents=true".to_owned(), "propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set".to_owned()),
        ("DELETE", MAPS, "DeleteOptions", "dryRun=x".to_owned(), "dryRun: Unsupported value: [\"x\"]: supported values: \"All\"".to_owned()),
    ];
    for (method, path, kind, query, cause) in rows {
        let headers = if method == "PATCH" { [("content-type", "application/merge-patch+json")] } else { [("content-type", "application/json")] };
        let body = if method == "DELETE" { "" } else { "{}" };
        let answer = api.send(method, &format!("{path}?{query}"), &headers, body).await;
        let expected = format!("{kind}.meta.k8s.io \"\" is invalid: {cause}");
        assert_eq!((answer.code, answer.message()), (422, expected), "{method} {query}");
    }
    let apply = [("content-type", "application/apply-patch+yaml")];
    let answer = api.send("PATCH", ONE, &apply, "{}").await;
    assert_eq!(answer.message(), "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch");
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[rustfmt::skip]
async fn content_types_and_bodies_are_refused_in_upstreams_words() {
    let api = Api::start().await;
    let unknown = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let patch = "415: Unsupported Media Type";
    let rows = [
        ("POST",   MAPS, "text/plain",                      "{}", 415, unknown),
        ("POST",   MAPS, "application/json; charset",       "{}", 415, unknown),
        ("PUT",    ONE,  "application/cbor",                "{}", 415, unknown),
        ("DELETE", ONE,  "text/plain",                      "{}", 415, unknown),
        ("PATCH",  ONE,  "application/json",                "{}", 415, patch),
        ("PATCH",  ONE,  "",                                "{}", 415, patch),
        ("PATCH",  ONE,  "Application/merge-patch+json",    "{}", 415, patch),
        ("PATCH",  ONE,  "application/apply-patch+cbor",    "{}", 415, patch),
        ("POST",   MAPS, "application/json",                r#"{"metadata":{"name":"x","namespace":"b"}}"#, 400, "the namespace of the provided object does not match the namespace sent on the request"),
        ("PUT",    ONE,  "application/json",                r#"{"metadata":{"name":"one","namespace":"b"}}"#, 400, "the namespace of the provided object does not match the namespace sent on the request"),
        ("PUT",    ONE,  "application/json",                r#"{"metadata":{"name":"two"}}"#, 400, "the name of the object (two) does not match the name on the URL (one)"),
        ("PUT",    ONE,  "application/json",                r#"{"metadata":{}}"#, 400, "the name of the object (one based on URL) was undeterminable: name must be provided"),
        ("PATCH",  ONE,  "application/merge-patch+json",    r#"{"metadata":{"name":"two"}}"#, 400, "the name of the object (two) does not match the name on the URL (one)"),
        ("PATCH",  ONE,  "application/merge-patch+json",    r#"{"metadata":{"namespace":"b"}}"#, 400, "the namespace of the provided object does not match the namespace sent on the request"),
        ("PATCH",  ONE,  "application/merge-patch+json",    r#"{"apiVersion":null}"#, 400, "the name of the object (one based on URL) was undeterminable: name must be provided"),
        ("PATCH",  ONE,  "application/merge-patch+json",    r#"{"metadata":{"generation":1.0}}"#, 422, ""),
        ("PATCH",  ONE,  "application/strategic-merge-patch+json", r#"{"apiVersion":"v9","metadata":{"generation":1.0}}"#, 200, ""),
        ("DELETE", ONE,  "application/json",                r#"{"kind":"Pod","apiVersion":"v1"}"#, 400, "no kind \"Pod\" is registered for version \"v1\" in scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\""),
        ("DELETE", ONE,  "application/json",                r#"{"apiVersion":"a/b/c"}"#, 400, "unexpected GroupVersion string: a/b/c"),
        ("DELETE", ONE,  "application/json",                r#"{"kind":"Pod"}"#, 400, "no kind \"Pod\" is registered for version \"meta.k8s.io/v1\" in scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\""),
        ("DELETE", ONE,  "application/json",                r#"{"kind":"Status","apiVersion":"v1"}"#, 400, "converting (v1.Status) to (v1.DeleteOptions): unknown conversion"),
        ("DELETE", "/api/v1/namespaces//configmaps/one", "application/json", "{}", 400, "Namespace parameter required."),
        ("POST",   "/api/v1/namespaces/a/bindings/x", "application/json", "{}", 404, ""),
        ("DELETE", ONE,  "application/json",                r#"{"preconditions":{"uid":"x"},"dryRun":["All"]}"#, 409, ""),
        ("DELETE", ONE,  "application/json",                r#"{"kind":"DeleteOptions","apiVersion":"apps/v1","dryRun":["All"]}"#, 200, ""),
    ];
    for (method, path, kind, body, code, message) in rows {
        let headers: &[(&str, &str)] = if kind.is_empty() { &[] } else { &[("content-type", kind)] };
        let answer = api.send(method, path, headers, body).await;
        assert_eq!(answer.code, code, "{method} {kind} {body}: {}", answer.text);
        if !message.is_empty() {
            assert_eq!(answer.message(), message, "{method} {kind} {body}");
        }
    }
    // What is in no namespace has none, whatever the body says.
    let node = api.send("POST", "/api/v1/nodes", &[], r#"{"metadata":{"name":"n","namespace":"a"}}"#).await;
    assert_eq!((node.code, &node.document()["metadata"]["namespace"]), (201, &Value::Null), "{}", node.text);
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_tell_of_audit_caching_flow_and_warnings() {
    let api = Api::start().await;
    let known = api.send("GET", ONE, &[("audit-id", "mine")], "").await;
    assert_eq!((known.header("audit-id"), known.header("cache-control")), ("mine", "no-cache, private"));
    assert!(!known.header("x-kubernetes-pf-flowschema-uid").is_empty());
    let missing = api.send("GET", &format!("{MAPS}/none"), &[], "").await;
    assert_eq!(missing.header("audit-id").len(), 36);
    assert!(!missing.header("x-kubernetes-pf-prioritylevel-uid").is_empty(), "failures are classified too");
    let denied = api.send_as("nobody", "GET", ONE, &[], "").await;
    assert_eq!((denied.code, denied.header("x-content-type-options")), (403, "nosniff"));

    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u1"});
    let doubled = json!({"metadata": {"name": "owned", "ownerReferences": [owner, owner]}});
    let warned = api.send("POST", MAPS, &[], &doubled.to_string()).await;
    assert_eq!(
        warned.header("warning"),
        "299 - \".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject \
         such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: u1\""
    );
    let fields: serde_json::Map<String, Value> = (0..300).map(|n| (format!("unknown-field-number-{n}"), json!(1))).collect();
    let many = api.send("POST", &format!("{MAPS}?dryRun=All"), &[], &Value::Object(fields).to_string()).await;
    let length: usize = many.headers.get_all("warning").iter().map(|value| value.len()).sum();
    assert!(length < 3 * 4096, "{length} bytes of warnings");
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_are_gos_durations() {
    let api = Api::start().await;
    assert_eq!(api.send("GET", &format!("{ONE}?timeout=10s"), &[], "").await.code, 200);
    assert_eq!(api.send("GET", &format!("{ONE}?timeout=0"), &[], "").await.code, 200);
    for (text, why) in [("10", "missing unit in duration \"10\""), ("soon", "invalid duration \"soon\"")] {
        let answer = api.send("GET", &format!("{ONE}?timeout={text}"), &[], "").await;
        let expected = format!("invalid timeout specified in the request URL - time: {why}");
        assert_eq!((answer.code, answer.message()), (400, expected));
    }
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shapes_come_in_the_version_asked_for() {
    let api = Api::start().await;
    for version in ["v1", "v1beta1"] {
        let wants = |kind: &str| format!("application/json;as={kind};v={version};g=meta.k8s.io");
        let group = format!("meta.k8s.io/{version}");
        let rows = [(MAPS, "Table"), (ONE, "Table"), (ONE, "PartialObjectMetadata"), (MAPS, "PartialObjectMetadataList")];
        for (path, kind) in rows {
            let answer = api.send("GET", path, &[("accept", &wants(kind))], "").await.document();
            assert_eq!((answer["kind"].as_str(), answer["apiVersion"].as_str()), (Some(kind), Some(group.as_str())), "{answer}");
        }
        let rows = api.send("GET", MAPS, &[("accept", &wants("Table"))], "").await.document();
        assert_eq!(rows["rows"][0]["object"]["apiVersion"], group.as_str());
        let list = api.send("GET", MAPS, &[("accept", &wants("PartialObjectMetadata"))], "").await;
        let why = "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)";
        assert_eq!((list.code, list.message()), (406, why.to_owned()));
    }
    let none = format!("{MAPS}?labelSelector=none");
    let list =
        api.send("GET", &none, &[("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")], "").await;
    assert_eq!(list.document()["items"], Value::Null, "as Go writes a list that nothing was added to");
    let include = format!("{MAPS}?includeObject=All");
    let table = api.send("GET", &include, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "").await;
    let why = "Unable to convert to Table as requested: includeObject: Invalid value: \"All\": must be 'Metadata', 'Object', 'None', or empty";
    assert_eq!((table.code, table.message()), (400, why.to_owned()));
    let export = api.send("GET", &format!("{ONE}?export=true"), &[], "").await;
    assert_eq!(export.message(), "the export parameter, deprecated since v1.14, is no longer supported");
    for (query, agent, lines) in [("", "", 1), ("?pretty=true", "", 9), ("", "curl/8.0", 9), ("?pretty=false", "curl/8.0", 1)] {
        for path in [ONE, &format!("{MAPS}/none")] {
            let answer = api.send("GET", &format!("{path}{query}"), &[("user-agent", agent)], "").await;
            assert!(answer.text.lines().count() >= lines, "{path}{query} for {agent}");
            assert_eq!(answer.text.lines().count() == 1, lines == 1, "{path}{query} for {agent}: {}", answer.text);
        }
    }
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_taken_is_told_of_when_one_was_to_be_generated() {
    let api = Api::start().await;
    let object = json!({"metadata": {"name": "one", "generateName": "o"}});
    let answer = api.send("POST", MAPS, &[], &object.to_string()).await;
    let why = "configmaps \"one\" already exists, the server was not able to generate a unique name for the object";
    assert_eq!((answer.code, answer.message(), answer.header("retry-after")), (409, why.to_owned(), "1"));
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_of_decisions_seats_and_watches() {
    let api = Api::start().await;
    api.send_as("nobody", "GET", "/api", &[], "").await;
    api.send_as("nobody", "GET", ONE, &[], "").await;
    api.send("PATCH", ONE, &[("content-type", "application/merge-patch+json")], r#"{"data":{"k":"w"}}"#).await;
    api.send("GET", "/api?fieldValidation=Strict", &[("impersonate-user", "nobody")], "").await;
    api.send_as("nobody", "GET", "/api", &[("impersonate-user", "admin")], "").await;
    let text = api.send("GET", "/metrics", &[], "").await.text;
    for line in [
        "apiserver_authorization_decisions_total{decision=\"allowed\",name=\"rbac\",type=\"RBAC\"} 2",
        "apiserver_authorization_decisions_total{decision=\"denied\",name=\"node\",type=\"Node\"} 0",
        "apiserver_current_inqueue_requests{request_kind=\"mutating\"} 0",
        "apiserver_flowcontrol_seat_fair_frac",
        "apiserver_flowcontrol_demand_seats_smoothed{priority_level=\"workload-low\"}",
        "apiserver_flowcontrol_watch_count_samples_count{flow_schema=",
        "apiserver_flowcontrol_request_concurrency_in_use{flow_schema=",
        "apiserver_impersonation_attempts_total{decision=\"allowed\",mode=\"user-info\"} 1",
        "apiserver_impersonation_attempts_total{decision=\"denied\",mode=\"\"} 1",
        "apiserver_impersonation_authorization_attempts_total{decision=\"denied\",mode=\"legacy\"} 1",
        "field_validation_request_duration_seconds_count{field_validation=\"Strict\"} 1",
        "[BETA] This metric records the data about the stage and enablement of a k8s feature.",
        "kubernetes_feature_enabled{name=\"WatchList\",stage=\"BETA\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[rustfmt::skip]
async fn posted_subresources_are_refused_in_upstreams_words() {
    let api = Api::start().await;
    let pod = r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
    let pods = "/api/v1/namespaces/a/pods";
    let account = r#"{"metadata":{"name":"default"}}"#;
    assert_eq!(api.send("POST", "/api/v1/namespaces/a/serviceaccounts", &[], account).await.code, 201);
    let made = api.send("POST", pods, &[], pod).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let web = r#"{"metadata":{"name":"d"},"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
    let deployments = "/apis/apps/v1/namespaces/a/deployments";
    assert_eq!(api.send("POST", deployments, &[], web).await.code, 201);
    let rows = [
        ("POST", "/api/v1/namespaces/a/pods/p/eviction", r#"{"metadata":{"name":"q"}}"#, 400, "name in URL does not match name in Eviction object"),
        ("POST", "/api/v1/namespaces/a/pods/q/eviction", r#"{"metadata":{"name":"q"}}"#, 404, "pods \"q\" not found"),
        ("POST", "/api/v1/namespaces/a/pods/p/eviction?dryRun=All", r#"{"metadata":{"name":"p"},"deleteOptions":{"dryRun":["All","All"]}}"#, 500, "Non-matching dry-run options in request and content: [All] and [All All]"),
        ("POST", "/api/v1/namespaces/a/pods/p/eviction?dryRun=All", r#"{"metadata":{"name":"p"},"deleteOptions":{"dryRun":[]}}"#, 201, ""),
        ("POST", "/api/v1/namespaces/a/pods/p/eviction", r#"{"metadata":{"name":"p"},"deleteOptions":{"preconditions":{"uid":"x"}}}"#, 409, ""),
        ("POST", "/api/v1/namespaces/a/pods/p/attach?dryRun=All", "", 400, "dryRun is not supported"),
        ("GET",  "/apis/apps/v1/namespaces/a/deployments/none/scale", "", 404, "deployments.apps \"none\" not found"),
        ("PUT",  "/apis/apps/v1/namespaces/a/deployments/d/scale", r#"{"metadata":{"name":"e"},"spec":{"replicas":2}}"#, 400, "the name of the object (e) does not match the name on the URL (d)"),
        ("PUT",  "/apis/apps/v1/namespaces/a/deployments/d/scale", r#"{"metadata":{"name":"d"},"spec":{"replicas":-1}}"#, 422, ""),
    ];
    for (method, path, body, code, message) in rows {
        let answer = api.send(method, path, &[], body).await;
        assert_eq!(answer.code, code, "{method} {path} {body}: {}", answer.text);
        if !message.is_empty() {
            assert_eq!(answer.message(), message, "{method} {path} {body}");
        }
    }
    api.0.stop().await;
}

/// It is the Scale that is tracked: whoever sets it takes the replicas from their owner, without a time, and nothing is noted
/// while they have none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_set_through_a_scale_are_owned_without_a_time() {
    let api = Api::start().await;
    let apps = "/apis/apps/v1/namespaces/a/deployments";
    let pods = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": pods});
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec});
    for (name, replicas) in [("free", None), ("owned", Some(1))] {
        object["metadata"] = json!({"name": name});
        if let Some(replicas) = replicas {
            object["spec"]["replicas"] = json!(replicas);
        }
        let apply = [("content-type", "application/apply-patch+yaml")];
        let path = format!("{apps}/{name}?fieldManager=maker");
        assert_eq!(api.send("PATCH", &path, &apply, &object.to_string()).await.code, 201);
    }
    for name in ["free", "owned"] {
        let scale = json!({"metadata": {"name": name}, "spec": {"replicas": 3}});
        let path = format!("{apps}/{name}/scale?fieldManager=scaler");
        assert_eq!(api.send("PUT", &path, &[], &scale.to_string()).await.code, 200);
    }
    let owners = async |name: &str| {
        let document = api.send("GET", &format!("{apps}/{name}"), &[], "").await.document();
        assert_eq!(document["spec"]["replicas"], 3);
        let entries = document["metadata"]["managedFields"].as_array().unwrap().clone();
        let owner = |entry: &Value| (entry["manager"].as_str().unwrap().to_owned(), entry["time"].is_null());
        entries.iter().map(owner).collect::<Vec<_>>()
    };
    assert_eq!(owners("free").await, [("maker".to_owned(), false)]);
    assert_eq!(owners("owned").await, [("maker".to_owned(), false), ("scaler".to_owned(), true)]);
    api.0.stop().await;
}
