//! The decoder against what the scenarios did, on every kernel: numbers of bytes, relations between both ends of a
//! connection, and what kinds of rows have and lack. What a socket said of itself is compared in `truth.rs`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xtcp_inet_diag::attr::info::TcpInfo;
use xtcp_inet_diag::framing::{Body, Messages, TCPDIAG_GETSOCK};
use xtcp_inet_diag::message::{Decoded, decode};
use xtcp_inet_diag::socket_id::Family;
use xtcp_inet_diag::state::{State, States};

use super::fixtures::{Capture, SOCK_DIAG, captures, every_datagram, payloads};

/// A scenario on one kernel: what all of its answers decode to.
pub(crate) struct Scene {
    pub(crate) name: String,
    pub(crate) version: (u32, u32),
    /// Each request with its rows.
    answers: Vec<(&'static [u8], Vec<Decoded<'static>>)>,
}

impl Scene {
    fn new(capture: &'static Capture) -> Self {
        let exchanges = capture.exchanges().into_iter().filter(|(request, _)| request.protocol == SOCK_DIAG);
        let rows = |answers: &[&'static [u8]]| -> Vec<_> {
            payloads(answers).into_iter().map(|payload| decode(payload).unwrap()).collect()
        };
        Self {
            name: capture.name(),
            version: capture.version(),
            answers: exchanges.map(|(request, answers)| (&*request.datagram, rows(&answers))).collect(),
        }
    }

    /// The rows of the first dump: all of TCP, every attribute.
    pub(crate) fn rows(&self) -> &[Decoded<'static>] {
        &self.answers[0].1
    }

    /// The only row that is it.
    pub(crate) fn only(&self, is_it: impl Fn(&Decoded<'static>) -> bool) -> Decoded<'static> {
        let found: Vec<_> = self.rows().iter().filter(|row| is_it(row)).copied().collect();
        let [row] = found[..] else { panic!("{}: {found:#?}", self.name) };
        row
    }

    /// The end of a connection of this port that listened, and the end that connected.
    pub(crate) fn ends(&self, port: u16, family: Family) -> (Decoded<'static>, Decoded<'static>) {
        let is =
            |row: &Decoded<'_>| row.header.family() == Some(family) && row.header.id.destination_port != 0;
        (
            self.only(|row| is(row) && row.header.id.source_port == port),
            self.only(|row| is(row) && row.header.id.destination_port == port),
        )
    }
}

/// A scenario on every kernel that has it: at least two.
pub(crate) fn scenes(name: &str) -> Vec<Scene> {
    let found: Vec<_> =
        captures().iter().filter(|capture| capture.scenario == name).map(Scene::new).collect();
    assert!(!found.is_empty(), "no kernel has {name}");
    found
}

/// The `tcp_info` of a row that has it.
pub(crate) fn info<'a>(row: &Decoded<'a>) -> TcpInfo<'a> {
    row.attributes.info.unwrap()
}

#[test]
fn one_pass_over_both_families_is_what_the_dumps_of_each_say() {
    for scene in
        ["established", "ipv6", "v4-mapped", "time-wait", "syn-recv", "bound"].into_iter().flat_map(scenes)
    {
        let cookies = |index: usize| -> BTreeSet<_> {
            let rows = &scene.answers[index].1;
            let distinct: BTreeSet<u64> = rows.iter().map(|row| row.header.id.cookie).collect();
            assert_eq!(distinct.len(), rows.len(), "{}: a socket comes twice", scene.name);
            distinct
        };
        // In this order: both, IPv4, IPv6, both without attributes.
        let each: BTreeSet<_> = cookies(1).union(&cookies(2)).copied().collect();
        assert_eq!(cookies(0), each, "{}", scene.name);
        assert_eq!(cookies(0), cookies(3), "{}", scene.name);
        assert!(scene.answers[1].1.iter().all(|row| row.header.family() == Some(Family::Inet)));
        assert!(scene.answers[2].1.iter().all(|row| row.header.family() == Some(Family::Inet6)));
    }
}

#[test]
fn a_dump_ends_with_done_and_its_rows_are_parts_of_it() {
    for capture in captures() {
        let exchanges = capture.exchanges().into_iter().filter(|(request, _)| request.protocol == SOCK_DIAG);
        for (request, answers) in
            exchanges.filter(|(request, _)| request.datagram[4..6] == TCPDIAG_GETSOCK.to_ne_bytes())
        {
            let messages: Vec<_> = answers
                .iter()
                .flat_map(|datagram| Messages::new(datagram))
                .collect::<Result<_, _>>()
                .unwrap();
            let (last, rows) = messages.split_last().unwrap();
            assert!(matches!(last.body, Body::Done { status: 0, .. }), "{}: {last:?}", capture.name());
            assert!(rows.iter().all(|row| row.is_socket() && row.is_multipart()), "{}", capture.name());
            assert!(
                messages.iter().all(|message| message.header.seq.to_ne_bytes() == request.datagram[8..12])
            );
        }
    }
}

#[test]
fn half_closed_ends_say_which_half() {
    for scene in scenes("closing-states") {
        for row in scene.rows().iter().filter(|row| row.header.id.destination_port != 0) {
            let shutdown = row.attributes.shutdown.unwrap();
            let (send, receive) = match row.header.state().unwrap() {
                State::FinWait1 | State::FinWait2 => (true, false),
                State::CloseWait => (false, true),
                State::LastAck | State::Closing => (true, true),
                _ => (false, false),
            };
            assert_eq!((shutdown.send(), shutdown.receive()), (send, receive), "{}: {row:#?}", scene.name);
        }
    }
}

#[test]
fn a_v4_mapped_socket_is_an_ipv6_row_and_an_ipv4_address_is_in_the_first_four_bytes() {
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    for scene in scenes("v4-mapped") {
        let rows = scene.rows().iter().filter(|row| row.header.id.source == mapped.octets());
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows.len(), 3, "{}: a client and two servers", scene.name);
        for row in rows {
            assert_eq!(row.header.id.destination_ip(Family::Inet6), IpAddr::V6(mapped));
            assert_eq!(row.header.family(), Some(Family::Inet6));
        }
        let v4 = scene
            .only(|row| row.header.family() == Some(Family::Inet) && row.header.id.destination_port != 0);
        assert_eq!(v4.header.id.source, [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let only = |port| {
            let is = |row: &Decoded<'_>| {
                row.header.id.source_port == port
                    && row.header.state() == Some(State::Listen)
                    && row.header.family() == Some(Family::Inet6)
            };
            scene.only(is).attributes.sk_v6only.unwrap().0
        };
        assert_eq!((only(24822), only(24823)), (false, true), "{}", scene.name);
    }
    for scene in scenes("ipv6") {
        let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
        let rows = scene.rows().iter().filter(|row| row.header.id.source == link_local.octets());
        assert_eq!(rows.filter(|row| row.header.id.interface == 1).count(), 3, "{}", scene.name);
    }
}

#[test]
fn a_time_wait_and_a_request_row_have_a_header_and_no_tcp_info() {
    for (name, state, timer) in [("time-wait", State::TimeWait, 3), ("syn-recv", State::SynRecv, 1)] {
        for scene in scenes(name) {
            let rows: Vec<_> = scene.rows().iter().filter(|row| row.header.state() == Some(state)).collect();
            assert!(rows.len() >= 3, "{}: {} rows", scene.name, rows.len());
            for row in rows {
                let attributes = row.attributes;
                assert_eq!((row.header.inode, row.header.timer), (0, timer), "{}", scene.name);
                assert!(
                    (1..=60_000).contains(&row.header.expires_ms) || state == State::SynRecv,
                    "{}",
                    scene.name
                );
                assert_ne!(row.header.id.cookie, 0, "{}", scene.name);
                assert_eq!((attributes.info, attributes.cong, attributes.shutdown), (None, None, None));
            }
        }
    }
}

#[test]
fn a_bound_socket_is_shown_as_closed_since_linux_6_8() {
    for scene in scenes("bound") {
        let bound: Vec<_> = scene.rows().iter().filter(|row| row.header.id.source_port == 24811).collect();
        assert_eq!(bound.len(), if scene.version >= (6, 8) { 2 } else { 0 }, "{}", scene.name);
        for row in bound {
            assert!(States::from(State::BoundInactive).shows(row.header.state));
            assert_eq!((row.attributes.info, row.header.id.destination_port), (None, 0), "{}", scene.name);
            assert_ne!(row.header.inode, 0);
        }
    }
}

#[test]
fn tls_tells_its_version_and_cipher_and_an_mptcp_subflow_its_tokens() {
    for scene in scenes("tls") {
        let of = |version| {
            let tls = |row: &Decoded<'_>| row.attributes.ulp_info.and_then(|ulp| ulp.tls);
            let rows = scene.rows().iter().filter_map(tls).filter(|tls| tls.version == version);
            rows.map(|tls| (tls.cipher, tls.tx_conf, tls.rx_conf)).collect::<Vec<_>>()
        };
        assert_eq!(of(Some(0x303)), [(Some(51), Some(2), Some(2)); 2], "{}", scene.name);
        assert_eq!(of(Some(0x304)), [(Some(52), Some(2), Some(1))], "{}", scene.name);
        assert_eq!(of(None), [(None, Some(1), Some(1))], "{}", scene.name);
    }
    for scene in scenes("mptcp") {
        for family in [Family::Inet, Family::Inet6] {
            let (server, client) = scene.ends(24872, family);
            let ulp = |row: &Decoded<'static>| row.attributes.ulp_info.unwrap();
            assert_eq!(
                (ulp(&client).name, ulp(&server).name),
                (Some("mptcp"), Some("mptcp")),
                "{}",
                scene.name
            );
            let (client, server) = (ulp(&client).mptcp.unwrap(), ulp(&server).mptcp.unwrap());
            assert_ne!(client.token_loc, server.token_loc, "{}", scene.name);
            assert!(client.token_loc.is_some_and(|token| token != 0), "{}", scene.name);
            assert_eq!((client.id_loc, client.id_rem), (Some(0), Some(0)));
            assert!(client.map_seq.is_some() && client.flags.is_some() && client.ssn_offset.is_some());
        }
    }
}

#[test]
fn an_md5_key_is_kept_as_bytes_and_not_printed() {
    for scene in scenes("md5") {
        let rows: Vec<_> = scene.rows().iter().filter_map(|row| row.attributes.md5sig).collect();
        assert_eq!(rows.len(), 3, "{}", scene.name);
        for md5sig in rows {
            assert!(md5sig.0.windows(8).any(|window| window == b"test key"), "{}", scene.name);
            assert!(!format!("{md5sig:?}").contains("test key"));
        }
    }
}

#[test]
fn what_is_not_asked_for_comes_unasked_or_not_at_all() {
    for scene in scenes("established") {
        for row in &scene.answers[3].1 {
            let attributes = row.attributes;
            assert!(attributes.sockopt.is_some() && attributes.mark.is_some(), "{}", scene.name);
            assert!(attributes.cgroup_id.is_some() && attributes.shutdown.is_some(), "{}", scene.name);
            assert_eq!(
                (attributes.info, attributes.cong, attributes.tos),
                (None, None, None),
                "{}",
                scene.name
            );
        }
    }
}

#[test]
fn a_lookup_answers_with_one_message_and_a_missing_socket_with_enoent() {
    let mut found = 0;
    for capture in captures() {
        let all: Vec<_> = capture.exchanges();
        for (request, answers) in all.iter().filter(|(request, _)| request.protocol == SOCK_DIAG) {
            let bytes = &request.datagram;
            // No dump, for TCP, and whole.
            if bytes[6..8] != 1_u16.to_ne_bytes() || bytes[17] != 6 || ![2, 10].contains(&bytes[16]) {
                continue;
            }
            let asked = u64::from_ne_bytes(bytes[64..72].try_into().unwrap());
            let messages: Vec<_> = answers.iter().flat_map(|datagram| Messages::new(datagram)).collect();
            let [Ok(answer)] = messages[..] else { panic!("{}: {messages:?}", capture.name()) };
            assert!(!answer.is_multipart());
            match answer.body {
                Body::Data { payload } => assert_eq!(decode(payload).unwrap().header.id.cookie, asked),
                Body::Error { errno: 2, request: Some(request), .. } => {
                    assert_eq!((request.kind, request.len), (20, 72));
                    assert_eq!(asked, u64::MAX >> 1, "{}: {request:?}", capture.name());
                }
                other => panic!("{}: {other:?}", capture.name()),
            }
            found += 1;
        }
    }
    assert!(found > 200, "{found} lookups");
}

#[test]
fn every_datagram_is_walked_to_its_end() {
    for datagram in every_datagram() {
        assert!(Messages::new(datagram).all(|message| message.is_ok()));
    }
}
