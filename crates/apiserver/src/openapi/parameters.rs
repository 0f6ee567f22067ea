//! Parameters of operations, as a closed list of names: clients are generated from them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::schemas::Dialect;

/// A parameter of an operation. Ordered by name, as documents list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Parameter<'a> {
    name: &'static str,
    place: Place,
    /// What the path's `{name}` names.
    of: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Path,
    Query,
}

pub(super) const LIST: &[&str] = &[
    "pretty",
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];
pub(super) const WRITE: &[&str] = &["pretty", "dryRun", "fieldManager", "fieldValidation"];
pub(super) const PATCH: &[&str] = &["pretty", "dryRun", "fieldManager", "fieldValidation", "force"];
pub(super) const DELETE: &[&str] = &[
    "pretty",
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
pub(super) const DELETE_COLLECTION: &[&str] = &[
    "pretty",
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
];
pub(super) const LOG: &[&str] = &[
    "pretty",
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
];

/// The query of a connection by the name of its subresource.
pub(super) fn of_connection(subresource: &str) -> &'static [&'static str] {
    match subresource {
        "exec" => &["command", "container", "stderr", "stdin", "stdout", "tty"],
        "attach" => &["container", "stderr", "stdin", "stdout", "tty"],
        "portforward" => &["ports"],
        _ => &["path"],
    }
}

/// Types and words by name.
#[rustfmt::skip]
const QUERY: &[(&str, &str, &str)] = &[
    ("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\". Servers that do not implement bookmarks may ignore this flag and bookmarks are sent at the server's discretion."),
    ("command", "string", "Command is the remote command to execute. argv array. Not executed within a shell."),
    ("container", "string", "The container for which to stream logs or in which to run. Defaults to the only container if there is one container in the pod."),
    ("continue", "string", "The continue option should be set when retrieving more results from the server."),
    ("dryRun", "string", "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed"),
    ("fieldManager", "string", "fieldManager is a name associated with the actor or entity that is making these changes. It must be at most 128 printable characters."),
    ("fieldSelector", "string", "A selector to restrict the list of returned objects by their fields. Defaults to everything."),
    ("fieldValidation", "string", "fieldValidation instructs the server on how to handle objects in the request containing unknown or duplicate fields. Valid values are: Ignore, Warn, Strict."),
    ("follow", "boolean", "Follow the log stream of the pod. Defaults to false."),
    ("force", "boolean", "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people."),
    ("gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted. Value must be non-negative integer. The value zero indicates delete immediately."),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "if set to true, it will trigger an unsafe deletion of the resource in case the normal deletion flow fails with a corrupt object error."),
    ("insecureSkipTLSVerifyBackend", "boolean", "insecureSkipTLSVerifyBackend indicates that the apiserver should not confirm the validity of the serving certificate of the backend it is connecting to."),
    ("labelSelector", "string", "A selector to restrict the list of returned objects by their labels. Defaults to everything."),
    ("limit", "integer", "limit is a maximum number of responses to return for a list call."),
    ("limitBytes", "integer", "If set, the number of bytes to read from the server before terminating the log output."),
    ("orphanDependents", "boolean", "Deprecated: please use the PropagationPolicy. Should the dependent objects be orphaned."),
    ("path", "string", "Path is the URL path to use for the current proxy request."),
    ("ports", "integer", "List of ports to forward. Required when using WebSockets."),
    ("pretty", "string", "If 'true', then the output is pretty printed."),
    ("previous", "boolean", "Return previous terminated container logs. Defaults to false."),
    ("propagationPolicy", "string", "Whether and how garbage collection will be performed. Acceptable values are: 'Orphan', 'Background', 'Foreground'."),
    ("resourceVersion", "string", "resourceVersion sets a constraint on what resource versions a request may be served from."),
    ("resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied to list calls."),
    ("sendInitialEvents", "boolean", "`sendInitialEvents=true` may be set together with `watch=true`. In that case, the watch stream will begin with synthetic events."),
    ("shardSelector", "string", "shardSelector restricts the list of returned objects to a part of all of them."),
    ("sinceSeconds", "integer", "A relative time in seconds before the current time from which to show logs."),
    ("stderr", "boolean", "Redirect the standard error stream of the pod for this call."),
    ("stdin", "boolean", "Redirect the standard input stream of the pod for this call. Defaults to false."),
    ("stdout", "boolean", "Redirect the standard output stream of the pod for this call."),
    ("stream", "string", "Specify which container log stream to return to the client. Acceptable values are \"All\", \"Stdout\" and \"Stderr\"."),
    ("tailLines", "integer", "If set, the number of lines from the end of the logs to show."),
    ("timeoutSeconds", "integer", "Timeout for the list/watch call. This limits the duration of the call, regardless of any activity or inactivity."),
    ("timestamps", "boolean", "If true, add an RFC3339 or RFC3339Nano timestamp at the beginning of every line of log output. Defaults to false."),
    ("tty", "boolean", "TTY if true indicates that a tty will be allocated for the call. Defaults to false."),
    ("watch", "boolean", "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications. Specify resourceVersion."),
];

impl<'a> Parameter<'a> {
    pub(super) fn query(name: &str) -> Self {
        let known = QUERY.iter().find(|(known, ..)| *known == name);
        let name = known.map_or("", |(known, ..)| known);
        debug_assert!(!name.is_empty(), "every parameter that is named is in the list");
        Self { name, place: Place::Query, of: None }
    }

    /// The name in the path of an object.
    pub(super) fn name(kind: &'a str) -> Self {
        Self { name: "name", place: Place::Path, of: Some(kind) }
    }

    pub(super) fn namespace() -> Self {
        Self { name: "namespace", place: Place::Path, of: None }
    }

    /// What follows in the path of a proxied request.
    pub(super) fn path() -> Self {
        Self { name: "path", place: Place::Path, of: None }
    }

    pub(super) fn document(self, dialect: Dialect) -> Value {
        let (place, kind, description) = match self.place {
            Place::Query => {
                let known = QUERY.iter().find(|(known, ..)| *known == self.name);
                known.map_or(("query", "string", String::new()), |(_, kind, words)| ("query", *kind, (*words).to_owned()))
            }
            Place::Path => {
                let words = match self.name {
                    "name" => format!("name of the {}", self.of.unwrap_or_default()),
                    "namespace" => "object name and auth scope, such as for teams and projects".to_owned(),
                    _ => "path to the resource".to_owned(),
                };
                ("path", "string", words)
            }
        };
        let mut parameter = json!({"name": self.name, "in": place, "description": description});
        if place == "path" {
            parameter["required"] = true.into();
        }
        match dialect {
            Dialect::V2 => {
                parameter["type"] = kind.into();
                parameter["uniqueItems"] = true.into();
            }
            Dialect::V3 => parameter["schema"] = json!({"type": kind, "uniqueItems": true}),
        }
        parameter
    }
}

/// Moves what many operations of a version 2 document take to a place of its own, which is most of the document, and leaves
/// references. Older clients look for `dryRun` and `fieldValidation` at the operation itself.
pub(super) fn share(paths: &mut Map<String, Value>) -> Map<String, Value> {
    let mut shared = Map::new();
    let mut share_all = |holder: &mut Value| {
        for parameter in holder.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default();
            let is_own = match parameter["in"].as_str() {
                Some("body") => !parameter["schema"]["$ref"].as_str().is_some_and(|of| of.contains("/io.k8s.apimachinery")),
                _ => matches!(name, "name" | "dryRun" | "fieldValidation"),
            };
            if !is_own {
                let digest = Sha256::digest(parameter.to_string());
                let name = format!("{name}-{}", URL_SAFE.encode(&digest[..6]));
                let reference = json!({"$ref": format!("#/parameters/{name}")});
                shared.insert(name, std::mem::replace(parameter, reference));
            }
        }
    };
    for item in paths.values_mut() {
        share_all(item);
        item.as_object_mut().into_iter().flatten().for_each(|(_, operation)| share_all(operation));
    }
    shared
}
