//! Operations: what can be done at which path, from the catalogue.

use serde_json::{Map, Value, json};

use corten_api::catalogue::{Catalogue, Resource, Subresource, Version};

use super::schemas::{Dialect, Schemas};

/// Parameters by name: type and description.
const PARAMETERS: [(&str, &str, &str); 20] = [
    ("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."),
    ("continue", "string", "The continue option should be set when retrieving more results from the server."),
    (
        "dryRun",
        "string",
        "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed",
    ),
    ("fieldManager", "string", "fieldManager is a name associated with the actor or entity that is making these changes."),
    ("fieldSelector", "string", "A selector to restrict the list of returned objects by their fields. Defaults to everything."),
    (
        "fieldValidation",
        "string",
        "fieldValidation instructs the server on how to handle objects in the request containing unknown or duplicate fields. Valid values are: Ignore, Warn, Strict.",
    ),
    (
        "force",
        "boolean",
        "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people.",
    ),
    ("gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted."),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "if set to true, it will trigger an unsafe deletion of the resource in case the normal deletion flow fails with a corrupt object error.",
    ),
    ("labelSelector", "string", "A selector to restrict the list of returned objects by their labels. Defaults to everything."),
    ("limit", "integer", "limit is a maximum number of responses to return for a list call."),
    ("orphanDependents", "boolean", "Deprecated: please use the PropagationPolicy."),
    ("path", "string", "Path is the URL path to use for the current proxy request."),
    ("pretty", "string", "If 'true', then the output is pretty printed."),
    ("propagationPolicy", "string", "Whether and how garbage collection will be performed."),
    ("resourceVersion", "string", "resourceVersion sets a constraint on what resource versions a request may be served from."),
    ("resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied to list calls."),
    ("sendInitialEvents", "boolean", "`sendInitialEvents=true` may be set together with `watch=true`."),
    ("timeoutSeconds", "integer", "Timeout for the list/watch call."),
    (
        "watch",
        "boolean",
        "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications.",
    ),
];

const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
const BODIES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// The paths of a group version; what they speak of is added to `schemas`.
pub(super) fn of(catalogue: &Catalogue, group: &str, version: &str, schemas: &mut Schemas) -> Map<String, Value> {
    let mut paths = Map::new();
    for (resource, version) in catalogue.of_version(group, version).filter(|(_, version)| version.served) {
        let mut maker = Maker { resource, version, schemas };
        maker.resource_paths(&mut paths);
        for sub in &version.subresources {
            maker.subresource_path(sub, &mut paths);
        }
    }
    paths
}

struct Maker<'a> {
    resource: &'a Resource,
    version: &'a Version,
    schemas: &'a mut Schemas,
}

/// One operation to be described.
struct Operation<'a> {
    method: &'a str,
    /// As `x-kubernetes-action` has it.
    action: &'a str,
    verb: &'a str,
    /// Query parameters besides `pretty`.
    query: &'a [&'a str],
    takes: Option<Value>,
    gives: Option<Value>,
    codes: &'a [&'a str],
    kind: (&'a str, &'a str, &'a str),
    /// What ends the operation's id.
    suffix: &'a str,
}

impl Maker<'_> {
    fn root(&self) -> String {
        match self.resource.group.as_str() {
            "" => format!("/api/{}", self.version.name),
            group => format!("/apis/{group}/{}", self.version.name),
        }
    }

    fn collection(&self) -> String {
        let scope = if self.resource.namespaced { "/namespaces/{namespace}" } else { "" };
        format!("{}{scope}/{}", self.root(), self.resource.plural)
    }

    fn resource_paths(&mut self, paths: &mut Map<String, Value>) {
        let verbs = self.version.verbs;
        let own = self.schemas.reference(&self.version.type_name);
        let (mut collection, mut single) = (self.item(false), self.item(true));
        if verbs.contains("list") {
            let list = self.schemas.list(&self.version.type_name, &self.resource.list_kind);
            collection["get"] = self.operation("get", "list", "list", LIST, None, Some(list.clone()), &["200"], "");
            if self.resource.namespaced {
                let mut everywhere = self.item(false);
                everywhere["get"] = self.operation("get", "list", "list", LIST, None, Some(list), &["200"], "ForAllNamespaces");
                drop_parameter(&mut everywhere, "namespace");
                paths.insert(format!("{}/{}", self.root(), self.resource.plural), everywhere);
            }
        }
        if verbs.contains("create") {
            collection["post"] =
                self.operation("post", "post", "create", WRITE, Some(own.clone()), Some(own.clone()), &["200", "201", "202"], "");
        }
        let (status, options) = (self.schemas.reference("meta.v1.Status"), self.schemas.reference("meta.v1.DeleteOptions"));
        if verbs.contains("deletecollection") {
            let query = [DELETE, LIST].concat();
            collection["delete"] = self.operation(
                "delete",
                "deletecollection",
                "delete",
                &query,
                Some(options.clone()),
                Some(status.clone()),
                &["200"],
                "Collection",
            );
        }
        if verbs.contains("get") {
            single["get"] = self.operation("get", "get", "read", &[], None, Some(own.clone()), &["200"], "");
        }
        if verbs.contains("update") {
            single["put"] =
                self.operation("put", "put", "replace", WRITE, Some(own.clone()), Some(own.clone()), &["200", "201"], "");
        }
        if verbs.contains("patch") {
            let patch = self.schemas.reference("meta.v1.Patch");
            single["patch"] = self.operation("patch", "patch", "patch", PATCH, Some(patch), Some(own), &["200", "201"], "");
        }
        if verbs.contains("delete") {
            single["delete"] =
                self.operation("delete", "delete", "delete", DELETE, Some(options), Some(status), &["200", "202"], "");
        }
        paths.insert(self.collection(), collection);
        if ["get", "update", "patch", "delete"].iter().any(|verb| verbs.contains(verb)) {
            paths.insert(format!("{}/{{name}}", self.collection()), single);
        }
    }

    fn subresource_path(&mut self, sub: &Subresource, paths: &mut Map<String, Value>) {
        let mut item = self.item(true);
        let own = self.schemas.reference(&sub.type_name);
        let kind = (sub.group.as_str(), sub.version.as_str(), sub.kind.as_str());
        let suffix = capitalized(&sub.name);
        let is_connection = matches!(sub.name.as_str(), "attach" | "exec" | "portforward" | "proxy");
        let methods = [
            ("get", "get", "read"),
            ("update", "put", "replace"),
            ("patch", "patch", "patch"),
            ("create", "post", "create"),
            ("delete", "delete", "delete"),
        ];
        for (verb, method, word) in methods.into_iter().filter(|(verb, ..)| sub.verbs.contains(verb)) {
            if is_connection {
                let text = json!({"type": "string"});
                item[method] = self.describe(&Operation {
                    method,
                    action: "connect",
                    verb: &format!("connect{}", capitalized(method)),
                    query: &[],
                    takes: None,
                    gives: Some(text),
                    codes: &["200"],
                    kind,
                    suffix: &suffix,
                });
                continue;
            }
            let (query, takes): (&[&str], _) = match verb {
                "get" => (&[], None),
                "patch" => (PATCH, Some(self.schemas.reference("meta.v1.Patch"))),
                _ => (WRITE, Some(own.clone())),
            };
            let codes: &[&str] = if verb == "create" { &["200", "201", "202"] } else { &["200"] };
            let gives = if sub.name == "log" { json!({"type": "string"}) } else { own.clone() };
            item[method] = self.describe(&Operation {
                method,
                action: if verb == "create" { "post" } else { method },
                verb: word,
                query,
                takes,
                gives: Some(gives),
                codes,
                kind,
                suffix: &suffix,
            });
        }
        let path = format!("{}/{{name}}/{}", self.collection(), sub.name);
        if sub.name == "proxy" {
            let mut deep = item.clone();
            deep["parameters"].as_array_mut().into_iter().for_each(|list| list.push(self.parameter("path", "path")));
            paths.insert(format!("{path}/{{path}}"), deep);
        }
        paths.insert(path, item);
    }

    /// A path item with its parameters.
    fn item(&self, named: bool) -> Value {
        let mut parameters = Vec::new();
        if named {
            parameters.push(self.path_parameter("name", &format!("name of the {}", self.resource.kind)));
        }
        if self.resource.namespaced {
            parameters.push(self.path_parameter("namespace", "object name and auth scope, such as for teams and projects"));
        }
        parameters.push(self.parameter("pretty", "query"));
        json!({"parameters": parameters})
    }

    #[expect(clippy::too_many_arguments, reason = "one column each")]
    fn operation(
        &self,
        method: &str,
        action: &str,
        verb: &str,
        query: &[&str],
        takes: Option<Value>,
        gives: Option<Value>,
        codes: &[&str],
        suffix: &str,
    ) -> Value {
        let kind = (self.resource.group.as_str(), self.version.name.as_str(), self.resource.kind.as_str());
        self.describe(&Operation { method, action, verb, query, takes, gives, codes, kind, suffix })
    }

    fn describe(&self, o: &Operation<'_>) -> Value {
        let package = match self.resource.group.as_str() {
            "" => "Core".to_owned(),
            group => capitalized(group.split('.').next().unwrap_or_default()),
        };
        let version = capitalized(&self.version.name);
        let scope = if self.resource.namespaced && o.suffix != "ForAllNamespaces" { "Namespaced" } else { "" };
        // "Collection" stands before the kind in upstream's ids.
        let (before, after) = if o.suffix == "Collection" { ("Collection", "") } else { ("", o.suffix) };
        let id = format!("{}{package}{version}{before}{scope}{}{after}", o.verb, self.resource.kind);
        let tag = match self.resource.group.as_str() {
            "" => format!("core_{}", self.version.name),
            group => format!("{}_{}", camel(group.trim_end_matches(".k8s.io")), self.version.name),
        };
        let (group, version, kind) = o.kind;
        let mut operation = json!({
            "operationId": id, "tags": [tag], "description": format!("{} {} {}", o.verb, if o.suffix.is_empty() { "the" } else { o.suffix }, self.resource.kind),
            "x-kubernetes-action": o.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
            "responses": self.responses(o),
        });
        let mut parameters: Vec<_> = o.query.iter().map(|name| self.parameter(name, "query")).collect();
        if let Some(takes) = &o.takes {
            match self.schemas.dialect {
                Dialect::V2 => {
                    parameters.push(json!({"name": "body", "in": "body", "required": o.method != "delete", "schema": takes}))
                }
                Dialect::V3 => operation["requestBody"] = self.body(o.method, takes),
            }
        }
        if self.schemas.dialect == Dialect::V2 {
            operation["consumes"] = if o.method == "patch" { json!(PATCHES) } else { json!(["*/*"]) };
            operation["produces"] = json!(BODIES);
            operation["schemes"] = json!(["https"]);
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        operation
    }

    fn body(&self, method: &str, takes: &Value) -> Value {
        let kinds: &[&str] = if method == "patch" { &PATCHES } else { &["*/*"] };
        let content: Map<String, Value> = kinds.iter().map(|kind| ((*kind).to_owned(), json!({"schema": takes}))).collect();
        let mut body = json!({"content": content});
        if method != "delete" {
            body["required"] = true.into();
        }
        body
    }

    fn responses(&self, o: &Operation<'_>) -> Value {
        let mut responses = Map::new();
        for code in o.codes {
            let words = match *code {
                "201" => "Created",
                "202" => "Accepted",
                _ => "OK",
            };
            let mut response = json!({"description": words});
            if let Some(gives) = &o.gives {
                match self.schemas.dialect {
                    Dialect::V2 => response["schema"] = gives.clone(),
                    Dialect::V3 => {
                        let streams: &[&str] = if o.action == "list" { &STREAMS } else { &[] };
                        let kinds = BODIES.iter().chain(streams);
                        let content: Map<String, Value> =
                            kinds.map(|kind| ((*kind).to_owned(), json!({"schema": gives}))).collect();
                        response["content"] = content.into();
                    }
                }
            }
            responses.insert((*code).to_owned(), response);
        }
        responses.insert("401".into(), json!({"description": "Unauthorized"}));
        responses.into()
    }

    fn parameter(&self, name: &str, place: &str) -> Value {
        let known = PARAMETERS.iter().find(|(known, ..)| *known == name);
        let (kind, description) = known.map_or(("string", ""), |(_, kind, description)| (*kind, *description));
        self.shaped(name, place, kind, description)
    }

    fn path_parameter(&self, name: &str, description: &str) -> Value {
        self.shaped(name, "path", "string", description)
    }

    fn shaped(&self, name: &str, place: &str, kind: &str, description: &str) -> Value {
        let mut parameter = json!({"name": name, "in": place, "description": description});
        if place == "path" {
            parameter["required"] = true.into();
        }
        match self.schemas.dialect {
            Dialect::V2 => {
                parameter["type"] = kind.into();
                parameter["uniqueItems"] = true.into();
            }
            Dialect::V3 => parameter["schema"] = json!({"type": kind, "uniqueItems": true}),
        }
        parameter
    }
}

fn drop_parameter(item: &mut Value, name: &str) {
    if let Some(parameters) = item["parameters"].as_array_mut() {
        parameters.retain(|parameter| parameter["name"] != name);
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// `rbacAuthorization` for `rbac.authorization`.
fn camel(text: &str) -> String {
    let mut parts = text.split('.');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |joined, part| joined + &capitalized(part))
}
