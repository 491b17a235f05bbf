//! Netlink messages in one datagram.
//!
//! Owns `struct nlmsghdr`: alignment, the four control messages, truncation, and what many messages make of one
//! answer ([`Answer`]). Knows nothing of inet_diag but its two message types. A header that cannot be right ends
//! the datagram with a [`FramingError`], because nothing says where the next message would begin; nothing else
//! does.

use core::fmt;

use crate::bytes::{Native, align};

mod answer;
mod extended_ack;

pub use answer::{Answer, Ending, Step};
pub use extended_ack::ExtendedAck;

/// Bytes of a netlink message header (`struct nlmsghdr`).
pub const HEADER_LEN: usize = 16;

/// Message type of the old request `TCPDIAG_GETSOCK` and of its answers.
pub const TCPDIAG_GETSOCK: u16 = 18;
/// Message type of `SOCK_DIAG_BY_FAMILY` and of its answers. Since Linux 3.3.
pub const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// Bytes of the errno that begins `NLMSG_ERROR` and `NLMSG_DONE`.
const STATUS_LEN: usize = 4;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;

/// `NLM_F_REQUEST`: the message is a question.
pub const NLM_F_REQUEST: u16 = 0x01;
/// `NLM_F_MULTI`: part of an answer that ends with `NLMSG_DONE`.
pub const NLM_F_MULTI: u16 = 0x02;
/// `NLM_F_DUMP_INTR`: the table changed under the dump, which may miss or repeat entries.
pub const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_DUMP` (`NLM_F_ROOT | NLM_F_MATCH`): all that match, not one.
pub const NLM_F_DUMP: u16 = 0x300;
/// `NLM_F_CAPPED`, of an `NLMSG_ERROR`: of the request only its header is repeated. Since Linux 4.3.
pub const NLM_F_CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`, of `NLMSG_ERROR` and `NLMSG_DONE`: an [`ExtendedAck`] ends the message. Since Linux 4.12.
pub const NLM_F_ACK_TLVS: u16 = 0x200;

/// `struct nlmsghdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of header and payload, without the padding after them.
    pub len: u32,
    /// `nlmsg_type`.
    pub kind: u16,
    /// `NLM_F_*` bits.
    pub flags: u16,
    /// The sequence number of the request that this answers.
    pub seq: u32,
    /// Port id of the socket that asked; 0 in a request.
    pub pid: u32,
}

impl Header {
    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            len: u32::at(bytes, 0)?,
            kind: u16::at(bytes, 4)?,
            flags: u16::at(bytes, 6)?,
            seq: u32::at(bytes, 8)?,
            pid: u32::at(bytes, 12)?,
        })
    }
}

/// What a message is, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// `NLMSG_NOOP`: to be ignored.
    Noop,
    /// `NLMSG_OVERRUN`: the kernel lost data.
    Overrun,
    /// `NLMSG_DONE`: the dump is over.
    Done {
        /// 0, or the negative errno with which the dump ended. 0 too when the kernel sent no status.
        status: i32,
        /// What it says besides.
        extended: ExtendedAck<'a>,
    },
    /// `NLMSG_ERROR`: a request failed, or was acknowledged.
    Error {
        /// The errno as a positive number; 0 is an acknowledgement.
        errno: i32,
        /// The header of the request that this is about; `None` when it was cut off.
        request: Option<Header>,
        /// What it says besides.
        extended: ExtendedAck<'a>,
    },
    /// A control message too short to say what it is about: an `NLMSG_ERROR` without its errno, or an
    /// `NLMSG_DONE` with a part of its status. To be treated as a failed request whose errno is not known.
    Malformed,
    /// Everything else: the payload of an answer, for [`crate::message::decode`] when [`Message::is_socket`].
    Data {
        /// What follows the header, without padding.
        payload: &'a [u8],
    },
}

/// One message of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its header.
    pub header: Header,
    /// What it is.
    pub body: Body<'a>,
}

impl<'a> Message<'a> {
    fn new(header: Header, payload: &'a [u8]) -> Self {
        let body = match header.kind {
            NLMSG_NOOP => Body::Noop,
            NLMSG_ERROR => match i32::at(payload, 0) {
                Some(error) => Body::Error {
                    errno: error.saturating_neg(),
                    request: payload.get(STATUS_LEN..).and_then(Header::decode),
                    extended: ExtendedAck::of_error(header.flags, payload),
                },
                None => Body::Malformed,
            },
            NLMSG_DONE if payload.is_empty() => Body::Done { status: 0, extended: ExtendedAck::default() },
            NLMSG_DONE => match i32::at(payload, 0) {
                Some(status) => Body::Done { status, extended: ExtendedAck::of_done(header.flags, payload) },
                None => Body::Malformed,
            },
            NLMSG_OVERRUN => Body::Overrun,
            _ => Body::Data { payload },
        };
        Self { header, body }
    }

    /// `NLM_F_DUMP_INTR` is set: the dump is inconsistent and has to be repeated. The kernel may set it on any
    /// message of a dump, `NLMSG_DONE` included.
    pub const fn is_dump_interrupted(&self) -> bool {
        self.header.flags & NLM_F_DUMP_INTR != 0
    }

    /// `NLM_F_MULTI` is set: more follow, up to `NLMSG_DONE`.
    pub const fn is_multipart(&self) -> bool {
        self.header.flags & NLM_F_MULTI != 0
    }

    /// The payload is an inet_diag row. An answer has the type of its request: 18 or 20.
    pub const fn is_socket(&self) -> bool {
        matches!(self.header.kind, TCPDIAG_GETSOCK | SOCK_DIAG_BY_FAMILY)
    }
}

/// Why the rest of a datagram cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramingFault {
    /// Fewer bytes are left than a header has.
    HeaderTruncated,
    /// The header claims a length below its own.
    LengthTooSmall,
    /// The header claims more than is left: the datagram was larger than the buffer, or is damaged.
    MessageTruncated,
}

/// The rest of a datagram cannot be read, from `offset` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramingError {
    /// What is wrong.
    pub fault: FramingFault,
    /// Where the bad message begins, in bytes from the start of the datagram.
    pub offset: usize,
    /// Bytes that it should have had at least.
    pub wanted: usize,
    /// Bytes that are there, or (for [`FramingFault::LengthTooSmall`]) that the header claims.
    pub available: usize,
}

impl fmt::Display for FramingError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, offset, wanted, available } = self;
        let what = match fault {
            FramingFault::HeaderTruncated => "netlink message header cut off",
            FramingFault::LengthTooSmall => "netlink message length below its header's",
            FramingFault::MessageTruncated => "netlink message cut off",
        };
        write!(formatter, "{what} at byte {offset}: wanted {wanted} bytes, got {available}")
    }
}

impl core::error::Error for FramingError {}

/// The messages of one datagram, in order. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    datagram: &'a [u8],
    offset: usize,
    broken: bool,
}

impl<'a> Messages<'a> {
    /// Walks a datagram as `recv` returned it.
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self { datagram, offset: 0, broken: false }
    }

    fn step(&mut self, rest: &'a [u8]) -> Result<Message<'a>, FramingError> {
        let error = |fault, wanted, available| FramingError { fault, offset: self.offset, wanted, available };
        let Some(header) = Header::decode(rest) else {
            return Err(error(FramingFault::HeaderTruncated, HEADER_LEN, rest.len()));
        };
        // On a 16-bit machine a length may not fit; it is past the end in any case.
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        if len < HEADER_LEN {
            return Err(error(FramingFault::LengthTooSmall, HEADER_LEN, len));
        }
        let Some(payload) = rest.get(HEADER_LEN..len) else {
            return Err(error(FramingFault::MessageTruncated, len, rest.len()));
        };
        self.offset = self.offset.saturating_add(align(len));
        Ok(Message::new(header, payload))
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, FramingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken {
            return None;
        }
        // The last message need not be padded: an offset past the end is an end like any other.
        let rest = self.datagram.get(self.offset..).filter(|rest| !rest.is_empty())?;
        let item = self.step(rest);
        self.broken = item.is_err();
        Some(item)
    }
}

impl core::iter::FusedIterator for Messages<'_> {}

#[cfg(test)]
#[path = "framing/tests.rs"]
mod tests;
