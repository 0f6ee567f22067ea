//! Growing delays.

use std::time::Duration;

/// Exponential back-off with up to 20 % of random extra, so that many clients do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The delay after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let delay = exponential(self.first, self.longest, self.failures);
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(1.0 + rand::random::<f64>() * 0.2)
    }

    /// Whether the last attempt failed.
    pub(crate) const fn is_failing(&self) -> bool {
        self.failures > 0
    }

    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `first` doubled `failures` times, at most `longest`.
pub(crate) fn exponential(first: Duration, longest: Duration, failures: u32) -> Duration {
    2u32.checked_pow(failures).and_then(|factor| first.checked_mul(factor)).map_or(longest, |delay| delay.min(longest))
}
