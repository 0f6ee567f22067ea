//! Gives every node a range of pod addresses out of the cluster's ranges (`spec.podCIDRs`).
//!
//! Which ranges are taken is read from the nodes; a range that was just given out is remembered until its node shows it
//! or is gone. One worker, so that two nodes never get the same range.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use corten_client::{Change, Client, EventType, Informer, Key, Queue, Recorder, Requeue};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::{Context, synced};
use crate::error::{During, Error, Result, gone_is_fine};
use crate::meta::{is_deleting, name, reference};

/// A range of addresses, such as `10.42.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    first: u128,
    bits: u8,
    v6: bool,
}

/// Why a text is not a range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid CIDR address: {0}")]
pub struct InvalidCidr(String);

impl std::str::FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidCidr> {
        let invalid = || InvalidCidr(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(invalid)?;
        let bits: u8 = bits.parse().map_err(|_| invalid())?;
        let (number, v6) = match address.parse().map_err(|_| invalid())? {
            IpAddr::V4(address) => (u128::from(u32::from(address)), false),
            IpAddr::V6(address) => (u128::from(address), true),
        };
        let width = if v6 { 128 } else { 32 };
        if bits > width {
            return Err(invalid());
        }
        let host = width - bits;
        let first = if host == 128 { 0 } else { number >> host << host };
        Ok(Self { first, bits, v6 })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = if self.v6 {
            IpAddr::V6(Ipv6Addr::from(self.first))
        } else {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(self.first).unwrap_or(0)))
        };
        write!(f, "{address}/{}", self.bits)
    }
}

impl Cidr {
    const fn width(&self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let bits = self.bits.min(other.bits);
        let shift = self.width() - bits;
        self.v6 == other.v6 && (shift == 128 || self.first >> shift == other.first >> shift)
    }

    /// The first range of `bits` in this one that overlaps none of `taken`.
    fn free(&self, bits: u8, taken: &[Self]) -> Option<Self> {
        if bits < self.bits || bits > self.width() {
            return None;
        }
        let step = 1u128.checked_shl(u32::from(self.width() - bits))?;
        // No more candidates than taken ranges can be in the way, if these are no larger than what is given out.
        let count = 1u128.checked_shl(u32::from(bits - self.bits)).unwrap_or(u128::MAX);
        (0..count)
            .map(|n| Self { first: self.first + n * step, bits, v6: self.v6 })
            .find(|candidate| !taken.iter().any(|range| range.overlaps(candidate)))
    }
}

struct Allocator {
    client: Client,
    nodes: Informer<Node>,
    recorder: Recorder,
    ranges: Vec<(Cidr, u8)>,
    /// The service range is not for pods.
    reserved: Vec<Cidr>,
    given: Mutex<HashMap<Key, Vec<Cidr>>>,
}

/// Starts the controller, if it has ranges to give.
pub(crate) fn start(ctx: &Context) {
    let config = &ctx.config;
    if !config.allocate_node_cidrs || config.cluster_cidrs.is_empty() {
        return;
    }
    let size = |range: &Cidr| if range.v6 { config.node_cidr_mask_size_ipv6 } else { config.node_cidr_mask_size_ipv4 };
    let queue: Queue = Queue::new();
    let controller = Arc::new(Allocator {
        client: ctx.client.clone(),
        nodes: ctx.informers.of(),
        recorder: ctx.recorder("cidrAllocator"),
        // A cluster range smaller than a node's usual share is given out whole.
        ranges: config.cluster_cidrs.iter().map(|range| (*range, size(range).max(range.bits))).collect(),
        reserved: config.service_cidrs.clone(),
        given: Mutex::default(),
    });
    controller.nodes.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<Node>| {
            let key = Key::of(&**change.object());
            if change.is_deleted() {
                controller.given.lock().remove(&key);
            } else if ranges_of(change.object()).is_empty() {
                queue.add(key);
            }
        }
    });
    let synced = synced!(controller.nodes);
    ctx.run("nodeipam", 1, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

impl Allocator {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(node) = self.nodes.get(key) else { return Ok(Requeue::OnChange) };
        if !ranges_of(&node).is_empty() || is_deleting(&node.metadata) {
            return Ok(Requeue::OnChange);
        }
        let taken: Vec<Cidr> = {
            let given = self.given.lock();
            let nodes = self.nodes.list();
            let shown = nodes.iter().flat_map(|node| ranges_of(node));
            let given = given.iter().filter(|(owner, _)| *owner != key).flat_map(|(_, ranges)| ranges.iter().copied());
            shown.chain(given).chain(self.reserved.iter().copied()).collect()
        };
        let Some(chosen) = choose(&self.ranges, &taken) else {
            self.recorder.event(
                &reference(&*node),
                EventType::Normal,
                "CIDRNotAvailable",
                format!("Node {} status is now: CIDRNotAvailable", name(&node.metadata)),
            );
            return Err(Error::Invalid("no remaining CIDRs in cluster CIDR".into()));
        };
        self.given.lock().insert(key.clone(), chosen.clone());
        let texts: Vec<String> = chosen.iter().map(ToString::to_string).collect();
        let patch = json!({"metadata": {"uid": node.metadata.uid}, "spec": {"podCIDR": texts[0], "podCIDRs": texts}});
        let api: Api<Node> = Api::all(self.client.clone());
        let patched = gone_is_fine(api.patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await);
        if matches!(patched, Err(_) | Ok(None)) {
            self.given.lock().remove(key);
        }
        patched.during("assign a pod CIDR to node", key)?;
        Ok(Requeue::OnChange)
    }
}

fn choose(ranges: &[(Cidr, u8)], taken: &[Cidr]) -> Option<Vec<Cidr>> {
    ranges.iter().map(|(range, bits)| range.free(*bits, taken)).collect()
}

fn ranges_of(node: &Node) -> Vec<Cidr> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    all.filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    #[rustfmt::skip]
    fn nodes_get_the_first_free_range() {
        check("10.42.0.0/16", 24, &[],                                 Some("10.42.0.0/24"));
        check("10.42.0.0/16", 24, &["10.42.0.0/24", "10.42.2.0/24"],   Some("10.42.1.0/24"));
        check("10.42.0.0/23", 24, &["10.42.0.0/24", "10.42.1.0/24"],   None);
        check("10.42.0.0/23", 24, &["10.42.1.128/25"],                 Some("10.42.0.0/24"));
        check("10.42.0.0/23", 24, &["10.0.0.0/8"],                     None);
        check("10.42.0.0/24", 24, &[],                                 Some("10.42.0.0/24"));
        check("fd00::/48",    64, &["fd00::/64", "10.0.0.0/8"],        Some("fd00:0:0:1::/64"));
        #[track_caller]
        fn check(cluster: &str, bits: u8, taken: &[&str], expected: Option<&str>) {
            let taken: Vec<Cidr> = taken.iter().map(|text| range(text)).collect();
            assert_eq!(range(cluster).free(bits, &taken), expected.map(range));
        }
    }

    #[test]
    fn ranges_are_read_and_written() {
        assert_eq!(range("10.42.3.7/16").to_string(), "10.42.0.0/16");
        assert_eq!(range("fd00::1/64").to_string(), "fd00::/64");
        assert!(
            "10.42.0.0".parse::<Cidr>().is_err() && "10.42.0.0/33".parse::<Cidr>().is_err() && "x/8".parse::<Cidr>().is_err()
        );
    }
}
