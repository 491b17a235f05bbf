//! Requests: what the kernel is asked, byte for byte.
//!
//! Three questions: every TCP socket of both families in one pass ([`DumpBoth`]), every socket of one family
//! and protocol ([`Dump`]), and one socket ([`Lookup`]). Each becomes a fixed array; [`Requests`] collects
//! several in the caller's buffer for one `send`. The kernel answers the messages of one `send` in order,
//! each in a datagram of its own; a netlink socket carries one dump at a time, so only lookups are batched.

use core::fmt;

use crate::framing::{NLM_F_DUMP, NLM_F_REQUEST, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK};
use crate::message::Header;
use crate::socket_id::{Family, SocketId, fill};
use crate::state::States;

mod extensions;

pub use extensions::Extensions;

/// A protocol number as `sdiag_protocol` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// `IPPROTO_TCP`. MPTCP's subflows are among them.
    pub const TCP: Self = Self(6);
    /// `IPPROTO_UDP`.
    pub const UDP: Self = Self(17);
}

/// Bytes of a request for both families.
pub const DUMP_BOTH_LEN: usize = 76;
/// Bytes of a dump request for one family.
pub const DUMP_LEN: usize = 72;
/// Bytes of a lookup.
pub const LOOKUP_LEN: usize = 72;

/// All TCP sockets of both families in one walk of the kernel's tables: the old `TCPDIAG_GETSOCK`.
///
/// Since Linux 3.3 `inet_diag_dump_compat` turns it into a request without a family, which
/// `SOCK_DIAG_BY_FAMILY` refuses with `ENOENT`. The answers' message type is 18.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpBoth {
    /// Which sockets.
    pub states: States,
    /// Which attributes.
    pub extensions: Extensions,
}

impl DumpBoth {
    /// The request's bytes.
    pub fn to_bytes(self, seq: u32) -> [u8; DUMP_BOTH_LEN] {
        let Self { states, extensions } = self;
        // struct inet_diag_req: family, two prefix lengths that nothing reads, the extensions, the id,
        // the states, and a table number that nothing reads either.
        let body = [Family::Inet.raw(), 0, 0, extensions.bits()]
            .into_iter()
            .chain(SocketId::default().encode())
            .chain(states.bits().to_ne_bytes())
            .chain([0; 4]);
        message(TCPDIAG_GETSOCK, NLM_F_REQUEST | NLM_F_DUMP, seq, body)
    }
}

/// All sockets of one family and protocol: `SOCK_DIAG_BY_FAMILY`, `struct inet_diag_req_v2`. Since Linux 3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dump {
    /// The address family.
    pub family: Family,
    /// The protocol.
    pub protocol: Protocol,
    /// Which sockets.
    pub states: States,
    /// Which attributes.
    pub extensions: Extensions,
}

impl Dump {
    /// The request's bytes.
    pub fn to_bytes(self, seq: u32) -> [u8; DUMP_LEN] {
        let Self { family, protocol, states, extensions } = self;
        let body = request_v2(family, protocol, extensions, states, &SocketId::default());
        message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, seq, body)
    }
}

/// One socket by its addresses, ports, interface and cookie.
///
/// The answer is one message without `NLM_F_MULTI` and without `NLMSG_DONE`, or an `NLMSG_ERROR`: `ENOENT`
/// (2) when no such socket exists or the one found has another cookie. Without a cookie the answer for a
/// connection that is gone is its **listener's** row: send the cookie, and compare the answer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup {
    /// The socket's family. An IPv6 request with v4-mapped addresses finds the sockets of both.
    pub family: Family,
    /// The protocol.
    pub protocol: Protocol,
    /// The socket; [`crate::socket_id::NO_COOKIE`] matches any cookie, 0 none.
    pub id: SocketId,
    /// Which attributes.
    pub extensions: Extensions,
}

impl Lookup {
    /// The lookup that finds again the TCP socket of a row; `None` when the row's family is not known.
    pub const fn of(row: &Header, extensions: Extensions) -> Option<Self> {
        match row.family() {
            Some(family) => Some(Self { family, protocol: Protocol::TCP, id: row.id, extensions }),
            None => None,
        }
    }

    /// The request's bytes.
    pub fn to_bytes(self, seq: u32) -> [u8; LOOKUP_LEN] {
        let Self { family, protocol, id, extensions } = self;
        // A lookup ignores the states.
        let body = request_v2(family, protocol, extensions, States::ALL, &id);
        message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, seq, body)
    }
}

/// `struct inet_diag_req_v2`.
fn request_v2(
    family: Family,
    protocol: Protocol,
    extensions: Extensions,
    states: States,
    id: &SocketId,
) -> impl Iterator<Item = u8> + use<> {
    [family.raw(), protocol.0, extensions.bits(), 0]
        .into_iter()
        .chain(states.bits().to_ne_bytes())
        .chain(id.encode())
}

/// A message of `N` bytes with its header.
fn message<const N: usize>(kind: u16, flags: u16, seq: u32, body: impl Iterator<Item = u8>) -> [u8; N] {
    let mut bytes = [0; N];
    // N is at most 76.
    let len = u32::try_from(N).unwrap_or(u32::MAX);
    let header = (len.to_ne_bytes().into_iter())
        .chain(kind.to_ne_bytes())
        .chain(flags.to_ne_bytes())
        .chain(seq.to_ne_bytes())
        // The port id of whom it is for: the kernel's is 0.
        .chain([0; 4]);
    fill(&mut bytes, header.chain(body));
    bytes
}

/// The buffer has no room for one more request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferFull {
    /// Bytes that the request has.
    pub wanted: usize,
    /// Bytes that are left.
    pub available: usize,
}

impl fmt::Display for BufferFull {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, available } = self;
        write!(formatter, "request buffer full: wanted {wanted} bytes, {available} are left")
    }
}

impl core::error::Error for BufferFull {}

/// Requests one after another in the caller's buffer, for one `send`.
#[derive(Debug)]
pub struct Requests<'b> {
    buffer: &'b mut [u8],
    len: usize,
    count: usize,
}

impl<'b> Requests<'b> {
    /// Begins with nothing; the buffer's contents are of no interest.
    pub const fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0, count: 0 }
    }

    /// Appends the bytes of one request, of any of the `to_bytes` above; all of them, or none and an error.
    pub fn push(&mut self, request: &[u8]) -> Result<(), BufferFull> {
        let free = self.buffer.get_mut(self.len..).unwrap_or_default();
        let available = free.len();
        let Some(target) = free.get_mut(..request.len()) else {
            return Err(BufferFull { wanted: request.len(), available });
        };
        target.copy_from_slice(request);
        self.len = self.len.saturating_add(request.len());
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// What is to be sent.
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// How many requests there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// There is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Begins anew.
    pub const fn clear(&mut self) {
        self.len = 0;
        self.count = 0;
    }
}

#[cfg(test)]
#[path = "request/tests.rs"]
mod tests;
