//! Streams over a WebSocket, for browsers: the events of a watch, each a message, and the log of a container.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};
use tokio_tungstenite::tungstenite::{Error, Utf8Bytes};

use corten_api::status::Status;

use crate::negotiate::Encoding;
use crate::pipeline::Call;
use crate::response::{self, BoxError, Response, Tunnel};
use crate::state::State;

/// A wish for a WebSocket that can be fulfilled.
pub(crate) struct Wish {
    upgrade: OnUpgrade,
    accept: HeaderValue,
    /// The subprotocols that the client can speak, in its order.
    offered: Vec<String>,
    /// The one that is spoken.
    protocol: Option<&'static str>,
}

/// How a stream is cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// One event each: text where it is JSON, binary where it is protobuf.
    Events(Encoding),
    /// As the bytes come.
    Binary,
    /// As the bytes come, for clients that only take text.
    Base64,
    /// Messages that begin with their channel, as they come.
    Channels,
}

/// The WebSocket that a request asks for, if it does.
pub(crate) fn wished(call: &Call) -> Option<Wish> {
    let accept = accept_key(&call.headers)?;
    let values = call.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered = values.flat_map(|value| value.split(',')).map(|name| name.trim().to_owned()).collect();
    Some(Wish { upgrade: call.extensions.get::<OnUpgrade>()?.clone(), accept, offered, protocol: None })
}

/// What the server shows that it understood (RFC 6455, section 4.2.2).
fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let has = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return None;
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

impl Wish {
    /// The wish, if the client can speak this subprotocol, which it then does.
    pub(crate) fn speaking(self, protocol: &'static str) -> Option<Self> {
        self.offered.iter().any(|offered| offered == protocol).then_some(Self { protocol: Some(protocol), ..self })
    }

    /// Picks the subprotocol of a stream of bytes: the client's first that is known, binary when it names none.
    ///
    /// # Errors
    /// 403, when it names others only.
    pub(crate) fn negotiate(&mut self) -> Result<Framing, Status> {
        let (protocol, framing) = stream_protocol(&self.offered)?;
        self.protocol = protocol;
        Ok(framing)
    }

    /// Sends a stream as messages, and answers that it does.
    pub(crate) fn fulfil<S>(self, state: &Arc<State>, framing: Framing, pieces: S) -> Response
    where
        S: Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
    {
        let upgrade = self.upgrade;
        let tunnel = Tunnel::default();
        let kept = tunnel.clone();
        state.tasks.spawn("socket", async move {
            let _kept = kept;
            match upgrade.await {
                Ok(connection) => talk(TokioIo::new(connection), framing, Box::pin(pieces)).await,
                Err(err) => tracing::debug!(error = %err, "an upgrade did not come about"),
            }
        });
        let mut response = response::empty(StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(protocol) = self.protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        response.extensions_mut().insert(tunnel);
        response
    }
}

fn stream_protocol(offered: &[String]) -> Result<(Option<&'static str>, Framing), Status> {
    const KNOWN: [(&str, Framing); 2] = [("binary.k8s.io", Framing::Binary), ("base64.binary.k8s.io", Framing::Base64)];
    if offered.is_empty() {
        return Ok((None, Framing::Binary));
    }
    let known = offered.iter().find_map(|name| KNOWN.iter().find(|(known, _)| name == known));
    let (name, framing) = known.ok_or_else(|| {
        let why = format!("requested protocol(s) are not supported: [{}]", offered.join(" "));
        Status::failure(403, "Forbidden", why)
    })?;
    Ok((Some(name), *framing))
}

/// Sends until the stream ends or the client goes. What the client sends is of no interest.
async fn talk<T, S>(connection: T, framing: Framing, mut pieces: S)
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Stream<Item = Result<Bytes, BoxError>> + Unpin,
{
    let socket = WebSocketStream::from_raw_socket(connection, Role::Server, None).await;
    let (mut sender, mut receiver) = socket.split();
    if let Some(greeting) = framing.greeting()
        && sender.send(greeting).await.is_err()
    {
        return;
    }
    loop {
        tokio::select! {
            piece = pieces.next() => {
                let Some(Ok(piece)) = piece else { break };
                if send(&mut sender, framing, &piece).await.is_err() {
                    return;
                }
            }
            received = receiver.next() => {
                if matches!(received, None | Some(Err(_) | Ok(Message::Close(_)))) {
                    return;
                }
            }
        }
    }
    // Whether the client hears it or not, there is nothing more to say.
    let end = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    if sender.send(Message::Close(Some(end))).await.is_ok() {
        let _ = sender.close().await;
    }
}

async fn send<S>(sender: &mut S, framing: Framing, piece: &Bytes) -> Result<(), Error>
where
    S: Sink<Message, Error = Error> + Unpin,
{
    match framing {
        Framing::Binary | Framing::Channels => sender.feed(Message::Binary(piece.clone())).await?,
        Framing::Base64 => sender.feed(Message::Text(STANDARD.encode(piece).into())).await?,
        Framing::Events(encoding) => {
            for event in events(encoding, piece) {
                let message = match encoding {
                    Encoding::Protobuf => Message::Binary(event),
                    _ => Message::Text(Utf8Bytes::try_from(event).map_err(|_| Error::AttackAttempt)?),
                };
                sender.feed(message).await?;
            }
        }
    }
    sender.flush().await
}

impl Framing {
    /// An empty message before all others: clients of byte streams see by it that there is a connection.
    fn greeting(self) -> Option<Message> {
        match self {
            Self::Events(_) | Self::Channels => None,
            Self::Binary => Some(Message::Binary(Bytes::new())),
            Self::Base64 => Some(Message::Text(Utf8Bytes::default())),
        }
    }
}

/// The events of a piece of a watch's body: lines, or what comes after its length.
fn events(encoding: Encoding, piece: &Bytes) -> Vec<Bytes> {
    let mut rest = piece.clone();
    let mut events = Vec::new();
    while !rest.is_empty() {
        match encoding {
            Encoding::Protobuf => {
                let Some((length, _)) = rest.split_first_chunk::<4>() else { break };
                let end = (4 + u32::from_be_bytes(*length) as usize).min(rest.len());
                events.push(rest.split_to(end).slice(4..));
            }
            _ => {
                let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
                events.push(rest.split_to(end));
            }
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_into_events() {
        let lines = events(Encoding::Json, &Bytes::from_static(b"{}\n{\"a\":1}\n"));
        assert_eq!(lines, [&b"{}\n"[..], b"{\"a\":1}\n"]);
        let framed = events(Encoding::Protobuf, &Bytes::from_static(b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c"));
        assert_eq!(framed, [&b"ab"[..], b"", b"c"]);
        assert!(events(Encoding::Json, &Bytes::new()).is_empty());
    }

    #[tokio::test]
    async fn events_come_as_messages_until_they_end() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let pieces = ["{\"n\":1}\n{\"n\":2}\n", "{\"n\":3}\n"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
        let server = talk(ours, Framing::Events(Encoding::Json), futures::stream::iter(pieces));
        let client = async {
            let socket = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
            let messages = socket.take_while(|message| std::future::ready(matches!(message, Ok(Message::Text(_)))));
            messages.map(|message| message.unwrap().into_text().unwrap().to_string()).collect::<Vec<_>>().await
        };
        let ((), messages) = tokio::join!(server, client);
        assert_eq!(messages, ["{\"n\":1}\n", "{\"n\":2}\n", "{\"n\":3}\n"]);
    }

    #[tokio::test]
    async fn bytes_come_as_the_client_can_take_them() {
        let received = async |offered: &[&str]| {
            let offered: Vec<String> = offered.iter().map(ToString::to_string).collect();
            let (protocol, framing) = stream_protocol(&offered).unwrap();
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let server = talk(ours, framing, futures::stream::iter([Ok(Bytes::from_static(b"one\n"))]));
            let client = async {
                let socket = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
                socket
                    .take_while(|message| std::future::ready(!matches!(message, Ok(Message::Close(_)))))
                    .collect::<Vec<_>>()
                    .await
            };
            let ((), messages) = tokio::join!(server, client);
            (protocol, messages.into_iter().map(Result::unwrap).collect::<Vec<_>>())
        };
        let binary = vec![Message::Binary(Bytes::new()), Message::Binary(Bytes::from_static(b"one\n"))];
        assert_eq!(received(&[]).await, (None, binary.clone()));
        assert_eq!(received(&["x", "binary.k8s.io"]).await, (Some("binary.k8s.io"), binary));
        let text = vec![Message::Text("".into()), Message::Text("b25lCg==".into())];
        assert_eq!(received(&["base64.binary.k8s.io"]).await, (Some("base64.binary.k8s.io"), text));
        assert_eq!(stream_protocol(&["x".into()]).unwrap_err().code, 403);
    }

    #[test]
    fn only_a_whole_handshake_is_answered() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        assert!(accept_key(&headers).is_none());
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept_key(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        assert!(accept_key(&headers).is_none());
    }
}
