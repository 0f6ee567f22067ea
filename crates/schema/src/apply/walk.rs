//! Walks over documents along their schema: checking them, the set of fields a document sets, and what differs between two.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::schema::{Container, Schema, Shape};
use super::set::{Element, Node, Scalar, Set, same};
use crate::decode::go;

/// What changed from one document to another. No path is in two of the sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// In the old document only.
    pub removed: Set,
    /// In both, but different.
    pub modified: Set,
    /// In the new document only.
    pub added: Set,
    /// Whether the new document brings an item into a list that nothing identifies: such a document cannot be tracked.
    pub unidentified: bool,
}

/// What is wrong with a document, as `.spec.ports: duplicate entries…`.
#[derive(Debug, Default)]
pub(super) struct SchemaFaults(pub Vec<(String, String)>);

impl std::fmt::Display for SchemaFaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let one = |(path, fault): &(String, String)| {
            if path.is_empty() { fault.clone() } else { format!("{path}: {fault}") }
        };
        match self.0.as_slice() {
            [only] => f.write_str(&one(only)),
            many => {
                f.write_str("errors:")?;
                many.iter().try_for_each(|fault| write!(f, "\n  {}", one(fault)))
            }
        }
    }
}

/// Checks that a document fits its schema.
pub(super) fn check<S: Schema>(schema: &S, document: &Value) -> Result<(), SchemaFaults> {
    let mut checker = Checker { schema, path: Vec::new(), faults: SchemaFaults::default() };
    checker.place(schema.root(), document);
    if checker.faults.0.is_empty() { Ok(()) } else { Err(checker.faults) }
}

/// Where a document sets lists and objects that are owned as a whole.
pub(super) fn atomics<S: Schema>(schema: &S, document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    atomics_at(schema, schema.root(), document, String::new(), &mut found);
    found
}

fn atomics_at<'s, S: Schema>(schema: &'s S, node: S::Node<'s>, value: &Value, path: String, found: &mut Vec<String>) {
    let atomic = schema.shape(node) == Shape::Leaf;
    match (schema.container(node), value) {
        (Container::Map, Value::Object(map)) => {
            if atomic {
                found.push(path.clone());
            }
            for (name, value) in map {
                if let Some((member, true)) = schema.member(node, name) {
                    atomics_at(schema, member, value, format!("{path}.{name}"), found);
                }
            }
        }
        (Container::List, Value::Array(list)) => {
            if atomic {
                found.push(path.clone());
            }
            for (at, item) in list.iter().enumerate() {
                atomics_at(schema, schema.item(node), item, format!("{path}[{at}]"), found);
            }
        }
        _ => {}
    }
}

/// The fields a document sets.
pub(super) fn field_set<S: Schema>(schema: &S, document: &Value) -> Set {
    Collector { schema }.place(schema.root(), document).below
}

/// What changed from one document to another. Costs as much as the documents are large, and allocates for what differs.
pub fn compare<S: Schema>(schema: &S, old: &Value, new: &Value) -> Comparison {
    let comparer = Comparer { schema, unidentified: Cell::new(false) };
    let found = comparer.place(schema.root(), Some(old), Some(new));
    let unidentified = comparer.unidentified.get();
    Comparison { removed: found.removed.below, modified: found.modified.below, added: found.added.below, unidentified }
}

/// The step that identifies an item of a list, or why there is none.
pub(super) fn element_of<S: Schema>(schema: &S, node: S::Node<'_>, item: &Value) -> Result<Element, String> {
    if schema.shape(node) == Shape::Set {
        return match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            scalar => Ok(Element::Value(Scalar(scalar.clone()))),
        };
    }
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut key = Vec::new();
    schema.keys(node, &mut |name, default| {
        if let Some(value) = map.get(name).cloned().or(default) {
            key.push((name.into(), Scalar(value)));
        }
    });
    if key.is_empty() {
        let mut names = Vec::new();
        schema.keys(node, &mut |name, _| names.push(corten_api::field::quoted(name)));
        let names = names.join(" ");
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{names}] (and doesn't have default values for any key fields)"
        ));
    }
    Ok(Element::key(key))
}

/// Whether a value of this shape is walked into.
fn is_map(shape: Shape, value: &Value) -> bool {
    match shape {
        Shape::Map => true,
        Shape::Any => value.is_object(),
        _ => false,
    }
}

// === impl Checker ===

struct Checker<'s, S> {
    schema: &'s S,
    path: Vec<String>,
    faults: SchemaFaults,
}

impl<'s, S: Schema> Checker<'s, S> {
    fn fault(&mut self, text: String) {
        self.faults.0.push((self.path.concat(), text));
    }

    fn place(&mut self, node: S::Node<'s>, value: &Value) {
        match (self.schema.container(node), value) {
            (_, Value::Null) | (Container::Any, _) => {}
            (Container::Map, Value::Object(map)) => {
                for (name, value) in map {
                    self.path.push(format!(".{name}"));
                    let member = self.schema.member(node, name);
                    match member {
                        None => self.fault("field not declared in schema".into()),
                        Some((node, _)) => self.place(node, value),
                    }
                    self.path.pop();
                    if member.is_none() {
                        return;
                    }
                }
            }
            (Container::List, Value::Array(list)) => self.items(node, list),
            (Container::Map, other) => self.fault(format!("expected map, got &{{{}}}", go::plain(other))),
            (Container::List, other) => self.fault(format!("expected list, got &{{{}}}", go::plain(other))),
            (Container::None, value) => {
                if let Some(fault) = self.schema.check_scalar(node, value) {
                    self.fault(fault);
                }
            }
        }
    }

    fn items(&mut self, node: S::Node<'s>, list: &[Value]) {
        let keyed = matches!(self.schema.shape(node), Shape::Set | Shape::Keyed);
        let mut seen = std::collections::BTreeSet::new();
        for (at, item) in list.iter().enumerate() {
            let step = if keyed {
                match element_of(self.schema, node, item) {
                    Err(err) => {
                        self.fault(format!("element {at}: {err}"));
                        return;
                    }
                    Ok(element) => {
                        let step = element.to_string();
                        if !seen.insert(element) {
                            self.fault(format!("duplicate entries for key {step}"));
                        }
                        step
                    }
                }
            } else {
                format!("[{at}]")
            };
            self.path.push(step);
            self.place(self.schema.item(node), item);
            self.path.pop();
        }
    }
}

// === impl Collector ===

struct Collector<'s, S> {
    schema: &'s S,
}

impl<'s, S: Schema> Collector<'s, S> {
    fn place(&self, node: S::Node<'s>, value: &Value) -> Node {
        match (self.schema.shape(node), value) {
            (Shape::Map | Shape::Any, Value::Object(map)) => self.members(node, map),
            (Shape::Set | Shape::Keyed, Value::Array(list)) => self.items(node, list),
            (Shape::Map | Shape::Set | Shape::Keyed, Value::Null) => Node::default(),
            _ => Node::member(),
        }
    }

    fn members(&self, node: S::Node<'s>, map: &Map<String, Value>) -> Node {
        let mut out = Node::default();
        for (name, value) in map {
            let Some((member, declared)) = self.schema.member(node, name) else { continue };
            let mut found = self.place(member, value);
            let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
            found.member |= is_empty || !declared;
            out.below.put(Element::Field(name.as_str().into()), found);
        }
        out
    }

    fn items(&self, node: S::Node<'s>, list: &[Value]) -> Node {
        let mut out = Node::default();
        for (element, item, doubled) in identified(self.schema, node, list) {
            let mut found = if doubled { Node::default() } else { self.place(self.schema.item(node), item) };
            found.member = true;
            out.below.put(element, found);
        }
        out
    }
}

/// The items of a list that can be identified, in the order of what identifies them, and whether another one is identified by
/// the same.
fn identified<'v, S: Schema>(
    schema: &S,
    node: S::Node<'_>,
    list: &'v [Value],
) -> impl Iterator<Item = (Element, &'v Value, bool)> + use<'v, S> {
    let mut elements: Vec<_> =
        list.iter().filter_map(|item| element_of(schema, node, item).ok().map(|element| (element, item))).collect();
    elements.sort_by(|(a, _), (b, _)| a.cmp(b));
    let doubled = |at: usize| {
        let same = |other: Option<&(Element, &Value)>| other.is_some_and(|(element, _)| *element == elements[at].0);
        same(elements.get(at + 1)) || at.checked_sub(1).is_some_and(|before| same(elements.get(before)))
    };
    let is_doubled: Vec<bool> = (0..elements.len()).map(doubled).collect();
    elements.into_iter().zip(is_doubled).map(|((element, item), doubled)| (element, item, doubled))
}

// === impl Comparer ===

struct Comparer<'s, S> {
    schema: &'s S,
    unidentified: Cell<bool>,
}

/// What differs at a place and below it.
#[derive(Default)]
struct Differences {
    removed: Node,
    modified: Node,
    added: Node,
}

impl Differences {
    /// Takes what differs at a step; the step is made only when something does.
    fn put(&mut self, found: Self, element: impl FnOnce() -> Element) {
        let parts = [(&mut self.removed, found.removed), (&mut self.modified, found.modified), (&mut self.added, found.added)];
        let mut parts = parts.into_iter().filter(|(_, node)| !node.is_empty()).peekable();
        if parts.peek().is_none() {
            return;
        }
        let mut element = Some(element());
        while let Some((into, node)) = parts.next() {
            let element = if parts.peek().is_some() { element.clone() } else { element.take() };
            if let Some(element) = element {
                into.below.put(element, node);
            }
        }
    }
}

impl<'s, S: Schema> Comparer<'s, S> {
    fn place(&self, node: S::Node<'s>, old: Option<&Value>, new: Option<&Value>) -> Differences {
        if let (None, Some(new)) = (old, new) {
            return Differences { added: self.added(node, new), ..Differences::default() };
        }
        let shape = self.schema.shape(node);
        let is = |value: Option<&Value>| value.is_some_and(|value| is_map(shape, value));
        let mut out = Differences::default();
        let walked = match shape {
            Shape::Map => self.maps(node, object(old), object(new), &mut out),
            Shape::Any if is(old) || is(new) => {
                // An object is walked; when the other value is none, it is a leaf besides.
                let walked = self.maps(node, object(old), object(new), &mut out);
                walked && (old.is_none() || new.is_none() || is(old) == is(new))
            }
            Shape::Set | Shape::Keyed => self.lists(node, array(old), array(new), &mut out),
            Shape::Leaf | Shape::Any => false,
        };
        match (old, new) {
            (None, Some(_)) => out.added.member = true,
            (Some(_), None) => out.removed.member = true,
            (Some(old), Some(new)) if !walked && !same(old, new) => out.modified.member = true,
            _ => {}
        }
        out
    }

    /// What a value adds where nothing was: itself and all below it.
    fn added(&self, node: S::Node<'s>, new: &Value) -> Node {
        let mut out = Node::member();
        match (self.schema.shape(node), new) {
            (Shape::Map | Shape::Any, Value::Object(map)) => {
                for (name, value) in map {
                    if let Some((member, _)) = self.schema.member(node, name) {
                        out.below.put(Element::Field(name.as_str().into()), self.added(member, value));
                    }
                }
            }
            (Shape::Set | Shape::Keyed, Value::Array(list)) => {
                let (item, mut found) = (self.schema.item(node), 0);
                for (element, value, doubled) in identified(self.schema, node, list) {
                    out.below.put(element, if doubled { Node::member() } else { self.added(item, value) });
                    found += 1;
                }
                self.unidentified.set(self.unidentified.get() || found < list.len());
            }
            _ => {}
        }
        out
    }

    /// Compares members; whether there were any.
    fn maps(
        &self,
        node: S::Node<'s>,
        old: Option<&Map<String, Value>>,
        new: Option<&Map<String, Value>>,
        out: &mut Differences,
    ) -> bool {
        if old.is_none_or(Map::is_empty) && new.is_none_or(Map::is_empty) {
            return false;
        }
        // Both are sorted: one pass meets every name once.
        let (mut olds, mut news) = (old.into_iter().flatten().peekable(), new.into_iter().flatten().peekable());
        loop {
            let order = match (olds.peek(), news.peek()) {
                (None, None) => return true,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            let old = if order.is_le() { olds.next() } else { None };
            let new = if order.is_ge() { news.next() } else { None };
            let Some((name, _)) = old.or(new) else { return true };
            let Some((member, _)) = self.schema.member(node, name) else { continue };
            let found = self.place(member, old.map(|(_, value)| value), new.map(|(_, value)| value));
            out.put(found, || Element::Field(name.as_str().into()));
        }
    }

    /// Compares items; whether there were any.
    fn lists(&self, node: S::Node<'s>, old: Option<&Vec<Value>>, new: Option<&Vec<Value>>, out: &mut Differences) -> bool {
        let (old, new) = (old.map_or(&[][..], Vec::as_slice), new.map_or(&[][..], Vec::as_slice));
        if old.is_empty() && new.is_empty() {
            return false;
        }
        if old == new {
            // Nothing below can differ, and the keys need not be made.
            return true;
        }
        let mut items: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for item in old {
            if let Ok(element) = element_of(self.schema, node, item) {
                items.entry(element).or_default().0.push(item);
            }
        }
        for item in new {
            match element_of(self.schema, node, item) {
                Ok(element) => items.entry(element).or_default().1.push(item),
                Err(_) => self.unidentified.set(true),
            }
        }
        let item = self.schema.item(node);
        for (element, (olds, news)) in items {
            let mut found = Differences::default();
            match (olds.as_slice(), news.as_slice()) {
                ([] | [_], [] | [_]) => found = self.place(item, olds.first().copied(), news.first().copied()),
                // Doubled items are one leaf.
                ([_, _, ..], [_, _, ..]) => found.modified.member = olds != news,
                ([_, _, ..], _) => {
                    if let Some(new) = news.first() {
                        found = self.place(item, None, Some(new));
                    }
                    found.removed.member = true;
                }
                (_, [_, _, ..]) => {
                    if let Some(old) = olds.first() {
                        found = self.place(item, Some(old), None);
                    }
                    found.added.member = true;
                }
            }
            out.put(found, || element);
        }
        true
    }
}

fn object(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn array(value: Option<&Value>) -> Option<&Vec<Value>> {
    value.and_then(Value::as_array)
}
