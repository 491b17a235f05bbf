//! Promise: rows of polls carry the process that a socket belongs to, of connections opened after the agent's start from
//! their events, of older ones from the walk over descriptors; where it is not known any more they say so, and never name
//! another process. Masked addresses are in nothing that leaves the agent.
//!
//! Each process is one of its own (`xtcp-test-helper`, `sleep`), whose id the test knows from having started it.
#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prost::Message as _;
use xtcp_proto::event::v1::EventsRequest;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_proto::flat_record::v1::xtcp_flat_record::OwnerSource;
use xtcp_tests::agent::{Agent, agent, run_to_end};
use xtcp_tests::grpc;
use xtcp_tests::host::{alone, kernel, wait_for};
use xtcp_tests::http;
use xtcp_tests::mmdb::{asn_database, v4};
use xtcp_tests::netns::{Id, Netns};
use xtcp_tests::process::Process;
use xtcp_tests::traffic;

const LIMIT: Duration = Duration::from_secs(30);

/// A helper inside a namespace, which has said its first word.
fn helper(netns: &Netns, arguments: &[&str], word: &str) -> Process {
    let mut argv = vec![env!("CARGO_BIN_EXE_xtcp-test-helper")];
    argv.extend(arguments);
    // The kernel kills it with the thread that started it, and threads of `run_in` end at once.
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.path().display())).args(argv);
    let process = Process::spawn("xtcp-test-helper", &mut command);
    said(&process, word);
    process
}

/// The line that begins with a word.
fn said(process: &Process, word: &str) -> String {
    let line = process.stdout.wait_for(LIMIT, |line| line.starts_with(word));
    line.unwrap_or_else(|| panic!("it never said {word}: {}", process.stderr.text())).text
}

/// The only such row of one poll in a namespace.
fn row_of(agent: &Agent, netns: &Netns, such: impl Fn(&XtcpFlatRecord) -> bool) -> XtcpFlatRecord {
    found_row_of(agent, netns, such).expect("the poll has it")
}

/// As [`row_of`], of a namespace that is so young that the agent may not have found the way in.
fn found_row_of(
    agent: &Agent,
    netns: &Netns,
    such: impl Fn(&XtcpFlatRecord) -> bool,
) -> Option<XtcpFlatRecord> {
    let rows = grpc::poll(agent.grpc);
    let mut of: Vec<_> = rows.into_iter().filter(|row| row.is_of(netns.id) && such(&row.record)).collect();
    assert!(of.len() <= 1, "not one row: {of:?}");
    of.pop().map(|row| row.record)
}

const LISTEN: u32 = 10;

fn is_listener(record: &XtcpFlatRecord) -> bool {
    record.inet_diag_msg_state == LISTEN
}

fn owner(record: &XtcpFlatRecord) -> (u32, &str, OwnerSource) {
    (record.pid, record.comm.as_str(), record.owner_source())
}

const NOBODY: (u32, &str, OwnerSource) = (0, "", OwnerSource::Unspecified);
const HELPER: &str = "xtcp-test-helpe";

#[test]
fn rows_of_polls_carry_the_process_of_clients_listeners_and_accepted_sockets() {
    let _alone = alone();
    let agent = agent().args(&["--user-names"]).start();
    let netns = Netns::named("owned");
    let address = "127.0.0.1:21031";
    let server = helper(&netns, &["serve", address], "listening");
    let client = helper(&netns, &[address], "connected");
    said(&server, "accepted");
    let is_server = |record: &XtcpFlatRecord| record.inet_diag_msg_socket_source_port == 21_031;
    let of = |what: &str, which: &dyn Fn(&XtcpFlatRecord) -> bool, expected| {
        wait_for(what, LIMIT, || (owner(&row_of(&agent, &netns, which)) == expected).then_some(()));
    };
    of("the client's owner", &|record| !is_server(record), (client.pid(), HELPER, OwnerSource::Connect));
    // Before 5.12 a listener has no cookie at its event.
    let cookies = kernel() >= (5, 12);
    if cookies {
        of("the listener's owner", &is_listener, (server.pid(), HELPER, OwnerSource::Listen));
    }
    let accepted = |record: &XtcpFlatRecord| is_server(record) && !is_listener(record);
    of("the accepted socket's owner", &accepted, (server.pid(), HELPER, OwnerSource::Listen));
    wait_for("the user's name", LIMIT, || {
        (row_of(&agent, &netns, is_listener).user_name == "root").then_some(())
    });
    wait_for("the count of them", LIMIT, || {
        (agent.metrics().sum("xtcp_owner_sockets", &[]) >= if cookies { 3.0 } else { 2.0 }).then_some(())
    });
    drop((server, client));
    wait_for("their owners to be forgotten", LIMIT, || {
        (agent.metrics().sum("xtcp_owner_processes", &[]) < 1.0).then_some(())
    });
}

/// A process that is nobody's child any more.
struct Orphan(i32);

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

#[test]
fn a_process_that_becomes_another_program_or_passes_its_socket_on_is_never_taken_for_another() {
    let _alone = alone();
    let agent = agent().start();
    let netns = Netns::named("passed");
    let listener = netns.run_in(|| traffic::listen((Ipv4Addr::LOCALHOST, 0).into()));
    let port = listener.local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let is_client = |record: &XtcpFlatRecord| record.inet_diag_msg_socket_destination_port == u32::from(port);

    let became = helper(&netns, &["exec", &address], "becomes");
    let first = traffic::accept(&listener);
    wait_for("the new name", LIMIT, || {
        let row = found_row_of(&agent, &netns, is_client)?;
        // Before its event was taken in nobody is known, after it nobody else.
        assert!(row.pid == 0 || row.pid == became.pid(), "{row:?}");
        assert!(["", HELPER, "sleep"].contains(&row.comm.as_str()), "{row:?}");
        (row.pid == became.pid() && row.comm == "sleep").then_some(())
    });
    drop((became, first));
    wait_for("the first connection to end", LIMIT, || {
        let rows = grpc::poll(agent.grpc);
        rows.iter().all(|row| !row.is_of(netns.id) || !is_client(&row.record)).then_some(())
    });

    let mut passes = helper(&netns, &["pass", &address], "passed");
    let heir = said(&passes, "passed").trim_start_matches("passed ").parse().unwrap();
    let _orphan = Orphan(heir);
    let _second = traffic::accept(&listener);
    let gone = passes.pid();
    assert!(passes.wait(LIMIT).is_some(), "the first owner does not end");
    wait_for("nobody to be named", LIMIT, || {
        let row = row_of(&agent, &netns, is_client);
        assert!(row.pid == 0 || row.pid == gone, "{row:?}");
        assert_eq!(row.pid == 0, owner(&row) == NOBODY, "{row:?}");
        (owner(&row) == NOBODY && agent.metrics().sum("xtcp_owner_outlived_total", &[]) >= 1.0).then_some(())
    });
}

#[test]
fn sockets_older_than_the_agent_have_an_owner_only_after_the_walk_and_only_if_one_process_holds_them() {
    let _alone = alone();
    let netns = Netns::named("older");
    let alone_address = "127.0.0.1:21032";
    let server = helper(&netns, &["serve", alone_address], "listening");
    // Held by this process and its child.
    let shared = netns.run_in(|| traffic::listen((Ipv4Addr::LOCALHOST, 21_033).into()));
    let mut child = Command::new("sleep");
    child.arg("600").stdin(std::os::fd::OwnedFd::from(shared.try_clone().unwrap())).stdout(Stdio::null());
    let mut child = child.spawn().unwrap();
    let of_port = |port| move |record: &XtcpFlatRecord| record.inet_diag_msg_socket_source_port == port;

    let without = agent().start();
    assert_eq!(owner(&row_of(&without, &netns, of_port(21_032))), NOBODY);
    drop(without);

    let with = agent().args(&["--process-scan", "start"]).start();
    wait_for("the walk", LIMIT, || {
        let walked = with.metrics().sum("xtcp_process_scan_processes_total", &["result=\"walked\""]);
        (walked >= 1.0).then_some(())
    });
    let expected = (server.pid(), HELPER, OwnerSource::FdWalk);
    assert_eq!(owner(&row_of(&with, &netns, of_port(21_032))), expected);
    assert_eq!(owner(&row_of(&with, &netns, of_port(21_033))), NOBODY);
    assert!(with.metrics().sum("xtcp_process_scan_sockets_total", &["result=\"shared\""]) >= 1.0);
    // What is known now stays known.
    for _ in 0..4 {
        assert_eq!(owner(&row_of(&with, &netns, of_port(21_032))), expected);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Addresses of no interface but that of the test's namespace.
const V4: [u8; 4] = [198, 51, 100, 77];
const V6: &str = "2001:db8:4d4e:4f50:5152:5354:5556:5758";

/// Gives the namespace both addresses.
fn address(netns: &Netns) {
    netns.exec(&["ip", "address", "add", "198.51.100.77/32", "dev", "lo"]);
    netns.exec(&["ip", "address", "add", &format!("{V6}/128"), "dev", "lo", "nodad"]);
    // The kernel's own work makes the route a little later.
    wait_for("a route to the IPv6 address", LIMIT, || {
        netns.run_in(|| UdpSocket::bind("[::]:0").unwrap().connect((V6, 9))).ok()
    });
}

/// One connection over each family inside the namespace.
fn talk(netns: &Netns) -> Vec<[TcpStream; 2]> {
    let v6: IpAddr = V6.parse().unwrap();
    netns.run_in(|| {
        [IpAddr::from(V4), v6]
            .map(|ip| {
                let listener = traffic::listen(SocketAddr::new(ip, 0));
                let client = traffic::connect(listener.local_addr().unwrap());
                [client, traffic::accept(&listener)]
            })
            .into()
    })
}

/// Whether any of the bytes that were to be masked is there.
fn leaks(bytes: &[u8]) -> bool {
    let v6: std::net::Ipv6Addr = V6.parse().unwrap();
    [&V4[..], &v6.octets()[4..8], &v6.octets()[12..]]
        .iter()
        .any(|secret| bytes.windows(secret.len()).any(|window| window == *secret))
}

fn text_leaks(text: &str) -> bool {
    ["198.51.100", "4d4e:4f50", "5556:5758", "51.100.77"].iter().any(|secret| text.contains(secret))
}

#[test]
fn masked_addresses_are_in_nothing_that_leaves_the_agent() {
    let _alone = alone();
    let netns = Netns::named("masked");
    address(&netns);
    let before = talk(&netns);
    let mut database = tempfile::NamedTempFile::new().unwrap();
    database.write_all(&asn_database(&[v4(198, 51, 100, 0, 24, 64_499)])).unwrap();
    let asn = database.path().to_str().unwrap();
    let masked = ["--mask-addresses", "v4=8,v6=32", "--asn-db", asn, "--deserializers", "all"];
    let mut agent = agent().args(&masked).args(&["--log-level", "debug"]).start();
    let events = grpc::events(agent.grpc, EventsRequest::default());
    let stream = grpc::rows(agent.grpc);
    let after = talk(&netns);
    let cookies: Vec<u64> = before.iter().chain(&after).flatten().map(traffic::cookie).collect();
    let polled = grpc::poll(agent.grpc);
    for cookie in &cookies {
        let row = polled.iter().find(|row| row.cookie() == *cookie).expect("every poll has it");
        let record = &row.record;
        let is_v4 = record.inet_diag_msg_family == 2;
        let kept = if is_v4 { 1 } else { 4 };
        assert_eq!(record.inet_diag_msg_socket_source[kept..], [0; 16][kept..], "{record:?}");
        assert_ne!(record.inet_diag_msg_socket_source[..kept], [0; 16][..kept], "{record:?}");
        assert_eq!(record.inet_diag_msg_socket_destination, record.inet_diag_msg_socket_source);
        // Asked of the address as it is.
        assert_eq!(record.inet_diag_msg_socket_dest_asn, if is_v4 { 64_499 } else { 0 });
    }
    let client = traffic::cookie(&after[0][0]);
    let port = u32::from(after[0][0].local_addr().unwrap().port());
    let row = stream.wait_for("the lookup's row", LIMIT, |row| row.cookie() == client);
    let (_, event) =
        events.wait_for("the connection's event", LIMIT, |(_, event)| is_from(event, netns.id, port));
    assert!(!leaks(&row.record.encode_to_vec()) && !leaks(&event.encode_to_vec()));
    drop(after);
    agent.wait_for_row("rows at standard output", LIMIT, |row| row.cookie() == client);
    let (_, page) = http::get(agent.prom, "/metrics").unwrap();
    let (_, rows) = agent.terminate(LIMIT);
    for row in rows.iter().chain(&polled) {
        assert!(!leaks(&row.record.encode_to_vec()), "{row:?}");
    }
    assert!(!text_leaks(&agent.process.stderr.text()) && !text_leaks(&page));

    let named = netns.name.as_deref().unwrap();
    let dump =
        run_to_end(&[], &["dump", "--netns", named, "--format", "table", "--mask-addresses", "v4=8,v6=32"]);
    let table = dump.stdout.text();
    assert!(table.contains("198.0.0.0") && table.contains("2001:db8::"), "{table}");
    assert!(!text_leaks(&table), "{table}");
    let capture = run_to_end(&[], &["capture", "--mask-addresses", "v4=8,v6=32", "-o", "/dev/null"]);
    assert!(capture.stderr.text().contains("cannot be masked"), "{}", capture.stderr.text());
}

/// Whether it is an event of the socket with this port: before 5.12 one may come before its socket has a cookie.
fn is_from(event: &xtcp_proto::event::v1::Event, netns: Id, port: u32) -> bool {
    use xtcp_proto::event::v1::event::Event as Kind;
    let socket = match &event.event {
        Some(Kind::TcpState(changed)) => &changed.socket,
        Some(Kind::TcpClose(closed)) => &closed.socket,
        _ => return false,
    };
    let of = event.netns.as_ref().map(|of| of.inode);
    of == Some(netns.inode) && socket.as_ref().is_some_and(|socket| socket.source_port == port)
}

#[test]
fn hashed_addresses_are_the_same_for_one_key_and_told_by_no_other() {
    let _alone = alone();
    let netns = Netns::named("hashed");
    address(&netns);
    let connections = talk(&netns);
    let cookie = traffic::cookie(&connections[0][0]);
    let named = netns.name.as_deref().unwrap();
    let hashed = |key: &str| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(key.as_bytes()).unwrap();
        let mask = format!("hash:{}", file.path().display());
        let dump =
            run_to_end(&[], &["dump", "--netns", named, "--marshal", "jsonl", "--mask-addresses", &mask]);
        let rows: Vec<XtcpFlatRecord> =
            dump.stdout.since(0).iter().map(|line| serde_json::from_str(&line.text).unwrap()).collect();
        assert!(rows.len() >= 4 && rows.iter().all(|row| !leaks(&row.encode_to_vec())), "{rows:?}");
        let row = rows.iter().find(|row| row.inet_diag_msg_socket_cookie == cookie).unwrap();
        assert_eq!(row.inet_diag_msg_socket_source, row.inet_diag_msg_socket_destination);
        row.inet_diag_msg_socket_source.clone()
    };
    let (one, other) = ("00112233445566778899aabbccddeeff\n", "ffeeddccbbaa99887766554433221100\n");
    assert_eq!(hashed(one), hashed(one));
    assert_ne!(hashed(one), hashed(other));
}
