//! Who watches what: a write is as much work as there are watchers to be told of it.

use std::collections::HashMap;
use std::sync::Arc;

use corten_api::selector::FieldSelector;
use parking_lot::Mutex;

use crate::request::{Query, RequestInfo};

/// Group, resource, namespace and name that a watch is limited to; empty where it is not.
type Place = [String; 4];

/// Counts watches.
#[derive(Clone, Default)]
pub(super) struct Watches(Arc<Mutex<HashMap<Place, usize>>>);

/// One watch; not counted any more when dropped.
#[must_use]
pub struct Watching {
    watches: Watches,
    place: Place,
}

impl Watches {
    /// Counts a watch. Those of the pods of one node are left out: each of them is told of few writes.
    pub(super) fn register(&self, info: &RequestInfo, query: &Query) -> Option<Watching> {
        if info.verb != "watch" {
            return None;
        }
        let of_one_node = || {
            let selector = FieldSelector::parse(query.text("fieldSelector")).ok()?;
            Some(selector.exact("spec.nodeName").is_some_and(|node| !node.is_empty()))
        };
        if info.resource == "pods" && of_one_node() == Some(true) {
            return None;
        }
        let place = place(info, &info.namespace, &info.name);
        *self.0.lock().entry(place.clone()).or_default() += 1;
        Some(Watching { watches: self.clone(), place })
    }

    /// Watches that are told of a write.
    pub(super) fn interested(&self, info: &RequestInfo) -> usize {
        let watches = self.0.lock();
        if watches.is_empty() {
            return 0;
        }
        let of = |namespace: &str, name: &str| watches.get(&place(info, namespace, name)).copied().unwrap_or(0);
        let mut count = of("", "");
        if !info.namespace.is_empty() {
            count += of(&info.namespace, "");
        }
        if !info.name.is_empty() {
            count += of(&info.namespace, &info.name);
        }
        count
    }
}

fn place(info: &RequestInfo, namespace: &str, name: &str) -> Place {
    [info.group.clone(), info.resource.clone(), namespace.to_owned(), name.to_owned()]
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watches = self.watches.0.lock();
        if let Some(count) = watches.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                watches.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_interests_those_who_watch_its_place() {
        let watches = Watches::default();
        let info = |verb: &str, namespace: &str, name: &str| RequestInfo {
            verb: verb.into(),
            resource: "pods".into(),
            namespace: namespace.into(),
            name: name.into(),
            ..RequestInfo::default()
        };
        let query = Query::default();
        let all = watches.register(&info("watch", "", ""), &query).unwrap();
        let in_a = watches.register(&info("watch", "a", ""), &query).unwrap();
        let one = watches.register(&info("watch", "a", "x"), &query).unwrap();
        assert!(watches.register(&info("watch", "", ""), &Query::parse("fieldSelector=spec.nodeName%3Dn")).is_none());
        assert!(watches.register(&info("list", "", ""), &query).is_none());
        assert_eq!(watches.interested(&info("update", "a", "x")), 3);
        assert_eq!(watches.interested(&info("create", "a", "")), 2);
        assert_eq!(watches.interested(&info("update", "b", "x")), 1);
        drop((all, in_a, one));
        assert_eq!(watches.interested(&info("update", "a", "x")), 0);
        assert!(watches.0.lock().is_empty());
    }
}
