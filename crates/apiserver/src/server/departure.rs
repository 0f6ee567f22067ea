//! Leaving without a request lost: first the server says that it is not ready any more and serves on, so that load balancers
//! send nobody new; then, if it is told to, it sends those away who come nevertheless, until nobody is left.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::HeaderMap;
use http::header::{self, HeaderValue};
use tokio::sync::Notify;

use crate::response::{self, Response};

/// How far a server is on its way out.
#[derive(Debug, Default)]
pub struct Departure {
    leaving: AtomicBool,
    refusing: AtomicBool,
    /// Requests with an end that are being served, counted only where somebody will wait for them.
    inside: AtomicUsize,
    emptied: Notify,
}

/// A request that is being served.
#[derive(Debug)]
pub(crate) struct Inside<'d>(&'d Departure);

impl Departure {
    /// Whether the server is not ready any more.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// From now on the server is not ready.
    pub(super) fn announce(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// From now on requests are sent away. Waits until those inside have ended.
    pub(super) async fn refuse(&self) {
        self.refusing.store(true, Ordering::SeqCst);
        loop {
            let emptied = self.emptied.notified();
            if self.inside.load(Ordering::SeqCst) == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Lets a request in, or says what to answer instead. Health and metrics are told to the last.
    pub(crate) fn enter(&self, path: &str, headers: &HeaderMap) -> Result<Inside<'_>, Box<Response>> {
        // Counted first: whoever sees nobody inside sees the refusal in force.
        self.inside.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(self);
        if self.refusing.load(Ordering::SeqCst) && !is_exempt(path, headers) {
            return Err(Box::new(later()));
        }
        Ok(inside)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if self.0.inside.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

fn is_exempt(path: &str, headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    agent.starts_with("kube-apiserver/")
        || ["/readyz", "/livez", "/healthz", "/metrics"].iter().any(|exempt| path.starts_with(exempt))
}

/// 429: there may be another server, and the client is to find it over a new connection.
fn later() -> Response {
    let mut response = response::plain(429, "The apiserver is shutting down, please try again later.\n");
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_inside_is_waited_for_and_who_comes_is_sent_away() {
        let departure = Departure::default();
        let none = HeaderMap::new();
        let inside = departure.enter("/api/v1/pods", &none).ok().unwrap();
        departure.announce();
        assert!(departure.is_leaving() && departure.enter("/api/v1/pods", &none).is_ok(), "served on");
        let mut refused = std::pin::pin!(departure.refuse());
        assert!(futures::poll!(refused.as_mut()).is_pending());
        let sent_away = departure.enter("/api/v1/pods", &none).err().unwrap();
        assert_eq!((sent_away.status().as_u16(), &sent_away.headers()["retry-after"]), (429, &HeaderValue::from_static("5")));
        assert!(departure.enter("/readyz", &none).is_ok());
        let own = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static("kube-apiserver/v1.36.0"))]);
        assert!(departure.enter("/api/v1/pods", &own).is_ok());
        drop(inside);
        refused.await;
    }
}
