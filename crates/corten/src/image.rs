//! `corten image`: images on this node. While a cluster runs, its process owns them and is asked over a socket; else the
//! files are opened here.

mod socket;

use std::sync::Arc;

use anyhow::{Context, bail};
use corten_runtime::{Images, RegistryAuth, RuntimeError};
use corten_task::Tasks;
use serde::{Deserialize, Serialize};

use crate::cli::{ImageArgs, ImageCommand};
use crate::paths::Paths;
use crate::{host, logging, node};

pub use socket::serve;

/// What is asked of whoever owns the images.
#[derive(Serialize, Deserialize)]
enum Request {
    Import(std::path::PathBuf),
    Pull { reference: String, username: String, password: String },
    Ls,
    Rm(String),
}

/// Lines for the user, or what went wrong.
type Reply = Result<Vec<String>, String>;

/// Runs one command.
pub fn run(args: &ImageArgs) -> anyhow::Result<()> {
    logging::start(0);
    host::require_root("image")?;
    let paths = Paths::new(&args.data.data_dir);
    let request = request(&args.command)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the async runtime")?;
    let reply = runtime.block_on(async {
        match socket::ask(&paths, &request).await? {
            Some(reply) => anyhow::Ok(reply),
            None => {
                let tasks = Tasks::root("image");
                let images: Arc<dyn Images> = node::open_runtime(&paths, "/", &tasks)?;
                let reply = answer(&*images, request).await;
                tasks.stop().await;
                Ok(reply)
            }
        }
    })?;
    match reply {
        Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
        Err(why) => bail!("{why}"),
    }
    Ok(())
}

fn request(command: &ImageCommand) -> anyhow::Result<Request> {
    Ok(match command {
        ImageCommand::Import { file } => {
            // The owner has another working directory.
            let path = std::path::absolute(file).with_context(|| format!("{}", file.display()))?;
            std::fs::File::open(&path).with_context(|| format!("{}", path.display()))?;
            Request::Import(path)
        }
        ImageCommand::Pull { reference, creds } => {
            let (username, password) = match creds.as_deref().map(|creds| creds.split_once(':')) {
                None => ("", ""),
                Some(Some(pair)) => pair,
                Some(None) => bail!("--creds has to be USER:PASSWORD"),
            };
            Request::Pull { reference: reference.clone(), username: username.into(), password: password.into() }
        }
        ImageCommand::Ls => Request::Ls,
        ImageCommand::Rm { reference } => Request::Rm(reference.clone()),
    })
}

async fn answer(images: &dyn Images, request: Request) -> Reply {
    let outcome = match request {
        Request::Import(path) => images.import(&path).await,
        Request::Pull { reference, username, password } => {
            let auth = RegistryAuth { username, password, registry_token: String::new() };
            let auth = (!auth.username.is_empty()).then_some(auth);
            images.pull(&reference, auth.as_ref()).await.map(|id| vec![id])
        }
        Request::Ls => images.list().await.map(|images| table(&images)),
        Request::Rm(reference) => remove(images, &reference).await.map(|()| Vec::new()),
    };
    outcome.map_err(|err| format!("{:#}", anyhow::Error::new(err)))
}

/// Removing is idempotent for the kubelet; a person wants to be told of a name that is wrong.
async fn remove(images: &dyn Images, reference: &str) -> Result<(), RuntimeError> {
    match images.find(reference).await? {
        Some(_) => images.remove(reference).await,
        None => Err(RuntimeError::NotFound { what: "image", id: reference.to_owned() }),
    }
}

/// One line a tag: reference, short id, size.
fn table(images: &[corten_runtime::Image]) -> Vec<String> {
    let mut rows = vec![("IMAGE".to_owned(), "ID".to_owned(), "SIZE".to_owned())];
    for image in images {
        let id = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        let size = format!("{:.1} MB", image.size as f64 / 1e6);
        let names = if image.tags.is_empty() { vec!["<none>".to_owned()] } else { image.tags.clone() };
        rows.extend(names.into_iter().map(|name| (name, id.clone(), size.clone())));
    }
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    rows.into_iter().map(|(name, id, size)| format!("{name:width$}  {id:12}  {size}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_listed_by_tag() {
        let image = corten_runtime::Image {
            id: "sha256:0123456789abcdef".into(),
            tags: vec!["localhost/a:1".into(), "localhost/long:2".into()],
            size: 1_500_000,
            ..corten_runtime::Image::default()
        };
        assert_eq!(
            table(&[image]),
            [
                "IMAGE             ID            SIZE",
                "localhost/a:1     0123456789ab  1.5 MB",
                "localhost/long:2  0123456789ab  1.5 MB"
            ]
        );
    }
}
