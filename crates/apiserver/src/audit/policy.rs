//! The audit policy (`audit.k8s.io/v1 Policy`): the first rule that fits a request says how much is recorded.

use std::path::Path;

use serde::Deserialize;

use super::AuditError;
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
    omit_stages: Vec<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "what is omitted from bodies; bodies are not recorded")]
    omit_managed_fields: bool,
}

/// How much is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
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
    omit_stages: Vec<String>,
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

    /// How much is recorded of a request, and whether this stage is.
    pub(super) fn decide(&self, user: Option<&User>, info: &RequestInfo, stage: &str) -> (Level, bool) {
        match self.rules.iter().find(|rule| rule.fits(user, info)) {
            Some(rule) => (rule.level, !self.omit_stages.iter().chain(&rule.omit_stages).any(|omitted| omitted == stage)),
            None => (Level::None, false),
        }
    }

    #[cfg(test)]
    fn level(&self, user: Option<&User>, info: &RequestInfo) -> Level {
        self.decide(user, info, "ResponseComplete").0
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
        if info.is_resource {
            if self.resources.is_empty() && self.namespaces.is_empty() {
                return self.paths.is_empty();
            }
            let namespace = self.namespaces.is_empty() || self.namespaces.contains(&info.namespace);
            return namespace && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.have(info)));
        }
        if self.paths.is_empty() {
            return self.resources.is_empty() && self.namespaces.is_empty();
        }
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => info.path.starts_with(start),
            None => *pattern == info.path,
        };
        self.paths.iter().any(fits)
    }
}

impl Resources {
    fn have(&self, info: &RequestInfo) -> bool {
        let named = self.resource_names.is_empty() || self.resource_names.contains(&info.name);
        let fits = |pattern: &String| match pattern.split_once('/') {
            Some((resource, sub)) => {
                !info.subresource.is_empty()
                    && (resource == "*" || resource == info.resource)
                    && (sub == "*" || sub == info.subresource)
            }
            None => pattern == "*" || (*pattern == info.resource && info.subresource.is_empty()),
        };
        self.group == info.group && named && (self.resources.is_empty() || self.resources.iter().any(fits))
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
        let recorded = |verb, stage| policy.decide(None, &resource(verb, "pods", ""), stage).1;
        assert!(!recorded("get", "ResponseComplete") && !recorded("get", "RequestReceived"));
        assert!(recorded("list", "ResponseComplete") && !recorded("list", "RequestReceived"));
        assert!(Policy::parse("apiVersion: v1\nkind: Policy\nrules: []").is_err());
    }
}
