//! The name servers of a resolv.conf.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Upstream;

/// How long the file is taken to be unchanged without looking.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Who is asked, in order.
pub struct Servers {
    source: Upstream,
    /// Our own addresses: asking ourselves would go round in a circle.
    own: Vec<SocketAddr>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    servers: Vec<SocketAddr>,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
}

impl Servers {
    pub fn new(source: Upstream, own: &[SocketAddr]) -> Self {
        Self { source, own: own.to_vec(), known: Mutex::default() }
    }

    pub fn get(&self) -> Vec<SocketAddr> {
        let path = match &self.source {
            Upstream::Servers(servers) => return self.others(servers.iter().copied()),
            Upstream::File(path) => path,
        };
        let mut known = self.known.lock();
        if known.looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN) {
            self.look(path, &mut known);
        }
        known.servers.clone()
    }

    fn look(&self, path: &PathBuf, known: &mut Known) {
        known.looked = Some(Instant::now());
        let modified = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        if modified.is_some() && modified == known.modified {
            return;
        }
        known.modified = modified;
        match std::fs::read_to_string(path) {
            Ok(text) => known.servers = self.others(parse(&text).into_iter()),
            Err(error) => tracing::warn!(path = %path.display(), %error, "the name servers of the node cannot be read"),
        }
    }

    fn others(&self, servers: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        servers.filter(|server| !self.own.contains(server)).collect()
    }
}

fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then(|| words.next())?
        })
        // A zone of a link-local address is of no use to us.
        .filter_map(|word| word.split('%').next()?.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, 53))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_address_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        std::fs::write(
            &path,
            "# nameserver 1.1.1.1\nsearch x\nnameserver 10.43.0.10\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n",
        )
        .unwrap();
        let servers = Servers::new(Upstream::File(path), &["10.43.0.10:53".parse().unwrap()]);
        assert_eq!(servers.get(), ["192.0.2.1:53".parse().unwrap(), "[fe80::1]:53".parse::<SocketAddr>().unwrap()]);
    }
}
