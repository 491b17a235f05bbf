//! What the eBPF programs told us, as types. Samples of the ring buffer become [`Event`]s here and nowhere else; what
//! an event means is not decided here.

use thiserror::Error;
use xtcp_common::event::kind;
pub use xtcp_common::event::{Header, NetnsEvent, Task, TcpClose, TcpNumbers, TcpState};

use crate::sys;

/// One sample of the kernel side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A network namespace was created, or one was entered by `unshare` that may be new (`hook::UNSHARE`).
    NetnsCreated(NetnsEvent),
    /// The last reference to a network namespace went.
    NetnsDestroyed(NetnsEvent),
    /// A task is in a network namespace after `setns`, of whatever it was.
    NetnsEntered(NetnsEvent),
    /// Some namespace died; inode and cookie are 0.
    NetnsSomeDestroyed(NetnsEvent),
    /// A socket changed state, not to CLOSE.
    TcpState(TcpState),
    /// A socket went to CLOSE.
    TcpClose(Box<TcpClose>),
}

/// What one drain of the ring buffer found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventBatch {
    /// In the order in which the kernel reserved them; at most [`EventBatch::CAPACITY`].
    pub events: Vec<Event>,
    /// Events lost since the previous batch, by [`kind`]. Index 0 is of unknown kind: the kernel skipped the program
    /// because it was running on that processor already, so at most so many events, filtered ones included.
    pub lost: [u64; kind::COUNT as usize],
    /// Samples of this drain that are no event of ours (unknown kind or wrong length).
    pub malformed: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds when the last of `events` was taken.
    pub drained_ktime_ns: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds: every event of an earlier time is in this batch or in one before it. 0 when this
    /// batch does not say, because more are to follow at once.
    pub told_until_ktime_ns: u64,
}

impl EventBatch {
    /// Most events of one batch.
    pub const CAPACITY: usize = 4096;

    /// True when there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.malformed == 0 && self.lost.iter().all(|lost| *lost == 0)
    }
}

/// Why a sample is no [`Event`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The kind is none of [`kind`]: the object and the agent are of different builds.
    #[error("event sample of unknown kind {0}")]
    UnknownKind(u32),
    /// The length is not the kind's.
    #[error("event sample of kind {kind} has {actual} bytes instead of {wanted}")]
    Length {
        /// [`Header::kind`], 0 when not even that is there.
        kind: u32,
        /// Length of the sample, bytes.
        actual: usize,
        /// Length of that kind's struct, bytes.
        wanted: usize,
    },
}

impl Event {
    /// Decodes one sample of the ring buffer.
    ///
    /// # Errors
    ///
    /// When its kind is unknown or its length is not the kind's.
    pub fn decode(sample: &[u8]) -> Result<Self, DecodeError> {
        let Some(kind) = sample.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes)) else {
            return Err(DecodeError::Length { kind: 0, actual: sample.len(), wanted: size_of::<Header>() });
        };
        Ok(match kind {
            kind::NETNS_CREATED => Self::NetnsCreated(plain(kind, sample)?),
            kind::NETNS_DESTROYED => Self::NetnsDestroyed(plain(kind, sample)?),
            kind::NETNS_SOME_DESTROYED => Self::NetnsSomeDestroyed(plain(kind, sample)?),
            kind::NETNS_ENTERED => Self::NetnsEntered(plain(kind, sample)?),
            kind::TCP_STATE => Self::TcpState(plain(kind, sample)?),
            kind::TCP_CLOSE => Self::TcpClose(Box::new(plain(kind, sample)?)),
            unknown => return Err(DecodeError::UnknownKind(unknown)),
        })
    }

    /// What every sample starts with.
    pub fn header(&self) -> &Header {
        match self {
            Self::NetnsCreated(event)
            | Self::NetnsDestroyed(event)
            | Self::NetnsSomeDestroyed(event)
            | Self::NetnsEntered(event) => &event.header,
            Self::TcpState(event) => &event.header,
            Self::TcpClose(event) => &event.state.header,
        }
    }
}

fn plain<T: sys::Plain>(kind: u32, sample: &[u8]) -> Result<T, DecodeError> {
    sys::read_plain(sample).ok_or(DecodeError::Length { kind, actual: sample.len(), wanted: size_of::<T>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field differs, so that two that were swapped would show.
    fn state() -> TcpState {
        TcpState {
            header: Header { kind: kind::TCP_STATE, cpu: 3, ktime_ns: 0x0102_0304_0506_0708 },
            sk: 0xffff_8880_0000_1000,
            cookie: 11,
            netns_cookie: 12,
            cgroup_id: 13,
            netns_inode: 0xf000_0001,
            bound_if: 14,
            sk_err: 111,
            flags: 9,
            family: 10,
            protocol: 6,
            source_port: 20_001,
            destination_port: 20_002,
            old_state: 2,
            new_state: 1,
            shutdown: 3,
            pad: 0,
            uid: 1000,
            source: [1; 16],
            destination: [2; 16],
            task: Task { tgid: 15, tid: 16, flags: 1, exit_code: 9, comm: *b"sixteen bytes ok" },
        }
    }

    /// The bytes as the kernel lays them out: `repr(C)`, little-endian on the hosts that the tests run on.
    fn bytes_of(state: &TcpState) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [state.header.kind, state.header.cpu] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in [state.header.ktime_ns, state.sk, state.cookie, state.netns_cookie, state.cgroup_id] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in [state.netns_inode, state.bound_if, state.sk_err, state.flags] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in [state.family, state.protocol, state.source_port, state.destination_port] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend([state.old_state, state.new_state, state.shutdown, state.pad]);
        bytes.extend(state.uid.to_ne_bytes());
        bytes.extend(state.source);
        bytes.extend(state.destination);
        for word in [state.task.tgid, state.task.tid, state.task.flags, state.task.exit_code] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(state.task.comm);
        bytes
    }

    fn of_kind(kind: u32, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[..4].copy_from_slice(&kind.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_state_change_decodes_field_by_field() {
        assert_eq!(Event::decode(&bytes_of(&state())), Ok(Event::TcpState(state())));
    }

    #[test]
    fn a_sample_need_not_be_aligned() {
        let mut shifted = vec![0xff];
        shifted.extend(bytes_of(&state()));
        assert_eq!(Event::decode(&shifted[1..]), Ok(Event::TcpState(state())));
    }

    #[test]
    fn every_kind_decodes_at_its_own_length_and_at_no_other() {
        let lengths = [
            (kind::NETNS_CREATED, size_of::<NetnsEvent>()),
            (kind::NETNS_DESTROYED, size_of::<NetnsEvent>()),
            (kind::NETNS_SOME_DESTROYED, size_of::<NetnsEvent>()),
            (kind::NETNS_ENTERED, size_of::<NetnsEvent>()),
            (kind::TCP_STATE, size_of::<TcpState>()),
            (kind::TCP_CLOSE, size_of::<TcpClose>()),
        ];
        assert_eq!(lengths.len() + 1, kind::COUNT as usize, "a kind is missing from this test");
        for (kind, wanted) in lengths {
            let event = Event::decode(&of_kind(kind, wanted)).expect("right length");
            assert_eq!(event.header().kind, kind);
            for actual in [4, wanted - 1, wanted + 1] {
                let error = DecodeError::Length { kind, actual, wanted };
                assert_eq!(Event::decode(&of_kind(kind, actual)), Err(error));
            }
        }
    }

    #[test]
    fn an_unknown_kind_is_named() {
        for kind in [0, kind::COUNT, u32::MAX] {
            assert_eq!(Event::decode(&of_kind(kind, 64)), Err(DecodeError::UnknownKind(kind)));
        }
    }

    #[test]
    fn a_sample_too_short_for_its_kind_is_an_error() {
        for length in 0..4 {
            let error = DecodeError::Length { kind: 0, actual: length, wanted: 16 };
            assert_eq!(Event::decode(&vec![0; length]), Err(error));
        }
    }
}
