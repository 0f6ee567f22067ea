//! The short hash in names of generated objects: FNV-1a of the JSON, in letters that spell no words.
//!
//! Upstream hashes its in-memory representation, so values differ from upstream's, which nothing depends on: objects are
//! found by comparing templates, the hash only has to be stable and to differ where templates do.

use serde::Serialize;

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of `value`; `collisions` is how often the name that came out was taken by something else.
pub(crate) fn short_hash(value: &impl Serialize, collisions: Option<i32>) -> String {
    let mut hash = fnv1a(0x811c_9dc5, &serde_json::to_vec(value).unwrap_or_default());
    if let Some(collisions) = collisions {
        hash = fnv1a(hash, &collisions.to_le_bytes());
    }
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn fnv1a(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_stable_and_differ() {
        assert_eq!(fnv1a(0x811c_9dc5, b"a"), 0xe40c_292c, "the published test vector");
        assert_eq!(short_hash(&"a", None), short_hash(&"a", None));
        assert_ne!(short_hash(&"a", None), short_hash(&"b", None));
        assert_ne!(short_hash(&"a", None), short_hash(&"a", Some(1)));
        assert_ne!(short_hash(&"a", Some(1)), short_hash(&"a", Some(2)));
    }
}
