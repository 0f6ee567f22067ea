//! Which objects have a label, or a selectable field, of some value: so that a list of the hundred pods of one ReplicaSet does
//! not look at all the others. A label is indexed from the first time that somebody selects by it; most never are.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::{Entry, Map};

/// Labels and fields indexed for each resource. A bound on memory: every one costs a pointer for each object.
const MOST: usize = 8;
/// With those of labels that no object has, which cost next to nothing and must not take the place of others.
const MOST_EMPTY: usize = 64;
/// Looking at fewer objects than this is cheaper than an index.
const WORTH_IT: usize = 256;

/// What objects are indexed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The value of a label, for objects that have it.
    Label(Box<str>),
    /// The value of a selectable field.
    Field(Box<str>),
}

/// The indexes of one resource.
#[derive(Default)]
pub(super) struct Postings(Vec<(By, HashMap<Box<str>, Vec<Arc<Entry>>>)>);

impl By {
    fn value<'e>(&self, entry: &'e Entry) -> Option<&'e str> {
        match self {
            Self::Label(key) => entry.label(key),
            // A selector takes an absent field for an empty one.
            Self::Field(name) => Some(entry.field(name).unwrap_or_default()),
        }
    }
}

impl Postings {
    /// Objects with this value, in key order; `None` when there is no such index.
    pub(super) fn get(&self, by: &By, value: &str) -> Option<&[Arc<Entry>]> {
        let (_, entries) = self.0.iter().find(|(known, _)| known == by)?;
        Some(entries.get(value).map(Vec::as_slice).unwrap_or_default())
    }

    /// Whether an index is worth making that is not there yet.
    pub(super) fn is_wanted(&self, by: &By, map: &Map) -> bool {
        let filled = self.0.iter().filter(|(_, entries)| !entries.is_empty()).count();
        map.len() >= WORTH_IT && filled < MOST && self.0.len() < MOST_EMPTY && self.0.iter().all(|(known, _)| known != by)
    }

    /// Indexes `map` by one more thing, if that is worth it.
    pub(super) fn add(&mut self, by: &By, map: &Map) {
        if !self.is_wanted(by, map) {
            return;
        }
        let mut entries: HashMap<Box<str>, Vec<Arc<Entry>>> = HashMap::new();
        for entry in map.values() {
            if let Some(value) = by.value(entry) {
                match entries.get_mut(value) {
                    Some(list) => list.push(entry.clone()),
                    None => drop(entries.insert(value.into(), vec![entry.clone()])),
                }
            }
        }
        self.0.push((by.clone(), entries));
    }

    /// An object changed, came (`before` is absent) or went (`now` is absent).
    pub(super) fn change(&mut self, before: Option<&Arc<Entry>>, now: Option<&Arc<Entry>>) {
        for (by, entries) in &mut self.0 {
            let (was, is) = (before.and_then(|entry| by.value(entry)), now.and_then(|entry| by.value(entry)));
            if let (Some(before), Some(value)) = (before, was.filter(|_| was != is))
                && let Some(list) = entries.get_mut(value)
            {
                if let Ok(at) = list.binary_search_by(|entry| order(entry, before)) {
                    list.remove(at);
                }
                if list.is_empty() {
                    entries.remove(value);
                }
            }
            let (Some(now), Some(value)) = (now, is) else { continue };
            match entries.get_mut(value) {
                None => drop(entries.insert(value.into(), vec![now.clone()])),
                Some(list) => match list.binary_search_by(|entry| order(entry, now)) {
                    Ok(at) => list[at] = now.clone(),
                    Err(at) => list.insert(at, now.clone()),
                },
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The order of the keys `namespace/name`, without making them.
fn order(a: &Entry, b: &Entry) -> Ordering {
    if a.namespace == b.namespace {
        return a.name.cmp(&b.name);
    }
    let separator = |entry: &Entry| (!entry.namespace.is_empty()).then_some(b'/');
    let a = a.namespace.bytes().chain(separator(a)).chain(a.name.bytes());
    a.cmp(b.namespace.bytes().chain(separator(b)).chain(b.name.bytes()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Layout;
    use super::*;

    fn entry(namespace: &str, name: &str, app: Option<&str>) -> Arc<Entry> {
        let layout = Layout::new("Pod", "v1");
        let mut document = json!({"metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}/{name}")}});
        if let Some(app) = app {
            document["metadata"]["labels"] = json!({ "app": app });
        }
        Arc::new(Entry::new(&layout, "k", &layout.encode(&document), 1, None).unwrap())
    }

    #[test]
    fn an_index_follows_changes_in_key_order() {
        let by = By::Label("app".into());
        let mut map = Map::new();
        for n in 0..WORTH_IT {
            let entry = entry("a", &format!("p{n:03}"), (n % 2 == 0).then_some("even"));
            map.insert(super::super::key_of(&entry).into(), entry);
        }
        let mut postings = Postings::default();
        assert!(postings.get(&by, "even").is_none());
        postings.add(&By::Label("nobody".into()), &map);
        postings.add(&by, &map);
        assert!(postings.get(&By::Label("nobody".into()), "x").is_some_and(<[_]>::is_empty));
        let names = |postings: &Postings, value: &str| -> Vec<String> {
            postings.get(&by, value).unwrap().iter().map(|entry| super::super::key_of(entry)).collect()
        };
        let expected: Vec<String> = (0..WORTH_IT).step_by(2).map(|n| format!("a/p{n:03}")).collect();
        assert_eq!(names(&postings, "even"), expected);
        assert!(names(&postings, "odd").is_empty());

        // `-` comes before `/`, so this key is before those of the namespace `a`.
        let first = entry("a-b", "x", Some("even"));
        postings.change(None, Some(&first));
        assert_eq!(names(&postings, "even")[..2], ["a-b/x", "a/p000"]);
        let moved = entry("a", "p000", Some("other"));
        postings.change(Some(&map["a/p000"]), Some(&moved));
        assert_eq!(names(&postings, "other"), ["a/p000"]);
        postings.change(Some(&moved), None);
        postings.change(Some(&first), Some(&entry("a-b", "x", None)));
        assert!(names(&postings, "other").is_empty());
        assert_eq!(names(&postings, "even"), expected[1..]);
    }
}
