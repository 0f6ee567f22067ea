//! The scheduler without any I/O: state and queue, and one step that takes the next pod and says what becomes of it.

use std::collections::HashMap;
use std::sync::Arc;

use rand::Rng;
use tokio::time::Instant;

use crate::events::ClusterEvent;
use crate::framework::{Cycle, Diagnosis, Enabled, Filters, best, enough};
use crate::plugins::volumes::{self, Decision};
use crate::pod::PodInfo;
use crate::preemption::{self, Candidate};
use crate::queue::Queue;
use crate::state::{NodeId, State};

/// The plugins that place the pods of one scheduler name.
pub struct Profile {
    /// The plugins in order.
    pub plugins: Vec<Enabled>,
    /// Part of the nodes to score, in percent; 0 is adaptive.
    pub percentage: usize,
    /// Whether pods may be preempted.
    pub preempts: bool,
}

/// What becomes of a pod.
#[derive(Debug)]
pub enum Outcome {
    /// It goes there, after this was done for its volumes. It is assumed in the state already.
    Assigned {
        /// The node's name.
        node: Arc<str>,
        /// What to do before it is bound.
        volumes: Vec<Decision>,
    },
    /// It fits nowhere.
    Unschedulable {
        /// Why.
        diagnosis: Diagnosis,
        /// Whose removal would make room.
        preempt: Option<Candidate>,
    },
}

/// State, queue and profiles.
pub struct Core {
    /// What is known of the cluster.
    pub state: State,
    /// Who waits.
    pub queue: Queue,
    profiles: HashMap<String, Profile>,
    /// Where the next search for nodes starts, so that all nodes get their turn.
    start: usize,
}

impl Core {
    /// An empty cluster.
    #[must_use]
    pub fn new(profiles: HashMap<String, Profile>) -> Self {
        Self { state: State::default(), queue: Queue::default(), profiles, start: 0 }
    }

    /// Whether the pods of this scheduler name are ours.
    #[must_use]
    pub fn serves(&self, scheduler: &str) -> bool {
        self.profiles.contains_key(scheduler)
    }

    /// The plugins of a pod's profile.
    #[must_use]
    pub fn plugins(&self, pod: &PodInfo) -> &[Enabled] {
        self.profiles.get(pod.scheduler()).map_or(&[], |profile| &profile.plugins)
    }

    /// Lets those unschedulable pods be tried again that `event` may help: one of the plugins that rejected them says so.
    pub fn retry_helped(&mut self, event: &ClusterEvent, now: Instant) {
        let Self { state, queue, profiles, .. } = self;
        state.order();
        queue.retry_where(now, |queued| {
            let Some(profile) = profiles.get(queued.pod.scheduler()) else { return false };
            // A pod that was rejected by nobody waits for the first node.
            queued.plugins.is_empty()
                || profile
                    .plugins
                    .iter()
                    .map(|enabled| &enabled.plugin)
                    .any(|plugin| queued.plugins.contains(&plugin.name()) && plugin.helped_by(event, &queued.pod, state))
        });
    }

    /// Finds a place for `pod`, and takes it there in the state.
    pub fn schedule(&mut self, pod: &Arc<PodInfo>) -> Outcome {
        let Some(profile) = self.profiles.get(pod.scheduler()) else {
            return Outcome::Unschedulable { diagnosis: Diagnosis::default(), preempt: None };
        };
        let state = &mut self.state;
        state.order();
        // Room that was made for others of at least this importance is theirs.
        let seated = seat(state, pod);
        let found = search(profile, state, pod, &mut self.start);
        for (node, other) in &seated {
            state.vacate(*node, other);
        }
        match found {
            Ok(node) => {
                let volumes = volumes::decide(pod, node, state);
                for decision in &volumes {
                    if let Decision::Bind { claim, volume } = decision {
                        state.promised.insert(Arc::from(volume.as_str()), claim.clone());
                    }
                }
                let name = state.nodes.name[node].clone();
                state.assume(pod.clone(), &name);
                Outcome::Assigned { node: name, volumes }
            }
            Err(mut diagnosis) => {
                let preempt = postfilter(profile, state, pod, &mut diagnosis);
                Outcome::Unschedulable { diagnosis, preempt }
            }
        }
    }
}

fn search(profile: &Profile, state: &State, pod: &PodInfo, start: &mut usize) -> Result<NodeId, Diagnosis> {
    let order = state.known_order();
    let cycle = Cycle { pod, state };
    let filters = Filters::prepare(&profile.plugins, cycle).map_err(|(plugin, reason)| Diagnosis {
        nodes: order.len(),
        prefilter: Some(reason),
        plugins: vec![plugin],
        ..Diagnosis::default()
    })?;
    // The node where room was made for it comes first.
    if let Some(node) = pod.nominated().and_then(|name| state.node(name))
        && filters.pass(node)
    {
        return Ok(node);
    }
    let (feasible, looked) = filters.feasible(order, *start, enough(order.len(), profile.percentage));
    *start = if order.is_empty() { 0 } else { (*start + looked) % order.len() };
    let pick = |count: usize| rand::rng().random_range(0..count);
    best(&profile.plugins, cycle, &feasible, pick).ok_or_else(|| filters.diagnose(order))
}

/// Puts the pods that room was made for on their nodes, if they are at least as important as `pod`.
fn seat(state: &mut State, pod: &PodInfo) -> Vec<(NodeId, Arc<PodInfo>)> {
    if state.nominated.is_empty() {
        return Vec::new();
    }
    let mut seated = Vec::new();
    for (name, others) in &state.nominated {
        let Some(node) = state.node(name) else { continue };
        let others = others.iter().filter(|other| other.uid != pod.uid && other.priority >= pod.priority);
        seated.extend(others.map(|other| (node, other.clone())));
    }
    for (node, other) in &seated {
        state.occupy(*node, other);
    }
    seated
}

/// Looks whether preemption helps, and says so in upstream's words.
fn postfilter(profile: &Profile, state: &mut State, pod: &PodInfo, diagnosis: &mut Diagnosis) -> Option<Candidate> {
    if !profile.preempts || diagnosis.nodes == 0 {
        return None;
    }
    // A pod that is rejected as such is so on every node.
    let said = match preemption::eligible(pod, state) {
        Err(reason) => reason.to_owned(),
        Ok(()) => {
            let offset = rand::rng().random_range(0..diagnosis.nodes);
            match preemption::find(&profile.plugins, state, pod, &diagnosis.resolvable, offset) {
                Ok(candidate) => return Some(candidate),
                Err(refusals) => Diagnosis { nodes: diagnosis.nodes, reasons: refusals, ..Diagnosis::default() }.to_string(),
            }
        }
    };
    // Upstream asks the plugin for devices first, which has nothing to say about pods without claims.
    diagnosis.postfilter = format!("no new claims to deallocate, preemption: {said}");
    None
}

#[cfg(test)]
mod tests;
