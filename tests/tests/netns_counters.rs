//! Promise: what the kernel counts for a namespace, and how full its listeners are, leaves the host as a message of each
//! poll: over gRPC, to NATS and in the metrics.
//!
//! Proof is `nstat` inside the namespace: where it says the same before and after a reading, nothing was counted
//! between, and every one of the reading's counters must be exactly that.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use xtcp_agent::netns_counters::{NAMES, values};
use xtcp_proto::event::v1::Event;
use xtcp_proto::event::v1::event::Event as Kind;
use xtcp_proto::netns::v1::{CountersRequest, NetnsCounters};
use xtcp_tests::agent::{Agent, agent};
use xtcp_tests::events::Subscriber;
use xtcp_tests::grpc::{self, Stream};
use xtcp_tests::host::{alone, monotonic_ns, wait_for};
use xtcp_tests::nats::NatsServer;
use xtcp_tests::netns::Netns;
use xtcp_tests::traffic::{accept, connect, reset_on_close};

const LIMIT: Duration = Duration::from_secs(30);

/// Counters by the kernel's names.
type Counts = BTreeMap<String, u64>;

fn nstat(netns: &Netns) -> Counts {
    let said = netns.exec(&["nstat", "-asz"]);
    let lines = said.lines().filter(|line| !line.starts_with('#'));
    let counts = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    });
    counts.collect()
}

fn told(event: &Event) -> &NetnsCounters {
    match event.event.as_ref() {
        Some(Kind::NetnsCounters(counters)) => counters,
        other => panic!("no counters: {other:?}"),
    }
}

fn counts(counters: &NetnsCounters) -> Counts {
    assert_eq!(counters.error, "");
    let named = NAMES.iter().zip(values(counters));
    named.filter_map(|((group, name), value)| Some((format!("{group}{name}"), value?))).collect()
}

/// A reading between two equal answers of `nstat`, compared with them.
fn settled(netns: &Netns, stream: &Stream<Event>) -> (Event, Counts) {
    wait_for("a reading while nothing is counted", Duration::from_secs(60), || {
        let before = nstat(netns);
        let since = monotonic_ns();
        let event = stream.wait_for("a reading", LIMIT, |event| event.monotonic_ns > since);
        if nstat(netns) != before {
            return None;
        }
        let mut read = counts(told(&event));
        assert_eq!(read.len(), NAMES.len(), "every counter is there");
        // The one that nstat leaves out, because it goes up and down.
        read.remove("TcpCurrEstab");
        let same: Counts = before.into_iter().filter(|(name, _)| read.contains_key(name)).collect();
        assert_eq!(read, same, "read (left) and nstat's (right)");
        Some((event, read))
    })
}

/// Whether a reading has these counts, as far as they were compared.
fn equal(counters: &NetnsCounters, expected: &Counts) -> bool {
    let read = counts(counters);
    expected.iter().all(|(name, count)| read.get(name) == Some(count))
}

fn rise(before: &Counts, after: &Counts, name: &str) -> u64 {
    after[name] - before[name]
}

fn listener(address: SocketAddr, backlog: i32) -> TcpListener {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(backlog).unwrap();
    socket.into()
}

/// Begins to connect and does not wait.
fn begin(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let begun = socket.connect(&address.into()).map_err(|e| e.raw_os_error());
    assert!(matches!(begun, Ok(()) | Err(Some(libc::EINPROGRESS))), "{begun:?}");
    socket
}

fn close_hard(stream: TcpStream) {
    reset_on_close(&stream);
    drop(stream);
}

/// Five connections, each ended by a reset.
fn connect_five_times(netns: &Netns) {
    netns.run_in(|| {
        let open = listener((Ipv4Addr::LOCALHOST, 0).into(), 16);
        for _ in 0..5 {
            let client = connect(open.local_addr().unwrap());
            let accepted = accept(&open);
            close_hard(client);
            drop(accepted);
        }
    });
}

#[test]
fn every_counter_equals_nstats_and_a_full_listener_is_seen() {
    let _alone = alone();
    let netns = Netns::named("counters");
    netns.sysctl("ipv4/tcp_syncookies", "0");
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let agent: Agent = agent()
        .frequency("300ms")
        .without_rows()
        .events_to(&nats)
        .args(&["--netns-counters", "poll"])
        .start();
    let filter = CountersRequest { netns_inodes: vec![netns.inode], netns_names: Vec::new() };
    let stream = grpc::counters(agent.grpc, filter);
    let (event, start) = settled(&netns, &stream);
    let of = event.netns.clone().unwrap();
    assert_eq!((of.inode, of.cookie, Some(of.name)), (netns.inode, netns.id.cookie, netns.name.clone()));
    assert!(told(&event).listeners.is_empty(), "{event:?}");

    // Resets: nobody listens there.
    netns.run_in(|| {
        for _ in 0..3 {
            let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, 9)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
    });
    let (_, refused) = settled(&netns, &stream);
    for name in ["TcpOutRsts", "TcpAttemptFails", "TcpActiveOpens"] {
        assert_eq!(rise(&start, &refused, name), 3, "{name}");
    }

    // A listener with room for two, whom nobody accepts from, and one beside it that has nobody waiting.
    let (full, idle, clients, third) = netns.run_in(|| {
        let full = listener((Ipv4Addr::LOCALHOST, 0).into(), 1);
        let idle = listener((Ipv6Addr::LOCALHOST, 0).into(), 16);
        let address = full.local_addr().unwrap();
        let clients = [connect(address), connect(address)];
        (full, idle, clients, begin(address))
    });
    wait_for("the third connection to find no room, and to try again", LIMIT, || {
        let now = nstat(&netns);
        (rise(&refused, &now, "TcpExtListenOverflows") > 0 && rise(&refused, &now, "TcpExtTCPSynRetrans") > 0)
            .then_some(())
    });
    let since = monotonic_ns();
    let event = stream.wait_for("the full listener", LIMIT, |event| event.monotonic_ns > since);
    let listeners = &told(&event).listeners;
    assert_eq!(listeners.len(), 2, "{listeners:?}");
    let (port, address) = (u32::from(full.local_addr().unwrap().port()), Ipv4Addr::LOCALHOST.octets());
    assert_eq!((listeners[0].port, &*listeners[0].address), (port, &address[..]));
    assert_eq!((listeners[0].backlog, listeners[0].limit), (2, 1));
    assert_eq!(told(&event).curr_estab, Some(4), "both ends of two connections");
    let (port, address) = (u32::from(idle.local_addr().unwrap().port()), Ipv6Addr::LOCALHOST.octets());
    assert_eq!((listeners[1].port, &*listeners[1].address), (port, &address[..]));
    assert_eq!((listeners[1].backlog, listeners[1].limit), (0, 16));
    assert!(agent.metrics().sum("xtcp_listeners_full", &[]) >= 1.0);
    drop(third);
    clients.into_iter().for_each(close_hard);
    drop((full, idle));
    let (_, overflown) = settled(&netns, &stream);
    let overflows = rise(&refused, &overflown, "TcpExtListenOverflows");
    println!(
        "overflows {overflows}, drops {}, retransmitted {}",
        rise(&refused, &overflown, "TcpExtListenDrops"),
        rise(&refused, &overflown, "TcpRetransSegs"),
    );
    assert!(overflows >= 2, "the SYN and its retransmission");
    assert!(rise(&refused, &overflown, "TcpRetransSegs") >= 1);

    // A cookie for each connection.
    netns.sysctl("ipv4/tcp_syncookies", "2");
    connect_five_times(&netns);
    let (_, cookies) = settled(&netns, &stream);
    for name in ["TcpExtSyncookiesSent", "TcpExtSyncookiesRecv", "TcpPassiveOpens"] {
        assert_eq!(rise(&overflown, &cookies, name), 5, "{name}");
    }

    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
    for (counter, least) in [("OutRsts", 3), ("ListenOverflows", overflows), ("SyncookiesSent", 5)] {
        let label = format!("counter=\"{counter}\"");
        assert!(agent.metrics().sum("xtcp_netns_tcp_total", &[&label]) >= least as f64, "{counter}");
    }
    let on_nats = subscriber.wait_for("the same on NATS", LIMIT, |seen| {
        matches!(seen.kind(), Kind::NetnsCounters(read) if equal(read, &cookies)) && seen.is_of(netns.id)
    });
    assert!(on_nats.subject.ends_with(&format!(".{}.netns_counters", netns.inode)), "{}", on_nats.subject);
}

#[test]
fn nobody_is_read_where_counters_are_off_and_everybody_once_in_a_long_period() {
    let _alone = alone();
    let netns = Netns::named("period");
    for (period, most) in [("off", 0.0), ("1h", 1.0)] {
        let agent = agent().frequency("200ms").args(&["--netns-counters", period]).start();
        wait_for("five polls", LIMIT, || (agent.metrics().sum("xtcp_polls_total", &[]) >= 5.0).then_some(()));
        let metrics = agent.metrics();
        let read = metrics.sum("xtcp_netns_counters_read_total", &[]);
        let known = metrics.sum("xtcp_netns", &[]);
        assert!(known >= 2.0, "its own, and {netns:?}");
        // Namespaces of others may come and go meanwhile.
        assert!((read > 0.0) == (most > 0.0), "{period}: {read}");
        assert!(read < 5.0 * known, "{period}: {read} readings of {known} namespaces in five polls");
    }
}
