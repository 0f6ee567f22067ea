//! How many seats a level needed over a while: the most, the average, and a value that rises at once and falls slowly, so
//! that who was busy a minute ago finds room when it is busy again (KEP-1040).

use std::time::{Duration, Instant};

/// How much of the smoothed value is left after one look.
const KEPT: f64 = 0.977;

/// Sums a number up over time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Integrator {
    value: usize,
    most: usize,
    since: Instant,
    begun: Instant,
    /// Of the value times seconds, and of its square.
    sum: f64,
    squares: f64,
}

/// What was seen between two looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Observed {
    pub(super) most: usize,
    pub(super) average: f64,
    pub(super) deviation: f64,
    pub(super) length: Duration,
}

impl Integrator {
    pub(super) fn new(now: Instant) -> Self {
        Self { value: 0, most: 0, since: now, begun: now, sum: 0.0, squares: 0.0 }
    }

    /// The number is this from now on.
    pub(super) fn set(&mut self, value: usize, now: Instant) {
        let lasted = now.saturating_duration_since(self.since).as_secs_f64();
        let was = self.value as f64;
        self.sum += was * lasted;
        self.squares += was * was * lasted;
        (self.value, self.since) = (value, now);
        self.most = self.most.max(value);
    }

    /// What was seen since the last call. Begins anew.
    pub(super) fn look(&mut self, now: Instant) -> Observed {
        self.set(self.value, now);
        let length = now.saturating_duration_since(self.begun);
        let seconds = length.as_secs_f64();
        let (average, square) = if seconds > 0.0 { (self.sum / seconds, self.squares / seconds) } else { (0.0, 0.0) };
        // Rounding may leave less than nothing of a constant.
        let deviation = (square - average * average).max(0.0).sqrt();
        let observed = Observed { most: self.most, average, deviation, length };
        *self = Self { value: self.value, most: self.value, ..Self::new(now) };
        observed
    }
}

/// What a level needed, as the next division of seats takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Demand {
    pub(super) most: usize,
    pub(super) average: f64,
    pub(super) deviation: f64,
    pub(super) smoothed: f64,
}

impl Demand {
    /// Takes in what was seen.
    pub(super) fn update(&mut self, observed: &Observed) {
        self.most = observed.most;
        if observed.length.is_zero() {
            return;
        }
        (self.average, self.deviation) = (observed.average, observed.deviation);
        let envelope = observed.average + observed.deviation;
        self.smoothed = envelope.max(KEPT * self.smoothed + (1.0 - KEPT) * envelope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut integrator = Integrator::new(start);
        integrator.set(8, at(5));
        let observed = integrator.look(at(10));
        assert_eq!((observed.most, observed.average, observed.deviation), (8, 4.0, 4.0));
        let mut demand = Demand::default();
        demand.update(&observed);
        assert_eq!((demand.most, demand.smoothed), (8, 8.0));
        integrator.set(0, at(10));
        demand.update(&integrator.look(at(20)));
        assert_eq!((demand.most, demand.average), (8, 0.0), "eight were taken when the time began");
        assert!((demand.smoothed - 8.0 * KEPT).abs() < 1e-9);
        demand.update(&integrator.look(at(30)));
        assert_eq!(demand.most, 0);
        let before = demand;
        demand.update(&integrator.look(at(30)));
        assert_eq!(demand, before, "no time, no news");
    }
}
