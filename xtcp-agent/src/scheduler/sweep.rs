//! When all namespaces may be dumped again because events were lost. Dumping them all takes processors from whoever
//! makes the events, and so would cost more of them: a flood must not keep it going.

/// Time between two sweeps, in the time that one takes.
const REST: u64 = 9;
const SHORTEST_NS: u64 = 1_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Sweep {
    not_before: u64,
    wanted: bool,
}

impl Sweep {
    /// Events were lost.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether to begin one now, that will take `cost_ns` as far as is known.
    pub(super) fn begin(&mut self, now: u64, cost_ns: u64) -> bool {
        let due = self.deadline() <= now;
        if due {
            self.wanted = false;
            self.not_before = now.saturating_add(cost_ns.saturating_mul(REST).max(SHORTEST_NS));
        }
        due
    }

    /// When the next one begins; `u64::MAX` when none is wanted.
    pub(super) fn deadline(&self) -> u64 {
        if self.wanted { self.not_before } else { u64::MAX }
    }
}
