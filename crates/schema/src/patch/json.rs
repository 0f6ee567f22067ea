//! JSON Patch (RFC 6902), as the library upstream uses understands it.

use serde_json::Value;

use super::show::Touched;
use super::{MAX_COPIED, MAX_OPERATIONS, PatchError};
use crate::decode;

/// One operation; what it lacks is noticed when it is carried out.
#[derive(Clone, Debug, Default)]
pub(super) struct Operation {
    op: String,
    path: Option<String>,
    from: Option<String>,
    value: Option<Value>,
}

impl Operation {
    /// Whether it is plain that managed fields are neither read nor written.
    pub(super) fn is_aside(&self) -> bool {
        let aside = |path: &String| {
            let mut steps = path.trim_start_matches('/').split('/');
            match steps.next() {
                Some("metadata") => {
                    matches!(steps.next(), Some("annotations" | "finalizers" | "labels" | "ownerReferences"))
                }
                Some(first) => !first.is_empty() && !first.contains('~'),
                None => false,
            }
        };
        self.path.iter().chain(&self.from).all(aside)
    }

    /// Whether it sets or removes a label or an annotation that means nothing to Kubernetes.
    pub(super) fn relabels(&self) -> bool {
        let sets = match self.op.as_str() {
            "add" | "replace" => self.value.as_ref().is_some_and(Value::is_string),
            "remove" => true,
            _ => false,
        };
        let steps = self.path.as_deref().and_then(|path| path.strip_prefix("/metadata/")?.split_once('/'));
        sets && steps.is_some_and(|(field, name)| super::is_labels(field) && super::is_foreign(&name.replace("~1", "/")))
    }
}

/// Reads a patch and reports unknown and doubled members.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<Operation>, Vec<String>), PatchError> {
    let bad = |text: String| PatchError::BadRequest(format!("error decoding patch: {text}"));
    // Values are read without a type, but as what they are of an operation.
    let of_value = |text: String| text.replace("Go value of type float64", "Go struct field jsonPatchOp.value of type float64");
    let decoded = decode::decode_as_written(bytes).map_err(|err| bad(of_value(err.to_string())))?;
    let mut strict: Vec<String> = decoded.strict.iter().map(|fault| format!("json patch {fault}")).collect();
    let list = match decoded.document {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        other => {
            return Err(bad(format!("json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp", kind(&other))));
        }
    };
    if list.len() > MAX_OPERATIONS {
        let found = list.len();
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {found}"
        )));
    }
    let mut operations = Vec::with_capacity(list.len());
    for (at, item) in list.into_iter().enumerate() {
        let members = match item {
            Value::Object(members) => members,
            Value::Null => serde_json::Map::new(),
            other => {
                return Err(bad(format!("json: cannot unmarshal {} into Go value of type handlers.jsonPatchOp", kind(&other))));
            }
        };
        let mut operation = Operation::default();
        for (name, value) in members {
            let text = |value: Value| match value {
                Value::String(text) => Ok(Some(text)),
                Value::Null => Ok(None),
                other => Err(bad(format!(
                    "json: cannot unmarshal {} into Go struct field jsonPatchOp.{name} of type string",
                    kind(&other)
                ))),
            };
            match name.as_str() {
                "op" => operation.op = text(value)?.unwrap_or_else(|| "unknown".into()),
                "path" => operation.path = text(value)?,
                "from" => operation.from = text(value)?,
                "value" => operation.value = Some(value),
                _ => strict.push(format!("json patch unknown field \"[{at}].{name}\"")),
            }
        }
        operations.push(operation);
    }
    Ok((operations, strict))
}

/// What the operations look into.
pub(super) fn touched(operations: &[Operation]) -> Touched {
    let mut root = Touched::default();
    for operation in operations {
        for path in operation.path.iter().chain(&operation.from) {
            let mut at = &mut root;
            let steps: Vec<String> = path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
            for (i, step) in steps.iter().enumerate() {
                let is_last = i + 1 == steps.len();
                if is_last && operation.value.is_none() {
                    break;
                }
                at = at.members.entry(step.clone()).or_default();
                at.is_new |= is_last;
            }
        }
    }
    root
}

/// Carries the operations out, all or none.
pub(super) fn apply(mut document: Value, operations: &[Operation]) -> Result<Value, PatchError> {
    let mut copied = 0;
    for operation in operations {
        carry_out(&mut document, operation, &mut copied).map_err(PatchError::Unprocessable)?;
    }
    Ok(document)
}

fn carry_out(document: &mut Value, operation: &Operation, copied: &mut usize) -> Result<(), String> {
    let op = operation.op.as_str();
    let path = || operation.path.as_deref().ok_or_else(|| format!("{op} operation failed to decode path: missing value"));
    let from = || operation.from.as_deref().ok_or_else(|| format!("{op} operation failed to decode from: missing value"));
    // An operation without a value puts null.
    let value = || operation.value.clone().unwrap_or_default();
    match op {
        "add" => add(document, op, path()?, value()),
        "remove" => remove(document, op, path()?).map(drop),
        "replace" => {
            let path = path()?;
            if path.is_empty() {
                let value = value();
                if !value.is_object() && !value.is_array() {
                    return Err("replace operation value must be object or array".into());
                }
                *document = value;
                return Ok(());
            }
            match container(document, path) {
                Some((Value::Object(map), key)) => {
                    map.insert(key, value());
                    Ok(())
                }
                Some((Value::Array(list), key)) => {
                    let at = index(&key, list.len(), list.len())
                        .map_err(|_| format!("replace operation does not apply: doc is missing key: {path}: missing value"))?;
                    list[at] = value();
                    Ok(())
                }
                _ => Err(format!("replace operation does not apply: doc is missing path: {path}: missing value")),
            }
        }
        "move" => {
            let moved = remove(document, op, from()?)?;
            add(document, op, path()?, moved)
        }
        "copy" => {
            let from = from()?;
            let found = get(document, from).map_err(|err| format!("error in copy for from: '{from}': {err}"))?;
            let found = found.cloned().unwrap_or_default();
            *copied += crate::encode::json(&found).len();
            if *copied > MAX_COPIED {
                return Err(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
                ));
            }
            add(document, op, path()?, found)
        }
        "test" => {
            let path = path()?;
            let wanted = operation.value.as_ref().filter(|value| !value.is_null());
            let found = if path.is_empty() {
                Some(&*document)
            } else {
                get(document, path).map_err(|err| format!("error in test for path: '{path}': {err}"))?
            };
            let equal = match (found.filter(|value| !value.is_null()), wanted) {
                (Some(found), Some(wanted)) => same(found, wanted),
                (found, wanted) => found.is_none() && wanted.is_none(),
            };
            if equal { Ok(()) } else { Err(format!("testing value {path} failed: test failed")) }
        }
        op => Err(format!("Unexpected kind: {}", if op.is_empty() { "unknown" } else { op })),
    }
}

fn add(document: &mut Value, op: &str, path: &str, value: Value) -> Result<(), String> {
    match container(document, path) {
        Some((Value::Object(map), key)) => {
            map.insert(key, value);
            Ok(())
        }
        Some((Value::Array(list), key)) => {
            let length = list.len();
            let at = if key == "-" { Ok(length) } else { index(&key, length + 1, length + 1) };
            list.insert(at.map_err(|err| format!("error in {op} for path: '{path}': {err}"))?, value);
            Ok(())
        }
        _ => Err(format!("{op} operation does not apply: doc is missing path: \"{path}\": missing value")),
    }
}

fn remove(document: &mut Value, op: &str, path: &str) -> Result<Value, String> {
    let removed = match container(document, path) {
        Some((Value::Object(map), key)) => {
            map.remove(&key).ok_or_else(|| format!("Unable to remove nonexistent key: {key}: missing value"))
        }
        Some((Value::Array(list), key)) => index(&key, list.len(), list.len()).map(|at| list.remove(at)),
        _ => return Err(format!("{op} operation does not apply: doc is missing path: \"{path}\": missing value")),
    };
    removed.map_err(|err| format!("error in {op} for path: '{path}': {err}"))
}

fn get<'v>(document: &'v mut Value, path: &str) -> Result<Option<&'v Value>, String> {
    match container(document, path) {
        Some((Value::Object(map), key)) => Ok(map.get(&key)),
        Some((Value::Array(list), key)) => index(&key, list.len(), list.len()).map(|at| list.get(at)),
        _ => Err("missing value".into()),
    }
}

/// The object or list that the last step of a path is about, and that step. What stands before the first slash is ignored.
fn container<'v>(document: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let mut steps: Vec<&str> = path.split('/').skip(1).collect();
    let last = steps.pop()?;
    let mut at = document;
    for step in steps {
        at = match at {
            Value::Object(map) => map.get_mut(&unescaped(step))?,
            Value::Array(list) => {
                let at = index(&unescaped(step), list.len(), list.len()).ok()?;
                list.get_mut(at)?
            }
            _ => return None,
        };
    }
    Some((at, unescaped(last)))
}

/// An index below `limit`; negative ones count back from `base`.
fn index(key: &str, limit: usize, base: usize) -> Result<usize, String> {
    let number: i64 = key.parse().map_err(|_| format!("strconv.Atoi: parsing {key:?}: invalid syntax"))?;
    let base = i64::try_from(base).unwrap_or(i64::MAX);
    let at = if number < 0 { number + base } else { number };
    usize::try_from(at)
        .ok()
        .filter(|at| *at < limit)
        .ok_or_else(|| format!("Unable to access invalid index: {number}: invalid state detected"))
}

fn unescaped(step: &str) -> String {
    if step.contains('~') { step.replace("~1", "/").replace("~0", "~") } else { step.into() }
}

/// Equality of JSON: `1` and `1.0` are one number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::Null => "null",
    }
}
