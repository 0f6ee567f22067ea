//! Plays recorded requests against the strategies alone, without a server, and compares objects, faults, warnings and table
//! rows with the recorded answers. Needs `CORTEN_RECORDINGS`, a directory of recordings; without it there is nothing to do.
//! `CORTEN_ONLY` picks scenarios by a part of their name.
//!
//! What belongs to the server (allocation, admission but for pods, apply, authorization) is not imitated: such steps are left
//! out, so this tells where the kinds' rules differ, not that a server answers as recorded.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use corten_api::catalogue::Catalogue;
use corten_api::facts::{Type, Types};
use corten_api::field::{Faults, Path};
use corten_api::names::{validate_object_meta, validate_object_meta_update};
use corten_api::status::Status;
use corten_kinds::{Context, Strategy, convert, strategy};
use corten_schema::decode::{FieldValidation, Format, decode, normalize};
use corten_schema::patch::{Patch, PatchKind};
use regex::Regex;
use serde_json::{Map, Value, json};

const NAMESPACE: &str = "recorded";
const RAND: &str = "abcdef";
const UID: &str = "11111111-2222-3333-4444-555555555555";
const TIME: &str = "2026-01-01T00:00:00Z";

#[test]
fn strategies_answer_as_recorded() {
    let Ok(directory) = std::env::var("CORTEN_RECORDINGS") else { return };
    let only = std::env::var("CORTEN_ONLY").unwrap_or_default();
    let mut failed = 0;
    for file in ["workloads.json", "kinds.json", "machinery.json"] {
        let text = std::fs::read_to_string(format!("{directory}/{file}")).expect("the recordings are there");
        let scenarios: Vec<Value> = serde_json::from_str(&text).expect("recordings are JSON");
        let (mut equal, mut total, mut steps) = (0, 0, 0);
        for scenario in scenarios.iter().filter(|s| s["name"].as_str().unwrap_or_default().contains(&only)) {
            let mut world = World::default();
            let mut compared = 0;
            let differences = world.play(scenario, &mut compared);
            if compared == 0 {
                continue;
            }
            steps += compared;
            total += 1;
            if differences.is_empty() {
                equal += 1;
            } else {
                failed += 1;
                println!("DIFFERS {}", scenario["name"].as_str().unwrap_or_default());
                for difference in differences.iter().take(8) {
                    println!("  {difference}");
                }
            }
        }
        println!("{file}: {equal} of {total} scenarios with steps to compare are equal ({steps} steps)");
    }
    assert_eq!(failed, 0, "scenarios differ");
}

/// The objects of one scenario, by path.
#[derive(Default)]
struct World {
    objects: HashMap<String, Value>,
}

struct Request<'a> {
    group: String,
    version: String,
    resource: String,
    namespace: String,
    name: String,
    subresource: String,
    query: &'a str,
}

fn parse(path: &str) -> Option<Request<'_>> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut parts = path.trim_start_matches('/').split('/');
    let (group, version) = match parts.next()? {
        "api" => (String::new(), parts.next()?.to_owned()),
        "apis" => (parts.next()?.to_owned(), parts.next()?.to_owned()),
        _ => return None,
    };
    let mut rest: Vec<&str> = parts.collect();
    let mut namespace = String::new();
    if rest.first() == Some(&"namespaces") && rest.len() > 2 && !matches!(rest[2], "status" | "finalize") {
        namespace = rest[1].to_owned();
        rest.drain(..2);
    }
    let at = |i: usize| rest.get(i).copied().unwrap_or_default().to_owned();
    Some(Request { group, version, resource: at(0), namespace, name: at(1), subresource: at(2), query })
}

fn fill(value: &Value) -> Value {
    let text = value.to_string().replace("{ns}", NAMESPACE).replace("{rand}", RAND);
    serde_json::from_str(&text).expect("filling keeps it JSON")
}

impl World {
    fn play(&mut self, scenario: &Value, compared: &mut usize) -> Vec<String> {
        let mut differences = Vec::new();
        let steps = scenario["steps"].as_array().into_iter().flatten();
        let expected = scenario["expect"].as_array().into_iter().flatten();
        for (i, (step, expected)) in steps.zip(expected).enumerate() {
            let filled = fill(step);
            let answer = self.step(&filled, expected);
            let Some((got, warnings)) = answer else { continue };
            if step["skip"] == json!(true) {
                continue;
            }
            *compared += 1;
            let mut want = fill(&expected["body"]);
            for ignored in step["ignore"].as_array().into_iter().flatten() {
                remove(&mut want, ignored.as_str().unwrap_or_default());
            }
            let mut got = masked(got);
            for ignored in step["ignore"].as_array().into_iter().flatten() {
                remove(&mut got, ignored.as_str().unwrap_or_default());
            }
            let want = masked(want);
            let label =
                format!("step {i} {} {}", step["method"].as_str().unwrap_or("GET"), step["path"].as_str().unwrap_or_default());
            let mut found = Vec::new();
            differ(&want, &got, String::new(), &mut found);
            differences.extend(found.into_iter().map(|difference| format!("{label}: {difference}")));
            if let Some(text) = expected["warning"].as_str()
                && !text.contains("unknown field")
                && !text.contains("duplicate field")
                && !text.contains("Endpoints is deprecated")
                && !text.contains("child pods are preserved")
            {
                let shown: Vec<String> =
                    warnings.iter().map(|w| format!("299 - \"{}\"", w.replace('\\', "\\\\").replace('"', "\\\""))).collect();
                let shown = shown.join(", ");
                if shown != text {
                    differences.push(format!("{label}: want warning {text}, got {shown}"));
                }
            } else if !warnings.is_empty() && expected["warning"].is_null() {
                differences.push(format!("{label}: unexpected warnings {warnings:?}"));
            }
        }
        differences
    }

    /// The answer to one step, when it is one that strategies alone can give.
    fn step(&mut self, step: &Value, expected: &Value) -> Option<(Value, Vec<String>)> {
        let method = step["method"].as_str().unwrap_or("GET");
        let request = parse(step["path"].as_str()?)?;
        let catalogue = Catalogue::builtin();
        let (resource, version) = catalogue.resource_in(&request.group, &request.version, &request.resource)?;
        let strategy = strategy(&request.group, &request.resource)?;
        let ty = Types::get().named(&version.type_name)?;
        let header = |name: &str| step["headers"][name].as_str().unwrap_or_default().to_owned();
        let api_version = |group: &str, version: &str| {
            if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
        };
        let requested = api_version(&request.group, &request.version);
        let stored = api_version(&resource.storage.group, &resource.storage.version);
        let groups = [String::from("system:masters"), String::from("system:authenticated")];
        let extra = BTreeMap::new();
        let now: jiff::Timestamp = TIME.parse().expect("a timestamp");
        let ctx = Context {
            now,
            namespace: &request.namespace,
            user: "admin",
            user_uid: "admin",
            groups: &groups,
            extra: &extra,
            subresource: &request.subresource,
            version: &request.version,
        };
        let key = |name: &str| format!("{}/{}/{}/{name}", resource.storage.group, request.resource, request.namespace);
        let storage_type = Types::get().named(resource.storage_type())?;
        let env = Env {
            strategy,
            ty,
            storage_type,
            requested: &requested,
            stored: &stored,
            request: &request,
            kind: &resource.kind,
            storage_group: &resource.storage.group,
            ctx,
            namespaced: resource.namespaced,
        };
        let dry = request.query.contains("dryRun=All");
        let status = expected["status"].as_u64().unwrap_or_default();
        let skipped = expected["status"] == json!("skipped");
        // Refusals of other layers are theirs to test; what they let through is taken over.
        if !skipped && !matches!(status, 200 | 201 | 422) {
            return None;
        }
        let strict = request.query.contains("fieldValidation=") || request.query.contains("fieldManager");
        match method {
            "POST" if request.name.is_empty() && !strict => {
                let body = if step["body"].is_string() { return None } else { step["body"].to_string() };
                let mut object = decode(body.as_bytes(), Format::Json, ty).ok()?.document;
                let outcome = env.create(&mut object);
                if let Ok(warnings) = outcome {
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    if self.objects.contains_key(&key(name)) && !dry {
                        return None;
                    }
                    if !dry {
                        self.objects.insert(key(name), object.clone());
                    }
                    return Some((env.shown(object), warnings));
                }
                outcome.err().map(|status| (status.to_document(), Vec::new()))
            }
            "PUT" | "PATCH"
                if matches!(
                    request.subresource.as_str(),
                    "" | "status" | "resize" | "ephemeralcontainers" | "finalize" | "approval"
                ) =>
            {
                let old = self.objects.get(&key(&request.name))?.clone();
                let mut object = match method {
                    "PUT" => decode(step["body"].to_string().as_bytes(), Format::Json, ty).ok()?.document,
                    _ => {
                        let kind = match header("Content-Type").as_str() {
                            "application/merge-patch+json" => PatchKind::Merge,
                            "application/json-patch+json" => PatchKind::Json,
                            "application/strategic-merge-patch+json" => PatchKind::Strategic,
                            _ => return self.forget(&key(&request.name)),
                        };
                        let patch = Patch::read(kind, step["body"].to_string().as_bytes(), FieldValidation::Ignore).ok()?;
                        let mut shown = old.clone();
                        convert(&request.group, &request.resource, &stored, &requested, &mut shown);
                        let patched = patch.apply(&shown, Some(ty)).ok()?;
                        normalize(&patched, ty).ok()?.document
                    }
                };
                match env.update(&mut object, &old) {
                    Ok(warnings) => {
                        if !dry {
                            self.objects.insert(key(&request.name), object.clone());
                        }
                        Some((env.shown(object), warnings))
                    }
                    Err(status) => Some((status.to_document(), Vec::new())),
                }
            }
            "GET" if !request.name.is_empty() && request.subresource.is_empty() => {
                let object = self.objects.get(&key(&request.name))?.clone();
                if header("Accept").contains("as=Table") {
                    let row = strategy.row(&object, now);
                    let mut want = expected["body"].clone();
                    let columns: Vec<Value> = strategy.columns().iter().map(|c| json!({ "name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority })).collect();
                    want["columnDefinitions"] = json!(columns);
                    want["rows"][0]["cells"] = json!(row);
                    return Some((fill(&want), Vec::new()));
                }
                if !header("Accept").is_empty() && header("Accept") != "application/json" {
                    return None;
                }
                Some((env.shown(object), Vec::new()))
            }
            "GET" if request.name.is_empty() && header("Accept").contains("as=Table") && request.query.is_empty() => {
                let prefix = key("");
                let mut all: Vec<_> = self.objects.iter().filter(|(k, _)| k.starts_with(&prefix)).collect();
                all.sort_by_key(|(k, _)| (*k).clone());
                let mut want = expected["body"].clone();
                let rows = want["rows"].as_array()?.len();
                if rows != all.len() || want["columnDefinitions"].is_null() {
                    return None;
                }
                for (i, (_, object)) in all.into_iter().enumerate() {
                    want["rows"][i]["cells"] = json!(strategy.row(object, now));
                }
                Some((fill(&want), Vec::new()))
            }
            "DELETE" => {
                if request.name.is_empty() {
                    self.objects.clear();
                } else {
                    self.objects.remove(&key(&request.name));
                }
                None
            }
            _ => self.forget(&key(&request.name)),
        }
    }

    fn forget(&mut self, key: &str) -> Option<(Value, Vec<String>)> {
        self.objects.remove(key);
        None
    }
}

struct Env<'a> {
    strategy: &'static dyn Strategy,
    ty: &'a Type,
    storage_type: &'a Type,
    requested: &'a str,
    stored: &'a str,
    request: &'a Request<'a>,
    kind: &'a str,
    storage_group: &'a str,
    ctx: Context<'a>,
    namespaced: bool,
}

impl Env<'_> {
    fn create(&self, object: &mut Value) -> Result<Vec<String>, Status> {
        convert(&self.request.group, &self.request.resource, self.requested, self.stored, object);
        self.strategy.default(object);
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(UID);
        metadata["creationTimestamp"] = json!(TIME);
        metadata["resourceVersion"] = json!("1");
        if self.namespaced {
            metadata["namespace"] = json!(self.request.namespace);
        }
        if metadata["name"].as_str().unwrap_or_default().is_empty() && metadata["generateName"].is_string() {
            metadata["name"] = json!(format!("{}abcde", metadata["generateName"].as_str().unwrap_or_default()));
        }
        self.strategy.prepare_create(object, &self.ctx);
        if self.request.resource == "pods" {
            admit_pod(object);
        }
        let mut faults = Faults::default();
        let rule = |name: &str, prefix: bool| self.strategy.validate_name(name, prefix);
        validate_object_meta(&object["metadata"], self.namespaced, &rule, &Path::new("metadata"), &mut faults);
        corten_kinds::check_finalizers(object, &mut faults);
        faults.0.extend(self.strategy.validate(object, &self.ctx).0);
        self.judge(object, None, &faults)
    }

    fn update(&self, object: &mut Value, old: &Value) -> Result<Vec<String>, Status> {
        convert(&self.request.group, &self.request.resource, self.requested, self.stored, object);
        self.strategy.default(object);
        for key in ["uid", "creationTimestamp", "generation", "namespace", "deletionTimestamp", "selfLink"] {
            if old["metadata"][key].is_null() {
                object["metadata"].as_object_mut().map(|map| map.remove(key));
            } else {
                object["metadata"][key] = old["metadata"][key].clone();
            }
        }
        object["metadata"]["resourceVersion"] = json!("1");
        self.strategy.prepare_update(object, old, &self.ctx);
        if self.request.resource == "pods" && self.request.subresource.is_empty() {
            admit_pod_update(object);
        }
        self.strategy.default(object);
        let mut faults = Faults::default();
        // Once by the generic registry and once, or twice for some kinds, by the kind's own rules.
        let rule = |name: &str, prefix: bool| self.strategy.validate_name(name, prefix);
        let path = Path::new("metadata");
        validate_object_meta(&object["metadata"], self.namespaced, &rule, &path, &mut faults);
        validate_object_meta_update(&object["metadata"], &old["metadata"], &path, &mut faults);
        validate_object_meta_update(&object["metadata"], &old["metadata"], &path, &mut faults);
        if self.strategy.revalidates_metadata() && self.request.subresource != "status" {
            validate_object_meta(&object["metadata"], self.namespaced, &rule, &path, &mut faults);
        }
        faults.0.extend(self.strategy.validate_update(object, old, &self.ctx).0);
        self.judge(object, Some(old), &faults)
    }

    fn judge(&self, object: &mut Value, old: Option<&Value>, faults: &Faults) -> Result<Vec<String>, Status> {
        if !faults.is_empty() {
            let group = self.storage_group;
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            return Err(Status::invalid(group, self.kind, name, faults));
        }
        let warnings = self.strategy.warnings(object, old, &self.ctx);
        self.strategy.default(object);
        if let Ok(normal) = normalize(object, self.storage_type) {
            *object = normal.document;
        }
        Ok(warnings)
    }

    fn shown(&self, mut object: Value) -> Value {
        convert(&self.request.group, &self.request.resource, self.stored, self.requested, &mut object);
        normalize(&object, self.ty).map(|normal| normal.document).unwrap_or(object)
    }
}

/// What the admission plugins that are always on make of a pod.
fn admit_pod(pod: &mut Value) {
    let spec = &mut pod["spec"];
    if spec["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
        spec["serviceAccountName"] = json!("default");
        spec["serviceAccount"] = json!("default");
    }
    if spec["automountServiceAccountToken"] != json!(false) {
        const AT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
        let mut used = false;
        for kind in ["initContainers", "containers"] {
            for container in spec[kind].as_array_mut().into_iter().flatten() {
                let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
                if mounts.iter().all(|mount| mount["mountPath"] != json!(AT)) {
                    let mut mounts = mounts;
                    mounts.push(json!({ "name": "kube-api-access-abcde", "readOnly": true, "mountPath": AT }));
                    container["volumeMounts"] = json!(mounts);
                    used = true;
                }
            }
        }
        if used {
            let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
            volumes.push(json!({ "name": "kube-api-access-abcde", "projected": { "defaultMode": 420, "sources": [
                { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } },
            ] } }));
            spec["volumes"] = json!(volumes);
        }
    }
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|t| {
            (t["key"] == json!(key) || t["key"].is_null()) && (t["effect"] == json!("NoExecute") || t["effect"].is_null())
        });
        if !tolerated {
            tolerations.push(json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }));
        }
    }
    spec["tolerations"] = json!(tolerations);
    if spec["priority"].is_null() {
        spec["priority"] = json!(0);
    }
    if spec["preemptionPolicy"].is_null() {
        spec["preemptionPolicy"] = json!("PreemptLowerPriority");
    }
}

/// Of admission, only tolerations are defaulted again on update.
fn admit_pod_update(pod: &mut Value) {
    let mut copy = json!({ "spec": { "tolerations": pod["spec"]["tolerations"], "automountServiceAccountToken": false } });
    admit_pod(&mut copy);
    pod["spec"]["tolerations"] = copy["spec"]["tolerations"].clone();
}

static UUIDS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").expect("a constant"));
static TIMES: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z").expect("a constant"));

/// Hides what differs from run to run.
fn masked(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                if matches!(key.as_str(), "managedFields" | "resourceVersion") {
                    continue;
                }
                out.insert(key, masked(value));
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(masked).collect()),
        Value::String(text) => {
            let text = text
                .replace(UID, "<uid>")
                .replace("kube-api-access-abcde", "kube-api-access-<r>")
                .replace("gen-abcde", "gen-<generated>");
            let text = UUIDS.replace_all(&text, "<uid>").into_owned();
            let text = TIMES.replace_all(&text, "<time>").into_owned();
            Value::String(if text == "0s" { "<age>".into() } else { text })
        }
        other => other,
    }
}

fn remove(value: &mut Value, path: &str) {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    match value {
        Value::Object(map) if rest.is_empty() => drop(map.remove(first)),
        Value::Object(map) => {
            if let Some(inner) = map.get_mut(first) {
                remove(inner, rest);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| remove(item, if first == "*" { rest } else { path })),
        _ => {}
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    let most = if std::env::var("CORTEN_ONLY").is_ok_and(|only| !only.is_empty()) { 9000 } else { 420 };
    if text.len() > most { format!("{}…", text.chars().take(most).collect::<String>()) } else { text }
}

fn differ(want: &Value, got: &Value, at: String, out: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                match b.get(key) {
                    None => out.push(format!("{at}.{key}: missing, want {}", short(value))),
                    Some(have) => differ(value, have, format!("{at}.{key}"), out),
                }
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                out.push(format!("{at}.{key}: unexpected {}", short(value)));
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                out.push(format!("{at}: want {} items, got {}: {} / {}", a.len(), b.len(), short(want), short(got)));
                return;
            }
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differ(a, b, format!("{at}[{i}]"), out);
            }
        }
        _ if want != got => out.push(format!("{at}: want {}, got {}", short(want), short(got))),
        _ => {}
    }
}
