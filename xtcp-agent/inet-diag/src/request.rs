//! Requests: what the kernel is asked, byte for byte.
//!
//! Three questions: every TCP socket of both families in one pass ([`DumpBoth`]), every socket of one family
//! and protocol ([`Dump`]), and one socket ([`Lookup`]). Dumps may carry a filter, see [`Extras`]. [`Requests`]
//! collects several in the caller's buffer for one `send`. The kernel answers the messages of one `send` in
//! order, each in a datagram of its own; a netlink socket carries one dump at a time, so only lookups are batched.

use core::fmt;
use core::ops::Deref;

use crate::bytecode::{PROGRAM_MAX, Program};
use crate::framing::{NLM_F_DUMP, NLM_F_REQUEST, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK};
use crate::message::Header;
use crate::socket_id::{Family, SocketId, fill};
use crate::state::States;

mod extensions;

pub use extensions::Extensions;

/// A protocol's number, `IPPROTO_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u16);

impl Protocol {
    /// `IPPROTO_TCP`. MPTCP's subflows are among them.
    pub const TCP: Self = Self(6);
    /// `IPPROTO_UDP`.
    pub const UDP: Self = Self(17);
    /// `IPPROTO_DCCP`. Left the kernel with Linux 6.16.
    pub const DCCP: Self = Self(33);
    /// `IPPROTO_SCTP`.
    pub const SCTP: Self = Self(132);
    /// `IPPROTO_MPTCP`, 262: the sockets that programs hold; their subflows are TCP. Since Linux 5.9, where the kernel
    /// has `CONFIG_INET_MPTCP_DIAG`, else it answers `ENOENT`; listeners are among them since 5.19. Their
    /// `INET_DIAG_INFO` is an `mptcp_info`. A lookup finds one by its token alone, which it takes for the lower half
    /// of the cookie.
    pub const MPTCP: Self = Self(262);

    /// The number where a request has 8 bits for it; 0, which no dump knows, where only the attribute can hold it.
    fn byte(self) -> u8 {
        u8::try_from(self.0).unwrap_or(0)
    }

    /// The number that needs the attribute `INET_DIAG_REQ_PROTOCOL` (5.9+).
    fn wide(self) -> Option<u32> {
        u8::try_from(self.0).is_err().then_some(u32::from(self.0))
    }
}

/// Bytes of a request for both families, without attributes.
pub const DUMP_BOTH_LEN: usize = 76;
/// Bytes of a dump request for one family, without attributes.
pub const DUMP_LEN: usize = 72;
/// Most bytes of a dump request.
pub const DUMP_MAX: usize = DUMP_BOTH_LEN + PROTOCOL_LEN + ATTRIBUTE_LEN + ATTRIBUTE_LEN + PROGRAM_MAX;
/// Most bytes of a lookup.
pub const LOOKUP_MAX: usize = DUMP_LEN + PROTOCOL_LEN;

/// Bytes of an attribute's header (`struct nlattr`).
const ATTRIBUTE_LEN: usize = 4;
/// Bytes of the attribute that holds a protocol.
const PROTOCOL_LEN: usize = ATTRIBUTE_LEN + 4;

/// Attributes of requests (`include/uapi/linux/inet_diag.h`).
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const INET_DIAG_REQ_PROTOCOL: u16 = 3;

/// What a dump may ask for beside its fixed part. A lookup has no use for any of it: the kernel ignores its filter.
#[derive(Debug, Clone, Copy)]
pub struct Extras<'f> {
    /// Only sockets that pass; [`Program::EVERYTHING`] for all.
    pub filter: &'f Program,
    /// With what BPF programs keep with each socket, in every map (`SK_BPF_STORAGES`). Since Linux 5.7, and to
    /// `CAP_BPF` (before 5.8 `CAP_SYS_ADMIN`) only, else `EPERM`.
    pub bpf_storages: bool,
}

impl Extras<'static> {
    /// Nothing more.
    pub const NONE: Self = Self { filter: &Program::EVERYTHING, bpf_storages: false };
}

/// A request's bytes, at most `N`.
#[derive(Clone, Copy)]
pub struct Encoded<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Deref for Encoded<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Debug for Encoded<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(formatter)
    }
}

impl<const N: usize> Encoded<N> {
    /// A message's header and fixed part.
    fn new(kind: u16, flags: u16, seq: u32, body: impl Iterator<Item = u8>) -> Self {
        let header = ([0; 4].into_iter())
            .chain(kind.to_ne_bytes())
            .chain(flags.to_ne_bytes())
            .chain(seq.to_ne_bytes())
            // The port id of whom it is for: the kernel's is 0.
            .chain([0; 4]);
        let mut encoded = Self { bytes: [0; N], len: 0 };
        encoded.append(header.chain(body));
        encoded
    }

    /// Adds bytes, whose number is a multiple of 4, and counts them in the header. `N` has room for all there may be.
    fn append(&mut self, more: impl IntoIterator<Item = u8>) {
        for byte in more {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
                self.len = self.len.saturating_add(1);
            }
        }
        let len = u32::try_from(self.len).unwrap_or(u32::MAX);
        fill(&mut self.bytes, len.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, payload: &[u8]) {
        let len = u16::try_from(payload.len().saturating_add(ATTRIBUTE_LEN)).unwrap_or(u16::MAX);
        let header = len.to_ne_bytes().into_iter().chain(kind.to_ne_bytes());
        self.append(header.chain(payload.iter().copied()));
    }

    fn protocol(mut self, protocol: Protocol) -> Self {
        if let Some(number) = protocol.wide() {
            self.attribute(INET_DIAG_REQ_PROTOCOL, &number.to_ne_bytes());
        }
        self
    }

    fn extras(mut self, extras: &Extras<'_>) -> Self {
        let Extras { filter, bpf_storages } = extras;
        if *bpf_storages {
            self.attribute(INET_DIAG_REQ_SK_BPF_STORAGES, &[]);
        }
        if !filter.is_empty() {
            self.attribute(INET_DIAG_REQ_BYTECODE, filter.as_bytes());
        }
        self
    }
}

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
    pub fn to_bytes(self, seq: u32) -> Encoded<DUMP_MAX> {
        self.to_bytes_with(seq, &Extras::NONE)
    }

    /// The request's bytes with more. That the old request takes attributes was tried on Linux 6.18.
    pub fn to_bytes_with(self, seq: u32, extras: &Extras<'_>) -> Encoded<DUMP_MAX> {
        let Self { states, extensions } = self;
        // struct inet_diag_req: family, two prefix lengths that nothing reads, the extensions, the id,
        // the states, and a table number that nothing reads either.
        let body = [Family::Inet.raw(), 0, 0, extensions.bits()]
            .into_iter()
            .chain(SocketId::default().encode())
            .chain(states.bits().to_ne_bytes())
            .chain([0; 4]);
        Encoded::new(TCPDIAG_GETSOCK, NLM_F_REQUEST | NLM_F_DUMP, seq, body).extras(extras)
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
    pub fn to_bytes(self, seq: u32) -> Encoded<DUMP_MAX> {
        self.to_bytes_with(seq, &Extras::NONE)
    }

    /// The request's bytes with more.
    pub fn to_bytes_with(self, seq: u32, extras: &Extras<'_>) -> Encoded<DUMP_MAX> {
        let Self { family, protocol, states, extensions } = self;
        let body = request_v2(family, protocol, extensions, states, &SocketId::default());
        let request = Encoded::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, seq, body);
        request.protocol(protocol).extras(extras)
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
    pub fn to_bytes(self, seq: u32) -> Encoded<LOOKUP_MAX> {
        let Self { family, protocol, id, extensions } = self;
        // A lookup ignores the states.
        let body = request_v2(family, protocol, extensions, States::ALL, &id);
        Encoded::new(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, seq, body).protocol(protocol)
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
    [family.raw(), protocol.byte(), extensions.bits(), 0]
        .into_iter()
        .chain(states.bits().to_ne_bytes())
        .chain(id.encode())
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
