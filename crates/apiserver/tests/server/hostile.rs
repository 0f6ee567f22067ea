//! Requests that nobody means well with: broken, huge, deep and doubled bodies of every media type, patches, selectors,
//! queries and continue tokens. Whatever comes, there is an answer in good time, and never a panic.
//!
//! The seeds are changed at random for a few seconds by `RANDOM` steps of mutation; a failure prints the request.

use std::time::{Duration, Instant};

use crate::running::{Running, admin, request};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";
/// How long the random part runs.
const RANDOM: Duration = Duration::from_secs(4);
/// What no answer may take longer than, unoptimized and on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Api(Running);

impl Api {
    async fn start() -> Self {
        Self(Running::start(|_, _| {}).await)
    }

    /// The answer; fails when it takes too long or tells of a panic.
    async fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let started = Instant::now();
        let answer = self.0.ask(admin(), request(method, path, kind), Bytes::copy_from_slice(body));
        let shown = || format!("{method} {path} {kind} {:?}", String::from_utf8_lossy(&body[..body.len().min(2000)]));
        let Ok(answer) = tokio::time::timeout(PATIENCE, answer).await else {
            panic!("no answer after {:?} to {}", started.elapsed(), shown());
        };
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        assert!(!text.contains("apiserver to panic"), "a panic for {}", shown());
        (answer.status().as_u16(), text)
    }
}

fn pod(containers: usize) -> Value {
    let containers: Vec<_> = (0..containers).map(|n| json!({"name": format!("c{n}"), "image": "i"})).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}})
}

fn deep(depth: usize) -> Vec<u8> {
    let mut text = br#"{"metadata":{"name":"a"},"data":"#.to_vec();
    text.extend(std::iter::repeat_n(br#"{"a":"#, depth).flatten());
    text.push(b'1');
    text.extend(std::iter::repeat_n(b'}', depth + 1));
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bodies_are_refused_in_words() {
    let api = Api::start().await;
    let lists = [b"[".repeat(100_000), b"{\"a\":[".repeat(50_000)].concat();
    let many_keys: String = (0..50_000).map(|n| format!("\"k{n}\":\"v\",")).collect();
    let doubled: String = (0..20_000).map(|_| "\"k\":\"v\",").collect();
    let cases: Vec<(&str, &str, Vec<u8>, &[u16])> = vec![
        (JSON, MAPS, deep(20_000), &[400]),
        (JSON, MAPS, lists, &[400]),
        (JSON, MAPS, b"{\"metadata\":{\"name\":\"a\"},\"data\":{\"k\":\"\xff\xfe\"}}".to_vec(), &[201, 400, 422]),
        (JSON, MAPS, b"{\"metadata\":{\"name\":\"a\\u0000b\"}}".to_vec(), &[422]),
        (JSON, MAPS, b"\0\0\0\0".to_vec(), &[400]),
        (JSON, MAPS, b"{\"metadata\":{\"generation\":1e400}}".to_vec(), &[400, 422]),
        (JSON, MAPS, b"{\"metadata\":{\"generation\":123456789012345678901234567890}}".to_vec(), &[400]),
        (JSON, MAPS, format!("{{\"metadata\":{{\"name\":\"many\"}},\"data\":{{{many_keys}\"z\":\"\"}}}}").into_bytes(), &[201]),
        (JSON, MAPS, format!("{{\"metadata\":{{\"name\":\"doubled\"}},\"data\":{{{doubled}\"z\":\"\"}}}}").into_bytes(), &[201]),
        ("application/yaml", MAPS, b"a: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f]\n".to_vec(), &[400]),
        ("application/yaml", MAPS, b"{".repeat(50_000), &[400]),
        ("application/yaml", MAPS, b"- ".repeat(50_000), &[400]),
        ("application/vnd.kubernetes.protobuf", MAPS, b"k8s\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec(), &[400]),
        ("application/vnd.kubernetes.protobuf", MAPS, b"k8s\0\x12\x80\x80\x80\x80\x08".to_vec(), &[400]),
        (JSON, "/api/v1/namespaces/default/pods?dryRun=All", pod(10_000).to_string().into_bytes(), &[201, 403, 422]),
        (JSON, MAPS, vec![b' '; 4 << 20], &[413]),
    ];
    for (kind, path, body, expected) in cases {
        let (code, text) = api.ask("POST", path, kind, &body).await;
        let begin = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert!(expected.contains(&code), "{code} for {kind} {begin:?}: {}", &text[..text.len().min(300)]);
    }
    api.0.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_patches_and_queries_are_refused_in_words() {
    let api = Api::start().await;
    api.ask("POST", MAPS, JSON, br#"{"metadata":{"name":"a"},"data":{"k":"v"}}"#).await;
    let object = format!("{MAPS}/a");
    let copies: Vec<_> = (0..40).map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/c{n}")})).collect();
    let many: Vec<_> = (0..20_000).map(|_| json!({"op": "test", "path": "/data/k", "value": "v"})).collect();
    let patch = |kind| format!("application/{kind}-patch+{}", if kind == "apply" { "yaml" } else { "json" });
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("json", json!(copies).to_string().into_bytes()),
        ("json", json!(many).to_string().into_bytes()),
        ("json", br#"[{"op":"add","path":"/data/~2","value":1}]"#.to_vec()),
        ("json", br#"[{"op":"move","from":"/metadata","path":"/metadata/labels/x"}]"#.to_vec()),
        ("json", br#"[{"op":"add","path":"/metadata/finalizers/99999999999999999999","value":"x"}]"#.to_vec()),
        ("merge", deep(20_000)),
        ("strategic-merge", deep(20_000)),
        ("strategic-merge", br#"{"metadata":{"ownerReferences":[{"$patch":"delete"},5,null,[]]}}"#.to_vec()),
        ("strategic-merge", br#"{"$patch":"replace","$retainKeys":7,"$setElementOrder/x":{}}"#.to_vec()),
    ];
    for (kind, body) in cases {
        let (code, text) = api.ask("PATCH", &object, &patch(kind), &body).await;
        assert!((400..=422).contains(&code), "{code} for {kind}: {}", &text[..text.len().min(300)]);
    }
    let (code, _) = api.ask("PATCH", &format!("{object}?fieldManager=m"), &patch("apply"), &b"[".repeat(50_000)).await;
    assert_eq!(code, 400);
    let selector = format!("{MAPS}?labelSelector={}", "a,".repeat(10_000));
    for path in [
        selector.as_str(),
        &format!("{MAPS}?labelSelector=a+in+({})", "b,".repeat(10_000)),
        &format!("{MAPS}?continue={}", "A".repeat(30_000)),
        &format!("{MAPS}?continue=%00%ff"),
        &format!("{MAPS}?limit=-9223372036854775808&labelSelector=%ff"),
        &format!("{MAPS}?fieldSelector={}", "metadata.name%3Da,".repeat(1_500)),
    ] {
        let (code, _) = api.ask("GET", path, JSON, b"").await;
        assert!(matches!(code, 200 | 400 | 410), "{code}");
    }
    api.0.stop().await;
}

/// Seeds of the random part: method, path, media type, body.
const SEEDS: &[(&str, &str, &str, &[u8])] = &[
    ("POST", MAPS, JSON, br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"r","labels":{"a":"b"}},"data":{"k":"v","k":"w"}}"#),
    ("POST", "/api/v1/namespaces/default/pods?dryRun=All", JSON, br#"{"metadata":{"name":"r"},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1e3"}},"ports":[{"containerPort":80}]}]}}"#),
    ("POST", "/apis/batch/v1/namespaces/default/cronjobs?fieldValidation=Strict", "application/yaml", b"metadata: {name: r}\nspec:\n  schedule: '*/5 * * * *'\n  jobTemplate:\n    spec: &s {parallelism: 0x10}\n  x: *s\n"),
    ("POST", MAPS, "application/vnd.kubernetes.protobuf", b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x0f\x0a\x03\x0a\x01r\x12\x06\x0a\x01k\x12\x01v"),
    ("PATCH", "/api/v1/namespaces/default", "application/strategic-merge-patch+json", br#"{"metadata":{"$patch":"merge","labels":{"a":null},"finalizers":["a/b"],"$deleteFromPrimitiveList/finalizers":["a/b"],"$setElementOrder/finalizers":["a/b"]}}"#),
    ("PATCH", "/api/v1/namespaces/default", "application/json-patch+json", br#"[{"op":"test","path":"/metadata/name","value":"default"},{"op":"copy","from":"/metadata/labels","path":"/metadata/annotations"}]"#),
    ("PATCH", "/api/v1/namespaces/default?fieldManager=m&force=true", "application/apply-patch+yaml", b"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  labels: {x: y}\n"),
    ("GET", "/api/v1/pods?labelSelector=a+in+(b,c),!d,e%3E5&fieldSelector=spec.nodeName%3Dx,status.phase!%3DRunning&limit=5", JSON, b""),
    ("GET", "/api/v1/configmaps?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0&limit=2", JSON, b""),
    ("GET", "/api/v1/configmaps?resourceVersion=1&resourceVersionMatch=Exact&timeoutSeconds=1", JSON, b""),
    ("DELETE", "/api/v1/namespaces/default/configmaps?propagationPolicy=Orphan", JSON, br#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"preconditions":{"uid":"x"}}"#),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_requests_are_answered() {
    let api = Api::start().await;
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let end = Instant::now() + RANDOM;
    while Instant::now() < end {
        let (method, path, kind, body) = SEEDS[random.random_range(0..SEEDS.len())];
        let body = mutated(body, &mut random);
        let (front, query) = path.split_once('?').unwrap_or((path, ""));
        // What is no URL never reaches the server: the query is changed, then escaped where it must be.
        let query: String = mutated(query.as_bytes(), &mut random)
            .into_iter()
            .map(|byte| match byte {
                b'=' | b'&' | b'%' | b'+' | b',' | b'!' | b'(' | b')' | b'.' => char::from(byte).to_string(),
                byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                byte => format!("%{byte:02x}"),
            })
            .collect();
        // A watch would go on.
        let query = query.replace("watch", "wotch");
        api.ask(method, &format!("{front}?{query}"), kind, &body).await;
    }
    api.0.stop().await;
}

/// The bytes with up to a few changes: flipped, doubled, dropped and repeated parts, and tokens that parsers care about.
fn mutated(bytes: &[u8], random: &mut StdRng) -> Vec<u8> {
    const TOKENS: [&[u8]; 18] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b"null",
        b"1e999",
        b"-0",
        b"\\u0000",
        b"\xff",
        b"\0",
        b"$patch",
        b"99999999999999999999",
        b",",
        b"*a",
        b"&a ",
        b"%00",
        b"~1",
    ];
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(0..4) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..12)).min(bytes.len());
        match random.random_range(0..4) {
            0 => drop(bytes.splice(at..at, TOKENS[random.random_range(0..TOKENS.len())].iter().copied())),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..end].repeat(random.random_range(1..40));
                drop(bytes.splice(at..at, part));
            }
            _ if at < bytes.len() => bytes[at] = random.random(),
            _ => {}
        }
    }
    bytes
}
