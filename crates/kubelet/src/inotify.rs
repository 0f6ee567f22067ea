//! Changes of files, told by the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::unix::AsyncFd;

/// Watches files and directories.
pub struct Watch(AsyncFd<Fd>);

impl Watch {
    /// Watches nothing yet.
    #[expect(deprecated, reason = "the replacement is unsafe; the descriptor is owned and never changes, as it demands")]
    pub fn new() -> io::Result<Self> {
        Ok(Self(AsyncFd::new(Fd(Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?))?))
    }

    /// Watches `path` for these changes.
    pub fn on(path: &Path, changes: AddWatchFlags) -> io::Result<Self> {
        let watch = Self::new()?;
        watch.add(path, changes)?;
        Ok(watch)
    }

    /// Watches `path` too; the same file again is the same descriptor.
    pub fn add(&self, path: &Path, changes: AddWatchFlags) -> io::Result<WatchDescriptor> {
        Ok(self.0.get_ref().0.add_watch(path, changes)?)
    }

    /// Waits for changes; which watches they came from. More than one change may be one answer.
    pub async fn changed(&self) -> io::Result<Vec<WatchDescriptor>> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.get_inner().0.read_events() {
                Ok(events) => return Ok(events.into_iter().map(|event| event.wd).collect()),
                Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
                Err(err) => return Err(err.into()),
            }
        }
    }
}

struct Fd(Inotify);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
