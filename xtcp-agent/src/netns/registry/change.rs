//! What the registry tells.

use std::sync::Arc;

use crate::netns::{NetnsId, Thread};

/// How a beginning or an end became known; the same as the event's `NetnsSource`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// An eBPF program on the kernel function that creates or destroys namespaces.
    KernelFunction,
    /// An eBPF program on fork or unshare.
    Process,
    /// An eBPF program on the kernel's clean-up work, and asking for each.
    Cleanup,
    /// Comparison with mounts, processes and handles.
    Reconcile,
    /// A socket event from a namespace that nothing had announced.
    Socket,
    /// An entry found another namespace than expected.
    Entry,
    /// An eBPF program on `setns`, by which somebody entered a namespace that nothing had announced.
    Setns,
    /// rtnetlink (`RTM_DELNSID`), and asking for each where it did not say for whom.
    Nsid,
}

/// Who was first inside a new namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creator {
    /// The thread, in the initial pid namespace.
    pub thread: Thread,
    /// Its command name.
    pub comm: String,
}

/// A namespace, and what people call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    /// Who.
    pub id: NetnsId,
    /// `default`, the base name of a mount, what its container gives it, or `netns:[inode]`.
    pub name: Arc<str>,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A namespace was created after the agent's start, or first noticed after it.
    Created {
        /// Which.
        netns: Netns,
        /// When: of the creation where an event told, else of the first sight. `CLOCK_MONOTONIC` nanoseconds.
        at_ktime_ns: u64,
        /// How this is known.
        source: Source,
        /// By whom.
        creator: Option<Creator>,
    },
    /// A namespace is gone.
    Destroyed {
        /// Which.
        netns: Netns,
        /// When: of the destruction where an event told, else of the conclusion. `CLOCK_MONOTONIC` nanoseconds.
        at_ktime_ns: u64,
        /// How this is known.
        source: Source,
        /// Nanoseconds since its creation, where that was seen.
        lifetime_ns: Option<u64>,
    },
    /// People call it otherwise now.
    Renamed {
        /// Which, with its new name.
        netns: Netns,
        /// Its name until now.
        was: Arc<str>,
    },
}
