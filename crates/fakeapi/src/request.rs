//! What a request is about, and the record of it.

use serde_json::Value;

/// The object or collection that a path names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural resource name.
    pub resource: String,
    /// Namespace, empty for cluster scope or all namespaces.
    pub namespace: String,
    /// Object name, empty for a collection.
    pub name: String,
    /// Subresource, or empty.
    pub subresource: String,
}

impl Target {
    /// Reads a path such as `/apis/apps/v1/namespaces/default/deployments/web/status`.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        let version = parts.next()?;
        let rest: Vec<&str> = parts.collect();
        let (namespace, rest) = match rest.as_slice() {
            // A namespace's own subresources look like resources in it.
            ["namespaces", namespace, resource, rest @ ..] if !matches!(*resource, "status" | "finalize") => {
                (*namespace, [&[*resource], rest].concat())
            }
            other => ("", other.to_vec()),
        };
        let part = |n: usize| rest.get(n).copied().unwrap_or_default().to_owned();
        (!rest.is_empty()).then(|| Self {
            group: group.into(),
            version: version.into(),
            resource: part(0),
            namespace: namespace.into(),
            name: part(1),
            subresource: part(2),
        })
    }
}

impl Target {
    /// `deployments.apps`, or `pods` in the core group.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.clone() } else { format!("{}.{}", self.resource, self.group) }
    }
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// HTTP method.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Query string.
    pub query: String,
    /// The body, null when there is none or it is not JSON.
    pub body: Value,
}

impl Recorded {
    /// `POST /api/v1/namespaces/default/pods`
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether it may change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.method != "GET"
    }
}
