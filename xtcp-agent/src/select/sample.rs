//! A share of all connections, the same everywhere: both ends of a connection, on whichever hosts, and all its rows, over
//! all of its life and under every agent, are in it or not.
//!
//! What decides is SipHash-2-4 under the key [`KEY`] of both ends, the smaller one first, each sixteen bytes of address
//! (IPv4 as a v4-mapped IPv6 address) and two of port, big-endian: a connection is in the share when the hash, as a fraction
//! of 2^64, is below it. A larger share contains every smaller one. Ends do not agree where addresses are translated or
//! masked between them. A listener's one end is its own.

use std::hash::Hasher;
use std::str::FromStr;

use siphasher::sip::SipHasher24;
use xtcp_inet_diag::socket_id::Family;

use super::facts::Facts;

/// Both halves of the key.
pub(super) const KEY: (u64, u64) = (0x7874_6370_3220_7361, 0x6d70_6c69_6e67_2031);

/// A share of all connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    /// From 0 to 1.
    share: f64,
    /// Hashes below are in it.
    below: u64,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "accepted: a number from 0 to 1, such as 0.01".to_owned();
        let share: f64 = text.parse().map_err(|_| wrong())?;
        if !(0.0..=1.0).contains(&share) {
            return Err(wrong());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a float becomes an integer by truncation, saturating at both ends"
        )]
        let below = (share * u64::MAX as f64) as u64;
        Ok(Self { share, below })
    }
}

impl Share {
    /// Whether it leaves nothing out.
    pub(super) fn is_all(self) -> bool {
        self.share >= 1.0
    }

    pub(super) fn takes(self, facts: &Facts) -> bool {
        hash(facts) < self.below
    }
}

pub(super) fn hash(facts: &Facts) -> u64 {
    let subject = &facts.subject;
    let end = |address: &[u8; 16], port: u16| (mapped(subject.family, address), port);
    let local = end(&subject.source, subject.source_port);
    let peer = end(&subject.destination, subject.destination_port);
    let mut hasher = SipHasher24::new_with_keys(KEY.0, KEY.1);
    for (address, port) in [local.min(peer), local.max(peer)] {
        hasher.write(&address);
        hasher.write(&port.to_be_bytes());
    }
    hasher.finish()
}

/// An IPv4 connection may have an IPv6 socket at one end, which knows the other's address as a mapped one.
fn mapped(family: u8, address: &[u8; 16]) -> [u8; 16] {
    match address {
        [a, b, c, d, ..] if family == Family::Inet.raw() => {
            std::net::Ipv4Addr::new(*a, *b, *c, *d).to_ipv6_mapped().octets()
        }
        _ => *address,
    }
}
