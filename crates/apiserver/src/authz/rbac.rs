//! RBAC: bindings by whom they name, roles by name, kept up to date by the difference between snapshots of the cache.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use parking_lot::RwLock;
use serde::Deserialize;

use super::rules::PolicyRule;
use super::{Attributes, Decision};
use crate::cache::{Entry, Map};
use crate::reader::Reader;
use crate::user::User;

pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

/// Decisions by roles and bindings.
pub(super) struct Rbac {
    reader: Reader,
    index: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    roles: Indexed<Role>,
    cluster_roles: Indexed<Role>,
    bindings: Bindings,
    cluster_bindings: Bindings,
}

/// Objects of one resource, parsed, by their key in the cache.
struct Indexed<T> {
    /// The revision of the newest change that is in here.
    seen: u64,
    snapshot: Map,
    objects: HashMap<Arc<str>, Arc<T>>,
}

/// Bindings of one resource and, for each subject, the keys of those that name it.
#[derive(Default)]
struct Bindings {
    indexed: Indexed<Binding>,
    /// By namespace of the binding (empty for cluster bindings) and subject. Keys are sorted, so decisions are the same every time.
    by_subject: HashMap<(String, SubjectKey), BTreeSet<Arc<str>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum SubjectKey {
    User(String),
    Group(String),
}

#[derive(Deserialize)]
struct Role {
    #[serde(default, deserialize_with = "null_is_default")]
    rules: Vec<PolicyRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    metadata: Meta,
    #[serde(default, deserialize_with = "null_is_default")]
    subjects: Vec<Subject>,
    role_ref: RoleRef,
}

#[derive(Deserialize)]
struct Meta {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
}

/// What a binding grants.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RoleRef {
    /// `Role` or `ClusterRole`.
    pub(super) kind: String,
    /// Its name.
    pub(super) name: String,
}

// === impl Rbac ===

impl Rbac {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, index: RwLock::default() }
    }

    pub(super) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let mut errors = Vec::new();
        let mut allowed = None;
        self.visit(attributes.user, attributes.namespace, |source| match source {
            Ok((binding, subject, rules)) => {
                if rules.iter().any(|rule| rule.allows(attributes)) {
                    allowed = Some(format!("RBAC: allowed by {}", binding.describe(subject)));
                }
                allowed.is_none()
            }
            Err(err) => {
                errors.push(err);
                true
            }
        });
        match allowed {
            Some(reason) => Decision::Allow(reason),
            None if errors.is_empty() => Decision::NoOpinion(String::new()),
            None => Decision::NoOpinion(format!("RBAC: {}", aggregate(&errors))),
        }
    }

    /// Every rule of a user in a namespace, and the roles that are missing.
    pub(super) fn rules_for(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        self.visit(user, namespace, |source| {
            match source {
                Ok((_, _, rules)) => found.extend_from_slice(rules),
                Err(err) => errors.push(err),
            }
            true
        });
        (found, errors)
    }

    /// The rules of a role; `None` when there is no such role.
    pub(super) fn role(&self, reference: &RoleRef, namespace: &str) -> Option<Vec<PolicyRule>> {
        self.refresh();
        Some(self.index.read().role(reference, namespace)?.rules.clone())
    }

    /// Calls `visitor` with each binding that applies, or with what keeps it from applying, until it returns false.
    fn visit<'a, F>(&self, user: &User, namespace: &str, mut visitor: F)
    where
        F: FnMut(Result<(&Binding, &Subject, &[PolicyRule]), String>) -> bool + 'a,
    {
        self.refresh();
        let index = self.index.read();
        let scopes = [(&index.cluster_bindings, ""), (&index.bindings, namespace)];
        for (at, (bindings, scope)) in scopes.into_iter().enumerate() {
            if at == 1 && namespace.is_empty() {
                break;
            }
            for binding in bindings.of(user, scope) {
                let Some(subject) = binding.subjects.iter().find(|subject| subject.is(user, scope)) else { continue };
                let source = match index.role(&binding.role_ref, scope) {
                    Some(role) => Ok((&*binding, subject, role.rules.as_slice())),
                    None => Err(binding.role_ref.missing()),
                };
                if !visitor(source) {
                    return;
                }
            }
        }
    }

    /// Takes in what has changed. When nothing has, which is nearly always, this is four comparisons.
    fn refresh(&self) {
        let resources = ["roles", "clusterroles", "rolebindings", "clusterrolebindings"];
        let now = resources.map(|resource| self.reader.changed(GROUP, resource));
        if self.index.read().seen() == now {
            return;
        }
        let mut index = self.index.write();
        let index = &mut *index;
        let snapshot = |resource| (self.reader.changed(GROUP, resource), self.reader.snapshot(GROUP, resource));
        index.roles.update(snapshot("roles"), |_, _, _| {});
        index.cluster_roles.update(snapshot("clusterroles"), |_, _, _| {});
        index.bindings.update(snapshot("rolebindings"));
        index.cluster_bindings.update(snapshot("clusterrolebindings"));
    }
}

// === impl Index ===

impl Index {
    fn seen(&self) -> [u64; 4] {
        [self.roles.seen, self.cluster_roles.seen, self.bindings.indexed.seen, self.cluster_bindings.indexed.seen]
    }

    fn role(&self, reference: &RoleRef, namespace: &str) -> Option<&Arc<Role>> {
        match reference.kind.as_str() {
            "ClusterRole" => self.cluster_roles.objects.get(reference.name.as_str()),
            "Role" => self.roles.objects.get(&*crate::cache::key(namespace, &reference.name)),
            _ => None,
        }
    }
}

impl<T> Default for Indexed<T> {
    fn default() -> Self {
        Self { seen: u64::MAX, snapshot: Map::new(), objects: HashMap::new() }
    }
}

impl<T: for<'de> Deserialize<'de>> Indexed<T> {
    /// Moves on to `snapshot`; `changed` gets each key with the object before and after.
    fn update(&mut self, (seen, snapshot): (u64, Map), mut changed: impl FnMut(&Arc<str>, Option<&T>, Option<&T>)) {
        let parse = |key: &Arc<str>, entry: &Entry| match entry.parse::<T>() {
            Ok(object) => Some(Arc::new(object)),
            Err(err) => {
                tracing::error!(%key, error = %err, "an RBAC object cannot be read and grants nothing");
                None
            }
        };
        // `diff` skips what both share, so this costs what changed.
        for item in self.snapshot.diff(&snapshot) {
            let (key, new) = match item {
                DiffItem::Add(key, entry) | DiffItem::Update { new: (key, entry), .. } => (key, parse(key, entry)),
                DiffItem::Remove(key, _) => (key, None),
            };
            let old = match &new {
                Some(new) => self.objects.insert(key.clone(), new.clone()),
                None => self.objects.remove(key),
            };
            changed(key, old.as_deref(), new.as_deref());
        }
        (self.seen, self.snapshot) = (seen, snapshot);
    }
}

// === impl Bindings ===

impl Bindings {
    fn update(&mut self, snapshot: (u64, Map)) {
        let by_subject = &mut self.by_subject;
        self.indexed.update(snapshot, |key, old, new| {
            for (binding, subject) in old.into_iter().flat_map(Binding::keys) {
                if let Some(keys) = by_subject.get_mut(&(binding.clone(), subject.clone())) {
                    keys.remove(key);
                    if keys.is_empty() {
                        by_subject.remove(&(binding, subject));
                    }
                }
            }
            for subject in new.into_iter().flat_map(Binding::keys) {
                by_subject.entry(subject).or_default().insert(key.clone());
            }
        });
    }

    /// The bindings of a namespace that name the user or one of the groups, each once, in order of their keys.
    fn of(&self, user: &User, namespace: &str) -> Vec<Arc<Binding>> {
        let mut keys = BTreeSet::new();
        let subjects = user.groups.iter().cloned().map(SubjectKey::Group).chain([SubjectKey::User(user.name.clone())]);
        for subject in subjects {
            if let Some(found) = self.by_subject.get(&(namespace.to_owned(), subject)) {
                keys.extend(found.iter());
            }
        }
        keys.into_iter().filter_map(|key| self.indexed.objects.get(key).cloned()).collect()
    }
}

// === impl Binding ===

impl Binding {
    /// Under what it is indexed: its namespace with each subject.
    fn keys(&self) -> Vec<(String, SubjectKey)> {
        let keys = self.subjects.iter().filter_map(|subject| match subject.kind.as_str() {
            "User" => Some(SubjectKey::User(subject.name.clone())),
            "Group" => Some(SubjectKey::Group(subject.name.clone())),
            "ServiceAccount" => {
                let namespace = subject.account_namespace(&self.metadata.namespace);
                Some(SubjectKey::User(format!("system:serviceaccount:{namespace}:{}", subject.name)))
            }
            _ => None,
        });
        keys.map(|key| (self.metadata.namespace.clone(), key)).collect()
    }

    /// `RoleBinding "b/ns" of Role "r" to User "alice"`
    fn describe(&self, subject: &Subject) -> String {
        let Meta { name, namespace } = &self.metadata;
        let (kind, shown) = match namespace.is_empty() {
            true => ("ClusterRoleBinding", name.clone()),
            false => ("RoleBinding", format!("{name}/{namespace}")),
        };
        let to = match subject.kind.as_str() {
            "ServiceAccount" => format!("{}/{}", subject.name, subject.account_namespace(namespace)),
            _ => subject.name.clone(),
        };
        format!("{kind} {shown:?} of {} {:?} to {} {to:?}", self.role_ref.kind, self.role_ref.name, subject.kind)
    }
}

impl Subject {
    /// A service account without a namespace is one of the binding's.
    fn account_namespace<'a>(&'a self, binding: &'a str) -> &'a str {
        if self.namespace.is_empty() { binding } else { &self.namespace }
    }

    fn is(&self, user: &User, namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => user.name == self.name,
            "Group" => user.is_in(&self.name),
            "ServiceAccount" => user.service_account() == Some((self.account_namespace(namespace), &self.name)),
            _ => false,
        }
    }
}

impl RoleRef {
    fn missing(&self) -> String {
        format!("{}.{GROUP} {:?} not found", self.kind.to_lowercase(), self.name)
    }
}

/// Several errors as Go's aggregate prints them.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
