//! `INET_DIAG_LOCALS`, an array of `struct sockaddr_storage`. Since Linux 4.7. SCTP only.

use super::Decode;
use super::endpoint::{Endpoint, sockaddrs};

/// All local addresses of an SCTP association, as the kernel's bytes: 128 for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locals<'a>(pub &'a [u8]);

impl Locals<'_> {
    /// The addresses, with 32 or 128 for a prefix length. One that is cut off is left out.
    pub fn addresses(&self) -> impl Iterator<Item = Endpoint> + Clone {
        sockaddrs(self.0)
    }
}

impl<'a> Decode<'a> for Locals<'a> {
    fn decode(payload: &'a [u8]) -> Option<Self> {
        Some(Self(payload))
    }
}
