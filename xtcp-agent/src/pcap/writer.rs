//! Writes classic pcap with nanoseconds, in the byte order of this machine like the datagrams themselves: what tcpdump and
//! tshark read without being told anything.

use std::io::{self, Write};

use super::{COOKED_LEN, LINKTYPE_NETLINK, MOST_BYTES, Packet};

/// Magic number of a file whose timestamps have nanoseconds.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const NANOS_PER_S: i64 = 1_000_000_000;

/// A capture that is being written.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
    packets: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the file's header. `to` gets two small writes for each packet: give it a buffer.
    pub fn new(mut to: W) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC_NANOSECONDS.to_ne_bytes());
        // Version 2.4.
        header.extend(2_u16.to_ne_bytes());
        header.extend(4_u16.to_ne_bytes());
        // Time zone and accuracy, which nobody fills.
        header.extend([0; 8]);
        header.extend(u32::try_from(MOST_BYTES).unwrap_or(u32::MAX).to_ne_bytes());
        header.extend(LINKTYPE_NETLINK.to_ne_bytes());
        to.write_all(&header)?;
        Ok(Self { to, packets: 0 })
    }

    /// Adds one datagram. A time that the format cannot hold (before 1970, after 2106) becomes 0.
    ///
    /// # Errors
    ///
    /// When it cannot be written, and (`InvalidInput`, nothing written) when it is larger than readers take.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let len = COOKED_LEN + packet.datagram.len();
        let Some(len) = u32::try_from(len).ok().filter(|_| len <= MOST_BYTES) else {
            let text = format!("datagram of {} bytes is larger than a capture holds", packet.datagram.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        let at_ns = packet.timestamp_ns.max(0);
        let seconds = u32::try_from(at_ns / NANOS_PER_S);
        let nanos = u32::try_from(at_ns % NANOS_PER_S);
        let (seconds, nanos) = seconds.ok().zip(nanos.ok()).unwrap_or_default();
        let mut header = Vec::with_capacity(16 + COOKED_LEN);
        for word in [seconds, nanos, len, len] {
            header.extend(word.to_ne_bytes());
        }
        header.extend(packet.cooked_header());
        self.to.write_all(&header)?;
        self.to.write_all(packet.datagram)?;
        self.packets += 1;
        Ok(())
    }

    /// Packets written so far.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Hands everything on to the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// What was written to. Flush before.
    pub fn into_inner(self) -> W {
        self.to
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Direction, NETLINK_SOCK_DIAG};
    use super::*;

    fn packet(datagram: &[u8]) -> Packet<'_> {
        Packet {
            timestamp_ns: 1_700_000_000_123_456_789,
            direction: Direction::Request,
            netns_inode: 0xf000_0001,
            protocol: NETLINK_SOCK_DIAG,
            datagram,
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_file_is_a_header_and_packets_behind_their_lengths() {
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.packet(&packet(b"abc")).unwrap();
        assert_eq!(writer.packets(), 1);
        let bytes = writer.into_inner();
        assert_eq!(bytes[..24], hex("4d3cb2a1 0200 0400 00000000 00000000 00000400 fd000000"));
        assert_eq!(bytes[24..40], hex("00f15365 15cd5b07 13000000 13000000"));
        assert_eq!(bytes[40..], hex("0004 0338 0004 f0000001 00000000 0004 616263"));
    }

    #[test]
    fn an_answer_of_no_known_namespace_has_an_empty_address() {
        let packet = Packet { direction: Direction::Answer, netns_inode: 0, ..packet(b"") };
        assert_eq!(packet.cooked_header()[..], hex("0000 0338 0000 00000000 00000000 0004"));
    }

    #[test]
    fn a_datagram_that_no_reader_takes_is_refused_whole() {
        let mut writer = Writer::new(Vec::new()).unwrap();
        let error = writer.packet(&packet(&vec![0; MOST_BYTES])).unwrap_err();
        assert_eq!(error.to_string(), "datagram of 262144 bytes is larger than a capture holds");
        assert_eq!(writer.into_inner().len(), 24);
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }
}
