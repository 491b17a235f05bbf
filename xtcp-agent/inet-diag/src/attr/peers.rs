//! `INET_DIAG_PEERS`, an array of `struct sockaddr_storage`. Since Linux 4.7. SCTP only.

use super::Decode;
use super::endpoint::{Endpoint, sockaddrs};

/// All peer addresses of an SCTP association, as the kernel's bytes: 128 for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers<'a>(pub &'a [u8]);

impl Peers<'_> {
    /// The addresses, with 32 or 128 for a prefix length. One that is cut off is left out.
    pub fn addresses(&self) -> impl Iterator<Item = Endpoint> + Clone {
        sockaddrs(self.0)
    }
}

impl<'a> Decode<'a> for Peers<'a> {
    fn decode(payload: &'a [u8]) -> Option<Self> {
        Some(Self(payload))
    }
}
