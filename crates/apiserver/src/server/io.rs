//! A connection that does not wait for ever: when the other side takes nothing for a while, says nothing at all, or does not end
//! the head of a request that it began, it is dropped. Between requests it may be silent for longer; how long, the HTTP layer knows.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

/// How long a client may leave us waiting with bytes to send.
const STALL: Duration = Duration::from_secs(60);

/// What a connection is used for at the moment: told by who serves it, asked by who reads from it.
#[derive(Debug, Default)]
pub(super) struct Use {
    /// Requests whose head is there and whose answer is not over.
    requests: AtomicUsize,
    /// It is no row of requests and answers: HTTP/2, or taken over for something else.
    is_other: AtomicBool,
}

impl Use {
    /// The head of a request is there. It is being answered until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Answering {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    /// From now on heads of requests are not waited for here.
    pub(super) fn leave(&self) {
        self.is_other.store(true, Ordering::Relaxed);
    }

    fn expects_head(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0 && !self.is_other.load(Ordering::Relaxed)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Answering(Arc<Use>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, whose request is over with it.
pub(super) struct Answer<B> {
    body: B,
    _answering: Answering,
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, answering: Answering) -> Self {
        Self { body, _answering: answering }
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose writes fail when they stall, and whose reads fail when nothing comes at first, or a head that began has no end.
pub(super) struct Patient<S> {
    /// There until it is given back.
    inner: Option<S>,
    /// Where the stream goes when nobody reads or writes it any more.
    back: Option<oneshot::Sender<S>>,
    /// How long the client may take to say anything, and for the head of a request.
    patience: Duration,
    used: Arc<Use>,
    /// Whether the client has said anything.
    said: bool,
    /// Since when it is waited for the beginning, or a head is being read, if one is.
    since: Option<Instant>,
    /// Rings when the client has not said anything at all, or has not ended a head. Made when there is something to wait for.
    silence: Option<Pin<Box<Sleep>>>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// The stream, and where it comes back to in the end.
    pub(super) fn new(inner: S, patience: Duration, used: Arc<Use>) -> (Self, oneshot::Receiver<S>) {
        let (back, receiver) = oneshot::channel();
        let (inner, back, since) = (Some(inner), Some(back), Some(Instant::now()));
        (Self { inner, back, patience, used, said: false, since, silence: None, waiting: None }, receiver)
    }

    fn inner(&mut self) -> Pin<&mut S>
    where
        S: Unpin,
    {
        Pin::new(self.inner.as_mut().expect("the stream is there until this is dropped"))
    }

    /// Whether a head that began has been waited for too long.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.used.expects_head() {
            (self.since, self.silence) = (None, None);
        }
        let Some(since) = self.since else { return false };
        let until = since + self.patience;
        let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        silence.as_mut().poll(cx).is_ready()
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

impl<S> Drop for Patient<S> {
    fn drop(&mut self) {
        if let (Some(inner), Some(back)) = (self.inner.take(), self.back.take()) {
            // Nobody may wait for it: a connection that was taken over ends when those do who took it.
            let _ = back.send(inner);
        }
    }
}

/// Waits until the client closes its side too, and for no longer than a second. Closed with bytes in it that nobody read, a
/// connection is reset, and what the client has not read yet of its last answers is lost.
pub(super) async fn linger<S: AsyncRead + Unpin>(mut stream: S) {
    const LINGER: Duration = Duration::from_secs(1);
    let mut rest = [0; 1024];
    let close = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    let _ = tokio::time::timeout(LINGER, close).await;
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = self.inner().poll_read(cx, buf);
        if outcome.is_ready() {
            match self.used.expects_head() {
                true if self.said => _ = self.since.get_or_insert_with(Instant::now),
                // What was waited for was anything at all.
                true => (self.said, self.since, self.silence) = (true, Some(Instant::now()), None),
                false => (self.since, self.silence) = (None, None),
            }
            return outcome;
        }
        if self.is_over(cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not end what it began")));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = self.inner().poll_write(cx, buf);
        self.judge(cx, outcome)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = self.inner().poll_write_vectored(cx, bufs);
        self.judge(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = self.inner().poll_flush(cx);
        self.judge(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = self.inner().poll_shutdown(cx);
        self.judge(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(32);

    async fn fails(stream: &mut Patient<tokio::io::DuplexStream>, within: u64) -> bool {
        match tokio::time::timeout(Duration::from_secs(within), stream.read_u8()).await {
            Ok(read) => read.unwrap_err().kind() == io::ErrorKind::TimedOut,
            Err(_) => false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_does_not_end_a_head_is_dropped() {
        let (_quiet, ours) = tokio::io::duplex(64);
        assert!(fails(&mut Patient::new(ours, PATIENCE, Arc::default()).0, 33).await);

        let (mut theirs, ours) = tokio::io::duplex(64);
        let (mut stream, _back) = Patient::new(ours, PATIENCE, Arc::default());
        assert!(!fails(&mut stream, 31).await);
        theirs.write_all(b"G").await.unwrap();
        stream.read_u8().await.unwrap();
        assert!(!fails(&mut stream, 1).await, "there is more");
        // One byte now and then does not help.
        assert!(!fails(&mut stream, 20).await);
        theirs.write_all(b"T").await.unwrap();
        stream.read_u8().await.unwrap();
        assert!(fails(&mut stream, 13).await);
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_request_is_answered_and_after_it_the_client_may_be_silent() {
        let (mut theirs, ours) = tokio::io::duplex(64);
        let used = Arc::new(Use::default());
        let (mut stream, _back) = Patient::new(ours, PATIENCE, used.clone());
        theirs.write_all(b"G").await.unwrap();
        stream.read_u8().await.unwrap();
        let answering = used.begin();
        assert!(!fails(&mut stream, 3600).await, "an answer may take long");
        drop(answering);
        assert!(!fails(&mut stream, 3600).await, "no further request has begun");
        theirs.write_all(b"G").await.unwrap();
        stream.read_u8().await.unwrap();
        assert!(fails(&mut stream, 33).await);
        used.leave();
        theirs.write_all(b"G").await.unwrap();
        stream.read_u8().await.unwrap();
        assert!(!fails(&mut stream, 3600).await, "these are no requests");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_over_is_kept_until_the_client_closes_it_too() {
        let (mut theirs, ours) = tokio::io::duplex(64);
        let (stream, back) = Patient::new(ours, PATIENCE, Arc::default());
        drop(stream);
        let ours = back.await.unwrap();
        let client = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            theirs.write_all(b"more").await.unwrap();
            drop(theirs);
        };
        let start = Instant::now();
        tokio::join!(linger(ours), client);
        assert_eq!(start.elapsed().as_millis(), 300);
        let (_silent, ours) = tokio::io::duplex(64);
        let start = Instant::now();
        linger(ours).await;
        assert_eq!(start.elapsed().as_secs(), 1);
    }
}
