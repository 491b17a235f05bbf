//! `INET_DIAG_PEERS`, an array of `struct sockaddr_storage`. Since Linux 4.7. SCTP only.

use super::Decode;

/// All peer addresses of an SCTP association, as the kernel's bytes: 128 for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers<'a>(pub &'a [u8]);

impl<'a> Decode<'a> for Peers<'a> {
    fn decode(payload: &'a [u8]) -> Option<Self> {
        Some(Self(payload))
    }
}
