//! `INET_DIAG_VEGASINFO`, `struct tcpvegas_info`. Since Linux 2.6.14. Sent by vegas, and by others that share
//! its layout (westwood, veno, yeah, illinois).

use super::Decode;
use crate::bytes::Native;

/// What a delay-based congestion control tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VegasInfo {
    /// 1 when it is in control; 0 while it behaves like reno.
    pub enabled: u32,
    /// Round-trip samples in the current window.
    pub rtt_cnt: u32,
    /// Last or average round trip, µs.
    pub rtt_us: u32,
    /// Smallest round trip, µs; 0x7fffffff before the first sample.
    pub min_rtt_us: u32,
}

impl Decode<'_> for VegasInfo {
    fn decode(payload: &[u8]) -> Option<Self> {
        Some(Self {
            enabled: u32::at(payload, 0)?,
            rtt_cnt: u32::at(payload, 4)?,
            rtt_us: u32::at(payload, 8)?,
            min_rtt_us: u32::at(payload, 12)?,
        })
    }
}
