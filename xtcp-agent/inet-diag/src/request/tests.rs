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
