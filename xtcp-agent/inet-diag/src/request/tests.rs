use std::vec::Vec;

use super::*;
use crate::framing::{Body, Messages};
use crate::socket_id::NO_COOKIE;

fn body(bytes: &[u8]) -> &[u8] {
    let message = Messages::new(bytes).next().unwrap().unwrap();
    let Body::Data { payload } = message.body else { panic!("{:?}", message.body) };
    payload
}

#[test]
fn the_dump_of_both_families_is_the_old_request() {
    let bytes = DumpBoth { states: States::ALL, extensions: Extensions::ALL_WANTED }.to_bytes(9);
    let header = Messages::new(&bytes).next().unwrap().unwrap().header;
    assert_eq!((header.len, header.kind, header.flags, header.seq, header.pid), (76, 18, 0x301, 9, 0));
    let body = body(&bytes);
    assert_eq!(body[..4], [2, 0, 0, 0xfe]);
    assert_eq!(body[4..52], [0; 48]);
    assert_eq!(body[52..56], 0x3ffe_u32.to_ne_bytes());
    assert_eq!(body[56..], [0; 4]);
}

#[test]
fn the_dump_of_one_family_is_inet_diag_req_v2() {
    let states = States::parse("established").unwrap();
    let extensions = Extensions::INFO | Extensions::CONG;
    let request = Dump { family: Family::Inet6, protocol: Protocol::UDP, states, extensions };
    let bytes = request.to_bytes(1);
    let header = Messages::new(&bytes).next().unwrap().unwrap().header;
    assert_eq!((header.len, header.kind, header.flags), (72, 20, 0x301));
    assert_eq!(body(&bytes)[..4], [10, 17, 0b1010, 0]);
    assert_eq!(body(&bytes)[4..8], 2_u32.to_ne_bytes());
}

#[test]
fn a_lookup_carries_the_socket_and_no_dump_flag() {
    let id = SocketId { source_port: 0x1234, destination_port: 80, cookie: 7, ..SocketId::default() };
    let lookup = Lookup { family: Family::Inet, protocol: Protocol::TCP, id, extensions: Extensions::NONE };
    let bytes = lookup.to_bytes(3);
    let header = Messages::new(&bytes).next().unwrap().unwrap().header;
    assert_eq!((header.kind, header.flags, header.seq), (20, 1, 3));
    assert_eq!(body(&bytes)[8..10], [0x12, 0x34]);
    assert_eq!(SocketId::decode(body(&bytes), 8, Some(Family::Inet)), Some(id));
    let any = Lookup { id: SocketId { cookie: NO_COOKIE, ..id }, ..lookup };
    assert_eq!(body(&any.to_bytes(3))[48..56], [0xff; 8]);
}

#[test]
fn requests_line_up_in_one_buffer_until_it_is_full() {
    let mut buffer = [0xaa; 160];
    let mut requests = Requests::new(&mut buffer);
    assert!(requests.is_empty());
    let id = SocketId::default();
    let lookup = Lookup { family: Family::Inet, protocol: Protocol::TCP, id, extensions: Extensions::NONE };
    requests.push(&lookup.to_bytes(1)).unwrap();
    requests.push(&lookup.to_bytes(2)).unwrap();
    assert_eq!(requests.push(&lookup.to_bytes(3)), Err(BufferFull { wanted: 72, available: 16 }));
    assert_eq!((requests.count(), requests.as_bytes().len()), (2, 144));
    assert!(Messages::new(requests.as_bytes()).map(|message| message.unwrap().header.seq).eq([1, 2]));
    requests.clear();
    assert!(requests.as_bytes().is_empty());
}

#[test]
fn all_wanted_leaves_out_only_meminfo() {
    assert_eq!(Extensions::ALL_WANTED.bits(), 0b1111_1110);
    assert!(Extensions::ALL_WANTED.contains(Extensions::INFO | Extensions::SHUTDOWN));
    assert_eq!(Extensions::ALL_WANTED | Extensions::MEMINFO, Extensions::ALL);
    assert_eq!(Extensions::ALL.without(Extensions::ALL_WANTED), Extensions::MEMINFO);
}

#[test]
fn a_filter_a_wide_protocol_and_storages_are_attributes() {
    let text = "dport = :443 and src 10.0.0.0/8";
    let filter = &crate::filter::Filter::parse(text).unwrap().compile(&crate::filter::NoNames).unwrap();
    let both = DumpBoth { states: States::ALL, extensions: Extensions::NONE };
    let bytes = both.to_bytes_with(1, &Extras { filter, bpf_storages: false });
    let attribute = &bytes[DUMP_BOTH_LEN..];
    assert_eq!(attribute[..4], [4 + 24, 0, 1, 0]);
    assert_eq!(attribute[4..], *filter.as_bytes());
    assert_eq!(bytes[..4], 104_u32.to_ne_bytes());
    // D_EQ 443, else beyond the end; S_COND AF_INET /8, any port, 10.0.0.0.
    let eq = [12, 8, 28, 0, 0, 0, 0xbb, 1];
    let cond = [7, 16, 20, 0, 2, 8, 0, 0, 0xff, 0xff, 0xff, 0xff, 10, 0, 0, 0];
    assert_eq!(filter.as_bytes(), [eq.as_slice(), &cond].concat());

    let protocol = Protocol::MPTCP;
    let dump = Dump { family: Family::Inet6, protocol, states: States::ALL, extensions: Extensions::INFO };
    let bytes = dump.to_bytes_with(1, &Extras { filter, bpf_storages: true });
    assert_eq!(body(&bytes)[1], 0);
    assert_eq!(bytes[DUMP_LEN..DUMP_LEN + 12], [8, 0, 3, 0, 6, 1, 0, 0, 4, 0, 2, 0]);
    assert_eq!(bytes[DUMP_LEN + 12..], *attribute);
    let lookup =
        Lookup { family: Family::Inet, protocol, id: SocketId::default(), extensions: Extensions::INFO };
    assert_eq!(lookup.to_bytes(1).len(), LOOKUP_MAX);
}

#[test]
fn the_longest_filter_fits_into_a_request() {
    // 24 bytes for each port that has no neighbour.
    let ports: Vec<u16> = (0..170).map(|port| port * 2).collect();
    let filter = &Program::no_port_of(&ports).unwrap();
    assert_eq!(filter.as_bytes().len(), PROGRAM_MAX - PROGRAM_MAX % 24);
    let dump = Dump {
        family: Family::Inet,
        protocol: Protocol::MPTCP,
        states: States::ALL,
        extensions: Extensions::ALL,
    };
    let bytes = dump.to_bytes_with(1, &Extras { filter, bpf_storages: true });
    assert!(bytes.ends_with(filter.as_bytes()));
    assert_eq!(bytes.len(), DUMP_LEN + 8 + 4 + 4 + filter.as_bytes().len());
}
