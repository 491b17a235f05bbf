//! Counters of the kernel side: the per-CPU array map `COUNTERS` has one value, `[u64; COUNT]`, indexed by the
//! constants here, so that one lookup reads them all.

use crate::event::kind;

/// Samples submitted, by kind: index `SUBMITTED + kind`.
pub const SUBMITTED: u32 = 0;
/// Samples lost because the ring buffer was full, by kind: index `LOST + kind`.
pub const LOST: u32 = SUBMITTED + kind::COUNT;
/// Transitions left out by the state mask.
pub const FILTERED_STATE: u32 = LOST + kind::COUNT;
/// Transitions left out by the network-namespace filter.
pub const FILTERED_NETNS: u32 = FILTERED_STATE + 1;
/// Transitions left out by the port filter.
pub const FILTERED_PORT: u32 = FILTERED_NETNS + 1;
/// Transitions of sockets that are neither TCP nor MPTCP.
pub const FILTERED_PROTOCOL: u32 = FILTERED_PORT + 1;
/// Closing events without last numbers: the socket is no full TCP socket, or the classic tracepoint saw it.
pub const NO_TCP_SOCK: u32 = FILTERED_PROTOCOL + 1;
/// Number of counters.
pub const COUNT: u32 = NO_TCP_SOCK + 1;
