//! How long an engine may take, and when to try again.

use std::time::Duration;

use crate::backoff;

/// Limits and pauses.
#[derive(Clone, Copy, Debug)]
pub(in crate::workload) struct Pace {
    /// Longest wait for one answer.
    pub(in crate::workload) answer: Duration,
    /// First and longest pause after a failure.
    pub(in crate::workload) pauses: (Duration, Duration),
    /// Between two looks for a socket that does not exist.
    pub(in crate::workload) absent: Duration,
    /// Between two complete lists where events tell what happens between them.
    pub(in crate::workload) relist: Duration,
    /// Between two complete lists where nothing does.
    pub(in crate::workload) list: Duration,
    /// Longest answer that is taken, bytes; an event of the Docker API may have an eighth.
    pub(in crate::workload) longest: usize,
}

impl Pace {
    /// For daily use.
    pub(in crate::workload) const USUAL: Self = Self {
        answer: Duration::from_secs(5),
        pauses: (Duration::from_millis(250), Duration::from_secs(30)),
        absent: Duration::from_secs(5),
        relist: Duration::from_secs(300),
        list: Duration::from_secs(10),
        // What kubelet takes.
        longest: 16 << 20,
    };
}

/// Failures in a row.
#[derive(Debug, Default)]
pub(in crate::workload) struct Attempts(u32);

impl Attempts {
    /// The pause before the next attempt.
    pub(in crate::workload) fn next(&mut self, pace: &Pace) -> Duration {
        let (first, longest) = pace.pauses;
        let pause = backoff::pause(first, longest, self.0);
        self.0 = self.0.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_jitter_up_to_a_bound() {
        let mut attempts = Attempts::default();
        let mut bound = Duration::from_millis(250);
        for _ in 0..100 {
            let pause = attempts.next(&Pace::USUAL);
            assert!(pause >= bound / 2 && pause <= bound, "{pause:?} of {bound:?}");
            bound = (2 * bound).min(Duration::from_secs(30));
        }
    }
}
