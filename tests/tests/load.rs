//! Promise: what `xtcp2-agent load` says that it made is what the agent's events and rows say, to the last one; and
//! nothing of it stays, however it ends.
//!
//! The generator's log says which namespace had which ports and when it came and went; its summary counts. Both are held
//! against the agent, which knows nothing of the generator. A row under a namespace that did not have its ports would be
//! another's.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xtcp_proto::event::v1::event::Event as Kind;
use xtcp_proto::event::v1::{EventKind, EventsRequest};
use xtcp_tests::agent::{agent, binary, run_to_end};
use xtcp_tests::grpc;
use xtcp_tests::host::{alone, scale, wait_for};
use xtcp_tests::netns::{Id, Netns};
use xtcp_tests::process::{Process, run};

const LIMIT: Duration = Duration::from_secs(60);
const LISTEN: u32 = 10;
const ESTABLISHED: u32 = 1;

/// Starts `xtcp2-agent load`.
fn load(args: &[&str]) -> Process {
    let words = ["load"].iter().chain(args).map(OsString::from);
    let argv: Vec<OsString> = std::iter::once(binary().into()).chain(words).collect();
    Process::start("load", &argv)
}

/// Its status and summary, once it has ended.
fn ended(mut load: Process) -> (Option<i32>, Value) {
    // What the full scale makes takes minutes on a busy host.
    let status = load.wait(LIMIT * scale(1, 10_u32).max(1));
    let status = status.unwrap_or_else(|| panic!("load did not end: {}", load.stderr.text()));
    let summary = load.stdout.text();
    let parsed = serde_json::from_str(&summary);
    (status.code(), parsed.unwrap_or_else(|e| panic!("{e}: {summary:?}; {}", load.stderr.text())))
}

/// Lines of a log about this, by who the namespace was; none may be there twice.
fn logged(log: &Path, what: &str) -> BTreeMap<(u64, u64, u64), Value> {
    let mut all = BTreeMap::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["what"] != what {
            continue;
        }
        let number = |key: &str| line[key].as_u64().unwrap();
        let id = (number("inode"), number("cookie"), number("created_ktime_ns"));
        assert!(all.insert(id, line.clone()).is_none(), "twice in the log: {line}");
    }
    all
}

#[test]
fn every_namespace_of_load_is_announced_and_mourned_once() {
    let _alone = alone();
    let agent = agent().without_rows().start();
    let kinds = vec![EventKind::NetnsCreated.into(), EventKind::NetnsDestroyed.into()];
    let events = grpc::events(agent.grpc, EventsRequest { kinds, ..EventsRequest::default() });
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let count: u32 = scale(200, 10_000);
    let (status, summary) = ended(load(&[
        "netns",
        "--initial",
        "20",
        "--count",
        &count.to_string(),
        "--connections",
        "2",
        "--log",
        log.to_str().unwrap(),
        "-q",
    ]));
    println!("{summary}");
    let all = u64::from(count) + 20;
    assert_eq!((status, &summary["errors"], &summary["ended_by"]), (Some(0), &0.into(), &"count".into()));
    assert_eq!((&summary["created"], &summary["destroyed"]), (&all.into(), &all.into()));
    assert_eq!((&summary["connections"], &summary["bytes"]), (&(2 * all).into(), &(400 * all).into()));
    assert!(summary["still_alive"].is_null() || summary["still_alive"] == 0, "{summary}");
    let (created, destroyed) = (logged(&log, "created"), logged(&log, "destroyed"));
    assert_eq!(created.len() as u64, all);
    assert!(created.keys().eq(destroyed.keys()));

    // A namespace is in the log by its inode and cookie, as often as the two were given.
    let mut expected = BTreeMap::new();
    for (inode, cookie, _) in created.keys() {
        *expected.entry((*inode, *cookie)).or_insert(0) += 1;
    }
    let (mut births, mut deaths) = (BTreeMap::new(), BTreeMap::new());
    // Runs of programs that the kernel skipped: each may have been one of these.
    let mut skipped = 0;
    while births != expected || deaths != expected {
        let Some((_, event)) = events.next(LIMIT) else {
            let missing = |seen: &BTreeMap<(u64, u64), i32>| {
                expected.iter().filter(|(id, n)| seen.get(id) != Some(*n)).count() as u64
            };
            let (births, deaths) = (missing(&births), missing(&deaths));
            assert!(births + deaths <= skipped, "{births} births and {deaths} deaths are not told right");
            break;
        };
        let Some(netns) = &event.netns else {
            let Some(Kind::Loss(loss)) = &event.event else { panic!("of no namespace: {event:?}") };
            let known = loss.lost.iter().any(|lost| lost.kind() != EventKind::Unspecified);
            assert!(!known, "events were lost: {event:?}");
            skipped += loss.lost.iter().map(|lost| lost.count).sum::<u64>();
            continue;
        };
        let id = (netns.inode, netns.cookie);
        match event.event {
            _ if !expected.contains_key(&id) => {}
            Some(Kind::NetnsCreated(_)) => *births.entry(id).or_insert(0) += 1,
            Some(Kind::NetnsDestroyed(_)) => *deaths.entry(id).or_insert(0) += 1,
            other => panic!("not asked for: {other:?}"),
        }
    }
}

#[test]
fn rows_of_loads_namespaces_have_the_ports_that_each_was_given() {
    let _alone = alone();
    let agent = agent().without_rows().start();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let number: u16 = scale(30, 300);
    let path = log.to_str().unwrap();
    let words =
        ["netns", "--initial", &number.to_string(), "--connections", "3", "--family", "both", "--log", path];
    let load = load(&words);
    let filled = load.stderr.wait_for(LIMIT, |line| line.starts_with("filled: "));
    assert!(filled.is_some(), "{}", load.stderr.text());
    let created = logged(&log, "created");
    assert_eq!(created.len(), usize::from(number));
    // What the agent has not heard of yet it finds before the next poll.
    wait_for("every namespace to be polled in full", LIMIT, || {
        let rows = grpc::poll(agent.grpc);
        let mut whole = true;
        for ((inode, cookie, _), line) in &created {
            let ports = line["first_port"].as_u64().unwrap()..=line["last_port"].as_u64().unwrap();
            let id = Id { inode: *inode, cookie: *cookie, since_ns: 0 };
            let own: Vec<_> = rows.iter().filter(|row| row.is_of(id)).collect();
            for row in &own {
                assert!(ports.contains(&row.local().port().into()), "{line} has a row of another: {row:?}");
            }
            let in_state = |state| own.iter().filter(|row| row.record.inet_diag_msg_state == state).count();
            // Two families, a listener each; both ends of three connections.
            whole &= (in_state(LISTEN), in_state(ESTABLISHED)) == (2, 6);
        }
        whole.then_some(())
    });
    load.signal(Signal::SIGINT);
    let (status, summary) = ended(load);
    assert_eq!((status, &summary["ended_by"]), (Some(0), &"signal".into()));
    assert_eq!((&summary["created"], &summary["destroyed"]), (&number.into(), &number.into()));
}

#[test]
fn messages_of_loads_connections_go_over_veths_again_and_again() {
    let _alone = alone();
    let (_, links_before) = left("veths");
    let agent = agent().without_rows().start();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let path = log.to_str().unwrap();
    let load = load(
        &[
            &["netns", "--initial", "5", "--connections", "2", "--family", "both"][..],
            &["--through-veth", "--sleep", "50ms", "--log", path],
        ]
        .concat(),
    );
    let filled = load.stderr.wait_for(LIMIT, |line| line.starts_with("filled: "));
    assert!(filled.is_some(), "{}", load.stderr.text());
    let created = logged(&log, "created");
    assert_eq!(created.len(), 5);
    wait_for("ten messages over each connection", LIMIT, || {
        let rows = grpc::poll(agent.grpc);
        let mut enough = true;
        for (inode, cookie, _) in created.keys() {
            let id = Id { inode: *inode, cookie: *cookie, since_ns: 0 };
            let own = || rows.iter().filter(|row| row.is_of(id));
            assert!(own().all(|row| !row.local().ip().is_loopback()), "not over the veth");
            // The listener of each family; the other ends are in the namespace of the veths' other ends.
            let listens = own().filter(|row| row.record.inet_diag_msg_state == LISTEN).count();
            let talks = |row: &&xtcp_tests::row::Row| {
                row.record.inet_diag_msg_state == ESTABLISHED && row.record.tcp_info_bytes_received >= 1_000
            };
            enough &= (listens, own().filter(talks).count()) == (2, 2);
        }
        enough.then_some(())
    });
    assert_eq!(left("veths").1, links_before, "no link of it is in the generator's namespace");
    load.signal(Signal::SIGINT);
    let (status, summary) = ended(load);
    assert_eq!((status, &summary["errors"], &summary["connections"]), (Some(0), &0.into(), &10.into()));
    assert!(summary["bytes"].as_u64().unwrap() >= 10 * 10 * 200, "{summary}");
    assert_eq!((&summary["created"], &summary["destroyed"]), (&5.into(), &5.into()));
    assert!(summary["still_alive"].is_null() || summary["still_alive"] == 0, "{summary}");
}

#[test]
fn connections_that_load_holds_are_in_the_rows_and_its_counts_agree() {
    let _alone = alone();
    let agent = agent().without_rows().start();
    let netns = Netns::named("hold");
    let name = netns.name.clone().unwrap();
    let load = load(&["tcp", "--netns", &name, "--connections", "50", "--hold", "--message", "1000"]);
    let all = "connections: 50 opened, 50 accepted; ends closed 0; messages 50; errors 0";
    assert!(load.stderr.wait_for(LIMIT, |line| line == all).is_some(), "{}", load.stderr.text());
    wait_for("a poll with every connection", LIMIT, || {
        let rows = grpc::poll(agent.grpc);
        let in_state = |state| {
            rows.iter().filter(|row| row.is_of(netns.id) && row.record.inet_diag_msg_state == state).count()
        };
        ((in_state(LISTEN), in_state(ESTABLISHED)) == (1, 100)).then_some(())
    });
    load.signal(Signal::SIGTERM);
    let (status, summary) = ended(load);
    assert_eq!(status, Some(0), "{summary}");
    for (key, value) in [
        ("connections", 50),
        ("accepted", 50),
        ("closed", 100),
        ("messages", 50),
        ("bytes_sent", 50_000),
        ("bytes_received", 50_000),
        ("bytes_served", 50_000),
        ("errors", 0),
    ] {
        assert_eq!(summary[key], value, "{key}: {summary}");
    }
}

#[test]
fn both_ends_of_every_short_lived_connection_of_load_are_told_to_close() {
    let _alone = alone();
    let agent = agent().without_rows().start();
    for close in ["fin", "reset"] {
        let netns = Netns::named(close);
        let name = netns.name.clone().unwrap();
        let events = grpc::events(
            agent.grpc,
            EventsRequest {
                kinds: vec![EventKind::TcpClose.into()],
                // Not by name: a namespace gets it a moment after its first connection could be made.
                netns_inodes: vec![netns.inode],
                ..EventsRequest::default()
            },
        );
        let count: u32 = scale(500, 20_000);
        let words =
            ["tcp", "--netns", &name, "--short-lived", "--count", &count.to_string(), "--close", close];
        let (status, summary) =
            ended(load(&[&words[..], &["--listeners", "1", "--family", "ipv6", "-q"]].concat()));
        println!("{close}: {summary}");
        assert_eq!((status, &summary["connections"]), (Some(0), &count.into()), "{summary}");
        assert_eq!(
            (&summary["accepted"], &summary["closed"]),
            (&count.into(), &(2 * count).into()),
            "{summary}"
        );
        // And the listener.
        for told in 0..=2 * count {
            let event = events.next(LIMIT);
            assert!(event.is_some(), "{close}: only {told} of {} ends were told", 2 * count + 1);
        }
        assert!(events.next(Duration::from_millis(200)).is_none(), "{close}: more ends than there were");
    }
}

/// Everything that it could leave behind.
fn left(prefix: &str) -> (usize, usize) {
    let names = std::fs::read_dir("/run/netns").map_or(0, |entries| {
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).count()
    });
    let links = run(&["ip", "-o", "link", "show", "type", "veth"]);
    (names, links.lines().filter(|line| line.contains(": xl")).count())
}

fn child_of(pid: u32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

#[test]
fn nothing_of_load_stays_whatever_ends_it() {
    let _alone = alone();
    let (_, links_before) = left("nothing");
    for (signal, kills_guard) in
        [(Signal::SIGINT, false), (Signal::SIGTERM, false), (Signal::SIGTERM, true), (Signal::SIGKILL, false)]
    {
        let what = format!("{signal}, guard killed: {kills_guard}");
        let mut load = load(&[
            "netns",
            "--initial",
            "10",
            "--rate",
            "20",
            "--named",
            "--prefix",
            "xtcp-t-left",
            "--veth",
        ]);
        let filled = load.stderr.wait_for(LIMIT, |line| line.starts_with("filled: "));
        assert!(filled.is_some(), "{what}: {}", load.stderr.text());
        let (names, links) = left("xtcp-t-left");
        assert!(names >= 10 && links >= links_before + 10, "{what}: {names} names and {links} links");
        if kills_guard {
            // setpriv has become the generator: its one child stands by.
            let guard = child_of(load.pid()).unwrap_or_else(|| panic!("{what}: nobody stands by"));
            kill(Pid::from_raw(guard), Signal::SIGKILL).unwrap();
        }
        load.signal(signal);
        if signal == Signal::SIGKILL {
            assert!(load.wait(LIMIT).is_some(), "{what}");
        } else {
            let (status, summary) = ended(load);
            assert_eq!((status, &summary["ended_by"]), (Some(0), &"signal".into()), "{what}: {summary}");
            assert_eq!(summary["created"], summary["destroyed"], "{what}: {summary}");
        }
        wait_for(&format!("nothing to be left after {what}"), LIMIT, || {
            (left("xtcp-t-left") == (0, links_before)).then_some(())
        });
    }
}

#[test]
fn what_load_cannot_do_it_says_and_does_nothing() {
    let _alone = alone();
    let nobody: &[&str] = &["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let cases: &[(&[&str], &[&str], &str)] = &[
        (&[], &["load", "netns", "--rate", "0"], "accepted: a number above 0"),
        (&[], &["load", "netns", "--rate", "fast"], "accepted: a number above 0"),
        (&[], &["load", "netns", "--initial", "1000001"], "1000001 is not in 0..=1000000"),
        (&[], &["load", "netns", "--ports", "9-1"], "accepted: two ports"),
        (&[], &["load", "netns", "--ports", "1-3", "--connections", "3"], "--ports holds fewer than 4"),
        (&[], &["load", "netns", "--prefix", "../x"], "accepted: 1 to 64 letters"),
        (&[], &["load", "netns", "--held-by", "socket", "--connections", "0"], "needs --connections"),
        (&[], &["load", "tcp", "--netns", "no-such"], "cannot enter /run/netns/no-such: No such file"),
        (&[], &["load", "tcp", "--netns", "/etc/hostname"], "cannot enter /etc/hostname"),
        (&[], &["load", "tcp", "--server-netns", "a"], "--address is needed"),
        (&[], &["load", "tcp", "--count", "7"], "--short-lived"),
        (&[], &["load", "tcp", "--role", "client"], "--port"),
        (&[], &["load", "tcp", "--time", "soon"], "accepted: a duration"),
        (&[], &["load"], "requires a subcommand"),
        (nobody, &["load", "netns", "--initial", "1"], "run it as root"),
    ];
    for (wrapper, args, expected) in cases {
        let mut load = run_to_end(wrapper, args);
        let status = load.wait(LIMIT).unwrap();
        let told = load.stderr.text();
        assert_eq!(status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(expected), "{args:?} does not say {expected:?}: {told}");
        assert!(load.stdout.is_empty(), "{args:?}: {}", load.stdout.text());
    }
}
