//! Benchmarks as programs: they print a table with the machine's shape and assert nothing.
//!
//! - `corten-bench api`: throughput and latency of the API server alone, over TLS with JSON, the client on the same cores.
//! - `corten-bench cluster`: a whole cluster's start, restart, pod starts, and what it costs when idle.
#![forbid(unsafe_code)]

mod api;
mod cluster;
mod http;
mod machine;
mod pods;
mod stats;
mod wire;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Benchmarks of Corten.
#[derive(Parser)]
struct Cli {
    /// The corten binary to measure.
    #[arg(long, default_value = "target/release/corten", global = true)]
    corten: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The API server under load.
    Api(api::Args),
    /// A whole cluster, in namespaces of its own. Needs root.
    Cluster(cluster::Args),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    println!("machine: {}", machine::shape());
    let runtime = tokio::runtime::Runtime::new()?;
    match cli.command {
        Command::Api(args) => runtime.block_on(api::run(&cli.corten, &args)),
        Command::Cluster(args) => cluster::run(&cli.corten, &args),
    }
}
