//! Fields whose values are a closed list: `kubectl explain` shows them.
//!
//! A table of their own, read when a document is made: nothing else asks for it.

use std::collections::HashMap;

const TEXT: &str = include_str!("../../facts/enums.txt");

/// The lists by the fields that have them.
pub(super) struct Enums(HashMap<&'static str, &'static str>);

impl Enums {
    pub(super) fn read() -> Self {
        let mut values = "";
        let mut fields = HashMap::new();
        for line in TEXT.lines().filter(|line| !line.starts_with('#')) {
            match line.strip_prefix("= ").and_then(|list| list.split_once(' ')) {
                Some((_, list)) => values = list,
                None => {
                    fields.insert(line, values);
                }
            }
        }
        Self(fields)
    }

    /// The values of a field in order, such as of `core.v1.ContainerPort` and `protocol`; none where any value may stand.
    pub(super) fn of(&self, type_name: &str, field: &str) -> Vec<&'static str> {
        let list = self.0.get(format!("{type_name} {field}").as_str());
        list.map(|list| list.split('|').collect()).unwrap_or_default()
    }
}

/// The words of a field with its values named below them.
pub(super) fn described(words: &str, values: &[&str]) -> String {
    let list: String = values.iter().map(|value| format!("\n - `\"{value}\"`")).collect();
    format!("{words}\n\nPossible enum values:{list}")
}
