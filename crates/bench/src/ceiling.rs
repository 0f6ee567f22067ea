//! What a fan-out could reach here at most: a server that does nothing but write the same frames to every watcher, through the same
//! TLS and to the same client. What is between this and the API server's figure is the API server's.

use std::io::BufRead;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::api::{client_cpu, lines};
use crate::target::Target;

/// What to send.
#[derive(Clone, clap::Args)]
pub struct Args {
    /// Connections.
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    /// Frames to each.
    #[arg(long, default_value_t = 5000)]
    frames: usize,
    /// Bytes of a frame.
    #[arg(long, default_value_t = 3500)]
    bytes: usize,
    /// Frames written at once, as many as one commit of the store has changes.
    #[arg(long, default_value_t = 8)]
    together: usize,
    /// Is the server.
    #[arg(long, hide = true)]
    serve: bool,
}

impl Args {
    /// Whether this process is the server, whose first word is its URL.
    pub fn is_server(&self) -> bool {
        self.serve
    }
}

/// Ends with the benchmark.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures, and prints a line.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    if args.serve {
        return serve(args).await;
    }
    let mut child = Command::new(std::env::current_exe()?)
        .args(["ceiling", "--serve"])
        .args([format!("--frames={}", args.frames), format!("--bytes={}", args.bytes), format!("--together={}", args.together)])
        .stdout(Stdio::piped())
        .spawn()
        .context("start the server")?;
    let stdout = child.stdout.take().context("the server's output is a pipe")?;
    let server = Server(child);
    let url = std::io::BufReader::new(stdout).lines().next().context("the server says where it is")??;
    let target = Target::new(&url, "", None, vec![server.0.id()])?;
    let mut connections = Vec::new();
    for _ in 0..args.watchers {
        connections.push(target.connect().await?);
    }
    let (start, cpu, client) = (Instant::now(), target.cpu_seconds(), client_cpu());
    let mut watchers = JoinSet::new();
    for mut connection in connections {
        let frames = args.frames;
        watchers.spawn(async move {
            connection.send("GET", "/", None).await?;
            let (mut seen, all) = (0, Notify::new());
            let count = |piece: &[u8]| {
                seen += lines(piece);
                if seen >= frames {
                    all.notify_one();
                }
            };
            tokio::select! {
                status = connection.answer(count) => bail!("the answer ended: {status:?}"),
                () = all.notified() => Ok(()),
            }
        });
    }
    while let Some(watcher) = watchers.join_next().await {
        watcher??;
    }
    let events = (args.frames * args.watchers) as f64;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "ceiling of {} watchers, {} bytes, {} together: {:.0}/s, {:.2} GB/s   server CPU {:.2} us each, client {:.2}",
        args.watchers,
        args.bytes,
        args.together,
        events / seconds,
        events * args.bytes as f64 / seconds / 1e9,
        (target.cpu_seconds() - cpu) / events * 1e6,
        (client_cpu() - client) / events * 1e6,
    );
    Ok(())
}

async fn serve(args: &Args) -> anyhow::Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut provider = rustls::crypto::ring::default_provider();
    // The suite that the API server prefers.
    provider.cipher_suites.retain(|suite| suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("https://localhost:{}", listener.local_addr()?.port());
    let mut frame = vec![b'x'; args.bytes];
    frame[args.bytes - 1] = b'\n';
    let piece: Arc<[u8]> = chunk(&frame.repeat(args.together)).into();
    let pieces = args.frames.div_ceil(args.together);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        connections.spawn(send(acceptor.clone(), stream, piece.clone(), pieces));
    }
}

async fn send(acceptor: TlsAcceptor, stream: TcpStream, piece: Arc<[u8]>, pieces: usize) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let mut head = [0; 4096];
    anyhow::ensure!(stream.read(&mut head).await? > 0, "the client goes without a word");
    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
    for _ in 0..pieces {
        stream.write_all(&piece).await?;
        stream.flush().await?;
        // Every watcher has its turn, as when all of them are told of each commit.
        tokio::task::yield_now().await;
    }
    // The client goes when it has counted all.
    while stream.read(&mut head).await? > 0 {}
    Ok(())
}

fn chunk(data: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    chunk
}
