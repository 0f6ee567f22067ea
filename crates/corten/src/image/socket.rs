//! The socket on which a running cluster takes image commands: one JSON request, one JSON reply. Only root can reach it:
//! its directory has mode 0700.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use corten_runtime::Images;
use corten_task::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{Reply, Request, answer};
use crate::paths::Paths;

fn path(paths: &Paths) -> PathBuf {
    paths.run.join("images.sock")
}

/// Takes commands until the tasks are stopped.
pub fn serve<I: Images>(paths: &Paths, images: Arc<I>, tasks: &Tasks) -> anyhow::Result<()> {
    let path = path(paths);
    // What an earlier process left; the lock on the data directory says that it is gone.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
    let owner = tasks.clone();
    tasks.spawn("image commands", async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let images = images.clone();
                    owner.spawn("image command", async move {
                        if let Err(err) = talk(stream, &*images).await {
                            tracing::warn!(%err, "an image command was cut off");
                        }
                    });
                }
                Err(err) => {
                    tracing::warn!(%err, "image commands cannot be taken any more");
                    return;
                }
            }
        }
    });
    Ok(())
}

async fn talk(mut stream: UnixStream, images: &dyn Images) -> std::io::Result<()> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    let reply: Reply = match serde_json::from_slice::<Request>(&text) {
        Ok(request) => answer(images, request).await,
        Err(err) => Err(format!("the cluster does not understand this version of `corten image`: {err}")),
    };
    stream.write_all(&serde_json::to_vec(&reply)?).await?;
    stream.shutdown().await
}

/// Asks the running cluster; `None` when none is running.
pub async fn ask(paths: &Paths, request: &Request) -> anyhow::Result<Option<Reply>> {
    let mut stream = match UnixStream::connect(path(paths)).await {
        Ok(stream) => stream,
        Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        Err(err) => return Err(err).with_context(|| format!("reach the running cluster at {}", path(paths).display())),
    };
    stream.write_all(&serde_json::to_vec(request)?).await?;
    stream.shutdown().await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    serde_json::from_slice(&text).map(Some).context("the cluster stopped before it answered")
}
