//! Network namespaces: who one is, how to find it, and the one place that enters it.

use std::fmt;

/// Who a network namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// Inode in nsfs: unique among living namespaces, used again after an end.
    pub inode: u32,
    /// `SO_NETNS_COOKIE` (5.14): never used again within a boot. 0 while not known.
    pub cookie: u64,
}

impl NetnsId {
    /// Whether both may be the same namespace: equal inodes, and equal cookies where both are known.
    pub fn matches(self, other: Self) -> bool {
        self.inode == other.inode && (self.cookie == other.cookie || self.cookie == 0 || other.cookie == 0)
    }
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netns:[{}]", self.inode)
    }
}
