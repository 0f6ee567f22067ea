//! Pulls images from registries. `oci-client` speaks the protocol; what is checked, in what order, and in which words a
//! failure reaches the user is decided here.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth as Secret;
use oci_client::{Client, RegistryOperation};

use super::archive::digest;
use super::hosts::{Host, Registries};
use super::manifest::{Descriptor, INDEX_TYPES, ImageConfig, MANIFEST_TYPES, Manifest};
use super::reference::Reference;
use super::{Store, Stored};
use crate::cri::{RegistryAuth, RuntimeError};

/// Layers downloaded at the same time.
const AT_ONCE: usize = 3;
/// Largest configuration document, in bytes.
const MOST_CONFIG: u64 = 8 << 20;

/// Pulls `text` and returns the image's id.
///
/// # Errors
/// [`RuntimeError::Pull`] with the cause in words.
pub async fn pull(
    store: &Arc<Store>,
    registries: &Registries,
    text: &str,
    auth: Option<&RegistryAuth>,
) -> Result<String, RuntimeError> {
    let failed = |why: String| RuntimeError::Pull { reference: text.to_owned(), why };
    let reference = Reference::parse(text).map_err(|err| failed(err.to_string()))?;
    let started = std::time::Instant::now();
    let mut outcome = Err("no registry to ask".to_owned());
    for host in registries.hosts(&reference.registry).map_err(|err| failed(chain(&err)))? {
        let name = host.host.clone();
        outcome = match Pull::new(store.clone(), host, reference.clone(), auth) {
            Ok(pull) => pull.run().await,
            Err(why) => Err(why),
        };
        match &outcome {
            Ok(_) => break,
            Err(why) => tracing::debug!(image = text, host = name, why, "pull"),
        }
    }
    let id = outcome.map_err(failed)?;
    tracing::info!(image = text, %id, elapsed = ?started.elapsed(), "pulled image");
    Ok(id)
}

struct Pull {
    store: Arc<Store>,
    reference: Reference,
    remote: oci_client::Reference,
    client: Client,
    secret: Secret,
}

impl Pull {
    /// A client of its own per pull: credentials of one pod must not serve another's pull.
    fn new(store: Arc<Store>, host: Host, reference: Reference, auth: Option<&RegistryAuth>) -> Result<Self, String> {
        install_crypto();
        let certificate = |data| Certificate { encoding: CertificateEncoding::Pem, data };
        let config = ClientConfig {
            protocol: if host.plain { ClientProtocol::Http } else { ClientProtocol::Https },
            user_agent: concat!("corten/", env!("CARGO_PKG_VERSION")),
            connect_timeout: Some(std::time::Duration::from_secs(30)),
            read_timeout: Some(std::time::Duration::from_secs(60)),
            accept_invalid_certificates: host.unchecked,
            extra_root_certificates: host.authorities.into_iter().map(certificate).collect(),
            platform_resolver: None,
            ..ClientConfig::default()
        };
        let repository = reference.repository.clone();
        let remote = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => oci_client::Reference::with_digest(host.host, repository, digest.clone()),
            (None, tag) => {
                let tag = tag.clone().unwrap_or_else(|| "latest".to_owned());
                oci_client::Reference::with_tag(host.host, repository, tag)
            }
        };
        // What a pod brings is for the registry it names.
        let secret = match auth.filter(|_| !host.mirror).or(host.auth.as_ref()) {
            Some(auth) if !auth.registry_token.is_empty() => Secret::Bearer(auth.registry_token.clone()),
            Some(auth) if !auth.username.is_empty() => Secret::Basic(auth.username.clone(), auth.password.clone()),
            _ => Secret::Anonymous,
        };
        let client = Client::try_from(config).map_err(|err| format!("set up the connection: {err}"))?;
        Ok(Self { store, reference, remote, client, secret })
    }

    async fn run(&self) -> Result<String, String> {
        let authorized = self.client.auth(&self.remote, &self.secret, RegistryOperation::Pull).await;
        authorized.map_err(|err| self.words("failed to authorize", &err))?;
        let (mut manifest, manifest_digest) = self.manifest(&self.remote).await?;
        if let Some(wanted) = &self.reference.digest
            && *wanted != manifest_digest
        {
            return Err(format!("manifest has digest {manifest_digest}, expected {wanted}"));
        }
        let mut depth = 0;
        while manifest.is_index() {
            depth += 1;
            let entry = manifest.for_this_machine().filter(|_| depth < 4);
            let entry = entry.ok_or_else(|| format!("no match for platform in manifest {manifest_digest}: not found"))?;
            let inner = self.remote.clone_with_digest(entry.digest.clone());
            let (found, actual) = self.manifest(&inner).await?;
            if actual != entry.digest {
                return Err(format!("manifest has digest {actual}, expected {}", entry.digest));
            }
            manifest = found;
        }
        let config_descriptor = manifest.config.as_ref().ok_or("the manifest has no configuration")?;
        let config = self.config(config_descriptor).await?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err("the configuration names another number of layers than there are".to_owned());
        }
        let _adding = self.store.adding().await;
        let mut seen = BTreeSet::new();
        let layers = config.rootfs.diff_ids.iter().zip(&manifest.layers);
        let missing = layers.filter(|(diff_id, _)| seen.insert(*diff_id) && !self.store.has_layer(diff_id));
        let missing: Vec<_> = missing.map(|(diff_id, layer)| (diff_id.clone(), layer.clone())).collect();
        let fetched = stream::iter(missing).map(|(diff_id, layer)| async move { self.layer(&diff_id, &layer).await });
        fetched.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        let image = Stored {
            id: config_descriptor.digest.clone(),
            tags: self.reference.tagged().into_iter().collect(),
            digests: BTreeSet::from([self.reference.at_digest(&manifest_digest)]),
            layers: config.rootfs.diff_ids.clone(),
            config,
        };
        let (store, id) = (self.store.clone(), image.id.clone());
        blocking(move || store.add(image)).await?;
        Ok(id)
    }

    async fn manifest(&self, at: &oci_client::Reference) -> Result<(Manifest, String), String> {
        let accepted: Vec<&str> = MANIFEST_TYPES.into_iter().chain(INDEX_TYPES).collect();
        let pulled = self.client.pull_manifest_raw(at, &self.secret, &accepted).await;
        let (bytes, _) = pulled.map_err(|err| self.words("failed to resolve reference", &err))?;
        let manifest = serde_json::from_slice(&bytes).map_err(|err| format!("the manifest is broken: {err}"))?;
        // The registry's own word for the digest is not taken.
        Ok((manifest, digest(&bytes)))
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<ImageConfig, String> {
        if descriptor.size > MOST_CONFIG {
            return Err(format!("the configuration has {} bytes", descriptor.size));
        }
        let mut bytes = Vec::new();
        let pulled = self.client.pull_blob(&self.remote, &pointer(descriptor), &mut bytes).await;
        pulled.map_err(|err| self.words("failed to fetch configuration", &err))?;
        serde_json::from_slice(&bytes).map_err(|err| format!("the configuration is broken: {err}"))
    }

    async fn layer(&self, diff_id: &str, descriptor: &Descriptor) -> Result<(), String> {
        let scratch = self.store.scratch();
        let file = blocking(move || tempfile::tempfile_in(scratch)).await?;
        let mut download = tokio::fs::File::from_std(file);
        let pulled = self.client.pull_blob(&self.remote, &pointer(descriptor), &mut download).await;
        pulled.map_err(|err| self.words(&format!("failed to fetch layer {}", descriptor.digest), &err))?;
        tracing::info!(image = %self.reference, layer = %descriptor.digest, bytes = descriptor.size, "fetched layer");
        let mut file = download.into_std().await;
        let (store, diff_id) = (self.store.clone(), diff_id.to_owned());
        blocking(move || {
            io::Seek::seek(&mut file, io::SeekFrom::Start(0))?;
            store.add_layer(&diff_id, io::BufReader::with_capacity(128 << 10, file))
        })
        .await
    }

    /// A failure in the words that users know from other runtimes.
    fn words(&self, doing: &str, err: &OciDistributionError) -> String {
        let name = &self.reference;
        match err {
            OciDistributionError::ImageManifestNotFoundError(_) => format!("{doing} {name}: {name}: not found"),
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => format!(
                "{doing} {name}: pull access denied, repository does not exist or may require authorization: authorization failed"
            ),
            OciDistributionError::RegistryError { envelope, .. } => {
                use oci_client::errors::OciErrorCode::{Denied, ManifestUnknown, NameUnknown, NotFound, Unauthorized};
                let code = |wanted: &[_]| envelope.errors.iter().any(|error| wanted.contains(&error.code));
                if code(&[ManifestUnknown, NameUnknown, NotFound]) {
                    format!("{doing} {name}: {name}: not found")
                } else if code(&[Unauthorized, Denied]) {
                    format!("{doing} {name}: pull access denied, repository does not exist or may require authorization")
                } else {
                    format!("{doing} {name}: {envelope}")
                }
            }
            OciDistributionError::ServerError { code: 404, .. } => format!("{doing} {name}: {name}: not found"),
            err => {
                format!("{doing} {name}: {}", chain(err))
            }
        }
    }
}

/// An error with its causes, none said twice.
fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        let words = err.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = err.source();
    }
    text
}

fn pointer(descriptor: &Descriptor) -> OciDescriptor {
    OciDescriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    }
}

/// The HTTP client takes the process's choice of cryptography; without one it would refuse to be made.
fn install_crypto() {
    // Installed before, by whoever: fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|err| err.to_string()),
        Err(err) => Err(err.to_string()),
    }
}
