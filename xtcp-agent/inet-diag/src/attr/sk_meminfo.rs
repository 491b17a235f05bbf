//! `INET_DIAG_SKMEMINFO`, `sk_get_meminfo()`: an array of `u32` that grows at its end. Since Linux 3.3.

use super::Decode;
use crate::bytes::Native;

/// Memory of a socket; each `None` where the kernel is too old for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SkMemInfo {
    /// Bytes held by the receive queue.
    pub rmem_alloc_bytes: Option<u32>,
    /// Limit of the receive queue, bytes (`SO_RCVBUF` as the kernel doubled it).
    pub rcvbuf_bytes: Option<u32>,
    /// Bytes handed to the layers below and not freed yet.
    pub wmem_alloc_bytes: Option<u32>,
    /// Limit of the send queue, bytes (`SO_SNDBUF` as the kernel doubled it).
    pub sndbuf_bytes: Option<u32>,
    /// Bytes reserved for the socket and not used.
    pub fwd_alloc_bytes: Option<u32>,
    /// Bytes queued for sending.
    pub wmem_queued_bytes: Option<u32>,
    /// Bytes held for socket options.
    pub optmem_bytes: Option<u32>,
    /// Bytes that arrived while a task held the socket's lock. Since Linux 3.5.
    pub backlog_bytes: Option<u32>,
    /// Packets dropped by the socket. Since Linux 4.7.
    pub drops: Option<u32>,
}

impl Decode<'_> for SkMemInfo {
    fn decode(payload: &[u8]) -> Option<Self> {
        Some(Self {
            rmem_alloc_bytes: u32::at(payload, 0),
            rcvbuf_bytes: u32::at(payload, 4),
            wmem_alloc_bytes: u32::at(payload, 8),
            sndbuf_bytes: u32::at(payload, 12),
            fwd_alloc_bytes: u32::at(payload, 16),
            wmem_queued_bytes: u32::at(payload, 20),
            optmem_bytes: u32::at(payload, 24),
            backlog_bytes: u32::at(payload, 28),
            drops: u32::at(payload, 32),
        })
    }
}
