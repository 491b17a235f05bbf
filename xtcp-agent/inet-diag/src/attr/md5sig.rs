//! `INET_DIAG_MD5SIG`, an array of `struct tcp_diag_md5sig`. Since Linux 4.14, to `CAP_NET_ADMIN` only, and only where
//! `INET_DIAG_INFO` is asked for.

use core::fmt;

use super::Decode;
use super::endpoint::Endpoint;
use crate::bytes::{Native, array_at};

/// Bytes of `struct tcp_diag_md5sig`: family, prefix length, length of the key, address, key.
const KEY_LEN: usize = 100;

/// The socket's TCP MD5 keys, as the kernel's bytes: 100 for each peer. They hold the **keys themselves**;
/// `Debug` shows only how many bytes there are, and no record carries them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Md5Sig<'a>(pub &'a [u8]);

impl Md5Sig<'_> {
    /// How many keys there are: one for each peer or prefix.
    pub const fn keys(&self) -> usize {
        self.0.len() / KEY_LEN
    }

    /// For whom the keys are, without the keys: prefixes without port. A last one that is cut off is left out.
    pub fn peers(&self) -> impl Iterator<Item = Endpoint> + Clone {
        self.0
            .chunks_exact(KEY_LEN)
            .filter_map(|key| Some(Endpoint::new(u8::at(key, 0)?, u8::at(key, 1)?, 0, array_at(key, 4)?)))
    }
}

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

#[cfg(test)]
mod tests {
    use std::{format, vec::Vec};

    use super::*;

    #[test]
    fn peers_come_without_their_keys() {
        let mut bytes = [0_u8; 250];
        bytes[..8].copy_from_slice(&[2, 24, 6, 0, 198, 51, 100, 0]);
        bytes[20..26].copy_from_slice(b"secret");
        bytes[100..104].copy_from_slice(&[10, 64, 1, 0]);
        bytes[104..106].copy_from_slice(&[0x20, 0x01]);
        let keys = Md5Sig::decode(&bytes).unwrap();
        assert_eq!(keys.keys(), 2);
        let peers: Vec<_> = keys.peers().map(|peer| (peer.family, peer.prefix_len, peer.port)).collect();
        assert_eq!(peers, [(2, 24, 0), (10, 64, 0)]);
        let encoded: Vec<u8> = keys.peers().flat_map(|peer| peer.encode()).collect();
        assert_eq!(encoded[..8], [2, 24, 0, 0, 198, 51, 100, 0]);
        assert!(!encoded.windows(6).any(|window| window == b"secret"));
        assert_eq!(format!("{keys:?}"), "Md5Sig(250 bytes)");
    }
}
