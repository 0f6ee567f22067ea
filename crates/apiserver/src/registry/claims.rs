//! Who may change what in the status of a ResourceClaim: the allocation is for schedulers, and each driver speaks for its own
//! devices. Both are asked as rights on subresources that only exist for that (KEP-4817).

use corten_api::field::{Faults, Path};
use corten_kinds::claim_changes;
use serde_json::Value;

use super::write::Writing;
use crate::authz::{self, Attributes, Decision};
use crate::user::User;

const GROUP: &str = "resource.k8s.io";
const PLURAL: &str = "resourceclaims";
/// What a token of a service account says of the node that it is used on.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Adds a fault for each part of a claim's status that the user may not change.
pub(super) fn check_rights(writing: &Writing<'_>, document: &Value, old: &Value, faults: &mut Faults) {
    let stored = &writing.target.stored;
    if (stored.group.as_str(), stored.plural.as_str()) != (GROUP, PLURAL) {
        return;
    }
    let changes = claim_changes(document, old);
    let (user, verb, status) = (writing.user, writing.verb, Path::new("status"));
    if changes.binding {
        let asked = Attributes { subresource: "binding", ..Attributes::resource(user, verb, GROUP, PLURAL, "") };
        if let Some(why) = refused(writing, &asked) {
            let detail = format!(
                "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"{verb}\" \
                 permission: {why}"
            );
            faults.forbidden(&status.child("allocation"), &detail);
        }
    }
    let mut verbs = vec![format!("arbitrary-node:{verb}")];
    if changes.node.as_deref().is_some_and(|node| is_on(user, node)) {
        verbs.insert(0, format!("associated-node:{verb}"));
    }
    for driver in &changes.drivers {
        let ask = |verb: &String| {
            let asked = Attributes {
                subresource: "driver",
                namespace: &writing.namespace,
                ..Attributes::resource(user, verb, GROUP, PLURAL, driver)
            };
            refused(writing, &asked)
        };
        // One of the verbs is enough; the first refusal is told.
        let refusals: Option<Vec<String>> = verbs.iter().map(ask).collect();
        if let Some(why) = refusals.and_then(|all| all.into_iter().next()) {
            let verbs = verbs.join(" ");
            let detail = format!(
                "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{verbs}]\" permission: {why}"
            );
            faults.forbidden(&status.child("devices"), &detail);
        }
    }
}

fn refused(writing: &Writing<'_>, asked: &Attributes<'_>) -> Option<String> {
    match writing.state.authz.decide(asked) {
        Decision::Allow(_) => None,
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Some(authz::forbidden(asked, &reason).message),
    }
}

/// Whether a user is a service account whose token is used on this node.
fn is_on(user: &User, node: &str) -> bool {
    let account = user.name.strip_prefix("system:serviceaccount:").is_some_and(|rest| rest.split(':').count() == 2);
    account && user.extra.get(NODE_NAME).is_some_and(|names| names.len() == 1 && names[0] == node)
}
