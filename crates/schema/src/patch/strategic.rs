//! Strategic merge patch: lists whose items have a merge key are merged item by item, and directives in the patch delete,
//! replace, order or retain. Which lists have which keys is in the table of types (Go's `patchStrategy` and `patchMergeKey`).

use corten_api::facts::{Field, Kind, Type, Types};
use serde_json::{Map, Value};

use super::PatchError;
use super::show::{go_type, go_value};

mod list;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const ORDER: &str = "$setElementOrder";

type Result<T> = std::result::Result<T, PatchError>;

/// What is known of the place a patch applies to.
#[derive(Clone, Copy)]
pub(super) enum Place<'t> {
    /// A struct.
    Struct(&'t Type),
    /// A struct of this name that no field is known of.
    Opaque(&'static str),
    /// Something else, by the name of its Go kind: nothing below it can be looked up.
    Other(&'static str),
}

/// How a field is patched.
pub(super) struct Strategy<'t> {
    place: Place<'t>,
    merge: bool,
    replace: bool,
    key: &'t str,
}

pub(super) fn apply(document: &Value, patch: Map<String, Value>, ty: &Type) -> Result<Value> {
    let original = document.as_object().cloned().unwrap_or_default();
    merge_map(original, patch, Place::Struct(ty)).map(Value::Object)
}

fn merge_map(original: Map<String, Value>, mut patch: Map<String, Value>, place: Place<'_>) -> Result<Map<String, Value>> {
    if let Some(directive) = patch.get(PATCH) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(PATCH);
                Ok(patch)
            }
            Some("delete") => Ok(Map::new()),
            _ => Err(unknown_directive(directive, &patch)),
        };
    }
    let mut original = original;
    retain_keys(&mut original, &mut patch)?;
    set_orders(&mut original, &mut patch, place)?;
    for (name, change) in patch {
        let deletes = name.starts_with(DELETE_FROM);
        let key = if deletes {
            listed_field(&name, DELETE_FROM)
                .ok_or_else(|| PatchError::BadRequest("invalid patch format of primitive list".into()))?
                .to_owned()
        } else {
            name
        };
        if change.is_null() {
            original.remove(&key);
            continue;
        }
        let old = original.get_mut(&key);
        let same_kind = old.as_ref().is_some_and(|old| go_type(old) == go_type(&change));
        let merged = match old {
            Some(old) if same_kind => match (old.take(), change) {
                (Value::Object(old), Value::Object(change)) => {
                    let strategy = place.field(&key)?;
                    Some(Value::Object(if strategy.replace { change } else { merge_map(old, change, strategy.place)? }))
                }
                (Value::Array(old), Value::Array(change)) => {
                    let strategy = place.list(&key)?;
                    Some(Value::Array(if strategy.merge || deletes {
                        list::merge(old, change, &strategy, deletes)?
                    } else {
                        change
                    }))
                }
                (_, change) => Some(change),
            },
            // There is nothing to merge with, or something of another kind.
            Some(_) | None if deletes => continue,
            _ => without_directives(without_nulls(change)),
        };
        match merged {
            Some(merged) => original.insert(key, merged),
            None => original.remove(&key),
        };
    }
    Ok(original)
}

/// `$retainKeys`: members that are not listed are removed; all that the patch sets must be listed.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<()> {
    let malformed = || PatchError::BadRequest("invalid patch format of retainKeys".into());
    let Some(listed) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let listed = listed.as_array().ok_or_else(malformed)?;
    let has = |key: &str| listed.iter().any(|name| name == key);
    for (key, change) in &*patch {
        let counts = !change.is_null() && !key.starts_with(DELETE_FROM) && !key.starts_with(ORDER);
        if counts && !has(key) {
            return Err(malformed());
        }
    }
    original.retain(|key, _| has(key));
    Ok(())
}

/// `$setElementOrder/field`: merges the field's list and brings it into the order given.
fn set_orders(original: &mut Map<String, Value>, patch: &mut Map<String, Value>, place: Place<'_>) -> Result<()> {
    let orders: Vec<String> = patch.keys().filter(|key| key.starts_with(ORDER)).cloned().collect();
    for name in orders {
        let malformed = || PatchError::BadRequest("invalid patch format of setElementOrder list".into());
        let order = as_list(patch.remove(&name).unwrap_or_default())?;
        let key = listed_field(&name, ORDER).ok_or_else(malformed)?;
        let old = original.get(key).cloned().map(as_list).transpose()?;
        let change = patch.get(key).cloned().map(as_list).transpose()?;
        let strategy = place.list(key)?;
        list::check_order(change.as_deref().unwrap_or_default(), &order, &strategy)?;
        let server_order = old.clone().unwrap_or_default();
        let sent = change.clone().unwrap_or_default();
        let merged = match (old, change) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(change)) => match without_directives(Value::Array(change)) {
                Some(Value::Array(list)) => list,
                _ => continue,
            },
            (Some(old), Some(change)) if strategy.merge => list::merge(old, change, &strategy, false)?,
            (Some(_), Some(change)) => change,
        };
        list::check_keys(&merged, &order, &server_order, &sent, &strategy)?;
        let ordered = list::in_order(merged, &order, &server_order, &strategy)?;
        original.insert(key.into(), Value::Array(ordered));
        patch.remove(key);
    }
    Ok(())
}

/// The field that a directive such as `$setElementOrder/containers` is about.
fn listed_field<'n>(name: &'n str, prefix: &str) -> Option<&'n str> {
    name.strip_prefix(prefix)?.strip_prefix('/')
}

fn as_list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(bad_type("[]interface {}", &other)),
    }
}

/// A value that is put where nothing was: parts that are marked with a directive are dropped.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => {
            let members = map.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(members.collect()))
        }
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(without_directives).collect())),
        scalar => Some(scalar),
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let members = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(members.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        scalar => scalar,
    }
}

fn unknown_directive(directive: &Value, map: &Map<String, Value>) -> PatchError {
    let map = go_value(&Value::Object(map.clone()));
    PatchError::Strategic(format!("unknown patch type: {} in map: {map}", go_value(directive)))
}

fn bad_type(expected: &str, found: &Value) -> PatchError {
    PatchError::Strategic(format!("expected a {expected}, but received a {}", go_type(found)))
}

fn no_field(name: &str, key: &str) -> PatchError {
    PatchError::Strategic(format!("unable to find api field in struct {name} for the json field \"{key}\""))
}

// === impl Place ===

impl<'t> Place<'t> {
    fn lookup(self, key: &str, what: &str) -> Result<&'t Field> {
        match self {
            Self::Struct(ty) => ty.field(key).ok_or_else(|| no_field(ty.short_name(), key)),
            Self::Opaque(name) => Err(no_field(name, key)),
            Self::Other(kind) => {
                let text = format!("merging {what} in json but data type is not struct, instead is: {kind}");
                Err(PatchError::Strategic(text))
            }
        }
    }

    /// How an object in this field is patched.
    fn field(self, key: &str) -> Result<Strategy<'t>> {
        let field = self.lookup(key, "an object")?;
        Ok(Strategy::of(field, &field.kind))
    }

    /// How a list in this field is patched; the place is that of its items.
    fn list(self, key: &str) -> Result<Strategy<'t>> {
        let field = self.lookup(key, "an object")?;
        Ok(Strategy::of(field, field.kind.item().unwrap_or(&field.kind)))
    }

    /// The Go name of the type.
    fn name(self) -> &'t str {
        match self {
            Self::Struct(ty) => ty.short_name(),
            Self::Opaque(name) | Self::Other(name) => name,
        }
    }
}

impl<'t> Strategy<'t> {
    fn of(field: &'t Field, kind: &'t Kind) -> Self {
        let place = match kind {
            Kind::Struct(id) => Place::Struct(Types::get().of(*id)),
            Kind::FieldsV1 => Place::Opaque("FieldsV1"),
            Kind::RawExtension => Place::Opaque("RawExtension"),
            Kind::Json => Place::Opaque("JSON"),
            Kind::Map(_) => Place::Other("map"),
            Kind::List(_) | Kind::Bytes => Place::Other("slice"),
            Kind::String => Place::Other("string"),
            _ => Place::Other("struct"),
        };
        Self { place, merge: field.patch_merge, replace: field.patch_replace, key: field.merge_key.unwrap_or_default() }
    }
}
