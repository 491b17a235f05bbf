//! The requests against the running kernel: it understands them, and answers as the documentation of
//! [`xtcp_inet_diag::request`] says. Needs a Linux with inet_diag, and no privilege.
//!
//! Sound because only sockets that the test holds open are looked for, by ports that the kernel chose.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that panics is a test that fails"
)]

use std::net::{TcpListener, TcpStream};

use netlink_sys::protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use netlink_sys::{Socket, SocketAddr};
use xtcp_inet_diag::framing::{Body, Messages, NLM_F_CAPPED, TCPDIAG_GETSOCK};
use xtcp_inet_diag::message::{Header, decode};
use xtcp_inet_diag::request::{Dump, DumpBoth, Extensions, Lookup, Protocol, Requests};
use xtcp_inet_diag::socket_id::{Family, NO_COOKIE, SocketId};
use xtcp_inet_diag::state::{State, States};

/// A listener with its connections, both ends of each.
struct Peers {
    listener: TcpListener,
    pairs: Vec<(TcpStream, TcpStream)>,
}

impl Peers {
    fn new(address: &str, connections: usize) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let pairs = (0..connections)
            .map(|_| (TcpStream::connect(to).unwrap(), listener.accept().unwrap().0))
            .collect();
        Self { listener, pairs }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Ports of the connecting ends.
    fn clients(&self) -> Vec<u16> {
        self.pairs.iter().map(|(client, _)| client.local_addr().unwrap().port()).collect()
    }
}

/// One message of an answer, taken out of its datagram.
#[derive(Debug, PartialEq)]
enum Answer {
    Row { seq: u32, kind: u16, header: Header, has_tcp_info: bool },
    Failed { seq: u32, errno: i32, request: Option<u32> },
    Done,
}

fn answers(datagram: &[u8]) -> Vec<Answer> {
    let one = |message: Result<xtcp_inet_diag::framing::Message<'_>, _>| {
        let message = message.unwrap();
        let seq = message.header.seq;
        match message.body {
            Body::Data { payload } => {
                let row = decode(payload).unwrap();
                assert!(row.malformed.is_empty() && row.damage.is_none(), "{row:?}");
                let has_tcp_info = row.attributes.info.is_some();
                Answer::Row { seq, kind: message.header.kind, header: row.header, has_tcp_info }
            }
            Body::Error { errno, request, .. } => {
                Answer::Failed { seq, errno, request: request.map(|header| header.seq) }
            }
            Body::Done { status: 0, .. } => Answer::Done,
            body => panic!("{body:?}"),
        }
    };
    Messages::new(datagram).map(one).collect()
}

/// Sends the requests at once and receives until a dump is done or `count` messages came.
fn ask(request: &[u8], count: usize) -> Vec<Answer> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).unwrap();
    socket.bind_auto().unwrap();
    socket.send_to(request, &SocketAddr::new(0, 0), 0).unwrap();
    let mut all = Vec::new();
    while all.len() < count && all.last() != Some(&Answer::Done) {
        all.extend(answers(&socket.recv_from_full().unwrap().0));
    }
    all
}

fn dump_rows(request: &[u8]) -> Vec<(u16, Header)> {
    ask(request, usize::MAX)
        .into_iter()
        .filter_map(|answer| match answer {
            Answer::Row { kind, header, .. } => Some((kind, header)),
            Answer::Done => None,
            Answer::Failed { .. } => panic!("{answer:?}"),
        })
        .collect()
}

/// The headers of the connecting ends.
fn client_rows(peers: &Peers) -> Vec<Header> {
    let request = DumpBoth { states: States::from(State::Established), extensions: Extensions::NONE };
    let rows = dump_rows(&request.to_bytes(1));
    let client = |port| {
        let is_it = |row: &Header| row.id.source_port == port && row.id.destination_port == peers.port();
        rows.iter().map(|(_, row)| *row).find(is_it).unwrap()
    };
    peers.clients().into_iter().map(client).collect()
}

#[test]
fn the_old_request_dumps_both_families_in_one_pass() {
    let (four, six) = (Peers::new("127.0.0.1", 2), Peers::new("::1", 2));
    let request = DumpBoth { states: States::DEFAULT, extensions: Extensions::ALL_WANTED };
    let rows = dump_rows(&request.to_bytes(7));
    for (peers, family) in [(&four, Family::Inet), (&six, Family::Inet6)] {
        let of = |state| {
            let is_it = |(kind, row): &&(u16, Header)| {
                assert_eq!(*kind, TCPDIAG_GETSOCK);
                row.id.source_port == peers.port()
                    && row.state() == Some(state)
                    && row.family() == Some(family)
            };
            rows.iter().filter(is_it).count()
        };
        assert_eq!((of(State::Listen), of(State::Established)), (1, 2), "{family:?}");
    }
}

#[test]
fn a_dump_by_family_yields_that_family_and_those_states() {
    let (four, six) = (Peers::new("127.0.0.1", 1), Peers::new("::1", 1));
    for (family, own, other) in [(Family::Inet, &four, &six), (Family::Inet6, &six, &four)] {
        let states = States::from(State::Listen);
        let request = Dump { family, protocol: Protocol::TCP, states, extensions: Extensions::INFO };
        let rows = dump_rows(&request.to_bytes(1));
        assert!(rows.iter().all(|(_, row)| row.family() == Some(family) && states.shows(row.state)));
        let ports: Vec<_> = rows.iter().map(|(_, row)| row.id.source_port).collect();
        assert!(ports.contains(&own.port()) && !ports.contains(&other.port()));
    }
}

#[test]
fn sixteen_lookups_in_one_send_are_answered_in_order() {
    for address in ["127.0.0.1", "::1"] {
        let peers = Peers::new(address, 16);
        let rows = client_rows(&peers);
        let mut buffer = [0; 16 * 72];
        let mut requests = Requests::new(&mut buffer);
        for (row, seq) in rows.iter().zip(100..) {
            requests.push(&Lookup::of(row, Extensions::ALL_WANTED).unwrap().to_bytes(seq)).unwrap();
        }
        let answers = ask(requests.as_bytes(), 16);
        for ((answer, row), expected) in answers.iter().zip(&rows).zip(100..) {
            let Answer::Row { seq, kind: 20, header, has_tcp_info: true } = answer else {
                panic!("{answer:?}")
            };
            assert_eq!((*seq, header.id), (expected, row.id));
        }
        assert_eq!(answers.len(), 16);
    }
}

#[test]
fn a_missing_socket_and_a_foreign_cookie_are_enoent_and_leave_their_neighbours() {
    let peers = Peers::new("127.0.0.1", 1);
    let found = Lookup::of(&client_rows(&peers)[0], Extensions::NONE).unwrap();
    let gone = Lookup { id: SocketId { source_port: 1, destination_port: 1, ..found.id }, ..found };
    let other = Lookup { id: SocketId { cookie: found.id.cookie ^ 1 << 40, ..found.id }, ..found };
    let mut buffer = [0; 4 * 72];
    let mut requests = Requests::new(&mut buffer);
    for (lookup, seq) in [gone, found, other, found].into_iter().zip(1..) {
        requests.push(&lookup.to_bytes(seq)).unwrap();
    }
    let answers = ask(requests.as_bytes(), 4);
    for (index, seq) in [(0, 1), (2, 3)] {
        assert_eq!(answers[index], Answer::Failed { seq, errno: 2, request: Some(seq) });
    }
    for index in [1, 3] {
        let Answer::Row { header, .. } = &answers[index] else { panic!("{answers:?}") };
        assert_eq!(header.id, found.id);
    }
}

#[test]
fn without_a_cookie_a_connection_that_is_gone_is_answered_with_its_listener() {
    let peers = Peers::new("127.0.0.1", 0);
    let mut loopback = [0; 16];
    loopback[..4].copy_from_slice(&[127, 0, 0, 1]);
    let id = SocketId {
        source_port: peers.port(),
        destination_port: 1,
        source: loopback,
        destination: loopback,
        interface: 0,
        cookie: NO_COOKIE,
    };
    let lookup = Lookup { family: Family::Inet, protocol: Protocol::TCP, id, extensions: Extensions::NONE };
    let answers = ask(&lookup.to_bytes(1), 1);
    let [Answer::Row { header, .. }] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!((header.state(), header.id.destination_port), (Some(State::Listen), 0));
}

/// rtnetlink, because inet_diag never says more than an errno. `RTM_GETNSID` by the pid of nobody.
#[test]
fn an_error_says_in_words_what_is_wrong_and_where() {
    let attribute = [&8_u16.to_ne_bytes()[..], &2_u16.to_ne_bytes(), &(i32::MAX).to_ne_bytes()].concat();
    let payload = [&[0; 4], &attribute[..]].concat();
    let length = u32::try_from(16 + payload.len()).unwrap();
    let request = [
        &length.to_ne_bytes()[..],
        &90_u16.to_ne_bytes(),
        &1_u16.to_ne_bytes(),
        &7_u32.to_ne_bytes(),
        &[0; 4],
        &payload,
    ]
    .concat();
    for capped in [false, true] {
        let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
        socket.set_ext_ack(true).unwrap();
        socket.set_cap_ack(capped).unwrap();
        socket.bind_auto().unwrap();
        socket.send_to(&request, &SocketAddr::new(0, 0), 0).unwrap();
        let (answer, _) = socket.recv_from_full().unwrap();
        let message = Messages::new(&answer).next().unwrap().unwrap();
        let Body::Error { errno, request: Some(about), extended } = message.body else {
            panic!("{message:?}")
        };
        assert_eq!((errno, about.len, about.seq), (3, length, 7), "no such process");
        assert_eq!(extended.message, Some("Peer netns reference is invalid"));
        assert_eq!((extended.offset, extended.missing), (Some(20), None), "behind both headers");
        assert_eq!(message.header.flags & NLM_F_CAPPED != 0, capped);
    }
}
