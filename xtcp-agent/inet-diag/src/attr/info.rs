//! `INET_DIAG_INFO` of TCP, `struct tcp_info` (`include/uapi/linux/tcp.h`, filled by `tcp_get_info()`).
//!
//! It only ever grew at its end: 104 bytes in 2.6.14, 136 in 4.2, 192 in 4.10, 248 in 6.7, 280 in 6.18. A
//! field that ends past the payload is `None`. Neither time-wait nor request sockets have it. For a listener
//! most of it is 0, and `unacked` and `sacked` mean something else.

use super::Decode;
use crate::bytes::{Native, bit_field};

/// Bits of [`TcpInfo::options`].
pub mod options {
    /// Timestamps were negotiated.
    pub const TIMESTAMPS: u8 = 1;
    /// Selective acknowledgements were negotiated.
    pub const SACK: u8 = 2;
    /// Window scaling was negotiated: the two scales mean something.
    pub const WSCALE: u8 = 4;
    /// ECN was negotiated.
    pub const ECN: u8 = 8;
    /// At least one packet with ECT was received.
    pub const ECN_SEEN: u8 = 16;
    /// Data in the SYN was acknowledged or accepted (fast open).
    pub const SYN_DATA: u8 = 32;
    /// Timestamps are in µs. Since Linux 6.7.
    pub const USEC_TS: u8 = 64;
    /// The child of a fast-open listener.
    pub const TFO_CHILD: u8 = 128;
}

/// The bytes of a `tcp_info` of the newest length, each field read when it is asked for.
pub(crate) struct Whole<'a>(pub(crate) &'a [u8; LEN]);

macro_rules! tcp_info {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $offset:literal;)*) => {
        /// A connection's state and counters; each `None` where the kernel is too old for it.
        ///
        /// Segments are packets as the sender counts them. Counters of 32 bits wrap.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct TcpInfo<'a> {
            $($(#[$doc])* pub $field: Option<$type>,)*
            /// What a later kernel appended; empty up to Linux 7.3.
            pub tail: &'a [u8],
        }

        impl<'a> TcpInfo<'a> {
            #[inline]
            fn read(payload: &[u8], tail: &'a [u8]) -> Self {
                Self { $($field: <$type>::at(payload, $offset),)* tail }
            }
        }

        /// Where each field ends, ascending.
        const ENDS: &[usize] = &[$($offset + size_of::<$type>(),)*];

        impl Whole<'_> {
            $(
                #[inline]
                pub(crate) fn $field(&self) -> $type {
                    <$type>::at(self.0, $offset).unwrap_or_default()
                }
            )*
        }
    };
}

tcp_info! {
    /// TCP state, the kernel's number.
    state: u8 = 0;
    /// Congestion state: 0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss.
    ca_state: u8 = 1;
    /// Retransmission timeouts in a row, unanswered.
    retransmits: u8 = 2;
    /// Keepalive or zero-window probes in a row, unanswered.
    probes: u8 = 3;
    /// How often the timeout was doubled.
    backoff: u8 = 4;
    /// Negotiated features, bits in [`options`].
    options: u8 = 5;
    /// Both window scales, see [`TcpInfo::snd_wscale`] and [`TcpInfo::rcv_wscale`].
    wscales: u8 = 6;
    /// Two bit fields, see [`TcpInfo::delivery_rate_app_limited`] and [`TcpInfo::fastopen_client_fail`].
    delivery_flags: u8 = 7;
    /// Retransmission timeout, µs.
    rto_us: u32 = 8;
    /// Delayed-acknowledgement timeout, µs.
    ato_us: u32 = 12;
    /// Segment size for sending, bytes.
    snd_mss_bytes: u32 = 16;
    /// Largest segment size seen receiving (an estimate), bytes.
    rcv_mss_bytes: u32 = 20;
    /// Segments sent and not acknowledged; of a listener, connections waiting for `accept`.
    unacked: u32 = 24;
    /// Segments acknowledged selectively; of a listener, its backlog's limit.
    sacked: u32 = 28;
    /// Segments taken for lost.
    lost: u32 = 32;
    /// Retransmitted segments not acknowledged.
    retrans: u32 = 36;
    /// Always 0 since Linux 4.15.
    fackets: u32 = 40;
    /// Since data was last sent, ms.
    last_data_sent_ms: u32 = 44;
    /// Always 0: the kernel does not remember it.
    last_ack_sent_ms: u32 = 48;
    /// Since data was last received, ms.
    last_data_recv_ms: u32 = 52;
    /// Since an acknowledgement was last received, ms.
    last_ack_recv_ms: u32 = 56;
    /// Path MTU, bytes.
    pmtu_bytes: u32 = 60;
    /// Limit of the window that this end offers, bytes.
    rcv_ssthresh_bytes: u32 = 64;
    /// Smoothed round trip, µs.
    rtt_us: u32 = 68;
    /// Mean deviation of the round trip, µs.
    rttvar_us: u32 = 72;
    /// Slow-start threshold, segments; 0x7fffffff: none yet.
    snd_ssthresh: u32 = 76;
    /// Congestion window, segments.
    snd_cwnd: u32 = 80;
    /// Segment size that this end announced, bytes.
    advmss_bytes: u32 = 84;
    /// Degree of reordering tolerated, segments.
    reordering: u32 = 88;
    /// Round trip as the receiver estimates it, µs; 0: no estimate.
    rcv_rtt_us: u32 = 92;
    /// Bytes that the reader takes in a round trip, which sizes the receive buffer.
    rcv_space_bytes: u32 = 96;
    /// Retransmitted segments in all.
    total_retrans: u32 = 100;
    /// Pacing rate, bytes/s; `u64::MAX`: no pacing. Since Linux 3.15.
    pacing_rate_bytes_per_s: u64 = 104;
    /// Limit of the pacing rate (`SO_MAX_PACING_RATE`), bytes/s; `u64::MAX`: none. Since Linux 3.15.
    max_pacing_rate_bytes_per_s: u64 = 112;
    /// Bytes that the peer acknowledged; SYN and FIN count for one each. Since Linux 4.1.
    bytes_acked: u64 = 120;
    /// Bytes received in order; FIN counts for one. Since Linux 4.1.
    bytes_received: u64 = 128;
    /// Segments sent, retransmissions included. Since Linux 4.2.
    segs_out: u32 = 136;
    /// Segments received. Since Linux 4.2.
    segs_in: u32 = 140;
    /// Bytes queued and never sent yet. Since Linux 4.6.
    notsent_bytes: u32 = 144;
    /// Smallest round trip of the last `tcp_min_rtt_wlen` seconds, µs; `u32::MAX`: no sample yet. Since
    /// Linux 4.6.
    min_rtt_us: u32 = 148;
    /// Segments with data received. Since Linux 4.6.
    data_segs_in: u32 = 152;
    /// Segments with data sent, retransmissions included. Since Linux 4.6.
    data_segs_out: u32 = 156;
    /// Last measured rate of delivery, bytes/s. Since Linux 4.9.
    delivery_rate_bytes_per_s: u64 = 160;
    /// Time with data under way, µs. Since Linux 4.10.
    busy_time_us: u64 = 168;
    /// Thereof stalled by the peer's window, µs. Since Linux 4.10.
    rwnd_limited_us: u64 = 176;
    /// Thereof stalled by this end's send buffer, µs. Since Linux 4.10.
    sndbuf_limited_us: u64 = 184;
    /// Segments delivered, retransmissions included. Since Linux 4.18.
    delivered: u32 = 192;
    /// Thereof with the echo of a congestion mark. Since Linux 4.18.
    delivered_ce: u32 = 196;
    /// Bytes of data sent, retransmissions included. Since Linux 4.19.
    bytes_sent: u64 = 200;
    /// Bytes of data sent again. Since Linux 4.19.
    bytes_retrans: u64 = 208;
    /// Duplicates that the peer reported by DSACK. Since Linux 4.19.
    dsack_dups: u32 = 216;
    /// Reorderings seen. Since Linux 4.19.
    reord_seen: u32 = 220;
    /// Segments received out of order. Since Linux 5.4.
    rcv_ooopack: u32 = 224;
    /// Window that the peer offers, scaled, bytes. Since Linux 5.4.
    snd_wnd_bytes: u32 = 228;
    /// Window that this end offers, scaled, bytes. Since Linux 6.2.
    rcv_wnd_bytes: u32 = 232;
    /// Attempts to find another path by a new flow hash. Since Linux 6.2.
    rehash: u32 = 236;
    /// Retransmission timeouts in all, those of SYN and SYN-ACK included. Since Linux 6.7.
    total_rto: u16 = 240;
    /// Recoveries from timeouts, a running one included. Since Linux 6.7.
    total_rto_recoveries: u16 = 242;
    /// Time spent in those, ms. Since Linux 6.7.
    total_rto_time_ms: u32 = 244;
    /// Segments received with a congestion mark. Since Linux 6.18.
    received_ce: u32 = 248;
    /// Bytes sent as ECT(1) and delivered, as the peer's `AccECN` option says. Since Linux 6.18.
    delivered_e1_bytes: u32 = 252;
    /// Bytes sent as ECT(0) and delivered. Since Linux 6.18.
    delivered_e0_bytes: u32 = 256;
    /// Bytes delivered with a congestion mark. Since Linux 6.18.
    delivered_ce_bytes: u32 = 260;
    /// Bytes received as ECT(1). Since Linux 6.18.
    received_e1_bytes: u32 = 264;
    /// Bytes received as ECT(0). Since Linux 6.18.
    received_e0_bytes: u32 = 268;
    /// Bytes received with a congestion mark. Since Linux 6.18.
    received_ce_bytes: u32 = 272;
    /// The state of `AccECN`, packed one way in 6.18 and another in 7.0: see [`TcpInfo::accecn`]. Since Linux
    /// 6.18.
    accecn_word: u32 = 276;
}

/// Bytes of the newest `struct tcp_info` that is known.
pub(crate) const LEN: usize = 280;

/// A shorter one made as long as the newest: 0 in fields that it does not hold to their last byte.
pub(crate) fn padded(payload: &[u8]) -> [u8; LEN] {
    let mut padded = [0; LEN];
    let end = ENDS.iter().rfind(|end| **end <= payload.len()).copied().unwrap_or(0);
    if let (Some(to), Some(from)) = (padded.get_mut(..end), payload.get(..end)) {
        to.copy_from_slice(from);
    }
    padded
}

impl<'a> Decode<'a> for TcpInfo<'a> {
    #[inline]
    fn decode(payload: &'a [u8]) -> Option<Self> {
        // Where the length is known, the compiler drops the check that each field would need.
        Some(match payload.split_first_chunk::<LEN>() {
            Some((whole, tail)) => Self::read(whole, tail),
            None => Self::read(payload, &[]),
        })
    }
}

/// How [`TcpInfo::accecn_word`] is packed. The length is the same, so only the kernel's version tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccEcnLayout {
    /// Linux 6.18 and 6.19: two `u16`.
    Halves,
    /// Linux 7.0 and later: bit fields of 2, 2, 4 and 24 bits.
    BitFields,
}

/// The state of accurate ECN (RFC 9768).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccEcn {
    /// Negotiated mode: 0 disabled, 1 RFC 3168, 2 accurate, 3 pending. `None` before Linux 7.0.
    pub ecn_mode: Option<u8>,
    /// The option in what was received: 0 never seen, 1 empty, 2 with counters, 3 failed.
    pub opt_seen: u16,
    /// Why `AccECN` was given up, bits: 1 sending the ACE field, 2 receiving it, 4 sending the option, 8 receiving
    /// it.
    pub fail_mode: u16,
    /// More feature bits, for when [`TcpInfo::options`] was full. `None` before Linux 7.0.
    pub options2: Option<u32>,
}

/// `tcpi_snd_wscale` of [`TcpInfo::wscales`].
pub(crate) const fn snd_wscale(wscales: u8) -> u8 {
    bit_field(wscales, 0, 4)
}

/// `tcpi_rcv_wscale` of [`TcpInfo::wscales`].
pub(crate) const fn rcv_wscale(wscales: u8) -> u8 {
    bit_field(wscales, 4, 4)
}

/// `tcpi_delivery_rate_app_limited` of [`TcpInfo::delivery_flags`].
pub(crate) const fn delivery_rate_app_limited(flags: u8) -> bool {
    bit_field(flags, 0, 1) != 0
}

/// `tcpi_fastopen_client_fail` of [`TcpInfo::delivery_flags`].
pub(crate) const fn fastopen_client_fail(flags: u8) -> u8 {
    bit_field(flags, 1, 2)
}

impl AccEcn {
    /// Unpacks [`TcpInfo::accecn_word`].
    pub(crate) fn unpack(word: u32, layout: AccEcnLayout) -> Self {
        let [first, second, third, fourth] = word.to_ne_bytes();
        match layout {
            AccEcnLayout::Halves => Self {
                ecn_mode: None,
                opt_seen: u16::from_ne_bytes([third, fourth]),
                fail_mode: u16::from_ne_bytes([first, second]),
                options2: None,
            },
            AccEcnLayout::BitFields => Self {
                ecn_mode: Some(bit_field(first, 0, 2)),
                opt_seen: u16::from(bit_field(first, 2, 2)),
                fail_mode: u16::from(bit_field(first, 4, 4)),
                options2: Some(if cfg!(target_endian = "big") { word & 0x00ff_ffff } else { word >> 8 }),
            },
        }
    }
}

impl TcpInfo<'_> {
    /// Shift of the window that the peer offers, 0 to 14.
    pub fn snd_wscale(&self) -> Option<u8> {
        self.wscales.map(snd_wscale)
    }

    /// Shift of the window that this end offers, 0 to 14.
    pub fn rcv_wscale(&self) -> Option<u8> {
        self.wscales.map(rcv_wscale)
    }

    /// The last delivery rate was limited by the application. Since Linux 4.9; before, always `false`.
    pub fn delivery_rate_app_limited(&self) -> Option<bool> {
        self.delivery_flags.map(delivery_rate_app_limited)
    }

    /// Why fast open failed: 0 not tried or not failed, 1 no cookie, 2 SYN data not acknowledged, 3 SYN data
    /// not acknowledged after a timeout. Since Linux 5.5; before, always 0.
    pub fn fastopen_client_fail(&self) -> Option<u8> {
        self.delivery_flags.map(fastopen_client_fail)
    }

    /// The state of `AccECN`, read as the running kernel packs it.
    pub fn accecn(&self, layout: AccEcnLayout) -> Option<AccEcn> {
        self.accecn_word.map(|word| AccEcn::unpack(word, layout))
    }
}

#[cfg(test)]
#[path = "info/tests.rs"]
mod tests;
