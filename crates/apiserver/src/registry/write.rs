//! What every write has in common: who writes what under which options, warnings, admission, metadata, and the one place
//! that hands bytes to the store.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use http::header;
use serde_json::{Map, Value};

use corten_api::field::Faults;
use corten_api::names;
use corten_api::status::Status;
use corten_kinds::{Context, Strategy};
use corten_store::{Durability, Expect, KeyValue, Write, WriteError};

use super::options::WriteOptions;
use super::target::Target;
use crate::admission::{AdmissionRequest, Operation, Reinvocation};
use crate::audit::Trail;
use crate::cache::{self, Entry, Prepared};
use crate::pipeline::Call;
use crate::proof::Admitted;
use crate::state::State;
use crate::user::User;
use crate::warnings::Warnings;

/// One write on its way.
pub(crate) struct Writing<'a> {
    pub state: &'a Arc<State>,
    pub target: &'a Target,
    pub user: &'a User,
    pub namespace: String,
    /// The verb of the request that it is part of.
    pub verb: &'a str,
    pub subresource: String,
    pub options: WriteOptions,
    /// Name under which changed fields are owned.
    pub manager: String,
    pub warnings: Warnings,
    pub now: jiff::Timestamp,
    /// What is recorded of the request that it is part of.
    pub trail: Option<&'a Trail>,
    /// Whether a new object came with labels, before defaults.
    pub labels_given: bool,
}

impl<'a> Writing<'a> {
    /// The write that a request asks for.
    pub(crate) fn of(state: &'a Arc<State>, target: &'a Target, call: &'a Call, options: WriteOptions) -> Self {
        let info = call.info();
        let namespace = if target.resource.namespaced { info.namespace.clone() } else { String::new() };
        let manager = options.manager(call.header(header::USER_AGENT));
        Self {
            state,
            target,
            user: call.user(),
            namespace,
            verb: &info.verb,
            subresource: info.subresource.clone(),
            options,
            manager,
            warnings: call.warnings().clone(),
            now: jiff::Timestamp::now(),
            trail: call.trail().map(Arc::as_ref),
            labels_given: true,
        }
    }

    /// A write of the server itself: no fields are owned, nothing is warned of.
    pub(crate) fn own(state: &'a Arc<State>, target: &'a Target, user: &'a User, namespace: &str) -> Self {
        Self {
            state,
            target,
            user,
            namespace: namespace.to_owned(),
            verb: "update",
            subresource: String::new(),
            options: WriteOptions::default(),
            manager: "kube-apiserver".into(),
            warnings: Warnings::default(),
            now: jiff::Timestamp::now(),
            trail: None,
            labels_given: true,
        }
    }

    /// Runs `f` with the rules of the kind, if it has some.
    pub(crate) fn with_rules<T>(&self, f: impl FnOnce(&dyn Strategy, &Context<'_>) -> T) -> Option<T> {
        let strategy = self.target.strategy?;
        let context = Context {
            now: self.now,
            namespace: &self.namespace,
            user: &self.user.name,
            user_uid: &self.user.uid,
            groups: &self.user.groups,
            extra: &self.user.extra,
            subresource: &self.subresource,
            labels_given: self.labels_given,
            version: &self.target.version().name,
        };
        Some(f(strategy, &context))
    }

    /// Faults of what asks for administrative access to devices in a namespace that does not allow it.
    pub(crate) fn admin_access_faults(&self, document: &Value, old: Option<&Value>) -> Faults {
        const LABEL: &str = "resource.kubernetes.io/admin-access";
        let stored = &self.target.stored;
        if !corten_kinds::may_want_admin_access(&stored.group, &stored.plural) {
            return Faults::default();
        }
        let faults = corten_kinds::admin_access_faults(document, old);
        let allowed = || {
            let namespace = self.state.reader.get("", "namespaces", "", &self.namespace);
            namespace.is_some_and(|namespace| namespace.decode()["metadata"]["labels"][LABEL] == "true")
        };
        if faults.is_empty() || allowed() { Faults::default() } else { faults }
    }

    /// Fills in the kind's defaults.
    pub(crate) fn default(&self, document: &mut Value) {
        if let Some(strategy) = self.target.strategy {
            strategy.default_at(document, self.now);
        }
    }

    /// Adds a text for a `Warning` header, once.
    pub(crate) fn warn(&mut self, text: String) {
        self.warnings.add(text);
    }

    /// The write as admission sees it.
    pub(crate) fn admission(
        &self,
        operation: Operation,
        name: &str,
        object: Option<Value>,
        old: Option<Value>,
    ) -> AdmissionRequest {
        let (version, kind) = match self.target.version().subresource(&self.subresource) {
            Some(sub) => (sub.version.clone(), sub.kind.clone()),
            None => (self.target.version().name.clone(), self.target.resource.kind.clone()),
        };
        AdmissionRequest {
            operation,
            group: self.target.resource.group.clone(),
            version,
            resource: self.target.resource.plural.clone(),
            subresource: self.subresource.clone(),
            kind,
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            object,
            old,
            options: self.options.document.clone(),
            user: self.user.clone(),
            dry_run: self.options.dry_run,
            warnings: Vec::new(),
            audit_annotations: BTreeMap::new(),
            reinvocation: Reinvocation::default(),
        }
    }

    /// The changing pass of admission over `document`.
    pub(crate) async fn mutate(
        &mut self,
        operation: Operation,
        name: &str,
        document: &mut Value,
        mut old: Option<&mut Value>,
    ) -> Result<(), Status> {
        // Lent to the plugins and taken back: a copy of a pod costs more than most plugins do.
        let before = old.as_mut().map(|old| old.take());
        let mut request = self.admission(operation, name, Some(document.take()), before);
        self.state.admission.prepare(&mut request);
        let outcome = self.state.admission.mutate(&mut request).await;
        self.told(&mut request);
        *document = request.object.take().unwrap_or_default();
        if let (Some(place), Some(old)) = (old, request.old.take()) {
            *place = old;
        }
        outcome
    }

    /// Passes on what plugins say to the client and to the audit log.
    fn told(&mut self, request: &mut AdmissionRequest) {
        for text in std::mem::take(&mut request.warnings) {
            self.warn(text);
        }
        if let Some(trail) = self.trail {
            request.audit_annotations.iter().for_each(|(key, value)| trail.annotate(key, value));
        }
    }

    /// The judging pass of admission.
    pub(crate) async fn judge(
        &mut self,
        operation: Operation,
        name: &str,
        mut document: Option<&mut Value>,
        mut old: Option<&mut Value>,
    ) -> Result<Admitted, Status> {
        let object = document.as_mut().map(|document| document.take());
        let before = old.as_mut().map(|old| old.take());
        let mut request = self.admission(operation, name, object, before);
        self.state.admission.prepare(&mut request);
        let outcome = self.state.admission.validate(&mut request).await;
        self.told(&mut request);
        if let (Some(place), Some(object)) = (document, request.object.take()) {
            *place = object;
        }
        if let (Some(place), Some(old)) = (old, request.old.take()) {
            *place = old;
        }
        outcome
    }

    /// Faults as a Status of this kind.
    pub(crate) fn invalid(&self, name: &str, faults: &corten_api::field::Faults) -> Status {
        Status::invalid(self.target.group(), &self.target.resource.kind, name, faults)
    }

    /// The bytes of a document in the stored form, and what the cache is told of them, to be kept until they are written.
    pub(crate) fn encode(&self, document: &Value) -> Result<(bytes::Bytes, Option<Prepared<'_>>), Status> {
        let stored = &self.target.stored;
        let spec = self.target.cache()?.spec();
        let fields = match &spec.fields {
            None => Vec::new(),
            Some(_) => match super::target::strategy(&stored.group, &stored.plural) {
                Some(strategy) => strategy.fields(document),
                None => return Ok((spec.layout.encode(document), None)),
            },
        };
        let (bytes, index) = spec.layout.encode_indexed(document, fields);
        let prepared = self.state.caches.prepare(&bytes, index);
        Ok((bytes, Some(prepared)))
    }

    /// Writes the document under `name`, and returns the revision. Nothing gets here that admission has not seen.
    pub(crate) async fn commit(
        &self,
        name: &str,
        value: Option<bytes::Bytes>,
        expect: Expect,
        admitted: Admitted,
    ) -> Result<u64, CommitError> {
        let durability = if self.is_lazy() { Durability::Lazy } else { Durability::Sync };
        self.commit_as(durability, name, value, expect, admitted).await
    }

    /// As [`Self::commit`], for a write whose durability the kind alone does not decide.
    pub(crate) async fn commit_as(
        &self,
        durability: Durability,
        name: &str,
        value: Option<bytes::Bytes>,
        expect: Expect,
        _admitted: Admitted,
    ) -> Result<u64, CommitError> {
        let key = self.target.store_key(&self.namespace, name).map_err(|status| CommitError::Status(Box::new(status)))?;
        let operation = match (&value, &expect) {
            (None, _) => "delete",
            (_, Expect::Absent) => "create",
            _ => "update",
        };
        let started = std::time::Instant::now();
        let written = self.state.store.write(Write { key, value, expect, durability }).await;
        let failed = !matches!(written, Ok(_) | Err(WriteError::Conflict { .. }));
        let resource = &self.target.resource;
        self.state.metrics.storage.wrote(operation, &resource.group, &resource.plural, started.elapsed(), failed);
        match written {
            Ok(revision) => {
                self.state.caches.wait_for(revision.0).await;
                Ok(revision.0)
            }
            Err(WriteError::Conflict { current, .. }) => {
                // Whoever tries again must see what was in the way.
                if let Some(current) = &current {
                    self.state.caches.wait_for(current.modified.0).await;
                }
                Err(CommitError::Conflict(current))
            }
            Err(err) => {
                let why = std::error::Error::source(&err).map(|source| format!(": {source}")).unwrap_or_default();
                let status = Status::internal(format!("the object could not be stored{why}")).because(err);
                Err(CommitError::Status(Box::new(status)))
            }
        }
    }

    /// Heartbeats and Events may become durable a little later.
    pub(crate) fn is_lazy(&self) -> bool {
        let stored = &self.target.stored;
        match (stored.group.as_str(), stored.plural.as_str()) {
            ("", "events") => true,
            ("coordination.k8s.io", "leases") => self.namespace == "kube-node-lease",
            _ => false,
        }
    }

    /// The cached object of this name.
    pub(crate) fn cached(&self, name: &str) -> Result<Option<Arc<Entry>>, Status> {
        Ok(self.target.cache()?.get(&cache::key(&self.namespace, name)))
    }

    /// A text in the request's words about an object that changed in between.
    pub(crate) fn changed(&self, name: &str) -> Status {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        self.target.conflict(name, why)
    }
}

/// Why a commit failed.
pub(crate) enum CommitError {
    /// The key was not as expected; what is there instead.
    Conflict(Option<KeyValue>),
    /// Something else.
    Status(Box<Status>),
}

/// The metadata of a document, made when it has none.
pub(crate) fn metadata(document: &mut Value) -> &mut Map<String, Value> {
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    let place = document.as_object_mut().expect("made an object above").entry("metadata").or_insert_with(|| Map::new().into());
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut().expect("made an object above")
}

/// A text of the metadata; empty when it is absent.
pub(crate) fn meta_text<'d>(document: &'d Value, field: &str) -> &'d str {
    document["metadata"][field].as_str().unwrap_or_default()
}

/// The document is of the object of the path, by namespace and name.
pub(crate) fn check_place(writing: &Writing<'_>, document: &Value, name: &str) -> Result<(), Status> {
    check_namespace(writing, document)?;
    match meta_text(document, "name") {
        given if given == name => Ok(()),
        "" => Err(no_name(name)),
        given => {
            let why = format!("the name of the object ({given}) does not match the name on the URL ({name})");
            Err(Status::bad_request(why))
        }
    }
}

/// An object stays in its namespace.
pub(crate) fn check_namespace(writing: &Writing<'_>, document: &Value) -> Result<(), Status> {
    let given = meta_text(document, "namespace");
    if !given.is_empty() && given != writing.namespace && writing.target.resource.namespaced {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(why));
    }
    Ok(())
}

/// Refuses an object that does not say which one it is.
pub(crate) fn no_name(name: &str) -> Status {
    Status::bad_request(format!("the name of the object ({name} based on URL) was undeterminable: name must be provided"))
}

/// Whether a kind's own rules look at metadata at all; without, only what holds for all kinds does.
pub(crate) fn has_own_metadata_rules(target: &Target) -> bool {
    // Events of both groups are stored as one; only the newer group looks at their metadata.
    let is_old_event = target.resource.group.is_empty() && target.resource.plural == "events";
    let is_budget = target.stored.group == "policy" && target.stored.plural == "poddisruptionbudgets";
    !is_old_event && !is_budget
}

/// Finalizers of built-in kinds are qualified, or one of the three that Kubernetes itself has.
pub(crate) fn validate_finalizer_names(target: &Target, meta: &Value, faults: &mut Faults) {
    let resource = &target.resource;
    if !resource.custom && corten_kinds::has_strict_finalizers(&resource.group, &resource.plural) {
        corten_kinds::check_finalizers(meta, faults);
    }
}

/// A time as metadata has it.
pub(crate) fn stamp(time: jiff::Timestamp) -> Value {
    corten_api::time::seconds(time).into()
}

/// A fresh name for a `generateName`.
pub(crate) fn generated_name(base: &str) -> String {
    names::generated(base, rand::random())
}

/// When owner references are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    BeforeAdmission,
    AfterAdmission,
}

/// Drops owner references that are there twice, and warns of them.
pub(crate) fn dedup_owners(writing: &mut Writing<'_>, document: &mut Value, pass: Pass) {
    let Some(owners) = document.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) else {
        return;
    };
    // By their text: comparing each with each would take hours when somebody sends thousands.
    let mut seen = HashSet::with_capacity(owners.len());
    let mut doubled = Vec::new();
    owners.retain(|owner| {
        let is_new = seen.insert(owner.to_string());
        if !is_new {
            doubled.push(owner["uid"].as_str().unwrap_or_default().to_owned());
        }
        is_new
    });
    if doubled.is_empty() {
        return;
    }
    let when = if pass == Pass::AfterAdmission { " after mutating admission happens" } else { "" };
    writing.warn(format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject \
         such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        doubled.join(", ")
    ));
}
