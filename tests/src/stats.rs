//! Latencies: measured, printed, and failed only far beyond their goal.

use std::time::Duration;

use crate::host::slowness;

/// Measured latencies.
#[derive(Debug, Default)]
pub struct Latencies {
    sorted_ns: Vec<u64>,
}

impl Latencies {
    /// Takes all measurements, in nanoseconds.
    pub fn new(mut ns: Vec<u64>) -> Self {
        ns.sort_unstable();
        Self { sorted_ns: ns }
    }

    /// The value below which `percent` of 100 measurements lie (nearest rank).
    pub fn percentile(&self, percent: usize) -> Duration {
        assert!(!self.sorted_ns.is_empty(), "nothing was measured");
        let rank = (self.sorted_ns.len() * percent).div_ceil(100).max(1);
        Duration::from_nanos(self.sorted_ns[rank - 1])
    }

    /// Prints p50, p99 and the maximum beside the goal for p99, and fails at ten times the goal, and
    /// [`slowness`] times that: machines are noisy.
    pub fn report(&self, what: &str, p99_goal: Duration) {
        let (p50, p99, max) = (self.percentile(50), self.percentile(99), self.percentile(100));
        let n = self.sorted_ns.len();
        let slowness = slowness();
        let slower = if slowness == 1 { String::new() } else { format!(", {slowness} times that here") };
        println!(
            "{what}: n={n} p50={p50:.2?} p99={p99:.2?} max={max:.2?} (goal: p99 under {p99_goal:?}{slower})"
        );
        assert!(
            p99 < p99_goal * slowness * 10,
            "{what}: p99 of {p99:?} is beyond ten times the goal of {p99_goal:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values_by_nearest_rank() {
        let latencies = Latencies::new((1..=200).rev().collect());
        assert_eq!(latencies.percentile(50), Duration::from_nanos(100));
        assert_eq!(latencies.percentile(99), Duration::from_nanos(198));
        assert_eq!(latencies.percentile(100), Duration::from_nanos(200));
        assert_eq!(Latencies::new(vec![7]).percentile(1), Duration::from_nanos(7));
    }
}
