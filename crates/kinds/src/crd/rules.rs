//! Whether the expressions of `x-kubernetes-validations` compile (KEP-2876): a schema becomes the type of `self`, and of
//! `oldSelf` for what was there before. What a rule costs at most is not estimated.

use corten_api::field::{Faults, Path};
use corten_cel::{Environment, Type};
use serde_json::Value;

use crate::check;
use crate::doc::Read;
use crate::internal;

/// Compiles the rules of `schema`. `root` when it is the schema of a whole resource; `uncorrelatable` is where what is below can
/// no more be found again in an older object.
pub(super) fn compile(faults: &mut Faults, path: &Path<'_>, schema: &Value, root: bool, uncorrelatable: Option<&str>) {
    let rules = schema.list("x-kubernetes-validations");
    if rules.is_empty() {
        return;
    }
    let path = path.child("x-kubernetes-validations");
    let root = root || schema.flag("x-kubernetes-embedded-resource");
    let mut types = Types { environment: Environment::base(), count: 0 };
    let Some(kind) = types.of(schema, root) else {
        return faults.internal(&path, "internal error: failed to retrieve type information for x-kubernetes-validations");
    };
    let alone = types.environment.variable("self", kind.clone());
    for (i, rule) in rules.iter().enumerate() {
        one(faults, &path.index(i), rule, &alone, &kind, uncorrelatable);
    }
}

fn one(faults: &mut Faults, path: &Path<'_>, rule: &Value, alone: &Environment, kind: &Type, uncorrelatable: Option<&str>) {
    let text = rule.text("rule");
    let optional = rule.opt_flag("optionalOldSelf");
    let mut uses_old = false;
    if !text.trim().is_empty() {
        let old = if optional == Some(true) { Type::optional(kind.clone()) } else { kind.clone() };
        let environment = alone.clone().variable("oldSelf", old);
        let refuse = |faults: &mut Faults, key: &str, why: &str| {
            check::invalid_shown(faults, &path.child(key), &internal::shown("ValidationRule", rule), why);
        };
        match environment.compile(text) {
            Err(issues) => refuse(faults, "rule", &format!("compilation failed: {issues}")),
            Ok(checked) if *checked.output() != Type::Bool => {
                refuse(faults, "rule", "cel expression must evaluate to a bool");
            }
            Ok(_) => {
                // What does not compile without the variable uses it.
                uses_old = alone.compile(text).is_err();
                let message = rule.text("messageExpression");
                if !message.is_empty() {
                    match environment.compile(message) {
                        Err(issues) => {
                            let why = format!("messageExpression compilation failed: {issues}");
                            refuse(faults, "messageExpression", &why);
                        }
                        Ok(checked) if *checked.output() != Type::String => {
                            refuse(faults, "messageExpression", "messageExpression must evaluate to a string");
                        }
                        Ok(_) => {}
                    }
                }
            }
        }
    }
    match (uses_old, uncorrelatable, optional) {
        (true, Some(place), _) => {
            let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {place}");
            faults.invalid_str(&path.child("rule"), text, &why);
        }
        (false, _, Some(optional)) => {
            let why = "may not be set if oldSelf is not used in rule";
            faults.invalid(&path.child("optionalOldSelf"), &optional.into(), why);
        }
        _ => {}
    }
}

/// Types made of schemas, each object a message of its own.
struct Types {
    environment: Environment,
    count: usize,
}

impl Types {
    /// The type of what a schema describes; none when it says too little.
    fn of(&mut self, schema: &Value, root: bool) -> Option<Type> {
        if schema.flag("x-kubernetes-int-or-string") {
            return Some(Type::Dyn);
        }
        match schema.text("type") {
            "object" => self.object(schema, root),
            _ if root => self.object(schema, root),
            "array" => {
                let item = schema.opt("items").filter(|item| item.is_object())?;
                Some(Type::list(self.of(item, item.flag("x-kubernetes-embedded-resource"))?))
            }
            "string" => Some(match schema.text("format") {
                "byte" => Type::Bytes,
                "duration" => Type::Duration,
                "date" | "date-time" => Type::Timestamp,
                _ => Type::String,
            }),
            "boolean" => Some(Type::Bool),
            "number" => Some(Type::Double),
            "integer" => Some(Type::Int),
            _ => None,
        }
    }

    fn object(&mut self, schema: &Value, root: bool) -> Option<Type> {
        if let Some(values) = schema.opt("additionalProperties").filter(|values| values.is_object()) {
            let value = self.of(values, values.flag("x-kubernetes-embedded-resource"))?;
            return Some(Type::map(Type::String, value));
        }
        let name = self.message();
        for (key, property) in schema.map("properties") {
            if root && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let kind = self.of(property, property.flag("x-kubernetes-embedded-resource"));
            if let (Some(kind), Some(field)) = (kind, escaped(key)) {
                self.environment.add_field(&name, &field, kind);
            }
        }
        if root {
            let metadata = self.message();
            for field in ["name", "generateName"] {
                self.environment.add_field(&metadata, field, Type::String);
            }
            for field in ["apiVersion", "kind"] {
                self.environment.add_field(&name, field, Type::String);
            }
            self.environment.add_field(&name, "metadata", Type::structure(&metadata));
        }
        Some(Type::structure(&name))
    }

    /// The name of a new message without fields.
    fn message(&mut self) -> String {
        self.count += 1;
        let name = format!("selfType{}", self.count);
        let environment = std::mem::replace(&mut self.environment, Environment::base());
        self.environment = environment.message(&name, []);
        name
    }
}

/// A property's name as expressions write it: words and characters that CEL does not allow are spelled out.
fn escaped(name: &str) -> Option<String> {
    const WORDS: [&str; 15] = [
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
        "loop",
    ];
    const MORE: [&str; 6] = ["package", "namespace", "return", "var", "void", "while"];
    if WORDS.contains(&name) || MORE.contains(&name) {
        return Some(format!("__{name}__"));
    }
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c == '_' || c.is_ascii_alphanumeric() => out.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::shown;

    fn told(mut schema: Value, rule: Value) -> Vec<String> {
        schema["x-kubernetes-validations"] = json!([rule]);
        let mut faults = Faults::default();
        compile(&mut faults, &Path::new("s"), &schema, false, Some("s.items"));
        shown(&faults)
    }

    #[test]
    fn rules_see_what_the_schema_says() {
        let schema = || {
            json!({"type": "object", "properties": {
                "a": {"type": "string"}, "n": {"type": "integer"}, "in": {"type": "boolean"}, "b-c": {"type": "number"},
                "l": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string", "format": "duration"}}}},
                "m": {"type": "object", "additionalProperties": {"type": "integer"}},
            }})
        };
        for fits in [
            "self.a.startsWith('x') && self.n > 1 && self.__in__ && self.b__dash__c > 1.0",
            "self.l.all(i, i.k < duration('1s')) && self.m['x'] == 1",
        ] {
            assert_eq!(told(schema(), json!({ "rule": fits })), [""; 0], "{fits}");
        }
        let faults = told(schema(), json!({"rule": "self.nope"}));
        assert!(faults[0].contains("compilation failed: ERROR: <input>:1:5: undefined field 'nope'"), "{faults:?}");
        let faults = told(schema(), json!({"rule": "self.n + 1"}));
        assert!(faults[0].ends_with("cel expression must evaluate to a bool"), "{faults:?}");
        let faults = told(schema(), json!({"rule": "true", "messageExpression": "1"}));
        assert!(faults[0].ends_with("messageExpression must evaluate to a string"), "{faults:?}");
    }

    #[test]
    fn older_objects_are_compared_where_they_can_be_found() {
        let faults = told(json!({"type": "string"}), json!({"rule": "self == oldSelf"}));
        let why = "oldSelf cannot be used on the uncorrelatable portion of the schema within s.items";
        assert_eq!(faults, [format!("s.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": {why}")]);
        let faults = told(json!({"type": "string"}), json!({"rule": "true", "optionalOldSelf": true}));
        assert!(faults[0].ends_with("may not be set if oldSelf is not used in rule"), "{faults:?}");
    }
}
