//! The built-in pod network: one bridge, one veth pair per pod, addresses from the node's pod range.
//!
//! A pod gets a host route only (its address is a /32 or /128) and sends everything to the node, also what goes to a
//! pod of the same node: see [`crate::rules`] for why. Names and hardware addresses are made from the IP address, which
//! is unique on the node, so nothing has to be remembered besides the lease.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_task::Tasks;
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::leases::{self, LeaseError, Leases};
use crate::local::host_prefix;
use crate::netlink::{Netlink, Request};
use crate::nft::{self, NftError};
use crate::rules::{self, Rules};
use crate::{Answer, Attachment, HostPort, NetworkError, PodNetwork, netns};

/// The name of a pod's interface, inside.
const POD_INTERFACE: &str = "eth0";

/// What the network is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Interface name of the bridge.
    pub bridge: String,
    /// The node's pod ranges, the primary family first, at most one for each family.
    pub ranges: Vec<IpNet>,
    /// The pod ranges of the whole cluster: inside them, pods keep their own address.
    pub cluster_ranges: Vec<IpNet>,
    /// The Service ranges. The node gets a route to them, so that its own processes reach Services without a default
    /// route; the packets are redirected before they would leave.
    pub service_ranges: Vec<IpNet>,
    /// Where the leases are kept. They need not outlive the machine.
    pub data: PathBuf,
    /// Largest packet in bytes; that of the interface of the default route if not given.
    pub mtu: Option<u32>,
    /// Whether traffic of pods to the outside takes the node's address.
    pub masquerade: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bridge: "corten0".to_owned(),
            ranges: Vec::new(),
            cluster_ranges: Vec::new(),
            service_ranges: Vec::new(),
            data: PathBuf::from("/var/lib/corten/network"),
            mtu: None,
            masquerade: true,
        }
    }
}

/// The node's bridge.
#[derive(Clone)]
pub struct Bridge {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    mtu: u32,
    index: u32,
    leases: Mutex<Leases>,
    /// Opened in the node's namespace, whatever the namespace of the thread that uses it.
    netlink: Mutex<Netlink>,
    /// One nftables transaction at a time, in the order in which the leases changed.
    tables: tokio::sync::Mutex<()>,
}

// === impl Bridge ===

impl Bridge {
    /// Sets up the bridge, forwarding and the nftables table, and reads the leases of an earlier process. What is
    /// already there stays: pods keep their connections.
    ///
    /// # Errors
    /// When the node refuses: not root, nft missing, a range that is too small, an unreadable lease directory.
    pub async fn open(config: Config, _tasks: &Tasks) -> Result<Self, NetworkError> {
        if config.ranges.is_empty() {
            return Err(system("set up the bridge", io::Error::other("the node has no pod range")));
        }
        let leases = Leases::open(&config.data, &config.ranges).map_err(lease_error)?;
        let doing = format!("set up the bridge {}", config.bridge);
        let (netlink, index, mtu) = set_up(&config).map_err(|source| system(&doing, source))?;
        forwarding(&config).map_err(|source| system("allow forwarding", source))?;
        let script = rules::table(&rules_of(&config), leases.iter().map(|(_, lease)| lease));
        nft::apply(&script).await.map_err(nft_error)?;
        warn_of_foreign_policy().await;
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                mtu,
                index,
                leases: Mutex::new(leases),
                netlink: Mutex::new(netlink),
                tables: tokio::sync::Mutex::new(()),
            }),
        })
    }

    /// The node's own addresses on the bridge, which pods use as their gateway.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.inner.config.ranges.iter().map(leases::gateway).collect()
    }

    /// Removes the bridge, every pod's interface and the table: the node is left as it was before, except for forwarding.
    pub async fn teardown(&self) -> Result<(), NetworkError> {
        let sandboxes: Vec<String> = self.inner.leases.lock().iter().map(|(sandbox, _)| sandbox.to_owned()).collect();
        for sandbox in sandboxes {
            self.release(&sandbox).await?;
        }
        let inner = self.inner.clone();
        netns::on_thread(move || inner.netlink.lock().apply(vec![Request::delete_link(&inner.config.bridge)]))
            .await
            .map_err(|source| system("remove the bridge", source))?;
        let _turn = self.inner.tables.lock().await;
        let table = rules::TABLE;
        nft::apply(&format!("table {table}\ndelete table {table}\n")).await.map_err(nft_error)
    }

    async fn acquire(&self, sandbox: &str, path: &Path, ports: &[HostPort]) -> Result<Attachment, NetworkError> {
        let (before, lease) = {
            let mut leases = self.inner.leases.lock();
            let before = leases.get(sandbox).filter(|before| before.ports != ports).cloned();
            (before, leases.acquire(sandbox, ports).map_err(lease_error)?)
        };
        let doing = || format!("attach sandbox {sandbox} to the network");
        let netns = netns::open(path).map_err(|source| system(&format!("open the namespace {}", path.display()), source))?;
        let inner = self.inner.clone();
        let addresses = lease.addresses.clone();
        let wired = netns::on_thread(move || inner.wire(&addresses, &netns)).await;
        wired.map_err(|source| system(&doing(), source))?;
        let mut script = before.map(|before| rules::delete(&before)).unwrap_or_default();
        script.push_str(&rules::add(&lease));
        if !script.is_empty() {
            let _turn = self.inner.tables.lock().await;
            nft::apply(&script).await.map_err(nft_error)?;
        }
        Ok(Attachment { ips: lease.addresses })
    }

    async fn release(&self, sandbox: &str) -> Result<(), NetworkError> {
        let Some(lease) = self.inner.leases.lock().get(sandbox).cloned() else { return Ok(()) };
        if let Some(ip) = lease.addresses.first() {
            let name = interface(*ip);
            let inner = self.inner.clone();
            netns::on_thread(move || inner.netlink.lock().apply(vec![Request::delete_link(&name)]))
                .await
                .map_err(|source| system(&format!("detach sandbox {sandbox} from the network"), source))?;
        }
        if !lease.ports.is_empty() {
            let _turn = self.inner.tables.lock().await;
            nft::apply(&rules::delete(&lease)).await.map_err(nft_error)?;
        }
        // Last, so that nobody gets the address before it is off the wire.
        self.inner.leases.lock().release(sandbox).map_err(lease_error)?;
        Ok(())
    }
}

impl PodNetwork for Bridge {
    fn attach<'a>(&'a self, sandbox: &'a str, netns: &'a Path, ports: &'a [HostPort]) -> Answer<'a, Attachment> {
        Box::pin(self.acquire(sandbox, netns, ports))
    }

    fn detach<'a>(&'a self, sandbox: &'a str, _netns: Option<&'a Path>) -> Answer<'a, ()> {
        Box::pin(self.release(sandbox))
    }

    fn reconcile<'a>(&'a self, live: &'a [String]) -> Answer<'a, ()> {
        Box::pin(async move {
            // What was attached since this process started may be newer than `live`.
            let stale: Vec<String> = {
                let leases = self.inner.leases.lock();
                leases.inherited().filter(|sandbox| !live.iter().any(|live| live == sandbox)).map(str::to_owned).collect()
            };
            for sandbox in &stale {
                tracing::info!(sandbox, "releasing the network of a sandbox that is gone");
                self.release(sandbox).await?;
            }
            Ok(())
        })
    }
}

// === impl Inner ===

impl Inner {
    /// Puts the pair in place and configures its inner end. Runs on a thread of its own, which ends in the pod's namespace.
    fn wire(&self, addresses: &[IpAddr], netns: &File) -> io::Result<()> {
        let primary = addresses.first().ok_or_else(|| io::Error::other("the lease has no address"))?;
        let host = interface(*primary);
        self.connect(&host, *primary, netns)?;
        netns::enter(netns)?;
        let mut inside = Netlink::open()?;
        if inside.link(POD_INTERFACE)?.is_none() {
            // The host's end was left over from a namespace that is gone: make both ends anew.
            self.netlink.lock().apply(vec![Request::delete_link(&host)])?;
            self.connect(&host, *primary, netns)?;
        }
        let index = inside.link(POD_INTERFACE)?.ok_or(io::ErrorKind::NotFound)?.index;
        let mut requests = vec![Request::up(1), Request::up(index)];
        for ip in addresses {
            requests.push(Request::address(index, *ip, host_prefix(*ip)));
            let Some(range) = self.config.ranges.iter().find(|range| range.addr().is_ipv4() == ip.is_ipv4()) else { continue };
            let gateway = leases::gateway(range);
            requests.push(Request::route(IpNet::from(gateway), None, index, None));
            let anywhere = if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            requests.push(Request::route(anywhere.parse().expect("a valid prefix"), Some(gateway), index, None));
        }
        inside.apply(requests)
    }

    fn connect(&self, host: &str, primary: IpAddr, netns: &File) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let veth = Request::veth(host, self.index, POD_INTERFACE, hardware_address(primary), netns.as_raw_fd(), self.mtu);
        self.netlink.lock().apply(vec![veth, Request::hairpin(host)])
    }
}

fn set_up(config: &Config) -> io::Result<(Netlink, u32, u32)> {
    let mut netlink = Netlink::open()?;
    let mtu = match config.mtu {
        Some(mtu) => mtu,
        None => {
            let outside = netlink.default_interface()?;
            netlink.links()?.into_iter().find(|link| Some(link.index) == outside).map_or(1500, |link| link.mtu)
        }
    };
    let primary = leases::gateway(&config.ranges[0]);
    netlink.apply(vec![Request::bridge(&config.bridge, hardware_address(primary), mtu)])?;
    let index = netlink.link(&config.bridge)?.ok_or(io::ErrorKind::NotFound)?.index;
    let mut requests = vec![Request::up(index)];
    for range in &config.ranges {
        requests.push(Request::address(index, leases::gateway(range), range.prefix_len()));
    }
    for range in &config.service_ranges {
        if let Some(own) = config.ranges.iter().find(|own| own.addr().is_ipv4() == range.addr().is_ipv4()) {
            requests.push(Request::route(range.trunc(), None, index, Some(leases::gateway(own))));
        }
    }
    netlink.apply(requests)?;
    Ok((netlink, index, mtu))
}

/// Lets the node forward packets, and answer on host ports of 127.0.0.1.
fn forwarding(config: &Config) -> io::Result<()> {
    let bridge = &config.bridge;
    if config.ranges.iter().any(|range| range.addr().is_ipv4()) {
        sysctl("net/ipv4/ip_forward", "1")?;
        sysctl(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
        // Pods must not learn to go around the node. The kernel sends redirects if either switch is on, so that of all
        // interfaces goes off too; every other interface keeps its own.
        sysctl("net/ipv4/conf/all/send_redirects", "0")?;
        sysctl(&format!("net/ipv4/conf/{bridge}/send_redirects"), "0")?;
    }
    if config.ranges.iter().any(|range| range.addr().is_ipv6()) {
        sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Sets a switch of the kernel, unless it is so already: some hosts mount /proc/sys read-only and have set it themselves.
fn sysctl(name: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|known| known.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("write {}: {error}", path.display())))
}

/// An accept in our table does not overrule a drop in another: say so once, or pods lose packets without a trace.
async fn warn_of_foreign_policy() {
    for family in ["ip", "ip6"] {
        if let Ok(Some(chain)) = nft::list_chain(family, "filter", "FORWARD").await
            && chain.contains("policy drop")
        {
            tracing::warn!(
                family,
                "the FORWARD chain of iptables drops by default, as Docker sets it up: pods will not reach other networks \
                 unless it accepts their traffic (iptables -P FORWARD ACCEPT)"
            );
        }
    }
}

fn rules_of(config: &Config) -> Rules<'_> {
    Rules { bridge: &config.bridge, ranges: &config.ranges, cluster: &config.cluster_ranges, masquerade: config.masquerade }
}

/// The node's end of the pair that leads to `ip`.
fn interface(ip: IpAddr) -> String {
    format!("veth{:08x}", low_bits(ip))
}

/// A locally administered hardware address that is the same for the same IP address: neighbours' caches stay right.
fn hardware_address(ip: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = low_bits(ip).to_be_bytes();
    [0x0a, 0x58, a, b, c, d]
}

fn low_bits(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(ip) => u128::from(ip) as u32,
    }
}

fn system(doing: &str, source: impl std::error::Error + Send + Sync + 'static) -> NetworkError {
    NetworkError::System { doing: doing.to_owned(), source: Box::new(source) }
}

fn lease_error(error: LeaseError) -> NetworkError {
    match error {
        LeaseError::Exhausted { range } => NetworkError::Exhausted { range: range.to_string() },
        LeaseError::File { .. } => system("keep the lease of an address", error),
    }
}

fn nft_error(error: NftError) -> NetworkError {
    system("update the nftables table of the pod network", error)
}
