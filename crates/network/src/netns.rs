//! Work inside another network namespace.
//!
//! A namespace belongs to a thread. The work runs on a thread of its own that ends with it: a pool's thread that could
//! not find back would poison whatever runs on it next.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};

/// Opens the namespace file, to be entered or named in a request.
pub fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Runs `work` on a thread of its own and waits for its result without blocking the caller's thread.
pub async fn on_thread<T, F>(work: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("corten-netns".to_owned()).spawn(move || {
        // The receiver is gone only when the caller was cancelled; then nobody wants the result.
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| io::Error::other("the namespace thread ended without a result"))?
}

/// Moves the calling thread into `netns` for good. Only for a thread that ends with the work.
pub fn enter(netns: &File) -> io::Result<()> {
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

/// Gives the calling thread, and the threads and processes it starts from then on, a new network namespace.
pub fn isolate() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}
