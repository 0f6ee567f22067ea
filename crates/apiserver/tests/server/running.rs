//! A server to be asked.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use corten_apiserver::{ApiServer, Config, User};
use corten_store::sqlite;
use corten_task::Tasks;
use http_body_util::{BodyExt, Full};
use tempfile::TempDir;
use tower::ServiceExt;

/// A server that runs until it is stopped.
pub struct Running {
    pub server: ApiServer,
    tasks: Tasks,
    directory: TempDir,
}

impl Running {
    /// A server on a directory of its own, which `change` is shown together with the configuration.
    pub async fn start(change: impl FnOnce(&Path, &mut Config)) -> Self {
        Self::on(tempfile::tempdir().unwrap(), change).await
    }

    /// A server on a directory that may have been used before.
    async fn on(directory: TempDir, change: impl FnOnce(&Path, &mut Config)) -> Self {
        let tasks = Tasks::root("test");
        let store = sqlite::Sqlite::open(sqlite::Config::new(directory.path().join("store")), &tasks).unwrap();
        let mut config = Config {
            bind_address: [127, 0, 0, 1].into(),
            secure_port: 0,
            advertise_address: Some([127, 0, 0, 1].into()),
            ..Config::new(directory.path().join("pki"))
        };
        change(directory.path(), &mut config);
        let server = ApiServer::start(config, Arc::new(store), &tasks).await.unwrap();
        Self { server, tasks, directory }
    }

    /// Stops the server and starts another one on the same directory.
    pub async fn restart(self) -> Self {
        let Self { server, tasks, directory } = self;
        tasks.stop().await;
        // The store's lock goes with its last user.
        drop(server);
        Self::on(directory, |_, _| {}).await
    }

    pub async fn stop(&self) {
        self.tasks.stop().await;
    }

    /// The directory with everything of the server's.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The whole answer to what `user` asks.
    pub async fn ask(&self, user: User, request: http::request::Builder, body: impl Into<Bytes>) -> http::Response<Bytes> {
        let request = request.body(Full::new(body.into())).unwrap();
        let (parts, body) = self.server.local(user).oneshot(request).await.unwrap().into_parts();
        http::Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }
}

/// A request for `path`, with a body of type `kind`.
pub fn request(method: &str, path: &str, kind: &str) -> http::request::Builder {
    http::Request::builder().method(method).uri(path).header("content-type", kind)
}

/// Who may do everything.
pub fn admin() -> User {
    User::new("admin", &["system:masters", "system:authenticated"])
}
