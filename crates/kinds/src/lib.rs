//! What the API server knows about each built-in kind: defaults, validation, what an update may change, table columns,
//! selectable fields. Pure functions on documents; no I/O of any kind, no knowledge of requests.
//!
//! [`strategy`] is the entrance: the registry asks it for the [`Strategy`] of a resource and calls the steps in order.
//! A kind that needs nothing special is served by [`Plain`].
#![forbid(unsafe_code)]

use serde_json::Value;

use corten_api::field::Faults;

mod addresses;
mod admission;
mod autoscaler;
mod batch;
mod budget;
mod check;
mod claim;
mod columns;
mod config;
mod convert;
mod crd;
mod csr;
mod device;
mod doc;
mod endpoints;
mod event;
mod flow;
mod go_json;
mod image;
mod internal;
mod json_path;
mod meta;
mod names;
mod namespace;
mod networking;
mod node;
mod pem;
mod pod;
mod quantity;
mod quota;
mod rbac;
mod registry;
mod resources;
mod service;
mod simple;
mod storage;
mod table;
#[cfg(test)]
mod testing;
mod volume;
mod workload;

pub use admission::{CompiledPolicy, Expression, Mutation, Validation};
pub use convert::convert;
pub use device::{ClaimChanges, admin_access_faults, claim_changes, may_want_admin_access};
pub use meta::{check_finalizers, checks_metadata_first, compares_metadata, further_metadata_checks, has_strict_finalizers};
pub use registry::{FieldPath, reset_fields, strategy};
pub use service::{cluster_ip_faults, complete_cluster_ips};
pub use simple::SYSTEM_PRIORITY_CLASSES;
pub use table::{COMPONENT_STATUSES, Printer, SCALES};

/// Facts about the request that a strategy may use.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Time of the request.
    pub now: jiff::Timestamp,
    /// Namespace of the request, empty for cluster scope.
    pub namespace: &'a str,
    /// Name of the requesting user.
    pub user: &'a str,
    /// UID of the requesting user (for CertificateSigningRequests and the like).
    pub user_uid: &'a str,
    /// Groups of the requesting user.
    pub groups: &'a [String],
    /// Extra attributes of the requesting user.
    pub extra: &'a std::collections::BTreeMap<String, Vec<String>>,
    /// Subresource of the request: empty, `status`, `scale`, `ephemeralcontainers`, `resize`, `approval`, `finalize`, `binding`.
    pub subresource: &'a str,
    /// Whether a new object came with labels of its own; otherwise a kind may have given it some by default.
    pub labels_given: bool,
    /// API version of the request's body, such as `v1`. Strategies work on the storage version.
    pub version: &'a str,
}

/// One kind's rules. Documents are of the storage version, pruned to the schema, with zero values dropped or written as
/// the reference implementation's encoder would (`corten_schema` does both before a strategy sees them).
///
/// `metadata.uid`, `metadata.name` and `metadata.creationTimestamp` are set before `prepare_create` (Jobs need the uid), and
/// `metadata.namespace` before `validate`.
///
/// The order on create: `default`, `prepare_create`, admission (`default` again only if a webhook or policy changed the object),
/// `validate`, `warnings`, and once more `default` on the way to the store: what `prepare_create` filled in is the source of
/// further defaults that validation must not see yet.
/// On update the same with `prepare_update` and `validate_update`, through `/status` with `prepare_status`, `validate_status` and
/// `status_warnings`.
/// Object metadata is validated by the registry with [`Strategy::validate_name`].
pub trait Strategy: Sync {
    /// Fills in defaults. Idempotent.
    fn default(&self, object: &mut Value) {
        let _ = object;
    }

    /// Fills in defaults, some of which are the time. What the registry calls.
    fn default_at(&self, object: &mut Value, now: jiff::Timestamp) {
        let _ = now;
        self.default(object);
    }

    /// Clears what a client may not set on create (`status`), sets the first `generation`, and so on.
    fn prepare_create(&self, object: &mut Value, ctx: &Context<'_>) {
        let _ = (object, ctx);
    }

    /// Faults that are told before those of the metadata, for a new object and for a change.
    fn validate_first(&self, object: &Value) -> Faults {
        let _ = object;
        Faults::default()
    }

    /// Texts for `Warning` headers about a new object before it is prepared, whether or not it turns out to be valid.
    fn early_warnings(&self, object: &Value) -> Vec<String> {
        let _ = object;
        Vec::new()
    }

    /// Faults of a new object, in the reference server's order.
    fn validate(&self, object: &Value, ctx: &Context<'_>) -> Faults {
        let _ = (object, ctx);
        Faults::default()
    }

    /// Keeps what this (sub)resource may not change as it was, and raises `generation` when the desired state changed.
    fn prepare_update(&self, object: &mut Value, old: &Value, ctx: &Context<'_>) {
        let _ = (object, old, ctx);
    }

    /// Faults of a change.
    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let _ = old;
        self.validate(object, ctx)
    }

    /// Keeps what a change of the status alone may not touch.
    fn prepare_status(&self, object: &mut Value, old: &Value, ctx: &Context<'_>) {
        let _ = ctx;
        doc::Write::copy_from(object, old, "spec");
    }

    /// Faults of a change of the status alone.
    fn validate_status(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let _ = (object, old, ctx);
        Faults::default()
    }

    /// Texts for `Warning` headers about a change of the status alone.
    fn status_warnings(&self, object: &Value) -> Vec<String> {
        let _ = object;
        Vec::new()
    }

    /// Gives an object that was never set what the reference's internal type holds by value, and the version as a pointer or an
    /// annotation: its encoder writes them always. Bookmarks are such objects.
    fn complete_empty(&self, object: &mut Value) {
        let _ = object;
    }

    /// Brings an object that is valid into the form that is stored and shown.
    fn canonicalize(&self, object: &mut Value) {
        let _ = object;
    }

    /// Texts for `Warning` headers.
    fn warnings(&self, object: &Value, old: Option<&Value>, ctx: &Context<'_>) -> Vec<String> {
        let _ = (object, old, ctx);
        Vec::new()
    }

    /// What is wrong with a name (`prefix` when it is a `generateName`), as the details of the faults at `metadata.name`.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::name_is_subdomain(name, prefix)
    }

    /// As [`Strategy::validate_name`], for kinds whose names follow from their fields.
    fn validate_name_of(&self, object: &Value, name: &str, prefix: bool) -> Vec<String> {
        let _ = object;
        self.validate_name(name, prefix)
    }

    /// Whether something random is added to a `generateName`.
    fn generates_names(&self) -> bool {
        true
    }

    /// Whether PUT on a name that is absent creates it.
    fn create_on_update(&self) -> bool {
        false
    }

    /// Whether PUT without a resourceVersion is taken.
    fn unconditional_update(&self) -> bool {
        true
    }

    /// Whether labels and annotations that are in no domain of Kubernetes mean nothing to the kind's rules: a change of these alone
    /// is then judged by what holds for all kinds, leaves everything else as it is, and gives no reason to warn.
    fn labels_are_free(&self) -> bool {
        false
    }

    /// The value of each selectable field besides `metadata.name` and `metadata.namespace`.
    /// An empty value is selectable too (`spec.nodeName=`), so every supported field is in the list.
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let _ = object;
        Vec::new()
    }

    /// Annotations that stand for fields of the reference server's internal type: they are no part of the metadata by itself
    /// (tables, `PartialObjectMetadata`).
    fn hidden_annotations(&self) -> &'static [&'static str] {
        &[]
    }

    /// Table columns, in order.
    fn columns(&self) -> &'static [Column] {
        columns::LIMITRANGES
    }

    /// The cells of one row, one a column.
    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let _ = now;
        vec![table::name(object), table::created(object)]
    }

    /// The `conditions` of a row, such as that a pod is over; none for most.
    fn row_conditions(&self, object: &Value) -> Vec<Value> {
        let _ = object;
        Vec::new()
    }
}

/// A kind without rules of its own: a subdomain as name, and the columns Name and Created At.
pub struct Plain;

impl Strategy for Plain {}

/// `metav1.TableColumnDefinition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer`, …
    pub kind: &'static str,
    /// `name`, `password`, or empty.
    pub format: &'static str,
    /// Text for people.
    pub description: &'static str,
    /// 0 is always shown, 1 is wide.
    pub priority: i32,
}
