//! The arithmetic of a rollout: how many replicas each ReplicaSet of a Deployment should have next. Pure.

use std::cmp::Reverse;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::revision::MAX_REPLICAS;
use crate::meta::annotation;

/// What a Deployment asks for, with percentages resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) replicas: i32,
    /// Pods above `replicas` during a rolling update.
    pub(crate) surge: i32,
    /// Pods below `replicas` that may be missing.
    pub(crate) unavailable: i32,
    pub(crate) rolling: bool,
}

impl Wanted {
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let strategy = spec.and_then(|spec| spec.strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate");
        if !rolling {
            return Self { replicas, surge: 0, unavailable: 0, rolling };
        }
        let update = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = scaled(update.and_then(|update| update.max_surge.as_ref()), replicas, true);
        let unavailable = scaled(update.and_then(|update| update.max_unavailable.as_ref()), replicas, false);
        // Both may round to zero, and then nothing could ever move.
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self { replicas, surge, unavailable: unavailable.min(replicas), rolling }
    }

    /// The most pods that may exist.
    pub(crate) const fn most(&self) -> i32 {
        self.replicas + self.surge
    }

    /// The fewest pods that must be available.
    pub(crate) const fn fewest_available(&self) -> i32 {
        self.replicas - self.unavailable
    }
}

/// A count or a percentage of `total`. Surge is rounded up, unavailability down. Absent is the API's default of 25 %.
pub(crate) fn scaled(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(count)) => return (*count).max(0),
        Some(IntOrString::String(text)) => text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()).unwrap_or(0),
        None => 25,
    };
    let product = i64::from(total) * percent;
    let rounded = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

/// The part of a ReplicaSet that the arithmetic is about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Set {
    pub(crate) replicas: i32,
    pub(crate) available: i32,
    pub(crate) created: Option<Timestamp>,
    /// The Deployment's size including surge when the set was last scaled.
    pub(crate) max_replicas: Option<i32>,
}

impl Set {
    pub(crate) fn of(set: &ReplicaSet) -> Self {
        Self {
            replicas: replicas(set),
            available: set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0),
            created: set.metadata.creation_timestamp.as_ref().map(|time| time.0),
            max_replicas: annotation(&set.metadata, MAX_REPLICAS).and_then(|count| count.parse().ok()),
        }
    }
}

pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How large the new set may be now. `total` is the size of all sets together, the new one included.
pub(crate) fn new_size(wanted: &Wanted, new: i32, total: i32) -> i32 {
    if !wanted.rolling || new >= wanted.replicas {
        return wanted.replicas;
    }
    new + (wanted.most() - total).min(wanted.replicas - new).max(0)
}

/// How large the old sets should be now, in their order: first the pods that do not work are taken away, then as many of
/// the others as availability allows, oldest set first.
pub(crate) fn old_sizes(wanted: &Wanted, new: &Set, old: &[Set]) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|set| set.replicas).collect();
    let total = sizes.iter().sum::<i32>() + new.replicas;
    // Pods of the new set that are not available yet cannot stand in for old ones.
    let spare = total - wanted.fewest_available() - (new.replicas - new.available);
    if spare <= 0 {
        return sizes;
    }
    let mut oldest_first: Vec<usize> = (0..old.len()).collect();
    oldest_first.sort_by_key(|&n| old[n].created);

    let mut left = spare;
    for &n in &oldest_first {
        let broken = (sizes[n] - old[n].available).clamp(0, left);
        sizes[n] -= broken;
        left -= broken;
    }
    let available = old.iter().map(|set| set.available).sum::<i32>() + new.available;
    let mut left = available - wanted.fewest_available();
    for &n in &oldest_first {
        let fewer = sizes[n].min(left).max(0);
        sizes[n] -= fewer;
        left -= fewer;
    }
    sizes
}

/// Spreads a change of the Deployment's size over the sets that have pods, in proportion to their size, so that a rollout
/// that is scaled keeps its balance. What rounding leaves goes to the largest set.
pub(crate) fn proportional_sizes(wanted: &Wanted, sets: &[Set], status_replicas: i32) -> Vec<i32> {
    let allowed = if wanted.replicas > 0 { wanted.most() } else { 0 };
    let to_add = allowed - sets.iter().map(|set| set.replicas).sum::<i32>();
    let mut order: Vec<usize> = (0..sets.len()).collect();
    if to_add > 0 {
        order.sort_by_key(|&n| (Reverse(sets[n].replicas), Reverse(sets[n].created)));
    } else {
        order.sort_by_key(|&n| (Reverse(sets[n].replicas), sets[n].created));
    }
    let mut sizes: Vec<i32> = sets.iter().map(|set| set.replicas).collect();
    let mut added = 0;
    for &n in &order {
        let share = share(wanted, &sets[n], status_replicas);
        let left = to_add - added;
        let share = if to_add > 0 { share.min(left) } else { share.max(left) };
        if sets[n].replicas != 0 && left != 0 {
            sizes[n] += share;
            added += share;
        }
    }
    if let Some(&largest) = order.first() {
        sizes[largest] = (sizes[largest] + to_add - added).max(0);
    }
    sizes
}

fn share(wanted: &Wanted, set: &Set, status_replicas: i32) -> i32 {
    if wanted.replicas == 0 {
        return -set.replicas;
    }
    let before = set.max_replicas.filter(|&count| count > 0).unwrap_or(status_replicas);
    if before == 0 {
        return 0;
    }
    let size = f64::from(set.replicas) * f64::from(wanted.most()) / f64::from(before);
    #[expect(clippy::cast_possible_truncation, reason = "sizes are far below the limits of i32, and the cast saturates")]
    let size = size.round() as i32;
    size - set.replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::tests::at;

    fn wanted(replicas: i32, surge: i32, unavailable: i32) -> Wanted {
        Wanted { replicas, surge, unavailable, rolling: true }
    }

    fn set(replicas: i32, available: i32) -> Set {
        Set { replicas, available, created: None, max_replicas: None }
    }

    #[test]
    #[rustfmt::skip]
    fn limits_are_resolved() {
        let int = IntOrString::Int;
        let text = |text: &str| IntOrString::String(text.into());
        //    replicas  surge          unavailable    resolved
        check(10,       None,          None,          (3, 2));   // 25 % each, up and down
        check(3,        None,          None,          (1, 0));
        check(1,        None,          None,          (1, 0));
        check(4,        Some(int(0)),  Some(int(0)),  (0, 1));   // would be stuck
        check(4,        Some(text("0%")), Some(text("10%")), (0, 1));
        check(4,        Some(int(2)),  Some(int(9)),  (2, 4));   // no more than there are
        check(0,        None,          None,          (0, 0));
        #[track_caller]
        fn check(replicas: i32, surge: Option<IntOrString>, unavailable: Option<IntOrString>, expected: (i32, i32)) {
            let deployment = serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}, "spec": {
                "replicas": replicas, "selector": {}, "template": {},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}});
            let wanted = Wanted::of(&serde_json::from_value(deployment).unwrap());
            assert_eq!((wanted.surge, wanted.unavailable), expected);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_new_set_grows_within_the_surge() {
        //    wanted             new  total  expected
        check(wanted(10, 3, 2),  0,   10,    3);
        check(wanted(10, 3, 2),  3,   11,    5);
        check(wanted(10, 3, 2),  3,   13,    3);   // full
        check(wanted(10, 3, 2),  3,   15,    3);   // over-full is not a reason to shrink it
        check(wanted(10, 3, 2),  9,   9,     10);
        check(wanted(10, 3, 2),  12,  12,    10);  // scaled down meanwhile
        check(Wanted { rolling: false, ..wanted(10, 0, 0) }, 0, 0, 10);
        #[track_caller]
        fn check(wanted: Wanted, new: i32, total: i32, expected: i32) {
            assert_eq!(new_size(&wanted, new, total), expected);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn old_sets_shrink_as_availability_allows() {
        //    wanted             new        old                        expected
        check(wanted(10, 0, 2),  set(0, 0),   &[set(10, 10)],            &[8]);
        check(wanted(10, 2, 0),  set(2, 0),   &[set(10, 10)],            &[10]); // nothing new works yet
        check(wanted(10, 2, 0),  set(2, 2),   &[set(10, 10)],            &[8]);
        check(wanted(10, 2, 2),  set(4, 0),   &[set(8, 0)],              &[8]);  // too few in all
        check(wanted(10, 2, 2),  set(4, 4),   &[set(8, 4)],              &[4]);  // broken ones first
        check(wanted(10, 3, 2),  set(3, 3),   &[set(5, 5), set(5, 5)],   &[0, 5]);
        check(wanted(10, 3, 2),  set(10, 10), &[set(3, 3)],              &[0]);
        check(wanted(3, 1, 0),   set(1, 0),   &[set(3, 0)],              &[3]);  // the new one is not available, so none is spare
        #[track_caller]
        fn check(wanted: Wanted, new: Set, old: &[Set], expected: &[i32]) {
            assert_eq!(old_sizes(&wanted, &new, old), expected);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn scaling_keeps_the_balance_of_a_rollout() {
        let sized = |replicas, second, before| Set { replicas, available: 0, created: Some(at(second)), max_replicas: Some(before) };
        //    wanted              sets                                  expected
        check(wanted(15, 3, 2),   &[sized(8, 1, 13), sized(5, 2, 13)],  &[11, 7]);
        check(wanted(30, 3, 2),   &[sized(8, 1, 13), sized(5, 2, 13)],  &[20, 13]);
        check(wanted(5, 3, 2),    &[sized(8, 1, 13), sized(5, 2, 13)],  &[5, 3]);
        check(wanted(0, 3, 2),    &[sized(8, 1, 13), sized(5, 2, 13)],  &[0, 0]);
        check(wanted(10, 3, 2),   &[sized(8, 1, 13), sized(5, 2, 13)],  &[8, 5]);
        #[track_caller]
        fn check(wanted: Wanted, sets: &[Set], expected: &[i32]) {
            assert_eq!(proportional_sizes(&wanted, sets, 13), expected);
        }
    }
}
