//! What the kernel counts for a whole network namespace: read at the visit of a poll, told as an event.
//!
//! A worker opens the two files of procfs while it is inside, is home again before it reads, and closes them at once:
//! they keep the namespace alive as its socket does. Which visit reads, and what the host's metrics make of it, is
//! decided by [`ledger`].

pub mod ledger;
pub mod listeners;

use std::fs::File;
use std::io::{self, Read as _};

use xtcp_proto::netns::v1::NetnsCounters;

use crate::clock;

/// Group Tcp is in one file, TcpExt in the other. Not `/proc/net`, which is of the process's first thread.
const PATHS: [&str; 2] = ["/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"];
/// Bytes of both files on a kernel of today, rounded up.
const TEXT_BYTES: usize = 8192;
/// The files end long before; a procfs that never ends is none.
const MOST_BYTES: u64 = 1 << 20;

/// One visit's reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// When it was read, `CLOCK_MONOTONIC` nanoseconds.
    pub ktime_ns: u64,
    /// How long opening, reading and parsing took, nanoseconds.
    pub cost_ns: u64,
    /// What was read.
    pub counters: Box<NetnsCounters>,
}

/// The open files of one namespace.
#[derive(Debug)]
pub struct Files {
    files: io::Result<[File; 2]>,
    opening_ns: u64,
}

impl Files {
    /// Opens the files of the namespace that the calling thread is in. What cannot be opened is said by the reading.
    pub fn open() -> Self {
        let began = clock::ktime_ns();
        let [snmp, netstat] = PATHS.map(|path| {
            File::open(path).map_err(|error| io::Error::new(error.kind(), format!("open {path}: {error}")))
        });
        let files = snmp.and_then(|snmp| Ok([snmp, netstat?]));
        Self { files, opening_ns: clock::ktime_ns().saturating_sub(began) }
    }

    /// Reads and closes them.
    pub fn read(self) -> Reading {
        let ktime_ns = clock::ktime_ns();
        let mut counters = Box::<NetnsCounters>::default();
        let mut text = Vec::with_capacity(TEXT_BYTES);
        let read = self.files.and_then(|files| {
            for (file, path) in files.into_iter().zip(PATHS) {
                text.clear();
                file.take(MOST_BYTES)
                    .read_to_end(&mut text)
                    .map_err(|error| io::Error::new(error.kind(), format!("read {path}: {error}")))?;
                parse(&text, &mut counters);
            }
            Ok(())
        });
        if let Err(error) = read {
            *counters = NetnsCounters { error: error.to_string(), ..NetnsCounters::default() };
        }
        let cost_ns = self.opening_ns + clock::ktime_ns().saturating_sub(ktime_ns);
        Reading { ktime_ns, cost_ns, counters }
    }
}

/// Takes in what `/proc/net/snmp` or `/proc/net/netstat` says: pairs of lines, the names of a group and their values in
/// the same order. Kernels differ in both, so only names count; those that nobody asked for are stepped over.
pub fn parse(text: &[u8], counters: &mut NetnsCounters) {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((group, names)), Some((same, values))) = (names.split_once(':'), values.split_once(':'))
        else {
            continue;
        };
        if group != same {
            continue;
        }
        for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
            // MaxConn alone is negative, and nobody's.
            if let (Some(field), Ok(value)) = (field_of(counters, group, name), value.parse()) {
                *field = Some(value);
            }
        }
    }
}

macro_rules! counters {
    ($($field:ident = $group:literal, $name:literal;)*) => {
        /// Group and name of every counter, as the kernel and `nstat` say them.
        pub const NAMES: &[(&str, &str)] = &[$(($group, $name)),*];

        fn field_of<'a>(counters: &'a mut NetnsCounters, group: &str, name: &str) -> Option<&'a mut Option<u64>> {
            match (group, name) {
                $(($group, $name) => Some(&mut counters.$field),)*
                _ => None,
            }
        }

        /// The values of the counters, in the order of [`NAMES`]; `None` for what this kernel does not have.
        pub fn values(counters: &NetnsCounters) -> impl Iterator<Item = Option<u64>> {
            [$(counters.$field),*].into_iter()
        }
    };
}

counters! {
    active_opens = "Tcp", "ActiveOpens";
    passive_opens = "Tcp", "PassiveOpens";
    attempt_fails = "Tcp", "AttemptFails";
    estab_resets = "Tcp", "EstabResets";
    curr_estab = "Tcp", "CurrEstab";
    in_segs = "Tcp", "InSegs";
    out_segs = "Tcp", "OutSegs";
    retrans_segs = "Tcp", "RetransSegs";
    in_errs = "Tcp", "InErrs";
    out_rsts = "Tcp", "OutRsts";
    in_csum_errors = "Tcp", "InCsumErrors";
    syncookies_sent = "TcpExt", "SyncookiesSent";
    syncookies_recv = "TcpExt", "SyncookiesRecv";
    syncookies_failed = "TcpExt", "SyncookiesFailed";
    embryonic_rsts = "TcpExt", "EmbryonicRsts";
    prune_called = "TcpExt", "PruneCalled";
    rcv_pruned = "TcpExt", "RcvPruned";
    ofo_pruned = "TcpExt", "OfoPruned";
    time_waited = "TcpExt", "TW";
    time_wait_recycled = "TcpExt", "TWRecycled";
    listen_overflows = "TcpExt", "ListenOverflows";
    listen_drops = "TcpExt", "ListenDrops";
    req_queue_full_do_cookies = "TcpExt", "TCPReqQFullDoCookies";
    req_queue_full_drop = "TcpExt", "TCPReqQFullDrop";
    fast_retrans = "TcpExt", "TCPFastRetrans";
    slow_start_retrans = "TcpExt", "TCPSlowStartRetrans";
    lost_retransmit = "TcpExt", "TCPLostRetransmit";
    timeouts = "TcpExt", "TCPTimeouts";
    spurious_rtos = "TcpExt", "TCPSpuriousRTOs";
    loss_probes = "TcpExt", "TCPLossProbes";
    loss_probe_recovery = "TcpExt", "TCPLossProbeRecovery";
    syn_retrans = "TcpExt", "TCPSynRetrans";
    retrans_fail = "TcpExt", "TCPRetransFail";
    backlog_drop = "TcpExt", "TCPBacklogDrop";
    pf_memalloc_drop = "TcpExt", "PFMemallocDrop";
    rcv_queue_drop = "TcpExt", "TCPRcvQDrop";
    zero_window_drop = "TcpExt", "TCPZeroWindowDrop";
    ofo_queue = "TcpExt", "TCPOFOQueue";
    ofo_drop = "TcpExt", "TCPOFODrop";
    rcv_collapsed = "TcpExt", "TCPRcvCollapsed";
    dsack_recv = "TcpExt", "TCPDSACKRecv";
    abort_on_data = "TcpExt", "TCPAbortOnData";
    abort_on_close = "TcpExt", "TCPAbortOnClose";
    abort_on_memory = "TcpExt", "TCPAbortOnMemory";
    abort_on_timeout = "TcpExt", "TCPAbortOnTimeout";
    abort_on_linger = "TcpExt", "TCPAbortOnLinger";
    abort_failed = "TcpExt", "TCPAbortFailed";
    memory_pressures = "TcpExt", "TCPMemoryPressures";
    time_wait_overflow = "TcpExt", "TCPTimeWaitOverflow";
    challenge_ack = "TcpExt", "TCPChallengeACK";
    syn_challenge = "TcpExt", "TCPSYNChallenge";
    write_queue_too_big = "TcpExt", "TCPWqueueTooBig";
}

#[cfg(test)]
mod tests;
