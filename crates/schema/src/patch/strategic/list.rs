//! Merging and ordering lists of a strategic merge patch.

use serde_json::{Map, Value};

use super::{PATCH, PatchError, Result, Strategy, bad_type, go_type, go_value, merge_map, unknown_directive};

/// Merges two lists of one field. Items keep the server's order; those of the patch come in the patch's order.
pub(super) fn merge(original: Vec<Value>, patch: Vec<Value>, strategy: &Strategy<'_>, deletes: bool) -> Result<Vec<Value>> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if !of_objects(&original, &patch)? {
        if deletes {
            return Ok(original.into_iter().filter(|item| !patch.contains(item)).collect());
        }
        let mut merged: Vec<Value> = Vec::new();
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return in_order(merged, &patch, &original, strategy);
    }
    if strategy.key.is_empty() {
        let name = strategy.place.name();
        return Err(PatchError::Strategic(format!("cannot merge lists without merge key for {name}")));
    }
    let (mut merged, patch) = directives(original, patch, strategy.key)?;
    let server_order = merged.clone();
    for change in &patch {
        let map = change.as_object().ok_or_else(|| bad_type("map[string]interface {}", change))?;
        let value = map.get(strategy.key).ok_or_else(|| no_key(map, strategy.key))?;
        match find(&merged, strategy.key, value)? {
            Some(at) => {
                let old = match merged[at].take() {
                    Value::Object(old) => old,
                    _ => Map::new(),
                };
                merged[at] = Value::Object(merge_map(old, map.clone(), strategy.place)?);
            }
            None => merged.push(change.clone()),
        }
    }
    in_order(merged, &patch, &server_order, strategy)
}

/// Brings a merged list into order: what the order lists comes in its order, the rest in the server's, and where both say
/// something about two items the server's order decides.
pub(super) fn in_order(
    merged: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    strategy: &Strategy<'_>,
) -> Result<Vec<Value>> {
    let is_object = merged.first().is_some_and(Value::is_object);
    let key = if is_object { strategy.key } else { "" };
    if is_object {
        for item in merged.iter().chain(order) {
            let map = item.as_object().ok_or_else(|| bad_type("map[string]interface {}", item))?;
            if !map.contains_key(key) {
                return Err(no_key(map, key));
            }
        }
    }
    let (mut listed, mut rest): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(order, item, key).is_some());
    listed.sort_by_key(|item| position(order, item, key));
    rest.sort_by_key(|item| position(server_order, item, key).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(listed.len() + rest.len());
    let (mut listed, mut rest) = (listed.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let rest_first = match (rest.peek(), listed.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(left), Some(right)) => {
                let places = (position(server_order, left, key), position(server_order, right, key));
                matches!(places, (Some(left), Some(right)) if left < right)
            }
        };
        out.extend(if rest_first { rest.next() } else { listed.next() });
    }
}

/// What an order lists must be like the items that it orders, which are those of the server and of the patch.
pub(super) fn check_keys(
    merged: &[Value],
    order: &[Value],
    server: &[Value],
    patch: &[Value],
    strategy: &Strategy<'_>,
) -> Result<()> {
    let key = strategy.key;
    let value_of = |item: &Value| -> Result<Value> {
        let map = item.as_object().ok_or_else(|| bad_type("map[string]interface {}", item))?;
        map.get(key).cloned().ok_or_else(|| no_key(map, key))
    };
    for item in merged.iter().filter(|_| !key.is_empty()) {
        find(order, key, &value_of(item)?)?;
    }
    if server.is_empty() && patch.is_empty() {
        return Err(PatchError::Strategic("no elements in any of the given slices".into()));
    }
    if of_objects(server, patch)? {
        order.iter().chain(server).try_for_each(|item| value_of(item).map(drop))?;
    }
    Ok(())
}

/// The items of a patch must come in the order that the patch itself asks for.
pub(super) fn check_order(patch: &[Value], order: &[Value], strategy: &Strategy<'_>) -> Result<()> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut wanted = order.iter();
    for item in patch {
        if strategy.key.is_empty() {
            if !wanted.any(|next| next == item) {
                return Err(disordered(patch, order));
            }
            continue;
        }
        let map = item.as_object().ok_or_else(|| bad_type("map[string]interface {}", item))?;
        if map.contains_key(PATCH) {
            continue;
        }
        let value = map.get(strategy.key).ok_or_else(|| no_key(map, strategy.key))?;
        loop {
            let Some(next) = wanted.next() else { return Err(disordered(patch, order)) };
            let next = next.as_object().ok_or_else(|| bad_type("map[string]interface {}", next))?;
            if next.get(strategy.key).ok_or_else(|| no_key(next, strategy.key))? == value {
                break;
            }
        }
    }
    Ok(())
}

/// Carries out `$patch` in items and returns what is left of the original list and of the patch.
fn directives(mut original: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let (mut plain, mut replace) = (Vec::new(), false);
    for item in patch {
        let Some(directive) = item.get(PATCH) else {
            plain.push(item);
            continue;
        };
        let map = item.as_object().ok_or_else(|| bad_type("map[string]interface {}", &item))?;
        match directive.as_str() {
            Some("delete") => {
                let value = map.get(key).ok_or_else(|| no_key(map, key))?;
                while let Some(at) = find(&original, key, value)? {
                    original.remove(at);
                }
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::Strategic("merging lists cannot yet be specified in the patch".into()));
            }
            _ => return Err(unknown_directive(directive, map)),
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

/// Whether the items are objects; all must be of one kind.
fn of_objects(original: &[Value], patch: &[Value]) -> Result<bool> {
    let mut first: Option<&'static str> = None;
    for item in original.iter().chain(patch) {
        let kind = go_type(item);
        match first {
            None if item.is_array() => {
                return Err(PatchError::Unprocessable("lists of lists are not supported".into()));
            }
            None => first = Some(kind),
            Some(first) if first == kind => {}
            Some(_) => {
                let lists = Value::Array(vec![Value::Array(original.to_vec()), Value::Array(patch.to_vec())]);
                return Err(PatchError::Strategic(format!("list element types are not identical: {}", go_value(&lists))));
            }
        }
    }
    Ok(original.iter().chain(patch).next().is_some_and(Value::is_object))
}

fn find(list: &[Value], key: &str, value: &Value) -> Result<Option<usize>> {
    for (at, item) in list.iter().enumerate() {
        let map = item.as_object().ok_or_else(|| PatchError::Strategic(format!("value for key {at} is not a map")))?;
        if map.get(key) == Some(value) {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn position(list: &[Value], item: &Value, key: &str) -> Option<usize> {
    if key.is_empty() {
        return list.iter().position(|other| other == item);
    }
    list.iter().position(|other| other.get(key) == item.get(key))
}

fn no_key(map: &Map<String, Value>, key: &str) -> PatchError {
    let map = go_value(&Value::Object(map.clone()));
    PatchError::Strategic(format!("map: {map} does not contain declared merge key: {key}"))
}

fn disordered(patch: &[Value], order: &[Value]) -> PatchError {
    let shown = |list: &[Value]| go_value(&Value::Array(list.to_vec()));
    PatchError::Strategic(format!(
        "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
        shown(patch),
        shown(order)
    ))
}
