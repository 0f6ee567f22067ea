//! Benchmarks as programs: they print a table with the machine's shape and assert nothing.
//!
//! - `corten-bench api`: throughput and latency of the API server alone, over TLS with JSON, the client on the same
//!   cores; of another server with `--server URL --token TOKEN`.
//! - `corten-bench ceiling`: what a fan-out could reach on this machine, by a server that only writes.
//! - `corten-bench cluster`: a whole cluster's start, restart, pod starts, and what it costs when idle.
#![forbid(unsafe_code)]

mod api;
mod ceiling;
mod cluster;
mod http;
mod machine;
mod pods;
mod stats;
mod target;
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
    /// The ceiling of a fan-out.
    Ceiling(ceiling::Args),
    /// A whole cluster, in namespaces of its own. Needs root.
    Cluster(cluster::Args),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if !matches!(&cli.command, Command::Ceiling(args) if args.is_server()) {
        println!("machine: {}", machine::shape());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    match cli.command {
        Command::Api(args) => runtime.block_on(api::run(&cli.corten, &args)),
        Command::Ceiling(args) => runtime.block_on(ceiling::run(&args)),
        Command::Cluster(args) => cluster::run(&cli.corten, &args),
    }
}
