//! Which pods go so that a critical one finds room: as few as possible, of the lowest quality of service, and small ones.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::admission::Lack;
use crate::pod::{PodExt, Qos};

/// A resource and how much of it is to be found.
type Needs = Vec<(String, i64)>;

/// The pods among `active` whose requests cover what `pod` lacks. The error is upstream's text.
pub fn choose(pod: &Pod, lacking: &[Lack], active: &[Arc<Pod>]) -> Result<Vec<Arc<Pod>>, String> {
    let needs: Needs = lacking.iter().map(|lack| (lack.name.clone(), lack.requested - (lack.capacity - lack.used))).collect();
    let of = |class: Qos| -> Vec<Arc<Pod>> {
        active.iter().filter(|other| preemptable(pod, other) && other.qos() == class).cloned().collect()
    };
    let (best_effort, burstable, guaranteed) = (of(Qos::BestEffort), of(Qos::Burstable), of(Qos::Guaranteed));
    let all: Vec<_> = best_effort.iter().chain(&burstable).chain(&guaranteed).cloned().collect();
    let left = without(&needs, &all);
    if !left.is_empty() {
        return Err(format!("preemption: error finding a set of pods to preempt: {}", none(&left)));
    }
    // Of the better classes only what remains when all of the others went.
    let others: Vec<_> = best_effort.iter().chain(&burstable).cloned().collect();
    let from_guaranteed = nearest(guaranteed, without(&needs, &others))?;
    let others: Vec<_> = best_effort.iter().chain(&from_guaranteed).cloned().collect();
    let from_burstable = nearest(burstable, without(&needs, &others))?;
    let others: Vec<_> = from_burstable.iter().chain(&from_guaranteed).cloned().collect();
    let mut chosen = nearest(best_effort, without(&needs, &others))?;
    chosen.extend(from_burstable);
    chosen.extend(from_guaranteed);
    Ok(chosen)
}

fn preemptable(pod: &Pod, other: &Pod) -> bool {
    let higher = pod.spec().priority.zip(other.spec().priority).is_some_and(|(own, theirs)| own > theirs);
    (pod.is_critical() && !other.is_critical()) || higher
}

/// Takes, again and again, the pod that covers most of the needs; of two equal ones the smaller.
fn nearest(mut pods: Vec<Arc<Pod>>, mut needs: Needs) -> Result<Vec<Arc<Pod>>, String> {
    let mut chosen = Vec::new();
    while !needs.is_empty() {
        let best = (0..pods.len()).min_by(|a, b| {
            let (a, b) = (&pods[*a], &pods[*b]);
            distance(&needs, a).total_cmp(&distance(&needs, b)).then_with(|| size(a).cmp(&size(b)))
        });
        let Some(best) = best else { return Err(none(&needs)) };
        let pod = pods.swap_remove(best);
        needs = without(&needs, std::slice::from_ref(&pod));
        chosen.push(pod);
    }
    Ok(chosen)
}

/// How much of the needs a pod leaves open; each counts alike, whatever its size.
fn distance(needs: &Needs, pod: &Pod) -> f64 {
    let parts = needs.iter().map(|(name, needed)| {
        let left = (needed - request(pod, name)).max(0) as f64;
        (left / *needed as f64).powi(2)
    });
    parts.sum()
}

fn size(pod: &Pod) -> (i64, i64) {
    (request(pod, "memory"), request(pod, "cpu"))
}

fn request(pod: &Pod, name: &str) -> i64 {
    if name == "pods" { 1 } else { pod.requests().get(name).copied().unwrap_or(0) }
}

fn without(needs: &Needs, pods: &[Arc<Pod>]) -> Needs {
    let left = |(name, needed): &(String, i64)| {
        let left = needed - pods.iter().map(|pod| request(pod, name)).sum::<i64>();
        (left > 0).then(|| (name.clone(), left))
    };
    needs.iter().filter_map(left).collect()
}

fn none(needs: &Needs) -> String {
    let needs: String = needs.iter().map(|(name, needed)| format!("(res: {name}, q: {needed}), ")).collect();
    format!("no set of running pods found to reclaim resources: [{needs}]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{named, pod};

    #[test]
    #[rustfmt::skip]
    fn few_small_and_lowly_pods_go() {
        let all = [("be", "{}"), ("b1", "{requests: {cpu: 100m}}"), ("b2", "{requests: {cpu: 300m}}"), ("b3", "{requests: {cpu: 300m, memory: 1Gi}}"),
                   ("g", "{requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1, memory: 1Gi}}")];
        check(&all, "cpu",    100,  Ok("b1"));
        check(&all, "cpu",    200,  Ok("b2")); // one rather than two, and the smaller of equal ones
        check(&all, "cpu",    500,  Ok("b2 b3"));
        check(&all, "cpu",    800,  Ok("g"));
        check(&all, "pods",   1,    Ok("be"));
        check(&all, "cpu",    9000, Err("preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 7300), ]"));
        #[track_caller]
        fn check(all: &[(&str, &str)], name: &str, amount: i64, expected: Result<&str, &str>) {
            let active: Vec<_> = all.iter().map(|(name, resources)| {
                Arc::new(named(name, name, &format!("{{containers: [{{name: a, resources: {resources}}}]}}")))
            }).collect();
            let lack = Lack { name: name.to_owned(), requested: amount, used: 0, capacity: 0 };
            let got = choose(&pod("{priority: 2000000000}"), &[lack], &active);
            let mut names = got.map(|pods| pods.iter().map(|pod| pod.name().to_owned()).collect::<Vec<_>>());
            if let Ok(names) = &mut names { names.sort(); }
            let names = names.map(|names| names.join(" "));
            assert_eq!(names.as_deref().map_err(String::as_str), expected);
        }
    }
}
