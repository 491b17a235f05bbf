//! Every kind of file, and every way to damage one. Files are made by the writer, or by hand from the formats' own words.

use proptest::prelude::*;

use super::super::{Direction, Packet, Writer};
use super::*;

fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + payload.len()).unwrap();
    [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], payload].concat()
}

fn packets() -> [Packet<'static>; 3] {
    let packet = |timestamp_ns, direction, netns_inode, protocol, datagram| Packet {
        timestamp_ns,
        direction,
        netns_inode,
        protocol,
        datagram,
    };
    [
        packet(1_700_000_000_123_456_789, Direction::Request, 7, 4, b"one.".as_slice()),
        packet(1_700_000_001_000_000_000, Direction::Answer, 0, 0, b"".as_slice()),
        packet(1_700_000_002_000_001_000, Direction::Answer, u32::MAX, 4, b"three".as_slice()),
    ]
}

fn pcap_file() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    for packet in packets() {
        writer.packet(&packet).unwrap();
    }
    writer.into_inner()
}

/// A pcapng block with its lengths.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = u32::try_from(12 + body.len()).unwrap().to_ne_bytes();
    [&kind.to_ne_bytes()[..], &len, &body, &len].concat()
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap();
    let mut option = [&code.to_ne_bytes()[..], &len.to_ne_bytes(), value].concat();
    option.resize(option.len().next_multiple_of(4), 0);
    option
}

fn section() -> Vec<u8> {
    let fixed = [&0x1a2b_3c4d_u32.to_ne_bytes()[..], &1_u16.to_ne_bytes(), &[0; 2], &[0xff; 8]].concat();
    block(0x0a0d_0d0a, &[fixed, option(3, b"Linux 6.18"), option(0, b"")].concat())
}

fn interface(link: u16, options: &[Vec<u8>]) -> Vec<u8> {
    block(1, &[&link.to_ne_bytes()[..], &[0; 2], &[0; 4], &options.concat()].concat())
}

fn enhanced(interface: u32, ticks: u64, data: &[u8], options: &[Vec<u8>]) -> Vec<u8> {
    let (high, low) = ((ticks >> 32) as u32, (ticks & 0xffff_ffff) as u32);
    let len = u32::try_from(data.len()).unwrap();
    let mut body: Vec<u8> = [interface, high, low, len, len].into_iter().flat_map(u32::to_ne_bytes).collect();
    body.extend(data);
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend(options.concat());
    block(6, &body)
}

fn cooked(packet: &Packet<'_>) -> Vec<u8> {
    [&packet.cooked_header()[..], packet.datagram].concat()
}

/// Two sections, three interfaces, options everywhere, and blocks that are none of ours.
fn pcapng_file() -> Vec<u8> {
    let [one, two, three] = packets();
    let end = || option(0, b"");
    [
        section(),
        interface(1, &[option(2, b"eth0"), end()]),
        interface(253, &[option(2, b"nlmon0"), option(9, &[9]), end()]),
        enhanced(0, 5, b"ethernet of somebody", &[]),
        block(0x0bad, &[0; 40]),
        enhanced(1, 1_700_000_000_123_456_789, &cooked(&one), &[option(1, b"a comment"), end()]),
        block(0x7777_7777, b"who knows"),
        section(),
        interface(253, &[option(14, &1_700_000_001_i64.to_ne_bytes()), end()]),
        enhanced(0, 0, &cooked(&two), &[]),
        enhanced(0, 1_000_001, &cooked(&three), &[]),
        block(5, &[0; 12]),
    ]
    .concat()
}

fn raw_file() -> Vec<u8> {
    // The second is not padded to 4, as the last of a file need not be.
    [message(20, &[1; 8]), message(3, &[0; 3])].concat()
}

type Seen = (u64, i64, u32, u16, Vec<u8>);

/// A reader that gives a few bytes at a time, as a pipe may.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = buffer.len().min(self.0.len()).min(self.1);
        buffer[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

fn read_from(from: impl Read) -> (Vec<Seen>, u64, Option<CaptureError>) {
    let mut seen = Vec::new();
    let mut reader = match Reader::open(from) {
        Ok(reader) => reader,
        Err(error) => return (seen, 0, Some(error)),
    };
    loop {
        match reader.packet() {
            Ok(Some(packet)) => {
                let Captured { offset, timestamp_ns, netns_inode, protocol, datagram } = packet;
                seen.push((offset, timestamp_ns, netns_inode, protocol, datagram.to_vec()));
            }
            Ok(None) => return (seen, reader.other_links(), None),
            Err(error) => return (seen, reader.other_links(), Some(error)),
        }
    }
}

fn read(bytes: &[u8]) -> (Vec<Seen>, Option<String>) {
    let (seen, _, error) = read_from(bytes);
    (seen, error.map(|error| error.to_string()))
}

fn without_offsets(seen: &[Seen]) -> Vec<(i64, u32, u16, &[u8])> {
    seen.iter().map(|(_, at, netns, protocol, bytes)| (*at, *netns, *protocol, bytes.as_slice())).collect()
}

fn as_written() -> Vec<(i64, u32, u16, &'static [u8])> {
    packets().map(|packet| (packet.timestamp_ns, packet.netns_inode, packet.protocol, packet.datagram)).into()
}

#[test]
fn what_the_writer_wrote_is_read_as_it_was() {
    let (seen, error) = read(&pcap_file());
    assert_eq!((without_offsets(&seen), error), (as_written(), None));
    assert_eq!(seen.iter().map(|seen| seen.0).collect::<Vec<_>>(), [24, 60, 92]);
}

#[test]
fn microseconds_are_read_as_nanoseconds() {
    let mut file = pcap_file();
    file[..4].copy_from_slice(&0xa1b2_c3d4_u32.to_ne_bytes());
    file[28..32].copy_from_slice(&123_456_u32.to_ne_bytes());
    assert_eq!(read(&file).0[0].1, 1_700_000_000_123_456_000);
}

#[test]
fn sections_interfaces_options_and_foreign_blocks_of_pcapng_are_read() {
    let (seen, others, error) = read_from(pcapng_file().as_slice());
    assert_eq!(error.map(|error| error.to_string()), None);
    assert_eq!((without_offsets(&seen), others), (as_written(), 1));
}

#[test]
fn a_simple_packet_of_pcapng_has_no_time() {
    let [one, ..] = packets();
    let data = cooked(&one);
    let simple = block(3, &[&u32::try_from(data.len()).unwrap().to_ne_bytes()[..], &data].concat());
    let (seen, error) = read(&[section(), interface(253, &[]), simple].concat());
    assert_eq!((without_offsets(&seen), error), (vec![(0, 7, 4, one.datagram)], None));
}

#[test]
fn raw_messages_are_read_one_by_one() {
    let (seen, error) = read(&raw_file());
    assert_eq!(error, None);
    let expected = [(0, message(20, &[1; 8])), (24, message(3, &[0; 3]))];
    let found: Vec<_> = seen.into_iter().map(|(offset, .., bytes)| (offset, bytes)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_comes_byte_by_byte_is_the_same() {
    for file in [pcap_file(), pcapng_file(), raw_file()] {
        let whole = read(&file);
        for step in [1, 3, 17] {
            let (seen, _, error) = read_from(Drip(&file, step));
            assert_eq!((seen, error.map(|error| error.to_string())), whole);
        }
    }
}

#[test]
fn a_file_cut_anywhere_gives_what_was_whole_and_then_says_where_it_ends() {
    for file in [pcap_file(), pcapng_file(), raw_file()] {
        let (all, _) = read(&file);
        for len in 0..file.len() {
            let (seen, error) = read(&file[..len]);
            assert!(all.starts_with(&seen), "cut at {len}");
            // Between two packets it is only shorter.
            let Some(error) = error else { continue };
            let says_where = error.contains(&format!("cut off at byte {len}:"));
            let begins = len < 24 && (error.starts_with("is empty") || error.starts_with("is no capture"));
            assert!(says_where || begins, "cut at {len}: {error}");
        }
    }
}

#[test]
fn bad_files_say_what_is_wrong_and_where() {
    let with = |at: usize, bytes: &[u8]| {
        let mut file = pcap_file();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let nlmon = || [section(), interface(253, &[])].concat();
    let mut contradiction = enhanced(0, 0, &[0; 32], &[]);
    contradiction[20..24].copy_from_slice(&4_000_u32.to_ne_bytes());
    let mut huge_block = block(6, &[0; 40]);
    huge_block[4..8].copy_from_slice(&0xffff_fff0_u32.to_ne_bytes());
    let mut foreign_section = section();
    foreign_section[8..12].reverse();
    let cases: [(Vec<u8>, &str); 16] = [
        (vec![], "is empty: not even the header of a capture"),
        (
            vec![0; 4096],
            "is no capture: byte 0 begins neither pcap nor pcapng nor a netlink message (its length would be 0, less than its header's)",
        ),
        (
            b"hello, world: this is a text".to_vec(),
            "is no capture: byte 0 begins neither pcap nor pcapng nor a netlink message (its length would be 1819043176)",
        ),
        (
            with(0, &[0xa1, 0xb2, 0x3c, 0x4d]),
            "is of a big-endian host (byte 0): netlink is in the byte order of its host, decode it on one like that",
        ),
        (
            with(0, &[0xa1, 0xb2, 0xc3, 0xd4]),
            "is of a big-endian host (byte 0): netlink is in the byte order of its host, decode it on one like that",
        ),
        (
            foreign_section,
            "is of a big-endian host (byte 8): netlink is in the byte order of its host, decode it on one like that",
        ),
        (
            with(20, &[1, 0, 0, 0]),
            "has link type ETHERNET (1) (byte 20), not NETLINK (253): capture on an nlmon device",
        ),
        (
            with(20, &[200, 0, 0, 0]),
            "has link type 200 (byte 20), not NETLINK (253): capture on an nlmon device",
        ),
        (
            [section(), interface(113, &[]), enhanced(0, 0, &[0; 32], &[])].concat(),
            "has link type LINUX_SLL (113) (byte 56), not NETLINK (253): capture on an nlmon device",
        ),
        (
            with(32, &0xffff_ffff_u32.to_ne_bytes()),
            "is damaged at byte 24: a packet of 4294967295 bytes, where 262144 are the most",
        ),
        (
            with(32, &15_u32.to_ne_bytes()),
            "is damaged at byte 24: a packet of 15 bytes, where 16 are the least",
        ),
        (
            [nlmon(), contradiction].concat(),
            "is damaged at byte 68: a pcapng block of type 0x6 that contradicts itself",
        ),
        (
            [nlmon(), huge_block].concat(),
            "is damaged at byte 68: a pcapng block of 4294967280 bytes, where 16777216 are the most",
        ),
        (
            [nlmon(), enhanced(3, 0, &[0; 32], &[])].concat(),
            "is damaged at byte 68: a packet of interface 3, which is not described before it",
        ),
        (
            [nlmon(), block(2, &[0; 48])].concat(),
            "has an obsolete packet block at byte 68: write it anew, with `editcap -F pcap`",
        ),
        (
            [message(20, &[1; 8]), vec![0; 64]].concat(),
            "is damaged at byte 24: a netlink message of 0 bytes, where 16 are the least",
        ),
    ];
    for (file, expected) in cases {
        assert_eq!(read(&file).1.as_deref(), Some(expected));
    }
}

proptest! {
    #[test]
    fn no_byte_makes_the_reader_panic(kind in 0..3_usize, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut file = [pcap_file(), pcapng_file(), raw_file()][kind].clone();
        for (at, byte) in flips {
            let at = at.index(file.len());
            file[at] = byte;
        }
        read(&file);
    }

    #[test]
    fn noise_behind_a_header_does_not_make_the_reader_panic(kind in 0..3_usize, noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let header = [pcap_file()[..24].to_vec(), section(), Vec::new()][kind].clone();
        read(&[header, noise].concat());
    }
}
