//! The audit policy (`audit.k8s.io/v1 Policy`): the first rule that fits a request says how much is recorded.

use std::path::Path;

use serde::Deserialize;

use super::AuditError;
use super::event::Stage;
use crate::request::RequestInfo;
use crate::user::User;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Policy {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "a policy may have metadata, and none of it matters")]
    metadata: serde_json::Value,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

/// What is recorded of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recording {
    /// How much.
    pub(super) level: Level,
    /// Stages without an event.
    pub(super) omitted: Vec<Stage>,
    /// Whether bodies are shown without the owners of their fields.
    pub(super) omit_managed_fields: bool,
}

/// How much is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
    /// Stages that are omitted besides those of the policy.
    #[serde(default)]
    omit_stages: Vec<Stage>,
    /// Instead of what the policy says.
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

impl Policy {
    pub(super) fn read(path: &Path) -> Result<Self, AuditError> {
        let text = std::fs::read_to_string(path).map_err(|source| AuditError::Open { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|why| AuditError::Policy { path: path.to_owned(), why })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = serde_yaml_ng::from_str(text).map_err(|err| err.to_string())?;
        match (policy.kind.as_str(), policy.api_version.as_str()) {
            ("Policy", "audit.k8s.io/v1") if !policy.rules.is_empty() => Ok(policy),
            ("Policy", "audit.k8s.io/v1") => Err("it has no rules".into()),
            (kind, version) => Err(format!("it is a {kind} of {version}")),
        }
    }

    /// What is recorded of a request.
    pub(super) fn decide(&self, user: Option<&User>, info: &RequestInfo) -> Recording {
        let rule = self.rules.iter().find(|rule| rule.fits(user, info));
        let further = rule.map(|rule| rule.omit_stages.as_slice()).unwrap_or_default();
        Recording {
            level: rule.map_or(Level::None, |rule| rule.level),
            omitted: self.omit_stages.iter().chain(further).copied().collect(),
            omit_managed_fields: rule.and_then(|rule| rule.omit_managed_fields).unwrap_or(self.omit_managed_fields),
        }
    }

    #[cfg(test)]
    fn level(&self, user: Option<&User>, info: &RequestInfo) -> Level {
        self.decide(user, info).level
    }
}

impl Level {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

impl Rule {
    fn fits(&self, user: Option<&User>, info: &RequestInfo) -> bool {
        let open_or = |list: &[String], holds: bool| list.is_empty() || holds;
        let named = user.is_some_and(|user| self.users.contains(&user.name));
        let member = user.is_some_and(|user| self.user_groups.iter().any(|group| user.is_in(group)));
        open_or(&self.users, named)
            && open_or(&self.user_groups, member)
            && open_or(&self.verbs, self.verbs.contains(&info.verb))
            && self.about(info)
    }

    fn about(&self, info: &RequestInfo) -> bool {
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            let namespace = self.namespaces.is_empty() || self.namespaces.contains(&info.namespace);
            let resource = || self.resources.is_empty() || self.resources.iter().any(|resources| resources.have(info));
            return info.is_resource && namespace && resource();
        }
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => info.path.starts_with(start),
            None => *pattern == info.path,
        };
        self.paths.is_empty() || (!info.is_resource && self.paths.iter().any(fits))
    }
}

impl Resources {
    fn have(&self, info: &RequestInfo) -> bool {
        let named = self.resource_names.is_empty() || self.resource_names.contains(&info.name);
        let fits = |pattern: &String| match pattern.split_once('/') {
            // All subresources of a resource, and with them itself.
            Some((resource, "*")) => resource == info.resource,
            Some((resource, sub)) => sub == info.subresource && !sub.is_empty() && (resource == "*" || resource == info.resource),
            None => pattern == "*" || (*pattern == info.resource && info.subresource.is_empty()),
        };
        (self.group == info.group || self.group == "*")
            && (self.resources.is_empty() || (named && self.resources.iter().any(fits)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_counts() {
        let policy = Policy::parse(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n\
             - {level: None, users: [system:kube-proxy], verbs: [watch]}\n\
             - {level: None, nonResourceURLs: [/healthz*]}\n\
             - {level: Metadata, resources: [{group: '', resources: [secrets, pods/log]}]}\n\
             - {level: Request}\n",
        )
        .unwrap();
        let resource = |verb: &str, resource: &str, sub: &str| RequestInfo {
            is_resource: true,
            verb: verb.into(),
            resource: resource.into(),
            subresource: sub.into(),
            ..RequestInfo::default()
        };
        let path = RequestInfo { path: "/healthz/x".into(), verb: "get".into(), ..RequestInfo::default() };
        let (proxy, alice) = (User::new("system:kube-proxy", &[]), User::new("alice", &[]));
        assert_eq!(policy.level(Some(&proxy), &resource("watch", "services", "")), Level::None);
        assert_eq!(policy.level(Some(&alice), &path), Level::None);
        assert_eq!(policy.level(Some(&alice), &resource("get", "secrets", "")), Level::Metadata);
        assert_eq!(policy.level(Some(&alice), &resource("get", "pods", "log")), Level::Metadata);
        assert_eq!(policy.level(None, &resource("get", "pods", "")), Level::Request);
        let policy = Policy::parse(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
             - {level: Metadata, verbs: [get], omitStages: [ResponseComplete]}\n- {level: Metadata}\n",
        )
        .unwrap();
        let recorded = |verb, stage| !policy.decide(None, &resource(verb, "pods", "")).omitted.contains(&stage);
        assert!(!recorded("get", Stage::ResponseComplete) && !recorded("get", Stage::RequestReceived));
        assert!(recorded("list", Stage::ResponseComplete) && !recorded("list", Stage::RequestReceived));
        assert!(Policy::parse("apiVersion: v1\nkind: Policy\nrules: []").is_err());
    }

    #[test]
    #[rustfmt::skip]
    fn resources_are_named_with_wildcards() {
        check("{group: '*', resources: [pods]}",                    "pods",    "",       "a", true);
        check("{group: '', resources: ['*']}",                      "pods",    "status", "a", true);
        check("{group: '', resources: ['pods/*']}",                 "pods",    "status", "a", true);
        check("{group: '', resources: ['pods/*']}",                 "pods",    "",       "a", true);
        check("{group: '', resources: ['pods/*']}",                 "secrets", "status", "a", false);
        check("{group: '', resources: ['*/status']}",               "pods",    "status", "a", true);
        check("{group: '', resources: ['*/status']}",               "pods",    "",       "a", false);
        check("{group: '', resources: [pods]}",                     "pods",    "log",    "a", false);
        check("{group: apps}",                                      "pods",    "",       "a", false);
        check("{group: '', resources: [pods], resourceNames: [b]}", "pods",    "",       "a", false);
        check("{group: '', resources: [pods], resourceNames: [a]}", "pods",    "",       "a", true);
        check("{group: ''}",                                        "pods",    "log",    "a", true);
        #[track_caller]
        fn check(resources: &str, resource: &str, sub: &str, name: &str, expected: bool) {
            let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{{level: Request, resources: [{resources}]}}]");
            let info = RequestInfo {
                is_resource: true,
                resource: resource.into(),
                subresource: sub.into(),
                name: name.into(),
                ..RequestInfo::default()
            };
            assert_eq!(Policy::parse(&text).unwrap().level(None, &info) == Level::Request, expected, "{resources}");
        }
    }

    #[test]
    fn a_rule_says_whether_owners_of_fields_are_shown() {
        let policy = Policy::parse(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitManagedFields: true\nrules:\n\
             - {level: Request, verbs: [get], omitManagedFields: false}\n- {level: Request}\n",
        )
        .unwrap();
        let omits =
            |verb: &str| policy.decide(None, &RequestInfo { verb: verb.into(), ..RequestInfo::default() }).omit_managed_fields;
        assert!(!omits("get") && omits("list"));
        let unknown = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [Nope]\nrules: [{level: Request}]";
        assert!(Policy::parse(unknown).is_err());
    }
}
