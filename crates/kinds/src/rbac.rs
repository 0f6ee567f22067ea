//! Roles and bindings, in a namespace and in the cluster.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, internal, names, table};

const GROUP: &str = "rbac.authorization.k8s.io";

/// `Role` or, when `cluster` is set, `ClusterRole`.
pub(crate) struct Roles {
    pub(crate) cluster: bool,
}

impl Strategy for Roles {
    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        self.faults(object, false)
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        // A role that has selectors which were taken once, and are not any more, may keep values like theirs.
        let lax = old["aggregationRule"].list("clusterRoleSelectors").iter().any(|selector| {
            let mut faults = Faults::default();
            check::label_selector(&mut faults, &Path::new("selector"), selector, false);
            !faults.0.is_empty()
        });
        self.faults(object, lax)
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::name_is_path_segment(name, prefix)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        if self.cluster { columns::CLUSTERROLES } else { columns::ROLES }
    }

    fn row(&self, object: &Value, _: jiff::Timestamp) -> Vec<Value> {
        vec![table::name(object), table::created(object)]
    }
}

impl Roles {
    /// With `lax` the values of selectors may be none of labels.
    fn faults(&self, object: &Value, lax: bool) -> Faults {
        let mut faults = Faults::default();
        let rules = Path::new("rules");
        for (i, rule) in object.list("rules").iter().enumerate() {
            policy_rule(&mut faults, &rules.index(i), rule, self.cluster);
        }
        if let Some(aggregation) = object.opt("aggregationRule") {
            let rule = Path::new("aggregationRule");
            let path = rule.child("clusterRoleSelectors");
            let selectors = aggregation.list("clusterRoleSelectors");
            if selectors.is_empty() {
                faults.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
            }
            for (i, selector) in selectors.iter().enumerate() {
                check::label_selector(&mut faults, &path.index(i), selector, lax);
                if !check::selector_compiles(selector) {
                    faults.invalid(&path.index(i), &Value::Null, "invalid label selector.");
                }
            }
        }
        faults
    }
}

fn policy_rule(faults: &mut Faults, path: &Path<'_>, rule: &Value, cluster: bool) {
    let listed = |key: &str| !rule.list(key).is_empty();
    if !listed("verbs") {
        faults.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    if listed("nonResourceURLs") {
        let at = path.child("nonResourceURLs");
        if !cluster {
            faults.invalid(&at, &rule["nonResourceURLs"], "namespaced rules cannot apply to non-resource URLs");
        }
        if listed("apiGroups") || listed("resources") || listed("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            faults.invalid(&at, &rule["nonResourceURLs"], detail);
        }
        return;
    }
    if !listed("apiGroups") {
        faults.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if !listed("resources") {
        faults.required(&path.child("resources"), "resource rules must supply at least one resource");
    }
}

/// `RoleBinding` or, when `cluster` is set, `ClusterRoleBinding`.
pub(crate) struct RoleBindings {
    pub(crate) cluster: bool,
}

impl Strategy for RoleBindings {
    fn default(&self, object: &mut Value) {
        object.object("roleRef").default_to("apiGroup", GROUP);
        for subject in object.items("subjects") {
            if !subject.has("apiGroup") || subject.text("apiGroup").is_empty() {
                match subject.text("kind") {
                    "User" | "Group" => subject.put("apiGroup", GROUP),
                    _ => subject.drop_key("apiGroup"),
                }
            }
        }
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let reference = &object["roleRef"];
        let path = Path::new("roleRef");
        check::one_of(&mut faults, &path.child("apiGroup"), reference.text("apiGroup"), &[GROUP]);
        let kinds: &[&str] = if self.cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
        check::one_of(&mut faults, &path.child("kind"), reference.text("kind"), kinds);
        let name = reference.text("name");
        if name.is_empty() {
            faults.required(&path.child("name"), "");
        } else {
            let wrong = names::name_is_path_segment(name, false);
            check::invalid_each(&mut faults, &path.child("name"), name, wrong);
        }
        let path = Path::new("subjects");
        for (i, subject) in object.list("subjects").iter().enumerate() {
            self.subject(&mut faults, &path.index(i), subject);
        }
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = self.validate(object, ctx);
        if object["roleRef"] != old["roleRef"] {
            let shown = internal::shown("RoleRef", &object["roleRef"]);
            check::invalid_shown(&mut faults, &Path::new("roleRef"), &shown, "cannot change roleRef");
        }
        faults
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::name_is_path_segment(name, prefix)
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        if self.cluster { columns::CLUSTERROLEBINDINGS } else { columns::ROLEBINDINGS }
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let reference = &object["roleRef"];
        let of_kind = |kind: &str| {
            let names = object.list("subjects").iter().filter(|subject| subject.text("kind") == kind);
            let shown = names.map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", subject.text("namespace"), subject.text("name")),
                _ => subject.text("name").to_owned(),
            });
            json!(shown.collect::<Vec<_>>().join(", "))
        };
        vec![
            table::name(object),
            format!("{}/{}", reference.text("kind"), reference.text("name")).into(),
            table::age(object, now),
            of_kind("User"),
            of_kind("Group"),
            of_kind("ServiceAccount"),
        ]
    }
}

impl RoleBindings {
    fn subject(&self, faults: &mut Faults, path: &Path<'_>, subject: &Value) {
        let (name, group) = (subject.text("name"), subject.text("apiGroup"));
        if name.is_empty() {
            faults.required(&path.child("name"), "");
        }
        match subject.text("kind") {
            "ServiceAccount" => {
                if !name.is_empty() {
                    check::dns_subdomain(faults, &path.child("name"), name);
                }
                if !group.is_empty() {
                    faults.not_supported(&path.child("apiGroup"), group, &[""]);
                }
                // A binding in a namespace may leave it out: its own is meant.
                if self.cluster && subject.text("namespace").is_empty() {
                    faults.required(&path.child("namespace"), "");
                }
            }
            "User" | "Group" => check::one_of(faults, &path.child("apiGroup"), group, &[GROUP]),
            other => faults.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
        }
    }
}
