//! Audit events sent to another server: lists of events, posted to the URL of a kubeconfig.

use std::path::Path;
use std::time::Duration;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::time::Instant;

use super::AuditError;

/// How often a list is sent before it is lost.
const ATTEMPTS: usize = 5;
/// By how much the pause grows from one attempt to the next.
const FACTOR: f64 = 1.5;
/// By how much it grows at most on top, by chance, so that servers do not knock together.
const JITTER: f64 = 0.2;
/// How long an attempt may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The server that events go to.
pub(super) struct Webhook {
    client: Client,
    /// The path of the URL.
    path: String,
    /// Before the second attempt.
    pause: Duration,
}

impl Webhook {
    /// Reads the kubeconfig `path`.
    pub(super) async fn open(path: &Path, pause: Duration) -> Result<Self, AuditError> {
        let wrong = |err: &dyn std::fmt::Display| AuditError::Webhook { path: path.to_owned(), why: err.to_string() };
        let kubeconfig = Kubeconfig::read_from(path).map_err(|err| wrong(&err))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(|err| wrong(&err))?;
        config.read_timeout = Some(PATIENCE);
        // The URL is used as it is; the client would take its path for a directory.
        let mut url = config.cluster_url.clone().into_parts();
        let path_of_url = url.path_and_query.take().map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned());
        url.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        config.cluster_url = http::Uri::from_parts(url).map_err(|err| wrong(&err))?;
        let client = Client::try_from(config).map_err(|err| wrong(&err))?;
        Ok(Self { client, path: path_of_url, pause })
    }

    /// Sends events, which are JSON each. False when they are lost.
    pub(super) async fn send(&self, events: &[String]) -> bool {
        let list = list(events);
        let mut pause = self.pause;
        for attempt in 1..=ATTEMPTS {
            let request =
                http::Request::post(&self.path).header(http::header::CONTENT_TYPE, "application/json").body(list.clone());
            let Ok(request) = request else { return false };
            match self.client.request_text(request).await {
                Ok(_) => return true,
                Err(err) if attempt == ATTEMPTS => {
                    tracing::error!(error = %err, events = events.len(), "audit events are lost");
                }
                Err(err) => {
                    tracing::debug!(error = %err, attempt, "audit events could not be sent");
                    tokio::time::sleep(pause.mul_f64(1.0 + JITTER * rand::random::<f64>())).await;
                    pause = pause.mul_f64(FACTOR);
                }
            }
        }
        false
    }
}

fn list(events: &[String]) -> Vec<u8> {
    let head = r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
    format!("{head}{}]}}", events.join(",")).into_bytes()
}

/// Lists that may be sent in a time: so many at once, and then so many a second.
#[derive(Debug)]
pub(super) struct Throttle {
    per_second: f64,
    burst: f64,
    left: f64,
    at: Instant,
}

impl Throttle {
    pub(super) fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, left: burst, at: Instant::now() }
    }

    /// Waits until the next one may go.
    pub(super) async fn wait(&mut self) {
        let now = Instant::now();
        self.left = (self.left + now.duration_since(self.at).as_secs_f64() * self.per_second).min(self.burst);
        self.at = now;
        if self.left < 1.0 {
            let missing = Duration::from_secs_f64((1.0 - self.left) / self.per_second);
            tokio::time::sleep(missing).await;
            self.left = 1.0;
            self.at = now + missing;
        }
        self.left -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_as_a_list() {
        let sent: serde_json::Value = serde_json::from_slice(&list(&["{\"a\":1}".into(), "{\"a\":2}".into()])).unwrap();
        assert_eq!((&sent["kind"], &sent["items"][1]["a"]), (&"EventList".into(), &2.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn lists_are_throttled_after_a_burst() {
        let start = Instant::now();
        let mut throttle = Throttle::new(10.0, 3.0);
        for _ in 0..5 {
            throttle.wait().await;
        }
        assert_eq!(start.elapsed().as_millis(), 200);
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..3 {
            throttle.wait().await;
        }
        assert_eq!(start.elapsed().as_millis(), 0);
    }
}
