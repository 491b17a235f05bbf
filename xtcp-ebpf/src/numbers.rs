//! A connection's last numbers, out of `struct tcp_sock`.

use xtcp_common::event::{TcpNumbers, number};

use crate::kernel::{
    OFF_TP_BYTES_ACKED, OFF_TP_BYTES_RECEIVED, OFF_TP_BYTES_RETRANS, OFF_TP_BYTES_SENT, OFF_TP_DATA_SEGS_IN,
    OFF_TP_DATA_SEGS_OUT, OFF_TP_DELIVERED, OFF_TP_DELIVERED_CE, OFF_TP_DSACK_DUPS, OFF_TP_LOST_OUT,
    OFF_TP_MDEV, OFF_TP_MSS_CACHE, OFF_TP_RCV_OOOPACK, OFF_TP_REORD_SEEN, OFF_TP_RTT_MIN, OFF_TP_SEGS_IN,
    OFF_TP_SEGS_OUT, OFF_TP_SND_CWND, OFF_TP_SND_SSTHRESH, OFF_TP_SRTT, OFF_TP_TOTAL_RETRANS, Ptr,
};

/// Reads fields that come and go together: the value of each, or 0 for all, and the bit that tells.
macro_rules! group {
    ($tcp:ident, $present:ident, $bit:expr, $($field:ident = $offset:ident),+) => {
        let ($($field,)+) = match ($($tcp.read(&$offset),)+) {
            ($(Some($field),)+) => {
                $present |= $bit;
                ($($field,)+)
            }
            _ => Default::default(),
        };
    };
}

/// The numbers of a socket; all absent when it is no `tcp_sock`.
#[inline(always)]
pub(crate) fn last(tcp: Option<Ptr>) -> TcpNumbers {
    let Some(tcp) = tcp else { return TcpNumbers::default() };
    let mut present = 0;
    group!(
        tcp,
        present,
        number::BYTES_SENT,
        bytes_sent = OFF_TP_BYTES_SENT,
        bytes_retrans = OFF_TP_BYTES_RETRANS
    );
    group!(
        tcp,
        present,
        number::BYTES_ACKED,
        bytes_acked = OFF_TP_BYTES_ACKED,
        bytes_received = OFF_TP_BYTES_RECEIVED
    );
    group!(
        tcp,
        present,
        number::SEGMENTS,
        segs_out = OFF_TP_SEGS_OUT,
        segs_in = OFF_TP_SEGS_IN,
        data_segs_out = OFF_TP_DATA_SEGS_OUT,
        data_segs_in = OFF_TP_DATA_SEGS_IN
    );
    group!(tcp, present, number::RETRANS, total_retrans = OFF_TP_TOTAL_RETRANS, lost = OFF_TP_LOST_OUT);
    group!(tcp, present, number::RTT, srtt = OFF_TP_SRTT, mdev = OFF_TP_MDEV);
    group!(tcp, present, number::MIN_RTT, min_rtt_us = OFF_TP_RTT_MIN);
    group!(
        tcp,
        present,
        number::WINDOW,
        snd_cwnd = OFF_TP_SND_CWND,
        snd_ssthresh = OFF_TP_SND_SSTHRESH,
        mss_cache = OFF_TP_MSS_CACHE
    );
    group!(tcp, present, number::DELIVERED, delivered = OFF_TP_DELIVERED, delivered_ce = OFF_TP_DELIVERED_CE);
    group!(tcp, present, number::REORDER, reord_seen = OFF_TP_REORD_SEEN, dsack_dups = OFF_TP_DSACK_DUPS);
    group!(tcp, present, number::OOO, rcv_ooopack = OFF_TP_RCV_OOOPACK);
    let (srtt, mdev): (u32, u32) = (srtt, mdev);
    TcpNumbers {
        bytes_sent,
        bytes_retrans,
        bytes_acked,
        bytes_received,
        segs_out,
        segs_in,
        data_segs_out,
        data_segs_in,
        total_retrans,
        lost,
        delivered,
        delivered_ce,
        srtt_us: srtt >> 3,
        rttvar_us: mdev >> 2,
        min_rtt_us,
        snd_cwnd,
        snd_ssthresh,
        mss_cache,
        reord_seen,
        dsack_dups,
        rcv_ooopack,
        present,
    }
}
