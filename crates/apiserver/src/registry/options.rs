//! The options of requests, from the query string and, for deletions, from the body: parsed once, checked with
//! upstream's rules and words.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use corten_api::field::{Fault, FaultKind, Faults, Path};
use corten_api::selector::{FieldSelector, LabelSelector};
use corten_api::status::Status;

use crate::request::{Query, RequestInfo};

/// Bytes of a field manager's name.
const LONGEST_MANAGER: usize = 128;

/// `ListOptions`, for lists, watches and collection deletions.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    pub watch: bool,
    pub bookmarks: bool,
    pub resource_version: String,
    pub version_match: String,
    pub timeout: Option<i64>,
    pub limit: i64,
    pub continuation: String,
    pub initial_events: Option<bool>,
}

impl ListOptions {
    /// Reads and checks the options. `path_watch` is the deprecated `/watch/` prefix, which leaves the query's `watch` alone.
    pub(crate) fn parse(query: &Query, info: &RequestInfo) -> Result<Self, Status> {
        let bad = |err: &dyn std::fmt::Display| Status::bad_request(err.to_string());
        // Numbers are read first, selectors when all else is understood: the first fault is the one that is told.
        let (timeout, limit) = (integer(query, "timeoutSeconds")?, integer(query, "limit")?);
        let mut options = Self {
            labels: LabelSelector::parse(query.text("labelSelector")).map_err(|err| bad(&err))?,
            fields: FieldSelector::parse(query.text("fieldSelector")).map_err(|err| bad(&err))?,
            watch: boolean(query, "watch")?.unwrap_or(false),
            bookmarks: boolean(query, "allowWatchBookmarks")?.unwrap_or(false),
            resource_version: query.text("resourceVersion").to_owned(),
            version_match: query.text("resourceVersionMatch").to_owned(),
            timeout,
            limit: limit.unwrap_or(0),
            continuation: query.text("continue").to_owned(),
            initial_events: boolean(query, "sendInitialEvents")?,
        };
        options.default();
        options.check()?;
        options.narrow_to(&info.name)?;
        Ok(options)
    }

    /// A watch that names no revision starts with the objects there are, and says where these end (KEP-3157).
    fn default(&mut self) {
        let from_any = matches!(self.resource_version.as_str(), "" | "0");
        if self.watch && from_any && self.initial_events.is_none() && self.version_match.is_empty() {
            self.initial_events = Some(true);
            self.version_match = "NotOlderThan".into();
        }
    }

    fn check(&self) -> Result<(), Status> {
        let mut faults = Faults::default();
        let version_match = Path::new("resourceVersionMatch");
        let initial = Path::new("sendInitialEvents");
        if self.watch {
            if self.initial_events.is_some() && self.version_match != "NotOlderThan" {
                faults.forbidden(&version_match, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
            }
            if !self.version_match.is_empty() {
                if self.initial_events.is_none() {
                    let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                    faults.forbidden(&version_match, why);
                }
                if self.version_match != "NotOlderThan" {
                    faults.not_supported(&version_match, &self.version_match, &["NotOlderThan"]);
                }
                if !self.continuation.is_empty() {
                    faults.forbidden(&version_match, "resourceVersionMatch is forbidden when continue is provided");
                }
            }
        } else {
            if !self.version_match.is_empty() {
                if self.resource_version.is_empty() {
                    let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                    faults.forbidden(&version_match, why);
                }
                if !self.continuation.is_empty() {
                    faults.forbidden(&version_match, "resourceVersionMatch is forbidden when continue is provided");
                }
                if !matches!(self.version_match.as_str(), "Exact" | "NotOlderThan") {
                    faults.not_supported(&version_match, &self.version_match, &["Exact", "NotOlderThan", ""]);
                }
                if self.version_match == "Exact" && self.resource_version == "0" {
                    let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                    faults.forbidden(&version_match, why);
                }
            }
            if self.initial_events.is_some() {
                faults.forbidden(&initial, "sendInitialEvents is forbidden for list");
            }
        }
        refuse("ListOptions", &faults)
    }

    /// A name in the path is a field selector on `metadata.name`.
    fn narrow_to(&mut self, name: &str) -> Result<(), Status> {
        if name.is_empty() {
            return Ok(());
        }
        if self.fields.is_everything() {
            self.fields.terms.push(corten_api::selector::FieldTerm {
                field: "metadata.name".into(),
                equal: true,
                value: name.into(),
            });
        } else if self.fields.exact("metadata.name") != Some(name) {
            return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
        Ok(())
    }
}

/// The options of a create, an update or a patch.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub manager: Option<String>,
    pub validation: Validation,
    pub force: Option<bool>,
    /// As admission sees them: `CreateOptions`, `UpdateOptions`, `PatchOptions`.
    pub document: Value,
}

/// What happens to fields that the schema does not know, or that are there twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Validation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl WriteOptions {
    /// Reads and checks the options of the given kind (`CreateOptions`, …).
    pub(crate) fn parse(query: &Query, kind: &str, apply: bool) -> Result<Self, Status> {
        let force = boolean(query, "force")?;
        let dry_run: Vec<&str> = query.all("dryRun").collect();
        let manager = query.get("fieldManager");
        let validation = query.text("fieldValidation");
        let mut faults = Faults::default();
        if kind == "PatchOptions" {
            if !apply && force.is_some() {
                faults.forbidden(&Path::new("force"), "may not be specified for non-apply patch");
            }
            if apply && manager.is_none_or(str::is_empty) {
                faults.required(&Path::new("fieldManager"), "is required for apply patch");
            }
        }
        check_manager(&mut faults, manager.unwrap_or_default());
        check_dry_run(&mut faults, &dry_run);
        let validation = match validation {
            "" | "Warn" => Validation::Warn,
            "Ignore" => Validation::Ignore,
            "Strict" => Validation::Strict,
            other => {
                faults.not_supported(&Path::new("fieldValidation"), other, &["", "Ignore", "Strict", "Warn"]);
                Validation::Warn
            }
        };
        refuse(kind, &faults)?;
        let mut document = Map::new();
        document.insert("kind".into(), kind.into());
        document.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        if !dry_run.is_empty() {
            document.insert("dryRun".into(), json!(dry_run));
        }
        if let Some(manager) = manager.filter(|m| !m.is_empty()) {
            document.insert("fieldManager".into(), manager.into());
        }
        if let Some(validation) = query.get("fieldValidation").filter(|v| !v.is_empty()) {
            document.insert("fieldValidation".into(), validation.into());
        }
        if let Some(force) = force {
            document.insert("force".into(), force.into());
        }
        Ok(Self {
            dry_run: !dry_run.is_empty(),
            manager: manager.filter(|m| !m.is_empty()).map(str::to_owned),
            validation,
            force,
            document: document.into(),
        })
    }

    /// The name under which fields are owned: the one asked for, or what the User-Agent begins with.
    pub(crate) fn manager(&self, user_agent: &str) -> String {
        if let Some(manager) = &self.manager {
            return manager.clone();
        }
        let prefix = user_agent.split('/').next().unwrap_or_default();
        let mut printable = String::new();
        for c in prefix.chars().filter(|c| is_printable(*c)) {
            if printable.len() + c.len_utf8() > LONGEST_MANAGER {
                break;
            }
            printable.push(c);
        }
        if printable.is_empty() { "unknown".into() } else { printable }
    }
}

/// `DeleteOptions`, from the body or the query.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub grace: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub orphan: Option<bool>,
    pub propagation: Option<String>,
    pub dry_run: bool,
    pub document: Value,
}

impl DeleteOptions {
    /// The options in the query string.
    pub(crate) fn from_query(query: &Query) -> Result<Self, Status> {
        let mut document = Map::new();
        if let Some(grace) = integer(query, "gracePeriodSeconds")? {
            document.insert("gracePeriodSeconds".into(), grace.into());
        }
        if let Some(orphan) = boolean(query, "orphanDependents")? {
            document.insert("orphanDependents".into(), orphan.into());
        }
        if let Some(policy) = query.get("propagationPolicy") {
            document.insert("propagationPolicy".into(), policy.into());
        }
        let dry_run: Vec<&str> = query.all("dryRun").collect();
        if !dry_run.is_empty() {
            document.insert("dryRun".into(), json!(dry_run));
        }
        // The preconditions lie flat in a query, also of a collection, where the version is an option of the list besides.
        let flat = ["uid", "resourceVersion"].into_iter().filter(|name| !query.text(name).is_empty());
        let preconditions: Map<String, Value> = flat.map(|name| (name.to_owned(), query.text(name).into())).collect();
        if !preconditions.is_empty() {
            document.insert("preconditions".into(), preconditions.into());
        }
        Self::from_document(Value::Object(document))
    }

    /// The options of a `DeleteOptions` document.
    pub(crate) fn from_document(document: Value) -> Result<Self, Status> {
        let options = Self::unchecked(document);
        options.check()?;
        Ok(options)
    }

    /// The options of a document that is judged later: [`Self::check`].
    pub(crate) fn unchecked(document: Value) -> Self {
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let dry_run: Vec<&str> =
            document["dryRun"].as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
        Self {
            grace: document["gracePeriodSeconds"].as_i64(),
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            orphan: document["orphanDependents"].as_bool(),
            propagation: text("/propagationPolicy"),
            dry_run: !dry_run.is_empty(),
            document: {
                let mut shown = document.as_object().cloned().unwrap_or_default();
                shown.insert("kind".into(), "DeleteOptions".into());
                shown.insert("apiVersion".into(), "meta.k8s.io/v1".into());
                shown.into()
            },
        }
    }

    /// What is wrong with the options.
    ///
    /// # Errors
    ///
    /// 422
    pub(crate) fn check(&self) -> Result<(), Status> {
        let mut faults = Faults::default();
        if let Some(policy) = &self.propagation {
            let path = Path::new("propagationPolicy");
            if self.orphan.is_some() {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                faults.invalid_str(&path, policy, why);
            }
            if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
                faults.not_supported(&path, policy, &["Foreground", "Background", "Orphan", "nil"]);
            }
        }
        let dry_run: Vec<&str> = self.document["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        check_dry_run(&mut faults, &dry_run);
        refuse("DeleteOptions", &faults)
    }
}

/// Refuses a field manager that is too long or has characters nobody can read.
fn check_manager(faults: &mut Faults, manager: &str) {
    let path = Path::new("fieldManager");
    if manager.len() > LONGEST_MANAGER {
        faults.too_long(&path, LONGEST_MANAGER);
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| !is_printable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        faults.invalid_str(&path, manager, &why);
    }
}

/// Letters, marks, numbers, punctuation, symbols and the plain space: what Go calls printable.
fn is_printable(c: char) -> bool {
    static PRINTABLE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[\p{L}\p{M}\p{N}\p{P}\p{S}]$").expect("the classes are Unicode's own"));
    matches!(c, ' '..='~') || (!c.is_ascii() && PRINTABLE.is_match(c.encode_utf8(&mut [0; 4])))
}

fn check_dry_run(faults: &mut Faults, values: &[&str]) {
    if values.iter().any(|value| *value != "All") {
        let shown = values.iter().map(|value| corten_api::field::quoted(value)).collect::<Vec<_>>().join(",");
        faults.0.push(Fault {
            kind: FaultKind::NotSupported,
            field: "dryRun".into(),
            message: format!("Unsupported value: [{shown}]: supported values: \"All\""),
        });
    }
}

fn refuse(kind: &str, faults: &Faults) -> Result<(), Status> {
    if faults.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", kind, "", faults)) }
}

/// A boolean parameter as Go's conversion reads it: absent is none, `false` and `0` are false, all else is true.
fn boolean(query: &Query, name: &str) -> Result<Option<bool>, Status> {
    Ok(query.get(name).map(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0")))
}

pub(crate) fn integer(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    let out_of_range = |err: &std::num::ParseIntError| {
        matches!(err.kind(), std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow)
    };
    text.parse().map(Some).map_err(|err| {
        let why = if out_of_range(&err) { "value out of range" } else { "invalid syntax" };
        Status::bad_request(format!("strconv.ParseInt: parsing {}: {why}", corten_api::field::quoted(text)))
    })
}

/// A `resourceVersion` as a revision; upstream's words for what is none.
pub(crate) fn revision(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|err: std::num::ParseIntError| {
        let why = if matches!(err.kind(), std::num::IntErrorKind::PosOverflow) { "value out of range" } else { "invalid syntax" };
        format!("strconv.ParseUint: parsing {}: {why}", corten_api::field::quoted(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preconditions_lie_flat_in_a_query() {
        let options = |query: &str| DeleteOptions::from_query(&Query::parse(query)).unwrap();
        let both = options("uid=a&resourceVersion=7");
        assert_eq!((both.uid.as_deref(), both.resource_version.as_deref()), (Some("a"), Some("7")));
        assert_eq!(both.document["preconditions"], json!({"uid": "a", "resourceVersion": "7"}));
        let none = options("uid=&preconditions.uid=a");
        assert_eq!((none.uid, none.resource_version), (None, None));
        assert!(none.document.get("preconditions").is_none());
    }

    #[test]
    fn managers_are_printable_as_go_means_it() {
        for c in ['a', ' ', 'é', '€', '漢', '\u{301}', '\u{fffd}'] {
            assert!(is_printable(c), "{c:?}");
        }
        for c in ['\0', '\t', '\u{7f}', '\u{a0}', '\u{200b}', '\u{2028}', '\u{e000}'] {
            assert!(!is_printable(c), "{c:?}");
        }
        let name = |agent: &str| WriteOptions::default().manager(agent);
        assert_eq!(name("kubectl/v1.36 (linux)"), "kubectl");
        assert_eq!((name(""), name("/x"), name("a\u{a0}b/1")), ("unknown".into(), "unknown".into(), "ab".into()));
        assert_eq!(name(&"é".repeat(100)).len(), 128);
    }
}
