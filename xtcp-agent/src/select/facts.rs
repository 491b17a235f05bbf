//! What of a row decides.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use prost::DecodeError;
use xtcp_inet_diag::bytecode::Subject;

use crate::fields::{Raw, walk};

/// What a row tells of its socket.
#[derive(Debug)]
pub(super) struct Facts {
    /// What a filter's program looks at.
    pub(super) subject: Subject,
    /// The kernel's number.
    pub(super) state: u32,
    /// The socket's cookie; 0 when the row has none.
    pub(super) cookie: u64,
    /// The namespace's inode.
    pub(super) netns: u64,
    /// Hash of state, queues and counters; 0 when it was not asked for.
    pub(super) counters: u64,
}

impl Facts {
    /// Reads a row; its counters too if they are wanted.
    pub(super) fn of(row: &[u8], counters: bool) -> Result<Self, DecodeError> {
        let mut hasher = FixedState::with_seed(0).build_hasher();
        let mut has_info = false;
        let mut facts = Self {
            subject: Subject {
                family: 0,
                source_port: 0,
                destination_port: 0,
                source: [0; 16],
                destination: [0; 16],
                interface: 0,
                mark: Some(0),
                cgroup_id: Some(0),
                autobound: None,
            },
            state: 0,
            cookie: 0,
            netns: 0,
            counters: 0,
        };
        let Self { subject, state, cookie, netns, .. } = &mut facts;
        walk(row, |field, raw| {
            if counters && counts(field) {
                hasher.write_u32(field);
                match raw {
                    Raw::Number(number) => hasher.write_u64(number),
                    Raw::Bytes(bytes) => hasher.write(bytes),
                }
            }
            match (field, raw) {
                (31, Raw::Number(number)) => *netns = number,
                (1001, Raw::Number(number)) => subject.family = u8::try_from(number).unwrap_or(0),
                (1002, Raw::Number(number)) => *state = narrow(number),
                (1005, Raw::Number(number)) => subject.source_port = port(number),
                (1006, Raw::Number(number)) => subject.destination_port = port(number),
                (1007, Raw::Bytes(bytes)) => subject.source = address(bytes),
                (1008, Raw::Bytes(bytes)) => subject.destination = address(bytes),
                (1009, Raw::Number(number)) => subject.interface = narrow(number),
                (1010, Raw::Number(number)) => *cookie = number,
                (1201, Raw::Number(number)) => has_info = number != 0,
                (2103, Raw::Number(number)) => subject.cgroup_id = Some(number),
                (3100, Raw::Number(number)) => subject.mark = Some(narrow(number)),
                _ => {}
            }
        })?;
        if counters {
            facts.counters = hasher.finish();
        }
        // As the kernel has it of request and time-wait sockets, which have no tcp_info.
        facts.subject.autobound = (!has_info).then_some(true);
        Ok(facts)
    }
}

/// Whether a field only moves when something happened to the socket: its state, its queues (a listener's is its backlog),
/// and what is counted of segments, bytes, losses and drops. Not among them are times, rates and estimates, which move by
/// themselves or with these.
pub(super) const fn counts(field: u32) -> bool {
    matches!(
        field,
        1002 | 1014
            | 1015
            | 1238
            | 1241..=1244
            | 1247
            | 1248
            | 1250..=1259
            | 1262..=1265
            | 1509
            | 1600
            | 3104
            | 3110..=3116
            | 3158..=3160
            | 3164..=3168
    )
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn port(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn address(bytes: &[u8]) -> [u8; 16] {
    bytes.first_chunk().copied().unwrap_or_default()
}
