//! The configuration: upstream's `KubeSchedulerConfiguration`, the part of it that has an effect here.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use serde::Deserialize;

use crate::core::Profile;
use crate::plugins::{Arguments, Strategy, defaults};

/// How to schedule. The default is upstream's.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Part of the nodes to score, in percent; 0 is adaptive.
    pub percentage_of_nodes_to_score: usize,
    /// First backoff of a pod that failed, in seconds.
    pub pod_initial_backoff_seconds: u64,
    /// Longest backoff, in seconds.
    pub pod_max_backoff_seconds: u64,
    /// The host's name, which events tell; not part of the file.
    #[serde(skip)]
    pub host: String,
    /// One for each scheduler name.
    pub profiles: Vec<ProfileConfig>,
}

/// A scheduler name with its plugins.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProfileConfig {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<usize>,
    plugins: PluginsConfig,
    plugin_config: Vec<PluginArguments>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PluginsConfig {
    multi_point: PluginSet,
    filter: PluginSet,
    post_filter: PluginSet,
    score: PluginSet,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PluginSet {
    enabled: Vec<PluginName>,
    disabled: Vec<PluginName>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PluginName {
    name: String,
    weight: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PluginArguments {
    name: String,
    args: serde_json::Value,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not YAML, or not of this shape.
    #[error("read the scheduler configuration")]
    Syntax(#[from] serde_yaml_ng::Error),
    /// Another kind or version.
    #[error("{found} is not kubescheduler.config.k8s.io/v1, Kind=KubeSchedulerConfiguration")]
    Kind {
        /// What the file says it is.
        found: String,
    },
    /// A plugin that does not exist.
    #[error("profile {profile}: no plugin is called {name:?}")]
    Plugin {
        /// The profile.
        profile: String,
        /// The name.
        name: String,
    },
    /// Arguments of a wrong shape.
    #[error("profile {profile}: arguments of plugin {name}")]
    Arguments {
        /// The profile.
        profile: String,
        /// The plugin.
        name: String,
        /// The cause.
        source: serde_json::Error,
    },
    /// Two profiles of one name.
    #[error("profile {profile} is there twice")]
    Twice {
        /// The profile.
        profile: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            percentage_of_nodes_to_score: 0,
            pod_initial_backoff_seconds: 1,
            pod_max_backoff_seconds: 10,
            host: String::new(),
            profiles: vec![ProfileConfig::default()],
        }
    }
}

const DEFAULT_NAME: &str = "default-scheduler";
const PREEMPTION: &str = "DefaultPreemption";
/// Plugins of upstream that do nothing here that could be switched: parts of the frame.
const BUILT_IN: &[&str] = &["PrioritySort", "SchedulingGates", "DefaultBinder", PREEMPTION];

impl Config {
    /// Reads a configuration file, and checks everything in it.
    ///
    /// # Errors
    /// When it is not a valid configuration.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[derive(Default)]
        struct Head {
            api_version: String,
            kind: String,
        }
        let head: Head = serde_yaml_ng::from_str(text)?;
        if head.api_version != "kubescheduler.config.k8s.io/v1" || head.kind != "KubeSchedulerConfiguration" {
            return Err(ConfigError::Kind { found: format!("{}, Kind={}", head.api_version, head.kind) });
        }
        let mut config: Self = serde_yaml_ng::from_str(text)?;
        if config.profiles.is_empty() {
            config.profiles.push(ProfileConfig::default());
        }
        config.profiles()?;
        Ok(config)
    }

    /// First and longest backoff.
    pub(crate) fn backoff(&self) -> (Duration, Duration) {
        (Duration::from_secs(self.pod_initial_backoff_seconds), Duration::from_secs(self.pod_max_backoff_seconds))
    }

    /// The profiles, ready for use.
    ///
    /// # Errors
    /// When a plugin is unknown, its arguments are wrong, or a profile is there twice.
    pub fn profiles(&self) -> Result<HashMap<String, Profile>, ConfigError> {
        let mut profiles = HashMap::new();
        for config in &self.profiles {
            let name = config.scheduler_name.clone().unwrap_or_else(|| DEFAULT_NAME.to_owned());
            let profile = config.profile(&name, self.percentage_of_nodes_to_score)?;
            if profiles.insert(name.clone(), profile).is_some() {
                return Err(ConfigError::Twice { profile: name });
            }
        }
        Ok(profiles)
    }
}

impl ProfileConfig {
    fn profile(&self, name: &str, percentage: usize) -> Result<Profile, ConfigError> {
        let arguments = self.arguments(name)?;
        let mut plugins = defaults(&arguments);
        let sets = &self.plugins;
        for set in [&sets.multi_point, &sets.filter, &sets.post_filter, &sets.score] {
            for plugin in set.enabled.iter().chain(&set.disabled) {
                let known = plugin.name == "*"
                    || BUILT_IN.contains(&plugin.name.as_str())
                    || plugins.iter().any(|enabled| enabled.plugin.name() == plugin.name);
                if !known {
                    return Err(ConfigError::Plugin { profile: name.to_owned(), name: plugin.name.clone() });
                }
            }
        }
        let lists = |list: &[PluginName], name: &str| list.iter().any(|plugin| plugin.name == name || plugin.name == "*");
        let weight = |list: &[PluginName], name: &str| {
            list.iter().find(|plugin| plugin.name == name).map(|plugin| if plugin.weight == 0 { 1 } else { plugin.weight })
        };
        for enabled in &mut plugins {
            let plugin = enabled.plugin.name();
            for (set, filters, scores) in
                [(&sets.multi_point, true, true), (&sets.filter, true, false), (&sets.score, false, true)]
            {
                if lists(&set.disabled, plugin) {
                    enabled.filters &= !filters;
                    enabled.weight = if scores { 0 } else { enabled.weight };
                }
                if let Some(weight) = weight(&set.enabled, plugin) {
                    enabled.filters |= filters;
                    enabled.weight = if scores { weight } else { enabled.weight };
                }
            }
        }
        let off = |set: &PluginSet| lists(&set.disabled, PREEMPTION) && weight(&set.enabled, PREEMPTION).is_none();
        Ok(Profile {
            plugins,
            percentage: self.percentage_of_nodes_to_score.unwrap_or(percentage),
            preempts: !off(&sets.multi_point) && !off(&sets.post_filter),
        })
    }

    fn arguments(&self, profile: &str) -> Result<Arguments, ConfigError> {
        let mut arguments = Arguments::default();
        for PluginArguments { name, args } in &self.plugin_config {
            let read = || -> Result<Arguments, serde_json::Error> {
                let mut arguments = arguments.clone();
                match name.as_str() {
                    "NodeResourcesFit" => arguments.strategy = strategy(&serde_json::from_value(args.clone())?),
                    "InterPodAffinity" => {
                        let given: AffinityArguments = serde_json::from_value(args.clone())?;
                        arguments.hard_pod_affinity_weight = given.hard_pod_affinity_weight;
                        arguments.ignore_preferred_terms = given.ignore_preferred_terms_of_existing_pods;
                    }
                    "PodTopologySpread" => {
                        let given: SpreadArguments = serde_json::from_value(args.clone())?;
                        let system = given.defaulting_type.as_deref().unwrap_or("System") == "System";
                        arguments.spread_defaults = (!system).then_some(given.default_constraints);
                    }
                    "NodeAffinity" => {
                        let given: NodeAffinityArguments = serde_json::from_value(args.clone())?;
                        arguments.added_affinity = given.added_affinity;
                    }
                    _ => tracing::warn!(profile, plugin = name, "the arguments of this plugin have no effect yet"),
                }
                Ok(arguments)
            };
            arguments =
                read().map_err(|source| ConfigError::Arguments { profile: profile.to_owned(), name: name.clone(), source })?;
        }
        Ok(arguments)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AffinityArguments {
    hard_pod_affinity_weight: Option<i64>,
    ignore_preferred_terms_of_existing_pods: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpreadArguments {
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeAffinityArguments {
    added_affinity: Option<NodeAffinity>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FitArguments {
    scoring_strategy: Option<ScoringStrategy>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ScoringStrategy {
    #[serde(rename = "type")]
    kind: String,
    resources: Vec<PluginName>,
    requested_to_capacity_ratio: Ratio,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ratio {
    shape: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    utilization: i64,
    score: i64,
}

fn strategy(arguments: &FitArguments) -> Strategy {
    let Some(given) = &arguments.scoring_strategy else { return Strategy::default() };
    let mut resources: Vec<(String, i64)> =
        given.resources.iter().map(|resource| (resource.name.clone(), resource.weight.max(1))).collect();
    if resources.is_empty() {
        resources = vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)];
    }
    match given.kind.as_str() {
        "MostAllocated" => Strategy::MostAllocated(resources),
        "RequestedToCapacityRatio" => {
            // Upstream's points go from 0 to 10.
            let shape = given.requested_to_capacity_ratio.shape.iter().map(|point| (point.utilization, point.score * 10));
            Strategy::RequestedToCapacityRatio(resources, shape.collect())
        }
        _ => Strategy::LeastAllocated(resources),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";

    #[test]
    fn profiles_switch_plugins_and_weights() {
        let text = format!(
            "{HEAD}percentageOfNodesToScore: 50
profiles:
- schedulerName: packing
  plugins:
    score: {{disabled: [{{name: ImageLocality}}], enabled: [{{name: NodeAffinity, weight: 7}}]}}
    filter: {{disabled: [{{name: NodePorts}}]}}
    multiPoint: {{disabled: [{{name: DefaultPreemption}}]}}
  pluginConfig:
  - name: NodeResourcesFit
    args: {{scoringStrategy: {{type: MostAllocated, resources: [{{name: cpu, weight: 1}}]}}}}
- schedulerName: default-scheduler
"
        );
        let profiles = Config::parse(&text).unwrap().profiles().unwrap();
        let packing = &profiles["packing"];
        let plugin = |name: &str| packing.plugins.iter().find(|enabled| enabled.plugin.name() == name).unwrap();
        assert_eq!((plugin("ImageLocality").weight, plugin("NodeAffinity").weight, plugin("TaintToleration").weight), (0, 7, 3));
        assert!(!plugin("NodePorts").filters && plugin("NodeAffinity").filters);
        assert_eq!((packing.percentage, packing.preempts), (50, false));
        assert!(profiles["default-scheduler"].preempts);
    }

    #[test]
    fn faults_are_named() {
        let fault = |text: &str| Config::parse(text).unwrap_err().to_string();
        assert_eq!(
            fault("apiVersion: v1\nkind: Pod\n"),
            "v1, Kind=Pod is not kubescheduler.config.k8s.io/v1, Kind=KubeSchedulerConfiguration"
        );
        assert_eq!(
            fault(&format!("{HEAD}profiles: [{{plugins: {{score: {{enabled: [{{name: X}}]}}}}}}]")),
            "profile default-scheduler: no plugin is called \"X\""
        );
        assert_eq!(fault(&format!("{HEAD}profiles: [{{}}, {{}}]")), "profile default-scheduler is there twice");
    }
}
