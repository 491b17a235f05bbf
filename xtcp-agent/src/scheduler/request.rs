//! What the scheduler is told and what it tells.

use foldhash::HashSet;

use crate::connections::Owner;
use crate::record::Reason;

/// Settings, all from `Config`.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Nanoseconds between the starts of two polls.
    pub frequency_ns: u64,
    /// Share of the frequency, percent (0 to 100), by which each start is moved at random, either way.
    pub jitter_pct: u32,
    /// Requests that may be under way at once.
    pub workers: usize,
    /// How long triggers of one namespace are gathered, nanoseconds.
    pub lookup_delay_ns: u64,
    /// Most lookups in one request.
    pub lookups_per_request: usize,
    /// Lookups per second for all namespaces together; 0 for no limit.
    pub lookups_per_s: u32,
    /// Longest wait after a dump for the events about its time, nanoseconds; 0 when there are no events.
    pub merge_wait_ns: u64,
}

/// An exact request for one socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup {
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// Local address, IPv4 in the first four bytes.
    pub source: [u8; 16],
    /// Remote address, IPv4 in the first four bytes.
    pub destination: [u8; 16],
    /// Local port.
    pub source_port: u16,
    /// Remote port.
    pub destination_port: u16,
    /// Interface that the socket is bound to; 0 for none.
    pub interface: u32,
    /// The socket's cookie; 0 where it is not known (before 5.12): it is then asked for by its addresses.
    pub cookie: u64,
    /// Kernel address of the socket: its name as long as it lives.
    pub sk: u64,
    /// Sequence number of the change event that leads to this lookup; 0 if none does.
    pub event_sequence: u64,
    /// Owner of the socket, if known.
    pub owner: Option<Owner>,
}

/// What to ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Scope {
    /// Every socket in the configured states.
    Dump,
    /// Listening sockets.
    Listeners,
    /// Exactly these sockets.
    Lookups(Vec<Lookup>),
}

/// One thing to ask of one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct DumpRequest {
    /// Names the request in its completion.
    pub id: u64,
    /// Inode of the namespace.
    pub netns_inode: u32,
    /// What to ask.
    pub scope: Scope,
    /// Why.
    pub reason: Reason,
    /// Number of the poll that it belongs to; 0 for none.
    pub poll: u64,
    /// Change event that leads to it; 0 if none or several do.
    pub event_sequence: u64,
    /// Cookies of the sockets that its poll has from this namespace already.
    pub seen: HashSet<u64>,
}

/// How a request ended.
#[derive(Debug, Default)]
pub struct Completion {
    /// The request's id.
    pub id: u64,
    /// Everything that was asked for was answered.
    pub complete: bool,
    /// Why not, where a namespace was entered and did not answer in full.
    pub fault: Option<String>,
    /// Rows that it gave.
    pub rows: u64,
    /// Nanoseconds that it took, the entry into the namespace included.
    pub duration_ns: u64,
    /// Cookies of the sockets that a poll's dump gave.
    pub seen: HashSet<u64>,
}

/// Counts of what the scheduler decided, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    /// Lookups dispatched for triggers.
    pub lookups: u64,
    /// Triggers whose socket had closed before it was asked for.
    pub closed_before_asked: u64,
    /// Triggers over the budget.
    pub shed: u64,
    /// Triggers of several sockets answered by a dump, because it was cheaper.
    pub dumps_instead: u64,
    /// Lookups that merged a socket into a running poll.
    pub merged: u64,
    /// Polls that began late because the one before was still running.
    pub overruns: u64,
}
