//! Durations of many operations, and the line of the table they make.

use std::time::Duration;

/// What one benchmark measured.
pub struct Sample {
    /// What was done.
    pub name: String,
    /// Latency of each operation.
    pub latencies: Vec<Duration>,
    /// Wall time of all of them together.
    pub elapsed: Duration,
}

impl Sample {
    /// The latency that `share` (0 to 1) of the operations did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1));
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// Prints `name  operations/s  p50  p99`.
    pub fn print(&self) {
        let rate = self.latencies.len() as f64 / self.elapsed.as_secs_f64();
        println!("{:<28} {:>10.0}/s   p50 {:>9}   p99 {:>9}", self.name, rate, millis(self.quantile(0.5)), millis(self.quantile(0.99)));
    }
}

/// A duration in milliseconds, for the table.
pub fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_ranks_of_the_sorted_sample() {
        let sample = Sample { name: String::new(), latencies: (1..=100).rev().map(Duration::from_millis).collect(), elapsed: Duration::from_secs(1) };
        assert_eq!(sample.quantile(0.5), Duration::from_millis(50));
        assert_eq!(sample.quantile(0.99), Duration::from_millis(99));
        assert_eq!(sample.quantile(1.0), Duration::from_millis(100));
    }
}
