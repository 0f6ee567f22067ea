//! What surrounds the resources: pages for debugging, single checks, tables of flow control, and what proxies refuse.

use crate::running::{Running, admin, request};

#[tokio::test]
async fn pages_are_text_for_people_and_documents_for_who_names_them() {
    let running = Running::start(|_, config| {
        config.other_flags.insert("data-dir".into(), "/data".into());
    })
    .await;
    #[rustfmt::skip]
    let cases = [
        // path                  accept                                             code  content type (begins with)  body (holds)
        ("/flagz",               "",                                                200, "text/plain",                "\napiserver flagz\n"),
        ("/flagz",               "*/*",                                             200, "text/plain",                "\ndata-dir=/data\n"),
        ("/flagz",               "application/json",                                406, "application/json",          "only the following media types are accepted: application/json, application/yaml, text/plain"),
        ("/flagz",               "application/json;g=config.k8s.io;v=v1beta1;as=Flagz",   200, "application/json;g=config.k8s.io;v=v1beta1;as=Flagz", "\"request-timeout\":\"1m0s\""),
        ("/flagz",               "application/json;g=config.k8s.io;v=v1beta1;as=Statusz", 406, "application/json",    "NotAcceptable"),
        ("/statusz",             "application/yaml;g=config.k8s.io;v=v1beta1;as=Statusz", 200, "application/yaml",    "- /flagz\n- /healthz\n"),
        ("/statusz",             "text/plain",                                      200, "text/plain",                "Paths: /flagz /healthz /livez /metrics /readyz /statusz /version"),
        ("/readyz/etcd",         "",                                                200, "text/plain",                "ok"),
        ("/livez/nope",          "",                                                404, "text/plain",                "404 page not found"),
        ("/livez?exclude=a,b",   "",                                                200, "text/plain",                "ok"),
        ("/livez?verbose&exclude=a,b&exclude=ping", "",                             200, "text/plain",                "no matches for \"a,b\"\n"),
        ("/metrics/slis",        "",                                                200, "text/plain",                "kubernetes_healthcheck{name=\"etcd\",type=\"livez\"} 1"),
        ("/debug/pprof/",        "",                                                404, "text/plain",                "404 page not found"),
        ("/debug/api_priority_and_fairness/dump_priority_levels", "",               200, "text/plain",                "exempt,            0,            false,  false,       0,               1,"),
        ("/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1", "", 200, "text/plain",             ", admin,    get,    /debug/api_priority_and_fairness/dump_requests,"),
        ("/debug/api_priority_and_fairness/dump_x", "",                             404, "text/plain",                "404 page not found"),
        ("/openapi/v2",          "text/html",                                       406, "",                          ""),
        ("/openapi/v3/version?hash=OLD", "",                                        301, "application/json",          ""),
        ("/openapi/v3/version",  "anything",                                        200, "",                          ""),
        ("/apis",                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", 200, "application/json;g=apidiscovery.k8s.io", "APIGroupDiscoveryList"),
        ("/apis/",               "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", 406, "application/json", "NotAcceptable"),
    ];
    for (path, accept, code, kind, body) in cases {
        let answer = running.ask(admin(), request("GET", path, "").header("accept", accept), "").await;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        assert_eq!(answer.status().as_u16(), code, "{path} {accept}: {text}");
        let given = answer.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap());
        assert!(given.starts_with(kind), "{path} {accept}: {given}");
        assert!(text.contains(body), "{path} {accept}: {text}");
    }
    // The lists of groups take any method, but for the group of the aggregator itself.
    for (path, code) in [("/apis", 200), ("/apis/apps", 200), ("/apis/apiregistration.k8s.io", 405), ("/api", 405)] {
        assert_eq!(running.ask(admin(), request("PUT", path, ""), "").await.status().as_u16(), code, "{path}");
    }
    running.stop().await;
}

#[tokio::test]
async fn openapi_documents_are_not_sent_to_who_has_them() {
    let running = Running::start(|_, _| {}).await;
    let get = |name: &'static str, value: String| {
        let running = &running;
        async move { running.ask(admin(), request("GET", "/openapi/v3/version", "").header(name, value), "").await }
    };
    let first = get("x-nothing", String::new()).await;
    let header = |name: &str| first.headers()[name].to_str().unwrap().to_owned();
    let (tag, date) = (header("etag"), header("last-modified"));
    for (name, value, code) in [
        ("if-none-match", tag.clone(), 304),
        ("if-none-match", format!("\"other\", W/{tag}"), 304),
        ("if-none-match", "\"other\"".into(), 200),
        ("if-modified-since", date, 304),
        ("if-modified-since", "Sat, 01 Jan 2000 00:00:00 GMT".into(), 200),
        ("if-match", "\"other\"".into(), 412),
        ("range", "bytes=0-9".into(), 206),
        ("range", "bytes=999999-".into(), 416),
    ] {
        assert_eq!(get(name, value.clone()).await.status().as_u16(), code, "{name}: {value}");
    }
    running.stop().await;
}

#[tokio::test]
async fn proxies_refuse_what_leads_nowhere_or_to_the_server_itself() {
    let running = Running::start(|_, _| {}).await;
    let send = |method: &'static str, path: &'static str, body: &'static str| {
        let running = &running;
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        async move { running.ask(admin(), request(method, path, kind), body).await }
    };
    let pods = "/api/v1/namespaces/default/pods";
    send("POST", "/api/v1/namespaces/default/serviceaccounts", r#"{"metadata":{"name":"default"}}"#).await;
    let made = send("POST", pods, r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"i"},{"name":"b","image":"i"}],"initContainers":[{"name":"i","image":"i"}]}}"#).await;
    assert_eq!(made.status(), 201, "{made:?}");
    let local = r#"{"status":{"podIP":"127.0.0.1","podIPs":[{"ip":"127.0.0.1"}]}}"#;
    assert_eq!(send("PATCH", "/api/v1/namespaces/default/pods/p/status", local).await.status(), 200);
    let service = r#"{"metadata":{"name":"s"},"spec":{"ports":[{"port":80}]}}"#;
    assert_eq!(send("POST", "/api/v1/namespaces/default/services", service).await.status(), 201);
    // Nobody vouches for this address: it is no pod's.
    let endpoints = r#"{"metadata":{"name":"s"},"subsets":[{"addresses":[{"ip":"10.9.9.9"}],"ports":[{"port":80}]}]}"#;
    assert_eq!(send("POST", "/api/v1/namespaces/default/endpoints", endpoints).await.status(), 201);
    #[rustfmt::skip]
    let cases = [
        ("GET",  "pods/p/proxy/x",               400, "address not allowed"),
        ("GET",  "pods/ftp:p:80/proxy/x",        400, "invalid pod request \"ftp:p:80\""),
        ("GET",  "pods/a:p:80:1/proxy/x",        400, "invalid pod request \"a:p:80:1\""),
        ("GET",  "pods/none/proxy/x",            404, "pods \"none\" not found"),
        ("GET",  "services/s/proxy/x",           503, "no endpoints available for service \"s\""),
        ("GET",  "services/s:81/proxy/x",        503, "no service port 81 found for service \"s\""),
        ("GET",  "pods/p/log",                   400, "a container name must be specified for pod p, choose one of: [i a b]"),
        ("GET",  "pods/p/log?container=x",       400, "container x is not valid for pod p"),
        ("POST", "pods/p/exec?container=a&command=ls", 400, "pod p does not have a host assigned"),
    ];
    for (method, path, code, message) in cases {
        let path = format!("/api/v1/namespaces/default/{path}");
        let answer = running.ask(admin(), request(method, &path, ""), "").await;
        let status: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!((answer.status().as_u16(), status["message"].as_str()), (code, Some(message)), "{path}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_of_lists_bodies_and_tokens() {
    let running = Running::start(|_, _| {}).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "b", "c"] {
        let body = format!(r#"{{"metadata":{{"name":"{name}","labels":{{"is":"{name}"}}}}}}"#);
        assert_eq!(running.ask(admin(), request("POST", maps, "application/json"), body).await.status(), 201);
    }
    // One with a selector, one of a page, one in protobuf, and one that may be old.
    for (query, accept) in [
        ("labelSelector=is%3Da", "*/*"),
        ("limit=2", "*/*"),
        ("", "application/vnd.kubernetes.protobuf"),
        ("resourceVersion=0", "*/*"),
    ] {
        let asked = request("GET", &format!("{maps}?{query}"), "").header("accept", accept);
        assert_eq!(running.ask(admin(), asked, "").await.status(), 200);
    }
    let text = running.ask(admin(), request("GET", "/metrics", ""), "").await.into_body();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let figure = |series: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is missing:\n{text}")).parse().unwrap()
    };
    let scanned = r#"{group="",index="",resource="configmaps"}"#;
    assert_eq!(figure(&format!("apiserver_cache_list_total{scanned}")), 4);
    let (fetched, returned) = (
        figure(&format!("apiserver_cache_list_fetched_objects_total{scanned}")),
        figure(r#"apiserver_cache_list_returned_objects_total{group="",resource="configmaps"}"#),
    );
    // There may be others in the namespace than the three.
    assert!(fetched >= 3 + 2 + 3 + 3 && returned >= 1 + 2 + 3 + 3 && returned < fetched, "{fetched} {returned}");
    assert_eq!(
        figure(r#"apiserver_watch_cache_consistent_read_total{fallback="false",group="",resource="configmaps",success="true"}"#),
        3
    );
    assert_eq!(figure(r#"apiserver_storage_list_total{group="",resource="configmaps"}"#), 1);
    // The server itself makes one as well.
    assert!(figure(r#"apiserver_request_body_size_bytes_count{group="",resource="configmaps",verb="create"}"#) >= 3);
    assert_eq!(figure("apiserver_cel_evaluation_duration_seconds_count"), 0);
    assert_eq!(figure("serviceaccount_valid_tokens_total"), 0);
    assert!(text.contains("# TYPE apiserver_request_slo_duration_seconds histogram"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_leaves_is_not_ready_and_serves_on() {
    let running = Running::start(|_, config| config.shutdown_delay = std::time::Duration::from_millis(1)).await;
    let ready = async || running.ask(admin(), request("GET", "/readyz", ""), "").await;
    assert_eq!(ready().await.status(), 200);
    running.server.leave().await;
    let answer = ready().await;
    let text = String::from_utf8(answer.body().to_vec()).unwrap();
    assert!(answer.status() == 500 && text.contains("[-]shutdown failed: reason withheld\n"), "{text}");
    for path in ["/livez", "/api/v1/namespaces"] {
        assert_eq!(running.ask(admin(), request("GET", path, ""), "").await.status(), 200, "{path}");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_named_origins_may_ask() {
    let running = Running::start(|_, config| config.cors_allowed_origins = vec!["//good.example$".into()]).await;
    let nobody = || corten_apiserver::User::new("nobody", &[]);
    let ask = async |method: &str, origin: &str| {
        let asked = request(method, "/api/v1/namespaces", "").header("origin", origin);
        running.ask(nobody(), asked, "").await
    };
    // Whether the browser may ask is told before anybody knows who does.
    let told = ask("OPTIONS", "https://good.example").await;
    assert_eq!(
        (told.status().as_u16(), &told.headers()["access-control-allow-origin"]),
        (204, &"https://good.example".parse().unwrap())
    );
    assert_eq!(told.headers()["access-control-allow-methods"], "POST, GET, OPTIONS, PUT, DELETE, PATCH");
    let refused = ask("GET", "https://good.example").await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["access-control-allow-credentials"]),
        (403, &"true".parse().unwrap())
    );
    let other = ask("OPTIONS", "https://good.example.evil").await;
    assert!(other.status() == 403 && !other.headers().contains_key("access-control-allow-origin"), "{other:?}");
    running.stop().await;
}
