//! What unit tests of strategies share.

use std::collections::BTreeMap;

use corten_api::field::{Faults, Path};

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

/// What a check of `spec` finds.
pub(crate) fn told(check: impl FnOnce(&mut Faults, &Path<'_>)) -> Vec<String> {
    let mut faults = Faults::default();
    check(&mut faults, &Path::new("spec"));
    shown(&faults)
}

/// `field: message` of each fault.
pub(crate) fn shown(faults: &Faults) -> Vec<String> {
    faults.0.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect()
}
