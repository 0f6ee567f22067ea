//! Accepting connections and serving each until it ends or the server stops.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;

use corten_task::Tasks;

use super::io::{Answer, Patient, Use, linger};
use super::protocol;
use crate::authn::Peer;
use crate::pipeline;
use crate::state::State;

/// Connections at one time; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 16_384;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(32);
/// How long a connection of HTTP/1 is kept without a request.
const IDLE: Duration = Duration::from_secs(90);
/// Bytes of headers in one request.
const MAX_HEADERS: usize = 1 << 20;
/// Headers in one request of HTTP/1: room for those who act in the name of somebody with many groups. Each costs every request a
/// little, since the HTTP layer makes the room before it reads.
const MANY_HEADERS: usize = 256;

/// Accepts until the server stops. Each connection then ends by itself, when its requests have or the grace is over.
pub(super) async fn run(listener: TcpListener, tls: Arc<ServerConfig>, state: Arc<State>) {
    let acceptor = TlsAcceptor::from(tls);
    let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = state.tasks.child("connections");
    let stop = state.tasks.stop_token();
    loop {
        let seat = seats.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(err) => {
                // Out of file descriptors, or the client went already: neither is a reason to end.
                tracing::warn!(error = %err, "accept a connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let (acceptor, state) = (acceptor.clone(), state.clone());
        connections.spawn_graceful("connection", async move {
            serve(stream, address, acceptor, state).await;
            drop(seat);
        });
    }
}

async fn serve(stream: TcpStream, address: SocketAddr, acceptor: TlsAcceptor, state: Arc<State>) {
    // Latency counts for more than the number of packets.
    let _ = stream.set_nodelay(true);
    let stop = state.tasks.stop_token();
    let stream = tokio::select! {
        () = stop.cancelled() => return,
        stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)) => stream,
    };
    let stream = match stream {
        Ok(Ok(stream)) => stream,
        Ok(Err(err)) => {
            state.metrics.listener.no_handshake();
            tracing::debug!(%address, error = %err, "TLS handshake");
            return;
        }
        Err(_) => {
            state.metrics.listener.no_handshake();
            tracing::debug!(%address, "TLS handshake took too long");
            return;
        }
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates = certificates.iter().map(|cert| cert.clone().into_owned()).collect::<Vec<_>>();
    let peer = Arc::new(Peer { address: Some(address), certificates: certificates.into() });
    let grace = state.config.shutdown_grace;
    let builder = builder(&state.tasks, state.config.http2_max_streams);
    let left = Arc::new(Notify::new());
    let leave = left.clone();
    let chance = state.config.goaway_chance;
    let used = Arc::new(Use::default());
    let serving = used.clone();
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (state, peer, used) = (state.clone(), peer.clone(), serving.clone());
        let answering = used.begin();
        if request.version() == http::Version::HTTP_2 {
            used.leave();
            // Told with this answer, so that what the client asks next goes to whichever server it finds then.
            if chance > 0.0 && rand::random::<f64>() < chance {
                leave.notify_one();
            }
        }
        async move {
            if let Some(refusal) = protocol::refuse(&request) {
                return Ok(refusal.map(|body| Answer::new(body, answering)));
            }
            let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            let mut response = pipeline::serve(state, request, peer).await;
            protocol::name(&mut response);
            if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                used.leave();
            }
            Ok::<_, Infallible>(response.map(|body| Answer::new(body, answering)))
        }
    });
    let (stream, mut back) = Patient::new(stream, HEAD, used);
    let ended = {
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = left.notified() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => Some(ended),
                    () = stop.cancelled() => None,
                }
            }
            () = stop.cancelled() => None,
        };
        match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(grace, connection).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        tracing::warn!(%address, "a request was still running at the end of the grace period");
                        return;
                    }
                }
            }
        }
    };
    match (ended, back.try_recv()) {
        (Ok(()), Ok(stream)) => linger(stream).await,
        (Err(err), _) => tracing::debug!(%address, error = %err, "connection"),
        // It was taken over.
        (Ok(()), Err(_)) => {}
    }
}

fn builder(tasks: &Tasks, streams: u32) -> auto::Builder<OnTasks> {
    let mut builder = auto::Builder::new(OnTasks(tasks.child("streams")));
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(MAX_HEADERS).max_headers(MANY_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_header_list_size(MAX_HEADERS as u32)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    builder
}

/// Runs what hyper starts as tasks that have an owner.
#[derive(Clone)]
struct OnTasks(Tasks);

impl<F> hyper::rt::Executor<F> for OnTasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.0.spawn_graceful("stream", async move {
            future.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_request_may_name_many_groups() {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
            let groups = request.headers().get_all("impersonate-group").iter().count();
            Ok::<_, Infallible>(http::Response::builder().header("groups", groups).body(Empty::<bytes::Bytes>::new()).unwrap())
        });
        let tasks = Tasks::root("test");
        let builder = builder(&tasks, 1);
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(server), service);
        let asking = async {
            let groups: String = (0..MANY_HEADERS - 2).map(|n| format!("Impersonate-Group: g{n}\r\n")).collect();
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{groups}Connection: close\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let (_, answer) = tokio::join!(serving, asking);
        assert!(answer.contains("groups: 254\r\n"), "{answer}");
    }
}
