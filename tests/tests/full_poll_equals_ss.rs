//! Promise: one full poll with `--states all` equals `ss -tan` in every namespace.
//!
//! Why the comparison is sound: the namespaces' sockets are made before the poll and nothing in them moves until `ss`
//! has run; time-waits last a minute. In the host's own namespace others are busy, so there the poll must lie between
//! what `ss` saw both before and after it, and what it saw before or after.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use xtcp_tests::agent::agent;
use xtcp_tests::grpc;
use xtcp_tests::host::{alone, kernel};
use xtcp_tests::netns::{Netns, join_by_veth};
use xtcp_tests::row::Row;
use xtcp_tests::ss::{self, Bag};
use xtcp_tests::traffic::{self, Plan};

/// A socket that is bound and nothing else (6.8): asked for by state bit 13, shown as CLOSE. `ss` before iproute2 6.9
/// does not ask.
const BOUND: u32 = 7;
const TIME_WAIT: u32 = 6;

/// Sockets that stay as they are while this is held.
#[derive(Default)]
struct Population {
    streams: Vec<TcpStream>,
    listeners: Vec<TcpListener>,
    sockets: Vec<Socket>,
}

#[test]
fn a_full_poll_equals_ss_in_every_namespace() {
    let _alone = alone();
    let netns =
        [Netns::named("all"), Netns::anonymous("all"), Netns::named("busy"), Netns::anonymous("empty")];
    join_by_veth((&netns[0], "va", "10.98.0.1/24"), (&netns[1], "vb", "10.98.0.2/24"));
    let mut held: Vec<Population> = netns[..2].iter().map(|netns| netns.run_in(every_shape)).collect();
    held.push(across(&netns[0], &netns[1]));
    held.push(netns[2].run_in(many));
    let agent = agent().args(&["--states", "all", "--own-connections", "include"]).start();
    let first = agent.delivered_rows();
    let second = grpc::poll(agent.grpc);
    let labels =
        ["named, every shape", "anonymous, every shape", "1 000 connections and time-waits", "empty"];
    for (netns, label) in netns.iter().zip(labels) {
        let expected = ss::tan(Some(netns));
        for (rows, which) in [(&first, "the first poll"), (&second, "a poll on request")] {
            let rows = of_poll(rows, netns.inode);
            let number: usize = rows.values().sum();
            println!("{label}: {which}: {number} rows");
            let difference = ss::difference(&rows, &without_bound(expected.clone()));
            assert_eq!(difference, "", "{label}: {which} differs from ss");
        }
    }
    let inactive = first.iter().filter(|row| row.record.inet_diag_msg_state == BOUND);
    let inactive = inactive.filter(|row| row.record.netns_inode == netns[0].inode).count();
    let told = usize::from(kernel() >= (6, 8));
    assert_eq!(inactive, told, "the socket that is bound and nothing else, which kernels tell since 6.8");
    for row in first.iter().filter(|row| netns.iter().any(|netns| netns.inode == row.record.netns_inode)) {
        check_row(row);
    }
    drop(held);
}

#[test]
fn a_full_poll_of_the_hosts_own_namespace_lies_between_two_runs_of_ss() {
    let _alone = alone();
    let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    let _held = every_shape();
    let agent = agent().without_rows().args(&["--states", "all", "--own-connections", "include"]).start();
    let mut text = String::new();
    for _ in 0..20 {
        // The poll's own connection, which neither run of ss sees established.
        let theirs = |mut bag: Bag| {
            bag.retain(|socket, _| ![socket.local, socket.remote].contains(&agent.grpc));
            without_bound(bag)
        };
        let before = theirs(ss::tan(None));
        let rows = theirs(of_poll(&grpc::poll(agent.grpc), own));
        let after = theirs(ss::tan(None));
        text = outside(&rows, &before, &after);
        if text.is_empty() {
            println!("{} rows", rows.values().sum::<usize>());
            assert!(rows.len() > 20, "the shapes at least are there");
            return;
        }
    }
    panic!("in 20 polls never between ss before and ss after:\n{text}");
}

/// Sockets with fewer rows than `ss` saw both times, or more than it ever saw.
fn outside(rows: &Bag, before: &Bag, after: &Bag) -> String {
    let count = |bag: &Bag, socket| bag.get(socket).copied().unwrap_or(0);
    let mut text = String::new();
    for socket in rows.keys().chain(before.keys()).chain(after.keys()) {
        let (row, was, is) = (count(rows, socket), count(before, socket), count(after, socket));
        if row < was.min(is) || row > was.max(is) {
            text.push_str(&ss::difference(
                &ss::bag(vec![socket.clone(); row]),
                &ss::bag(vec![socket.clone(); was]),
            ));
        }
    }
    text
}

fn without_bound(mut bag: Bag) -> Bag {
    bag.retain(|socket, _| socket.state != BOUND);
    bag
}

fn of_poll(rows: &[Row], inode: u64) -> Bag {
    // All these namespaces live while the agent does, so inodes tell them apart.
    let of_netns = rows.iter().filter(|row| row.record.netns_inode == inode && row.poll().is_some());
    without_bound(ss::bag(of_netns.map(Row::as_ss)))
}

/// A time-wait row has no `tcp_info`, and one that is only bound neither; every other has, and it tells the same state.
fn check_row(row: &Row) {
    let record = &row.record;
    assert_eq!(record.schema_version, 1);
    let state = record.inet_diag_msg_state;
    let bare = matches!(state, TIME_WAIT | BOUND);
    assert_eq!(record.tcp_info_state, if bare { 0 } else { state }, "{record:?}");
    assert_eq!(record.congestion_algorithm_string.is_empty(), bare, "{record:?}");
}

/// One of everything, on loopback.
fn every_shape() -> Population {
    let mut held = Population::default();
    let listen = |address: SocketAddr, protocol, shared| traffic::listen_as(address, protocol, shared);
    let v4: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    let v6: SocketAddr = (Ipv6Addr::LOCALHOST, 0).into();
    let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
    // IPv4, IPv6, and IPv4 to a listener that takes both: its connections are v4-mapped.
    for (address, target) in [(v4, v4), (v6, v6), (any, v4), (any, v6)] {
        let listener = listen(address, Protocol::TCP, false);
        let target = SocketAddr::new(target.ip(), listener.local_addr().unwrap().port());
        for _ in 0..3 {
            held.streams.push(traffic::connect(target));
            held.streams.push(traffic::accept(&listener));
        }
        // Established, not accepted.
        held.streams.push(traffic::connect(target));
        held.listeners.push(listener);
    }
    // Several listeners on one port.
    let shared = listen(v4, Protocol::TCP, true);
    let port = shared.local_addr().unwrap().port();
    held.listeners.push(shared);
    for _ in 0..3 {
        held.listeners.push(listen((Ipv4Addr::LOCALHOST, port).into(), Protocol::TCP, true));
    }
    held.listeners.push(listen(v4, traffic::mptcp_or_tcp(), false));
    held.listeners.push(listen(v6, traffic::mptcp_or_tcp(), false));
    closing(&mut held);
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&v4.into()).unwrap();
    held.sockets.push(bound);
    held
}

/// `CLOSE_WAIT` and `FIN_WAIT2`, with data in the queues; `TIME_WAIT`.
fn closing(held: &mut Population) {
    let pair = traffic::pair(Ipv4Addr::LOCALHOST);
    pair.client.shutdown(std::net::Shutdown::Write).unwrap();
    (&pair.server).write_all(b"unread").unwrap();
    held.streams.extend([pair.client, pair.server]);
    held.listeners.push(pair.listener);
    let plan = Plan { connections: 20, workers: 1, lifetime: Duration::ZERO, ipv4: true };
    traffic::make(plan);
    traffic::make(Plan { ipv4: false, ..plan });
}

/// Connections over the veth, with one end in each namespace.
fn across(client: &Netns, server: &Netns) -> Population {
    let mut held = Population::default();
    let listener = server.run_in(|| traffic::listen("10.98.0.2:7000".parse().unwrap()));
    for _ in 0..5 {
        held.streams.push(client.run_in(|| traffic::connect("10.98.0.2:7000".parse().unwrap())));
        held.streams.push(traffic::accept(&listener));
    }
    held.listeners.push(listener);
    held
}

/// More than one datagram holds.
fn many() -> Population {
    let mut held = Population::default();
    for ip in [std::net::IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let listener = traffic::listen((ip, 0).into());
        let address = listener.local_addr().unwrap();
        for _ in 0..250 {
            held.streams.push(traffic::connect(address));
            held.streams.push(traffic::accept(&listener));
        }
        held.listeners.push(listener);
    }
    traffic::make(Plan { connections: 500, workers: 2, lifetime: Duration::ZERO, ipv4: true });
    held
}
