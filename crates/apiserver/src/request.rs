//! What a URL asks for. One parser for the whole server: routing, authorization, priority, admission and audit read the
//! same [`RequestInfo`], so they cannot disagree about what a request means (upstream's `RequestInfoFactory`).

use corten_api::selector::FieldSelector;
use http::Method;

/// The meaning of method, path and query of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether it addresses a resource; otherwise only `path` and `verb` mean something.
    pub is_resource: bool,
    /// The path, decoded.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `proxy`; the method in lower case for
    /// what is no resource.
    pub verb: String,
    /// `api` or `apis`.
    pub prefix: String,
    /// API group, empty for the core group.
    pub group: String,
    /// API version of the path.
    pub version: String,
    /// Namespace, empty for none. For a request on a namespace itself it is that namespace.
    pub namespace: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Subresource, empty for none.
    pub subresource: String,
    /// Name of the object, empty for a collection. A list or watch limited to one `metadata.name` has it too.
    pub name: String,
    /// The path from the resource on: resource, name, subresource, and what follows it (`proxy`).
    pub parts: Vec<String>,
    /// The `fieldSelector` parameter of list, watch and deletecollection, as it came.
    pub field_selector: String,
    /// The `labelSelector` parameter of list, watch and deletecollection, as it came.
    pub label_selector: String,
    /// Whether the deprecated `/watch/` prefix was used.
    pub watch_path: bool,
    /// Whether the path is that of a resource in a namespace, even of one without a name (`/namespaces//pods`).
    pub namespace_path: bool,
}

/// Parameters of a query string, decoded, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a query string; what cannot be decoded is taken as it stands.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(key, true), unescape(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The first value of `key`, or the empty string.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    /// Every value of `key`.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A boolean as upstream reads it: absent, `0` and `false` are false, everything else is true.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// All parameters.
    #[must_use]
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

/// Subresources of namespaces: what follows `/namespaces/NAME/` and is no resource of its own.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads a request. Fails for `/api/v1/watch` and `/api/v1/proxy` without anything after it.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Result<Self, ParseError> {
        let mut info = Self { path: unescape(path, false), verb: method.as_str().to_ascii_lowercase(), ..Self::default() };
        // An escaped slash is a slash, as everywhere upstream.
        let segments: Vec<String> = match info.path.trim_matches('/') {
            "" => Vec::new(),
            trimmed => trimmed.split('/').map(str::to_owned).collect(),
        };
        let mut parts = segments.as_slice();
        if parts.len() < 3 || !matches!(parts[0].as_str(), "api" | "apis") {
            return Ok(info);
        }
        let grouped = parts[0] == "apis";
        if grouped && parts.len() < 4 {
            return Ok(info);
        }
        info.prefix.clone_from(&parts[0]);
        parts = &parts[1..];
        if grouped {
            info.group.clone_from(&parts[0]);
            parts = &parts[1..];
        }
        info.is_resource = true;
        info.version.clone_from(&parts[0]);
        parts = &parts[1..];

        if matches!(parts[0].as_str(), "watch" | "proxy") {
            info.verb.clone_from(&parts[0]);
            info.watch_path = parts[0] == "watch";
            parts = &parts[1..];
            if parts.is_empty() {
                return Err(ParseError { path: info.path });
            }
        } else {
            info.verb = verb_of(method).into();
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace.clone_from(&parts[1]);
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2].as_str()) {
                parts = &parts[2..];
                info.namespace_path = true;
            }
        }
        info.parts = parts.to_vec();
        info.resource.clone_from(&parts[0]);
        if let Some(name) = parts.get(1) {
            info.name.clone_from(name);
        }
        if let Some(subresource) = parts.get(2).filter(|_| info.verb != "proxy") {
            info.subresource.clone_from(subresource);
        }
        info.settle_collection_verbs(query);
        Ok(info)
    }

    /// A GET or DELETE without a name is about a collection.
    fn settle_collection_verbs(&mut self, query: &Query) {
        if self.name.is_empty() && self.verb == "get" {
            self.verb = if query.flag("watch") { "watch" } else { "list" }.into();
            if let Some(name) = exact_name(query.text("fieldSelector")) {
                self.name = name;
            }
        }
        if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection".into();
        }
        if !self.watch_path && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            query.text("fieldSelector").clone_into(&mut self.field_selector);
            query.text("labelSelector").clone_into(&mut self.label_selector);
        }
    }

    /// Whether the request changes nothing.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        if self.is_resource {
            matches!(self.verb.as_str(), "get" | "list" | "watch")
        } else {
            matches!(self.verb.as_str(), "get" | "head" | "options")
        }
    }

    /// Whether the request may go on for as long as the client likes, so that timeouts and seats do not count for it.
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        self.is_resource
            && (matches!(self.verb.as_str(), "watch" | "proxy")
                || matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward"))
            || (!self.is_resource && self.path.starts_with("/debug/pprof/"))
    }

    /// Whether somebody else answers it.
    #[must_use]
    pub fn is_proxied(&self) -> bool {
        self.is_resource && (self.verb == "proxy" || self.subresource == "proxy")
    }

    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// A path that begins like a special verb and has nothing after it.
#[derive(Debug, thiserror::Error)]
#[error("unable to determine kind and namespace from url, {path}")]
pub struct ParseError {
    path: String,
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The name that a field selector requires, when it is one that can be in a path.
fn exact_name(selector: &str) -> Option<String> {
    if selector.is_empty() {
        return None;
    }
    let selector = FieldSelector::parse(selector).ok()?;
    let name = selector.exact("metadata.name")?;
    let usable = !matches!(name, "" | "." | "..") && !name.contains(['/', '%']);
    usable.then(|| name.to_owned())
}

/// Whether every `%` of a path begins an escape.
pub(crate) fn is_well_escaped(path: &str) -> bool {
    path.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

/// Decodes percent escapes, and `+` as a space in a query. What is no escape stays; bytes that are no UTF-8 are replaced.
pub(crate) fn unescape(text: &str, plus: bool) -> String {
    let is_escaped = text.contains('%') || (plus && text.contains('+'));
    if !is_escaped {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |b: u8| char::from(b).to_digit(16);
        match bytes[at] {
            b'%' => match (bytes.get(at + 1).copied().and_then(hex), bytes.get(at + 2).copied().and_then(hex)) {
                (Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    at += 3;
                    continue;
                }
                _ => out.push(b'%'),
            },
            b'+' if plus => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).unwrap_or_else(|err| String::from_utf8_lossy(err.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn paths_mean_what_upstream_says() {
        //    method    path                                              verb       group   version  namespace resource       subresource name
        check("GET",    "/api/v1/pods",                                    "list",    "",     "v1",    "",       "pods",        "",       "");
        check("GET",    "/api/v1/pods?watch=1",                            "watch",   "",     "v1",    "",       "pods",        "",       "");
        check("GET",    "/api/v1/pods?watch=false",                        "list",    "",     "v1",    "",       "pods",        "",       "");
        check("GET",    "/api/v1/namespaces/a",                            "get",     "",     "v1",    "a",      "namespaces",  "",       "a");
        check("PUT",    "/api/v1/namespaces/a/finalize",                   "update",  "",     "v1",    "a",      "namespaces",  "finalize", "a");
        check("POST",   "/api/v1/namespaces/a/pods/b/eviction",            "create",  "",     "v1",    "a",      "pods",        "eviction", "b");
        check("DELETE", "/apis/apps/v1/namespaces/a/deployments",          "deletecollection", "apps", "v1", "a", "deployments", "",      "");
        check("PATCH",  "/apis/apps/v1/namespaces/a/deployments/b/scale",  "patch",   "apps", "v1",    "a",      "deployments", "scale",  "b");
        check("GET",    "/api/v1/watch/namespaces/a/pods/b",               "watch",   "",     "v1",    "a",      "pods",        "",       "b");
        check("GET",    "/api/v1/pods?fieldSelector=metadata.name%3Db",    "list",    "",     "v1",    "",       "pods",        "",       "b");
        check("GET",    "/api/v1/pods?fieldSelector=a%3Db,metadata.name%3D%3Dc", "list", "",    "v1",    "",       "pods",        "",       "c");
        check("GET",    "/api/v1/pods?fieldSelector=metadata.name%21%3Db", "list",    "",     "v1",    "",       "pods",        "",       "");
        check("GET",    "/api/v1/pods?fieldSelector=metadata.name%3Da%2Fb", "list",   "",     "v1",    "",       "pods",        "",       "");
        check("GET",    "/api/v1/pods?fieldSelector=metadata.name%3Da,b",  "list",    "",     "v1",    "",       "pods",        "",       "");
        check("GET",    "/api/v1/namespaces/a%2Fpods/b",                   "get",     "",     "v1",    "a",      "pods",        "",       "b");
        check("GET",    "/api/v1/namespaces/a/pods/b/",                    "get",     "",     "v1",    "a",      "pods",        "",       "b");
        check("HEAD",   "/api/v1/namespaces/a/pods/b",                     "get",     "",     "v1",    "a",      "pods",        "",       "b");
        check("OPTIONS", "/api/v1/namespaces/a/pods/b",                    "",        "",     "v1",    "a",      "pods",        "",       "b");
        #[track_caller]
        #[expect(clippy::too_many_arguments, reason = "one column each")]
        fn check(method: &str, url: &str, verb: &str, group: &str, version: &str, namespace: &str, resource: &str, sub: &str, name: &str) {
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let info = RequestInfo::parse(&method, path, &Query::parse(query)).unwrap();
            let got = [&info.verb, &info.group, &info.version, &info.namespace, &info.resource, &info.subresource, &info.name];
            assert_eq!(got, [verb, group, version, namespace, resource, sub, name]);
            assert!(info.is_resource);
        }
    }

    #[test]
    fn what_is_no_resource_has_only_a_path_and_a_verb() {
        for path in ["/", "/api", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz/etcd", "/openapi/v3"] {
            let info = RequestInfo::parse(&Method::GET, path, &Query::default()).unwrap();
            assert!(!info.is_resource, "{path}");
            assert_eq!(info.verb, "get");
        }
        assert!(RequestInfo::parse(&Method::GET, "/api/v1/watch", &Query::default()).is_err());
    }

    #[test]
    fn escapes_are_decoded_once() {
        assert_eq!(unescape("a%2Fb%zz%4", false), "a/b%zz%4");
        assert_eq!(unescape("a+b%20c", true), "a b c");
        assert_eq!(unescape("%2541", false), "%41");
        assert!(is_well_escaped("/a%2Fb%aa") && is_well_escaped("/"));
        assert!(!is_well_escaped("/a%zz") && !is_well_escaped("/%") && !is_well_escaped("/%a"));
    }
}
