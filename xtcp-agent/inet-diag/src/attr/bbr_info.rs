//! `INET_DIAG_BBRINFO`, `struct tcp_bbr_info`. Since Linux 4.9. Asked for as `VEGASINFO`; sent by bbr. Kernels
//! with bbr 2 or 3 append to it.

use super::Decode;
use crate::bytes::Native;

/// Bytes of `struct tcp_bbr_info` of the first bbr.
pub(crate) const LEN: usize = 20;

/// What bbr tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BbrInfo<'a> {
    /// Lower half of the estimated bandwidth, bytes/s.
    pub bw_lo: u32,
    /// Upper half of the estimated bandwidth, bytes/s.
    pub bw_hi: u32,
    /// Smallest round trip of the last 10 s, µs; `u32::MAX` before the first sample.
    pub min_rtt_us: u32,
    /// Pacing gain, 256 = 1.0.
    pub pacing_gain: u32,
    /// Congestion window gain, 256 = 1.0.
    pub cwnd_gain: u32,
    /// What a later bbr appended; empty for the first.
    pub tail: &'a [u8],
}

impl BbrInfo<'_> {
    /// Estimated bandwidth, bytes/s.
    pub fn bw_bytes_per_s(&self) -> u64 {
        u64::from(self.bw_hi) << 32 | u64::from(self.bw_lo)
    }
}

impl<'a> Decode<'a> for BbrInfo<'a> {
    fn decode(payload: &'a [u8]) -> Option<Self> {
        Some(Self {
            bw_lo: u32::at(payload, 0)?,
            bw_hi: u32::at(payload, 4)?,
            min_rtt_us: u32::at(payload, 8)?,
            pacing_gain: u32::at(payload, 12)?,
            cwnd_gain: u32::at(payload, 16)?,
            tail: payload.get(LEN..)?,
        })
    }
}
