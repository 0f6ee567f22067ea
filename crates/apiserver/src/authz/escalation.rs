//! Nobody grants what they do not hold: the check on writes of roles and bindings. It is an admission plugin that cannot be
//! switched off, so that every way to write an object passes it.

use std::sync::Arc;

use serde_json::Value;

use corten_api::status::Status;

use super::rbac::{GROUP, RoleRef};
use super::rules::{PolicyRule, describe, missing, quoted};
use super::{Attributes, Authorizer};
use crate::admission::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::user::MASTERS;

/// The check.
pub struct Escalation {
    authorizer: Arc<Authorizer>,
}

impl Escalation {
    /// A check by this authorizer.
    #[must_use]
    pub fn new(authorizer: Arc<Authorizer>) -> Self {
        Self { authorizer }
    }

    fn check(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let Some(object) = &request.object else { return Ok(()) };
        if request.user.is_in(MASTERS) || request.old.as_ref().is_some_and(|old| only_housekeeping(object, old)) {
            return Ok(());
        }
        match request.resource.as_str() {
            "roles" | "clusterroles" => self.check_role(request, object),
            _ => self.check_binding(request, object),
        }
    }

    fn check_role(&self, request: &AdmissionRequest, object: &Value) -> Result<(), Status> {
        let escalate = Attributes {
            namespace: &request.namespace,
            ..Attributes::resource(&request.user, "escalate", GROUP, &request.resource, &request.name)
        };
        if self.authorizer.allows(&escalate) {
            return Ok(());
        }
        let name = name_of(request, object);
        self.confirm(request, &rules_of(object)).map_err(|why| Status::forbidden(GROUP, &request.resource, &name, &why))?;
        // An aggregated role grows with every role that anybody labels: only who holds everything may make one.
        if object.get("aggregationRule").is_some_and(|rule| !rule.is_null())
            && self.confirm(request, &PolicyRule::everything()).is_err()
        {
            let why = "must have cluster-admin privileges to use the aggregationRule";
            return Err(Status::forbidden(GROUP, &request.resource, &name, why));
        }
        Ok(())
    }

    fn check_binding(&self, request: &AdmissionRequest, object: &Value) -> Result<(), Status> {
        let Ok(role) = serde_json::from_value::<RoleRef>(object["roleRef"].clone()) else { return Ok(()) }; // validation's
        let resource = match role.kind.as_str() {
            "ClusterRole" => "clusterroles",
            "Role" => "roles",
            other => {
                let why = format!("unsupported role reference kind: {}", corten_api::field::quoted(other));
                return Err(Status::failure(500, "", why));
            }
        };
        let bind = Attributes {
            namespace: &request.namespace,
            ..Attributes::resource(&request.user, "bind", GROUP, resource, &role.name)
        };
        if self.authorizer.allows(&bind) {
            return Ok(());
        }
        let rules = self.authorizer.rbac.role(&role, &request.namespace);
        let rules = rules.ok_or_else(|| Status::not_found(GROUP, &request.resource, &role.name))?;
        let name = name_of(request, object);
        self.confirm(request, &rules).map_err(|why| Status::forbidden(GROUP, &request.resource, &name, &why))
    }

    fn confirm(&self, request: &AdmissionRequest, wanted: &[PolicyRule]) -> Result<(), String> {
        let held = self.authorizer.rules_for(&request.user, &request.namespace);
        let missing = missing(&held.rules, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let (user, groups) = (&request.user.name, quoted(&request.user.groups));
        let mut why = format!(
            "user {user:?} (groups={groups}) is attempting to grant RBAC permissions not currently held:\n{}",
            describe(&missing)
        );
        if !held.errors.is_empty() {
            why.push_str(&format!("; resolution errors: [{}]", held.errors.join(" ")));
        }
        Err(why)
    }
}

impl Plugin for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.group == GROUP
            && matches!(request.operation, Operation::Create | Operation::Update)
            && matches!(request.resource.as_str(), "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings")
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        Box::pin(std::future::ready(self.check(request)))
    }
}

/// Whether a change is only about what the garbage collector needs to delete the object.
fn only_housekeeping(new: &Value, old: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
                metadata.remove(field);
            }
        }
        object
    };
    bare(new) == bare(old)
}

fn rules_of(object: &Value) -> Vec<PolicyRule> {
    serde_json::from_value::<Option<Vec<PolicyRule>>>(object["rules"].clone()).ok().flatten().unwrap_or_default()
}

fn name_of(request: &AdmissionRequest, object: &Value) -> String {
    let named = object.pointer("/metadata/name").and_then(Value::as_str);
    if request.name.is_empty() { named.unwrap_or_default().to_owned() } else { request.name.clone() }
}
