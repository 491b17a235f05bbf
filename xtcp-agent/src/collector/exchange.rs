//! One netlink conversation: requests out, datagrams in, every control message looked at.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use netlink_sys::Socket;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use thiserror::Error;
use xtcp_inet_diag::framing::{Answer, Ending, FramingError, Messages, Step};
use xtcp_inet_diag::request::{self, BufferFull, Dump, DumpBoth, Extensions, Extras, Protocol, Requests};
use xtcp_inet_diag::socket_id::{Family, NO_COOKIE, SocketId};
use xtcp_inet_diag::state::States;

use super::CollectorMetrics;
use crate::scheduler::Lookup;

/// The kernel fills at most 32 KiB for each `recv` of a dump (`netlink_dump`): more is never used.
const BUFFER_BYTES: usize = 32 * 1024;
/// A row with BPF storages can be longer: their attribute has up to 64 KiB, and the kernel grows the datagram for it.
const STORAGES_BUFFER_BYTES: usize = 128 * 1024;

/// Why a request was not answered in full.
#[derive(Debug, Error)]
pub(super) enum Fault {
    /// The namespace's tables changed under the dump (`NLM_F_DUMP_INTR`).
    #[error("dump interrupted by changes")]
    Interrupted,
    /// The kernel had no room for its answers (`ENOBUFS`, `NLMSG_OVERRUN`).
    #[error("answers lost for want of socket buffer")]
    Overrun,
    /// A datagram did not fit the buffer.
    #[error("datagram of {0} bytes truncated: the buffer is smaller")]
    Truncated(usize),
    /// No answer in time.
    #[error("no answer from the kernel in time")]
    Timeout,
    /// The kernel answered with an error, or ended the dump with one.
    #[error("kernel answered {0}")]
    Refused(Errno),
    /// A datagram is not netlink.
    #[error("malformed netlink: {0}")]
    Framing(FramingError),
    /// A control message that says nothing, or that such an answer does not have.
    #[error("malformed netlink: a control message that makes no sense")]
    Control,
    /// A system call failed.
    #[error("{call}: {source}")]
    Call {
        /// Which.
        call: &'static str,
        /// Its errno.
        source: io::Error,
    },
}

impl Fault {
    /// Whether asking again may help.
    pub(super) fn is_worth_repeating(&self) -> bool {
        match self {
            Self::Interrupted | Self::Overrun | Self::Truncated(_) | Self::Framing(_) | Self::Control => true,
            Self::Timeout | Self::Refused(_) | Self::Call { .. } => false,
        }
    }

    /// Why this answer is not all; `None` when it is.
    fn of(ending: Ending) -> Option<Self> {
        match ending {
            Ending::Complete => None,
            Ending::Interrupted => Some(Self::Interrupted),
            Ending::Overrun => Some(Self::Overrun),
            Ending::Refused { errno } => Some(Self::Refused(Errno::from_raw(errno))),
            Ending::Damaged | Ending::Malformed => Some(Self::Control),
        }
    }

    /// Every [`name`](Self::name).
    pub(super) const NAMES: [&str; 7] =
        ["interrupted", "overrun", "truncated", "timeout", "refused", "framing", "call"];

    /// A short name for metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::Overrun => "overrun",
            Self::Truncated(_) => "truncated",
            Self::Timeout => "timeout",
            Self::Refused(_) => "refused",
            Self::Framing(_) | Self::Control => "framing",
            Self::Call { .. } => "call",
        }
    }
}

/// The socket's descriptor number, for the record.
pub(super) fn descriptor(socket: &Socket) -> u64 {
    u64::try_from(socket.as_raw_fd()).unwrap_or(0)
}

/// What a conversation needs of a socket; tests speak in the kernel's place.
pub(super) trait Link {
    /// Sends one datagram.
    fn send(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Receives one datagram with MSG_TRUNC: its real length, whatever fits of it in the buffer.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Link for Socket {
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Socket::send(self, bytes, 0)
    }

    fn receive(&self, mut buffer: &mut [u8]) -> io::Result<usize> {
        self.recv(&mut buffer, libc::MSG_TRUNC)
    }
}

/// What a dump asks for.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) protocol: Protocol,
    pub(super) states: States,
    pub(super) extensions: Extensions,
    pub(super) extras: Extras<'a>,
}

/// Buffers and the sequence numbers of one worker.
pub(super) struct Exchange {
    buffer: Vec<u8>,
    requests: Vec<u8>,
    sequence: u32,
    /// The kernel takes one request for both families.
    both_families: bool,
    /// The kernel does not tell this process what BPF programs keep with sockets.
    no_storages: bool,
}

impl Exchange {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES],
            requests: Vec::new(),
            sequence: 0,
            both_families: true,
            no_storages: false,
        }
    }

    /// Bounds the waits on a new socket.
    pub(super) fn prepare(socket: &Socket, timeout: Duration) -> Result<(), Fault> {
        let micros = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX);
        setsockopt(socket, ReceiveTimeout, &TimeVal::microseconds(micros))
            .map_err(|errno| Fault::Call { call: "setsockopt(SO_RCVTIMEO)", source: errno.into() })
    }

    /// Dumps both families: in one request, or in two where the kernel, or the protocol, does not know the old one.
    pub(super) fn dump(
        &mut self,
        socket: &impl Link,
        question: Question<'_>,
        metrics: &CollectorMetrics,
        rows: &mut dyn FnMut(&[&[u8]]),
    ) -> Result<(), Fault> {
        let without = Question { extras: Extras { bpf_storages: false, ..question.extras }, ..question };
        if !question.extras.bpf_storages || self.no_storages {
            return self.dump_families(socket, without, metrics, rows);
        }
        // What a socket's storages hold comes in one message, whatever its length.
        self.buffer.resize(STORAGES_BUFFER_BYTES, 0);
        match self.dump_families(socket, question, metrics, rows) {
            Err(Fault::Refused(Errno::EPERM)) => {
                tracing::warn!(
                    "the kernel tells what BPF programs keep with sockets only to CAP_BPF: asking without"
                );
                self.no_storages = true;
                self.dump_families(socket, without, metrics, rows)
            }
            other => other,
        }
    }

    fn dump_families(
        &mut self,
        socket: &impl Link,
        question: Question<'_>,
        metrics: &CollectorMetrics,
        rows: &mut dyn FnMut(&[&[u8]]),
    ) -> Result<(), Fault> {
        let Question { protocol, states, extensions, extras } = question;
        if self.both_families && protocol == Protocol::TCP {
            let sequence = self.next_sequence();
            send(socket, &DumpBoth { states, extensions }.to_bytes_with(sequence, &extras))?;
            match self.read_dump(socket, sequence, metrics, rows) {
                // EINVAL can also mean the filter.
                Err(Fault::Refused(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP))
                    if extras.filter.is_empty() =>
                {
                    tracing::info!("this kernel dumps no two families at once: asking for each");
                    self.both_families = false;
                }
                other => return other,
            }
        }
        for family in [Family::Inet, Family::Inet6] {
            let sequence = self.next_sequence();
            let request = Dump { family, protocol, states, extensions };
            send(socket, &request.to_bytes_with(sequence, &extras))?;
            self.read_dump(socket, sequence, metrics, rows)?;
        }
        Ok(())
    }

    /// Asks for each socket of a batch in one `send`, and reads as many answers.
    pub(super) fn look_up(
        &mut self,
        socket: &impl Link,
        batch: &[Lookup],
        extensions: Extensions,
        metrics: &CollectorMetrics,
        row: &mut dyn FnMut(&Lookup, &[u8]),
    ) -> Result<(), Fault> {
        let first = self.sequence.wrapping_add(1);
        let room = batch.len().saturating_mul(request::LOOKUP_MAX);
        self.requests.resize(room.max(self.requests.len()), 0);
        let mut requests = Requests::new(&mut self.requests);
        for lookup in batch {
            self.sequence = self.sequence.wrapping_add(1);
            let Some(family) = Family::from_raw(lookup.family) else { continue };
            let request = request::Lookup { family, protocol: Protocol::TCP, id: id_of(lookup), extensions };
            requests.push(&request.to_bytes(self.sequence)).map_err(no_room)?;
        }
        send(socket, requests.as_bytes())?;
        let mut missing = requests.count();
        while missing > 0 {
            let length = receive(socket, &mut self.buffer)?;
            for message in Messages::new(self.buffer.get(..length).unwrap_or_default()) {
                let message = message.map_err(Fault::Framing)?;
                let place = usize::try_from(message.header.seq.wrapping_sub(first));
                let Some(lookup) = place.ok().and_then(|place| batch.get(place)) else {
                    metrics.foreign_message();
                    continue;
                };
                let mut answer = Answer::to_lookup();
                match answer.take(&message) {
                    Step::Row(payload) => row(lookup, payload),
                    Step::Control => {}
                    Step::Foreign => metrics.foreign_message(),
                }
                let Some(ending) = answer.ending() else { continue };
                match Fault::of(ending) {
                    Some(Fault::Refused(Errno::ENOENT | Errno::ESTALE)) => metrics.looked_up("gone"),
                    Some(fault) => return Err(fault),
                    None => {}
                }
                missing -= 1;
                if missing == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    fn read_dump(
        &mut self,
        socket: &impl Link,
        sequence: u32,
        metrics: &CollectorMetrics,
        rows: &mut dyn FnMut(&[&[u8]]),
    ) -> Result<(), Fault> {
        let mut answer = Answer::to_dump();
        loop {
            let length = receive(socket, &mut self.buffer)?;
            let mut payloads = Vec::new();
            let datagram = self.buffer.get(..length).unwrap_or_default();
            let ended = take(datagram, sequence, &mut answer, metrics, &mut payloads);
            rows(&payloads);
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// Takes a datagram of a dump apart; how the dump ended, if it did.
fn take<'a>(
    datagram: &'a [u8],
    sequence: u32,
    answer: &mut Answer,
    metrics: &CollectorMetrics,
    payloads: &mut Vec<&'a [u8]>,
) -> Option<Result<(), Fault>> {
    for message in Messages::new(datagram) {
        let message = match message {
            Ok(message) => message,
            Err(error) => return Some(Err(Fault::Framing(error))),
        };
        if message.header.seq != sequence {
            metrics.foreign_message();
            continue;
        }
        match answer.take(&message) {
            Step::Row(payload) => payloads.push(payload),
            Step::Control => {}
            Step::Foreign => metrics.foreign_message(),
        }
        if let Some(ending) = answer.ending() {
            return Some(Fault::of(ending).map_or(Ok(()), Err));
        }
    }
    None
}

fn id_of(lookup: &Lookup) -> SocketId {
    SocketId {
        source_port: lookup.source_port,
        destination_port: lookup.destination_port,
        source: lookup.source,
        destination: lookup.destination,
        interface: lookup.interface,
        cookie: if lookup.cookie == 0 { NO_COOKIE } else { lookup.cookie },
    }
}

fn send(socket: &impl Link, bytes: &[u8]) -> Result<(), Fault> {
    match socket.send(bytes) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(_) => Err(Fault::Call { call: "send", source: io::ErrorKind::WriteZero.into() }),
        Err(source) => Err(Fault::Call { call: "send", source }),
    }
}

/// The buffer is made for the batch, so this is never seen.
fn no_room(full: BufferFull) -> Fault {
    Fault::Call { call: "send", source: io::Error::other(full) }
}

/// One datagram; its length.
fn receive(socket: &impl Link, buffer: &mut [u8]) -> Result<usize, Fault> {
    let size = buffer.len();
    loop {
        match socket.receive(buffer) {
            Ok(length) if length > size => return Err(Fault::Truncated(length)),
            Ok(length) => return Ok(length),
            Err(source) => match source.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EINTR) => {}
                Some(Errno::EAGAIN) => return Err(Fault::Timeout),
                Some(Errno::ENOBUFS) => return Err(Fault::Overrun),
                _ => return Err(Fault::Call { call: "recv", source }),
            },
        }
    }
}

#[cfg(test)]
mod tests;
