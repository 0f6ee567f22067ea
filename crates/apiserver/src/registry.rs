//! The generic registry: every verb on every resource of the catalogue. No handler per kind: what differs between kinds is
//! asked of their [`corten_kinds::Strategy`], what differs between subresources is in a module each.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use corten_api::catalogue::{Catalogue, Resource};
use corten_api::facts::{Kind, TypeId, Types};
use corten_api::status::Status;
use http::header;
use serde_json::Value;

mod target;

mod options;

mod read;
mod watch;

mod create;
mod delete;
mod patch;
mod update;
mod write;

mod subresource;

mod availability;
mod components;
mod expiry;
mod heartbeat;
mod hooks;
mod managed;
mod services;

mod claims;
mod codec;
mod continuation;
mod keys;
mod outline;
mod render;

pub mod probe;

pub(crate) use codec::known_versions;
pub(crate) use hooks::answers_deleted_object;
pub(crate) use options::integer;
pub(crate) use render::maybe_compressed;
pub(crate) use target::Target;

use crate::cache::{Entry, Fields, Layout, Spec};
use crate::config::Config;
use crate::features;
use crate::negotiate::{self, Endpoint};
use crate::pipeline::Call;
use crate::request::RequestInfo;
use crate::response::Response;
use crate::state::State;

use options::ListOptions;
use subresource::{binding, eviction, scale};

/// What the watch cache must know of every stored resource.
#[must_use]
pub fn specs(catalogue: &Catalogue) -> Vec<Spec> {
    catalogue.all().iter().filter(|resource| is_stored(resource)).map(|resource| spec(resource)).collect()
}

/// Whether objects of the resource are stored under its own name: reviews are not, and Events of the newer group lie with the
/// older one's.
fn is_stored(resource: &Resource) -> bool {
    let verbs = |verb: &str| resource.versions.iter().any(|version| version.verbs.contains(verb));
    resource.storage.group == resource.group && verbs("list") && verbs("create")
}

/// What the watch cache must know of one resource.
#[must_use]
pub fn spec(resource: &Resource) -> Spec {
    let api_version = target::join(&resource.storage.group, &resource.storage.version);
    let fields = corten_kinds::strategy(&resource.group, &resource.plural)
        .filter(|strategy| !strategy.fields(&Value::Null).is_empty())
        .map(|strategy| Box::new(move |bytes: &[u8]| Ok(strategy.fields(&outline::read(bytes)?))) as Fields);
    Spec {
        group: resource.group.clone(),
        resource: resource.plural.clone(),
        prefix: keys::prefix(resource),
        namespaced: resource.namespaced,
        layout: Layout::new(&resource.storage.kind, &api_version).holding_raw(holds_raw(resource)),
        fields,
    }
}

/// Whether objects of the resource hold raw JSON somewhere.
fn holds_raw(resource: &Resource) -> bool {
    fn in_kind(kind: &Kind, seen: &mut HashSet<TypeId>) -> bool {
        match kind {
            Kind::RawExtension => true,
            Kind::List(item) | Kind::Map(item) => in_kind(item, seen),
            Kind::Struct(id) => seen.insert(*id) && Types::get().of(*id).fields.iter().any(|field| in_kind(&field.kind, seen)),
            _ => false,
        }
    }
    let ty = Types::get().named(resource.storage_type());
    ty.is_some_and(|ty| in_kind(&Kind::Struct(ty.id), &mut HashSet::new()))
}

/// The catalogue with the versions served that the configuration switches on.
#[must_use]
pub fn enabled(catalogue: &Catalogue, config: &Config) -> Catalogue {
    let switches = &config.runtime_config;
    if switches.is_empty() {
        return catalogue.clone();
    }
    catalogue.serving(|group, version, plural, usual| {
        is_served(switches, group, version, plural).unwrap_or(usual) && has_feature(config, group, plural)
    })
}

/// Whether the feature is on that a resource belongs to: of these, a switch for their version alone serves nothing.
fn has_feature(config: &Config, group: &str, plural: &str) -> bool {
    let feature = match (group, plural) {
        ("certificates.k8s.io", "clustertrustbundles") => "ClusterTrustBundle",
        ("certificates.k8s.io", "podcertificaterequests") => "PodCertificateRequest",
        ("scheduling.k8s.io", "podgroups" | "workloads") => "GenericWorkload",
        ("storagemigration.k8s.io", "storageversionmigrations") => "StorageVersionMigrator",
        _ => return true,
    };
    features::is_on(config, feature)
}

/// What `--runtime-config` says of a resource in a version; the most specific switch counts: resource, version, maturity, all.
fn is_served(switches: &BTreeMap<String, bool>, group: &str, version: &str, plural: &str) -> Option<bool> {
    let of_version = target::join(group, version);
    let maturity = match version {
        version if version.contains("alpha") => "api/alpha",
        version if version.contains("beta") => "api/beta",
        _ => "api/ga",
    };
    let keys = [format!("{of_version}/{plural}"), of_version, maturity.into(), "api/all".into()];
    keys.iter().find_map(|key| switches.get(key).copied())
}

/// Subresources that are views of the object itself, of which an update may change one part only.
macro_rules! VIEWS {
    () => {
        "status" | "approval" | "ephemeralcontainers" | "finalize" | "resize"
    };
}

/// Starts what the registry does without being asked.
pub fn start(state: &Arc<State>) {
    state.tasks.spawn("event expiry", expiry::run(state.clone()));
    state.tasks.spawn("API service conditions", availability::run(state.clone()));
    state.tasks.spawn("flow schema conditions", crate::flowcontrol::dangling::run(state.clone()));
    state.tasks.spawn("flow control configuration", crate::bootstrap::flow::keep(state.clone()));
}

/// What clients of a deprecated resource are told with every answer.
fn deprecation(info: &RequestInfo) -> Option<&'static str> {
    match (info.group.as_str(), info.resource.as_str()) {
        _ if !info.subresource.is_empty() => None,
        ("", "endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        _ => None,
    }
}

/// What a route of a verb answers with.
fn offers(verb: &str) -> Endpoint {
    match verb {
        "list" | "watch" => Endpoint::List,
        "deletecollection" => Endpoint::Deletion,
        _ => Endpoint::Object,
    }
}

/// Serves a request on a resource.
pub async fn serve(state: &Arc<State>, mut call: Call) -> Result<Response, Status> {
    let info = call.info();
    let target = match Target::find(state, info) {
        Ok(target) => target,
        Err(nowhere) => return nowhere.answer(),
    };
    target.check_scope(info)?;
    if !info.subresource.is_empty() {
        target.subresource(&info.subresource)?;
    }
    target.check_verb(info, &call.method)?;
    if let Some(text) = deprecation(info)
        && negotiate::is_offered(call.header(header::ACCEPT), offers(&info.verb)).is_ok()
    {
        call.warnings().add(text.to_owned());
        state.metrics.requests.deprecated(info);
    }
    let (verb, subresource) = (info.verb.clone(), info.subresource.clone());
    match (verb.as_str(), subresource.as_str()) {
        ("get", "") if target.is("", "componentstatuses") => components::get(state, &target, &call).await,
        ("list", "") if target.is("", "componentstatuses") => components::list(state, &target, &call).await,
        // A name in the path makes it a read of one object, whatever the query says.
        ("get", "") => read::get(state, &target, &call).await,
        ("list", "") => {
            read::form(&call, Endpoint::List)?;
            let options = ListOptions::parse(&call.query, info)?;
            read::list(state, &target, &call, options).await
        }
        ("watch", "") => {
            read::form(&call, Endpoint::List)?;
            let mut options = ListOptions::parse(&call.query, info)?;
            options.watch = true;
            watch::watch(state, &target, &call, options).await
        }
        ("create", "") if target.is("", "bindings") => binding::bind(state, &target, &mut call).await,
        ("create", "") if target.cache.is_none() => subresource::review(state, &target, &mut call).await,
        ("create", "") => create::create(state, &target, &mut call).await,
        ("update", "") => update::put(state, &target, &mut call).await,
        ("patch", "" | VIEWS!()) => patch::patch(state, &target, &mut call).await,
        ("delete", "") => delete::delete(state, &target, &mut call).await,
        ("deletecollection", "") => delete::collection(state, &target, &mut call).await,
        ("get", VIEWS!()) => read::get(state, &target, &call).await,
        ("update", VIEWS!()) => update::put(state, &target, &mut call).await,
        ("get", "scale") => scale::get(state, &target, &call).await,
        ("update", "scale") => scale::put(state, &target, &mut call).await,
        ("patch", "scale") => scale::patch(state, &target, &mut call).await,
        ("create", "binding") => binding::bind(state, &target, &mut call).await,
        ("create", "eviction") => eviction::evict(state, &target, &mut call).await,
        ("create", "token") => subresource::token(state, &target, &mut call).await,
        (_, "log" | "exec" | "attach" | "portforward" | "proxy") => subresource::connect(state, &target, call).await,
        _ => Err(target::method_not_allowed()),
    }
}

/// What a write left behind.
pub(crate) enum Outcome {
    /// The state that the cache has.
    Entry(Arc<Entry>),
    /// A document in the stored form that is not (or no longer) there: of a dry run, or the last state of an object.
    Document(Value),
}

impl Outcome {
    /// The outcome of a write at `revision`: the cached entry, unless somebody wrote again since.
    pub(crate) fn stored(writing: &write::Writing<'_>, name: &str, revision: u64, document: &Value) -> Self {
        match writing.cached(name) {
            Ok(Some(entry)) if entry.revision == revision => Self::Entry(entry),
            _ => {
                let mut document = document.clone();
                write::metadata(&mut document).insert("resourceVersion".into(), revision.to_string().into());
                Self::unstored(document)
            }
        }
    }

    /// The outcome of a write that left nothing in the cache.
    pub(crate) fn unstored(mut document: Value) -> Self {
        corten_schema::apply::unfold(&mut document);
        Self::Document(document)
    }

    /// The document in the stored form.
    pub(crate) fn document(&self) -> Value {
        match self {
            Self::Entry(entry) => entry.decode(),
            Self::Document(document) => document.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_json_is_kept_as_gos_encoder_writes_it() {
        let catalogue = Catalogue::builtin();
        let with: Vec<&str> = catalogue.all().iter().filter(|one| holds_raw(one)).map(|one| one.plural.as_str()).collect();
        assert_eq!(with, ["controllerrevisions", "deviceclasses", "resourceclaims", "resourceclaimtemplates"]);
        let revision = serde_json::json!({"metadata": {"name": "r"}, "data": {"args": "a && b"}, "revision": 1});
        let bytes = spec(catalogue.resource("apps", "controllerrevisions").unwrap()).layout.encode(&revision);
        assert!(bytes.ends_with(br#","data":{"args":"a \u0026\u0026 b"},"revision":1}"#));
    }

    #[test]
    fn the_most_specific_switch_counts() {
        let served = |switches: &[(&str, bool)], group, version, plural| {
            let switches = switches.iter().map(|(key, on)| ((*key).to_owned(), *on)).collect();
            is_served(&switches, group, version, plural)
        };
        assert_eq!(served(&[], "apps", "v1", "deployments"), None);
        let none_but_core = [("api/all", false), ("v1", true)];
        assert_eq!(served(&none_but_core, "", "v1", "pods"), Some(true));
        assert_eq!(served(&none_but_core, "apps", "v1", "deployments"), Some(false));
        let beta = [("api/beta", true), ("a.b/v1beta1", false), ("a.b/v1beta1/things", true)];
        assert_eq!(served(&beta, "c.d", "v1beta2", "things"), Some(true));
        assert_eq!(served(&beta, "a.b", "v1beta1", "others"), Some(false));
        assert_eq!(served(&beta, "a.b", "v1beta1", "things"), Some(true));
        assert_eq!(served(&beta, "apps", "v1", "deployments"), None);
    }

    #[test]
    fn a_version_alone_does_not_serve_what_needs_a_feature() {
        let served = |gates: &[(&str, bool)], group: &str| {
            let mut config = Config::new("");
            config.runtime_config = [("api/all".to_owned(), true)].into();
            config.feature_gates = gates.iter().map(|(gate, on)| ((*gate).to_owned(), *on)).collect();
            let catalogue = enabled(Catalogue::builtin(), &config);
            catalogue.group(group).unwrap().versions.iter().filter(|version| version.served).count()
        };
        assert_eq!(served(&[], "certificates.k8s.io"), 1);
        assert_eq!(served(&[("ClusterTrustBundle", true)], "certificates.k8s.io"), 3);
        assert_eq!(served(&[("AllBeta", true), ("StorageVersionMigrator", false)], "storagemigration.k8s.io"), 0);
        assert_eq!(served(&[("AllBeta", true)], "storagemigration.k8s.io"), 1);
        assert_eq!(served(&[("AllAlpha", true)], "scheduling.k8s.io"), 2);
    }

    #[test]
    fn a_version_that_is_switched_off_is_served_no_more() {
        let builtin = Catalogue::builtin();
        let off = builtin.serving(|group, _, _, usual| usual && group != "apps");
        let served = |catalogue: &Catalogue, group: &str| {
            catalogue.group(group).is_some_and(|group| group.versions.iter().any(|version| version.served))
        };
        assert!(served(builtin, "apps") && !served(&off, "apps") && served(&off, "batch"));
        assert_eq!(&builtin.serving(|_, _, _, usual| usual).groups(), &builtin.groups());
    }
}
