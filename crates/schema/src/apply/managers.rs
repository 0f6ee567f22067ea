//! `metadata.managedFields`: who owns what, in memory and in the document.

use std::collections::BTreeMap;
use std::fmt;

use corten_api::time;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::set::Set;

/// Most managers with operation Update; the oldest of more are merged into one.
const MAX_UPDATERS: usize = 10;
/// The manager that the oldest updates are merged into.
const ANCIENT: &str = "ancient-changes";

/// Who did it. An applier is one manager in all versions; an updater is one for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub name: String,
    pub applies: bool,
    /// Only of updaters.
    pub api_version: String,
    pub subresource: String,
}

/// What a manager owns.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    pub set: Set,
    pub api_version: String,
}

/// All managers of an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Managers {
    pub owned: BTreeMap<Id, Owned>,
    pub times: BTreeMap<Id, Timestamp>,
}

impl Id {
    pub(super) fn updater(name: &str, api_version: &str, subresource: &str) -> Self {
        Self { name: named(name), applies: false, api_version: api_version.into(), subresource: subresource.into() }
    }

    pub(super) fn applier(name: &str, subresource: &str) -> Self {
        Self { name: named(name), applies: true, api_version: String::new(), subresource: subresource.into() }
    }
}

fn named(name: &str) -> String {
    if name.is_empty() { "unknown".into() } else { name.into() }
}

/// `"ed" using v1`, as conflicts show a manager.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&corten_api::field::quoted(&self.name))?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {}", corten_api::field::quoted(&self.subresource))?;
        }
        if !self.applies {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

impl Managers {
    /// Reads the entries of a document.
    pub(super) fn read(entries: &[Value]) -> Result<Self, String> {
        let mut managers = Self::default();
        for (at, entry) in entries.iter().enumerate() {
            let text = |name: &str| entry[name].as_str().unwrap_or_default();
            let applies = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return Err("operation must be `Apply` or `Update`".into()),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".into());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
                other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {at}")),
            }
            let set = Set::from_fields(&entry["fieldsV1"]).map_err(|err| format!("error decoding set: {err}"))?;
            let id = Id {
                name: text("manager").into(),
                applies,
                api_version: if applies { String::new() } else { api_version.into() },
                subresource: text("subresource").into(),
            };
            if let Ok(time) = time::parse(text("time")) {
                managers.times.insert(id.clone(), time);
            }
            managers.owned.insert(id, Owned { set, api_version: api_version.into() });
        }
        Ok(managers)
    }

    /// Writes the entries: appliers before updaters, older before newer.
    pub(super) fn write(&self) -> Vec<Value> {
        let seconds = |id: &Id| self.times.get(id).map_or(0, |time| time.as_second());
        let mut all: Vec<(&Id, &Owned)> = self.owned.iter().collect();
        all.sort_by_key(|(id, owned)| (!id.applies, seconds(id), &id.name, &owned.api_version, &id.subresource));
        all.into_iter().map(|(id, owned)| self.entry(id, owned)).collect()
    }

    fn entry(&self, id: &Id, owned: &Owned) -> Value {
        let mut entry = Map::new();
        let mut put = |name: &str, value: &str| {
            if !value.is_empty() {
                entry.insert(name.into(), value.into());
            }
        };
        put("manager", &id.name);
        put("operation", if id.applies { "Apply" } else { "Update" });
        put("apiVersion", &owned.api_version);
        put("fieldsType", "FieldsV1");
        put("subresource", &id.subresource);
        put("time", &self.times.get(id).map(|at| time::seconds(*at)).unwrap_or_default());
        entry.insert("fieldsV1".into(), owned.set.to_fields());
        Value::Object(entry)
    }

    /// Merges the oldest updaters of each version into one, while there are too many.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<Id> = self.owned.keys().filter(|id| !id.applies).cloned().collect();
        let mut left = updaters.len();
        if left <= MAX_UPDATERS {
            return;
        }
        updaters.sort_by_key(|id| (self.times.get(id).map_or(0, |time| time.as_second()), id.clone()));
        let mut first_of: BTreeMap<String, Id> = BTreeMap::new();
        for id in updaters {
            if left <= MAX_UPDATERS {
                return;
            }
            let Some(version) = self.owned.get(&id).map(|owned| owned.api_version.clone()) else { continue };
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, id);
                continue;
            };
            let bucket = Id::updater(ANCIENT, &version, "");
            if !self.owned.contains_key(&bucket)
                && let Some(owned) = self.owned.remove(first)
            {
                self.owned.insert(bucket.clone(), owned);
            }
            if let (true, Some(merged)) = (id != bucket, self.owned.remove(&id))
                && let Some(owned) = self.owned.get_mut(&bucket)
            {
                owned.set = std::mem::take(&mut owned.set).union(&merged.set);
                left -= 1;
                if let Some(time) = self.times.get(&id).copied() {
                    self.times.insert(bucket, time);
                }
            }
        }
    }
}
