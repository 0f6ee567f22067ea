//! Kubernetes' channels over a WebSocket (`v5.channel.k8s.io` and its elders): the first byte of a message is the channel. And
//! a WebSocket as a plain stream of bytes, through which SPDY is tunnelled.

use std::io;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};
use tokio_util::sync::CancellationToken;

use super::exec::{Chunk, Remote, Wanted};

/// Subprotocols for exec and attach, the best first.
pub const EXEC_PROTOCOLS: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];

const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const ERROR: u32 = 3;
const RESIZE: u32 = 4;
/// Says that the channel in the second byte is finished (v5).
const CLOSE: u8 = 255;

/// A socket of an upgraded connection.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Takes over an upgraded connection.
pub async fn accept(upgraded: Upgraded) -> Socket {
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await
}

/// Splits a socket into the streams of an exec. The second value is the work that moves the bytes; it ends with the
/// connection.
pub fn channels(socket: Socket, wanted: &Wanted, protocol: &str) -> (Remote, impl Future<Output = ()> + Send + use<>) {
    let base64 = protocol.contains("base64");
    let closes = protocol.starts_with("v5");
    let plain_status = !closes && !protocol.starts_with("v4");
    let (stdin_send, stdin) = mpsc::channel(16);
    let (resize_send, resize) = mpsc::channel(4);
    let (out, outgoing) = mpsc::channel(16);
    let gone = CancellationToken::new();
    let remote = Remote {
        stdin: wanted.stdin.then_some(stdin),
        resize: wanted.tty.then_some(resize),
        stdout: wanted.stdout.then_some(STDOUT),
        stderr: (wanted.stderr && !wanted.tty).then_some(STDERR),
        status: ERROR,
        plain_status,
        out,
        gone: gone.clone(),
    };
    let first = remote.stdout.or(remote.stderr).unwrap_or(ERROR);
    let (sink, stream) = socket.split();
    let work = async move {
        let incoming = receive(stream, Some(stdin_send), resize_send, base64, closes);
        let sending = send(sink, outgoing, first, base64);
        tokio::pin!(sending);
        tokio::select! {
            () = incoming => {
                // The client has closed: what it does not read any more need not be made.
                gone.cancel();
            }
            () = &mut sending => {}
        }
    };
    (remote, work)
}

async fn receive<S>(mut from: S, mut stdin: Option<mpsc::Sender<Bytes>>, resize: mpsc::Sender<Bytes>, base64: bool, closes: bool)
where
    S: Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    while let Some(Ok(message)) = from.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => return,
            _ => continue,
        };
        let Some((&channel, content)) = data.split_first() else { continue };
        // In base64 protocols the channel is a digit.
        let channel = if base64 { channel.wrapping_sub(b'0') } else { channel };
        let content = if base64 {
            match STANDARD.decode(content) {
                Ok(content) => Bytes::from(content),
                Err(_) => return,
            }
        } else {
            data.slice(1..)
        };
        match u32::from(channel) {
            STDIN => {
                if let Some(to) = &stdin
                    && !content.is_empty()
                    && to.send(content).await.is_err()
                {
                    stdin = None;
                }
            }
            RESIZE => {
                // A size that nobody takes is overtaken by the next.
                let _ = resize.try_send(content);
            }
            _ if channel == CLOSE && closes && content.first() == Some(&0) => stdin = None,
            _ => {}
        }
    }
}

async fn send<S>(mut to: S, mut outgoing: mpsc::Receiver<Chunk>, first: u32, base64: bool)
where
    S: Sink<Message> + Unpin,
{
    // An empty message tells the client that it is connected.
    let mut next = Some(Chunk { stream: first, bytes: Bytes::new(), fin: false });
    while let Some(chunk) = next {
        let status = chunk.stream == ERROR && chunk.fin;
        let empty_end = chunk.fin && chunk.bytes.is_empty();
        if !empty_end {
            let channel = u8::try_from(chunk.stream).unwrap_or(0);
            let message = if base64 {
                Message::text(format!("{channel}{}", STANDARD.encode(&chunk.bytes)))
            } else {
                let mut data = BytesMut::with_capacity(chunk.bytes.len() + 1);
                data.extend_from_slice(&[channel]);
                data.extend_from_slice(&chunk.bytes);
                Message::Binary(data.freeze())
            };
            if to.send(message).await.is_err() {
                return;
            }
        }
        if status {
            break;
        }
        next = outgoing.recv().await;
    }
    let _ = to.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await;
}

/// A WebSocket whose binary messages are one stream of bytes each way.
pub struct Tunnel {
    socket: Socket,
    read: Bytes,
}

impl Tunnel {
    pub fn new(socket: Socket) -> Self {
        Self { socket, read: Bytes::new() }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(self.socket.poll_next_unpin(task)) {
                Some(Ok(Message::Binary(data))) => self.read = data,
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(err)) => return Poll::Ready(Err(io::Error::other(err))),
            }
        }
        let count = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_ready_unpin(task)).map_err(io::Error::other)?;
        self.socket.start_send_unpin(Message::Binary(Bytes::copy_from_slice(data))).map_err(io::Error::other)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush_unpin(task).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_close_unpin(task).map_err(io::Error::other)
    }
}
