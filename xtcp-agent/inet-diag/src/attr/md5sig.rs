//! `INET_DIAG_MD5SIG`, an array of `struct tcp_diag_md5sig`. Since Linux 4.14, to `CAP_NET_ADMIN` only.

use core::fmt;

use super::Decode;

/// The socket's TCP MD5 keys, as the kernel's bytes: 100 for each peer. They hold the **keys themselves**;
/// `Debug` shows only how many bytes there are, and no record carries them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Md5Sig<'a>(pub &'a [u8]);

impl fmt::Debug for Md5Sig<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Md5Sig({} bytes)", self.0.len())
    }
}

impl<'a> Decode<'a> for Md5Sig<'a> {
    fn decode(payload: &'a [u8]) -> Option<Self> {
        Some(Self(payload))
    }
}
