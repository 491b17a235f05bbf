//! An address within an attribute: of a TCP MD5 key, of an SCTP association.

use crate::bytes::{Native, array_at, port_at};
use crate::socket_id::fill;

/// `AF_INET`.
const INET: u8 = 2;
/// `AF_INET6`.
const INET6: u8 = 10;

/// A prefix or an address with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// `AF_INET` (2) or `AF_INET6` (10); whatever the kernel says where it is another.
    pub family: u8,
    /// Bits of the address that count, 0 to 128.
    pub prefix_len: u8,
    /// Port, host order; 0 where there is none.
    pub port: u16,
    /// IPv4 in the first four bytes, the rest 0.
    pub address: [u8; 16],
}

impl Endpoint {
    /// Bytes of its encoding.
    pub const ENCODED_LEN: usize = 20;

    /// The form in which records carry it: family, prefix length, port (big-endian), sixteen bytes of address.
    pub fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let Self { family, prefix_len, port, address } = *self;
        let mut bytes = [0; Self::ENCODED_LEN];
        fill(&mut bytes, [family, prefix_len].into_iter().chain(port.to_be_bytes()).chain(address));
        bytes
    }

    /// Only what the family has of an address, which for IPv4 is its first four bytes.
    pub(super) fn new(family: u8, prefix_len: u8, port: u16, mut address: [u8; 16]) -> Self {
        if family == INET {
            for byte in address.iter_mut().skip(4) {
                *byte = 0;
            }
        }
        Self { family, prefix_len, port, address }
    }
}

/// Bytes of `struct sockaddr_storage`.
pub(super) const SOCKADDR_STORAGE_LEN: usize = 128;

/// The addresses in an array of `struct sockaddr_storage`. A last one that is cut off is left out.
pub(super) fn sockaddrs(bytes: &[u8]) -> impl Iterator<Item = Endpoint> + Clone {
    bytes.chunks_exact(SOCKADDR_STORAGE_LEN).filter_map(|sockaddr| {
        // sa_family is 16 bits; no family is above 255.
        let family = u8::try_from(u16::at(sockaddr, 0)?).unwrap_or(u8::MAX);
        let port = port_at(sockaddr, 2)?;
        Some(match family {
            // struct sockaddr_in6 has flow information before the address.
            INET6 => Endpoint::new(family, 128, port, array_at(sockaddr, 8)?),
            _ => Endpoint::new(family, 32, port, array_at(sockaddr, 4)?),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn sockaddrs_become_addresses_with_ports_and_a_cut_off_one_none() {
        let mut bytes = [0_u8; 300];
        bytes[..2].copy_from_slice(&2_u16.to_ne_bytes());
        bytes[2..8].copy_from_slice(&[0x22, 0xb9, 192, 0, 2, 1]);
        // What follows an IPv4 address is padding.
        bytes[8] = 9;
        bytes[128..130].copy_from_slice(&10_u16.to_ne_bytes());
        bytes[130..132].copy_from_slice(&[0, 80]);
        bytes[136..152].copy_from_slice(&[0xfe; 16]);
        let mut first = [0; 16];
        first[..4].copy_from_slice(&[192, 0, 2, 1]);
        let expected = [
            Endpoint { family: 2, prefix_len: 32, port: 8889, address: first },
            Endpoint { family: 10, prefix_len: 128, port: 80, address: [0xfe; 16] },
        ];
        assert_eq!(sockaddrs(&bytes).collect::<Vec<_>>(), expected);
        let encoded = expected[0].encode();
        assert_eq!(encoded[..8], [2, 32, 0x22, 0xb9, 192, 0, 2, 1]);
        assert_eq!(encoded[8..], [0; 12]);
    }
}
