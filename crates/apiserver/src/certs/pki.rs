//! Authorities and what they sign: ECDSA P-256 keys, certificates of one year, a CA of ten.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{CertsError, files};

static COMMON_NAME: Oid<'static> = x509_parser::oid_registry::OID_X509_COMMON_NAME;
static ORGANIZATION: Oid<'static> = x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME;

const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A certificate chain and its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, and those that lead to its CA.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// Common name: the user.
    pub(super) user: String,
    /// Organization: the group, empty for none.
    pub(super) group: String,
    /// Names and addresses it serves; a client serves none.
    pub(super) names: Vec<String>,
}

/// A CA: its certificate and its key.
pub(super) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

// === impl Authority ===

impl Authority {
    /// Reads the CA `name` in `directory`, or makes it.
    pub(super) fn open(directory: &Path, name: &str, common_name: &str) -> Result<Self, CertsError> {
        let (cert_path, key_path) = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
        // The key is written first: a certificate without its key is the user's mistake, not a crash of ours.
        if !cert_path.exists() {
            let key = match key_path.exists() {
                true => read_key(&key_path)?,
                false => {
                    let key = KeyPair::generate()?;
                    files::write_private(&key_path, &key.serialize_pem())?;
                    key
                }
            };
            let mut params = lasting(CA_LIFE);
            params.distinguished_name = distinguished(common_name, "");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
            files::write_public(&cert_path, &params.self_signed(&key)?.pem())?;
        }
        let certificate = files::read(&cert_path)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, read_key(&key_path)?)?;
        Ok(Self { certificate, issuer })
    }

    pub(super) fn certificate(&self) -> &str {
        &self.certificate
    }

    pub(super) fn issue(&self, subject: &Subject) -> Result<Identity, CertsError> {
        let key = KeyPair::generate()?;
        let mut params = lasting(LIFE);
        params.distinguished_name = distinguished(&subject.user, &subject.group);
        params.subject_alt_names = CertificateParams::new(subject.names.clone())?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match subject.names.is_empty() {
            true => vec![ExtendedKeyUsagePurpose::ClientAuth],
            false => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// The identity `name` in `directory` while it is good for `subject` and not in the last third of its life; a new one
    /// otherwise.
    pub(super) fn keep(&self, directory: &Path, name: &str, subject: &Subject) -> Result<Identity, CertsError> {
        let (cert_path, key_path) = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
        if cert_path.exists() && key_path.exists() {
            let identity = Identity { certificate: files::read(&cert_path)?, key: files::read(&key_path)? };
            if identity.is_good(subject, &self.certificate, SystemTime::now()) {
                return Ok(identity);
            }
        }
        let identity = self.issue(subject)?;
        files::write_private(&key_path, &identity.key)?;
        files::write_public(&cert_path, &identity.certificate)?;
        Ok(identity)
    }
}

// === impl Identity ===

impl Identity {
    /// The first certificate, as DER.
    pub(super) fn der(&self, path: &Path) -> Result<Option<Vec<u8>>, CertsError> {
        first(&self.certificate, path).map(|der| Some(der.to_vec()))
    }

    /// When it is to be renewed: after two thirds of its life.
    pub(super) fn renewal(&self, path: &Path) -> Result<SystemTime, CertsError> {
        let unusable = || CertsError::Content { path: path.to_owned(), what: "certificate" };
        let der = first(&self.certificate, path)?;
        let (_, cert) = X509Certificate::from_der(&der).map_err(|_| unusable())?;
        let (from, to) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
        let at = u64::try_from(from + (to - from) / 3 * 2).map_err(|_| unusable())?;
        Ok(UNIX_EPOCH + Duration::from_secs(at))
    }

    /// Certificate and key as TLS uses them.
    pub(super) fn certified(&self, path: &Path) -> Result<Arc<CertifiedKey>, CertsError> {
        certified(&self.certificate, &self.key, path)
    }

    /// Whether this is `subject`'s certificate of this CA, with its key, and need not be renewed at `now`.
    pub(super) fn is_good(&self, subject: &Subject, ca: &str, now: SystemTime) -> bool {
        self.check(subject, ca, now).unwrap_or(false)
    }

    fn check(&self, subject: &Subject, ca: &str, now: SystemTime) -> Option<bool> {
        let nowhere = Path::new("");
        let (der, ca) = (first(&self.certificate, nowhere).ok()?, first(ca, nowhere).ok()?);
        let (_, cert) = X509Certificate::from_der(&der).ok()?;
        let (_, ca) = X509Certificate::from_der(&ca).ok()?;
        let key = KeyPair::from_pem(&self.key).ok()?;
        let names = |oid: &'static Oid<'static>| -> Vec<&str> {
            cert.subject().iter_by_oid(oid).filter_map(|name| name.as_str().ok()).collect()
        };
        let mut served: Vec<String> = Vec::new();
        for name in cert.subject_alternative_name().ok()?.map(|sans| sans.value.general_names.as_slice()).unwrap_or_default() {
            match name {
                GeneralName::DNSName(name) => served.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => served.push(address(bytes)?.to_string()),
                _ => {}
            }
        }
        let wanted = |name: &String| served.contains(name);
        Some(
            self.renewal(nowhere).ok()? > now
                && cert.verify_signature(Some(ca.public_key())).is_ok()
                && cert.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
                && names(&COMMON_NAME) == [subject.user.as_str()]
                && names(&ORGANIZATION).concat() == subject.group
                && served.len() == subject.names.len()
                && subject.names.iter().all(wanted),
        )
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity") // keys are not for logs
    }
}

// === impl Subject ===

impl Subject {
    pub(super) fn client(user: &str, group: &str) -> Self {
        Self { user: user.to_owned(), group: group.to_owned(), names: Vec::new() }
    }
}

/// The key that signs service account tokens, made at first start together with its public half for others.
pub(super) fn service_account_key(directory: &Path) -> Result<String, CertsError> {
    let path = directory.join("sa.key");
    if !path.exists() {
        let key = KeyPair::generate()?;
        files::write_private(&path, &key.serialize_pem())?;
        files::write_public(&directory.join("sa.pub"), &key.public_key_pem())?;
    }
    files::read(&path)
}

pub(super) fn certified(certificate: &str, key: &str, path: &Path) -> Result<Arc<CertifiedKey>, CertsError> {
    let unusable = |what| CertsError::Content { path: path.to_owned(), what };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| unusable("certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| unusable("private key"))?;
    let certified = CertifiedKey::new(chain, rustls::crypto::ring::sign::any_supported_type(&key)?);
    certified.keys_match()?;
    Ok(Arc::new(certified))
}

fn first(pem: &str, path: &Path) -> Result<CertificateDer<'static>, CertsError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertsError::Content { path: path.to_owned(), what: "certificate" })
}

fn read_key(path: &Path) -> Result<KeyPair, CertsError> {
    KeyPair::from_pem(&files::read(path)?).map_err(|_| CertsError::Content { path: path.to_owned(), what: "private key" })
}

fn lasting(life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    // Clocks of other machines may be behind ours.
    params.not_before = (now - DAY).into();
    params.not_after = (now + life).into();
    params
}

fn distinguished(user: &str, group: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if !group.is_empty() {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}
