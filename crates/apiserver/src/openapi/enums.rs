//! Fields whose values are a closed list: `kubectl explain` shows them.
//!
//! A table of their own, read when a document is made: nothing else asks for it.

use std::collections::HashMap;

use serde_json::{Value, json};

const TEXT: &str = include_str!("../../facts/enums.txt");

/// The lists by the fields that have them.
pub(super) struct Enums(HashMap<&'static str, &'static str>);

/// The values of a field in order.
pub(super) struct Values {
    /// Divided by `|`.
    list: &'static str,
    /// Whether an empty line stands between what is said of the field and its values.
    apart: bool,
}

// === impl Enums ===

impl Enums {
    pub(super) fn read() -> Self {
        let (mut fields, mut list) = (HashMap::new(), "");
        for line in TEXT.lines().filter(|line| !line.starts_with('#')) {
            match line.strip_prefix("= ") {
                Some(values) => list = values,
                None => {
                    fields.insert(line, list);
                }
            }
        }
        Self(fields)
    }

    /// The values of a field, such as of `core.v1.ContainerPort` and `protocol`; none where any value may stand.
    pub(super) fn of(&self, type_name: &str, field: &str) -> Option<Values> {
        let name = format!("{type_name} {field}");
        let of = |name: &str, apart| self.0.get(name).map(|list| Values { list, apart });
        of(&name, false).or_else(|| of(&format!("{name} +"), true))
    }
}

// === impl Values ===

impl Values {
    fn each(&self) -> impl Iterator<Item = &'static str> {
        self.list.split('|')
    }

    /// Says of the schema of a field, or of what is in it, which values it may have. Only of the field itself the words tell.
    pub(super) fn enumerate(&self, property: &mut Value) {
        let values: Value = self.each().map(|value| json!(value)).collect();
        for inner in ["items", "additionalProperties"] {
            if let Some(inner) = property.get_mut(inner) {
                inner["enum"] = values;
                return;
            }
        }
        property["enum"] = values;
        if let Some(words) = property["description"].as_str() {
            let apart = if self.apart { "\n" } else { "" };
            let list: String = self.each().map(|value| format!("\n - `\"{value}\"`")).collect();
            property["description"] = format!("{words}{apart}\n\nPossible enum values:{list}").into();
        }
    }
}
