//! `INET_DIAG_DCTCPINFO`, `struct tcp_dctcp_info`. Since Linux 3.18. Asked for as `VEGASINFO`; sent by dctcp.

use super::Decode;
use crate::bytes::Native;

/// What dctcp tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DctcpInfo {
    /// 1 when ECN was negotiated and dctcp is in control; 0 while it behaves like reno.
    pub enabled: u16,
    /// 1 when the last segment received was marked congestion-experienced.
    pub ce_state: u16,
    /// Estimated fraction of marked segments, 0 to 1024.
    pub alpha: u32,
    /// Bytes acknowledged in this window with the echo of a mark.
    pub ab_ecn_bytes: u32,
    /// Bytes acknowledged in this window.
    pub ab_tot_bytes: u32,
}

impl Decode<'_> for DctcpInfo {
    fn decode(payload: &[u8]) -> Option<Self> {
        Some(Self {
            enabled: u16::at(payload, 0)?,
            ce_state: u16::at(payload, 2)?,
            alpha: u32::at(payload, 4)?,
            ab_ecn_bytes: u32::at(payload, 8)?,
            ab_tot_bytes: u32::at(payload, 12)?,
        })
    }
}
