//! Port-forward and the SPDY variants of exec and attach: streams that the client opens, told apart by their headers.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use corten_runtime::Runtime;
use corten_task::Tasks;

use super::exec::{Chunk, Remote, Wanted};
use super::spdy::{Out, Stream, read, write};

/// How long a client may take to open the streams of an exec.
const OPEN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Forwards ports of a sandbox over a SPDY connection until it ends. Each connection is a pair of streams with one
/// `requestid`: `data` for the bytes, `error` for what went wrong.
pub async fn ports<S>(connection: S, runtime: Arc<dyn Runtime>, sandbox: String, tasks: Tasks)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (from, to) = tokio::io::split(connection);
    let (opened, mut streams) = mpsc::channel::<Stream>(16);
    let (out, outgoing) = mpsc::channel(64);
    let gone = CancellationToken::new();
    let pairs = async {
        let mut waiting: HashMap<String, Stream> = HashMap::new();
        while let Some(stream) = streams.recv().await {
            let id = stream.headers.get("requestid").or_else(|| stream.headers.get("port")).cloned().unwrap_or_default();
            let Some(other) = waiting.remove(&id) else {
                waiting.insert(id, stream);
                continue;
            };
            let is_data = |stream: &Stream| stream.headers.get("streamtype").is_some_and(|kind| kind == "data");
            let (data, error) = if is_data(&stream) { (stream, other) } else { (other, stream) };
            let (runtime, sandbox, out, gone) = (runtime.clone(), sandbox.clone(), out.clone(), gone.clone());
            tasks.spawn("forwarded connection", async move {
                tokio::select! {
                    () = gone.cancelled() => {}
                    () = connect(data, error, runtime, &sandbox, out) => {}
                }
            });
        }
    };
    let reading = read(from, opened, out.clone());
    let writing = write(to, outgoing);
    tokio::select! {
        result = reading => if let Err(err) = result { tracing::debug!(error = %err, "port-forward") },
        result = writing => if let Err(err) = result { tracing::debug!(error = %err, "port-forward") },
        () = pairs => {}
    }
    gone.cancel();
}

async fn connect(mut data: Stream, error: Stream, runtime: Arc<dyn Runtime>, sandbox: &str, out: mpsc::Sender<Out>) {
    let port = data.headers.get("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
    let connected = match port {
        Some(port) => runtime
            .port_forward(sandbox, port)
            .await
            .map_err(|err| format!("error forwarding port {port} to pod {sandbox}: {}", crate::chain(&err))),
        None => Err("invalid port".to_owned()),
    };
    let fin = |id: u32, bytes: Bytes| Out::Data { id, bytes, fin: true };
    // Nobody to tell when the connection is gone.
    match connected {
        Err(message) => {
            let _ = out.send(fin(error.id, message.into())).await;
            let _ = out.send(fin(data.id, Bytes::new())).await;
        }
        Ok(socket) => {
            let (mut from, mut to) = tokio::io::split(socket);
            let upload = async {
                while let Some(bytes) = data.data.recv().await {
                    if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                        break;
                    }
                }
                let _ = to.shutdown().await;
            };
            let download = async {
                let mut buffer = vec![0; 32 << 10];
                while let Ok(count @ 1..) = from.read(&mut buffer).await {
                    let bytes = Bytes::copy_from_slice(&buffer[..count]);
                    if out.send(Out::Data { id: data.id, bytes, fin: false }).await.is_err() {
                        break;
                    }
                }
            };
            // The server's end of sending ends the connection; the client's does not.
            let uploading = async {
                upload.await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = download => {}
                () = uploading => {}
            }
            let _ = out.send(fin(data.id, Bytes::new())).await;
            let _ = out.send(fin(error.id, Bytes::new())).await;
        }
    }
}

/// Waits for the streams of an exec on a SPDY connection. The second value is the work that moves the bytes, which the
/// caller runs beside it.
pub fn exec<S>(connection: S, wanted: Wanted) -> (impl Future<Output = Option<Remote>> + Send, impl Future<Output = ()> + Send)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (from, to) = tokio::io::split(connection);
    let (opened, mut streams) = mpsc::channel::<Stream>(8);
    let (frames, outgoing) = mpsc::channel(64);
    let (out, mut chunks) = mpsc::channel::<Chunk>(16);
    let gone = CancellationToken::new();
    let ended = gone.clone();
    let gather = async move {
        let mut expected = 1 + usize::from(wanted.stdin) + usize::from(wanted.stdout) + usize::from(wanted.stderr && !wanted.tty);
        expected += usize::from(wanted.tty);
        let mut remote =
            Remote { stdin: None, resize: None, stdout: None, stderr: None, status: 0, plain_status: false, out, gone };
        let all = async {
            while expected > 0 {
                let stream = streams.recv().await?;
                match stream.headers.get("streamtype").map(String::as_str) {
                    Some("error") => remote.status = stream.id,
                    Some("stdin") => remote.stdin = Some(stream.data),
                    Some("stdout") => remote.stdout = Some(stream.id),
                    Some("stderr") => remote.stderr = Some(stream.id),
                    Some("resize") => remote.resize = Some(stream.data),
                    _ => continue,
                }
                expected -= 1;
            }
            Some(())
        };
        tokio::time::timeout(OPEN_TIMEOUT, all).await.ok().flatten()?;
        Some(remote)
    };
    let forward_out = frames.clone();
    let work = async move {
        let chunks = async move {
            while let Some(chunk) = chunks.recv().await {
                let message = Out::Data { id: chunk.stream, bytes: chunk.bytes, fin: chunk.fin };
                if forward_out.send(message).await.is_err() {
                    return;
                }
            }
            let _ = forward_out.send(Out::Close).await;
        };
        let reading = async move {
            let _ = read(from, opened, frames).await;
            ended.cancel();
        };
        let writing = async move {
            let _ = write(to, outgoing).await;
        };
        // The writer ends last: after the status, or when the client is gone.
        tokio::select! {
            () = writing => {}
            ((), ()) = async { tokio::join!(chunks, reading) } => {}
        }
    };
    (gather, work)
}
