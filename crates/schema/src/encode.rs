//! From a document to bytes.

use serde_json::Value;

mod yaml;

pub use yaml::yaml;

/// The canonical bytes of a document: members sorted by name, no white space. Equal documents give equal bytes.
#[must_use]
pub fn json(document: &Value) -> Vec<u8> {
    // Writing to memory cannot fail, and a document has no keys that are not strings.
    serde_json::to_vec(document).unwrap_or_default()
}

/// The bytes of a document for people: a member a line, indented by two spaces.
#[must_use]
pub fn json_pretty(document: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(document).unwrap_or_default()
}
