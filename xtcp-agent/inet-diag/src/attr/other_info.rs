//! `INET_DIAG_INFO` of a protocol that is neither TCP nor MPTCP: `struct sctp_info` of SCTP (since Linux 4.7), a
//! partly filled `struct tcp_info` of DCCP (up to Linux 6.15). UDP and raw sockets have none.

use super::Decode;

/// Its bytes as the kernel sent them. What they mean depends on the protocol; they are never read as `tcp_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherInfo<'a>(pub &'a [u8]);

impl<'a> Decode<'a> for OtherInfo<'a> {
    fn decode(payload: &'a [u8]) -> Option<Self> {
        Some(Self(payload))
    }
}
