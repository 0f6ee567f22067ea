//! Hands scripts to nftables.
//!
//! Scripts are in nft's own language, through `nft -f -`: one process per transaction, a few milliseconds. The text is
//! what an administrator sees with `nft list ruleset`, so rules are written and tested in one language; the JSON form of
//! the same rules is several times longer, and Debian 12's nft parses it incompletely (verdict maps with
//! concatenations).

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::process::Command;

use corten_sys::process::output;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Why a script was not applied. The kernel applies a script entirely or not at all.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is missing.
    #[error("nft is not installed: install the package nftables")]
    Missing,
    /// It could not be run.
    #[error("run nft")]
    Run(#[source] io::Error),
    /// It refused the script.
    #[error("nft: {}", .stderr.trim())]
    Refused {
        /// What nft wrote.
        stderr: String,
    },
}

/// Applies `script` as one transaction in the caller's network namespace.
pub async fn apply(script: &str) -> Result<(), NftError> {
    run(&["-f", "-"], script).await.map(|_| ())
}

/// The chain, as nft lists it, or nothing when it does not exist.
pub async fn list_chain(family: &str, table: &str, chain: &str) -> Result<Option<String>, NftError> {
    match run(&["list", "chain", family, table, chain], "").await {
        Ok(text) => Ok(Some(text)),
        Err(NftError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn run(arguments: &[&str], input: &str) -> Result<String, NftError> {
    let mut command = Command::new("nft");
    command.args(arguments);
    // A file and no pipe: a refused script may not be read to its end.
    let script = file_of(input).map_err(NftError::Run)?;
    let ran = tokio::task::spawn_blocking(move || {
        let lent = script.as_raw_fd();
        output(command.stdin(script), &[lent])
    });
    let output = ran.await.unwrap_or_else(|failed| Err(failed.into())).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NftError::Missing,
        _ => NftError::Run(error),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(NftError::Refused { stderr: String::from_utf8_lossy(&output.stderr).into_owned() })
}

/// A file in memory that is read from its beginning.
fn file_of(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("nft", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}
