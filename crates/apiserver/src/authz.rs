//! Authorization: may this user do this. The modes of the configuration are asked in order (`Node`, `RBAC`, `AlwaysAllow`,
//! `AlwaysDeny`); members of `system:masters` may do everything whatever the modes say.

pub mod escalation;
mod impersonation;
mod metrics;
mod node;
mod rbac;
pub mod rules;

use std::time::Instant;

use http::HeaderMap;
use prometheus::IntCounter;

use corten_api::status::Status;

use crate::config::Config;
use crate::metrics::counters;
use crate::proof::{Authenticated, Authorized};
use crate::reader::Reader;
use crate::request::RequestInfo;
use crate::user::{MASTERS, User};

use metrics::Impersonations;
use rbac::Rbac;
use rules::PolicyRule;

/// Decides by the modes of the configuration.
pub struct Authorizer {
    modes: Vec<(Mode, Decided)>,
    rbac: Rbac,
    node: node::Nodes,
    impersonations: Impersonations,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Node,
    Rbac,
    AlwaysAllow,
    AlwaysDeny,
}

/// How often a mode had the last word.
struct Decided {
    allowed: IntCounter,
    denied: IntCounter,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a User,
    /// The verb, in lower case.
    pub verb: &'a str,
    /// Whether it is about a resource; otherwise only `verb` and `path` count.
    pub is_resource: bool,
    /// API group.
    pub group: &'a str,
    /// Plural name.
    pub resource: &'a str,
    /// Subresource, empty for none.
    pub subresource: &'a str,
    /// Namespace, empty for all or none.
    pub namespace: &'a str,
    /// Name, empty for a collection.
    pub name: &'a str,
    /// URL path of what is no resource.
    pub path: &'a str,
    /// The field selector of a collection.
    pub field_selector: &'a str,
}

/// What one mode, or all of them, say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why.
    Allow(String),
    /// No, whatever others say, and why.
    Deny(String),
    /// Not known here, and why; in the end that is a no.
    NoOpinion(String),
}

impl Authorizer {
    /// An authorizer that reads roles and bindings through `reader`.
    #[must_use]
    pub fn new(config: &Config, reader: &Reader, registry: &prometheus::Registry) -> Self {
        let decisions = counters(
            registry,
            "apiserver_authorization_decisions_total",
            "Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision.",
            &["type", "name", "decision"],
        );
        let modes = config.authorization_mode.iter().filter_map(|kind| {
            let mode = match kind.as_str() {
                "Node" => Mode::Node,
                "RBAC" => Mode::Rbac,
                "AlwaysAllow" => Mode::AlwaysAllow,
                "AlwaysDeny" => Mode::AlwaysDeny,
                other => {
                    tracing::warn!(mode = other, "unknown authorization mode, left out");
                    return None;
                }
            };
            let name = kind.to_ascii_lowercase();
            let counter = |decision: &str| decisions.with_label_values(&[kind, &name, decision]);
            Some((mode, Decided { allowed: counter("allowed"), denied: counter("denied") }))
        });
        Self {
            modes: modes.collect(),
            rbac: Rbac::new(reader.clone()),
            node: node::Nodes::new(reader.clone()),
            impersonations: Impersonations::new(registry),
        }
    }

    /// The request in the name that `Impersonate-*` headers ask for, when the sender may do that.
    ///
    /// # Errors
    /// 403 when the sender may not, 400 when the headers make no sense.
    pub async fn impersonate(
        &self,
        who: Authenticated,
        headers: &HeaderMap,
        info: &RequestInfo,
    ) -> Result<Authenticated, Status> {
        match impersonation::wanted(headers)? {
            None => Ok(who),
            Some(wanted) => {
                let started = Instant::now();
                let outcome = impersonation::check(self, who.user(), &wanted, info);
                let mode = outcome.as_ref().ok().map(|(_, mode)| mode.label());
                self.impersonations.attempted(mode, started.elapsed());
                let (user, mode) = outcome?;
                Ok(who.impersonate(user, mode.verb()))
            }
        }
    }

    /// Proof that the user may do this, or 403.
    ///
    /// # Errors
    /// 403 in upstream's words.
    pub async fn authorize(&self, who: Authenticated, info: RequestInfo) -> Result<Authorized, Status> {
        self.judge(who, info).map_err(|denied| denied.status)
    }

    /// Proof that the user may do this, or why not.
    ///
    /// # Errors
    /// When the user may not.
    pub fn judge(&self, who: Authenticated, info: RequestInfo) -> Result<Authorized, Denied> {
        match self.decide(&Attributes::of(who.user(), &info)) {
            Decision::Allow(reason) => Ok(Authorized::new(who, info, reason)),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                Err(Denied { status: forbidden(&Attributes::of(who.user(), &info), &reason), reason })
            }
        }
    }

    /// What the modes say, in order: the first yes or no counts.
    #[must_use]
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for (mode, decided) in &self.modes {
            let decision = match mode {
                Mode::Node => self.node.decide(attributes, &self.rbac),
                Mode::Rbac => self.rbac.decide(attributes),
                Mode::AlwaysAllow => Decision::Allow(String::new()),
                Mode::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".to_owned()),
            };
            match decision {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                Decision::Allow(reason) => {
                    decided.allowed.inc();
                    return Decision::Allow(reason);
                }
                Decision::Deny(reason) => {
                    decided.denied.inc();
                    return Decision::Deny(reason);
                }
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// Whether the user may do this.
    #[must_use]
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        matches!(self.decide(attributes), Decision::Allow(_))
    }

    /// Every rule that applies to a user in a namespace, with what kept the list from being complete.
    #[must_use]
    pub fn rules_for(&self, user: &User, namespace: &str) -> RulesFor {
        let mut found = RulesFor::default();
        for (mode, _) in &self.modes {
            match mode {
                Mode::Node if node::name_of(user).is_some() => {
                    found.errors.push("node authorizer does not support user rule resolution".to_owned());
                    found.incomplete = true;
                }
                Mode::Rbac => {
                    let (rules, errors) = self.rbac.rules_for(user, namespace);
                    found.rules.extend(rules);
                    found.errors.extend(errors);
                }
                Mode::AlwaysAllow => found.rules.extend(PolicyRule::everything()),
                Mode::Node | Mode::AlwaysDeny => {}
            }
        }
        found
    }
}

/// The rules that apply to a user, for SelfSubjectRulesReview.
#[derive(Clone, Debug, Default)]
pub struct RulesFor {
    /// The rules, in the order of their bindings.
    pub rules: Vec<PolicyRule>,
    /// What went wrong on the way: some may be missing.
    pub errors: Vec<String>,
    /// Whether an authorizer cannot list rules at all.
    pub incomplete: bool,
}

impl<'a> Attributes<'a> {
    /// A request, in the name of `user`.
    #[must_use]
    pub fn of(user: &'a User, info: &'a RequestInfo) -> Self {
        Self {
            user,
            verb: &info.verb,
            is_resource: info.is_resource,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            field_selector: &info.field_selector,
        }
    }

    /// A verb on a resource at cluster scope.
    #[must_use]
    pub fn resource(user: &'a User, verb: &'a str, group: &'a str, resource: &'a str, name: &'a str) -> Self {
        Self {
            user,
            verb,
            is_resource: true,
            group,
            resource,
            subresource: "",
            namespace: "",
            name,
            path: "",
            field_selector: "",
        }
    }

    /// Whether the field selector demands `field=value`.
    fn selects(&self, field: &str, value: &str) -> bool {
        self.field_selector.split(',').any(|term| {
            let term = term.trim().strip_prefix(field).unwrap_or_default();
            term.strip_prefix("==").or_else(|| term.strip_prefix('=')) == Some(value)
        })
    }
}

/// A request that its sender may not make.
#[derive(Debug)]
pub struct Denied {
    /// 403 in upstream's words.
    pub status: Status,
    /// What the modes said, for audit; empty when none of them said anything.
    pub reason: String,
}

/// 403 `pods "x" is forbidden: User "alice" cannot get resource "pods" in API group "" in the namespace "default": reason`.
#[must_use]
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let mut why = sanitize(&refusal(attributes));
    if !reason.is_empty() {
        why.push_str(": ");
        why.push_str(reason);
    }
    let (group, resource, name) = match attributes.is_resource {
        true => (attributes.group, attributes.resource, attributes.name),
        false => ("", "", ""),
    };
    Status::forbidden(group, resource, name, &why)
}

fn refusal(a: &Attributes<'_>) -> String {
    let (user, verb) = (&a.user.name, a.verb);
    if !a.is_resource {
        return format!("User {user:?} cannot {verb} path {:?}", a.path);
    }
    let resource = combined(a.resource, a.subresource);
    if a.namespace.is_empty() {
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {:?} at the cluster scope", a.group)
    } else {
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {:?} in the namespace {:?}", a.group, a.namespace)
    }
}

/// `pods/log`, or `pods`.
fn combined(resource: &str, subresource: &str) -> String {
    if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") }
}

/// A refusal must not look like HTML to a browser: it repeats what the client sent.
fn sanitize(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests;
