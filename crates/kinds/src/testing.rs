//! What unit tests of strategies share.

use std::collections::BTreeMap;

use crate::Context;

static EXTRA: BTreeMap<String, Vec<String>> = BTreeMap::new();

/// A request for a subresource (or, with an empty one, the object itself) by an administrator.
pub(crate) fn context(subresource: &str) -> Context<'_> {
    Context {
        now: jiff::Timestamp::UNIX_EPOCH,
        namespace: "default",
        user: "admin",
        user_uid: "admin",
        groups: &[],
        extra: &EXTRA,
        subresource,
        labels_given: true,
        version: "v1",
    }
}

/// `field: message` of each fault.
pub(crate) fn shown(faults: &corten_api::field::Faults) -> Vec<String> {
    faults.0.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect()
}
