//! A small HTTP and gRPC client for probes and lifecycle hooks: one request on a connection of its own, certificates
//! unchecked, as upstream's prober does.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Bytes of an answer that are kept, as upstream.
const MAX_BODY: usize = 10 << 10;
const MAX_REDIRECTS: usize = 10;
/// How Go's words end when a server that was asked over TLS answers without.
pub const PLAIN_ANSWER: &str = "http: server gave HTTP response to HTTPS client";

/// What to ask for.
#[derive(Clone, Debug)]
pub struct Get {
    pub https: bool,
    /// Address to connect to; a name is resolved.
    pub host: String,
    pub port: u16,
    /// With the query, as written.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub agent: &'static str,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    /// A redirect led to another host and was not followed.
    pub elsewhere: bool,
}

/// A stream of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Sends a GET and follows redirects on the same host. The error is Go's text for the same failure.
pub async fn get(request: &Get, timeout: Duration) -> Result<Answer, String> {
    let url = url_of(request.https, &request.host, request.port, &request.path);
    match tokio::time::timeout(timeout, follow(request)).await {
        Ok(result) => result.map_err(|why| format!("Get {url:?}: {why}")),
        Err(_) => Err(format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
    }
}

async fn follow(request: &Get) -> Result<Answer, String> {
    let mut next = request.clone();
    for _ in 0..MAX_REDIRECTS {
        let (status, location, body) = once(&next).await?;
        let Some(location) = location.filter(|_| (300..400).contains(&status)) else {
            return Ok(Answer { status, body, elsewhere: false });
        };
        let Ok(target) = location.parse::<Uri>() else { return Ok(Answer { status, body, elsewhere: false }) };
        if let Some(host) = target.host() {
            if host.trim_matches(['[', ']']) != next.host {
                return Ok(Answer { status, body, elsewhere: true });
            }
            next.https = target.scheme_str() == Some("https");
            next.port = target.port_u16().unwrap_or(if next.https { 443 } else { 80 });
        }
        let path = target.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        next.path = path.to_owned();
    }
    Err("stopped after 10 redirects".to_owned())
}

async fn once(request: &Get) -> Result<(u16, Option<String>, String), String> {
    let stream = connect(&request.host, request.port).await?;
    let stream: Box<dyn Stream> = if request.https {
        let name = ServerName::try_from(request.host.clone()).map_err(|err| err.to_string())?;
        let tls = tokio_rustls::TlsConnector::from(TLS.clone()).connect(name, stream).await;
        Box::new(tls.map_err(|err| tls_words(&err))?)
    } else {
        Box::new(stream)
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|err| err.to_string())?;
    let path = if request.path.starts_with('/') { request.path.clone() } else { format!("/{}", request.path) };
    let mut builder = Request::get(path);
    let mut host = host_port(&request.host, request.port);
    let (mut agent, mut accept) = (Some(request.agent), true);
    for (name, value) in &request.headers {
        if name.eq_ignore_ascii_case("host") {
            host.clone_from(value);
            continue;
        }
        if name.eq_ignore_ascii_case("user-agent") {
            agent = None;
        }
        accept &= !name.eq_ignore_ascii_case("accept");
        // An empty value takes a default header away.
        if !value.is_empty() {
            builder = builder.header(name, value);
        }
    }
    builder = builder.header("Host", host).header("Connection", "close");
    if let Some(agent) = agent {
        builder = builder.header("User-Agent", agent);
    }
    if accept {
        builder = builder.header("Accept", "*/*");
    }
    let message = builder.body(Empty::<Bytes>::new()).map_err(|err| err.to_string())?;
    let exchange = async {
        let response = sender.send_request(message).await.map_err(|err| err.to_string())?;
        let status = response.status().as_u16();
        let location = response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
        // A longer body is cut, not an error.
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Ok((status, location, String::from_utf8_lossy(&body).into_owned()))
    };
    drive(exchange, connection).await
}

/// Go's names of the codes of gRPC, by number.
const GRPC_CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Asks `service` of a gRPC health server at an address. `Ok` has the serving status.
pub async fn grpc_health(host: &str, port: u16, service: &str) -> Result<u64, String> {
    let stream = connect(host, port).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|err| err.to_string())?;
    // HealthCheckRequest { string service = 1 }, in gRPC's frame.
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        prost::encoding::encode_varint(service.len() as u64, &mut message);
        message.extend(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend(message);
    let request = Request::post(format!("http://{}/grpc.health.v1.Health/Check", host_port(host, port)))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(Bytes::from(frame)))
        .map_err(|err| err.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|err| err.to_string())?;
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.map_err(|err| err.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let text = |name: &str| {
            let value = trailers.get(name).or_else(|| headers.get(name));
            value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        match text("grpc-status").as_str() {
            "0" | "" => {}
            "12" => {
                return Err(format!(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                    text("grpc-message")
                ));
            }
            code => {
                let word = code.parse().ok().and_then(|code: usize| GRPC_CODES.get(code)).copied();
                let code = word.map_or_else(|| format!("Code({code})"), str::to_owned);
                return Err(format!("error: health rpc probe failed: rpc error: code = {code} desc = {}", text("grpc-message")));
            }
        }
        // HealthCheckResponse { ServingStatus status = 1 }
        let bytes = body.to_bytes();
        let mut payload = bytes.get(5..).unwrap_or_default();
        if payload.first() == Some(&0x08) {
            payload = &payload[1..];
            return prost::encoding::decode_varint(&mut payload).map_err(|err| err.to_string());
        }
        Ok(0)
    };
    drive(exchange, connection).await
}

/// Connects, with Go's wording of a failure.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let target = host_port(host, port);
    let connected = match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect(SocketAddr::new(ip, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    };
    connected.map_err(|err| {
        let why = match err.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
            _ => err.to_string(),
        };
        format!("dial tcp {target}: connect: {why}")
    })
}

/// Runs an exchange and the connection under it in one task: neither outlives the other.
async fn drive<T>(
    exchange: impl Future<Output = Result<T, String>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<T, String> {
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        result = &mut exchange => result,
        ended = connection => match tokio::time::timeout(Duration::ZERO, exchange).await {
            Ok(result) => result,
            Err(_) => Err(ended.err().map_or_else(|| "EOF".to_owned(), |err| err.to_string())),
        },
    }
}

/// A failed handshake in Go's words, where users know them.
fn tls_words(err: &std::io::Error) -> String {
    match err.get_ref().and_then(|err| err.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => PLAIN_ANSWER.to_owned(),
        _ if err.kind() == std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => err.to_string(),
    }
}

pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn url_of(https: bool, host: &str, port: u16, path: &str) -> String {
    let scheme = if https { "https" } else { "http" };
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{}{slash}{path}", host_port(host, port))
}

/// A probe asks whether a server answers, not who it is.
static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| Arc::new(corten_tls::unverified().with_no_client_auth()));
