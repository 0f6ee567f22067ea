//! From planned fragments to nft scripts: the frame once, then only what has changed.
//!
//! [`Applied`] is the model of what the kernel holds. It takes new fragments, remembers who owns which element, and
//! writes the smallest script that leads from the old state to the new one. It knows no kernel: the tests read scripts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use corten_client::Key;

use crate::plan::{Fragment, Map, Part};

/// The name of both tables.
pub const TABLE: &str = "corten-proxy";

/// The mark that asks for masquerading; the bit that upstream uses.
const MARK: &str = "0x4000";

/// One family's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `ip`.
    V4,
    /// `ip6`.
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn part(self, fragment: &Fragment) -> &Part {
        match self {
            Self::V4 => &fragment.v4,
            Self::V6 => &fragment.v6,
        }
    }
}

type ElementKey = (Family, Map, String);

/// What the kernel holds.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    families: Vec<Family>,
    fragments: BTreeMap<Key, Arc<Fragment>>,
    /// All who claim an element, with their values. The first has it; when it goes, the next one gets it.
    claims: HashMap<ElementKey, Vec<(Key, Option<String>)>>,
}

impl Applied {
    /// Nothing, in these families.
    #[must_use]
    pub fn new(families: &[Family]) -> Self {
        Self { families: families.to_vec(), ..Self::default() }
    }

    /// What is held for a service.
    #[must_use]
    pub fn get(&self, service: &Key) -> Option<&Arc<Fragment>> {
        self.fragments.get(service)
    }

    /// Every service with rules.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<Fragment>)> {
        self.fragments.iter()
    }

    /// Takes the new fragments (none for a service that is gone) and returns the script that brings the kernel there;
    /// empty if nothing changes.
    pub fn change(&mut self, changes: Vec<(Key, Option<Fragment>)>) -> String {
        let mut delta = Delta::default();
        for (service, new) in changes {
            let new = new.map(Arc::new);
            let old = match &new {
                Some(new) => self.fragments.insert(service.clone(), new.clone()),
                None => self.fragments.remove(&service),
            };
            let empty = Fragment::default();
            let (before, after) = (old.as_deref().unwrap_or(&empty), new.as_deref().unwrap_or(&empty));
            for &family in &self.families {
                delta.chains(family, family.part(before), family.part(after));
                Self::claim(&mut self.claims, &mut delta, family, &service, family.part(before), family.part(after));
            }
        }
        delta.script(&self.claims)
    }

    fn claim(
        claims: &mut HashMap<ElementKey, Vec<(Key, Option<String>)>>,
        delta: &mut Delta,
        family: Family,
        service: &Key,
        before: &Part,
        after: &Part,
    ) {
        for (element, value) in &before.elements {
            if after.elements.get(element) == Some(value) {
                continue;
            }
            let key = (family, element.0, element.1.clone());
            if let Some(owners) = claims.get_mut(&key) {
                delta.touch(&key, owners.first());
                owners.retain(|(owner, _)| owner != service);
                if owners.is_empty() {
                    claims.remove(&key);
                }
            }
        }
        for (element, value) in &after.elements {
            if before.elements.get(element) == Some(value) {
                continue;
            }
            let key = (family, element.0, element.1.clone());
            let owners = claims.entry(key.clone()).or_default();
            delta.touch(&key, owners.first());
            if element.0 != Map::Hairpin
                && let Some((owner, _)) = owners.first()
            {
                tracing::warn!(%service, %owner, element = element.1, "two services claim one address and port");
            }
            owners.push((service.clone(), value.clone()));
        }
    }
}

/// The changes of one transaction, before they become text.
#[derive(Default)]
struct Delta {
    new_sets: BTreeMap<(Family, String), u32>,
    dead_sets: BTreeSet<(Family, String)>,
    chains: BTreeMap<(Family, String), Vec<String>>,
    dead_chains: BTreeSet<(Family, String)>,
    /// Elements that may have changed, with what the kernel holds for them.
    touched: BTreeMap<ElementKey, Option<Option<String>>>,
}

impl Delta {
    fn chains(&mut self, family: Family, before: &Part, after: &Part) {
        for (name, rules) in &after.chains {
            if before.chains.get(name) != Some(rules) {
                self.chains.insert((family, name.clone()), rules.clone());
            }
        }
        let gone = |name: &&String| !after.chains.contains_key(*name);
        self.dead_chains.extend(before.chains.keys().filter(gone).map(|name| (family, name.clone())));
        for (name, timeout) in after.affinity.iter().filter(|(name, _)| !before.affinity.contains_key(*name)) {
            self.new_sets.insert((family, name.clone()), *timeout);
        }
        let gone = |name: &&String| !after.affinity.contains_key(*name);
        self.dead_sets.extend(before.affinity.keys().filter(gone).map(|name| (family, name.clone())));
    }

    fn touch(&mut self, key: &ElementKey, holder: Option<&(Key, Option<String>)>) {
        self.touched.entry(key.clone()).or_insert_with(|| holder.map(|(_, value)| value.clone()));
    }

    fn script(self, claims: &HashMap<ElementKey, Vec<(Key, Option<String>)>>) -> String {
        let mut out = String::new();
        for ((family, set), timeout) in &self.new_sets {
            add_set(&mut out, *family, set, *timeout);
        }
        for (family, chain) in self.chains.keys() {
            let _ = writeln!(out, "add chain {} {TABLE} {chain}", family.name());
            let _ = writeln!(out, "flush chain {} {TABLE} {chain}", family.name());
        }
        for ((family, chain), rules) in &self.chains {
            for rule in rules {
                let _ = writeln!(out, "add rule {} {TABLE} {chain} {rule}", family.name());
            }
        }
        let mut added = String::new();
        for (key, before) in &self.touched {
            let after = claims.get(key).and_then(|owners| owners.first()).map(|(_, value)| value.clone());
            if *before == after {
                continue;
            }
            let (family, map, element) = key;
            if before.is_some() {
                let _ = writeln!(out, "delete element {} {TABLE} {} {{ {element} }}", family.name(), map.name());
            }
            match after {
                Some(Some(value)) => {
                    let _ = writeln!(added, "add element {} {TABLE} {} {{ {element} : {value} }}", family.name(), map.name());
                }
                Some(None) => {
                    let _ = writeln!(added, "add element {} {TABLE} {} {{ {element} }}", family.name(), map.name());
                }
                None => {}
            }
        }
        out.push_str(&added);
        // A chain can go only when nothing leads to it: all are emptied before the first is deleted.
        for verb in ["flush", "delete"] {
            for (family, chain) in self.dead_chains.iter().filter(|chain| !self.chains.contains_key(*chain)) {
                let _ = writeln!(out, "{verb} chain {} {TABLE} {chain}", family.name());
            }
        }
        for (family, set) in &self.dead_sets {
            let _ = writeln!(out, "delete set {} {TABLE} {set}", family.name());
        }
        out
    }
}

fn add_set(out: &mut String, family: Family, name: &str, timeout: u32) {
    let address = if family == Family::V4 { "ipv4_addr" } else { "ipv6_addr" };
    let _ = writeln!(
        out,
        "add set {} {TABLE} {name} {{ type {address}; flags dynamic,timeout; timeout {timeout}s; }}",
        family.name()
    );
}

/// The script that replaces the tables by empty frames. What is written behind it belongs to the same transaction, so
/// no packet meets a table without rules.
#[must_use]
pub fn frame(families: &[Family], localhost_node_ports: bool) -> String {
    families.iter().map(|family| frame_of(*family, localhost_node_ports)).collect()
}

/// The script that removes the tables, whether they exist or not.
#[must_use]
pub fn removal(families: &[Family]) -> String {
    let removal = |family: &Family| {
        let name = family.name();
        format!("table {name} {TABLE}\ndelete table {name} {TABLE}\n")
    };
    families.iter().map(removal).collect()
}

fn frame_of(family: Family, localhost_node_ports: bool) -> String {
    let name = family.name();
    let (address, unreachable, loopback) = match family {
        Family::V4 => ("ipv4_addr", "icmp", "127.0.0.0/8"),
        Family::V6 => ("ipv6_addr", "icmpv6", "::1"),
    };
    // The kernel does not route IPv6 loopback addresses off the loopback interface at all.
    let except =
        if localhost_node_ports && family == Family::V4 { String::new() } else { format!("{name} daddr != {loopback} ") };
    let removal = removal(&[family]);
    format!(
        "{removal}table {name} {TABLE} {{
  comment \"rules for Services\";
  map service-ips {{ type {address} . inet_proto . inet_service : verdict; }}
  map service-nodeports {{ type inet_proto . inet_service : verdict; }}
  map no-endpoint-services {{ type {address} . inet_proto . inet_service : verdict; }}
  map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
  map firewall-ips {{ type {address} . inet_proto . inet_service : verdict; }}
  set hairpin {{ type {address} . {address}; }}
  chain mark-masquerade {{
    meta mark set meta mark | {MARK}
  }}
  chain masquerading {{
    meta mark set meta mark ^ {MARK}
    masquerade fully-random
  }}
  chain reject-chain {{
    reject with {unreachable} type port-unreachable
  }}
  chain services {{
    {name} daddr . meta l4proto . th dport vmap @service-ips
    fib daddr type local {except}meta l4proto . th dport vmap @service-nodeports
  }}
  chain endpoints-check {{
    {name} daddr . meta l4proto . th dport vmap @no-endpoint-services
    fib daddr type local {except}meta l4proto . th dport vmap @no-endpoint-nodeports
  }}
  chain firewall-check {{
    {name} daddr . meta l4proto . th dport vmap @firewall-ips
  }}
  chain filter-prerouting {{
    type filter hook prerouting priority dstnat - 10; policy accept;
    ct state new jump firewall-check
  }}
  chain filter-output-before-nat {{
    type filter hook output priority -110; policy accept;
    ct state new jump firewall-check
  }}
  chain filter-input {{
    type filter hook input priority filter; policy accept;
    ct state new jump endpoints-check
  }}
  chain filter-forward {{
    type filter hook forward priority filter; policy accept;
    ct state new jump endpoints-check
  }}
  chain filter-output {{
    type filter hook output priority filter; policy accept;
    ct state new jump endpoints-check
  }}
  chain nat-prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump services
  }}
  chain nat-output {{
    type nat hook output priority -100; policy accept;
    jump services
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & {MARK} == {MARK} jump masquerading
    ct status dnat {name} saddr . {name} daddr @hairpin masquerade
  }}
}}
"
    )
}

#[cfg(test)]
mod tests;
