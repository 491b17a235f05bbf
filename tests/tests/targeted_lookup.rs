//! Promise: a connection that stays yields, within 50 ms of ESTABLISHED, a record by exact lookup with `tcp_info`, on gRPC
//! and at the destination; only its namespace was asked, and by lookup, not by dump. The poll interval is one hour.
//!
//! What was asked is shown by strace, not by the agent's own counters. Latencies are measured without strace, from
//! before `connect` until the row is in the test's hands.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use xtcp_proto::event::v1::TcpState;
use xtcp_proto::flat_record::v1::xtcp_flat_record::{OwnerSource, RecordReason};
use xtcp_tests::agent::agent;
use xtcp_tests::events::Subscriber;
use xtcp_tests::grpc;
use xtcp_tests::host::{alone, monotonic_ns, scale, wait_for};
use xtcp_tests::nats::NatsServer;
use xtcp_tests::netns::Netns;
use xtcp_tests::row::Row;
use xtcp_tests::stats::Latencies;
use xtcp_tests::strace::{self, Strace};
use xtcp_tests::traffic::{self, Pair};

const GOAL: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(10);
const ESTABLISHED: u32 = 1;

#[test]
fn a_staying_connection_has_a_row_by_lookup_within_50_ms_on_grpc_and_at_the_destination() {
    let _alone = alone();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let agent = agent().events_to(&nats).start();
    let stream = grpc::rows(agent.grpc);
    let (mut at_stdout_ns, mut at_grpc_ns) = (Vec::new(), Vec::new());
    for round in 0..scale(50, 500) {
        let netns = if round % 2 == 0 { Netns::named("stay") } else { Netns::anonymous("stay") };
        let ip: IpAddr = if round % 4 < 2 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let (begin, pair) = netns.run_in(|| {
            let listener = traffic::listen((ip, 0).into());
            // What a dump of the new namespace tells needs no lookup: let it be over.
            let listening = traffic::cookie(&listener);
            agent.wait_for_row("the listener's row", LIMIT, |row| row.cookie() == listening);
            let begin = monotonic_ns();
            let client = traffic::connect(listener.local_addr().unwrap());
            let server = traffic::accept(&listener);
            (begin, Pair { client, server, listener })
        });
        let cookie = traffic::cookie(&pair.client);
        let is_it = |row: &Row| row.cookie() == cookie && row.is_lookup();
        let on_grpc = stream.wait_for("the client's row", LIMIT, is_it);
        let at_stdout = agent.wait_for_row("the client's row", LIMIT, is_it);
        at_grpc_ns.push(on_grpc.arrived_ns - begin);
        at_stdout_ns.push(at_stdout.arrived_ns - begin);
        assert_eq!(on_grpc.record, at_stdout.record);
        check_row(&at_stdout, &netns, &pair);
        let event = subscriber.wait_for("the event that led to the row", LIMIT, |seen| {
            seen.event.sequence == at_stdout.record.event_sequence
        });
        let state = event.state().unwrap_or_else(|| panic!("the row's event is no state change: {event:?}"));
        assert!(event.is_of(netns.id) && state.new_state() == TcpState::Established, "{event:?}");
        let server = traffic::cookie(&pair.server);
        agent.wait_for_row("the server's row", LIMIT, |row| row.cookie() == server && row.is_lookup());
        if round < 2 {
            // A row may be faster than the look at the mount that names its namespace.
            let name = netns.name.clone().unwrap_or_else(|| format!("netns:[{}]", netns.inode));
            wait_for("a poll that has it under its namespace's name", LIMIT, || {
                let rows = grpc::poll(agent.grpc);
                let row = rows.iter().find(|row| row.cookie() == cookie).expect("every poll has it");
                (row.record.netns == name).then_some(())
            });
        }
    }
    Latencies::new(at_stdout_ns).report("before connect to the row at standard output", GOAL);
    Latencies::new(at_grpc_ns).report("before connect to the row on gRPC", GOAL);
}

fn check_row(row: &Row, netns: &Netns, pair: &Pair) {
    let record = &row.record;
    assert_eq!(
        (row.local(), row.remote()),
        (pair.client.local_addr().unwrap(), pair.client.peer_addr().unwrap())
    );
    assert_eq!(row.reason(), RecordReason::TcpState);
    assert_eq!((record.inet_diag_msg_state, record.tcp_info_state), (ESTABLISHED, ESTABLISHED));
    assert!(
        record.tcp_info_snd_mss > 0 && record.tcp_info_snd_cwnd > 0 && record.tcp_info_rto > 0,
        "{record:?}"
    );
    assert!(!record.congestion_algorithm_string.is_empty() && record.sk_mem_info_snd_buf > 0);
    assert!(row.is_of(netns.id), "{record:?}");
    assert_eq!(record.poll_number, 0, "no poll obtained it");
    assert_eq!(record.pid, std::process::id(), "the process that called connect");
    assert_eq!(record.owner_source(), OwnerSource::Connect);
    assert!(!record.comm.is_empty() && !record.boot_id.is_empty() && !record.agent_instance.is_empty());
    // The row may be there before the mount was looked at.
    let names = [netns.name.clone(), Some(format!("netns:[{}]", netns.inode))];
    assert!(names.contains(&Some(record.netns.clone())), "{record:?}");
}

#[test]
fn strace_shows_that_only_that_namespace_was_entered_and_asked_by_lookup() {
    let _alone = alone();
    // Others that could be asked, with sockets in them.
    let others = [Netns::named("other"), Netns::anonymous("other")];
    let _held: Vec<Pair> =
        others.iter().map(|other| other.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST))).collect();
    let agent = agent().start();
    let home = format!("net:[{}]", std::fs::metadata("/proc/self/ns/net").unwrap().ino());
    for netns in [Netns::named("traced"), Netns::anonymous("traced")] {
        let listener = netns.run_in(|| traffic::listen((Ipv4Addr::LOCALHOST, 0).into()));
        let listening = traffic::cookie(&listener);
        agent.wait_for_row("the listener's row", LIMIT, |row| row.cookie() == listening);
        let strace = Strace::attach(agent.process.pid(), "setns,socket,sendto,sendmsg,sendmmsg");
        let client = netns.run_in(|| traffic::connect(listener.local_addr().unwrap()));
        let server = traffic::accept(&listener);
        for cookie in [traffic::cookie(&client), traffic::cookie(&server)] {
            let row = agent.wait_for_row("the row", LIMIT, |row| row.cookie() == cookie);
            assert!(row.is_lookup() && row.record.tcp_info_state == ESTABLISHED);
        }
        let calls = strace.finish();
        let (entered, requests) = strace::diag_requests(&calls, &home);
        println!("entered {entered:?}; asked {requests:?}");
        let names = [netns.path().to_string_lossy().into_owned(), format!("net:[{}]", netns.inode)];
        assert!(
            entered.iter().any(|entry| names.contains(entry)),
            "the namespace was never entered: {entered:?}"
        );
        let strange: Vec<_> =
            entered.iter().filter(|entry| **entry != home && !names.contains(entry)).collect();
        assert!(strange.is_empty(), "other namespaces were entered: {strange:?}");
        assert!(!requests.is_empty(), "nothing was asked: {calls:#?}");
        for request in &requests {
            assert!(names.contains(&request.netns), "another namespace was asked: {requests:?}");
            assert!(!request.dump, "a dump was asked for: {requests:?}");
        }
    }
}
