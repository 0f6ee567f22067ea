//! Small HTTP servers for load balancers: `/healthz` of the proxy, and one port per Service with
//! `externalTrafficPolicy: Local` that tells whether this node has endpoints of it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use corten_client::Key;
use corten_task::Tasks;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::plan::Fragment;

/// The servers that run.
pub struct Servers {
    tasks: Tasks,
    running: Mutex<HashMap<Key, Running>>,
}

struct Running {
    port: u16,
    local_endpoints: Arc<std::sync::atomic::AtomicUsize>,
    tasks: Tasks,
}

type Answer = Response<Full<Bytes>>;

impl Servers {
    pub fn new(tasks: &Tasks) -> Self {
        Self { tasks: tasks.clone(), running: Mutex::default() }
    }

    /// Serves the proxy's own health. It answers only once rules could be read, so being there is being healthy.
    pub async fn healthz(&self, address: SocketAddr) {
        match TcpListener::bind(address).await {
            Ok(listener) => serve(listener, &self.tasks, |path| match path {
                "/healthz" | "/livez" => json(StatusCode::OK, "{\"serviceProxyHealthy\":true}".to_owned()),
                _ => json(StatusCode::NOT_FOUND, String::new()),
            }),
            Err(error) => tracing::warn!(%address, %error, "the proxy's health cannot be served"),
        }
    }

    /// Starts, updates and stops servers so that they are those of `fragments`.
    pub async fn serve(&self, fragments: impl Iterator<Item = (&Key, &Arc<Fragment>)>) {
        let wanted: HashMap<Key, _> =
            fragments.filter_map(|(key, fragment)| Some((key.clone(), fragment.health.clone()?))).collect();
        let gone: Vec<Running> = {
            let mut running = self.running.lock();
            let gone: Vec<Key> = running
                .iter()
                .filter(|(key, server)| wanted.get(*key).is_none_or(|health| health.port != server.port))
                .map(|(key, _)| key.clone())
                .collect();
            gone.iter().filter_map(|key| running.remove(key)).collect()
        };
        for server in gone {
            server.tasks.stop().await;
        }
        for (key, health) in wanted {
            if let Some(server) = self.running.lock().get(&key) {
                server.local_endpoints.store(health.local_endpoints, std::sync::atomic::Ordering::Relaxed);
                continue;
            }
            let listener = match bind(health.port).await {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::warn!(service = %key, port = health.port, %error, "the health check node port cannot be served");
                    continue;
                }
            };
            let tasks = self.tasks.child(format!("health check of {key}"));
            let count = Arc::new(std::sync::atomic::AtomicUsize::new(health.local_endpoints));
            serve(listener, &tasks, {
                let (key, count) = (key.clone(), count.clone());
                move |_| report(&key, count.load(std::sync::atomic::Ordering::Relaxed))
            });
            self.running.lock().insert(key, Running { port: health.port, local_endpoints: count, tasks });
        }
    }
}

/// Upstream's answer: 200 if the node has endpoints, 503 if not, and why.
fn report(service: &Key, local_endpoints: usize) -> Answer {
    let status = if local_endpoints > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = format!(
        "{{\"service\":{{\"namespace\":\"{}\",\"name\":\"{}\"}},\"localEndpoints\":{local_endpoints},\"serviceProxyHealthy\":true}}",
        service.namespace, service.name
    );
    json(status, body)
}

async fn bind(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        // A host without IPv6.
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

fn serve(listener: TcpListener, tasks: &Tasks, answer: impl Fn(&str) -> Answer + Clone + Send + Sync + 'static) {
    let connections = tasks.clone();
    tasks.spawn("health server", async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors: the next connection that ends frees one.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let answer = answer.clone();
            connections.spawn("health connection", async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let response = answer(request.uri().path());
                    async move { Ok::<_, Infallible>(response) }
                });
                let mut server = hyper::server::conn::http1::Builder::new();
                // A peer that goes away in the middle of a request is its own affair.
                let _ = server.timer(TokioTimer::new()).keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

fn json(status: StatusCode, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    headers.insert("x-content-type-options", hyper::header::HeaderValue::from_static("nosniff"));
    response
}
