//! The runtime's side of the conversation with a shim.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::link;
use super::protocol::{Reply, Request, line, take};
use super::record::SOCKET;
use crate::cri::RuntimeError;

/// One connection. Dropping it ends what it stands for: an exec is killed, an attachment undone.
pub struct Conversation {
    stream: UnixStream,
    buffer: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Conversation {
    /// Connects to the shim of the sandbox in `directory`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Self::over(link::connect(directory, SOCKET)?)
    }

    /// Over a connected socket.
    ///
    /// # Errors
    /// When it cannot be registered with the runtime's reactor.
    pub fn over(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: UnixStream::from_std(stream)?, buffer: Vec::new(), fds: Vec::new() })
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the shim is gone.
    pub async fn send(&mut self, request: &Request) -> io::Result<()> {
        self.stream.write_all(&line(request)).await
    }

    /// The next reply, `None` when the shim has closed the connection. Cancelling loses nothing.
    ///
    /// # Errors
    /// When the connection breaks or the reply is none.
    pub async fn next(&mut self) -> io::Result<Option<Reply>> {
        loop {
            if let Some(reply) = take(&mut self.buffer) {
                return Ok(Some(reply?));
            }
            let mut chunk = [0; 8192];
            self.stream.readable().await?;
            let received = self
                .stream
                .try_io(Interest::READABLE, || corten_sys::fds::receive(self.stream.as_fd(), &mut chunk, &mut self.fds));
            match received {
                Ok(0) => return Ok(None),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) => return Err(err),
            }
        }
    }

    /// Descriptors that came with the last reply.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }
}

/// Asks the shim in `directory` and returns its reply with the conversation, which must be kept as long as its subject.
///
/// # Errors
/// [`RuntimeError::Start`] with the shim's own words when it refuses, [`RuntimeError::System`] when it does not answer.
pub async fn ask(directory: &Path, request: &Request) -> Result<(Reply, Conversation), RuntimeError> {
    let failed =
        |source: io::Error| RuntimeError::System { doing: "talk to the pod's shim".to_owned(), source: Box::new(source) };
    let mut conversation = Conversation::open(directory).map_err(failed)?;
    conversation.send(request).await.map_err(failed)?;
    match conversation.next().await.map_err(failed)? {
        Some(Reply::Failed(why)) => Err(RuntimeError::Start(why)),
        Some(reply) => Ok((reply, conversation)),
        None => Err(failed(io::ErrorKind::UnexpectedEof.into())),
    }
}
