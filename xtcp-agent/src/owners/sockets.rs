//! Cookie to owner, within a budget.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use foldhash::HashMap;

use crate::connections::Owner;

/// What an entry takes: a slot of 48 bytes and one in a table that is at least seven sixteenths full, and its cookie in
/// the order, beside that of one that is gone, in a ring that is at least half full.
pub(super) const ENTRY_BYTES: usize = 144;
/// Parts that are locked apart: events fill them while workers read.
const SHARDS: usize = 16;

/// An owner, and when that was so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) owner: Owner,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub(super) learned_ktime_ns: u64,
}

/// The map. Whoever was learnt first is the first to go.
pub(super) struct Sockets {
    shards: [RwLock<Shard>; SHARDS],
    per_shard: usize,
    len: AtomicUsize,
    evicted: AtomicU64,
}

/// A row of a poll is looked up here when its socket has long left the processor's caches: entries lie in the table itself.
#[derive(Default)]
struct Shard {
    entries: HashMap<u64, Entry>,
    /// Cookies as they were learnt, also of some that are gone: no cookie is used again.
    order: VecDeque<u64>,
}

impl Sockets {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::default()),
            per_shard: (bytes / ENTRY_BYTES / SHARDS).max(1),
            len: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    pub(super) fn get(&self, cookie: u64) -> Option<Entry> {
        let shard = self.shards.get(shard_of(cookie))?.read().unwrap_or_else(PoisonError::into_inner);
        shard.entries.get(&cookie).copied()
    }

    /// Those of several sockets, in their order: with nothing between two of them for which the processor would have to
    /// wait, it looks for several at once.
    pub(super) fn get_all(&self, cookies: impl Iterator<Item = u64>) -> Vec<Option<Entry>> {
        if self.len() == 0 {
            return cookies.map(|_| None).collect();
        }
        let shards = self.shards.each_ref().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner));
        cookies.map(|cookie| shards.get(shard_of(cookie))?.entries.get(&cookie).copied()).collect()
    }

    /// Those whom it displaced: the one before it of this socket, and one for want of room.
    pub(super) fn insert(&self, cookie: u64, entry: Entry) -> [Option<Entry>; 2] {
        let Some(shard) = self.shards.get(shard_of(cookie)) else { return [None, None] };
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        let before = shard.entries.insert(cookie, entry);
        if before.is_some() {
            return [before, None];
        }
        let displaced = if shard.entries.len() > self.per_shard { shard.remove_first() } else { None };
        shard.append(cookie);
        if displaced.is_some() {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        [None, displaced]
    }

    pub(super) fn remove(&self, cookie: u64) -> Option<Entry> {
        let mut shard = self.shards.get(shard_of(cookie))?.write().unwrap_or_else(PoisonError::into_inner);
        let gone = shard.entries.remove(&cookie)?;
        self.len.fetch_sub(1, Ordering::Relaxed);
        Some(gone)
    }

    /// Takes out those of which this is true.
    pub(super) fn take(&self, gone: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            // Most have none, and rows are looked up meanwhile.
            if !shard.read().unwrap_or_else(PoisonError::into_inner).entries.values().any(&gone) {
                continue;
            }
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            taken.extend(shard.entries.extract_if(|_, entry| gone(entry)).map(|(_, entry)| entry));
        }
        self.len.fetch_sub(taken.len(), Ordering::Relaxed);
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Cookies that are kept in order.
    #[cfg(test)]
    pub(super) fn order(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap().order.len()).sum()
    }
}

/// Cookies count up.
fn shard_of(cookie: u64) -> usize {
    usize::try_from(cookie % SHARDS as u64).unwrap_or(0)
}

impl Shard {
    /// Takes out whoever was learnt first.
    fn remove_first(&mut self) -> Option<Entry> {
        let Self { entries, order } = self;
        std::iter::from_fn(|| order.pop_front()).find_map(|cookie| entries.remove(&cookie))
    }

    /// Puts one at the end of the order, which has at most as many that are gone as there are others.
    fn append(&mut self, cookie: u64) {
        let Self { entries, order } = self;
        if order.len() >= 2 * entries.len() {
            order.retain(|cookie| entries.contains_key(cookie));
        }
        order.push_back(cookie);
    }
}
