//! Promise: what is not as it should be ends in a clear message or a counter, never in a panic, a wrong row or a silence:
//! wrong settings, an unreachable NATS, namespaces that die while they are asked, a flooded ring buffer, a client that
//! does not read, an end in the middle of things. (Every test also fails if the agent panicked.)
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use xtcp_proto::event::v1::EventKind;
use xtcp_proto::flat_record::v1::FlatRecordsRequest;
use xtcp_proto::flat_record::v1::xtcp_flat_record_service_client::XtcpFlatRecordServiceClient;
use xtcp_tests::agent::{agent, run_to_end};
use xtcp_tests::events::{Seen, Subscriber, addresses, lost};
use xtcp_tests::grpc;
use xtcp_tests::host::{allow_open_files, alone, free_port, scale, slowness, wait_for};
use xtcp_tests::nats::NatsServer;
use xtcp_tests::netns::Netns;
use xtcp_tests::process::run;
use xtcp_tests::row::Row;
use xtcp_tests::traffic::{self, Plan};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn every_wrong_setting_is_refused_with_what_is_known() {
    let _alone = alone();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["--frequncy", "1s"], &["--frequncy", "--frequency"]),
        (&["--frequency", "soon"], &["frequency", "soon"]),
        (&["--frequency", "1ms"], &["frequency", "100ms", "24h"]),
        (&["--dest", "carrier-pigeon:"], &["carrier-pigeon", "null", "stdout"]),
        (&["--marshal", "xml"], &["xml", "protobufList", "jsonl"]),
        (&["--states", "asleep"], &["asleep", "established", "listen", "time-wait"]),
        (&["--events", "telegraph:x"], &["telegraph", "nats:", "stdout:", "off"]),
        (&["--ebpf", "perhaps"], &["perhaps", "auto", "off", "require"]),
        (&["--ebpf-deny", "no_such_hook"], &["no_such_hook", "netns_copied", "netns_put", "tcp_state"]),
        (&["--ebpf-ring-bytes", "100000"], &["ebpf-ring-bytes", "100000", "power of two"]),
        (&["--grpc-port", "70000"], &["grpc-port", "70000"]),
        // All faults at once.
        (&["--marshal", "xml", "--frequency", "1ms"], &["xml", "100ms"]),
    ];
    for (args, expected) in cases {
        refused(&[], args, expected);
    }
    refused(&["env", "XTCP_FREQUNCY=1s"], &[], &["XTCP_FREQUNCY", "XTCP_FREQUENCY"]);
    refused(&["env", "XTCP_FREQUENCY=1ms"], &[], &["XTCP_FREQUENCY", "100ms"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    std::fs::write(&file, "frequncy = \"1s\"\nmarshal = \"xml\"\n").unwrap();
    let path = file.to_str().unwrap();
    refused(
        &[],
        &["--config", path],
        &["frequncy", "frequency", "xml", &format!("{path}:1"), &format!("{path}:2")],
    );
    refused(&[], &["--config", "/nonexistent.toml"], &["/nonexistent.toml"]);
}

fn refused(wrapper: &[&str], args: &[&str], expected: &[&str]) {
    let mut ended = run_to_end(wrapper, args);
    let stderr = ended.stderr.text();
    assert_eq!(ended.try_wait().unwrap().code(), Some(2), "{args:?}: {stderr}");
    assert!(ended.stdout.is_empty(), "{args:?}: standard output is for rows");
    for word in expected {
        assert!(stderr.contains(word), "{wrapper:?} {args:?}: {word:?} is not in: {stderr}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let _alone = alone();
    let taken = traffic::listen((Ipv4Addr::LOCALHOST, free_port()).into());
    let address = taken.local_addr().unwrap().to_string();
    let mut ended = run_to_end(&[], &["--prom-listen", &address, "--events", "off"]);
    let stderr = ended.stderr.text();
    assert!(!ended.try_wait().unwrap().success(), "{stderr}");
    assert!(stderr.contains(&address) && stderr.contains("in use"), "{stderr}");
}

#[test]
fn without_btf_it_starts_and_check_says_what_is_missing() {
    let _alone = alone();
    let hide = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"", "sh"];
    let netns = Netns::named("nobtf");
    let _held = netns.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST));
    let running = agent().frequency("500ms").wrapped_in(&hide).start();
    running.wait_for_row("rows of polls", LIMIT, |row| row.is_of(netns.id) && row.poll() > Some(1));
    let log = running.process.stderr.text();
    assert!(log.contains("BTF"), "its log does not say that BTF is missing: {log}");
    drop(running);
    let mut check = run_to_end(&hide, &["check"]);
    assert_eq!(check.try_wait().unwrap().code(), Some(1), "it runs with less: {}", check.stdout.text());
    assert!(check.stdout.text().contains("BTF"), "{}", check.stdout.text());
}

#[test]
fn a_missing_capability_is_named_with_how_to_grant_it() {
    let _alone = alone();
    let mut check = run_to_end(&[], &["check"]);
    assert!(check.try_wait().unwrap().code() < Some(2), "with everything: {}", check.stdout.text());
    let lacking = ["setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon", "--"];
    let mut ended = run_to_end(&lacking, &["--events", "off"]);
    let stderr = ended.stderr.text();
    assert!(ended.try_wait().unwrap().code().is_some_and(|code| code != 0), "it must refuse: {stderr}");
    assert!(stderr.contains("CAP_SYS_ADMIN") && stderr.contains("setns"), "{stderr}");
    let mut check = run_to_end(&lacking, &["check", "--json"]);
    assert_eq!(check.try_wait().unwrap().code(), Some(2));
    let report: Value = serde_json::from_str(&check.stdout.text()).unwrap();
    assert_eq!(report["decision"]["mode"], "refuse");
    let findings = report["decision"]["findings"].as_array().unwrap();
    let about =
        findings.iter().find(|finding| finding["what"].to_string().contains("CAP_SYS_ADMIN")).unwrap();
    assert!(!about["remedy"].as_array().unwrap().is_empty(), "{about:#}");
    // CAP_SYS_ADMIN alone lets in, and lets eBPF load.
    let less = ["setpriv", "--bounding-set=-net_admin", "--"];
    let running = agent().wrapped_in(&less).start();
    assert!(running.process.stderr.text().contains("CAP_NET_ADMIN"), "{}", running.process.stderr.text());
}

#[test]
fn an_unreachable_nats_is_said_once_and_found_when_it_comes() {
    let _alone = alone();
    let port = free_port();
    let agent = agent().frequency("200ms").events_at(&format!("nats:127.0.0.1:{port}")).start();
    agent.wait_for_row("polls to go on", LIMIT, |row| row.poll() >= Some(10));
    let about = || {
        let log = agent.process.stderr.since(0);
        log.iter().filter(|line| line.text.contains(&port.to_string()) && line.text.contains("WARN")).count()
    };
    assert_eq!(about(), 1, "one line says that it is not there: {}", agent.process.stderr.text());
    let nats = NatsServer::start_on(port);
    let subscriber = Subscriber::new(&nats);
    let netns = Netns::anonymous("late");
    subscriber.wait_for("an event at a NATS that came late", LIMIT, |seen| seen.is_created(netns.id));
    // It goes and comes back.
    drop(subscriber);
    nats.kill();
    let nats = NatsServer::start_on(port);
    let subscriber = Subscriber::new(&nats);
    wait_for("an event at a NATS that came back", LIMIT, || {
        let netns = Netns::anonymous("again");
        subscriber.find(Duration::from_secs(1), |seen| seen.is_created(netns.id))
    });
    assert!(about() <= 2, "{}", agent.process.stderr.text());
}

#[test]
fn namespaces_that_die_while_they_are_asked_cost_a_counter_and_no_wrong_row() {
    let _alone = alone();
    let agent = agent().frequency("100ms").args(&["--log-format", "json"]).start();
    let before = agent.metrics().sum("xtcp_polls_total", &[]);
    let mut netns_of_ip = BTreeMap::new();
    let mut alive = VecDeque::new();
    for round in 0..scale(150_u16, 1_500) {
        // An address that is used in no other namespace: a row that bears it tells where it really comes from.
        let [high, low] = round.to_be_bytes();
        let ip = Ipv4Addr::new(127, 77, high, low);
        let netns = if round % 2 == 0 { Netns::anonymous("dies") } else { Netns::named("dies") };
        netns_of_ip.insert(IpAddr::from(ip), netns.id);
        let sockets = netns.run_in(|| {
            let listener = traffic::listen((ip, 0).into());
            let client = traffic::connect(listener.local_addr().unwrap());
            traffic::reset_on_close(&client);
            (client, traffic::accept(&listener), listener)
        });
        // Each lives for a few polls, and dies at no particular moment of one.
        alive.push_back((sockets, netns));
        if alive.len() > 12 {
            alive.pop_front();
        }
    }
    drop(alive);
    let polls = agent.metrics().sum("xtcp_polls_total", &[]) - before;
    println!("{} namespaces lived and died during {polls} polls", netns_of_ip.len());
    assert!(polls >= 5.0, "it was polled meanwhile");
    let rows = agent.delivered_rows();
    let mut told = BTreeSet::new();
    for row in &rows {
        if let Some(netns) = netns_of_ip.get(&row.local().ip()) {
            assert!(row.is_of(*netns), "a socket of another namespace: {row:?}");
            told.insert(row.local().ip());
        }
    }
    println!("rows came from {} of them", told.len());
    assert!(!told.is_empty());
    for line in agent.process.stderr.since(0) {
        let entry: Value =
            serde_json::from_str(&line.text).unwrap_or_else(|e| panic!("no JSON: {e}: {}", line.text));
        assert!(
            entry["level"] != "ERROR" && entry["level"] != "WARN",
            "louder than a counter: {}",
            line.text
        );
    }
}

#[test]
fn a_flooded_ring_buffer_says_exactly_how_many_events_are_missing() {
    let _alone = alone();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let netns = Netns::named("flood");
    netns.sysctl("ipv4/ip_local_port_range", "1024 65000");
    let inode = netns.inode.to_string();
    let small = ["--ebpf-ring-bytes", "65536", "--ebpf-drain-interval", "1s", "--netns-include", &inode];
    let agent = agent().events_to(&nats).args(&small).start();
    let plan = Plan { connections: scale(1_500, 15_000), workers: 2, lifetime: Duration::ZERO, ipv4: true };
    let (mut made, mut listeners) = (0, 0);
    for _ in 0..2 {
        // However slow this host is, nobody looks into the buffer meanwhile.
        agent.process.signal(Signal::SIGSTOP);
        let done = netns.run_in(|| traffic::make(plan));
        agent.process.signal(Signal::SIGCONT);
        made += done.made.len();
        listeners += done.listeners;
    }
    let closes = 2 * made + listeners;
    let states = 8 * made + listeners;
    let sums = || {
        subscriber.look(|events| {
            let of_netns = || events.iter().filter(|seen| seen.is_of(netns.id));
            let seen = [
                of_netns().filter(|seen| seen.close().is_some()).count() as u64,
                of_netns().filter(|seen| seen.state().is_some()).count() as u64,
            ];
            (seen, [lost(events, EventKind::TcpClose), lost(events, EventKind::TcpState)])
        })
    };
    let start = Instant::now();
    let (seen, lost) = loop {
        let (seen, lost) = sums();
        let all = seen.iter().chain(&lost).sum::<u64>() >= (closes + states) as u64;
        if all || start.elapsed() > LIMIT * slowness() {
            break (seen, lost);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    println!("made {closes} closes and {states} states; seen {seen:?}, told lost {lost:?}");
    assert!(lost[0] + lost[1] > 0, "the flood was none");
    assert_eq!([seen[0] + lost[0], seen[1] + lost[1]], [closes as u64, states as u64]);
    // The end of a namespace that an earlier test made may be lost, too.
    let metrics = agent.metrics();
    for (kind, told) in ["kind=\"tcp_close\"", "kind=\"tcp_state\""].into_iter().zip(lost) {
        let counted = metrics.sum("xtcp_ebpf_events_total", &[kind, "outcome=\"lost\""]);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let told = told as f64;
        assert!(
            (counted - told).abs() < f64::EPSILON,
            "{kind}: the counter says {counted}, the Loss events {told}"
        );
    }
    // What came through of a connection whose beginning did not is not called complete.
    for close in subscriber.of(netns.id).iter().filter_map(Seen::close) {
        assert!(!close.path_complete || close.path.len() >= 3, "{close:?}");
    }
    drop(agent);
}

#[test]
fn the_agents_own_connections_are_left_out_and_counted() {
    let _alone = alone();
    let nats = NatsServer::start();
    for include in [false, true] {
        let subscriber = Subscriber::new(&nats);
        let choice = if include { "include" } else { "exclude" };
        let agent = agent().events_to(&nats).args(&["--own-connections", choice]).start();
        let filter = format!("dport = :{}", nats.address.port());
        let pid = format!("pid={},", agent.process.pid());
        let own = wait_for("the agent's connection to NATS", LIMIT, || {
            let text = run(&["ss", "-tnpH", &filter]);
            let line = text.lines().find(|line| line.contains(&pid))?;
            line.split_whitespace().nth(3).map(str::to_owned)
        });
        let rows = grpc::poll(agent.grpc);
        let has_row = rows.iter().any(|row| row.local().to_string() == own);
        assert_eq!(has_row, include, "a row of {own} with --own-connections {choice}");
        // The poll itself came through a connection to the agent; its other end is the test's.
        let serves = rows.iter().any(|row| row.local() == agent.grpc && row.remote().port() != 0);
        assert_eq!(serves, include, "a row of what {} accepted, with --own-connections {choice}", agent.grpc);
        assert!(rows.iter().any(|row| row.remote() == agent.grpc), "the other end is left out too");
        assert!(
            rows.iter().any(|row| row.local() == agent.grpc && row.remote().port() == 0),
            "no row of the listener"
        );
        // Something happens after the connection was made, so its events would have come before.
        let netns = Netns::anonymous("mark");
        subscriber.wait_for("a mark", LIMIT, |seen| seen.is_created(netns.id));
        let of_own = |seen: &Seen| {
            seen.state()
                .and_then(|state| state.socket.as_ref())
                .is_some_and(|s| addresses(s).0.to_string() == own)
        };
        assert!(include || !subscriber.all().iter().any(of_own), "an event of {own}");
        if !include {
            assert!(agent.metrics().sum("xtcp_events_left_out_total", &["why=\"own\""]) > 0.0);
        }
    }
}

#[test]
fn a_grpc_client_that_does_not_read_slows_nobody() {
    let _alone = alone();
    allow_open_files(5_000);
    let netns = Netns::named("slow");
    let held: Vec<TcpStream> = netns.run_in(|| {
        let listener = traffic::listen((Ipv4Addr::LOCALHOST, 0).into());
        let address = listener.local_addr().unwrap();
        (0..2_000).flat_map(|_| [traffic::connect(address), traffic::accept(&listener)]).collect()
    });
    // Where everything takes longer, polls come less often: the test keeps what the agent writes.
    let frequency = format!("{}s", slowness().div_ceil(4));
    let agent = agent().frequency(&frequency).start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let uri = format!("http://{}", agent.grpc);
    let unread = runtime.block_on(async {
        let mut client = XtcpFlatRecordServiceClient::connect(uri).await.unwrap();
        client.flat_records(FlatRecordsRequest {}).await.unwrap().into_inner()
    });
    let polls = || agent.metrics().sum("xtcp_polls_total", &["complete=\"yes\""]);
    let dropped = || agent.metrics().sum("xtcp_grpc_rows_dropped_total", &[]);
    wait_for("rows to be dropped for the slow client", Duration::from_secs(60), || {
        (dropped() > 0.0).then_some(())
    });
    let (start, before) = (Instant::now(), polls());
    wait_for("four more polls", LIMIT, || (polls() >= before + 4.0).then_some(()));
    println!("four polls, every {frequency}, beside a client that does not read: {:?}", start.elapsed());
    let mut read = agent.process.stdout.len();
    let number = grpc::poll(agent.grpc).iter().find_map(Row::poll).unwrap();
    let mut of_poll = 0;
    wait_for("every row of a poll at the destination", LIMIT, || {
        let lines = agent.process.stdout.since(read);
        read += lines.len();
        let rows = lines.iter().map(|line| Row::from_json(line.arrived_ns, &line.text));
        of_poll += rows.filter(|row| row.is_of(netns.id) && row.poll() == Some(number)).count();
        (of_poll >= held.len()).then_some(())
    });
    drop(unread);
}

#[test]
fn sigterm_flushes_every_row_and_ends_with_0_in_time() {
    let _alone = alone();
    let netns = Netns::named("flush");
    let held: Vec<TcpStream> = netns.run_in(|| {
        let listener = traffic::listen((Ipv4Addr::LOCALHOST, 0).into());
        let address = listener.local_addr().unwrap();
        (0..500).flat_map(|_| [traffic::connect(address), traffic::accept(&listener)]).collect()
    });
    // No batch leaves by itself.
    let hoard = [
        "--envelope-flush-rows",
        "1000000",
        "--envelope-flush-bytes",
        "256MiB",
        "--envelope-flush-age",
        "1h",
        "--envelope-flush-event-age",
        "1h",
    ];
    let mut agent = agent().args(&hoard).start();
    assert_eq!(grpc::poll(agent.grpc).iter().filter(|row| row.is_of(netns.id)).count(), held.len());
    assert_eq!(agent.rows().len(), 0, "nothing has left yet");
    let start = Instant::now();
    let (status, rows) = agent.terminate(Duration::from_secs(12));
    println!("ended {:?} after SIGTERM with {} rows", start.elapsed(), rows.len());
    assert_eq!(status.code(), Some(0), "{}", agent.process.stderr.text());
    let expected: BTreeSet<u64> = held.iter().map(traffic::cookie).collect();
    for poll in [1, 2] {
        let flushed: BTreeSet<u64> =
            rows.iter().filter(|row| row.poll() == Some(poll)).map(Row::cookie).collect();
        assert!(expected.is_subset(&flushed), "poll {poll}: rows are missing");
    }
}
