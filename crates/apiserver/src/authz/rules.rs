//! What an RBAC rule allows, whether rules cover others, and how upstream prints them. Pure functions.

use serde::{Deserialize, Serialize};

use super::{Attributes, combined};

/// `rbac.authorization.k8s.io/v1.PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// Verbs; `*` is all.
    #[serde(deserialize_with = "list")]
    pub verbs: Vec<String>,
    /// API groups; `*` is all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub api_groups: Vec<String>,
    /// Resources and subresources; `*` is all, `*/scale` one subresource of all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub resources: Vec<String>,
    /// Names; empty is all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub resource_names: Vec<String>,
    /// Paths; a `*` at the end is any continuation.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub non_resource_urls: Vec<String>,
}

/// `null` is an empty list.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl PolicyRule {
    /// The two rules that allow everything.
    #[must_use]
    pub fn everything() -> [Self; 2] {
        let all = || vec!["*".to_owned()];
        [
            Self { verbs: all(), api_groups: all(), resources: all(), ..Self::default() },
            Self { verbs: all(), non_resource_urls: all(), ..Self::default() },
        ]
    }

    /// Whether the rule allows this.
    #[must_use]
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        if !has(&self.verbs, a.verb) {
            return false;
        }
        if !a.is_resource {
            return self.non_resource_urls.iter().any(|pattern| path_matches(pattern, a.path));
        }
        has(&self.api_groups, a.group)
            && self.resources.iter().any(|resource| resource_matches(resource, a.resource, a.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == a.name))
    }

    /// Whether everything that `part`, a rule of one of each, allows is allowed by this rule.
    fn covers(&self, part: &Self) -> bool {
        let all = |mine: &[String], theirs: &[String]| theirs.iter().all(|one| has(mine, one));
        if !all(&self.verbs, &part.verbs) {
            return false;
        }
        if !part.non_resource_urls.is_empty() {
            let covered = |url: &String| self.non_resource_urls.iter().any(|pattern| path_matches(pattern, url));
            return part.non_resource_urls.iter().all(covered);
        }
        let names = self.resource_names.is_empty()
            || (!part.resource_names.is_empty() && part.resource_names.iter().all(|name| self.resource_names.contains(name)));
        let resource = |wanted: &String| {
            let (resource, subresource) = wanted.split_once('/').unwrap_or((wanted, ""));
            self.resources.iter().any(|mine| resource_matches(mine, resource, subresource))
        };
        all(&self.api_groups, &part.api_groups) && part.resources.iter().all(resource) && names
    }

    /// The rule as rules of one group, resource, name and verb (or one path and verb) each.
    fn parts(&self) -> Vec<Self> {
        let mut parts = Vec::new();
        let one = |text: &String| vec![text.clone()];
        for group in &self.api_groups {
            for resource in &self.resources {
                let names: Vec<Vec<String>> = match self.resource_names.is_empty() {
                    true => vec![Vec::new()],
                    false => self.resource_names.iter().map(one).collect(),
                };
                for verb in &self.verbs {
                    for name in &names {
                        parts.push(Self {
                            verbs: one(verb),
                            api_groups: one(group),
                            resources: one(resource),
                            resource_names: name.clone(),
                            non_resource_urls: Vec::new(),
                        });
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            for verb in &self.verbs {
                parts.push(Self { verbs: one(verb), non_resource_urls: one(url), ..Self::default() });
            }
        }
        parts
    }

    /// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`
    fn describe(&self) -> String {
        let shown = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown = shown.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| format!("{name}:{}", quoted(list)));
        format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
    }
}

/// What of `wanted` is not covered by `held`, in parts.
#[must_use]
pub fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let parts = wanted.iter().flat_map(PolicyRule::parts);
    parts.filter(|part| !held.iter().any(|rule| rule.covers(part))).collect()
}

/// Parts as lines, the verbs of one group, resource and name together, sorted.
#[must_use]
pub fn describe(parts: &[PolicyRule]) -> String {
    let mut merged: Vec<PolicyRule> = Vec::new();
    for part in parts {
        let same = |rule: &&mut PolicyRule| {
            rule.non_resource_urls.is_empty()
                && part.non_resource_urls.is_empty()
                && rule.api_groups == part.api_groups
                && rule.resources == part.resources
                && rule.resource_names == part.resource_names
        };
        match merged.iter_mut().find(same) {
            Some(rule) => rule.verbs.extend(part.verbs.iter().cloned()),
            None => merged.push(part.clone()),
        }
    }
    let mut lines: Vec<_> = merged.iter().map(PolicyRule::describe).collect();
    lines.sort_unstable();
    lines.dedup();
    lines.join("\n")
}

/// A list as Go's `%q` prints it: `["a" "b"]`.
#[must_use]
pub fn quoted(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" "))
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    if subresource.is_empty() {
        return pattern == resource;
    }
    match pattern.split_once('/') {
        Some((first, second)) => (first == "*" || first == resource) && second == subresource,
        // A name with a slash that is no subresource, as `resources: ["a/b/c"]`, matches as a whole.
        None => pattern == combined(resource, subresource),
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == "*" || pattern == path || pattern.strip_suffix('*').is_some_and(|start| path.starts_with(start))
}
