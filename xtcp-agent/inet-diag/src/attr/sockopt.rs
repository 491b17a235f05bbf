//! `INET_DIAG_SOCKOPT`, `struct inet_diag_sockopt`: two bytes of bit fields. Debian's 5.10 has it (5.10.262),
//! and every later one. Not in time-wait and request sockets' rows.

use super::Decode;
use crate::bytes::{Native, bit_field};

/// Options of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the kernel's bits, one by one")]
pub struct SockOpt {
    /// Both bytes as one number, the first one the lower.
    pub raw: u16,
    /// `IP_RECVERR`.
    pub recverr: bool,
    /// The kernel's `inet_connection_sock` flag: set for TCP.
    pub is_icsk: bool,
    /// `IP_FREEBIND`.
    pub freebind: bool,
    /// `IP_HDRINCL`.
    pub hdrincl: bool,
    /// `IP_MULTICAST_LOOP`.
    pub mc_loop: bool,
    /// `IP_TRANSPARENT`.
    pub transparent: bool,
    /// `IP_MULTICAST_ALL`.
    pub mc_all: bool,
    /// `IP_NODEFRAG`.
    pub nodefrag: bool,
    /// `IP_BIND_ADDRESS_NO_PORT`.
    pub bind_address_no_port: bool,
    /// `IP_RECVERR_RFC4884`.
    pub recverr_rfc4884: bool,
    /// `TCP_FASTOPEN_CONNECT`, and the connect is still put off.
    pub defer_connect: bool,
}

impl Decode<'_> for SockOpt {
    fn decode(payload: &[u8]) -> Option<Self> {
        let (first, second) = (u8::at(payload, 0)?, u8::at(payload, 1)?);
        let bit = |byte, index| bit_field(byte, index, 1) != 0;
        Some(Self {
            raw: u16::from_le_bytes([first, second]),
            recverr: bit(first, 0),
            is_icsk: bit(first, 1),
            freebind: bit(first, 2),
            hdrincl: bit(first, 3),
            mc_loop: bit(first, 4),
            transparent: bit(first, 5),
            mc_all: bit(first, 6),
            nodefrag: bit(first, 7),
            bind_address_no_port: bit(second, 0),
            recverr_rfc4884: bit(second, 1),
            defer_connect: bit(second, 2),
        })
    }
}
