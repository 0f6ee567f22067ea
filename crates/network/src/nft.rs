//! Hands scripts to nftables.
//!
//! Scripts are in nft's own language, through `nft -f -`: one process per transaction, a few milliseconds. The text is
//! what an administrator sees with `nft list ruleset`, so rules are written and tested in one language; the JSON form of
//! the same rules is several times longer, and Debian 12's nft parses it incompletely (verdict maps with
//! concatenations).

use std::io;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;

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
    let mut child = tokio::process::Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(false)
        .spawn()
        .map_err(|error| if error.kind() == io::ErrorKind::NotFound { NftError::Missing } else { NftError::Run(error) })?;
    let mut stdin = child.stdin.take().expect("stdin was asked for");
    let feed = async move {
        // A refused script may close the pipe early; its message says more than the broken pipe would.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.map_err(NftError::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(NftError::Refused { stderr: String::from_utf8_lossy(&output.stderr).into_owned() })
}
