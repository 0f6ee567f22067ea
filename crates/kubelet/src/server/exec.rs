//! Carries the streams of a process to a client, whatever the framing: both WebSocket channels and SPDY streams come down to
//! numbered byte streams.

use bytes::Bytes;
use corten_runtime::{Process, RuntimeError, TerminalSize};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Bytes for one stream of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub stream: u32,
    pub bytes: Bytes,
    /// The stream ends with this.
    pub fin: bool,
}

/// The client's side.
pub struct Remote {
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    pub resize: Option<mpsc::Receiver<Bytes>>,
    /// Number of the stream for standard output, if wanted.
    pub stdout: Option<u32>,
    pub stderr: Option<u32>,
    /// Number of the stream for the final status.
    pub status: u32,
    /// Whether the status is the text of a failure, and nothing when there was none: so it is in the oldest protocols.
    pub plain_status: bool,
    pub out: mpsc::Sender<Chunk>,
    /// The client is gone.
    pub gone: CancellationToken,
}

/// What the client asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Runs the streams until the process has ended and everything was sent, or the client is gone.
pub async fn run(process: Result<Process, RuntimeError>, mut remote: Remote) {
    let gone = remote.gone.clone();
    let status = match process {
        Err(err) => failure(&crate::chain(&err)),
        Ok(process) => tokio::select! {
            () = gone.cancelled() => return,
            status = carry(process, &mut remote) => status,
        },
    };
    for stream in [remote.stdout, remote.stderr].into_iter().flatten() {
        let _ = remote.out.send(Chunk { stream, bytes: Bytes::new(), fin: true }).await;
    }
    let bytes = match (remote.plain_status, status["status"] == "Success") {
        (false, _) => status.to_string(),
        (true, true) => String::new(),
        (true, false) => status["message"].as_str().unwrap_or_default().to_owned(),
    };
    let bytes = Bytes::from(bytes);
    // A client that is gone meanwhile needs no status.
    let _ = remote.out.send(Chunk { stream: remote.status, bytes, fin: true }).await;
}

async fn carry(process: Process, remote: &mut Remote) -> Value {
    let Process { stdin, stdout, stderr, resize, exit } = process;
    let input = async {
        let (Some(mut from), Some(mut to)) = (remote.stdin.take(), stdin) else { return };
        while let Some(bytes) = from.recv().await {
            // The process may close its input and go on.
            if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    let sizes = async {
        let Some(mut from) = remote.resize.take() else { return };
        while let Some(bytes) = from.recv().await {
            let Ok(size) = serde_json::from_slice::<TerminalSize>(&bytes) else { continue };
            if resize.send(size).await.is_err() {
                return;
            }
        }
    };
    let (out, err) = (pump(stdout, remote.stdout, &remote.out), pump(stderr, remote.stderr, &remote.out));
    let done = async { tokio::join!(exit, out, err).0 };
    let pumps = async {
        tokio::join!(input, sizes);
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        result = done => result,
        () = pumps => return failure("the streams ended"),
    };
    match result {
        Ok(0) => json!({ "metadata": {}, "status": "Success" }),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
        }),
        Err(err) => failure(&crate::chain(&err)),
    }
}

async fn pump(from: Option<Box<dyn AsyncRead + Send + Unpin>>, stream: Option<u32>, out: &mpsc::Sender<Chunk>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 32 << 10];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                let Some(stream) = stream else { continue };
                let bytes = Bytes::copy_from_slice(&buffer[..count]);
                if out.send(Chunk { stream, bytes, fin: false }).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A status for what went wrong before or around the command.
pub fn failure(why: &str) -> Value {
    let message = format!("error executing command in container: {why}");
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError",
        "details": { "causes": [{ "message": message }] },
        "code": 500,
    })
}
