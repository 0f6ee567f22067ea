//! Reading and writing documents as Go's typed objects behave: an absent field reads as its zero value, and a field set to
//! its zero value is absent. Every rule of this crate is written with these few verbs.

use serde_json::{Map, Value, json};

use crate::quantity::Quantity;

/// Reading a document. A missing field, `null` and a field of another type all read as the zero value.
pub(crate) trait Read {
    /// The string at `key`, or `""`.
    fn text(&self, key: &str) -> &str;
    /// The string at `key`, if there is one.
    fn opt_text(&self, key: &str) -> Option<&str>;
    /// The integer at `key`, or 0.
    fn int(&self, key: &str) -> i64;
    /// The integer at `key`, if there is one.
    fn opt_int(&self, key: &str) -> Option<i64>;
    /// The boolean at `key`, or `false`.
    fn flag(&self, key: &str) -> bool;
    /// The boolean at `key`, if there is one.
    fn opt_flag(&self, key: &str) -> Option<bool>;
    /// The items at `key`, or none.
    fn list(&self, key: &str) -> &[Value];
    /// The strings at `key`, or none.
    fn texts(&self, key: &str) -> impl Iterator<Item = &str>;
    /// The members at `key`, or none.
    fn map(&self, key: &str) -> &Map<String, Value>;
    /// Whether `key` is there and not null: a Go pointer that is not nil.
    fn has(&self, key: &str) -> bool;
    /// The value at `key` when it is there and not null.
    fn opt(&self, key: &str) -> Option<&Value>;
}

static NO_ITEMS: [Value; 0] = [];
static NO_MEMBERS: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl Read for Value {
    fn text(&self, key: &str) -> &str {
        self[key].as_str().unwrap_or_default()
    }

    fn opt_text(&self, key: &str) -> Option<&str> {
        self[key].as_str()
    }

    fn int(&self, key: &str) -> i64 {
        self[key].as_i64().unwrap_or_default()
    }

    fn opt_int(&self, key: &str) -> Option<i64> {
        self[key].as_i64()
    }

    fn flag(&self, key: &str) -> bool {
        self[key].as_bool().unwrap_or_default()
    }

    fn opt_flag(&self, key: &str) -> Option<bool> {
        self[key].as_bool()
    }

    fn list(&self, key: &str) -> &[Value] {
        self[key].as_array().map_or(&NO_ITEMS, Vec::as_slice)
    }

    fn texts(&self, key: &str) -> impl Iterator<Item = &str> {
        self.list(key).iter().map(|item| item.as_str().unwrap_or_default())
    }

    fn map(&self, key: &str) -> &Map<String, Value> {
        self[key].as_object().unwrap_or(&NO_MEMBERS)
    }

    fn has(&self, key: &str) -> bool {
        !self[key].is_null()
    }

    fn opt(&self, key: &str) -> Option<&Value> {
        self.get(key).filter(|value| !value.is_null())
    }
}

/// Changing a document. Nothing happens to a value that is no object, so a malformed document cannot cause a panic.
pub(crate) trait Write {
    /// Sets `key`; a null removes it.
    fn put(&mut self, key: &str, value: impl Into<Value>);
    /// Sets `key` when it is absent, null, or the empty string.
    fn default_to(&mut self, key: &str, value: impl Into<Value>);
    /// Sets the integer `key` when it is absent or 0.
    fn default_int(&mut self, key: &str, value: i64);
    /// Removes `key`.
    fn drop_key(&mut self, key: &str);
    /// The object at `key`, made when it is absent.
    fn object(&mut self, key: &str) -> &mut Value;
    /// The object at `key`, if there is one.
    fn child(&mut self, key: &str) -> Option<&mut Value>;
    /// The items at `key`, or none.
    fn items(&mut self, key: &str) -> std::slice::IterMut<'_, Value>;
    /// Makes `key` what it is in `from`, absence included.
    fn copy_from(&mut self, from: &Value, key: &str);
}

impl Write for Value {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        if let Some(map) = self.as_object_mut() {
            if value.is_null() {
                map.remove(key);
            } else {
                map.insert(key.to_owned(), value);
            }
        }
    }

    fn default_to(&mut self, key: &str, value: impl Into<Value>) {
        let unset = match self.get(key) {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(_) => false,
        };
        if unset {
            self.put(key, value);
        }
    }

    fn default_int(&mut self, key: &str, value: i64) {
        if self.int(key) == 0 {
            self.put(key, value);
        }
    }

    fn drop_key(&mut self, key: &str) {
        if let Some(map) = self.as_object_mut() {
            map.remove(key);
        }
    }

    fn object(&mut self, key: &str) -> &mut Value {
        if self.is_null() {
            *self = json!({});
        }
        if !self.is_object() {
            return self;
        }
        let value = &mut self[key];
        if value.is_null() {
            *value = json!({});
        }
        value
    }

    fn child(&mut self, key: &str) -> Option<&mut Value> {
        self.get_mut(key).filter(|value| value.is_object())
    }

    fn items(&mut self, key: &str) -> std::slice::IterMut<'_, Value> {
        match self.get_mut(key) {
            Some(Value::Array(items)) => items.iter_mut(),
            _ => [].iter_mut(),
        }
    }

    fn copy_from(&mut self, from: &Value, key: &str) {
        self.put(key, from[key].clone());
    }
}

/// Whether two maps of quantities name the same amounts, however they are written.
fn amounts_equal(a: &Value, b: &Value) -> bool {
    let (Value::Object(x), Value::Object(y)) = (a, b) else { return semantic_equal(a, b) };
    let same = |one: &Value, other: &Value| {
        one == other
            || matches!((Quantity::of(one), Quantity::of(other)), (Some(one), Some(other)) if one.amount() == other.amount())
    };
    x.len() == y.len() && x.iter().all(|(name, one)| y.get(name).is_some_and(|other| same(one, other)))
}

/// Whether two values are equal for Kubernetes (`apiequality.Semantic`): an absent, null or empty list is the same, and so
/// are two ways to write an amount. An empty object is not the same as none: it may be a pointer that is set.
pub(crate) fn semantic_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        // Members are in order, and mostly the same on both sides: then none has to be looked for.
        (Value::Object(x), Value::Object(y)) if x.len() == y.len() && x.keys().eq(y.keys()) => {
            x.iter().zip(y.values()).all(|((key, a), b)| member_equal(key, a, b))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(key, value)| member_equal(key, value, y.get(key).unwrap_or(&Value::Null)))
                && y.iter().all(|(key, value)| x.contains_key(key) || member_equal(key, &Value::Null, value))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| semantic_equal(a, b)),
        (Value::Null, Value::Array(items)) | (Value::Array(items), Value::Null) => items.is_empty(),
        _ => a == b,
    }
}

fn member_equal(key: &str, a: &Value, b: &Value) -> bool {
    let amounts = matches!(key, "limits" | "overhead" | "podFixed" | "requests");
    match (a, b) {
        // The only maps that come here empty.
        (Value::Null, Value::Object(map)) | (Value::Object(map), Value::Null) => {
            map.is_empty() && (amounts || matches!(key, "labels" | "matchLabels" | "options" | "parameters" | "volumeAttributes"))
        }
        (Value::Object(_), Value::Object(_)) if amounts => amounts_equal(a, b),
        _ => semantic_equal(a, b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn equality_is_of_meaning() {
        check(json!({ "a": [] }), json!({}), true);
        check(json!({ "a": null }), json!({}), true);
        check(json!({ "a": {} }), json!({}), false); // a pointer that is set
        check(json!({ "labels": {} }), json!({}), true);
        check(json!({ "labels": {} }), json!({ "labels": null }), true);
        check(json!({ "labels": {} }), json!({ "labels": { "a": "b" } }), false);
        check(json!({ "limits": { "cpu": "2" } }), json!({ "limits": { "cpu": "2E0" } }), true);
        check(json!({ "limits": { "memory": "1Ki" } }), json!({ "limits": { "memory": "1024" } }), true);
        check(json!({ "limits": { "cpu": "2" } }), json!({ "limits": { "cpu": "3" } }), false);
        check(json!({ "name": "2" }), json!({ "name": "2E0" }), false);

        #[track_caller]
        fn check(a: Value, b: Value, equal: bool) {
            assert_eq!((semantic_equal(&a, &b), semantic_equal(&b, &a)), (equal, equal));
        }
    }
}
