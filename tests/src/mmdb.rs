//! Writes small databases in MaxMind's published format, version 2.0: networks and the number of the autonomous system
//! that announces each.

use std::net::{IpAddr, Ipv4Addr};

/// What a branch of the tree leads to.
#[derive(Clone, Copy)]
enum Link {
    Nothing,
    Node(u32),
    Data(u32),
}

/// Bits of a record of the tree.
const RECORD_BITS: u16 = 24;

/// A database of networks (address, prefix length), which do not overlap, and their numbers.
pub fn asn_database(networks: &[(IpAddr, u8, u32)]) -> Vec<u8> {
    let mut nodes = vec![[Link::Nothing; 2]];
    let mut data = Vec::new();
    for (address, length, asn) in networks {
        // IPv4 is in ::/96 of an IPv6 tree.
        let (bits, length) = match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), 96 + usize::from(*length)),
            IpAddr::V6(v6) => (v6.to_bits(), usize::from(*length)),
        };
        let offset = u32::try_from(data.len()).expect("a small database");
        map(&mut data, 2);
        text(&mut data, "autonomous_system_number");
        number(&mut data, 6, &asn.to_be_bytes());
        text(&mut data, "autonomous_system_organization");
        text(&mut data, "an organisation");
        let mut at = 0;
        for depth in 0..length {
            let side = usize::from(bits >> (127 - depth) & 1 == 1);
            if depth + 1 == length {
                nodes[at][side] = Link::Data(offset);
                break;
            }
            at = if let Link::Node(next) = nodes[at][side] {
                next as usize
            } else {
                nodes[at][side] = Link::Node(u32::try_from(nodes.len()).expect("a small database"));
                nodes.push([Link::Nothing; 2]);
                nodes.len() - 1
            };
        }
    }
    let count = u32::try_from(nodes.len()).expect("a small database");
    let mut out = Vec::new();
    for link in nodes.iter().flatten() {
        let value = match link {
            Link::Nothing => count,
            Link::Node(node) => *node,
            Link::Data(offset) => count + 16 + offset,
        };
        out.extend(&value.to_be_bytes()[1..]);
    }
    out.extend([0; 16]);
    out.extend(data);
    out.extend(b"\xab\xcd\xefMaxMind.com");
    metadata(&mut out, count);
    out
}

/// An IPv4 network for [`asn_database`].
pub fn v4(a: u8, b: u8, c: u8, d: u8, length: u8, asn: u32) -> (IpAddr, u8, u32) {
    (Ipv4Addr::new(a, b, c, d).into(), length, asn)
}

fn metadata(out: &mut Vec<u8>, count: u32) {
    map(out, 9);
    text(out, "node_count");
    number(out, 6, &count.to_be_bytes());
    for (key, value) in [
        ("record_size", RECORD_BITS),
        ("ip_version", 6),
        ("binary_format_major_version", 2),
        ("binary_format_minor_version", 0),
    ] {
        text(out, key);
        number(out, 5, &value.to_be_bytes());
    }
    text(out, "database_type");
    text(out, "Test-ASN");
    text(out, "languages");
    // An array (type 11, of the extended ones) of none.
    out.extend([0, 4]);
    text(out, "build_epoch");
    // 64 bits are type 9, of the extended ones.
    out.extend([8, 2]);
    out.extend(1_700_000_000_u64.to_be_bytes());
    text(out, "description");
    map(out, 0);
}

fn map(out: &mut Vec<u8>, entries: u8) {
    out.push(7 << 5 | entries);
}

/// A number of type 5 (16 bits) or 6 (32 bits).
fn number(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind << 5 | u8::try_from(bytes.len()).expect("at most four bytes"));
    out.extend(bytes);
}

/// A text of fewer than 285 bytes.
fn text(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()).expect("a short text") {
        length @ 0..29 => out.push(2 << 5 | length),
        length => out.extend([(2 << 5) + 29, length - 29]),
    }
    out.extend(text.as_bytes());
}
