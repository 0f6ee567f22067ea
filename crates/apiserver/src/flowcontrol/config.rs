//! Flow schemas and priority levels as they are configured, and which request belongs where.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde::Deserialize;

use super::metrics::{FlowMetrics, SchemaMetrics};
use super::queues::{Level, Shape};
use crate::cache::Entry;
use crate::request::RequestInfo;
use crate::user::User;

pub(super) const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// All schemas in order of precedence, and the levels they lead to.
#[derive(Default)]
pub(super) struct Plan {
    /// Revisions of the newest changes that are in here.
    pub(super) seen: [u64; 2],
    schemas: Vec<Schema>,
    levels: HashMap<String, Arc<Level>>,
}

/// A flow schema.
pub(super) struct Schema {
    pub(super) uid: Arc<str>,
    pub(super) name: Arc<str>,
    spec: SchemaSpec,
    pub(super) metrics: SchemaMetrics,
}

#[derive(Deserialize)]
struct Object<S> {
    spec: S,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaSpec {
    priority_level_configuration: Named,
    #[serde(default)]
    matching_precedence: i64,
    #[serde(default)]
    distinguisher_method: Option<Typed>,
    #[serde(default)]
    rules: Vec<Rules>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rules {
    #[serde(default)]
    subjects: Vec<Subject>,
    #[serde(default)]
    resource_rules: Vec<ResourceRule>,
    #[serde(default)]
    non_resource_rules: Vec<PathRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subject {
    kind: String,
    user: Option<Named>,
    group: Option<Named>,
    service_account: Option<Account>,
}

#[derive(Deserialize)]
struct Account {
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Deserialize)]
struct PathRule {
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs", default)]
    paths: Vec<String>,
}

#[derive(Deserialize)]
struct LevelSpec {
    #[serde(rename = "type", default)]
    kind: String,
    limited: Option<Limited>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Limited {
    nominal_concurrency_shares: Option<u64>,
    lendable_percent: Option<u64>,
    borrowing_limit_percent: Option<u64>,
    limit_response: Option<LimitResponse>,
}

#[derive(Deserialize)]
struct LimitResponse {
    queuing: Option<Queuing>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queuing {
    #[serde(default)]
    queues: usize,
    #[serde(default)]
    hand_size: usize,
    #[serde(default)]
    queue_length_limit: usize,
}

/// Shares of a level that says nothing of them.
const DEFAULT_SHARES: u64 = 30;

impl Plan {
    /// The plan that these objects make. Levels that were there before go on with who is in them.
    pub(super) fn next(
        &self,
        seen: [u64; 2],
        schemas: &[Arc<Entry>],
        levels: &[Arc<Entry>],
        seats: usize,
        metrics: &FlowMetrics,
    ) -> Self {
        let levels: Vec<(&Arc<Entry>, LevelSpec)> =
            levels.iter().filter_map(|entry| Some((entry, entry.parse::<Object<LevelSpec>>().ok()?.spec))).collect();
        let total: u64 = levels.iter().filter_map(|(_, spec)| spec.shares()).sum();
        let made = levels.iter().map(|(entry, spec)| {
            let shape = spec.shape(seats as u64, total.max(1));
            let name = entry.name.to_string();
            let level = match self.levels.get(&name).filter(|level| *level.uid == *entry.uid) {
                Some(level) => {
                    level.reshape(shape);
                    level.clone()
                }
                None => Arc::new(Level::new(&name, &entry.uid, shape)),
            };
            (name, level)
        });
        let levels = made.collect();
        let mut schemas: Vec<Schema> = schemas
            .iter()
            .filter_map(|entry| {
                let spec = entry.parse::<Object<SchemaSpec>>().ok()?.spec;
                let metrics = metrics.of(&entry.name, &spec.priority_level_configuration.name);
                Some(Schema { uid: (*entry.uid).into(), name: (*entry.name).into(), spec, metrics })
            })
            .collect();
        schemas.sort_by(|a, b| (a.spec.matching_precedence, &a.name).cmp(&(b.spec.matching_precedence, &b.name)));
        Self { seen, schemas, levels }
    }

    /// All levels.
    pub(super) fn levels(&self) -> impl Iterator<Item = &Arc<Level>> {
        self.levels.values()
    }

    /// The first schema that takes a request, and its level.
    pub(super) fn classify(&self, user: &User, info: &RequestInfo) -> Option<(&Schema, &Arc<Level>)> {
        self.schemas.iter().find_map(|schema| {
            let takes = schema.spec.rules.iter().any(|rules| rules.take(user, info));
            let level = self.levels.get(&schema.spec.priority_level_configuration.name)?;
            takes.then_some((schema, level))
        })
    }
}

impl Schema {
    /// What tells one flow from another within the schema; as a number of all schemas, and as text.
    pub(super) fn flow<'a>(&self, user: &'a User, info: &'a RequestInfo) -> (u64, &'a str) {
        let text = match self.spec.distinguisher_method.as_ref().map(|method| method.kind.as_str()) {
            Some("ByUser") => user.name.as_str(),
            Some("ByNamespace") => info.namespace.as_str(),
            _ => "",
        };
        let mut hasher = DefaultHasher::new();
        (&self.name, text).hash(&mut hasher);
        (hasher.finish(), text)
    }
}

impl LevelSpec {
    fn shares(&self) -> Option<u64> {
        let limited = self.limited.as_ref().filter(|_| self.kind != "Exempt")?;
        Some(limited.nominal_concurrency_shares.unwrap_or(DEFAULT_SHARES))
    }

    fn shape(&self, seats: u64, total: u64) -> Shape {
        let queuing = self.limited.as_ref().and_then(|limited| limited.limit_response.as_ref()?.queuing.as_ref());
        let count = |seats: u64| usize::try_from(seats).unwrap_or(usize::MAX);
        let nominal = self.shares().map(|shares| (seats * shares).div_ceil(total));
        let percent = |of: fn(&Limited) -> Option<u64>| self.limited.as_ref().and_then(of);
        let own = nominal.unwrap_or_default();
        let lendable = (own * percent(|limited| limited.lendable_percent).unwrap_or(0) + 50) / 100;
        let most = match percent(|limited| limited.borrowing_limit_percent) {
            Some(percent) => own + (own * percent + 50) / 100,
            None => seats,
        };
        let (queues, hand, length) =
            queuing.map_or((0, 0, 0), |queuing| (queuing.queues, queuing.hand_size, queuing.queue_length_limit));
        Shape {
            seats: nominal.map(count),
            least: count(own.saturating_sub(lendable)),
            most: count(most.max(own)),
            queues,
            hand,
            length,
        }
    }
}

impl Rules {
    fn take(&self, user: &User, info: &RequestInfo) -> bool {
        self.subjects.iter().any(|subject| subject.is(user))
            && match info.is_resource {
                true => self.resource_rules.iter().any(|rule| rule.takes(info)),
                false => self.non_resource_rules.iter().any(|rule| rule.takes(info)),
            }
    }
}

impl Subject {
    fn is(&self, user: &User) -> bool {
        match (self.kind.as_str(), &self.user, &self.group, &self.service_account) {
            ("User", Some(named), ..) => named.name == "*" || named.name == user.name,
            ("Group", _, Some(group), _) => group.name == "*" || user.is_in(&group.name),
            ("ServiceAccount", .., Some(account)) => user
                .service_account()
                .is_some_and(|(namespace, name)| account.namespace == namespace && (account.name == "*" || account.name == name)),
            _ => false,
        }
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl ResourceRule {
    fn takes(&self, info: &RequestInfo) -> bool {
        let resource = match info.subresource.as_str() {
            "" => info.resource.clone(),
            sub => format!("{}/{sub}", info.resource),
        };
        let scope = if info.namespace.is_empty() { self.cluster_scope } else { has(&self.namespaces, &info.namespace) };
        scope && has(&self.verbs, &info.verb) && has(&self.api_groups, &info.group) && has(&self.resources, &resource)
    }
}

impl PathRule {
    fn takes(&self, info: &RequestInfo) -> bool {
        let path = |pattern: &String| match pattern.strip_suffix("/*") {
            _ if pattern == "*" || *pattern == info.path => true,
            Some(start) => info.path.strip_prefix(start).is_some_and(|rest| rest.starts_with('/')),
            None => false,
        };
        has(&self.verbs, &info.verb) && self.paths.iter().any(path)
    }
}
