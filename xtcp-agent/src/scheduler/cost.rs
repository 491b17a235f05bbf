//! Whether a dump is cheaper than lookups, from what both cost on this host so far.

use std::collections::HashMap;

/// Before the first measurement: a lookup in a batch, the visit not included.
const LOOKUP_NS: u64 = 3_000;
/// Before the first dump of a namespace: the walk over an empty established-hash of 262 144 buckets.
const EMPTY_DUMP_NS: u64 = 150_000;
/// Each socket of the host that a dump steps over, as all namespaces share one hash by default.
const PASSED_SOCKET_NS: u64 = 94;

#[derive(Debug, Default)]
pub(super) struct Cost {
    lookup_ns: Option<u64>,
    dumps: HashMap<u32, Measured>,
    host_rows: u64,
}

#[derive(Debug)]
struct Measured {
    duration_ns: u64,
    rows: u64,
}

impl Cost {
    /// Takes in what a request cost. Averages halve the weight of the past with every measurement.
    pub(super) fn measured(&mut self, inode: u32, dump: bool, asked: usize, rows: u64, duration_ns: u64) {
        if dump {
            let known = self.dumps.entry(inode).or_insert(Measured { duration_ns, rows: 0 });
            known.duration_ns = known.duration_ns.midpoint(duration_ns);
            self.host_rows = self.host_rows + rows - known.rows;
            known.rows = rows;
        } else if asked > 0 {
            let each = duration_ns / asked as u64;
            self.lookup_ns = Some(self.lookup_ns.map_or(each, |known| known.midpoint(each)));
        }
    }

    pub(super) fn forget(&mut self, inode: u32) {
        if let Some(known) = self.dumps.remove(&inode) {
            self.host_rows -= known.rows;
        }
    }

    /// What a dump of every namespace takes, as far as they were dumped before.
    pub(super) fn of_all_dumps_ns(&self) -> u64 {
        self.dumps.values().map(|known| known.duration_ns).sum()
    }

    pub(super) fn dump_is_cheaper(&self, inode: u32, lookups: usize) -> bool {
        let dump = self
            .dumps
            .get(&inode)
            .map_or(EMPTY_DUMP_NS + PASSED_SOCKET_NS * self.host_rows, |known| known.duration_ns);
        // A single lookup carries the whole visit, which a dump pays as well: it is never dearer.
        lookups > 1 && lookups as u64 * self.lookup_ns.unwrap_or(LOOKUP_NS).min(2 * LOOKUP_NS) > dump
    }
}
