//! Cookie to owner, within a budget.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use lru::LruCache;

use crate::connections::Owner;

/// What an entry takes: itself, its key and the two links of the order in one allocation, its slot in a table that is
/// between seven eighths and seven sixteenths full.
pub(super) const ENTRY_BYTES: usize = 128;
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
    shards: [RwLock<LruCache<u64, Entry>>; SHARDS],
    per_shard: usize,
    evicted: AtomicU64,
}

impl Sockets {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::new(LruCache::unbounded())),
            per_shard: (bytes / ENTRY_BYTES / SHARDS).max(1),
            evicted: AtomicU64::new(0),
        }
    }

    pub(super) fn get(&self, cookie: u64) -> Option<Entry> {
        // Reading is no use that counts: it would have to wait for others who read.
        self.read(cookie)?.peek(&cookie).copied()
    }

    /// Those whom it displaced: the one before it of this socket, and one for want of room.
    pub(super) fn insert(&self, cookie: u64, entry: Entry) -> [Option<Entry>; 2] {
        let Some(mut shard) = self.write(cookie) else { return [None, None] };
        let before = shard.put(cookie, entry);
        let mut displaced = None;
        if shard.len() > self.per_shard {
            displaced = shard.pop_lru().map(|(_, entry)| entry);
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        [before, displaced]
    }

    pub(super) fn remove(&self, cookie: u64) -> Option<Entry> {
        self.write(cookie)?.pop(&cookie)
    }

    /// Takes out those of which this is true.
    pub(super) fn take(&self, gone: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let cookies: Vec<u64> = {
                let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
                shard.iter().filter(|(_, entry)| gone(entry)).map(|(cookie, _)| *cookie).collect()
            };
            if cookies.is_empty() {
                continue;
            }
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            for cookie in cookies {
                // It may be another's since.
                if shard.peek(&cookie).is_some_and(&gone) {
                    taken.extend(shard.pop(&cookie));
                }
            }
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    fn shard(&self, cookie: u64) -> Option<&RwLock<LruCache<u64, Entry>>> {
        // Cookies count up.
        self.shards.get(usize::try_from(cookie % SHARDS as u64).unwrap_or(0))
    }

    fn read(&self, cookie: u64) -> Option<RwLockReadGuard<'_, LruCache<u64, Entry>>> {
        Some(self.shard(cookie)?.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, cookie: u64) -> Option<RwLockWriteGuard<'_, LruCache<u64, Entry>>> {
        Some(self.shard(cookie)?.write().unwrap_or_else(PoisonError::into_inner))
    }
}
