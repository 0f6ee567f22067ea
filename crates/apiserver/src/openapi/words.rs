//! What is said of what `k8s-openapi` does not describe: lists, and the options that a request may have. In words of our own; the
//! descriptions of everything else are that crate's.

/// What is said of a type, or of one of its fields; `None` where there is nothing to say.
pub(super) fn of(type_name: &str, field: &str) -> Option<String> {
    let name = type_name.rsplit('.').next().unwrap_or_default();
    if name.ends_with("Options") {
        return OPTIONS.iter().find(|(known, _)| *known == field).map(|(_, words)| (*words).to_owned());
    }
    match (name.strip_suffix("List"), field) {
        (_, "apiVersion") => Some("The group and version whose schema this is written in, such as `apps/v1`.".into()),
        (_, "kind") => Some("What this is, such as `Deployment`; the path of a request says the same.".into()),
        (Some(kind), "") => Some(format!("Objects of kind {kind}, all or those a request selects.")),
        (Some(_), "metadata") => Some("The revision that the list is of, and how to go on when this is a part of it.".into()),
        (Some(_), "items") => Some("The objects.".into()),
        _ => None,
    }
}

/// Options by name; those of one name mean the same wherever they are.
#[rustfmt::skip]
const OPTIONS: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "Whether a watch tells from time to time how far it is, by events of type `BOOKMARK`."),
    ("command", "The program to run and its arguments, one by one. No shell looks at them."),
    ("container", "The container of the pod that is meant; the only one may be left out."),
    ("continue", "Where to go on: what `metadata.continue` of the part before said."),
    ("dryRun", "`All` to go through every step but the last: nothing is stored."),
    ("fieldManager", "Who is writing: the owner of the fields that are set, in at most 128 printable characters."),
    ("fieldSelector", "Conditions on fields, such as `metadata.name=web`; all objects without."),
    ("fieldValidation", "What to do with fields that are unknown or given twice: `Ignore`, `Warn` or `Strict`."),
    ("follow", "Whether to go on as the container writes."),
    ("force", "Whether to take fields over that others own; apply only."),
    ("gracePeriodSeconds", "Seconds until the end; 0 is now, and what the object says counts without."),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "Whether to delete even what is stored but cannot be read. What depends on it may never learn of that."),
    ("insecureSkipTLSVerifyBackend", "Whether to take whatever certificate the kubelet has."),
    ("labelSelector", "Conditions on labels, such as `app=web,tier!=test`; all objects without."),
    ("limit", "How many objects to get at once; the answer says how to go on."),
    ("limitBytes", "After how many bytes to stop."),
    ("orphanDependents", "Deprecated, as propagationPolicy says it better: whether dependents stay."),
    ("path", "The path below the target."),
    ("ports", "The ports to reach; WebSockets need them here."),
    ("previous", "Whether that of the instance before is meant, which ended."),
    ("propagationPolicy", "What happens to dependents: `Orphan` leaves them, `Background` deletes them later, `Foreground` before the object itself."),
    ("resourceVersion", "The revision that the answer has to be of, or to follow."),
    ("resourceVersionMatch", "How resourceVersion counts for lists: `Exact` or `NotOlderThan`."),
    ("sendInitialEvents", "Whether a watch begins with all that is there, as events of type `ADDED`."),
    ("shardSelector", "Which part of all objects, of those that are told apart by a hash."),
    ("sinceSeconds", "How many seconds ago to begin."),
    ("stderr", "Whether standard error is wanted."),
    ("stdin", "Whether something will be written to standard input."),
    ("stdout", "Whether standard output is wanted."),
    ("stream", "Which output: `All`, `Stdout` or `Stderr`."),
    ("tailLines", "How many lines from the end to begin with."),
    ("timeoutSeconds", "After how many seconds to end."),
    ("timestamps", "Whether each line begins with its time."),
    ("tty", "Whether there is a terminal at the client's end."),
    ("watch", "Whether to be told of changes, beginning at resourceVersion, instead of getting a list."),
];

#[cfg(test)]
mod tests {
    use corten_api::facts::Types;

    use super::*;

    #[test]
    fn every_option_of_a_request_is_told_of() {
        let types = ["Get", "List", "Create", "Update", "Patch"].map(|verb| format!("meta.v1.{verb}Options"));
        let connections = ["PodLog", "PodExec", "PodAttach", "PodPortForward", "PodProxy", "NodeProxy", "ServiceProxy"];
        let connections = connections.map(|of| format!("core.v1.{of}Options"));
        for name in types.iter().chain(&connections) {
            for field in &Types::get().named(name).unwrap().fields {
                let is_query = !matches!(field.name, "apiVersion" | "kind" | "sinceTime");
                assert_eq!(of(name, field.name).is_some(), is_query, "{name} {}", field.name);
            }
        }
    }
}
