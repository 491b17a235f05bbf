//! pcapng: sections, their interfaces, and blocks of which only packets matter here.

use std::io::Read;

use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block as Parsed, parse_block_be, parse_block_le};

use super::reader::other_order;
use super::window::Window;
use super::{CaptureError, LINKTYPE_NETLINK, LinkType, MOST_BYTES, word};

/// Type and length, and the length again at the end.
const BLOCK_FRAME_LEN: usize = 12;
/// The byte order of a section, as one of this machine's order reads it.
const ORDER: u32 = 0x1a2b_3c4d;
/// The obsolete block of a packet.
const OBSOLETE_PACKET: u32 = 2;
/// Interfaces of one section at most: an `nlmon` device for each namespace of a large host.
const MOST_INTERFACES: usize = 1 << 16;
/// Largest block that is read, as Wireshark has it: some hold what others wrote of names and secrets.
const MOST_BLOCK_BYTES: usize = 16 << 20;

/// The section that is being read.
#[derive(Clone, Debug, Default)]
pub struct Section {
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    /// Where it is described.
    offset: u64,
    link: LinkType,
    ticks_per_s: u128,
    offset_s: i64,
}

/// What the next block is. Lengths are within the window, which holds all of it.
pub(super) enum Block {
    /// A packet of a NETLINK interface.
    Packet { timestamp_ns: i64, before: usize, len: usize, after: usize },
    /// Nothing to read.
    Other { len: usize, of_other_link: bool },
}

impl Section {
    /// Type of the block that begins a section; the same in both byte orders.
    pub(super) const MAGIC: u32 = 0x0a0d_0d0a;

    pub(super) fn block<R: Read>(&mut self, window: &mut Window<R>) -> Result<Block, CaptureError> {
        let offset = window.offset();
        let header = window.need(BLOCK_FRAME_LEN, "pcapng block")?;
        let (kind, len, order) = (word(header, 0), word(header, 4), word(header, 8));
        if kind == Self::MAGIC && order == ORDER.swap_bytes() {
            return Err(CaptureError::ByteOrder { offset: offset + 8, other: other_order() });
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len < BLOCK_FRAME_LEN || len % 4 != 0 {
            return Err(CaptureError::Block { offset, kind });
        }
        if len > MOST_BLOCK_BYTES {
            let (len, most) = (len as u64, MOST_BLOCK_BYTES);
            return Err(CaptureError::TooLarge { what: "pcapng block", offset, len, most });
        }
        let bytes = window.need(len, "pcapng block")?;
        if word(bytes, len - 4) as usize != len {
            return Err(CaptureError::Block { offset, kind });
        }
        let parse = if cfg!(target_endian = "little") { parse_block_le } else { parse_block_be };
        // All of it is there: what asks for more contradicts itself.
        let Ok((_, parsed)) = parse(bytes) else { return Err(CaptureError::Block { offset, kind }) };
        let other = Block::Other { len, of_other_link: false };
        match parsed {
            Parsed::SectionHeader(_) => self.interfaces.clear(),
            Parsed::InterfaceDescription(described) => {
                if self.interfaces.len() >= MOST_INTERFACES {
                    let (len, most) = (self.interfaces.len() as u64 + 1, MOST_INTERFACES);
                    return Err(CaptureError::TooLarge { what: "list of interfaces", offset, len, most });
                }
                self.interfaces.push(Interface {
                    offset,
                    link: LinkType(u32::try_from(described.linktype.0).unwrap_or(0)),
                    ticks_per_s: ticks_per_s(described.if_tsresol),
                    offset_s: described.if_tsoffset,
                });
            }
            Parsed::EnhancedPacket(packet) => {
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                if packet.caplen as usize > packet.packet_data().len() {
                    return Err(CaptureError::Block { offset, kind });
                }
                // Type, length, interface, two halves of the time, two lengths.
                return self.packet(offset, packet.if_id, Some(ticks), (28, packet.caplen as usize, len));
            }
            Parsed::SimplePacket(packet) => {
                return self.packet(offset, 0, None, (12, packet.packet_data().len(), len));
            }
            Parsed::Unknown(_) if kind == OBSOLETE_PACKET => {
                return Err(CaptureError::ObsoleteBlock { offset });
            }
            Parsed::NameResolution(_)
            | Parsed::InterfaceStatistics(_)
            | Parsed::SystemdJournalExport(_)
            | Parsed::DecryptionSecrets(_)
            | Parsed::ProcessInformation(_)
            | Parsed::Custom(_)
            | Parsed::Unknown(_) => {}
        }
        Ok(other)
    }

    /// A packet, of which `(before, len, whole)` bytes are those before its data, its data, and its block.
    fn packet(
        &self,
        offset: u64,
        interface: u32,
        ticks: Option<u64>,
        (before, len, whole): (usize, usize, usize),
    ) -> Result<Block, CaptureError> {
        let described = usize::try_from(interface).ok().and_then(|number| self.interfaces.get(number));
        let Some(described) = described else { return Err(CaptureError::Interface { offset, interface }) };
        if len > MOST_BYTES {
            return Err(CaptureError::TooLarge { what: "packet", offset, len: len as u64, most: MOST_BYTES });
        }
        if described.link.0 != LINKTYPE_NETLINK {
            // A file of several interfaces is fine as long as one of them is what we read.
            if self.interfaces.iter().any(|one| one.link.0 == LINKTYPE_NETLINK) {
                return Ok(Block::Other { len: whole, of_other_link: true });
            }
            let found = described.link;
            return Err(CaptureError::LinkType { offset: described.offset + 8, found });
        }
        let timestamp_ns = ticks.map_or(0, |ticks| described.nanoseconds(ticks));
        Ok(Block::Packet { timestamp_ns, before, len, after: whole - before - len })
    }
}

impl Interface {
    fn nanoseconds(&self, ticks: u64) -> i64 {
        let since = u128::from(ticks) * 1_000_000_000 / self.ticks_per_s.max(1);
        let whole = i128::try_from(since).unwrap_or(i128::MAX);
        let whole = whole.saturating_add(i128::from(self.offset_s) * 1_000_000_000);
        i64::try_from(whole).unwrap_or(0)
    }
}

/// `if_tsresol`: a negative power of 10, or of 2 with the highest bit.
fn ticks_per_s(resolution: u8) -> u128 {
    let power = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(power).unwrap_or(u128::MAX)
}
