//! `corten up`: every part of a single-node cluster as owned tasks of one process.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use corten_apiserver::{ApiServer, User};
use corten_client::{Client, Informers};
use corten_task::Tasks;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::UpArgs;
use crate::node::{self, Network};
use crate::paths::Paths;
use crate::running::Running;
use crate::{host, image, logging};

/// The one configuration tree that the flags become.
pub struct Config {
    /// Where everything is kept.
    pub paths: Paths,
    /// Name of the node.
    pub node_name: String,
    /// Address of the node.
    pub node_ip: IpAddr,
    /// Port of the API server.
    pub secure_port: u16,
    /// Addresses for pods.
    pub pod_cidr: IpNet,
    /// Addresses for Services.
    pub service_cidr: IpNet,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Where the administrator's kubeconfig goes.
    pub kubeconfig: std::path::PathBuf,
    /// cgroup below which the pods' cgroups are made.
    pub cgroup_root: String,
}

/// Runs the cluster until a signal asks it to stop.
pub fn run(args: UpArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    logging::start(args.v);
    let config = Config::from_args(args)?;
    host::require_root("up")?;
    prepare(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the async runtime")?;
    runtime.block_on(cluster(&config, started))
}

impl Config {
    fn from_args(args: UpArgs) -> anyhow::Result<Self> {
        let paths = Paths::new(&args.data.data_dir);
        let config = Self {
            node_name: args.node_name.map_or_else(host::node_name, Ok)?,
            node_ip: args.node_ip.map_or_else(host::node_ip, Ok)?,
            secure_port: args.secure_port,
            pod_cidr: args.pod_cidr.trunc(),
            service_cidr: args.service_cidr.trunc(),
            cluster_domain: args.cluster_domain,
            kubeconfig: args.write_kubeconfig.unwrap_or_else(|| paths.data.join("admin.kubeconfig")),
            cgroup_root: args.cgroup_root,
            paths,
        };
        config.check()?;
        Ok(config)
    }

    /// Faults of the flags together, before anything is touched.
    fn check(&self) -> anyhow::Result<()> {
        let mut faults = Vec::new();
        if overlap(self.pod_cidr, self.service_cidr) {
            faults.push(format!("--pod-cidr {} and --service-cidr {} overlap", self.pod_cidr, self.service_cidr));
        }
        if self.pod_cidr.prefix_len() > self.pod_cidr.max_prefix_len() - 8 {
            faults.push(format!("--pod-cidr {} is too small: a node takes 256 addresses", self.pod_cidr));
        }
        if self.service_cidr.hosts().nth(9).is_none() {
            faults.push(format!("--service-cidr {} is too small: the DNS server takes its tenth address", self.service_cidr));
        }
        if self.node_ip.is_loopback() || self.node_ip.is_unspecified() {
            faults.push(format!("--node-ip {} cannot be reached by pods", self.node_ip));
        }
        if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("; ")) }
    }

    /// The address of the cluster DNS: the tenth of the Service range.
    pub fn dns_ip(&self) -> IpAddr {
        self.service_cidr.hosts().nth(9).expect("the range was checked to have ten addresses")
    }

    fn apiserver(&self) -> corten_apiserver::Config {
        let mut config = corten_apiserver::Config::new(self.paths.pki());
        config.secure_port = self.secure_port;
        config.advertise_address = Some(self.node_ip);
        config.service_cluster_ip_range = vec![self.service_cidr];
        config.service_account_issuer = vec![format!("https://kubernetes.default.svc.{}", self.cluster_domain)];
        config.tls_sans =
            vec![self.node_name.clone(), self.node_ip.to_string(), format!("kubernetes.default.svc.{}", self.cluster_domain)];
        config
    }
}

fn overlap(one: IpNet, two: IpNet) -> bool {
    one.contains(&two) || two.contains(&one)
}

/// Makes the directories and refuses what cannot work, so that a cluster that cannot start leaves nothing half done.
fn prepare(config: &Config) -> anyhow::Result<()> {
    let address = SocketAddr::from(([0, 0, 0, 0], config.secure_port));
    match TcpListener::bind(address) {
        Ok(free) => drop(free),
        Err(err) => bail!("listen on port {}: {err}; stop what is using it, or give another --secure-port", config.secure_port),
    }
    for directory in [&config.paths.data, &config.paths.run] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.with_context(|| format!("make the directory {}", directory.display()))?;
    }
    Ok(())
}

async fn cluster(config: &Config, started: Instant) -> anyhow::Result<()> {
    let tasks = Tasks::root("corten");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let outcome = tokio::select! {
        outcome = serve(config, &tasks, started) => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    tasks.stop().await;
    Running::forget(&config.paths);
    outcome
}

/// Starts every part and then waits for ever; returns only with an error.
async fn serve(config: &Config, tasks: &Tasks, started: Instant) -> anyhow::Result<()> {
    let store = corten_store::Sqlite::open(corten_store::Config::new(config.paths.store()), tasks)?;
    Running::remember(config)?;
    let api = ApiServer::start(config.apiserver(), Arc::new(store), tasks).await.context("start the API server")?;
    let server = format!("https://{}", SocketAddr::new(config.node_ip, config.secure_port));
    api.certificates().keep_kubeconfig(&config.kubeconfig, &server, "kubernetes-admin", "system:masters")?;
    say(&format!("API server ready on {server} after {:.2} s", started.elapsed().as_secs_f64()));

    let identity = |user: &str, groups: &[&str]| client(&api, user, groups);
    let manager = identity("system:kube-controller-manager", &[]);
    let informers = Informers::new(manager, tasks);
    let node_user = format!("system:node:{}", config.node_name);
    let node_client = identity(&node_user, &["system:nodes"]);
    let runtime = node::runtime(config, tasks)?;
    image::serve(&config.paths, runtime.clone(), tasks)?;
    let _kubelet = node::kubelet(config, api.certificates(), node_client, runtime, Network::pending(), tasks).await?;

    let acting_as = |account: &str| {
        identity(
            &format!("system:serviceaccount:kube-system:{account}"),
            &["system:serviceaccounts", "system:serviceaccounts:kube-system"],
        )
    };
    corten_controllers::start(controllers(config, &api)?, acting_as, &informers, tasks);
    let _scheduler = corten_scheduler::Scheduler::start(
        corten_scheduler::Config { host: config.node_name.clone(), ..corten_scheduler::Config::default() },
        identity("system:kube-scheduler", &[]),
        &informers,
        tasks,
    );
    let proxy_client = identity("system:kube-proxy", &[]);
    let _proxy = corten_proxy::Proxy::start(node::proxy(config), proxy_client, &informers, tasks);
    corten_dns::Dns::start(node::dns(config), &informers, tasks).await.context("start the cluster DNS")?;

    node_ready(&informers, &config.node_name).await;
    say(&format!("node {} Ready after {:.2} s", config.node_name, started.elapsed().as_secs_f64()));
    std::future::pending().await
}

/// A client in this process that acts as `user`.
fn client(api: &ApiServer, user: &str, groups: &[&str]) -> Client {
    let groups = [groups, &["system:authenticated"]].concat();
    corten_client::in_process(api.local(User::new(user, &groups)), "default")
}

/// Resolves when the API shows the node Ready.
async fn node_ready(informers: &Informers, name: &str) {
    let ready = Arc::new(tokio::sync::Notify::new());
    let (name, told) = (name.to_owned(), ready.clone());
    informers.of::<Node>().on_change(move |change| {
        let node = change.object();
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
        let is_ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        if is_ready && node.metadata.name.as_deref() == Some(name.as_str()) {
            told.notify_one();
        }
    });
    ready.notified().await;
}

fn controllers(config: &Config, api: &ApiServer) -> anyhow::Result<corten_controllers::Config> {
    Ok(corten_controllers::Config {
        root_ca: api.certificates().ca().to_owned(),
        allocate_node_cidrs: true,
        cluster_cidrs: vec![config.pod_cidr.to_string().parse()?],
        service_cidrs: vec![config.service_cidr.to_string().parse()?],
        ..corten_controllers::Config::default()
    })
}

/// One line for the user, at once also when standard output is a pipe.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading any more: that is no reason to stop a cluster.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
