//! The single list of resources: discovery, routing, RBAC, OpenAPI, printing and the namespace controller all read it.
//!
//! A [`Catalogue`] is a value. The built-in one comes from a compiled-in table (`facts/catalogue.txt`, written by
//! `tools/catalogue.py` from the reference discovery documents); custom resources are added with [`Catalogue::with`], so there
//! is one path for both. Order is that of the discovery documents.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

mod builtin;

pub use builtin::package;

/// Groups and resources with look-ups by name. Cheap to clone and to replace: a new set of custom resources is a new value.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    groups: Vec<Group>,
    resources: Vec<Arc<Resource>>,
    by_plural: HashMap<(String, String), usize>,
    by_kind: HashMap<(String, String), usize>,
}

/// An API group and its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name, empty for the core group.
    pub name: String,
    /// Versions, the preferred one first.
    pub versions: Vec<GroupVersion>,
}

/// A version of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupVersion {
    /// Such as `v1`.
    pub name: String,
    /// Whether it is served when nobody says otherwise: generally available versions are, beta and alpha are not.
    pub served: bool,
}

/// One resource, in all versions it is known in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: String,
    /// Name in URLs: `pods`.
    pub plural: String,
    /// Singular name: `pod`.
    pub singular: String,
    /// Such as `Pod`.
    pub kind: String,
    /// Such as `PodList`.
    pub list_kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Such as `po`.
    pub short_names: Vec<String>,
    /// Such as `all`.
    pub categories: Vec<String>,
    /// Versions in the group's order.
    pub versions: Vec<Version>,
    /// How objects are stored. Two resources with the same storage share their objects (Events).
    pub storage: Storage,
    /// Whether the resource was added at run time.
    pub custom: bool,
}

/// What objects are stored as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Group of the stored form.
    pub group: String,
    /// Version of the stored form.
    pub version: String,
    /// Kind of the stored form.
    pub kind: String,
    /// `storageVersionHash` in discovery; empty when nothing is stored (reviews, bindings).
    pub hash: String,
}

/// A resource in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Such as `v1`.
    pub name: String,
    /// Whether it is served when nobody says otherwise.
    pub served: bool,
    /// Name in the table of types, such as `core.v1.Pod`; empty for custom resources.
    pub type_name: String,
    /// Verbs on the resource itself.
    pub verbs: Verbs,
    /// Subresources, sorted by name.
    pub subresources: Vec<Subresource>,
    /// Selectable fields besides `metadata.name` and `metadata.namespace`.
    pub fields: Vec<String>,
}

/// A subresource such as `status` or `scale`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Such as `scale`.
    pub name: String,
    /// Group of its documents.
    pub group: String,
    /// Version of its documents.
    pub version: String,
    /// Kind of its documents.
    pub kind: String,
    /// Name in the table of types, such as `autoscaling.v1.Scale`; empty for custom resources.
    pub type_name: String,
    /// Verbs on it.
    pub verbs: Verbs,
}

/// A set of API verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verbs(u8);

// === impl Catalogue ===

impl Catalogue {
    /// The built-in resources.
    ///
    /// # Panics
    ///
    /// Never in a program whose tests pass: the table is part of the program.
    #[must_use]
    pub fn builtin() -> &'static Self {
        static BUILTIN: OnceLock<Catalogue> = OnceLock::new();
        BUILTIN.get_or_init(|| builtin::catalogue().expect("the compiled-in table of resources is well formed"))
    }

    /// This catalogue and more resources. A resource replaces an earlier one of the same group and plural name; groups and
    /// versions that are new come last, in the order given.
    #[must_use]
    pub fn with(&self, more: impl IntoIterator<Item = Resource>) -> Self {
        let mut all = self.clone();
        for resource in more {
            all.insert(resource);
        }
        all
    }

    /// This catalogue with other versions served: `decide` says so for a group, a version, and a plural name, given what is
    /// served when nobody says otherwise.
    #[must_use]
    pub fn serving(&self, decide: impl Fn(&str, &str, &str, bool) -> bool) -> Self {
        let mut all = self.clone();
        all.groups.iter_mut().flat_map(|group| &mut group.versions).for_each(|version| version.served = false);
        for resource in &self.resources {
            let mut resource = Resource::clone(resource);
            for version in &mut resource.versions {
                version.served = decide(&resource.group, &version.name, &resource.plural, version.served);
            }
            all.insert(resource);
        }
        all
    }

    fn insert(&mut self, resource: Resource) {
        let group = match self.groups.iter_mut().position(|group| group.name == resource.group) {
            Some(at) => &mut self.groups[at],
            None => {
                self.groups.push(Group { name: resource.group.clone(), versions: Vec::new() });
                self.groups.last_mut().expect("just pushed")
            }
        };
        for version in &resource.versions {
            match group.versions.iter_mut().find(|known| known.name == version.name) {
                Some(known) => known.served |= version.served,
                None => group.versions.push(GroupVersion { name: version.name.clone(), served: version.served }),
            }
        }
        let plural = (resource.group.clone(), resource.plural.clone());
        let kind = (resource.group.clone(), resource.kind.clone());
        let resource = Arc::new(resource);
        let at = match self.by_plural.get(&plural) {
            Some(at) => {
                let old = std::mem::replace(&mut self.resources[*at], resource);
                self.by_kind.remove(&(old.group.clone(), old.kind.clone()));
                *at
            }
            None => {
                self.resources.push(resource);
                self.resources.len() - 1
            }
        };
        self.by_plural.insert(plural, at);
        self.by_kind.insert(kind, at);
    }

    /// All groups, in discovery order; the core group is first.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of this name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// All resources, in discovery order.
    #[must_use]
    pub fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The resources of a group that exist in a version, in discovery order.
    pub fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<Resource>, &'a Version)> + 'a {
        let resources = self.resources.iter().filter(move |resource| resource.group == group);
        resources.filter_map(move |resource| resource.version(version).map(|version| (resource, version)))
    }

    /// The resource of this group and plural name.
    #[must_use]
    pub fn resource(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_plural.get(&(group.into(), plural.into())).map(|at| &self.resources[*at])
    }

    /// The resource of this group and plural name, where it exists in this version.
    #[must_use]
    pub fn resource_in(&self, group: &str, version: &str, plural: &str) -> Option<(&Arc<Resource>, &Version)> {
        let resource = self.resource(group, plural)?;
        resource.version(version).map(|version| (resource, version))
    }

    /// The resource whose objects are of this kind.
    #[must_use]
    pub fn kind(&self, group: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.by_kind.get(&(group.into(), kind.into())).map(|at| &self.resources[*at])
    }
}

// === impl Resource ===

impl Resource {
    /// The resource in this version.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// The type of the stored form in the table of types; empty for custom resources.
    #[must_use]
    pub fn storage_type(&self) -> &str {
        self.version(&self.storage.version).map_or("", |version| &version.type_name)
    }

    /// `deployments.apps`, or `pods` in the core group.
    #[must_use]
    pub fn qualified(&self) -> String {
        crate::status::qualified(&self.group, &self.plural)
    }
}

// === impl Version ===

impl Version {
    /// The subresource of this name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }
}

// === impl Storage ===

impl Storage {
    /// The stored form and its `storageVersionHash`: eight bytes of SHA-256 over `group/version/kind`, base64.
    #[must_use]
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        use base64::Engine as _;
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(format!("{group}/{version}/{kind}"));
        let hash = base64::engine::general_purpose::STANDARD.encode(&digest[..8]);
        Self { group: group.into(), version: version.into(), kind: kind.into(), hash }
    }
}

// === impl Verbs ===

impl Verbs {
    const NAMES: [&'static str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

    /// What most stored resources support.
    pub const ALL: Self = Self(0xff);

    /// The verbs of these names; `None` when one is unknown.
    #[must_use]
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let bit = |name: &str| Self::NAMES.iter().position(|known| *known == name);
        names.into_iter().try_fold(Self(0), |set, name| bit(name).map(|bit| Self(set.0 | 1 << bit)))
    }

    /// Whether the verb of this name is in the set.
    #[must_use]
    pub fn contains(self, name: &str) -> bool {
        self.iter().any(|verb| verb == name)
    }

    /// Names in alphabetical order, as discovery lists them.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().enumerate().filter(move |(bit, _)| self.0 & 1 << bit != 0).map(|(_, name)| name)
    }
}

impl fmt::Display for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
