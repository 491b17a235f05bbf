//! Why a capture cannot be read, or not to its end.

use std::fmt;
use std::io;

use pcap_parser::Linktype;
use thiserror::Error;

/// A capture that cannot be read (any further). What stood before the offset was read. Offsets count from 0, over the
/// bytes of the file.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// There is no byte.
    #[error("is empty: not even the header of a capture")]
    Empty,
    /// The first bytes begin none of the formats.
    #[error("is no capture: byte 0 begins neither pcap nor pcapng nor a netlink message ({reason})")]
    NotACapture {
        /// Why no netlink message.
        reason: String,
    },
    /// The file ends within something.
    #[error("is cut off at byte {end}: the {what} at byte {offset} has {wanted} bytes, {} are there", end - offset)]
    Truncated {
        /// What the end is within.
        what: &'static str,
        /// Where that begins.
        offset: u64,
        /// Bytes that it should have, at least.
        wanted: usize,
        /// Where the file ends.
        end: u64,
    },
    /// Something claims to be larger than any capture has it.
    #[error("is damaged at byte {offset}: a {what} of {len} bytes, where {most} are the most")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// Bytes that it claims.
        len: u64,
        /// Bytes that it may have.
        most: usize,
    },
    /// Something claims to be smaller than its own header.
    #[error("is damaged at byte {offset}: a {what} of {len} bytes, where {least} are the least")]
    TooSmall {
        /// What.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// Bytes that it claims.
        len: u64,
        /// Bytes that it has at least.
        least: usize,
    },
    /// A block of a pcapng file contradicts itself.
    #[error("is damaged at byte {offset}: a pcapng block of type {kind:#x} that contradicts itself")]
    Block {
        /// Where it begins.
        offset: u64,
        /// Its type.
        kind: u32,
    },
    /// A pcapng packet of the obsolete kind, which no program has written for long.
    #[error("has an obsolete packet block at byte {offset}: write it anew, with `editcap -F pcap`")]
    ObsoleteBlock {
        /// Where it begins.
        offset: u64,
    },
    /// A packet of an interface that was not described.
    #[error(
        "is damaged at byte {offset}: a packet of interface {interface}, which is not described before it"
    )]
    Interface {
        /// Where the packet's block begins.
        offset: u64,
        /// Number of the interface.
        interface: u32,
    },
    /// No netlink in it.
    #[error("has link type {found} (byte {offset}), not NETLINK (253): capture on an nlmon device")]
    LinkType {
        /// Where the file says so.
        offset: u64,
        /// What it is.
        found: LinkType,
    },
    /// A host of the other byte order wrote it.
    #[error(
        "is of a {other}-endian host (byte {offset}): netlink is in the byte order of its host, decode it on one like that"
    )]
    ByteOrder {
        /// Where the file says so.
        offset: u64,
        /// `big` or `little`.
        other: &'static str,
    },
    /// It cannot be read.
    #[error("cannot be read at byte {offset}: {source}")]
    Read {
        /// From where on.
        offset: u64,
        /// Why.
        source: io::Error,
    },
}

/// A link type by number, and by name where it has a known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkType(pub u32);

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = i32::try_from(self.0).ok().map(Linktype);
        match known {
            Some(
                name @ (Linktype::NULL
                | Linktype::ETHERNET
                | Linktype::FDDI
                | Linktype::RAW
                | Linktype::LOOP
                | Linktype::LINUX_SLL
                | Linktype::LINUX_SLL2
                | Linktype::IPV4
                | Linktype::IPV6
                | Linktype::NFLOG
                | Linktype::WIRESHARK_UPPER_PDU),
            ) => write!(f, "{name} ({})", self.0),
            Some(_) | None => write!(f, "{}", self.0),
        }
    }
}
