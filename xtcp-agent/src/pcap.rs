//! Captures of netlink conversations: classic pcap of link type NETLINK, as `nlmon` devices give it.
//!
//! Each packet is a 16-byte cooked header (`struct sockaddr_ll` in short: packet type, `ARPHRD_NETLINK`, an address, the
//! netlink protocol, all big-endian) and one datagram in the byte order of the host that sent it. `nlmon` leaves the
//! address empty; what this program writes has there the inode of the network namespace, since one file holds several.

mod error;
mod next_generation;
mod reader;
mod window;
mod writer;

pub use error::{CaptureError, LinkType};
pub use reader::{Captured, Format, Reader};
pub use writer::Writer;

/// `LINKTYPE_NETLINK` of the pcap formats.
pub const LINKTYPE_NETLINK: u32 = 253;
/// Bytes before the datagram in each packet.
pub const COOKED_LEN: usize = 16;
/// Largest packet that libpcap reads (`MAXIMUM_SNAPLEN`), cooked header included.
pub const MOST_BYTES: usize = 256 << 10;

/// `ARPHRD_NETLINK` of `linux/if_arp.h`.
const ARPHRD_NETLINK: u16 = 824;
/// Bytes of the address that tells the namespace.
const INODE_LEN: u16 = 4;

/// `NETLINK_SOCK_DIAG` of `linux/netlink.h`.
pub const NETLINK_SOCK_DIAG: u16 = 4;

/// Which way a datagram went, as the packet types of `linux/if_packet.h`. Captures of `nlmon` say `Request` of both:
/// the datagram's own flags are the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the kernel (`PACKET_OUTGOING`).
    Request,
    /// From the kernel (`PACKET_HOST`).
    Answer,
}

/// One datagram and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it went by, nanoseconds since the epoch; 0 when not known.
    pub timestamp_ns: i64,
    /// Which way.
    pub direction: Direction,
    /// Inode of the network namespace; 0 when not known.
    pub netns_inode: u32,
    /// Netlink protocol, such as [`NETLINK_SOCK_DIAG`].
    pub protocol: u16,
    /// Netlink messages in host byte order.
    pub datagram: &'a [u8],
}

impl Packet<'_> {
    /// The header that stands before the datagram.
    pub fn cooked_header(&self) -> [u8; COOKED_LEN] {
        let kind: u16 = match self.direction {
            Direction::Request => 4,
            Direction::Answer => 0,
        };
        let address_len = if self.netns_inode == 0 { 0 } else { INODE_LEN };
        let mut header = [0; COOKED_LEN];
        let fields = (kind.to_be_bytes().into_iter())
            .chain(ARPHRD_NETLINK.to_be_bytes())
            .chain(address_len.to_be_bytes())
            .chain(self.netns_inode.to_be_bytes())
            .chain([0; 4])
            .chain(self.protocol.to_be_bytes());
        for (to, from) in header.iter_mut().zip(fields) {
            *to = from;
        }
        header
    }
}

/// Four bytes of this machine's byte order; 0 where there are fewer.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk().copied()).map_or(0, u32::from_ne_bytes)
}

/// Two bytes of this machine's byte order; 0 where there are fewer.
pub(crate) fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk().copied()).map_or(0, u16::from_ne_bytes)
}
