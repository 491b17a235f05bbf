//! Promise: every rung of the ladders works. Each is forced by denying those above it; namespaces' lives and TCP states
//! are still told, and the agent says through what.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use xtcp_proto::event::v1::event::Event as Kind;
use xtcp_proto::event::v1::{NetnsSource, TcpState};
use xtcp_tests::agent::{Agent, agent, run_to_end};
use xtcp_tests::events::{Seen, Subscriber, addresses};
use xtcp_tests::host::{alone, kernel, slowness};
use xtcp_tests::nats::NatsServer;
use xtcp_tests::netns::Netns;
use xtcp_tests::traffic;

const LIMIT: Duration = Duration::from_secs(30);
const ALL: &str = "tcp_state,tcp_state_classic,netns_copied,netns_forked,netns_unshared,netns_put,netns_file_put,netns_cleanup,netns_entered";

/// What tells that a process gave itself a new namespace, as the tests' do, and what tells of ends.
const CREATION: [&str; 2] = ["netns_copied", "netns_unshared"];
const DESTRUCTION: [&str; 3] = ["netns_put", "netns_file_put", "netns_cleanup"];

/// The hooks of namespaces' lives: what `--ebpf-deny` and what the metrics call them.
const HOOKS: [(&str, &str); 6] = [
    ("netns_copied", "fexit/copy_net_ns"),
    ("netns_forked", "tp_btf/sched_process_fork"),
    ("netns_unshared", "tracepoint/syscalls/sys_exit_unshare"),
    ("netns_put", "fentry/__put_net"),
    ("netns_file_put", "fexit/netns_put"),
    ("netns_cleanup", "tp_btf/workqueue_execute_start"),
];

#[test]
fn namespaces_lives_are_told_through_every_rung() {
    let _alone = alone();
    let cases = [
        "tcp_state_classic",
        "netns_copied",
        "netns_copied,netns_forked",
        "netns_put,netns_file_put",
        "netns_put,netns_file_put,netns_cleanup",
        "netns_copied,netns_forked,netns_unshared",
    ];
    for denied in cases {
        let nats = NatsServer::start();
        let subscriber = Subscriber::new(&nats);
        // Where a hint is to be followed up, nothing else may come first.
        let without = |rungs: &[&str]| rungs.iter().all(|rung| is_missing(denied, rung));
        let reconciled = without(&CREATION) || without(&DESTRUCTION);
        let reconcile = if reconciled { format!("{}ms", 200 * slowness()) } else { "1h".to_owned() };
        let args = ["--ebpf-deny", denied, "--reconcile-frequency", &reconcile];
        let agent = agent().events_to(&nats).args(&args).start();
        let (creation, destruction) = sources(&agent, denied);
        for netns in [Netns::named("rung"), Netns::anonymous("rung")] {
            let id = netns.id;
            let created = subscriber.wait_for(&format!("created, without {denied}"), LIMIT, |seen| {
                matches!(seen.kind(), Kind::NetnsCreated(_)) && seen.may_be_of(id)
            });
            let Kind::NetnsCreated(event) = created.kind() else { unreachable!() };
            assert!(creation.contains(&event.source()), "without {denied}: {event:?}");
            check_states(&subscriber, &netns);
            netns.end();
            let destroyed = subscriber.wait_for(&format!("destroyed, without {denied}"), LIMIT, |seen| {
                matches!(seen.kind(), Kind::NetnsDestroyed(_)) && seen.may_be_of(id)
            });
            let Kind::NetnsDestroyed(event) = destroyed.kind() else { unreachable!() };
            // Where looks are frequent, one may come first.
            let looked = reconciled && event.source() == NetnsSource::Reconcile;
            assert!(looked || destruction.contains(&event.source()), "without {denied}: {event:?}");
        }
        println!("without {denied}: told by {creation:?} and {destruction:?}");
    }
}

/// Opens no namespace by handle, as before Linux 6.18: whose an end was is then seen by looks at the host alone.
const WITHOUT_HANDLES: [&str; 11] = [
    "strace",
    "-D",
    "-f",
    "--seccomp-bpf",
    "-qq",
    "-o",
    "/dev/null",
    "-e",
    "trace=open_by_handle_at",
    "-e",
    "inject=open_by_handle_at:error=EOPNOTSUPP",
];

#[test]
fn where_only_looks_tell_whose_an_end_was_a_hint_is_enough_to_look() {
    let _alone = alone();
    // The kernel's clean-up work, which is all namespaces' hint; without events the mount that went.
    let cases: [(&[&str], bool); 2] =
        [(&["--ebpf-deny", "netns_put,netns_file_put"], true), (&["--ebpf", "off"], false)];
    for (args, cleanup) in cases {
        let nats = NatsServer::start();
        let subscriber = Subscriber::new(&nats);
        let agent = agent()
            .wrapped_in(&WITHOUT_HANDLES)
            .events_to(&nats)
            .args(args)
            .args(&["--reconcile-frequency", "1h"])
            .start();
        let hook = "hook=\"tp_btf/workqueue_execute_start\"";
        assert_eq!(agent.metrics().sum("xtcp_ebpf_attached", &[hook]) > 0.5, cleanup);
        let mut fleet = vec![Netns::named("hinted")];
        fleet.extend(cleanup.then(|| Netns::anonymous("hinted")));
        for netns in fleet {
            let id = netns.id;
            subscriber.wait_for("created", LIMIT, |seen| {
                matches!(seen.kind(), Kind::NetnsCreated(_)) && seen.may_be_of(id)
            });
            let begin = Instant::now();
            netns.end();
            let destroyed = subscriber.wait_for("destroyed, long before the next reconcile", LIMIT, |seen| {
                matches!(seen.kind(), Kind::NetnsDestroyed(_)) && seen.may_be_of(id)
            });
            let Kind::NetnsDestroyed(event) = destroyed.kind() else { unreachable!() };
            assert_eq!(event.source(), NetnsSource::Reconcile, "{args:?}: {event:?}");
            println!("{args:?}: the end was told {:.1?} after it was asked for", begin.elapsed());
        }
    }
}

/// Whether a handle that opens nothing any more proves an end: from 6.19 on a namespace may also be left to its sockets.
fn handles_prove_ends() -> bool {
    kernel() == (6, 18)
}

/// Whether a rung was left out, or is one that the kernel does not offer.
fn is_missing(denied: &str, rung: &str) -> bool {
    denied.split(',').any(|name| name == rung) || rung == "netns_unshared" && kernel() < (5, 11)
}

/// What events may name as their source, by what is attached. A kernel in lockdown refuses the uppermost rungs, so each
/// is taken as it is, but the next one must be in its place.
fn sources(agent: &Agent, denied: &str) -> (&'static [NetnsSource], &'static [NetnsSource]) {
    let metrics = agent.metrics();
    let attached = |program: &str| {
        let (_, hook) = HOOKS.into_iter().find(|(name, _)| *name == program).expect("a hook of the list");
        let attached = metrics.sum("xtcp_ebpf_attached", &[&format!("hook=\"{hook}\"")]) > 0.5;
        assert!(!(attached && is_missing(denied, program)), "{program} is denied, and attached");
        attached
    };
    let creation: &[NetnsSource] = if attached("netns_copied") {
        &[NetnsSource::KernelFunction]
    } else if attached("netns_unshared") {
        &[NetnsSource::Process]
    } else {
        assert!(CREATION.into_iter().all(|rung| is_missing(denied, rung)), "no rung of creation");
        // Whoever enters a new one shows it, too.
        &[NetnsSource::Reconcile, NetnsSource::Socket, NetnsSource::Setns]
    };
    let destruction: &[NetnsSource] = if attached("netns_put") | attached("netns_file_put") {
        &[NetnsSource::KernelFunction]
    } else if attached("netns_cleanup") && handles_prove_ends() {
        &[NetnsSource::Cleanup]
    } else {
        // Whose end the clean-up is can be asked by handle only.
        assert!(
            DESTRUCTION.into_iter().all(|rung| is_missing(denied, rung)) || !handles_prove_ends(),
            "no rung of destruction"
        );
        &[NetnsSource::Reconcile, NetnsSource::Entry, NetnsSource::Cleanup, NetnsSource::Nsid]
    };
    (creation, destruction)
}

/// A connection's two ends become ESTABLISHED and are closed.
fn check_states(subscriber: &Subscriber, netns: &Netns) {
    let pair = netns.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST));
    // Before 5.12 an event may come before its socket has a cookie.
    let (client, server) = (pair.client.local_addr().unwrap(), pair.server.local_addr().unwrap());
    let ends = [(client, server), (server, client)];
    for end in ends {
        subscriber.wait_for("ESTABLISHED", LIMIT, |seen| {
            seen.is_of(netns.id)
                && seen.state().is_some_and(|state| {
                    state.new_state() == TcpState::Established
                        && addresses(state.socket.as_ref().unwrap()) == end
                })
        });
    }
    traffic::reset_on_close(&pair.client);
    drop(pair);
    for end in ends {
        subscriber.wait_for("CLOSE", LIMIT, |seen| {
            seen.is_of(netns.id)
                && seen.close().is_some_and(|close| addresses(close.socket.as_ref().unwrap()) == end)
        });
    }
}

#[test]
fn the_classic_tracepoint_tells_addresses_and_states() {
    let _alone = alone();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let _agent = agent().events_to(&nats).args(&["--ebpf-deny", "tcp_state"]).start();
    let netns = Netns::named("classic");
    // An address that nobody else on this host uses: the event does not say in which namespace it happened.
    let pair = netns.run_in(|| traffic::pair(Ipv4Addr::new(127, 91, 17, 3)));
    let ends = (pair.client.local_addr().unwrap(), pair.client.peer_addr().unwrap());
    let is_it = |seen: &Seen| {
        seen.state().is_some_and(|state| {
            state.new_state() == TcpState::Established && addresses(state.socket.as_ref().unwrap()) == ends
        })
    };
    subscriber.wait_for("ESTABLISHED through the classic tracepoint", LIMIT, is_it);
    drop(pair);
    subscriber.wait_for("CLOSE through the classic tracepoint", LIMIT, |seen| {
        seen.close().is_some_and(|close| addresses(close.socket.as_ref().unwrap()) == ends)
    });
}

#[test]
fn without_any_hook_it_polls_and_says_so() {
    let _alone = alone();
    for args in [["--ebpf", "off"], ["--ebpf-deny", ALL]] {
        let netns = Netns::named("polled");
        let pair = netns.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST));
        let cookie = traffic::cookie(&pair.client);
        let agent = agent().frequency("300ms").args(&args).args(&["--reconcile-frequency", "1s"]).start();
        agent.wait_for_row("rows of the third poll", LIMIT, |row| {
            row.cookie() == cookie && row.poll() >= Some(3)
        });
        // A namespace that no event announced is found and polled all the same.
        let later = Netns::anonymous("later");
        let pair = later.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST));
        let cookie = traffic::cookie(&pair.client);
        agent.wait_for_row("rows of a new namespace", Duration::from_secs(40), |row| row.cookie() == cookie);
        let log = agent.process.stderr.text().to_lowercase();
        assert!(log.contains("no kernel events"), "{args:?}: its log does not say so: {log}");
        assert!(agent.metrics().sum("xtcp_ebpf_active", &[]) < 0.5);
    }
    let mut required = run_to_end(&[], &["--ebpf", "require", "--ebpf-deny", ALL, "--events", "off"]);
    assert!(!required.try_wait().unwrap().success(), "--ebpf require starts without eBPF");
}
