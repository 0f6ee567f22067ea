//! What a request is about: the resource in the version of the path, how it is stored, and what is known of its kind.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use http::Method;

use corten_api::catalogue::{Catalogue, Resource, Subresource, Verbs, Version};
use corten_api::selector::{FieldSelector, Operator};
use corten_api::status::{Details, Status};
use corten_kinds::Strategy;

use crate::cache::{By, Cache, Entry};
use crate::request::RequestInfo;
use crate::response::{self, Response};
use crate::state::State;

/// A resource, found in the catalogue.
#[derive(Clone)]
pub(crate) struct Target {
    /// The resource of the path.
    pub resource: Arc<Resource>,
    /// Index of the path's version in it.
    version: usize,
    /// The resource whose store it shares; mostly itself.
    pub stored: Arc<Resource>,
    /// The rules of its kind, on the stored form.
    pub strategy: Option<&'static dyn Strategy>,
    /// Its cache; none when nothing is stored.
    pub cache: Option<Arc<Cache>>,
}

/// Why a path leads nowhere.
pub(crate) enum Nowhere {
    /// No such group: not a page of the API at all.
    Page,
    /// A Status.
    Status(Box<Status>),
}

impl From<Status> for Nowhere {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Nowhere {
    pub(crate) fn answer(self) -> Result<Response, Status> {
        match self {
            Self::Page => Ok(response::no_such_page()),
            Self::Status(status) => Err(*status),
        }
    }
}

impl Target {
    /// The target of a request, if its path exists.
    pub(crate) fn find(state: &State, info: &RequestInfo) -> Result<Self, Nowhere> {
        let catalogue = state.catalogue();
        let Some(group) = catalogue.group(&info.group) else {
            return Err(Nowhere::Page);
        };
        let served = group.versions.iter().any(|version| version.name == info.version && version.served);
        if !served || (info.group.is_empty() != (info.prefix == "api")) {
            return Err(missing().into());
        }
        let target = Self::of(state, &catalogue, &info.group, &info.version, &info.resource).ok_or_else(missing)?;
        if !target.version().served {
            return Err(missing().into());
        }
        Ok(target)
    }

    /// The resource of this name in this version.
    pub(crate) fn of(state: &State, catalogue: &Catalogue, group: &str, version: &str, plural: &str) -> Option<Self> {
        let resource = catalogue.resource(group, plural)?.clone();
        let version = resource.versions.iter().position(|v| v.name == version)?;
        let stored = match catalogue.kind(&resource.storage.group, &resource.storage.kind) {
            Some(stored) if resource.storage.group != resource.group => stored.clone(),
            _ => resource.clone(),
        };
        // Events have rules of their own in each of their groups, on one stored form.
        let own = strategy(&resource.group, &resource.plural);
        let strategy = own.or_else(|| strategy(&stored.group, &stored.plural));
        let cache = state.caches.of(&stored.group, &stored.plural);
        Some(Self { resource, version, stored, strategy, cache })
    }

    /// The resource in the version it is stored in.
    pub(crate) fn stored_as(state: &State, group: &str, plural: &str) -> Option<Self> {
        let catalogue = state.catalogue();
        let version = catalogue.resource(group, plural)?.storage.version.clone();
        Self::of(state, &catalogue, group, &version, plural)
    }

    /// The path's version.
    pub(crate) fn version(&self) -> &Version {
        &self.resource.versions[self.version]
    }

    /// `v1` or `apps/v1`, of the path.
    pub(crate) fn api_version(&self) -> String {
        join(&self.resource.group, &self.version().name)
    }

    /// `v1` or `apps/v1`, of the stored form.
    pub(crate) fn stored_version(&self) -> String {
        join(&self.resource.storage.group, &self.resource.storage.version)
    }

    /// Whether the stored form is the one of the path, so that bytes can be sent as they are.
    pub(crate) fn is_stored_form(&self) -> bool {
        self.resource.storage.group == self.resource.group && self.resource.storage.version == self.version().name
    }

    /// The cache of a stored resource.
    pub(crate) fn cache(&self) -> Result<&Arc<Cache>, Status> {
        self.cache.as_ref().ok_or_else(missing)
    }

    /// The key in the store.
    pub(crate) fn store_key(&self, namespace: &str, name: &str) -> Result<String, Status> {
        Ok(format!("{}{}", self.cache()?.spec().prefix, crate::cache::key(namespace, name)))
    }

    /// Group of the kind, as faults of an object name it: kinds that share a store share them.
    pub(crate) fn group(&self) -> &str {
        &self.stored.group
    }

    /// Plural name of the resource.
    pub(crate) fn plural(&self) -> &str {
        &self.resource.plural
    }

    /// Whether it is this resource, by its stored group.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.stored.group == group && self.stored.plural == plural
    }

    /// Refuses a name that no key can have.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), Status> {
        match corten_api::names::name_is_path_segment(name, false).first() {
            Some(why) => {
                let shown = corten_api::field::quoted(name);
                Err(Status::bad_request(format!("Name parameter invalid: {shown}: {why}")))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.resource.group, self.plural(), name)
    }

    pub(crate) fn conflict(&self, name: &str, why: &str) -> Status {
        Status::conflict(&self.resource.group, self.plural(), name, why)
    }

    /// The subresource of a request, or 404.
    pub(crate) fn subresource(&self, name: &str) -> Result<&Subresource, Status> {
        self.version().subresource(name).ok_or_else(missing)
    }

    /// Whether the path is one of this resource's paths, whatever the method: collection or object, in its scope.
    pub(crate) fn check_scope(&self, info: &RequestInfo) -> Result<(), Status> {
        let about_itself = info.resource == "namespaces" && info.group.is_empty();
        let in_namespace = !info.namespace.is_empty() && !about_itself;
        let named = info.parts.len() > 1;
        let within = about_itself && info.parts.len() < 2 && !info.namespace.is_empty();
        let in_namespace = in_namespace || info.namespace_path;
        let fits = if self.resource.namespaced { in_namespace || !named } else { !in_namespace && !within };
        // Nothing is behind a subresource but what it leads to, and nothing is named where objects are only posted.
        let too_long = info.parts.len() > 3 && info.subresource != "proxy";
        let unnamed = named
            && info.subresource.is_empty()
            && !["get", "update", "patch", "delete"].iter().any(|verb| self.version().verbs.contains(verb));
        // Only lists go over all namespaces, and nothing below an object is watched by the old paths.
        let nowhere = self.resource.namespaced && !named && !in_namespace && !self.version().verbs.contains("list");
        let below = info.watch_path && !info.subresource.is_empty();
        if !fits || too_long || unnamed || nowhere || below {
            return Err(missing());
        }
        if named && self.resource.namespaced && info.namespace.is_empty() {
            return Err(Status::bad_request("Namespace parameter required."));
        }
        Ok(())
    }

    /// Refuses a verb that the resource or subresource does not have on this path.
    pub(crate) fn check_verb(&self, info: &RequestInfo, method: &Method) -> Result<(), Status> {
        let verbs: Verbs =
            if info.subresource.is_empty() { self.version().verbs } else { self.subresource(&info.subresource)?.verbs };
        let verb = info.verb.as_str();
        let named = info.parts.len() > 1;
        let everywhere = self.resource.namespaced && info.namespace.is_empty() && !info.namespace_path;
        let on_this_path = match verb {
            "create" => !named || !info.subresource.is_empty(),
            "list" => !named,
            "update" | "patch" | "delete" | "get" => named,
            "deletecollection" => !everywhere,
            "watch" => true,
            _ => false,
        };
        // Methods without a verb of their own are for those behind a proxy only.
        let proxied = info.subresource == "proxy";
        if info.verb == "proxy" {
            return Err(missing());
        }
        if info.watch_path && *method != Method::GET {
            return Err(method_not_allowed());
        }
        if !proxied && matches!(*method, Method::HEAD | Method::OPTIONS) {
            return Err(method_not_allowed());
        }
        if proxied && *method == Method::OPTIONS {
            return Ok(());
        }
        let posts_everywhere = verb == "create" && everywhere && !named;
        let reads_one = matches!(verb, "get" | "list" | "watch") && named;
        if (verbs.contains(verb) || (reads_one && verbs.contains("get"))) && on_this_path && !posts_everywhere {
            return Ok(());
        }
        Err(method_not_allowed())
    }

    /// Field selectors by names of the stored form; refuses fields that cannot be selected.
    pub(crate) fn known_fields(&self, mut selector: FieldSelector) -> Result<FieldSelector, Status> {
        let known = &self.version().fields;
        for term in &mut selector.terms {
            // What is in no namespace can be selected by one only where the kind says nothing about fields.
            let has_namespace = self.resource.namespaced || known.is_empty();
            if term.field == "metadata.name" || (term.field == "metadata.namespace" && has_namespace) {
                continue;
            }
            if !known.contains(&term.field) {
                let field = &term.field;
                let message = if known.is_empty() {
                    let field = corten_api::field::quoted(field);
                    format!("{field} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
                } else if self.resource.kind == "ResourceSlice" {
                    format!("field label not supported for {}, Kind=ResourceSlice: {field}", self.api_version())
                } else if self.resource.kind == "Job" {
                    format!("field label {} not supported for Job", corten_api::field::quoted(field))
                } else {
                    format!("field label not supported: {field}")
                };
                return Err(Status::bad_request(message));
            }
            if let Some(renamed) = self.stored_field(&term.field) {
                term.field = renamed;
            }
        }
        Ok(selector)
    }

    /// The stored form's name of a field that this version calls differently.
    fn stored_field(&self, field: &str) -> Option<String> {
        if self.resource.group != "events.k8s.io" {
            return None;
        }
        match field {
            "reportingController" => Some("reportingComponent".into()),
            field => field.strip_prefix("regarding").map(|rest| format!("involvedObject{rest}")),
        }
    }
}

/// Which objects of a collection a request is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub namespace: String,
    pub labels: corten_api::selector::LabelSelector,
    pub fields: FieldSelector,
}

impl Filter {
    /// Whether the selectors (not the namespace) select an object.
    pub(crate) fn selects(&self, entry: &Entry) -> bool {
        self.labels.matches(entry) && self.fields.matches(|field| entry.field(field).unwrap_or_default())
    }

    /// Whether an object is in the namespace asked for, if one is.
    pub(crate) fn is_in_namespace(&self, entry: &Entry) -> bool {
        self.namespace.is_empty() || *entry.namespace == *self.namespace
    }

    /// Values that every selected object has, of things that objects can be indexed by.
    pub(crate) fn exact(&self) -> Vec<(By, &str)> {
        let terms = self.fields.terms.iter().filter(|term| term.equal && !term.field.starts_with("metadata."));
        let fields = terms.map(|term| (By::Field(term.field.as_str().into()), term.value.as_str()));
        let labels = self.labels.requirements().iter().filter_map(|requirement| match requirement.values() {
            [value] if matches!(requirement.operator(), Operator::In | Operator::Equals | Operator::DoubleEquals) => {
                Some((By::Label(requirement.key().into()), value.as_str()))
            }
            _ => None,
        });
        fields.chain(labels).collect()
    }

    /// Whether at most one object can be selected, by its name.
    pub(crate) fn names_one(&self, namespaced: bool) -> bool {
        self.fields.exact("metadata.name").is_some() && (!namespaced || !self.namespace.is_empty())
    }

    /// Whether the selectors ask for one thing only, so that objects found by it in an index need no second look.
    pub(crate) fn asks_one_thing(&self) -> bool {
        self.labels.requirements().len() + self.fields.terms.len() == 1
    }

    /// Whether every object of the namespace is selected.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
}

impl corten_api::selector::Labels for Entry {
    fn label(&self, key: &str) -> Option<&str> {
        Self::label(self, key)
    }
}

/// [`corten_kinds::strategy`], looked up once for every built-in resource: every request asks for one, and there are many.
pub(crate) fn strategy(group: &str, plural: &str) -> Option<&'static dyn Strategy> {
    type Known = HashMap<&'static str, HashMap<&'static str, Option<&'static dyn Strategy>>>;
    static KNOWN: OnceLock<Known> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let mut known = Known::new();
        for resource in Catalogue::builtin().all() {
            let strategy = corten_kinds::strategy(&resource.group, &resource.plural);
            known.entry(&resource.group).or_default().insert(&resource.plural, strategy);
        }
        known
    });
    match known.get(group).and_then(|known| known.get(plural)) {
        Some(strategy) => *strategy,
        None => corten_kinds::strategy(group, plural),
    }
}

/// 404 for a path that no resource has.
pub(crate) fn missing() -> Status {
    crate::pipeline::no_such_path()
}

/// 405
pub(crate) fn method_not_allowed() -> Status {
    let why = "the server does not allow this method on the requested resource";
    let mut status = Status::failure(405, "MethodNotAllowed", why);
    status.details = Some(Details::default());
    status
}

/// `v1` or `apps/v1`.
pub(crate) fn join(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
