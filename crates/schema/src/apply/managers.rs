//! `metadata.managedFields`: who owns what, in memory and in the document.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use corten_api::time;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::set::Set;
use super::text::{self, Fields};

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
    pub fields: Fields,
    pub api_version: String,
}

/// All managers of an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Managers {
    pub owned: BTreeMap<Id, Owned>,
    pub times: BTreeMap<Id, Timestamp>,
}

/// One entry as it is written.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    fields_type: Cow<'a, str>,
    #[serde(borrow)]
    fields_v1: Option<&'a RawValue>,
    #[serde(borrow)]
    manager: Cow<'a, str>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(borrow)]
    subresource: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
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
    /// Reads the entries of a document, whichever of their forms they have; none when there are none.
    pub(super) fn of(entries: &Value) -> Result<Self, String> {
        match entries {
            Value::Array(entries) => Self::read(entries),
            Value::String(text) => Self::read_text(text),
            _ => Ok(Self::default()),
        }
    }

    /// Reads the entries of a document.
    pub(super) fn read(entries: &[Value]) -> Result<Self, String> {
        let mut managers = Self::default();
        for (at, entry) in entries.iter().enumerate() {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().into();
            let entry_of = Entry {
                api_version: text("apiVersion"),
                fields_type: text("fieldsType"),
                fields_v1: None,
                manager: text("manager"),
                operation: text("operation"),
                subresource: text("subresource"),
                time: text("time"),
            };
            let fields = || Set::from_fields(&entry["fieldsV1"]).map_err(|err| format!("error decoding set: {err}"));
            managers.put(at, entry_of, || fields().map(Fields::Read))?;
        }
        Ok(managers)
    }

    /// Reads the text of entries.
    fn read_text(text: &str) -> Result<Self, String> {
        let entries: Vec<Entry<'_>> = serde_json::from_str(text).map_err(|err| err.to_string())?;
        let mut managers = Self::default();
        for (at, entry) in entries.into_iter().enumerate() {
            let fields = Fields::written(entry.fields_v1.map_or("{}", RawValue::get));
            managers.put(at, entry, || Ok(fields))?;
        }
        Ok(managers)
    }

    fn put(&mut self, at: usize, entry: Entry<'_>, fields: impl FnOnce() -> Result<Fields, String>) -> Result<(), String> {
        let applies = match &*entry.operation {
            "Apply" => true,
            "Update" => false,
            _ => return Err("operation must be `Apply` or `Update`".into()),
        };
        if entry.api_version.is_empty() {
            return Err("apiVersion must not be empty".into());
        }
        match &*entry.fields_type {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {at}")),
        }
        let fields = fields()?;
        let api_version = entry.api_version.into_owned();
        let id = Id {
            name: entry.manager.into_owned(),
            applies,
            api_version: if applies { String::new() } else { api_version.clone() },
            subresource: entry.subresource.into_owned(),
        };
        if let Ok(time) = time::parse(&entry.time) {
            self.times.insert(id.clone(), time);
        }
        self.owned.insert(id, Owned { fields, api_version });
        Ok(())
    }

    /// Writes the entries as a list; see [`Self::write_text`].
    pub(super) fn write(&self) -> Vec<Value> {
        serde_json::from_str(&self.write_text()).expect("what was written is JSON")
    }

    /// Writes the entries: appliers before updaters, older before newer.
    pub(super) fn write_text(&self) -> String {
        let seconds = |id: &Id| self.times.get(id).map_or(0, |time| time.as_second());
        let mut all: Vec<(&Id, &Owned)> = self.owned.iter().collect();
        all.sort_by_key(|(id, owned)| (!id.applies, seconds(id), &id.name, &owned.api_version, &id.subresource));
        let mut out = Vec::with_capacity(1024);
        out.push(b'[');
        for (at, (id, owned)) in all.into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.write_entry(id, owned, &mut out);
        }
        out.push(b']');
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    /// One entry, members in the order of their names.
    fn write_entry(&self, id: &Id, owned: &Owned, out: &mut Vec<u8>) {
        let put = |name: &str, value: &str, out: &mut Vec<u8>| {
            if !value.is_empty() {
                out.extend_from_slice(name.as_bytes());
                text::write_json(out, value);
            }
        };
        out.extend_from_slice(b"{\"apiVersion\":");
        text::write_json(out, &owned.api_version);
        out.extend_from_slice(b",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
        owned.fields.write(out);
        put(",\"manager\":", &id.name, out);
        put(",\"operation\":", if id.applies { "Apply" } else { "Update" }, out);
        put(",\"subresource\":", &id.subresource, out);
        put(",\"time\":", &self.times.get(id).map(|at| time::seconds(*at)).unwrap_or_default(), out);
        out.push(b'}');
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
                let set = owned.fields.tree();
                *set = std::mem::take(set).merge(merged.fields.into_tree());
                left -= 1;
                if let Some(time) = self.times.get(&id).copied() {
                    self.times.insert(bucket, time);
                }
            }
        }
    }
}
