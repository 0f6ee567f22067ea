//! A connection that does not wait for ever: when the other side takes nothing for a while, it is dropped.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a client may leave us waiting with bytes to send.
const STALL: Duration = Duration::from_secs(60);

/// A stream whose writes fail when they stall, and whose first read fails when nothing comes. Later reads wait for as long as the
/// client is silent; the HTTP layer has its own limit for headers.
pub(super) struct Patient<S> {
    inner: S,
    /// Rings when the client has not said anything at all; gone when it has.
    silence: Option<Pin<Box<Sleep>>>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// `silence` is how long the client may take to say anything.
    pub(super) fn new(inner: S, silence: Duration) -> Self {
        Self { inner, silence: Some(Box::pin(tokio::time::sleep(silence))), waiting: None }
    }

    /// Starts or checks the clock after a write that made no progress, and stops it after one that did.
    fn judge<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL)));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

use std::future::Future;

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buf);
        if outcome.is_ready() {
            self.silence = None;
            return outcome;
        }
        match self.silence.as_mut().map(|silence| silence.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client says nothing"))),
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, outcome)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_dropped_and_who_said_something_may_be_silent() {
        let (_quiet, ours) = tokio::io::duplex(64);
        let mut stream = Patient::new(ours, Duration::from_secs(32));
        let err = stream.read_u8().await.unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::TimedOut);

        let (mut theirs, ours) = tokio::io::duplex(64);
        let mut stream = Patient::new(ours, Duration::from_secs(32));
        theirs.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        let later = tokio::time::timeout(Duration::from_secs(3600), stream.read_u8()).await;
        assert!(later.is_err(), "still waiting");
    }
}
