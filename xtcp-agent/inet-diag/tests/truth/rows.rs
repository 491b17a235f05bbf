//! Which rows there are: each of a socket that was there, and no socket without its row.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use xtcp_inet_diag::framing::{Body, Messages};
use xtcp_inet_diag::message::{Decoded, decode, decode_as};

use super::fixtures::{SOCK_DIAG, captures, every_datagram, every_row, payloads};
use super::model::{Orphan, Scene, Socket, scenes};
use super::reads::of_scenario;

const SYN_SENT: u8 = 2;
const CLOSE: u8 = 7;
/// `IPPROTO_TCP`, `IPPROTO_UDP`.
const TCP: u64 = 6;
const UDP: u64 = 17;

/// Local and remote address of a row.
pub(crate) fn addresses(decoded: &Decoded<'_>) -> (SocketAddr, SocketAddr) {
    let (id, family) = (decoded.header.id, decoded.header.family().unwrap());
    (
        SocketAddr::new(id.source_ip(family), id.source_port),
        SocketAddr::new(id.destination_ip(family), id.destination_port),
    )
}

/// Without scope: a row says it as its interface.
fn bare(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

/// Whether a socket that cannot name a peer can have this one: none, or while it connects a listener.
fn is_peer(scene: &Scene, socket: &Socket, remote: SocketAddr) -> bool {
    let connects = socket.states().is_some_and(|(state, _)| state == SYN_SENT);
    if connects {
        scene.sockets.iter().any(|other| other.remote.is_none() && other.local == Some(remote))
    } else {
        remote.port() == 0 && remote.ip().is_unspecified()
    }
}

#[test]
fn nothing_that_a_kernel_sends_is_unknown_malformed_or_damaged() {
    let mut rows = 0;
    for row in every_row() {
        let decoded = decode_as(row.payload, row.reading()).unwrap();
        assert!(
            decoded.unknown.is_empty() && decoded.malformed.is_empty() && decoded.damage.is_none(),
            "{}: {decoded:#?}",
            row.capture.name()
        );
        rows += 1;
    }
    assert!(rows > 2000, "{rows} rows");
    for datagram in every_datagram() {
        assert!(Messages::new(datagram).all(|message| message.is_ok()));
    }
}

#[test]
fn every_row_is_of_a_socket_that_was_there_with_its_addresses() {
    let mut misses = String::new();
    for scene in scenes() {
        for row in scene.tcp_rows() {
            let decoded = &row.decoded;
            let (local, remote) = addresses(decoded);
            let name = scene.capture.name();
            if let Some(socket) = scene.socket_of(decoded) {
                let scope = match socket.local {
                    Some(SocketAddr::V6(address)) => address.scope_id(),
                    _ => 0,
                };
                let same = socket.local.map(bare) == Some(local)
                    && socket
                        .remote
                        .map_or_else(|| is_peer(&scene, socket, remote), |peer| bare(peer) == remote)
                    && (scope == 0 || scope == decoded.header.id.interface);
                if !same {
                    let _ = writeln!(misses, "{name}: row {local} {remote} is socket {socket:?}");
                }
                continue;
            }
            let known = scene.orphans.iter().any(|orphan| {
                (orphan.state, orphan.local, orphan.remote) == (decoded.header.state, local, remote)
            });
            let subflow = decoded.attributes.ulp_info.is_some_and(|ulp| ulp.name == Some("mptcp"));
            if !known && !subflow {
                let nearest: Vec<_> = (scene.orphans.iter())
                    .filter(|orphan| orphan.local == local || orphan.remote == remote)
                    .collect();
                let state = decoded.header.state;
                let _ = writeln!(
                    misses,
                    "{name}: nobody's row: state {state} {local} {remote}; near {nearest:?}"
                );
            }
        }
    }
    assert!(misses.is_empty(), "{misses}");
}

/// Whether the kernel's dumps must show a held socket.
fn must_show(scene: &Scene, socket: &Socket) -> bool {
    match socket.protocol {
        TCP => {
            let (before, after) = socket.states().unwrap();
            assert_eq!(before, after, "{} {}", scene.capture.name(), socket.role);
            // Bound and nothing else: since Linux 6.8.
            let bound = scene.version >= (6, 8) && socket.local.is_some_and(|local| local.port() != 0);
            // A socket that was reset keeps its port only until it is closed for good: it is in no table.
            before != CLOSE || bound && socket.role == "bound"
        }
        _ => true,
    }
}

/// A dump's cookies, and the family that it asks for: 0 for both.
struct Dumped {
    family: u8,
    protocol: u8,
    cookies: BTreeSet<u64>,
}

/// Every dump of a conversation for all states.
fn dumps(scene: &Scene) -> Vec<Dumped> {
    let mut dumps = Vec::new();
    for (request, answers) in scene.capture.exchanges() {
        let bytes = &request.datagram;
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        // Type, and flags with both bits of a dump. The states stand behind the id in the old request, before it in the
        // new one.
        let old = bytes[4] == 18;
        if request.protocol != SOCK_DIAG || u16::from_ne_bytes([bytes[6], bytes[7]]) & 0x300 != 0x300 {
            continue;
        }
        let whole = bytes.len() >= 72 && word(if old { 68 } else { 20 }) & 0x3ffe == 0x3ffe;
        if whole && (old || [2, 10].contains(&bytes[16])) {
            let cookies = payloads(&answers).into_iter().map(|row| decode(row).unwrap().header.id.cookie);
            let (family, protocol) = if old { (0, 6) } else { (bytes[16], bytes[17]) };
            dumps.push(Dumped { family, protocol, cookies: cookies.collect() });
        }
    }
    dumps
}

#[test]
fn every_socket_that_was_there_is_in_the_first_dump_and_in_its_familys() {
    let mut compared = 0;
    for scene in scenes() {
        let dumps = dumps(&scene);
        for socket in &scene.sockets {
            let name = format!("{} {}", scene.capture.name(), socket.role);
            let family = if socket.local.is_some_and(|local| local.is_ipv6()) { 10 } else { 2 };
            let its = |dump: &&Dumped| {
                u64::from(dump.protocol) == socket.protocol & 0xff && [0, family].contains(&dump.family)
            };
            let shows = must_show(&scene, socket);
            // MPTCP's number does not fit the byte: its dumps look like TCP's.
            let asked: Vec<_> = dumps.iter().filter(its).collect();
            let shown = asked.iter().filter(|dump| dump.cookies.contains(&socket.cookie())).count();
            match socket.protocol {
                TCP | UDP if shows => assert_eq!(shown, asked.len(), "{name} is missing in a dump"),
                TCP | UDP => assert_eq!(shown, 0, "{name} is closed"),
                _ => assert_eq!(shown, 1, "{name} is in one dump of MPTCP"),
            }
            assert!(!asked.is_empty(), "{name} was not asked for");
            compared += asked.len();
        }
        let found = |orphan: &&Orphan| {
            scene.first_dump().iter().any(|row| {
                (row.decoded.header.state, addresses(&row.decoded))
                    == (orphan.state, (orphan.local, orphan.remote))
            })
        };
        let lost: Vec<_> = scene.orphans.iter().filter(|orphan| !found(orphan)).collect();
        assert!(lost.is_empty(), "{}: {lost:?} are not in the first dump", scene.capture.name());
    }
    assert!(compared > 1500, "{compared} looked for");
}

#[test]
fn every_state_and_every_kind_of_address_is_captured_on_every_kernel() {
    let kernels: BTreeSet<_> = captures().iter().map(|capture| capture.kernel.as_str()).collect();
    assert!(kernels.len() >= 5, "{kernels:?}");
    for kernel in kernels {
        let scenes: Vec<_> = scenes().into_iter().filter(|scene| scene.capture.kernel == kernel).collect();
        let rows: Vec<_> = scenes.iter().flat_map(Scene::tcp_rows).collect();
        let states: BTreeSet<u8> = rows.iter().map(|row| row.decoded.header.state).collect();
        let close = scenes[0].version >= (6, 8);
        assert_eq!(states, (1..=11).filter(|state| *state != CLOSE || close).collect(), "{kernel}");
        let has = |is: &dyn Fn(IpAddr) -> bool| rows.iter().any(|row| is(addresses(&row.decoded).0.ip()));
        let v6 = |ip: IpAddr, is: fn(&std::net::Ipv6Addr) -> bool| matches!(ip, IpAddr::V6(ip) if is(&ip));
        assert!(has(&|ip| ip.is_ipv4()) && has(&|ip| v6(ip, |ip| ip.to_ipv4_mapped().is_some())), "{kernel}");
        assert!(has(&|ip| v6(ip, |ip| ip.segments()[0] == 0x2001)), "{kernel}: no global address");
        assert!(
            has(&|ip| v6(ip, std::net::Ipv6Addr::is_unicast_link_local)),
            "{kernel}: no link-local address"
        );
        let link_local = rows
            .iter()
            .filter(|row| v6(addresses(&row.decoded).0.ip(), std::net::Ipv6Addr::is_unicast_link_local));
        assert!(
            link_local.clone().all(|row| row.decoded.header.id.interface == 1),
            "{kernel}: a scope is missing"
        );
    }
}

#[test]
fn what_a_kernel_lacks_is_listed_with_the_reason() {
    let all: BTreeSet<_> = captures().iter().map(|capture| capture.scenario.as_str()).collect();
    let mut kernels: Vec<_> = captures().iter().collect();
    kernels.dedup_by_key(|capture| capture.kernel.as_str());
    for kernel in kernels {
        let manifest = kernel.manifest();
        let present: BTreeSet<_> = (captures().iter())
            .filter(|capture| capture.kernel == kernel.kernel)
            .map(|capture| capture.scenario.as_str())
            .collect();
        let listed: BTreeSet<_> =
            manifest["scenarios"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(present, listed, "{}", kernel.kernel);
        let absent = manifest["absent"].as_array().unwrap();
        assert!(absent.iter().all(|one| one["reason"].as_str().is_some_and(|reason| reason.len() > 10)));
        let absent: BTreeSet<_> = absent.iter().map(|one| one["scenario"].as_str().unwrap()).collect();
        assert_eq!(all, present.union(&absent).copied().collect(), "{}", kernel.kernel);
    }
}

#[test]
fn many_sockets_come_in_many_datagrams_and_none_is_missing() {
    for scene in of_scenario("many") {
        let exchanges = scene.capture.exchanges();
        assert!(exchanges[0].1.len() >= 5, "{} datagrams", exchanges[0].1.len());
        assert!(scene.sockets.len() >= 200);
        let cookies: Vec<_> = scene.first_dump().iter().map(|row| row.decoded.header.id.cookie).collect();
        let distinct: BTreeSet<_> = cookies.iter().copied().collect();
        assert_eq!((cookies.len(), distinct.len()), (scene.sockets.len(), scene.sockets.len()));
    }
}

#[test]
fn refused_requests_are_answered_with_an_errno_and_no_row() {
    for scene in of_scenario("errors") {
        let exchanges = scene.capture.exchanges();
        let refused = &exchanges[exchanges.len() - 5..];
        for (request, answers) in refused {
            let messages: Vec<_> = answers.iter().flat_map(|datagram| Messages::new(datagram)).collect();
            let [Ok(answer)] = messages[..] else { panic!("{}: {messages:?}", scene.capture.name()) };
            // A dump for a protocol that nobody serves begins, and ends with the error.
            let errno = match answer.body {
                Body::Error { errno, .. } => errno,
                Body::Done { status, .. } => -status,
                other => panic!("{}: {other:?}", scene.capture.name()),
            };
            // ENOENT, EINVAL, EPROTONOSUPPORT, EOPNOTSUPP, EAFNOSUPPORT.
            assert!([2, 22, 93, 95, 97].contains(&errno), "{}: errno {errno}", scene.capture.name());
            assert_eq!(answer.header.seq.to_ne_bytes(), request.datagram[8..12]);
        }
        let (_, lookup) = &exchanges[exchanges.len() - 6];
        let answer = Messages::new(lookup[0]).next().unwrap().unwrap().body;
        assert!(matches!(answer, Body::Error { errno: 2, .. }), "a cookie that nobody has: {answer:?}");
    }
}

#[test]
fn an_interrupted_dump_is_seen_and_inet_diag_never_sets_the_flag() {
    let mut interrupted = 0;
    for packet in captures().iter().flat_map(|capture| &capture.packets).filter(|packet| !packet.request) {
        for message in Messages::new(&packet.datagram).map(Result::unwrap) {
            if message.is_dump_interrupted() {
                assert_eq!(packet.protocol, 0, "rtnetlink's");
                interrupted += 1;
            }
        }
    }
    assert!(interrupted > 0);
    for scene in of_scenario("interrupted") {
        let route = scene.capture.packets.iter().filter(|packet| packet.protocol == 0 && !packet.request);
        let mut messages = route.flat_map(|packet| Messages::new(&packet.datagram)).map(Result::unwrap);
        assert!(messages.any(|message| message.is_dump_interrupted()), "{}", scene.capture.name());
    }
}

#[test]
fn udp_rows_have_their_sockets_and_no_tcp_info() {
    for scene in of_scenario("udp") {
        let mut rows = 0;
        for row in scene.capture.rows().into_iter().filter(|row| row.request[17] == 17 && !row.is_tcp()) {
            let decoded = decode_as(row.payload, row.reading()).unwrap();
            let socket = scene.socket_of(&decoded).unwrap();
            assert_eq!(socket.protocol, UDP);
            assert_eq!(addresses(&decoded).0, socket.local.unwrap());
            assert_eq!(u64::from(decoded.header.inode), socket.inode);
            assert_eq!(decoded.attributes.info, None);
            assert!(decoded.attributes.sk_meminfo.is_some());
            rows += 1;
        }
        assert_eq!(rows, 4, "{}", scene.capture.name());
    }
}
