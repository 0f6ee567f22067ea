//! When containers are started again (KEP-5307).

use corten_api::field::{Faults, Path};
use serde_json::Value;

use crate::check;
use crate::doc::Read;

/// `restartPolicy` and `restartPolicyRules` of a regular container, or of an init container that has a policy (KEP-5307).
pub(super) fn restart_policy(faults: &mut Faults, path: &Path<'_>, container: &Value) {
    let rules = container.list("restartPolicyRules");
    let policy_at = path.child("restartPolicy");
    match container.opt_text("restartPolicy") {
        None if rules.is_empty() => return,
        None => faults.required(&policy_at, RULES_WITHOUT_POLICY),
        Some(policy) => check::one_of(faults, &policy_at, policy, &["Always", "Never", "OnFailure"]),
    }
    let at = path.child("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        faults.too_many(&at, rules.len(), MAX_RESTART_RULES);
    }
    for (i, rule) in rules.iter().enumerate() {
        let here = at.index(i);
        check::one_of(faults, &here.child("action"), rule.text("action"), &["Restart", "RestartAllContainers"]);
        let exit = here.child("exitCodes");
        let Some(codes) = rule.opt("exitCodes") else {
            faults.required(&exit, "must be specified");
            continue;
        };
        check::one_of(faults, &exit.child("operator"), codes.text("operator"), &["In", "NotIn"]);
        let count = codes.list("values").len();
        if count > MAX_EXIT_CODES {
            faults.too_many(&exit.child("values"), count, MAX_EXIT_CODES);
        }
    }
}

const RULES_WITHOUT_POLICY: &str = "must specify restartPolicy when restart rules are used";

const MAX_RESTART_RULES: usize = 20;

const MAX_EXIT_CODES: usize = 255;

/// The same of an init container: rules alone ask only for a policy.
pub(super) fn init_restart_policy(faults: &mut Faults, path: &Path<'_>, container: &Value) {
    if container.has("restartPolicy") {
        restart_policy(faults, path, container);
    } else if !container.list("restartPolicyRules").is_empty() {
        faults.required(&path.child("restartPolicy"), RULES_WITHOUT_POLICY);
    }
}
