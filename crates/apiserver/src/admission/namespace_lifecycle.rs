//! NamespaceLifecycle: nothing is made in a namespace that is absent or going, and some namespaces are for ever.

use corten_api::status::{Cause, Status};

use super::tools::done;
use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::reader::Reader;

/// Namespaces that may not be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle {
    pub(super) reader: Reader,
}

impl NamespaceLifecycle {
    fn check(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let of_namespaces = request.group.is_empty() && request.resource == "namespaces";
        if request.operation == Operation::Delete {
            if of_namespaces && IMMORTAL.contains(&request.name.as_str()) {
                return Err(request.forbidden("this namespace may not be deleted"));
            }
            return Ok(());
        }
        // Asking what is allowed somewhere does not need the place to be there.
        if request.namespace.is_empty() || of_namespaces || request.resource == "localsubjectaccessreviews" {
            return Ok(());
        }
        let namespace = &request.namespace;
        let found =
            self.reader.get("", "namespaces", "", namespace).ok_or_else(|| Status::not_found("", "namespaces", namespace))?;
        let going = found.deleting || found.field("status.phase") == Some("Terminating");
        if request.operation != Operation::Create || !going {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut status = request.forbidden(&why);
        status.details.get_or_insert_default().causes = vec![Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        }];
        Err(status)
    }
}

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn reads_content(&self, _: &AdmissionRequest) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation != Operation::Connect
    }

    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        done(self.check(request))
    }

    /// A deletion has no object to change, so it meets the judging pass only.
    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        let deletes = request.operation == Operation::Delete;
        done(if deletes { self.check(request) } else { Ok(()) })
    }
}
