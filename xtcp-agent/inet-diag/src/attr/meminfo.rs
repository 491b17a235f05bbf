//! `INET_DIAG_MEMINFO`, `struct inet_diag_meminfo`. Since Linux 2.6.14; superseded by `SKMEMINFO`.

use super::Decode;
use crate::bytes::Native;

/// Memory of a socket, in bytes. All of it is in [`super::sk_meminfo::SkMemInfo`] too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemInfo {
    /// Bytes held by the receive queue (`sk_rmem_alloc`).
    pub rmem_bytes: u32,
    /// Bytes queued for sending (`sk_wmem_queued`).
    pub wmem_bytes: u32,
    /// Bytes reserved for the socket and not used (`sk_forward_alloc`).
    pub fmem_bytes: u32,
    /// Bytes handed to the layers below and not freed yet (`sk_wmem_alloc`).
    pub tmem_bytes: u32,
}

impl Decode<'_> for MemInfo {
    fn decode(payload: &[u8]) -> Option<Self> {
        Some(Self {
            rmem_bytes: u32::at(payload, 0)?,
            wmem_bytes: u32::at(payload, 4)?,
            fmem_bytes: u32::at(payload, 8)?,
            tmem_bytes: u32::at(payload, 12)?,
        })
    }
}
