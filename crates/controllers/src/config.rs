//! What the controllers can be told, with upstream's defaults.

use std::time::Duration;

use crate::Cidr;

/// Settings of all controllers. The names are those of kube-controller-manager's flags.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which controllers run: `*` for all, `name` for one, `-name` for not that one (`--controllers`).
    pub controllers: Vec<String>,
    /// PEM of the CA that pods verify the API server with; empty publishes none (`--root-ca-file`).
    pub root_ca: String,
    /// Whether nodes are given ranges of pod addresses (`--allocate-node-cidrs`).
    pub allocate_node_cidrs: bool,
    /// The ranges of pod addresses, one per family (`--cluster-cidr`).
    pub cluster_cidrs: Vec<Cidr>,
    /// The ranges of service addresses, which no node gets (`--service-cluster-ip-range`).
    pub service_cidrs: Vec<Cidr>,
    /// Size of a node's range (`--node-cidr-mask-size-ipv4`).
    pub node_cidr_mask_size_ipv4: u8,
    /// Size of a node's range (`--node-cidr-mask-size-ipv6`).
    pub node_cidr_mask_size_ipv6: u8,
    /// After so long without a sign of life a node is unknown (`--node-monitor-grace-period`).
    pub node_monitor_grace_period: Duration,
    /// Ended pods that are kept; 0 keeps all (`--terminated-pod-gc-threshold`).
    pub terminated_pod_gc_threshold: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            controllers: vec!["*".into()],
            root_ca: String::new(),
            allocate_node_cidrs: false,
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            node_cidr_mask_size_ipv4: 24,
            node_cidr_mask_size_ipv6: 64,
            node_monitor_grace_period: Duration::from_secs(50),
            terminated_pod_gc_threshold: 12_500,
        }
    }
}

impl Config {
    /// Whether the controller `name` runs. The last word about a name counts less than a "-name" anywhere, as upstream.
    pub(crate) fn is_enabled(&self, name: &str) -> bool {
        let has = |wanted: &str| self.controllers.iter().any(|entry| entry == wanted);
        !has(&format!("-{name}")) && (has(name) || has("*"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_chosen_by_name() {
        let with = |list: &[&str]| Config { controllers: list.iter().map(|&name| name.into()).collect(), ..Config::default() };
        assert!(Config::default().is_enabled("a"));
        assert!(!with(&["*", "-a"]).is_enabled("a") && with(&["*", "-a"]).is_enabled("b"));
        assert!(with(&["a"]).is_enabled("a") && !with(&["a"]).is_enabled("b"));
    }
}
