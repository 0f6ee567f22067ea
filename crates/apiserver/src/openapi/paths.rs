//! Operations: what can be done at which path, from the catalogue. The parameters of an operation are in `parameters`.

use serde_json::{Map, Value, json};

use corten_api::catalogue::{Catalogue, Resource, Subresource, Version};

use super::parameters::Parameter;
use super::schemas::{Dialect, Schemas};
use crate::registry::answers_deleted_object;

/// What a request or an answer may be written as.
pub(super) const BODIES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// What the answer of a list may be written as: with `watch`, lists are streams.
const LISTS: [&str; 5] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Methods that a proxied path takes.
const PROXIED: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];

/// The paths of a group version; what they speak of is added to `schemas`.
pub(super) fn of(catalogue: &Catalogue, group: &str, version: &str, schemas: &mut Schemas) -> Map<String, Value> {
    let mut paths = Map::new();
    for (resource, version) in catalogue.of_version(group, version).filter(|(_, version)| version.served) {
        let mut maker = Maker { resource, version, schemas };
        maker.resource_paths(&mut paths);
        maker.watch_paths(&mut paths);
        for sub in &version.subresources {
            maker.subresource_paths(sub, &mut paths);
        }
    }
    paths
}

/// `Core`, `Apps`, `RbacAuthorization`: a group in the ids of operations.
pub(super) fn group_word(group: &str) -> String {
    match group {
        "" => "Core".to_owned(),
        group => group.trim_end_matches(".k8s.io").split('.').map(capitalized).collect(),
    }
}

/// `core_v1`, `rbacAuthorization_v1`: the tag of a group version; without a version, that of the group.
pub(super) fn tag(group: &str, version: &str) -> String {
    let word = group_word(group);
    let mut chars = word.chars();
    let lower: String = chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default();
    if version.is_empty() { lower } else { format!("{lower}_{version}") }
}

pub(super) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The operations of one path as a path item: the parameters that all of them have are said once.
pub(super) fn item(schemas: &Schemas, operations: Vec<(&str, Value, Vec<Parameter<'_>>)>) -> Value {
    let document = |parameter: Parameter<'_>| parameter.document(schemas);
    let shared = |parameter: &Parameter<'_>| operations.iter().all(|(.., all)| all.contains(parameter));
    let mut common: Vec<Parameter<'_>> =
        operations.first().map(|(.., all)| all.iter().copied().filter(shared).collect()).unwrap_or_default();
    common.sort_unstable();
    let mut item = Map::new();
    for (method, mut operation, mut own) in operations {
        own.retain(|parameter| !common.contains(parameter));
        own.sort_unstable();
        let mut written: Vec<Value> = own.into_iter().map(document).collect();
        // In version 2 the body is a parameter too, and the only one that the operation has so far.
        if let Some(Value::Array(body)) = operation.get_mut("parameters") {
            written.splice(0..0, std::mem::take(body));
        }
        if !written.is_empty() {
            operation["parameters"] = written.into();
        }
        item.insert(method.to_owned(), operation);
    }
    if !common.is_empty() {
        item.insert("parameters".into(), common.into_iter().map(document).collect());
    }
    item.into()
}

struct Maker<'a> {
    resource: &'a Resource,
    version: &'a Version,
    schemas: &'a mut Schemas,
}

/// One operation to be described.
struct Operation<'a> {
    method: &'static str,
    /// As `x-kubernetes-action` has it.
    action: &'a str,
    /// What begins the operation's id.
    verb: &'a str,
    /// What stands in the id before `Namespaced`.
    before: &'a str,
    /// What ends the operation's id.
    after: &'a str,
    /// Whether the path names a namespace.
    scoped: bool,
    description: String,
    takes: Option<Value>,
    gives: Value,
    /// Media types of the answer.
    types: &'a [&'a str],
    codes: &'a [&'a str],
    kind: (&'a str, &'a str, &'a str),
}

impl<'a> Maker<'a> {
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

    fn own_kind(&self) -> Kind<'a> {
        (&self.resource.group, &self.version.name, &self.resource.kind)
    }

    /// Parameters of a path, which may name an object of a kind.
    fn in_path(&self, named: Option<&'a str>, scoped: bool) -> impl Iterator<Item = Parameter<'a>> + use<'a> {
        let namespace = (scoped && self.resource.namespaced).then(Parameter::namespace);
        named.map(Parameter::name).into_iter().chain(namespace)
    }

    /// Those of a path, those of a query, and what all operations have but connections.
    fn with(&self, named: Option<&'a str>, scoped: bool, query: impl IntoIterator<Item = Parameter<'a>>) -> Vec<Parameter<'a>> {
        query.into_iter().chain(self.in_path(named, scoped)).chain([Parameter::pretty()]).collect()
    }

    /// An answer with nothing special about it: what most operations start from.
    fn plain<'b>(&self, method: &'static str, verb: &'b str, description: String, gives: Value, kind: Kind<'b>) -> Operation<'b> {
        Operation {
            method,
            action: method,
            verb,
            before: "",
            after: "",
            scoped: self.resource.namespaced,
            description,
            takes: None,
            gives,
            types: &BODIES,
            codes: &["200"],
            kind,
        }
    }

    fn resource_paths(&mut self, paths: &mut Map<String, Value>) {
        let verbs = self.version.verbs;
        let kind = self.resource.kind.clone();
        let own_name = Some(self.resource.kind.as_str());
        let own = self.schemas.reference(&self.version.type_name);
        let (mut collection, mut single) = (Vec::new(), Vec::new());
        if verbs.contains("list") {
            let list = self.schemas.list(&self.version.type_name, &self.resource.list_kind);
            let watch = if verbs.contains("watch") { " or watch" } else { "" };
            let describe = |scoped, after| Operation {
                action: "list",
                types: &LISTS,
                scoped,
                after,
                ..self.plain("get", "list", format!("list{watch} objects of kind {kind}"), list.clone(), self.own_kind())
            };
            collection.push((
                "get",
                self.describe(&describe(self.resource.namespaced, "")),
                self.with(None, true, Parameter::query("meta.v1.ListOptions")),
            ));
            if self.resource.namespaced {
                let everywhere = self.describe(&describe(false, "ForAllNamespaces"));
                let everywhere = vec![("get", everywhere, self.with(None, false, Parameter::query("meta.v1.ListOptions")))];
                paths.insert(format!("{}/{}", self.root(), self.resource.plural), item(self.schemas, everywhere));
            }
        }
        if verbs.contains("create") {
            let operation = Operation {
                takes: Some(own.clone()),
                codes: &["200", "201", "202"],
                ..self.plain("post", "create", format!("create{}{kind}", article(&kind)), own.clone(), self.own_kind())
            };
            collection.push((
                "post",
                self.describe(&operation),
                self.with(None, true, Parameter::query("meta.v1.CreateOptions")),
            ));
        }
        if verbs.contains("deletecollection") {
            let (status, options) = self.deletion();
            let operation = Operation {
                action: "deletecollection",
                before: "Collection",
                takes: Some(options),
                ..self.plain("delete", "delete", format!("delete collection of {kind}"), status, self.own_kind())
            };
            collection.push(("delete", self.describe(&operation), self.with(None, true, Parameter::of_deletion_of_many())));
        }
        if verbs.contains("get") {
            let operation = self.plain("get", "read", format!("read the specified {kind}"), own.clone(), self.own_kind());
            single.push(("get", self.describe(&operation), self.with(own_name, true, [])));
        }
        if verbs.contains("update") {
            let operation = Operation {
                takes: Some(own.clone()),
                codes: &["200", "201"],
                ..self.plain("put", "replace", format!("replace the specified {kind}"), own.clone(), self.own_kind())
            };
            single.push(("put", self.describe(&operation), self.with(own_name, true, Parameter::query("meta.v1.UpdateOptions"))));
        }
        if verbs.contains("patch") {
            let patch = self.schemas.reference("meta.v1.Patch");
            let operation = Operation {
                takes: Some(patch),
                codes: &["200", "201"],
                ..self.plain("patch", "patch", format!("partially update the specified {kind}"), own.clone(), self.own_kind())
            };
            single.push((
                "patch",
                self.describe(&operation),
                self.with(own_name, true, Parameter::query("meta.v1.PatchOptions")),
            ));
        }
        if verbs.contains("delete") {
            let (status, options) = self.deletion();
            let gives = if answers_deleted_object(self.resource) { own } else { status };
            let operation = Operation {
                takes: Some(options),
                codes: &["200", "202"],
                ..self.plain("delete", "delete", format!("delete{}{kind}", article(&kind)), gives, self.own_kind())
            };
            single.push((
                "delete",
                self.describe(&operation),
                self.with(own_name, true, Parameter::query("meta.v1.DeleteOptions")),
            ));
        }
        paths.insert(self.collection(), item(self.schemas, collection));
        if !single.is_empty() {
            paths.insert(format!("{}/{{name}}", self.collection()), item(self.schemas, single));
        }
    }

    /// What a deletion gives and takes.
    fn deletion(&mut self) -> (Value, Value) {
        (self.schemas.reference("meta.v1.Status"), self.schemas.reference("meta.v1.DeleteOptions"))
    }

    /// The old paths of watches, which are still served.
    fn watch_paths(&mut self, paths: &mut Map<String, Value>) {
        if !self.version.verbs.contains("watch") {
            return;
        }
        let event = self.schemas.reference("meta.v1.WatchEvent");
        let kind = &self.resource.kind;
        let old = "deprecated: use the 'watch' parameter with a list operation instead";
        let one = format!(
            "watch changes to an object of kind {kind}. {old}, filtered to a single item with the 'fieldSelector' parameter."
        );
        let many = format!("watch individual changes to a list of {kind}. {old}.");
        let watched = |action, after, scoped, description: &str| Operation {
            action,
            after,
            scoped,
            types: &LISTS,
            ..self.plain("get", "watch", description.to_owned(), event.clone(), self.own_kind())
        };
        let root = format!("{}/watch", self.root());
        let collection = self.collection().replacen(&self.root(), &root, 1);
        let mut put = |path: String, operation: Operation<'_>, parameters| {
            let operations = vec![("get", self.describe(&operation), parameters)];
            paths.insert(path, item(self.schemas, operations));
        };
        let namespaced = self.resource.namespaced;
        if namespaced {
            let everywhere = watched("watchlist", "ListForAllNamespaces", false, &many);
            put(
                format!("{root}/{}", self.resource.plural),
                everywhere,
                self.with(None, false, Parameter::query("meta.v1.ListOptions")),
            );
        }
        put(
            collection.clone(),
            watched("watchlist", "List", namespaced, &many),
            self.with(None, true, Parameter::query("meta.v1.ListOptions")),
        );
        if self.version.verbs.contains("get") {
            let single = watched("watch", "", namespaced, &one);
            put(format!("{collection}/{{name}}"), single, self.with(Some(kind), true, Parameter::query("meta.v1.ListOptions")));
        }
    }

    fn subresource_paths(&mut self, sub: &'a Subresource, paths: &mut Map<String, Value>) {
        let path = format!("{}/{{name}}/{}", self.collection(), sub.name);
        if matches!(sub.name.as_str(), "attach" | "exec" | "portforward" | "proxy") {
            paths.insert(path.clone(), self.connection(sub, false));
            if sub.name == "proxy" {
                paths.insert(format!("{path}/{{path}}"), self.connection(sub, true));
            }
            return;
        }
        let own = self.schemas.reference(&sub.type_name);
        let kind: Kind<'_> = (&sub.group, &sub.version, &sub.kind);
        let after = capitalized(&sub.name);
        let (name, of) = (&sub.name, &self.resource.kind);
        let mut operations = Vec::new();
        let methods =
            [("get", "get", "read"), ("update", "put", "replace"), ("patch", "patch", "patch"), ("create", "post", "create")];
        for (verb, method, word) in methods.into_iter().filter(|(verb, ..)| sub.verbs.contains(verb)) {
            let description = match verb {
                "get" => format!("read {name} of the specified {of}"),
                "update" => format!("replace {name} of the specified {of}"),
                "patch" => format!("partially update {name} of the specified {of}"),
                _ => format!("create {name} of{}{of}", article(of)),
            };
            let (query, takes, codes): (&str, _, &[&str]) = match verb {
                "get" if name == "log" => ("core.v1.PodLogOptions", None, &["200"]),
                "get" => ("", None, &["200"]),
                "patch" => ("meta.v1.PatchOptions", Some(self.schemas.reference("meta.v1.Patch")), &["200", "201"]),
                "update" => ("meta.v1.UpdateOptions", Some(own.clone()), &["200", "201"]),
                _ => ("meta.v1.CreateOptions", Some(own.clone()), &["200", "201", "202"]),
            };
            let text = [&["text/plain"], &BODIES[..]].concat();
            let is_log = name == "log";
            let gives = if is_log { json!({"type": "string"}) } else { own.clone() };
            let operation = Operation {
                after: &after,
                takes,
                codes,
                types: if is_log { &text } else { &BODIES },
                ..self.plain(method, word, description, gives, kind)
            };
            operations.push((method, self.describe(&operation), self.with(Some(&sub.kind), true, Parameter::query(query))));
        }
        paths.insert(path, item(self.schemas, operations));
    }

    /// A connection to a node, pod or service.
    fn connection(&self, sub: &'a Subresource, deep: bool) -> Value {
        let after = format!("{}{}", capitalized(&sub.name), if deep { "WithPath" } else { "" });
        let methods: &[&'static str] = if sub.name == "proxy" { &PROXIED } else { &["get", "post"] };
        let operations = methods.iter().map(|method| {
            let of = &self.resource.kind;
            let description = format!("connect {} requests to {} of {of}", method.to_uppercase(), sub.name);
            let operation = Operation {
                action: "connect",
                before: &capitalized(method),
                after: &after,
                types: &["*/*"],
                ..self.plain(method, "connect", description, json!({"type": "string"}), (&sub.group, &sub.version, &sub.kind))
            };
            let parameters = Parameter::query(&sub.type_name).chain(self.in_path(Some(&sub.kind), true));
            let parameters = parameters.chain(deep.then(Parameter::path)).collect();
            (*method, self.describe(&operation), parameters)
        });
        item(self.schemas, operations.collect())
    }

    fn describe(&self, o: &Operation<'_>) -> Value {
        let scope = if o.scoped { "Namespaced" } else { "" };
        let package = group_word(&self.resource.group);
        let version = capitalized(&self.version.name);
        let (group, of_version, kind) = o.kind;
        let mut operation = json!({
            "operationId": format!("{}{package}{version}{}{scope}{}{}", o.verb, o.before, self.resource.kind, o.after),
            "tags": [tag(&self.resource.group, &self.version.name)],
            "description": o.description,
            "x-kubernetes-action": o.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": of_version, "kind": kind},
            "responses": self.responses(o),
        });
        if let Some(takes) = &o.takes {
            match self.schemas.dialect {
                Dialect::V2 => {
                    let mut body = json!({"name": "body", "in": "body", "schema": takes});
                    if o.method != "delete" {
                        body["required"] = true.into();
                    }
                    operation["parameters"] = json!([body]);
                }
                Dialect::V3 => operation["requestBody"] = body(o.method, takes),
            }
        }
        if self.schemas.dialect == Dialect::V2 {
            operation["consumes"] = if o.method == "patch" && o.action == "patch" { json!(PATCHES) } else { json!(["*/*"]) };
            operation["produces"] = json!(o.types);
            operation["schemes"] = json!(["https"]);
        }
        operation
    }

    fn responses(&self, o: &Operation<'_>) -> Value {
        let mut responses = Map::new();
        for code in o.codes {
            responses.insert((*code).to_owned(), answer(self.schemas.dialect, code, Some(&o.gives), o.types));
        }
        responses.insert("401".into(), json!({"description": "Unauthorized"}));
        responses.into()
    }
}

type Kind<'a> = (&'a str, &'a str, &'a str);

/// An answer of an operation.
pub(super) fn answer(dialect: Dialect, code: &str, gives: Option<&Value>, types: &[&str]) -> Value {
    let words = match code {
        "201" => "Created",
        "202" => "Accepted",
        _ => "OK",
    };
    let mut answer = json!({"description": words});
    if let Some(gives) = gives {
        match dialect {
            Dialect::V2 => answer["schema"] = gives.clone(),
            Dialect::V3 => {
                let content: Map<String, Value> =
                    types.iter().map(|kind| ((*kind).to_owned(), json!({"schema": gives}))).collect();
                answer["content"] = content.into();
            }
        }
    }
    answer
}

fn body(method: &str, takes: &Value) -> Value {
    let kinds: &[&str] = if method == "patch" { &PATCHES } else { &["*/*"] };
    let content: Map<String, Value> = kinds.iter().map(|kind| ((*kind).to_owned(), json!({"schema": takes}))).collect();
    let mut body = json!({"content": content});
    if method != "delete" {
        body["required"] = true.into();
    }
    body
}

/// What stands before a kind: an article, unless the kind is a plural.
fn article(word: &str) -> &'static str {
    match word {
        plural if plural.ends_with('s') && !plural.ends_with("ss") => " ",
        word if word.starts_with(['A', 'E', 'I', 'O', 'U']) => " an ",
        _ => " a ",
    }
}
