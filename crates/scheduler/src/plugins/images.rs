//! `ImageLocality`: prefers nodes that have the pod's images.

use crate::events::ClusterEvent;
use crate::framework::{Cycle, MAX_SCORE, Plugin, Score};
use crate::interner::Id;
use crate::pod::PodInfo;
use crate::state::{NodeId, State};

/// Below this sum of image sizes a node gets no points.
const LEAST: i64 = 23 * 1024 * 1024;
/// At this size for each container it gets all of them.
const MOST: i64 = 1000 * 1024 * 1024;

/// The plugin.
pub struct ImageLocality;

struct Locality<'a> {
    state: &'a State,
    /// The pod's images that some node has, with the part of nodes that have them.
    images: Vec<(Id, f64)>,
    containers: i64,
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn score<'a>(&'a self, cycle: Cycle<'a>, _feasible: &[NodeId]) -> Option<Box<dyn Score + 'a>> {
        let spec = cycle.pod.spec();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let nodes = cycle.state.len().max(1) as f64;
        let images: Vec<_> = containers
            .clone()
            .filter_map(|container| {
                let id = cycle.state.interner.lookup(&normalized(container.image.as_deref()?))?;
                let spread = *cycle.state.image_spread.get(&id)?;
                Some((id, spread as f64 / nodes))
            })
            .collect();
        let containers = containers.count() as i64;
        (!images.is_empty()).then(|| Box::new(Locality { state: cycle.state, images, containers }) as Box<dyn Score>)
    }

    fn helped_by(&self, _event: &ClusterEvent, _pod: &PodInfo, _state: &State) -> bool {
        false
    }
}

impl Score for Locality<'_> {
    fn score(&self, node: NodeId) -> i64 {
        let present = &self.state.nodes.images[node];
        let size = |id: Id| {
            let at = present.partition_point(|(known, _)| *known < id);
            present.get(at).filter(|(known, _)| *known == id).map_or(0, |(_, size)| *size)
        };
        // An image that few nodes have counts for less, so that they are not overrun.
        let sum: i64 = self.images.iter().map(|(id, part)| (size(*id) as f64 * part) as i64).sum();
        let most = MOST * self.containers;
        MAX_SCORE * (sum.clamp(LEAST, most) - LEAST) / (most - LEAST)
    }
}

/// The name as nodes list it: with a tag.
fn normalized(image: &str) -> String {
    let after = image.rsplit('/').next().unwrap_or(image);
    if after.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Cluster, pod};
    use super::*;

    #[test]
    fn nodes_with_the_image_score_higher() {
        let mut cluster = Cluster::default();
        let image = serde_json::json!({"status": {"images": [{"names": ["hub/app:latest"], "sizeBytes": 1000 << 20}]}});
        cluster.node("has", image);
        cluster.node("lacks", serde_json::json!({}));
        let wanting = pod("p", serde_json::json!({"containers": [{"name": "c", "image": "hub/app"}]}));
        // Half of the nodes have it: (500 - 23) / (1000 - 23).
        assert_eq!(cluster.scored(&ImageLocality, &wanting), [("has".into(), 48), ("lacks".into(), 0)]);
    }
}
