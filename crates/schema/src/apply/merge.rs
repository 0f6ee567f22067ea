//! Merging an applied configuration into an object, and taking out what is no longer applied.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::schema::{Schema, Shape};
use super::set::{Element, Set};
use super::walk::element_of;

/// The object with the configuration merged into it. The configuration was checked against the schema.
pub(super) fn merge<S: Schema>(schema: &S, live: &Value, config: &Value) -> Value {
    place(schema, schema.root(), live, config)
}

/// The document without the fields and items that are in a set. What becomes empty by it becomes null, which a decoder
/// drops.
pub(super) fn remove<S: Schema>(schema: &S, document: &Value, set: &Set) -> Value {
    without(schema, schema.root(), document, set)
}

/// A set that contains, besides its own paths, every declared field on the way to them.
pub(super) fn with_named_fields<S: Schema>(schema: &S, set: &Set) -> Set {
    named(schema, schema.root(), set)
}

fn place<'s, S: Schema>(schema: &'s S, node: S::Node<'s>, live: &Value, config: &Value) -> Value {
    match (schema.shape(node), live, config) {
        (Shape::Map | Shape::Any, Value::Object(live), Value::Object(config)) if !live.is_empty() => {
            let mut out = live.clone();
            for (name, config) in config {
                let merged = match (live.get(name), schema.member(node, name)) {
                    (Some(live), Some((member, _))) => place(schema, member, live, config),
                    _ => config.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Shape::Map, Value::Object(live), Value::Null) if !live.is_empty() => Value::Object(live.clone()),
        (Shape::Set | Shape::Keyed, Value::Array(live), Value::Array(config)) if !live.is_empty() => {
            Value::Array(lists(schema, node, live, config))
        }
        (Shape::Set | Shape::Keyed, Value::Array(live), Value::Null) if !live.is_empty() => Value::Array(live.clone()),
        (_, _, config) => config.clone(),
    }
}

/// Merges two lists whose items are identified. Items of both keep the order of the configuration; an item of the object
/// alone stays before the shared item that it stood before.
fn lists<'s, S: Schema>(schema: &'s S, node: S::Node<'s>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let elements =
        |list: &[Value]| -> Vec<Option<Element>> { list.iter().map(|item| element_of(schema, node, item).ok()).collect() };
    let (lives, configs) = (elements(live), elements(config));
    let index = |elements: &[Option<Element>]| -> BTreeMap<Element, Option<usize>> {
        let mut found = BTreeMap::new();
        for (at, element) in elements.iter().enumerate() {
            if let Some(element) = element {
                // A doubled item cannot be merged with.
                found.entry(element.clone()).and_modify(|at| *at = None).or_insert(Some(at));
            }
        }
        found
    };
    let (live_index, config_index) = (index(&lives), index(&configs));
    let item = schema.item(node);
    let merged = |element: &Element, at: usize| match live_index.get(element).copied().flatten() {
        Some(live_at) => place(schema, item, &live[live_at], &config[at]),
        None => config[at].clone(),
    };
    let mut shared = configs.iter().flatten().filter(|element| live_index.contains_key(element)).peekable();
    let mut done = std::collections::BTreeSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut c) = (0, 0);
    while l < lives.len() || c < configs.len() {
        if let (Some(left), Some(right)) = (lives.get(l), configs.get(c)) {
            if let (Some(left), Some(right)) = (left, right)
                && left == right
            {
                out.push(merged(left, c));
                done.insert(left.clone());
                (l, c) = (l + 1, c + 1);
                shared.next();
                continue;
            }
            // Shared, but not the one whose turn it is: it is taken when the configuration comes to it.
            if let Some(left) = left
                && config_index.contains_key(left)
                && shared.peek().is_some_and(|next| *next != left)
            {
                l += 1;
                continue;
            }
        }
        if let Some(left) = lives.get(l) {
            match left {
                Some(left) if config_index.contains_key(left) => {
                    if done.contains(left) {
                        l += 1;
                    }
                }
                _ => {
                    out.push(live[l].clone());
                    l += 1;
                    continue;
                }
            }
        }
        if let Some(right) = configs.get(c) {
            match right {
                Some(right) => {
                    out.push(merged(right, c));
                    done.insert(right.clone());
                    if shared.peek().is_some_and(|next| *next == right) {
                        shared.next();
                    }
                }
                None => out.push(config[c].clone()),
            }
            c += 1;
        }
    }
    out
}

fn without<'s, S: Schema>(schema: &'s S, node: S::Node<'s>, value: &Value, set: &Set) -> Value {
    match (schema.shape(node), value) {
        (Shape::Map | Shape::Any, Value::Object(map)) => {
            let mut out = Map::new();
            for (name, value) in map {
                let element = Element::Field(name.as_str().into());
                if set.has_member(&element) {
                    continue;
                }
                let kept = match (set.below(&element), schema.member(node, name)) {
                    (Some(below), Some((member, _))) => without(schema, member, value, below),
                    _ => value.clone(),
                };
                out.insert(name.clone(), kept);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        (Shape::Set | Shape::Keyed, Value::Array(list)) => {
            let mut out = Vec::with_capacity(list.len());
            for item in list {
                let Ok(element) = element_of(schema, node, item) else {
                    out.push(item.clone());
                    continue;
                };
                if set.has_member(&element) {
                    continue;
                }
                out.push(match set.below(&element) {
                    Some(below) => without(schema, schema.item(node), item, below),
                    None => item.clone(),
                });
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        // What is owned as a whole goes as a whole: something below it cannot be taken out.
        (Shape::Leaf, Value::Object(_) | Value::Array(_)) => Value::Null,
        (_, value) => value.clone(),
    }
}

fn named<'s, S: Schema>(schema: &'s S, node: S::Node<'s>, set: &Set) -> Set {
    set.map_steps(|element, member, below| match element {
        Element::Field(name) => match schema.member(node, name) {
            Some((place, declared)) => (member || (declared && !below.is_empty()), named(schema, place, below)),
            None => (member, below.clone()),
        },
        Element::Key(_) => (member, named(schema, schema.item(node), below)),
        _ => (member, below.clone()),
    })
}
