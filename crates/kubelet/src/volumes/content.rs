//! The files of configMap, secret, downwardAPI and projected volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::atomic::{File, Payload};
use super::{Owner, Volumes};
use crate::fields::{FieldError, Node, field, resource};
use crate::objects::{ObjectError, Wake};
use crate::pod::PodExt;
use crate::tokens::TokenError;

const DEFAULT_MODE: i32 = 0o644;

/// Why a volume has no content.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    #[error("{0}")]
    Object(#[from] ObjectError),
    #[error("configmap references non-existent config key: {0}")]
    ConfigKey(String),
    #[error("references non-existent secret key: {0}")]
    SecretKey(String),
    #[error("{0}")]
    Field(#[from] FieldError),
    #[error("{0}")]
    Token(#[from] TokenError),
    #[error("projected volume source {0} is not supported by this node")]
    Unsupported(&'static str),
    /// Several at once, each said once, in brackets as Go writes them.
    #[error("[{}]", .0.join(", "))]
    Several(Vec<String>),
}

/// Nothing, the one error, or all of them.
fn all(errors: Vec<ContentError>) -> Result<(), ContentError> {
    let mut words: Vec<String> = Vec::new();
    for err in &errors {
        let own = match err {
            ContentError::Several(words) => words.clone(),
            err => vec![err.to_string()],
        };
        for text in own {
            if !words.contains(&text) {
                words.push(text);
            }
        }
    }
    match (words.len(), errors.into_iter().next()) {
        (_, None) => Ok(()),
        (1, Some(err)) => Err(err),
        _ => Err(ContentError::Several(words)),
    }
}

/// The files of `volume` and when they have to be made anew; `None` when it is of another kind.
pub async fn build(
    volumes: &Volumes,
    pod: &Pod,
    volume: &Volume,
    node: &Node<'_>,
    owner: Owner,
    user: &Arc<Wake>,
) -> Result<Option<(Payload, Option<Timestamp>)>, ContentError> {
    let mut builder = Builder { volumes, pod, node, owner, user, payload: Payload::new(), again: None };
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        builder.config_map(&source.name, source.items.as_deref(), source.optional, mode).await?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        builder.secret(name, source.items.as_deref(), source.optional, mode).await?;
    } else if let Some(source) = &volume.downward_api {
        builder.downward(source.items.as_deref(), source.default_mode.unwrap_or(DEFAULT_MODE))?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut errors = Vec::new();
        for projection in source.sources.iter().flatten() {
            errors.extend(builder.projection(projection, mode).await.err());
        }
        all(errors)?;
    } else {
        return Ok(None);
    }
    Ok(Some((builder.payload, builder.again)))
}

struct Builder<'a> {
    volumes: &'a Volumes,
    pod: &'a Pod,
    node: &'a Node<'a>,
    owner: Owner,
    user: &'a Arc<Wake>,
    payload: Payload,
    again: Option<Timestamp>,
}

impl Builder<'_> {
    async fn projection(&mut self, source: &VolumeProjection, mode: i32) -> Result<(), ContentError> {
        if let Some(source) = &source.config_map {
            self.config_map(&source.name, source.items.as_deref(), source.optional, mode).await?;
        }
        if let Some(source) = &source.secret {
            self.secret(&source.name, source.items.as_deref(), source.optional, mode).await?;
        }
        if let Some(source) = &source.downward_api {
            self.downward(source.items.as_deref(), mode)?;
        }
        if let Some(source) = &source.service_account_token {
            self.token(source, mode).await?;
        }
        if source.cluster_trust_bundle.is_some() {
            return Err(ContentError::Unsupported("clusterTrustBundle"));
        }
        if source.pod_certificate.is_some() {
            return Err(ContentError::Unsupported("podCertificate"));
        }
        Ok(())
    }

    async fn config_map(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<(), ContentError> {
        let found = self.volumes.config_maps.get(self.pod.namespace(), name, self.user).await;
        let Some(map) = present(found, optional)? else { return Ok(()) };
        let missing = project(&mut self.payload, &config_map_files(&map), items, optional, mode);
        missing.map_or(Ok(()), |key| Err(ContentError::ConfigKey(key)))
    }

    async fn secret(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<(), ContentError> {
        let found = self.volumes.secrets.get(self.pod.namespace(), name, self.user).await;
        let Some(secret) = present(found, optional)? else { return Ok(()) };
        let missing = project(&mut self.payload, &secret_files(&secret), items, optional, mode);
        missing.map_or(Ok(()), |key| Err(ContentError::SecretKey(key)))
    }

    fn downward(&mut self, items: Option<&[DownwardAPIVolumeFile]>, mode: i32) -> Result<(), ContentError> {
        let mut errors = Vec::new();
        for item in items.into_iter().flatten() {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(reference), _) => field(self.pod, &reference.field_path, self.node),
                (_, Some(reference)) => resource(self.pod, None, reference, self.node),
                _ => continue,
            };
            match text {
                Ok(text) => {
                    self.payload.insert(item.path.clone(), file(text.into_bytes(), item.mode.unwrap_or(mode)));
                }
                Err(err) => errors.push(err.into()),
            }
        }
        all(errors)
    }

    async fn token(&mut self, source: &ServiceAccountTokenProjection, mode: i32) -> Result<(), ContentError> {
        let (token, again) = self.volumes.tokens.get(self.pod, source).await?;
        self.again = Some(self.again.map_or(again, |known| known.min(again)));
        // A token that belongs to one user is for nobody else.
        let private = self.owner.user.is_some() || self.owner.group.is_some();
        let mode = if private { 0o600 } else { mode };
        let user = self.owner.user.filter(|_| self.volumes.manage);
        self.payload.insert(source.path.clone(), File { user, ..file(token.into_bytes(), mode) });
        Ok(())
    }
}

fn present<K>(found: Result<Arc<K>, ObjectError>, optional: Option<bool>) -> Result<Option<Arc<K>>, ContentError> {
    match found {
        Ok(object) => Ok(Some(object)),
        Err(ObjectError::NotFound { .. }) if optional == Some(true) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

fn config_map_files(map: &ConfigMap) -> BTreeMap<&str, &[u8]> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    text.chain(binary).collect()
}

fn secret_files(secret: &Secret) -> BTreeMap<&str, &[u8]> {
    secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())).collect()
}

/// Adds all files, or those that `items` names under their paths. Returns a key that is missing.
fn project(
    payload: &mut Payload,
    files: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
) -> Option<String> {
    let items = items.unwrap_or_default();
    if items.is_empty() {
        payload.extend(files.iter().map(|(key, data)| ((*key).to_owned(), file(data.to_vec(), mode))));
        return None;
    }
    for item in items {
        match files.get(item.key.as_str()) {
            Some(data) => {
                payload.insert(item.path.clone(), file(data.to_vec(), item.mode.unwrap_or(mode)));
            }
            None if optional == Some(true) => {}
            None => return Some(item.key.clone()),
        }
    }
    None
}

fn file(data: Vec<u8>, mode: i32) -> File {
    File { data, mode: u32::try_from(mode).unwrap_or(0o644) & 0o7777, user: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_choose_and_rename() {
        let files = BTreeMap::from([("a", b"1".as_slice()), ("b", b"2")]);
        let item = |key: &str, path: &str, mode| KeyToPath { key: key.to_owned(), path: path.to_owned(), mode };
        let mut payload = Payload::new();
        assert_eq!(project(&mut payload, &files, Some(&[item("a", "x/y", Some(0o400))]), None, 0o644), None);
        assert_eq!(payload.iter().map(|(path, file)| (path.as_str(), file.mode)).collect::<Vec<_>>(), [("x/y", 0o400)]);
        assert_eq!(project(&mut payload, &files, Some(&[item("z", "z", None)]), None, 0o644), Some("z".to_owned()));
        assert_eq!(project(&mut payload, &files, Some(&[item("z", "z", None)]), Some(true), 0o644), None);
    }
}
