//! Promise: an independent client written in another language reads records and events. It is Python with grpcio,
//! reflection and nats-py, in `clients/read_all.py`; it has none of our code and none of our `.proto` files.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use xtcp_tests::agent::agent;
use xtcp_tests::events::{Seen, Subscriber};
use xtcp_tests::grpc;
use xtcp_tests::host::{alone, python, workspace};
use xtcp_tests::nats::NatsServer;
use xtcp_tests::netns::Netns;
use xtcp_tests::process::Process;
use xtcp_tests::traffic::{self, Plan};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_python_client_reads_rows_and_events_by_reflection_and_nats() {
    let _alone = alone();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let agent = agent().without_rows().events_to(&nats).start();
    let netns = Netns::named("client");
    let mut client = start_client(&agent.grpc.to_string(), &nats.address.to_string(), netns.inode);
    let own = grpc::rows(agent.grpc);
    let pair = netns.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST));
    let cookie = traffic::cookie(&pair.client);
    let row = own.wait_for("the row", LIMIT, |row| row.cookie() == cookie);
    let plan = Plan { connections: 5, workers: 1, lifetime: Duration::from_millis(5), ipv4: true };
    let done = netns.run_in(|| traffic::make(plan));
    let ends = 2 * done.made.len() + done.listeners;
    let all_closed = |events: &[Seen]| {
        events.iter().filter(|seen| seen.is_of(netns.id) && seen.close().is_some()).count() >= ends
    };
    assert!(subscriber.wait_until(LIMIT, all_closed), "not all closing events came");
    let expected = subscriber.of(netns.id);
    let said = finish(&mut client, expected.last().unwrap().event.sequence);

    let services = said["services"].to_string();
    for service in
        ["xtcp_flat_record.v1.XTCPFlatRecordService", "xtcp_event.v1.EventService", "grpc.health.v1.Health"]
    {
        assert!(services.contains(service), "{service} is not in {services}");
    }
    assert_eq!(said["health"], "SERVING");
    check_row(&said, cookie, &row.record.agent_instance, pair.client.local_addr().unwrap());
    check_events("NATS", &said["nats_events"], &expected);
    check_events("gRPC", &said["grpc_events"], &expected);
    let sent: u64 = done.made.iter().map(|made| made.sent).sum();
    let told: u64 = array(&said["nats_events"])
        .iter()
        .filter(|event| event["tcp_close"]["opened_by"] == "OPENED_BY_LOCAL")
        .map(|event| number(&event["tcp_close"]["numbers"]["bytes_sent"]))
        .sum();
    assert_eq!(told, sent, "bytes that the short connections' clients sent");
}

fn start_client(grpc: &str, nats: &str, inode: u64) -> Process {
    let script = workspace().join("tests/clients/read_all.py");
    let (python, inode) = (python(), inode.to_string());
    let argv = [
        python.as_os_str(),
        script.as_os_str(),
        "--grpc".as_ref(),
        grpc.as_ref(),
        "--nats".as_ref(),
        nats.as_ref(),
        "--inode".as_ref(),
        inode.as_ref(),
    ];
    let client = Process::start("read_all.py", &argv);
    let ready = client.stdout.wait_for(LIMIT, |line| line == "ready");
    assert!(ready.is_some(), "the Python client is not ready: {}", client.stderr.text());
    client
}

fn finish(client: &mut Process, last_sequence: u64) -> Value {
    writeln!(client.stdin.take().unwrap(), "{last_sequence}").unwrap();
    let status = client.wait(LIMIT).expect("the Python client ends");
    assert!(status.success(), "the Python client failed: {}", client.stderr.text());
    let text = client.stdout.text();
    let json = text.lines().last().unwrap();
    serde_json::from_str(json).unwrap_or_else(|e| panic!("the Python client wrote no JSON: {e}: {json}"))
}

fn check_row(said: &Value, cookie: u64, instance: &str, local: SocketAddr) {
    let of_socket = |row: &&Value| number(&row["inet_diag_msg_socket_cookie"]) == cookie;
    let row =
        array(&said["rows"]).iter().find(of_socket).unwrap_or_else(|| panic!("no row of {cookie}: {said:#}"));
    assert_eq!(row["record_method"], "RECORD_METHOD_LOOKUP");
    assert_eq!(row["record_reason"], "RECORD_REASON_TCP_STATE");
    assert_eq!(number(&row["inet_diag_msg_socket_source_port"]), u64::from(local.port()));
    // 127.0.0.1 and twelve zeros, in base64.
    assert_eq!(row["inet_diag_msg_socket_source"], "fwAAAQAAAAAAAAAAAAAAAA==");
    assert_eq!(row["agent_instance"], instance);
    assert!(number(&row["tcp_info_snd_mss"]) > 0);
}

/// The same events, in order, as the subscriber in Rust has them.
fn check_events(what: &str, said: &Value, expected: &[Seen]) {
    let mut sequences: Vec<u64> = array(said).iter().map(|event| number(&event["sequence"])).collect();
    assert!(sequences.is_sorted(), "{what}: in order");
    let first =
        expected.iter().map(|seen| seen.event.sequence).find(|s| sequences.contains(s)).unwrap_or(u64::MAX);
    // The namespace was made before the client subscribed.
    let expected: Vec<u64> =
        expected.iter().map(|seen| seen.event.sequence).filter(|s| *s >= first).collect();
    sequences.dedup();
    assert_eq!(sequences, expected, "{what}");
    assert!(expected.len() > 20, "{what}: {} events", expected.len());
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Proto3 JSON writes 64-bit integers as strings, and leaves out what is 0.
fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.parse().unwrap(),
        Value::Number(number) => number.as_u64().unwrap(),
        _ => 0,
    }
}
