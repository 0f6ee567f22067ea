//! What thresholds are met, since when, and which of them have to be acted upon. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Pressure, Reading, Resource, Threshold};

/// The past, as far as it decides about now.
#[derive(Debug, Default)]
pub struct State {
    /// When a threshold was first found met, by its place in the list.
    first: BTreeMap<usize, Instant>,
    /// Thresholds that were acted upon and have not come far enough above their amount.
    unresolved: Vec<usize>,
    /// When memory, disk and process ids were last short.
    last: [Option<Instant>; 3],
}

impl State {
    /// Takes note of `readings`. Returns the conditions to show, which outlive their cause by `transition`, and the thresholds that
    /// have been met for as long as they must, memory first.
    pub fn observe<'a>(
        &mut self,
        thresholds: &'a [Threshold],
        readings: &[Reading],
        transition: Duration,
        now: Instant,
    ) -> (Pressure, Vec<(&'a Threshold, Reading)>) {
        let mut found: BTreeMap<usize, Reading> = met(thresholds, readings, false).collect();
        let unresolved = met(thresholds, readings, true).filter(|(index, _)| self.unresolved.contains(index));
        found.extend(unresolved.collect::<Vec<_>>());
        self.first.retain(|index, _| found.contains_key(index));
        for index in found.keys() {
            self.first.entry(*index).or_insert(now);
        }
        for index in found.keys() {
            let place = match Resource::of(&thresholds[*index].signal) {
                Some(Resource::Memory) => 0,
                Some(Resource::Pids) => 2,
                _ => 1,
            };
            self.last[place] = Some(now);
        }
        let shown = |last: Option<Instant>| last.is_some_and(|at| now == at || now.duration_since(at) < transition);
        let pressure = Pressure { memory: shown(self.last[0]), disk: shown(self.last[1]), pid: shown(self.last[2]) };
        let due = |index: &usize| now.duration_since(self.first[index]) >= thresholds[*index].grace;
        let due: BTreeMap<usize, Reading> = found.into_iter().filter(|(index, _)| due(index)).collect();
        self.unresolved = due.keys().copied().collect();
        let mut due: Vec<_> = due.into_iter().map(|(index, reading)| (&thresholds[index], reading)).collect();
        due.sort_by_key(|(threshold, _)| Resource::of(&threshold.signal) != Some(Resource::Memory));
        (pressure, due)
    }
}

/// The thresholds that readings fall below, by their place in the list; with `reclaim`, below the amount at which they are resolved.
pub fn met(thresholds: &[Threshold], readings: &[Reading], reclaim: bool) -> impl Iterator<Item = (usize, Reading)> {
    thresholds.iter().enumerate().filter_map(move |(index, threshold)| {
        let reading = readings.iter().find(|reading| reading.signal == threshold.signal && reading.capacity > 0)?;
        let extra = threshold.min_reclaim.filter(|_| reclaim).map_or(0, |extra| extra.of(reading.capacity));
        (reading.available < threshold.amount(reading.capacity) + extra).then_some((index, *reading))
    })
}

/// How soon a threshold could be met when its resource is used up as fast as a machine can: a gibibyte of memory or disk,
/// a hundred thousand inodes or ten thousand processes a second.
#[must_use]
pub fn distance(thresholds: &[Threshold], readings: &[Reading]) -> Duration {
    let each = thresholds.iter().filter_map(|threshold| {
        let reading = readings.iter().find(|reading| reading.signal == threshold.signal && reading.capacity > 0)?;
        let rate = match Resource::of(reading.signal)? {
            Resource::Pids => 10_000,
            Resource::Inodes => 100_000,
            Resource::Memory | Resource::Storage => 1 << 30,
        };
        let left = reading.available - threshold.amount(reading.capacity);
        Some(Duration::from_secs(u64::try_from(left / rate).unwrap_or(0)))
    });
    each.min().unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Amount;
    use super::*;

    const TRANSITION: Duration = Duration::from_secs(300);

    fn reading(signal: &'static str, available: i64, capacity: i64) -> Reading {
        Reading { signal, available, capacity }
    }

    #[test]
    fn readings_below_a_threshold_are_pressure_for_a_while() {
        let thresholds = Threshold::defaults();
        let fine = [reading("memory.available", 200 << 20, 1 << 30), reading("nodefs.available", 20, 100)];
        let short = [reading("memory.available", 50 << 20, 1 << 30), reading("nodefs.available", 9, 100)];
        let (mut state, start) = (State::default(), Instant::now());
        let (pressure, due) = state.observe(&thresholds, &fine, TRANSITION, start);
        assert_eq!((pressure, due.len()), (Pressure::default(), 0));
        let (pressure, due) = state.observe(&thresholds, &short, TRANSITION, start + Duration::from_secs(10));
        assert_eq!(pressure, Pressure { memory: true, disk: true, pid: false });
        assert_eq!(due.iter().map(|(t, _)| t.signal.as_str()).collect::<Vec<_>>(), ["memory.available", "nodefs.available"]);
        let (pressure, due) = state.observe(&thresholds, &fine, TRANSITION, start + Duration::from_secs(309));
        assert!(pressure.any() && due.is_empty());
        let (pressure, _) = state.observe(&thresholds, &fine, TRANSITION, start + Duration::from_secs(310));
        assert!(!pressure.any());
    }

    #[test]
    fn a_soft_threshold_waits_and_a_reclaim_goes_on() {
        let soft = Threshold {
            signal: "memory.available".to_owned(),
            value: Amount::Absolute(100),
            grace: Duration::from_secs(30),
            min_reclaim: Some(Amount::Absolute(50)),
        };
        let (mut state, start) = (State::default(), Instant::now());
        let mut due = |available, seconds| {
            let at = start + Duration::from_secs(seconds);
            let (pressure, due) =
                state.observe(std::slice::from_ref(&soft), &[reading("memory.available", available, 1000)], TRANSITION, at);
            (pressure.memory, !due.is_empty())
        };
        //         available seconds  condition, act
        assert_eq!(due(90, 0), (true, false));
        assert_eq!(due(90, 20), (true, false));
        assert_eq!(due(110, 25), (true, false)); // it was met too short, and starts anew
        assert_eq!(due(90, 30), (true, false));
        assert_eq!(due(90, 60), (true, true));
        assert_eq!(due(120, 70), (true, true)); // resolved at 150 only
        assert_eq!(due(150, 80), (true, false));
    }

    #[test]
    fn the_nearest_threshold_decides_the_next_look() {
        let thresholds = Threshold::defaults();
        let memory = reading("memory.available", (20 << 30) + (100 << 20), 24 << 30);
        assert_eq!(distance(&thresholds, &[memory]), Duration::from_secs(20));
        let inodes = reading("nodefs.inodesFree", 1_000_000, 10_000_000);
        assert_eq!(distance(&thresholds, &[memory, inodes]), Duration::from_secs(5));
        assert_eq!(distance(&thresholds, &[memory, reading("nodefs.available", 0, 100 << 30)]), Duration::ZERO);
        assert_eq!(distance(&thresholds, &[]), Duration::MAX);
    }
}
