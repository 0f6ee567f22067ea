//! The command line: what a user can type, and which program it starts.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{components, down, image, up};

/// Kubernetes v1.36 in one small binary.
#[derive(Parser)]
#[command(name = "corten", version, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole single-node cluster in the foreground.
    Up(UpArgs),
    /// Stop the cluster, its containers and its network; the data stays.
    Down(DownArgs),
    /// Images on this node.
    Image(ImageArgs),
}

/// Where the cluster keeps its things.
#[derive(Args, Clone)]
pub struct DataDir {
    /// Directory for everything durable.
    #[arg(long, default_value = "/var/lib/corten", value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// `corten up`
#[derive(Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub data: DataDir,
    /// Port of the API server.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Name of the node [default: the host name].
    #[arg(long)]
    pub node_name: Option<String>,
    /// Address of the node [default: the address on the interface of the default route].
    #[arg(long)]
    pub node_ip: Option<IpAddr>,
    /// Addresses for pods.
    #[arg(long, default_value = "10.42.0.0/16")]
    pub pod_cidr: ipnet::IpNet,
    /// Addresses for Services; the first is the API server's, the tenth the DNS server's.
    #[arg(long, default_value = "10.43.0.0/16")]
    pub service_cidr: ipnet::IpNet,
    /// DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Where to write the administrator's kubeconfig, mode 0600 [default: DATA_DIR/admin.kubeconfig].
    #[arg(long, value_name = "FILE")]
    pub write_kubeconfig: Option<PathBuf>,
    /// cgroup below which the pods' cgroups are made.
    #[arg(long, default_value = "/")]
    pub cgroup_root: String,
    /// Verbosity of the log, as klog's.
    #[arg(long, short, default_value_t = 0)]
    pub v: u8,
}

/// `corten down`
#[derive(Args)]
pub struct DownArgs {
    #[command(flatten)]
    pub data: DataDir,
    /// Also delete the data directory: the cluster is gone for good.
    #[arg(long)]
    pub purge: bool,
}

/// `corten image`
#[derive(Args)]
pub struct ImageArgs {
    #[command(flatten)]
    pub data: DataDir,
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What to do with images.
#[derive(Subcommand)]
pub enum ImageCommand {
    /// Import an image from a tar file (OCI layout or docker-archive).
    Import {
        /// The file.
        file: PathBuf,
    },
    /// Pull an image from its registry.
    Pull {
        /// The reference, such as `registry.example/app:1`.
        reference: String,
        /// Registry credentials as USER:PASSWORD [default: none].
        #[arg(long, value_name = "USER:PASSWORD", env = "CORTEN_REGISTRY_CREDS", hide_env_values = true)]
        creds: Option<String>,
    },
    /// List images.
    Ls,
    /// Remove an image by reference or id.
    Rm {
        /// The reference or id.
        reference: String,
    },
}

/// Runs the program that the first word names.
pub fn run(first: Option<OsString>, rest: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    // Single components take upstream's flags, in upstream's spelling, so they have a parser of their own.
    if let Some(component) = first.as_ref().and_then(|name| name.to_str()).and_then(components::named) {
        return components::run(component, rest);
    }
    let mut command = Cli::command();
    for component in components::ALL {
        command = command.subcommand(clap::Command::new(component.name).about(component.about));
    }
    let matches = command.get_matches_from(std::iter::once("corten".into()).chain(first).chain(rest));
    match Cli::from_arg_matches(&matches).unwrap_or_else(|err| err.exit()).command {
        Command::Up(args) => up::run(args),
        Command::Down(args) => down::run(&args),
        Command::Image(args) => image::run(&args),
    }
}
