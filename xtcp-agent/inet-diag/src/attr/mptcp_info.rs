//! `INET_DIAG_INFO` of an MPTCP connection, `struct mptcp_info` (`include/uapi/linux/mptcp.h`, filled by
//! `mptcp_diag_fill_info()`). Since Linux 5.9.
//!
//! It grew at its end, and into padding: 40 bytes in 5.9, 48 in 5.12, 80 in 6.5, 88 in 6.8, 96 in 6.10. A field that ends past the payload is `None`; one in what was
//! padding reads 0 on an older kernel. Of a listener all but the first three and `local_addr_used` are 0.

use super::Decode;
use crate::bytes::Native;

/// Bits of [`MptcpInfo::flags`].
pub mod flags {
    /// The connection fell back to plain TCP.
    pub const FALLBACK: u32 = 1;
    /// The peer's key is known: data can be acknowledged.
    pub const REMOTE_KEY_RECEIVED: u32 = 2;
}

macro_rules! mptcp_info {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $offset:literal;)*) => {
        /// An MPTCP connection over all its subflows; each `None` where the kernel is too old for it.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct MptcpInfo<'a> {
            $($(#[$doc])* pub $field: Option<$type>,)*
            /// What a later kernel appended; empty up to Linux 7.3.
            pub tail: &'a [u8],
        }

        impl<'a> Decode<'a> for MptcpInfo<'a> {
            fn decode(payload: &'a [u8]) -> Option<Self> {
                Some(Self {
                    $($field: <$type>::at(payload, $offset),)*
                    tail: payload.get(LEN..).unwrap_or_default(),
                })
            }
        }
    };
}

mptcp_info! {
    /// Subflows beside the first (`mptcpi_extra_subflows` since Linux 6.18).
    subflows: u8 = 0;
    /// Addresses announced to the peer.
    add_addr_signal: u8 = 1;
    /// Addresses accepted from the peer.
    add_addr_accepted: u8 = 2;
    /// Limit of `subflows`; 0 with a path manager in user space, as the other limits.
    subflows_max: u8 = 3;
    /// Endpoints to be announced.
    add_addr_signal_max: u8 = 4;
    /// Limit of `add_addr_accepted`.
    add_addr_accepted_max: u8 = 5;
    /// Bits in [`flags`].
    flags: u32 = 8;
    /// Token of this end, which its subflows name too (`token_loc`).
    token: u32 = 12;
    /// Data sequence number of the next byte written.
    write_seq: u64 = 16;
    /// Data sequence number of the first byte that is not acknowledged.
    snd_una: u64 = 24;
    /// Data sequence number that is expected next.
    rcv_nxt: u64 = 32;
    /// Local addresses in use beside the first. Since Linux 5.12.
    local_addr_used: u8 = 40;
    /// Endpoints for subflows. Since Linux 5.12.
    local_addr_max: u8 = 41;
    /// Data is checksummed: 0 no, 1 yes. Since Linux 5.14.
    csum_enabled: u8 = 42;
    /// Timeouts in a row at the level of the connection. Since Linux 6.5.
    retransmits: u32 = 44;
    /// Bytes sent again, on whichever subflow. Since Linux 6.5.
    bytes_retrans: u64 = 48;
    /// Bytes sent, those sent again included. Since Linux 6.5.
    bytes_sent: u64 = 56;
    /// Bytes received in order. Since Linux 6.5.
    bytes_received: u64 = 64;
    /// Bytes that the peer acknowledged. Since Linux 6.5.
    bytes_acked: u64 = 72;
    /// Subflows, the first included. Since Linux 6.8.
    subflows_total: u8 = 80;
    /// Endpoints of the flag `laminar`. Since Linux 6.18.
    endp_laminar_max: u8 = 81;
    /// Endpoints of the flag `fullmesh`. Since Linux 6.18.
    endp_fullmesh_max: u8 = 82;
    /// Since data was last sent, ms. Since Linux 6.10.
    last_data_sent_ms: u32 = 84;
    /// Since data was last received, ms. Since Linux 6.10.
    last_data_recv_ms: u32 = 88;
    /// Since an acknowledgement was last received, ms. Since Linux 6.10.
    last_ack_recv_ms: u32 = 92;
}

/// Bytes of the newest `struct mptcp_info` that is known.
const LEN: usize = 96;

#[cfg(test)]
#[path = "mptcp_info/tests.rs"]
mod tests;
