//! The dead of the last minute, so that old news do not raise them.

use std::collections::HashMap;

use crate::netns::NetnsId;

/// How long the dead are remembered, nanoseconds: longer than any look at the host or visit takes.
pub(super) const REMEMBER_NS: u64 = 60_000_000_000;
/// Fewer are not worth looking through for those to forget.
const FEW: usize = 1024;

/// A death, `CLOCK_MONOTONIC` nanoseconds. Both times are the same where an event told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grave {
    /// It still lived then.
    pub(super) alive_ktime_ns: u64,
    /// It was dead then.
    pub(super) dead_ktime_ns: u64,
    /// Its creation was told.
    pub(super) announced: bool,
}

/// The dead.
#[derive(Debug)]
pub(super) struct Graves {
    /// By cookie, where it is known.
    cookies: HashMap<u64, Grave>,
    /// By inode: the last who died under it.
    inodes: HashMap<u32, Grave>,
    /// How many there may be before the old are forgotten.
    forget_at: usize,
}

impl Graves {
    pub(super) fn new() -> Self {
        Self { cookies: HashMap::new(), inodes: HashMap::new(), forget_at: FEW }
    }

    pub(super) fn bury(&mut self, id: NetnsId, grave: Grave) {
        if id.cookie != 0 {
            self.cookies.insert(id.cookie, grave);
        }
        let last = self.inodes.entry(id.inode).or_default();
        last.alive_ktime_ns = last.alive_ktime_ns.max(grave.alive_ktime_ns);
        last.dead_ktime_ns = last.dead_ktime_ns.max(grave.dead_ktime_ns);
        if self.len() >= self.forget_at {
            self.forget(grave.dead_ktime_ns);
        }
    }

    /// Whether a namespace that lived at this time is known to be dead: it is itself, or a later one with its inode.
    pub(super) fn is_dead(&self, id: NetnsId, alive_ktime_ns: u64) -> bool {
        (id.cookie != 0 && self.cookies.contains_key(&id.cookie))
            || self.inodes.get(&id.inode).is_some_and(|grave| grave.alive_ktime_ns >= alive_ktime_ns)
    }

    /// Whether a namespace of unknown cookie that lived at this time may be dead.
    pub(super) fn may_be_dead(&self, inode: u32, alive_ktime_ns: u64) -> bool {
        self.inodes.get(&inode).is_some_and(|grave| grave.dead_ktime_ns >= alive_ktime_ns)
    }

    /// Whether this very death is known. Without a cookie: or a later one under its inode.
    pub(super) fn knows(&self, id: NetnsId, dead_ktime_ns: u64) -> bool {
        if id.cookie == 0 {
            return self.is_dead(id, dead_ktime_ns);
        }
        self.cookies.contains_key(&id.cookie)
    }

    /// Whether the creation of a dead namespace was told.
    pub(super) fn was_announced(&self, id: NetnsId) -> bool {
        id.cookie != 0 && self.cookies.get(&id.cookie).is_some_and(|grave| grave.announced)
    }

    /// Forgets who was dead a minute before.
    pub(super) fn forget(&mut self, now_ktime_ns: u64) {
        let horizon = now_ktime_ns.saturating_sub(REMEMBER_NS);
        self.cookies.retain(|_, grave| grave.dead_ktime_ns >= horizon);
        self.inodes.retain(|_, grave| grave.dead_ktime_ns >= horizon);
        self.forget_at = FEW.max(2 * self.len());
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.cookies.len().max(self.inodes.len())
    }
}
