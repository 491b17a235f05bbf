//! Network namespaces: who one is, how to find it, and the one place that enters it.
//!
//! [`registry`] knows them all and does no I/O; [`discover`] looks for them on the host and [`watch`] says when to
//! look; [`enter`] visits one for a moment; [`handle`] is the way that kernels since 6.18 offer to those that
//! have neither name nor process.

pub mod discover;
pub mod enter;
pub mod filter;
pub mod handle;
pub mod label;
pub mod list;
pub mod metrics;
pub mod nsid;
pub mod registry;
pub mod watch;

use std::fmt;
use std::path::PathBuf;

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

/// A way into a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// It is the agent's own: no entry needed.
    Own,
    /// By cookie through nsfs (6.18); also when neither process nor mount holds it.
    Handle,
    /// A file of nsfs bound to a path, or a link to one.
    Mount(PathBuf),
    /// A thread that is in it.
    Thread(Thread),
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("own namespace"),
            Self::Handle => f.write_str("nsfs handle"),
            Self::Mount(path) => f.write_str(&label::printable_path(path)),
            Self::Thread(Thread { pid, tid }) => write!(f, "/proc/{pid}/task/{tid}/ns/net"),
        }
    }
}

/// A thread, in the agent's pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Thread {
    /// Process.
    pub pid: u32,
    /// Thread of it.
    pub tid: u32,
}

/// A namespace to visit: who is expected, and the doors to try, the most certain first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who must be found.
    pub id: NetnsId,
    /// Where to go in.
    pub doors: Vec<Door>,
}

/// What one look at the host found. Times are `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Before the look.
    pub began_ktime_ns: u64,
    /// After the look.
    pub ended_ktime_ns: u64,
    /// Files that lead to network namespaces, in the order of the directories, then by name.
    pub mounts: Vec<Mount>,
    /// Some threads of each namespace; `None` when only mounts were looked at.
    pub threads: Option<Vec<(u32, Thread)>>,
    /// What the kernel listed, with cookies; empty when only mounts were looked at, and before 6.19.
    pub listed: Vec<NetnsId>,
}

/// A file that leads to a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub path: PathBuf,
    /// Device of nsfs.
    pub device: u64,
    /// Inode of the namespace.
    pub inode: u32,
}
