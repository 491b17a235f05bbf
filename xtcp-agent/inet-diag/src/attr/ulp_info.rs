//! `INET_DIAG_ULP_INFO`: the upper-layer protocol of a socket, nested. Since Linux 5.4; MPTCP since 5.7.
//!
//! Layouts: `include/uapi/linux/tls.h` (`TLS_INFO_*`), `include/uapi/linux/mptcp.h` (`MPTCP_SUBFLOW_ATTR_*`).

use super::{Decode, Walk};
use crate::bytes::{Native, text};

/// What sits on top of TCP in this socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UlpInfo<'a> {
    /// Its name: `tls`, `mptcp`, …
    pub name: Option<&'a str>,
    /// Of a TLS socket.
    pub tls: Option<TlsInfo>,
    /// Of an MPTCP subflow.
    pub mptcp: Option<MptcpSubflow>,
    /// Nested attributes that are not known, are not what they should be, or whose length cannot be right.
    pub skipped: u16,
}

/// Kernel TLS of a socket. Each `None` where it was not set up or the kernel does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// 0x0303 is TLS 1.2, 0x0304 TLS 1.3.
    pub version: Option<u16>,
    /// `TLS_CIPHER_*`: 51 AES-GCM-128, 52 AES-GCM-256, 53 AES-CCM-128, 54 ChaCha20-Poly1305, …
    pub cipher: Option<u16>,
    /// Sending: 1 not set up, 2 software, 3 in the device, 4 in the device by records.
    pub tx_conf: Option<u16>,
    /// Receiving: as for sending.
    pub rx_conf: Option<u16>,
    /// Zero-copy sendfile is on. Since Linux 5.19.
    pub zc_ro_tx: bool,
    /// The peer promised not to pad records. Since Linux 6.0.
    pub rx_no_pad: bool,
}

/// An MPTCP subflow. Each `None` where the kernel does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MptcpSubflow {
    /// Token of the peer's end of the connection.
    pub token_rem: Option<u32>,
    /// Token of this end.
    pub token_loc: Option<u32>,
    /// Subflow sequence of the last write, relative.
    pub relwrite_seq: Option<u32>,
    /// Data sequence at which the current mapping begins.
    pub map_seq: Option<u64>,
    /// Subflow sequence at which the current mapping begins.
    pub map_sfseq: Option<u32>,
    /// Offset of subflow sequence numbers.
    pub ssn_offset: Option<u32>,
    /// Bytes of the current mapping.
    pub map_datalen: Option<u16>,
    /// `MPTCP_SUBFLOW_FLAG_*`.
    pub flags: Option<u32>,
    /// The peer's address id.
    pub id_rem: Option<u8>,
    /// This end's address id.
    pub id_loc: Option<u8>,
}

/// Stores what was decoded; `false` when the payload was too short.
fn keep<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let is_some = value.is_some();
    if is_some {
        *slot = value;
    }
    is_some
}

/// Gives each nested attribute to `take`; returns how many it refused, and one more for a damaged length.
fn nested<'a>(payload: &'a [u8], mut take: impl FnMut(u16, &'a [u8]) -> bool) -> u16 {
    let refused = Walk::new(payload).filter(|item| match item {
        Ok((number, payload)) => !take(*number, payload),
        Err(_) => true,
    });
    u16::try_from(refused.count()).unwrap_or(u16::MAX)
}

impl TlsInfo {
    fn put(&mut self, number: u16, payload: &[u8]) -> bool {
        match number {
            1 => keep(&mut self.version, u16::at(payload, 0)),
            2 => keep(&mut self.cipher, u16::at(payload, 0)),
            3 => keep(&mut self.tx_conf, u16::at(payload, 0)),
            4 => keep(&mut self.rx_conf, u16::at(payload, 0)),
            5 => {
                self.zc_ro_tx = true;
                true
            }
            6 => {
                self.rx_no_pad = true;
                true
            }
            _ => false,
        }
    }
}

impl MptcpSubflow {
    fn put(&mut self, number: u16, payload: &[u8]) -> bool {
        match number {
            1 => keep(&mut self.token_rem, u32::at(payload, 0)),
            2 => keep(&mut self.token_loc, u32::at(payload, 0)),
            3 => keep(&mut self.relwrite_seq, u32::at(payload, 0)),
            4 => keep(&mut self.map_seq, u64::at(payload, 0)),
            5 => keep(&mut self.map_sfseq, u32::at(payload, 0)),
            6 => keep(&mut self.ssn_offset, u32::at(payload, 0)),
            7 => keep(&mut self.map_datalen, u16::at(payload, 0)),
            8 => keep(&mut self.flags, u32::at(payload, 0)),
            9 => keep(&mut self.id_rem, u8::at(payload, 0)),
            10 => keep(&mut self.id_loc, u8::at(payload, 0)),
            // MPTCP_SUBFLOW_ATTR_PAD.
            11 => true,
            _ => false,
        }
    }
}

/// [`UlpInfo::name`] alone.
pub(crate) fn name(payload: &[u8]) -> Option<&str> {
    let mut name = None;
    nested(payload, |number, payload| number != 1 || keep(&mut name, text(payload)));
    name
}

impl<'a> Decode<'a> for UlpInfo<'a> {
    fn is_sound(_: &'a [u8]) -> bool {
        true
    }

    fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut ulp = Self::default();
        let mut inner = 0_u16;
        let outer = nested(payload, |number, payload| match number {
            1 => keep(&mut ulp.name, text(payload)),
            2 => {
                let mut tls = TlsInfo::default();
                inner = inner.saturating_add(nested(payload, |number, payload| tls.put(number, payload)));
                keep(&mut ulp.tls, Some(tls))
            }
            3 => {
                let mut mptcp = MptcpSubflow::default();
                inner = inner.saturating_add(nested(payload, |number, payload| mptcp.put(number, payload)));
                keep(&mut ulp.mptcp, Some(mptcp))
            }
            _ => false,
        });
        ulp.skipped = outer.saturating_add(inner);
        Some(ulp)
    }
}
