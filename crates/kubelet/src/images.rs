//! Brings images to the node: pull policies, credentials, back-off after failures, and the words of upstream's events.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use parking_lot::Mutex;

use corten_client::EventType;
use corten_runtime::images::reference::{Reference, ReferenceError};
use corten_runtime::{Image, Images, RuntimeError};

use crate::backoff::Backoff;
use crate::clock::{Clock, go_duration};
use crate::credentials;
use crate::events::Events;
use crate::pod::PodExt;

/// An image that is not there: reason and message of the container's status, and when a new try makes sense.
#[derive(Clone, Debug)]
pub struct ImageFailure {
    pub reason: &'static str,
    pub message: String,
    pub retry: Option<Timestamp>,
}

/// The images of the node as pods ask for them.
pub struct ImageManager {
    images: Arc<dyn Images>,
    clock: Clock,
    backoff: Mutex<Backoff>,
    last_errors: Mutex<HashMap<String, String>>,
    /// One pull of a reference at a time; the others wait for it.
    pulls: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Told of every new image: the node's status lists them.
    changed: Arc<tokio::sync::Notify>,
}

impl ImageManager {
    pub fn new(images: Arc<dyn Images>, clock: Clock, changed: Arc<tokio::sync::Notify>) -> Self {
        Self { images, clock, backoff: Mutex::default(), last_errors: Mutex::default(), pulls: Mutex::default(), changed }
    }

    /// The image of `container`, pulled as its policy asks.
    pub async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        secrets: &[Arc<Secret>],
        events: &Events,
    ) -> Result<Image, ImageFailure> {
        let image = container.image.as_deref().unwrap_or_default();
        let event = |kind, reason: &str, message: &str| events.container(pod, &container.name, kind, reason, message);
        let reference = match with_tag(image) {
            Ok(reference) => reference,
            Err(why) => {
                let message = format!("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {why}");
                event(EventType::Warning, "InspectFailed", &message);
                return Err(ImageFailure { reason: "InvalidImageName", message, retry: None });
            }
        };
        let policy = match container.image_pull_policy.as_deref() {
            Some(policy) if !policy.is_empty() => policy,
            _ if reference.ends_with(":latest") => "Always",
            _ => "IfNotPresent",
        };
        if policy != "Always" {
            if let Some(found) = self.find(&reference, &event).await? {
                event(
                    EventType::Normal,
                    "Pulled",
                    &format!("Container image {image:?} already present on machine and can be accessed by the pod"),
                );
                return Ok(found);
            }
            if policy == "Never" {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                event(EventType::Warning, "ErrImageNeverPull", &message);
                return Err(ImageFailure { reason: "ErrImageNeverPull", message, retry: None });
            }
        }
        self.pull(pod, container, &reference, policy, secrets, events).await
    }

    /// Forgets the failures of a pod that is gone.
    pub fn release(&self, pod: &Pod) {
        for (_, container) in pod.containers() {
            let key = key(pod, container.image.as_deref().unwrap_or_default());
            self.backoff.lock().forget(&key);
            self.last_errors.lock().remove(&key);
        }
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        reference: &str,
        policy: &str,
        secrets: &[Arc<Secret>],
        events: &Events,
    ) -> Result<Image, ImageFailure> {
        let image = container.image.as_deref().unwrap_or_default();
        let event = |kind, reason: &str, message: &str| events.container(pod, &container.name, kind, reason, message);
        let key = key(pod, image);
        let waiting = self.backoff.lock().until_since_try(&key, self.clock.now());
        if let Some((until, _)) = waiting {
            let mut message = format!("Back-off pulling image {image:?}");
            event(EventType::Normal, "BackOff", &message);
            if let Some(last) = self.last_errors.lock().get(&key) {
                message = format!("{message}: ErrImagePull: {last}");
            }
            return Err(ImageFailure { reason: "ImagePullBackOff", message, retry: Some(until) });
        }
        event(EventType::Normal, "Pulling", &format!("Pulling image {image:?}"));
        let asked = tokio::time::Instant::now();
        let lock = self.pulls.lock().entry(reference.to_owned()).or_default().clone();
        let turn = lock.lock().await;
        let began = tokio::time::Instant::now();
        let mut result = match policy {
            "IfNotPresent" => self.images.find(reference).await.ok().flatten().map(Ok),
            _ => None,
        };
        if result.is_none() {
            result = Some(self.try_pull(reference, secrets).await);
        }
        drop(turn);
        self.pulls.lock().retain(|_, lock| Arc::strong_count(lock) > 1);
        match result.unwrap_or_else(|| Err(RuntimeError::NotFound { what: "image", id: reference.to_owned() })) {
            Ok(found) => {
                self.changed.notify_one();
                self.backoff.lock().forget(&key);
                self.last_errors.lock().remove(&key);
                let (took, waited) = (millis(began.elapsed()), millis(asked.elapsed()));
                let message = format!(
                    "Successfully pulled image {image:?} in {took} ({waited} including waiting). Image size: {} bytes.",
                    found.size
                );
                event(EventType::Normal, "Pulled", &message);
                Ok(found)
            }
            Err(err) => {
                let message = crate::chain(&err);
                event(EventType::Warning, "Failed", &format!("Failed to pull image {image:?}: {message}"));
                let now = self.clock.now();
                self.backoff.lock().next(&key, now, now);
                self.last_errors.lock().insert(key, message.clone());
                // The next look comes soon, so that the status shows the back-off.
                let retry = now + std::time::Duration::from_secs(1);
                Err(ImageFailure { reason: "ErrImagePull", message, retry: Some(retry) })
            }
        }
    }

    /// Tries each fitting credential, or none when there is none.
    async fn try_pull(&self, reference: &str, secrets: &[Arc<Secret>]) -> Result<Image, RuntimeError> {
        let auths = credentials::matching(reference, secrets.iter().map(AsRef::as_ref));
        let mut tries: Vec<_> = auths.iter().map(Some).collect();
        if tries.is_empty() {
            tries.push(None);
        }
        let mut last = None;
        for auth in tries {
            match self.images.pull(reference, auth).await {
                Ok(id) => {
                    let found = self.images.find(&id).await?;
                    return found.ok_or(RuntimeError::NotFound { what: "image", id });
                }
                Err(err) => last = Some(err),
            }
        }
        Err(last.unwrap_or(RuntimeError::NotFound { what: "image", id: reference.to_owned() }))
    }

    async fn find(&self, reference: &str, event: &impl Fn(EventType, &str, &str)) -> Result<Option<Image>, ImageFailure> {
        self.images.find(reference).await.map_err(|err| {
            // The name stands for what was found, which is nothing.
            let message = format!("Failed to inspect image \"\": {}", crate::chain(&err));
            event(EventType::Warning, "InspectFailed", &message);
            ImageFailure { reason: "ImageInspectError", message, retry: None }
        })
    }
}

fn key(pod: &Pod, image: &str) -> String {
    format!("{}_{image}", pod.uid())
}

fn millis(duration: std::time::Duration) -> String {
    go_duration(std::time::Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

/// The reference with `:latest` when it has neither tag nor digest, or why it is no reference.
fn with_tag(image: &str) -> Result<String, ReferenceError> {
    let reference = Reference::parse(image)?;
    let tagged = reference.tag.as_ref().is_none_or(|tag| image.ends_with(&format!(":{tag}")));
    Ok(if reference.digest.is_some() || tagged { image.to_owned() } else { format!("{image}:latest") })
}

#[cfg(test)]
mod tests {
    use super::with_tag;

    #[test]
    fn references_get_a_tag_or_are_refused() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for (image, expected) in [
            ("busybox", Ok("busybox:latest")),
            ("busybox:1.36", Ok("busybox:1.36")),
            ("localhost:5000/a/b", Ok("localhost:5000/a/b:latest")),
            (digest.as_str(), Ok(digest.as_str())),
            ("Busybox", Err("invalid reference format: repository name (library/Busybox) must be lowercase")),
            ("", Err("invalid reference format")),
            ("a b", Err("invalid reference format")),
            ("a:", Err("invalid reference format")),
            ("a@sha256:xyz", Err("invalid reference format")),
            ("/invalid/image-name:", Err("invalid reference format")),
        ] {
            let got = with_tag(image).map_err(|why| why.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), expected, "{image}");
        }
    }
}
