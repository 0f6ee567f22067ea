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
    /// Processor time that the server used for them, in seconds; 0 when it was not measured. Other loads on the machine
    /// falsify the wall time and hardly this.
    pub cpu: f64,
    /// The same of the client, which takes its part of the machine too.
    pub client: f64,
}

impl Sample {
    /// The latency that `share` (0 to 1) of the operations did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1));
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// Prints `name  operations/s  p50  p99`, and the server's processor time for one operation.
    pub fn print(&self) {
        let rate = self.latencies.len() as f64 / self.elapsed.as_secs_f64();
        let (half, most) = (millis(self.quantile(0.5)), millis(self.quantile(0.99)));
        print!("{:<28} {rate:>10.0}/s   p50 {half:>9}   p99 {most:>9}", self.name);
        if self.cpu > 0.0 {
            let each = |seconds: f64| seconds / self.latencies.len() as f64 * 1e6;
            print!("   server CPU {:>7.0} us each, client {:.0}", each(self.cpu), each(self.client));
        }
        println!();
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
        let sample = Sample {
            name: String::new(),
            latencies: (1..=100).rev().map(Duration::from_millis).collect(),
            elapsed: Duration::from_secs(1),
            cpu: 0.0,
            client: 0.0,
        };
        assert_eq!(sample.quantile(0.5), Duration::from_millis(50));
        assert_eq!(sample.quantile(0.99), Duration::from_millis(99));
        assert_eq!(sample.quantile(1.0), Duration::from_millis(100));
    }
}
