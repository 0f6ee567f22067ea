//! `ImageLocality`: prefers nodes that have the pod's images, the more the larger they are.

use crate::node::NodeView;
use crate::plugins::MAX_SCORE;
use crate::pod::PodView;

const MIB: i64 = 1024 * 1024;
/// Below this much a present image is not worth a preference (upstream's thresholds).
const MIN: i64 = 23 * MIB;
/// Per container, more than this counts no further.
const MAX_PER_CONTAINER: i64 = 1000 * MIB;

/// Score of a node; `spread` tells which share of all nodes has an image, so that one node does not draw all pods.
pub fn score(pod: &PodView, node: &NodeView, spread: impl Fn(&str) -> f64) -> i64 {
    let Some(spec) = pod.spec() else { return 0 };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let (mut sum, mut count) = (0, 0);
    for container in containers {
        count += 1;
        let image = normalized(container.image.as_deref().unwrap_or_default());
        if let Some(size) = node.images.get(&image) {
            sum += (*size as f64 * spread(&image)) as i64;
        }
    }
    let max = MAX_PER_CONTAINER * count;
    if max <= MIN {
        return 0;
    }
    MAX_SCORE * (sum.clamp(MIN, max) - MIN) / (max - MIN)
}

/// The name as the node reports it: with a tag.
fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}
