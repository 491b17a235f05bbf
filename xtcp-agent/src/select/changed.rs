//! Rows of sockets to which something happened.

use super::facts::Facts;
use crate::workload::Budgeted;

/// Namespace's inode and socket's cookie.
type Socket = (u64, u64);

/// What each socket's counters were in the last row that was given.
#[derive(Debug)]
pub(super) struct Changed {
    last: Budgeted<Socket, u64>,
    bytes: usize,
    /// Forgotten by earlier tables.
    forgotten: u64,
}

impl Changed {
    pub(super) fn new(bytes: usize) -> Self {
        Self { last: Budgeted::new(bytes), bytes, forgotten: 0 }
    }

    /// Whether a row tells something new of its socket; its first does. It counts as given.
    pub(super) fn takes(&mut self, facts: &Facts) -> bool {
        let socket = (facts.netns, facts.cookie);
        // Without a cookie nobody knows whose row it is.
        if facts.cookie == 0 {
            return true;
        }
        if self.last.get(&socket) == Some(&facts.counters) {
            return false;
        }
        self.last.insert(socket, facts.counters, size_of::<Socket>() + size_of::<u64>());
        true
    }

    pub(super) fn forget(&mut self) {
        *self = Self { forgotten: self.forgotten(), ..Self::new(self.bytes) };
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten + self.last.evicted()
    }
}
