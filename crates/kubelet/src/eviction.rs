//! Eviction under pressure: when memory, disk or process ids run short, the node says so in its conditions and takes
//! pods off, those first that use more than they asked for. [`observe`] and [`choose`] are pure.

use std::time::Duration;

/// A signal and the amount below which something has to happen.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// `memory.available`, `nodefs.available`, `nodefs.inodesFree`, `imagefs.available`, `imagefs.inodesFree` or `pid.available`.
    pub signal: String,
    /// The amount.
    pub value: Amount,
    /// How long it must last; zero is a hard threshold.
    pub grace: Duration,
}

/// An absolute amount, or a part of the capacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes or a number.
    Absolute(i64),
    /// Between 0 and 1.
    Part(f64),
}

/// Which resources are short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Space or inodes on the node's file systems.
    pub disk: bool,
    /// Process ids.
    pub pid: bool,
}

/// A reading of one signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// As in [`Threshold`].
    pub signal: &'static str,
    /// What is left.
    pub available: i64,
    /// All there is.
    pub capacity: i64,
}

/// A pod as a candidate.
#[derive(Clone, Debug, Default)]
pub struct Candidate {
    /// Its UID.
    pub uid: String,
    /// Priority of the specification.
    pub priority: i32,
    /// Static and critical pods are not taken.
    pub protected: bool,
    /// Use of the resource that is short.
    pub usage: i64,
    /// What it asked for of it.
    pub request: i64,
}

impl Threshold {
    /// Upstream's hard thresholds.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        let hard = |signal: &str, value| Self { signal: signal.to_owned(), value, grace: Duration::ZERO };
        vec![
            hard("memory.available", Amount::Absolute(100 << 20)),
            hard("nodefs.available", Amount::Part(0.10)),
            hard("nodefs.inodesFree", Amount::Part(0.05)),
            hard("imagefs.available", Amount::Part(0.15)),
            hard("imagefs.inodesFree", Amount::Part(0.05)),
        ]
    }

    /// The amount for a capacity.
    #[must_use]
    pub fn amount(&self, capacity: i64) -> i64 {
        match self.value {
            Amount::Absolute(amount) => amount,
            Amount::Part(part) => (capacity as f64 * part) as i64,
        }
    }
}

/// The thresholds that the readings fall below.
#[must_use]
pub fn observe<'a>(thresholds: &'a [Threshold], readings: &[Reading]) -> Vec<(&'a Threshold, Reading)> {
    let met = thresholds.iter().filter_map(|threshold| {
        let reading = readings.iter().find(|reading| reading.signal == threshold.signal && reading.capacity > 0)?;
        (reading.available < threshold.amount(reading.capacity)).then_some((threshold, *reading))
    });
    met.collect()
}

/// How soon a threshold could be met when its resource is used up as fast as a machine can: a gibibyte of memory or disk,
/// a hundred thousand inodes or ten thousand processes a second.
#[must_use]
pub fn distance(thresholds: &[Threshold], readings: &[Reading]) -> Duration {
    let each = thresholds.iter().filter_map(|threshold| {
        let reading = readings.iter().find(|reading| reading.signal == threshold.signal && reading.capacity > 0)?;
        let rate = match reading.signal {
            "pid.available" => 10_000,
            signal if signal.ends_with(".inodesFree") => 100_000,
            _ => 1 << 30,
        };
        let left = reading.available - threshold.amount(reading.capacity);
        Some(Duration::from_secs(u64::try_from(left / rate).unwrap_or(0)))
    });
    each.min().unwrap_or(Duration::MAX)
}

/// The conditions that thresholds which were met stand for.
#[must_use]
pub fn pressure(met: &[(&Threshold, Reading)]) -> Pressure {
    let any =
        |prefixes: &[&str]| met.iter().any(|(threshold, _)| prefixes.iter().any(|prefix| threshold.signal.starts_with(prefix)));
    Pressure { memory: any(&["memory."]), disk: any(&["nodefs.", "imagefs."]), pid: any(&["pid."]) }
}

/// The pod to take off: over its request before within it, lower priority before higher, then the one furthest over.
#[must_use]
pub fn choose(candidates: &[Candidate]) -> Option<&Candidate> {
    let open = candidates.iter().filter(|candidate| !candidate.protected);
    open.max_by_key(|candidate| {
        let over = candidate.usage - candidate.request;
        (over > 0, std::cmp::Reverse(candidate.priority), over)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_below_a_threshold_are_pressure() {
        let thresholds = Threshold::defaults();
        let reading = |signal, available, capacity| Reading { signal, available, capacity };
        let fine = [reading("memory.available", 200 << 20, 1 << 30), reading("nodefs.available", 20, 100)];
        assert_eq!(pressure(&observe(&thresholds, &fine)), Pressure::default());
        let short = [reading("memory.available", 50 << 20, 1 << 30), reading("nodefs.available", 9, 100)];
        assert_eq!(pressure(&observe(&thresholds, &short)), Pressure { memory: true, disk: true, pid: false });
    }

    #[test]
    fn the_nearest_threshold_decides_the_next_look() {
        let thresholds = Threshold::defaults();
        let reading = |signal, available, capacity| Reading { signal, available, capacity };
        let memory = reading("memory.available", (20 << 30) + (100 << 20), 24 << 30);
        assert_eq!(distance(&thresholds, &[memory]), Duration::from_secs(20));
        let inodes = reading("nodefs.inodesFree", 1_000_000, 10_000_000);
        assert_eq!(distance(&thresholds, &[memory, inodes]), Duration::from_secs(5));
        assert_eq!(distance(&thresholds, &[memory, reading("nodefs.available", 0, 100 << 30)]), Duration::ZERO);
        assert_eq!(distance(&thresholds, &[]), Duration::MAX);
    }

    #[test]
    fn the_greediest_goes_first() {
        let candidate = |uid: &str, priority, usage, request, protected| Candidate {
            uid: uid.to_owned(),
            priority,
            usage,
            request,
            protected,
        };
        let all = [
            candidate("within", 0, 100, 200, false),
            candidate("over", 0, 300, 200, false),
            candidate("important", 10, 900, 200, false),
            candidate("static", 0, 5000, 0, true),
            candidate("more", 0, 500, 200, false),
        ];
        assert_eq!(choose(&all).map(|pod| pod.uid.as_str()), Some("more"));
        assert_eq!(choose(&all[..1]).map(|pod| pod.uid.as_str()), Some("within"));
        assert!(choose(&all[3..4]).is_none());
    }
}
