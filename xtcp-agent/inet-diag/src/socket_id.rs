//! `struct inet_diag_sockid`: who a socket is, in a question and in an answer.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bytes::{Native, array_at, port_at};

/// The cookie that matches any socket (`INET_DIAG_NOCOOKIE` in both halves).
pub const NO_COOKIE: u64 = u64::MAX;

/// Bytes of `struct inet_diag_sockid`.
pub(crate) const SOCKET_ID_LEN: usize = 48;

/// An address family that inet_diag knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// `AF_INET`, 2.
    Inet = 2,
    /// `AF_INET6`, 10. Its sockets may hold v4-mapped addresses.
    Inet6 = 10,
}

impl Family {
    /// The family of this number, if inet_diag knows it.
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            2 => Some(Self::Inet),
            10 => Some(Self::Inet6),
            _ => None,
        }
    }

    /// The kernel's number.
    pub const fn raw(self) -> u8 {
        self as u8
    }

    /// Bytes of one address.
    pub(crate) const fn address_len(self) -> usize {
        match self {
            Self::Inet => 4,
            Self::Inet6 => 16,
        }
    }
}

/// A socket's addresses, ports, interface and cookie (`struct inet_diag_sockid`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// Local port, host order.
    pub source_port: u16,
    /// Peer's port, host order; 0 in LISTEN.
    pub destination_port: u16,
    /// Local address in network order; IPv4 in the first 4 bytes, the rest zero.
    pub source: [u8; 16],
    /// Peer's address in network order; IPv4 in the first 4 bytes, the rest zero.
    pub destination: [u8; 16],
    /// Interface index that the socket is bound to (`SO_BINDTODEVICE`, or the scope of a link-local
    /// address); 0: to none.
    pub interface: u32,
    /// The socket's cookie, never reused within a boot: the kernel's two `u32`, the first one the lower
    /// half. [`NO_COOKIE`] in a lookup matches any.
    pub cookie: u64,
}

impl SocketId {
    /// Decodes the id at `offset`; bytes past the family's address length are taken as zero.
    pub(crate) fn decode(bytes: &[u8], offset: usize, family: Option<Family>) -> Option<Self> {
        let bytes = bytes.get(offset..)?;
        let address = |at| {
            let mut address: [u8; 16] = array_at(bytes, at)?;
            let len = family.map_or(16, Family::address_len);
            address.iter_mut().skip(len).for_each(|byte| *byte = 0);
            Some(address)
        };
        let cookie_low = u64::from(u32::at(bytes, 40)?);
        let cookie_high = u64::from(u32::at(bytes, 44)?);
        Some(Self {
            source_port: port_at(bytes, 0)?,
            destination_port: port_at(bytes, 2)?,
            source: address(4)?,
            destination: address(20)?,
            interface: u32::at(bytes, 36)?,
            cookie: cookie_high << 32 | cookie_low,
        })
    }

    /// The kernel's bytes of this id.
    pub(crate) fn encode(&self) -> [u8; SOCKET_ID_LEN] {
        let Self { source_port, destination_port, source, destination, interface, cookie } = self;
        let mut bytes = [0; SOCKET_ID_LEN];
        let (ports, rest) = bytes.split_at_mut(4);
        let (addresses, numbers) = rest.split_at_mut(32);
        fill(ports, source_port.to_be_bytes().into_iter().chain(destination_port.to_be_bytes()));
        fill(addresses, source.iter().chain(destination).copied());
        // Neither conversion can fail: each half has 32 bits.
        let half = |bits: u64| u32::try_from(bits).unwrap_or_default().to_ne_bytes();
        let low = half(cookie & u64::from(u32::MAX));
        let high = half(cookie >> 32);
        fill(numbers, interface.to_ne_bytes().into_iter().chain(low).chain(high));
        bytes
    }

    /// The local address as an IP address of `family`.
    pub fn source_ip(&self, family: Family) -> IpAddr {
        ip(family, self.source)
    }

    /// The peer's address as an IP address of `family`.
    pub fn destination_ip(&self, family: Family) -> IpAddr {
        ip(family, self.destination)
    }
}

/// Copies as many bytes as fit.
pub(crate) fn fill(target: &mut [u8], source: impl IntoIterator<Item = u8>) {
    for (target, source) in target.iter_mut().zip(source) {
        *target = source;
    }
}

fn ip(family: Family, address: [u8; 16]) -> IpAddr {
    match family {
        Family::Inet => {
            let [a, b, c, d, ..] = address;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        Family::Inet6 => IpAddr::V6(Ipv6Addr::from(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SocketId {
        let mut source = [0; 16];
        source[..4].copy_from_slice(&[127, 0, 0, 1]);
        SocketId {
            source_port: 443,
            destination_port: 50_123,
            source,
            destination: [9; 16],
            interface: 7,
            cookie: 0x1122_3344_5566_7788,
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let bytes = sample().encode();
        assert_eq!(SocketId::decode(&bytes, 0, Some(Family::Inet6)), Some(sample()));
        assert_eq!(bytes[..4], [1, 0xbb, 0xc3, 0xcb]);
        assert_eq!(u32::at(&bytes, 40), Some(0x5566_7788), "the first half of the cookie is the lower");
    }

    #[test]
    fn ipv4_leaves_nothing_in_the_last_twelve_bytes() {
        let id = SocketId::decode(&sample().encode(), 0, Some(Family::Inet)).unwrap();
        assert_eq!(id.destination, [9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(id.source_ip(Family::Inet), IpAddr::V4(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn a_short_id_is_none() {
        for len in 0..SOCKET_ID_LEN {
            assert_eq!(SocketId::decode(&sample().encode()[..len], 0, None), None);
        }
    }
}
