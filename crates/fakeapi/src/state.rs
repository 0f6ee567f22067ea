//! The objects, and what each verb does to them.

use std::collections::{BTreeMap, HashMap};

use kube::core::Status;
use serde_json::{Value, json};

use crate::request::Target;
use crate::status;

/// Identity of an object, whatever the version it is asked for in: group, resource, namespace, name.
pub(crate) type Id = (String, String, String, String);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) revision: u64,
    pub(crate) objects: BTreeMap<Id, Value>,
    /// Every change: revision, watch event type, identity, object.
    pub(crate) log: Vec<(u64, &'static str, Id, Value)>,
    pub(crate) documents: HashMap<String, Value>,
    uids: u64,
}

impl Target {
    pub(crate) fn id(&self) -> Id {
        (self.group.clone(), self.resource.clone(), self.namespace.clone(), self.name.clone())
    }

    pub(crate) fn covers(&self, id: &Id) -> bool {
        self.group == id.0
            && self.resource == id.1
            && (self.namespace.is_empty() || self.namespace == id.2)
            && (self.name.is_empty() || self.name == id.3)
    }

    fn not_found(&self) -> Status {
        status::not_found(self)
    }
}

impl State {
    pub(crate) fn get(&self, target: &Target) -> Result<Value, Status> {
        self.objects.get(&target.id()).cloned().ok_or_else(|| target.not_found())
    }

    pub(crate) fn create(&mut self, target: &Target, mut object: Value) -> Result<Value, Status> {
        self.uids += 1;
        let uids = self.uids;
        let meta = &mut object["metadata"];
        if meta["name"].is_null() {
            meta["name"] = json!(format!("{}{uids:05x}", meta["generateName"].as_str().unwrap_or_default()));
        }
        let mut target = target.clone();
        target.name = meta["name"].as_str().unwrap_or_default().into();
        if !target.namespace.is_empty() {
            meta["namespace"] = json!(target.namespace);
        }
        if self.objects.contains_key(&target.id()) {
            return Err(status::already_exists(&target));
        }
        if meta["uid"].is_null() {
            meta["uid"] = json!(format!("uid-{uids}"));
        }
        if meta["creationTimestamp"].is_null() {
            meta["creationTimestamp"] = json!(now());
        }
        if meta["generation"].is_null() {
            meta["generation"] = json!(1);
        }
        if target.resource == "namespaces" && object["spec"]["finalizers"].is_null() {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"]["phase"] = json!("Active");
        }
        Ok(self.store(&target, "ADDED", object))
    }

    /// Replaces the object, or the part of it that the subresource is about.
    pub(crate) fn replace(&mut self, target: &Target, mut object: Value) -> Result<Value, Status> {
        let old = self.get(target)?;
        let revision = &object["metadata"]["resourceVersion"];
        if revision.is_string() && *revision != old["metadata"]["resourceVersion"] {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(status::conflict(target, why));
        }
        if object["metadata"]["uid"].is_string() && object["metadata"]["uid"] != old["metadata"]["uid"] {
            return Err(status::conflict(target, "Precondition failed: UID in precondition"));
        }
        match &*target.subresource {
            "" => {
                for kept in ["uid", "creationTimestamp", "generation", "deletionTimestamp", "namespace", "name"] {
                    object["metadata"][kept] = old["metadata"][kept].clone();
                }
                if has_status(target) {
                    object["status"] = old["status"].clone();
                }
                drop_nulls(&mut object);
                if object["spec"] != old["spec"] {
                    object["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
                }
            }
            "finalize" => {
                let finalizers = object["spec"]["finalizers"].clone();
                object = old.clone();
                object["spec"]["finalizers"] = finalizers;
            }
            _ => {
                let status = object["status"].clone();
                let resized = object["spec"].clone();
                object = old.clone();
                object["status"] = status;
                if target.subresource == "resize" {
                    object["spec"] = resized;
                }
            }
        }
        object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        drop_nulls(&mut object);
        if object == old {
            return Ok(old);
        }
        if is_finished(&object) {
            return Ok(self.remove(target, object));
        }
        Ok(self.store(target, "MODIFIED", object))
    }

    pub(crate) fn delete(&mut self, target: &Target, options: &Value) -> Result<Value, Status> {
        let mut object = self.get(target)?;
        for field in ["uid", "resourceVersion"] {
            let expected = &options["preconditions"][field];
            if expected.is_string() && *expected != object["metadata"][field] {
                let why = format!("Precondition failed: {field} in precondition: {expected}");
                return Err(status::conflict(target, &why));
            }
        }
        let policy = options["propagationPolicy"].as_str().unwrap_or_default();
        let finalizer = match policy {
            "Foreground" => Some("foregroundDeletion"),
            "Orphan" => Some("orphan"),
            _ => None,
        };
        if let Some(finalizer) = finalizer {
            let list = &mut object["metadata"]["finalizers"];
            if !list.is_array() {
                *list = json!([]);
            }
            let list = list.as_array_mut().expect("it was just made one");
            if !list.iter().any(|known| known == finalizer) {
                list.push(json!(finalizer));
            }
        }
        if is_held(&object) {
            if object["metadata"]["deletionTimestamp"].is_null() {
                object["metadata"]["deletionTimestamp"] = json!(now());
                if target.resource == "namespaces" {
                    object["status"]["phase"] = json!("Terminating");
                }
            }
            return Ok(self.store(target, "MODIFIED", object));
        }
        Ok(self.remove(target, object))
    }

    pub(crate) fn select(&self, target: &Target, fields: &str, labels: &str) -> Vec<(Id, Value)> {
        let matching = self.objects.iter().filter(|(id, object)| target.covers(id) && matches(object, fields, labels));
        matching.map(|(id, object)| (id.clone(), object.clone())).collect()
    }

    pub(crate) fn store(&mut self, target: &Target, event: &'static str, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.objects.insert(target.id(), object.clone());
        self.log.push((self.revision, event, target.id(), object.clone()));
        object
    }

    pub(crate) fn remove(&mut self, target: &Target, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.objects.remove(&target.id());
        self.log.push((self.revision, "DELETED", target.id(), object.clone()));
        object
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn has_status(target: &Target) -> bool {
    !matches!(&*target.resource, "endpoints" | "endpointslices" | "configmaps" | "secrets" | "leases" | "events")
}

fn is_held(object: &Value) -> bool {
    let any = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    any(&object["metadata"]["finalizers"]) || any(&object["spec"]["finalizers"])
}

/// Whether nothing keeps an object that is being deleted.
fn is_finished(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string() && !is_held(object)
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

/// Comma-separated equality terms, on any field path and on labels.
pub(crate) fn matches(object: &Value, fields: &str, labels: &str) -> bool {
    let holds = |term: &str, value: &dyn Fn(&str) -> String| match term.split_once("!=") {
        Some((path, unwanted)) => value(path) != unwanted,
        None => term.split_once('=').is_none_or(|(path, wanted)| value(path) == wanted.trim_start_matches('=')),
    };
    let field = |path: &str| {
        let value = path.split('.').fold(object, |value, step| &value[step]);
        value.as_str().map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
    };
    let label = |name: &str| object["metadata"]["labels"][name].as_str().unwrap_or_default().to_owned();
    fields.split(',').filter(|term| !term.is_empty()).all(|term| holds(term, &field))
        && labels.split(',').filter(|term| !term.is_empty()).all(|term| holds(term, &label))
}
