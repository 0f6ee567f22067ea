//! Keys of tokens: RSA (RS256) and ECDSA (ES256, ES384), read from PEM of any usual kind. A key's id is the digest of its public
//! half, as upstream computes it, so that both sides of a move between clusters agree.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey;

/// Signs tokens.
pub(super) struct Signer {
    pub(super) id: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

/// Checks signatures.
pub(super) struct Verifier {
    pub(super) id: String,
    pub(super) algorithm: Algorithm,
    key: DecodingKey,
    /// The key as a JSON Web Key.
    pub(super) jwk: Value,
}

impl Signer {
    pub(super) fn new(pem: &str) -> Option<Self> {
        let public = Verifier::all_of(pem).into_iter().next()?;
        let key = match public.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        Some(Self { id: public.id, algorithm: public.algorithm, key: key.ok()? })
    }

    pub(super) fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        let mut header = Header::new(self.algorithm);
        header.typ = None;
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.key)
    }
}

impl Verifier {
    /// The public keys in a PEM file: of public keys, private keys and certificates.
    pub(super) fn all_of(pem: &str) -> Vec<Self> {
        let blocks = Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok);
        blocks.filter_map(|block| Self::of_public(&public_half(&block, pem)?)).collect()
    }

    /// A key of its SubjectPublicKeyInfo (DER).
    fn of_public(der: &[u8]) -> Option<Self> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(der));
        let (algorithm, key, mut jwk) = match info.parsed().ok()? {
            PublicKey::RSA(rsa) => {
                let text = |number: &[u8]| URL_SAFE_NO_PAD.encode(&number[number.iter().take_while(|b| **b == 0).count()..]);
                let (n, e) = (text(rsa.modulus), text(rsa.exponent));
                let key = DecodingKey::from_rsa_components(&n, &e).ok()?;
                (Algorithm::RS256, key, json!({"kty": "RSA", "n": n, "e": e}))
            }
            PublicKey::EC(point) => {
                let coordinates = point.data().strip_prefix(&[4])?; // uncompressed
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                let (algorithm, curve) = match x.len() {
                    32 => (Algorithm::ES256, "P-256"),
                    48 => (Algorithm::ES384, "P-384"),
                    _ => return None,
                };
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                let key = DecodingKey::from_ec_components(&x, &y).ok()?;
                (algorithm, key, json!({"kty": "EC", "crv": curve, "x": x, "y": y}))
            }
            _ => return None,
        };
        jwk["use"] = "sig".into();
        jwk["kid"] = id.clone().into();
        jwk["alg"] = format!("{algorithm:?}").into();
        Some(Self { id, algorithm, key, jwk })
    }
}

/// The SubjectPublicKeyInfo of a PEM block.
fn public_half(block: &Pem, pem: &str) -> Option<Vec<u8>> {
    match block.label.as_str() {
        "PUBLIC KEY" => Some(block.contents.clone()),
        "CERTIFICATE" => {
            let (_, cert) = X509Certificate::from_der(&block.contents).ok()?;
            Some(cert.public_key().raw.to_vec())
        }
        "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => {
            let key = rcgen::KeyPair::from_pem(pem).ok()?;
            Some(rcgen::PublicKeyData::subject_public_key_info(&key))
        }
        _ => None,
    }
}

/// Checks a token's signature: with the key that its header names, or with any.
pub(super) fn check(token: &str, verifiers: &[Verifier]) -> Result<(), Error> {
    let header = jsonwebtoken::decode_header(token)?;
    let named: Vec<_> = verifiers.iter().filter(|verifier| header.kid.as_ref() == Some(&verifier.id)).collect();
    let candidates = if named.is_empty() { verifiers.iter().collect() } else { named };
    let mut last = Error::from(ErrorKind::InvalidSignature);
    for verifier in candidates.into_iter().filter(|verifier| verifier.algorithm == header.alg) {
        let mut validation = Validation::new(verifier.algorithm);
        // Times and audiences are judged by the caller, at every use.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        match jsonwebtoken::decode::<serde::de::IgnoredAny>(token, &verifier.key, &validation) {
            Ok(_) => return Ok(()),
            Err(err) => last = err,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_verified_and_what_is_changed_is_not() {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let (signer, verifiers) = (Signer::new(&pem).unwrap(), Verifier::all_of(&pem));
        let token = signer.sign(&json!({"sub": "a"})).unwrap();
        check(&token, &verifiers).unwrap();
        let other = Verifier::all_of(&rcgen::KeyPair::generate().unwrap().serialize_pem());
        assert!(check(&token, &other).is_err());
        let (head, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = head.split_once('.').unwrap();
        let forged = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(r#"{"sub":"b"}"#));
        assert!(check(&forged, &verifiers).is_err());
        assert_eq!(verifiers[0].jwk["crv"], "P-256");
    }

    #[test]
    fn public_halves_have_the_same_id() {
        let key = rcgen::KeyPair::generate().unwrap();
        let (private, public) = (Verifier::all_of(&key.serialize_pem()), Verifier::all_of(&key.public_key_pem()));
        assert_eq!(private[0].id, public[0].id);
        assert!(Verifier::all_of("nothing").is_empty());
    }
}
