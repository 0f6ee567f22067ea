//! Streams of processes in containers: pipes and terminals whose other ends the process holds, so that their bytes pass
//! through no further process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use corten_task::Tasks;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use super::client::Conversation;
use super::protocol::{Reply, Stream};
use crate::cri::{ExecOutput, Process, RuntimeError, TerminalSize};

/// Most output that [`collect`] keeps of each stream, in bytes, as in CRI.
const MOST_OUTPUT: u64 = 16 << 20;
/// How long output is awaited after the process itself has ended: a child of it may keep the pipe open for ever.
const AFTER_EXIT: Duration = Duration::from_secs(2);

/// Makes a process of what the shim passed.
///
/// # Errors
/// When a descriptor cannot be registered with the reactor.
pub fn process(names: &[Stream], mut conversation: Conversation, tasks: &Tasks) -> io::Result<Process> {
    let (resize, mut sizes) = tokio::sync::mpsc::channel::<TerminalSize>(4);
    let (mut stdin, mut stdout, mut stderr): (Option<Input>, Option<Output>, Option<Output>) = (None, None, None);
    for (name, fd) in names.iter().zip(conversation.take_fds()) {
        match name {
            Stream::Stdin => stdin = Some(Box::new(pipe::Sender::from_owned_fd(fd)?)),
            Stream::Stdout => stdout = Some(Box::new(pipe::Receiver::from_owned_fd(fd)?)),
            Stream::Stderr => stderr = Some(Box::new(pipe::Receiver::from_owned_fd(fd)?)),
            Stream::Terminal => {
                let terminal = Terminal::new(fd)?;
                stdin = Some(Box::new(terminal.clone()));
                stdout = Some(Box::new(terminal.clone()));
                tasks.spawn("terminal sizes", async move {
                    while let Some(size) = sizes.recv().await {
                        if let Err(err) = corten_sys::terminal::resize(terminal.0.get_ref().as_fd(), size.width, size.height) {
                            tracing::debug!(%err, "set terminal size");
                        }
                    }
                });
                // The receiver lives in the task; without a terminal it is dropped, and sizes go nowhere.
                sizes = tokio::sync::mpsc::channel(1).1;
            }
            Stream::Socket => {}
        }
    }
    let exit = Box::pin(async move {
        match conversation.next().await {
            Ok(Some(Reply::Exited(code))) => Ok(code),
            Ok(Some(Reply::Failed(why))) => Err(RuntimeError::Start(why)),
            Ok(_) => Err(RuntimeError::Invalid("the pod's shim ended before the process".to_owned())),
            Err(source) => Err(RuntimeError::System { doing: "await the process".to_owned(), source: Box::new(source) }),
        }
    });
    Ok(Process { stdin, stdout, stderr, resize, exit })
}

type Input = Box<dyn AsyncWrite + Send + Unpin>;
type Output = Box<dyn AsyncRead + Send + Unpin>;

/// Runs a process to its end and keeps its output.
///
/// # Errors
/// [`RuntimeError::Timeout`] when it did not end in time; dropping its conversation has it killed.
pub async fn collect(process: Process, timeout: Option<Duration>) -> Result<ExecOutput, RuntimeError> {
    let Process { stdout, stderr, exit, .. } = process;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let run = async {
        let reading = async { tokio::join!(read(stdout, &mut out), read(stderr, &mut err)) };
        tokio::pin!(reading);
        let mut exit = exit;
        let mut complete = false;
        let code = tokio::select! {
            code = &mut exit => code,
            _ = &mut reading => {
                complete = true;
                exit.await
            }
        };
        if !complete {
            let _ = tokio::time::timeout(AFTER_EXIT, reading).await;
        }
        code
    };
    let code = match timeout {
        Some(limit) => tokio::time::timeout(limit, run).await.map_err(|_| RuntimeError::Timeout(limit))?,
        None => run.await,
    };
    Ok(ExecOutput { exit_code: code?, stdout: out, stderr: err })
}

async fn read(from: Option<Output>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    // What was read before an error is the output.
    let _ = (&mut from).take(MOST_OUTPUT).read_to_end(into).await;
    // The rest is taken and dropped, so that the process is not held up.
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}

/// A terminal's master side.
#[derive(Clone)]
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    #[expect(deprecated, reason = "an owned descriptor is never another's, so the safe constructor is sound here")]
    fn new(fd: OwnedFd) -> io::Result<Self> {
        super::shim::nonblocking(&fd)?;
        Ok(Self(Arc::new(AsyncFd::new(fd)?)))
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let result = guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), buffer.initialize_unfilled())?));
            match result {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The last holder of the slave has closed it: the end.
                Ok(Err(err)) if err.raw_os_error() == Some(nix::libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(err)) => return Poll::Ready(Err(err)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            if let Ok(result) = guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
