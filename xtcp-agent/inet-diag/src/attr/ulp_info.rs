//! `INET_DIAG_ULP_INFO`: the upper-layer protocol of a socket, nested. Since Linux 5.4; MPTCP since 5.7. Comes where
//! `INET_DIAG_INFO` is asked for.
//!
//! Layouts: `include/uapi/linux/tls.h` (`TLS_INFO_*`), `include/uapi/linux/mptcp.h` (`MPTCP_SUBFLOW_ATTR_*`).

use super::{Decode, Tally, Walk};
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
}

/// Marks a number in a tally as that of a nested attribute.
const NESTED: u16 = 0x4000;

/// The number under which a nested attribute is counted: its nest (`INET_ULP_INFO_*`; 0 for the outermost) and its
/// number there. Numbers above 255 are counted as 255.
const fn nested_number(nest: u8, number: u16) -> u16 {
    let number = if number < 255 { number } else { 255 };
    NESTED | (nest as u16) << 8 | number
}

/// Nest and number of what is counted under a number; `None` when that is not nested.
pub(super) const fn nested_place(number: u16) -> Option<(u8, u8)> {
    let [nest, inner] = (number & !NESTED).to_be_bytes();
    if number & 0xc000 == NESTED { Some((nest, inner)) } else { None }
}

/// `INET_ULP_INFO_NAME`.
const NAME: u16 = 1;
/// `INET_ULP_INFO_TLS`.
const TLS: u8 = 2;
/// `INET_ULP_INFO_MPTCP`.
const MPTCP: u8 = 3;

/// Kernel TLS of a socket. Each `None` where it was not set up or the kernel does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// 0x0303 is TLS 1.2, 0x0304 TLS 1.3.
    pub version: Option<u16>,
    /// `TLS_CIPHER_*`: 51 AES-GCM-128, 52 AES-GCM-256, 53 AES-CCM-128, 54 ChaCha20-Poly1305, …
    pub cipher: Option<u16>,
    /// Sending: 1 not set up, 2 software, 3 in the device, 4 in the device by records (never seen; unused since Linux
    /// 7.0).
    pub tx_conf: Option<u16>,
    /// Receiving: as for sending.
    pub rx_conf: Option<u16>,
    /// Zero-copy sendfile is on. Since Linux 5.19.
    pub zc_ro_tx: bool,
    /// The peer promised not to pad records. Since Linux 6.0.
    pub rx_no_pad: bool,
    /// Largest plaintext of a record that is sent, bytes (`TLS_TX_MAX_PAYLOAD_LEN`). Since Linux 6.19.
    pub tx_max_payload_len_bytes: Option<u16>,
}

/// An MPTCP subflow. Each `None` where the kernel does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MptcpSubflow {
    /// Token of the peer's end of the connection.
    pub token_rem: Option<u32>,
    /// Token of this end.
    pub token_loc: Option<u32>,
    /// Subflow sequence of the last write, relative. This and the next four: newer kernels tell them only to
    /// `CAP_NET_ADMIN`.
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

/// Bits of [`MptcpSubflow::flags`].
pub mod subflow_flags {
    /// The peer began the connection's first subflow with MPTCP.
    pub const MCAP_REM: u32 = 1;
    /// This end did.
    pub const MCAP_LOC: u32 = 1 << 1;
    /// The peer joined this subflow to a connection.
    pub const JOIN_REM: u32 = 1 << 2;
    /// This end did.
    pub const JOIN_LOC: u32 = 1 << 3;
    /// The peer wants it as a backup only.
    pub const BKUP_REM: u32 = 1 << 4;
    /// This end does.
    pub const BKUP_LOC: u32 = 1 << 5;
    /// Both ends are known to speak MPTCP.
    pub const FULLY_ESTABLISHED: u32 = 1 << 6;
    /// The handshake has ended.
    pub const CONNECTED: u32 = 1 << 7;
    /// There is a mapping of data to this subflow: the `map_` fields mean something.
    pub const MAPVALID: u32 = 1 << 8;
}

/// What became of a nested attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nested {
    Kept,
    Unknown,
    Malformed,
}

/// Stores what was decoded.
fn keep<T>(slot: &mut Option<T>, value: Option<T>) -> Nested {
    if value.is_none() {
        return Nested::Malformed;
    }
    *slot = value;
    Nested::Kept
}

/// Reads all nests, and tells `flaw` which attributes were not kept, by [`nested_number`]. Of an attribute that comes
/// twice the last is kept.
fn read<'a>(payload: &'a [u8], ulp: &mut UlpInfo<'a>, flaw: &mut impl FnMut(Nested, u16)) {
    let UlpInfo { name, tls, mptcp } = ulp;
    for item in Walk::new(payload) {
        let Ok((number, payload)) = item else { return flaw(Nested::Malformed, nested_number(0, 0)) };
        let outcome = if number == NAME {
            keep(name, text(payload))
        } else if number == u16::from(TLS) {
            let tls = tls.insert(TlsInfo::default());
            nest(TLS, payload, flaw, |number, payload| tls.put(number, payload));
            Nested::Kept
        } else if number == u16::from(MPTCP) {
            let mptcp = mptcp.insert(MptcpSubflow::default());
            nest(MPTCP, payload, flaw, |number, payload| mptcp.put(number, payload));
            Nested::Kept
        } else {
            Nested::Unknown
        };
        flaw(outcome, nested_number(0, number));
    }
}

/// Gives each attribute of a nest to `put`.
fn nest(
    nest: u8,
    payload: &[u8],
    flaw: &mut impl FnMut(Nested, u16),
    mut put: impl FnMut(u16, &[u8]) -> Nested,
) {
    for item in Walk::new(payload) {
        match item {
            Ok((number, payload)) => flaw(put(number, payload), nested_number(nest, number)),
            Err(_) => flaw(Nested::Malformed, nested_number(nest, 0)),
        }
    }
}

/// Counts the nested attributes that are not known, or cannot be what they say.
pub(super) fn count(payload: &[u8], unknown: &mut Tally, malformed: &mut Tally) {
    read(payload, &mut UlpInfo::default(), &mut |outcome, number| match outcome {
        Nested::Kept => {}
        Nested::Unknown => unknown.add(number),
        Nested::Malformed => malformed.add(number),
    });
}

impl TlsInfo {
    fn put(&mut self, number: u16, payload: &[u8]) -> Nested {
        match number {
            1 => keep(&mut self.version, u16::at(payload, 0)),
            2 => keep(&mut self.cipher, u16::at(payload, 0)),
            3 => keep(&mut self.tx_conf, u16::at(payload, 0)),
            4 => keep(&mut self.rx_conf, u16::at(payload, 0)),
            5 => {
                self.zc_ro_tx = true;
                Nested::Kept
            }
            6 => {
                self.rx_no_pad = true;
                Nested::Kept
            }
            7 => keep(&mut self.tx_max_payload_len_bytes, u16::at(payload, 0)),
            _ => Nested::Unknown,
        }
    }
}

impl MptcpSubflow {
    fn put(&mut self, number: u16, payload: &[u8]) -> Nested {
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
            11 => Nested::Kept,
            _ => Nested::Unknown,
        }
    }
}

impl<'a> Decode<'a> for UlpInfo<'a> {
    fn is_sound(_: &'a [u8]) -> bool {
        true
    }

    fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut ulp = Self::default();
        read(payload, &mut ulp, &mut |_, _| {});
        Some(ulp)
    }
}
