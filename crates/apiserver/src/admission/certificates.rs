//! Plugins for certificate signing requests: who may approve and sign for a signer, and what may not be asked for.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use corten_api::status::Status;

use super::tools::{done, text};
use super::{AdmissionRequest, Operation, Plugin, Verdict};
use crate::authz::{Attributes, Authorizer};
use crate::user::MASTERS;

const GROUP: &str = "certificates.k8s.io";

/// CertificateApproval and CertificateSigning: the verbs `approve` and `sign` on the signer.
pub(super) struct ForSigner {
    authorizer: Arc<Authorizer>,
    name: &'static str,
    subresource: &'static str,
    verb: &'static str,
}

impl ForSigner {
    pub(super) fn approval(authorizer: Arc<Authorizer>) -> Self {
        Self { authorizer, name: "CertificateApproval", subresource: "approval", verb: "approve" }
    }

    pub(super) fn signing(authorizer: Arc<Authorizer>) -> Self {
        Self { authorizer, name: "CertificateSigning", subresource: "status", verb: "sign" }
    }

    fn check(&self, request: &AdmissionRequest) -> Result<(), Status> {
        let (Some(new), Some(old)) = (&request.object, &request.old) else { return Ok(()) };
        // Only a certificate or a verdict needs the right to sign; everything else of the status is free.
        let untouched = new["status"]["certificate"] == old["status"]["certificate"]
            && new["status"]["conditions"] == old["status"]["conditions"];
        if self.verb == "sign" && untouched {
            return Ok(());
        }
        let signer = text(old, "/spec/signerName");
        let domain = signer.split('/').next().unwrap_or_default();
        let allowed = [signer, &format!("{domain}/*")]
            .into_iter()
            .any(|name| self.authorizer.allows(&Attributes::resource(&request.user, self.verb, GROUP, "signers", name)));
        match allowed {
            true => Ok(()),
            false => Err(request.forbidden(&format!("user not permitted to {} requests with signerName {signer:?}", self.verb))),
        }
    }
}

impl Plugin for ForSigner {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Update
            && request.group == GROUP
            && request.resource == "certificatesigningrequests"
            && request.subresource == self.subresource
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        done(self.check(request))
    }
}

/// CertificateSubjectRestriction: nobody gets a client certificate of `system:masters`.
pub(super) struct CertificateSubjectRestriction;

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn reads_managed_fields(&self) -> bool {
        false
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is(GROUP, "certificatesigningrequests")
    }

    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        let asked = request.object.as_ref().is_some_and(|object| {
            text(object, "/spec/signerName") == CLIENT_SIGNER
                && organizations(text(object, "/spec/request")).is_some_and(|groups| groups.iter().any(|group| group == MASTERS))
        });
        let outcome = match asked {
            true => Err(request.forbidden(&format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"))),
            false => Ok(()),
        };
        done(outcome)
    }
}

/// The organizations that a request (base64 of PEM) asks for; `None` when it cannot be read, which validation tells.
fn organizations(encoded: &str) -> Option<Vec<String>> {
    let pem = STANDARD.decode(encoded).ok()?;
    let pem = Pem::iter_from_buffer(&pem).next()?.ok()?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    let names = subject.iter_by_oid(&ORGANIZATION).filter_map(|name| name.as_str().ok());
    Some(names.map(str::to_owned).collect())
}

static ORGANIZATION: x509_parser::oid_registry::Oid<'static> = OID_X509_ORGANIZATION_NAME;
