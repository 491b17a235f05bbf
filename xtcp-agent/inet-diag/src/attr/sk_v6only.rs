//! `INET_DIAG_SKV6ONLY`, `IPV6_V6ONLY`. Since Linux 4.3. IPv6 sockets in LISTEN and CLOSE only.

use super::Decode;
use crate::bytes::Native;

/// `true` when the socket takes no IPv4 traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkV6Only(pub bool);

impl Decode<'_> for SkV6Only {
    fn decode(payload: &[u8]) -> Option<Self> {
        u8::at(payload, 0).map(|value| Self(value != 0))
    }
}
