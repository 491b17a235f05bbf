//! Reads captures as a stream: one packet in memory at a time, each thing that cannot be right an error with its offset.

use std::io::Read;

use super::next_generation::{Block, Section};
use super::window::Window;
use super::{
    ARPHRD_NETLINK, COOKED_LEN, CaptureError, INODE_LEN, LINKTYPE_NETLINK, LinkType, MOST_BYTES,
    NETLINK_SOCK_DIAG, word,
};

/// Bytes of a pcap file's header.
const FILE_HEADER_LEN: usize = 24;
/// Bytes before each packet.
const PACKET_HEADER_LEN: usize = 16;
/// Bytes of a netlink message's header.
const MESSAGE_HEADER_LEN: usize = xtcp_inet_diag::framing::HEADER_LEN;
/// The other bits of the header's word are about checksums of Ethernet.
const LINKTYPE_MASK: u32 = 0x03ff_ffff;

/// What kind of file it is.
#[derive(Clone, Debug)]
pub enum Format {
    /// Classic pcap.
    Pcap {
        /// Timestamps have nanoseconds, not microseconds.
        nanoseconds: bool,
    },
    /// pcapng.
    PcapNg(Section),
    /// Netlink messages one behind the other, without times.
    Raw,
}

/// One packet, or one message of a raw file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured<'a> {
    /// Where in the file it begins.
    pub offset: u64,
    /// When it went by, nanoseconds since the epoch; 0 where the file does not say.
    pub timestamp_ns: i64,
    /// Inode of the network namespace; 0 where the file does not say.
    pub netns_inode: u32,
    /// Netlink protocol; of raw files it is taken to be [`NETLINK_SOCK_DIAG`].
    pub protocol: u16,
    /// Netlink messages.
    pub datagram: &'a [u8],
}

/// A capture that is being read.
#[derive(Debug)]
pub struct Reader<R> {
    window: Window<R>,
    format: Format,
    other_links: u64,
}

impl<R: Read> Reader<R> {
    /// Finds out what kind of file it is.
    pub fn open(from: R) -> Result<Self, CaptureError> {
        let mut window = Window::new(from);
        let first = window.look(4)?;
        if first.is_empty() {
            return Err(CaptureError::Empty);
        }
        let magic = first.first_chunk().copied().map(u32::from_ne_bytes);
        let format = match magic {
            Some(0xa1b2_c3d4) => pcap(&mut window, false)?,
            Some(0xa1b2_3c4d) => pcap(&mut window, true)?,
            Some(0xd4c3_b2a1 | 0x4d3c_b2a1) => {
                return Err(CaptureError::ByteOrder { offset: 0, other: other_order() });
            }
            Some(Section::MAGIC) => Format::PcapNg(Section::default()),
            Some(_) | None => {
                raw_begins(&mut window)?;
                Format::Raw
            }
        };
        Ok(Self { window, format, other_links: 0 })
    }

    /// What kind of file it is.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Packets that were passed over because their interface has another link type than NETLINK (pcapng only).
    pub fn other_links(&self) -> u64 {
        self.other_links
    }

    /// The next packet; `None` at the end. After an error there is no next one.
    pub fn packet(&mut self) -> Result<Option<Captured<'_>>, CaptureError> {
        let Some(place) = self.locate()? else { return Ok(None) };
        let Place { offset, timestamp_ns, before, len, after, cooked } = place;
        let bytes = self.window.take(before + len + after).get(before..before + len).unwrap_or_default();
        let Some((header, datagram)) = bytes.split_first_chunk().filter(|_| cooked) else {
            let protocol = NETLINK_SOCK_DIAG;
            return Ok(Some(Captured { offset, timestamp_ns, netns_inode: 0, protocol, datagram: bytes }));
        };
        let (netns_inode, protocol) = uncook(header);
        Ok(Some(Captured { offset, timestamp_ns, netns_inode, protocol, datagram }))
    }

    /// Where the next packet is in the window, which holds all of it.
    fn locate(&mut self) -> Result<Option<Place>, CaptureError> {
        loop {
            let window = &mut self.window;
            let offset = window.offset();
            if window.look(1)?.is_empty() {
                return Ok(None);
            }
            return match &mut self.format {
                Format::Pcap { nanoseconds } => legacy_packet(window, *nanoseconds).map(Some),
                Format::Raw => raw_message(window).map(Some),
                Format::PcapNg(section) => match section.block(window)? {
                    Block::Packet { timestamp_ns, before, len, after } => {
                        cooked_fits(offset, len)?;
                        Ok(Some(Place { offset, timestamp_ns, before, len, after, cooked: true }))
                    }
                    Block::Other { len, of_other_link } => {
                        self.other_links += u64::from(of_other_link);
                        window.take(len);
                        continue;
                    }
                },
            };
        }
    }
}

/// A packet within the window: bytes before it that belong to it, its own, and behind it.
struct Place {
    offset: u64,
    timestamp_ns: i64,
    before: usize,
    len: usize,
    after: usize,
    /// It begins with a cooked header.
    cooked: bool,
}

pub(super) const fn other_order() -> &'static str {
    if cfg!(target_endian = "little") { "big" } else { "little" }
}

/// Namespace and netlink protocol.
fn uncook(header: &[u8; COOKED_LEN]) -> (u32, u16) {
    let [_, _, hatype_0, hatype_1, len_0, len_1, i_0, i_1, i_2, i_3, _, _, _, _, protocol_0, protocol_1] =
        *header;
    let says_inode = u16::from_be_bytes([hatype_0, hatype_1]) == ARPHRD_NETLINK
        && u16::from_be_bytes([len_0, len_1]) == INODE_LEN;
    let inode = if says_inode { u32::from_be_bytes([i_0, i_1, i_2, i_3]) } else { 0 };
    (inode, u16::from_be_bytes([protocol_0, protocol_1]))
}

/// A packet that has no room for a cooked header is a sign that lengths cannot be trusted any more.
fn cooked_fits(offset: u64, len: usize) -> Result<(), CaptureError> {
    if len < COOKED_LEN {
        return Err(CaptureError::TooSmall { what: "packet", offset, len: len as u64, least: COOKED_LEN });
    }
    Ok(())
}

fn pcap<R: Read>(window: &mut Window<R>, nanoseconds: bool) -> Result<Format, CaptureError> {
    let header = window.need(FILE_HEADER_LEN, "header of the file")?;
    let found = LinkType(word(header, 20) & LINKTYPE_MASK);
    if found.0 != LINKTYPE_NETLINK {
        return Err(CaptureError::LinkType { offset: 20, found });
    }
    window.take(FILE_HEADER_LEN);
    Ok(Format::Pcap { nanoseconds })
}

fn legacy_packet<R: Read>(window: &mut Window<R>, nanoseconds: bool) -> Result<Place, CaptureError> {
    let offset = window.offset();
    let header = window.need(PACKET_HEADER_LEN, "packet header")?;
    let (seconds, fraction, len) = (word(header, 0), word(header, 4), word(header, 8) as usize);
    if len > MOST_BYTES {
        return Err(CaptureError::TooLarge { what: "packet", offset, len: len as u64, most: MOST_BYTES });
    }
    cooked_fits(offset, len)?;
    window.need(PACKET_HEADER_LEN + len, "packet")?;
    let nanos = i64::from(fraction) * if nanoseconds { 1 } else { 1_000 };
    let timestamp_ns = i64::from(seconds) * 1_000_000_000 + nanos;
    Ok(Place { offset, timestamp_ns, before: PACKET_HEADER_LEN, len, after: 0, cooked: true })
}

/// The first message decides whether the file may be netlink at all.
fn raw_begins<R: Read>(window: &mut Window<R>) -> Result<(), CaptureError> {
    let header = window.look(MESSAGE_HEADER_LEN)?;
    let reason = if header.len() < MESSAGE_HEADER_LEN {
        format!("{} bytes are fewer than a header has", header.len())
    } else {
        match word(header, 0) as usize {
            len @ 0..MESSAGE_HEADER_LEN => format!("its length would be {len}, less than its header's"),
            len if len > MOST_BYTES => format!("its length would be {len}"),
            _ => return Ok(()),
        }
    };
    Err(CaptureError::NotACapture { reason })
}

fn raw_message<R: Read>(window: &mut Window<R>) -> Result<Place, CaptureError> {
    let what = "netlink message";
    let offset = window.offset();
    let len = word(window.need(MESSAGE_HEADER_LEN, "header of the netlink message")?, 0) as usize;
    if len < MESSAGE_HEADER_LEN {
        return Err(CaptureError::TooSmall { what, offset, len: len as u64, least: MESSAGE_HEADER_LEN });
    }
    if len > MOST_BYTES {
        return Err(CaptureError::TooLarge { what, offset, len: len as u64, most: MOST_BYTES });
    }
    window.need(len, what)?;
    // The last one of a file need not be padded.
    let padded = window.look(len.next_multiple_of(4))?.len();
    Ok(Place { offset, timestamp_ns: 0, before: 0, len, after: padded - len, cooked: false })
}

#[cfg(test)]
#[path = "reader/tests.rs"]
mod tests;
