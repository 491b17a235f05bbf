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
use std::time::Duration;

use xtcp_proto::event::v1::event::Event as Kind;
use xtcp_proto::event::v1::{NetnsSource, TcpState};
use xtcp_tests::agent::{Agent, agent, run_to_end};
use xtcp_tests::events::{Seen, Subscriber, addresses};
use xtcp_tests::host::alone;
use xtcp_tests::nats::NatsServer;
use xtcp_tests::netns::Netns;
use xtcp_tests::traffic;

const LIMIT: Duration = Duration::from_secs(10);
const ALL: &str =
    "tcp_state,tcp_state_classic,netns_copied,netns_forked,netns_unshared,netns_put,netns_cleanup";

struct Case {
    denied: &'static str,
    created: &'static [NetnsSource],
    destroyed: &'static [NetnsSource],
}

#[test]
fn namespaces_lives_are_told_through_every_rung() {
    let _alone = alone();
    let function = &[NetnsSource::KernelFunction];
    let cases = [
        Case { denied: "tcp_state_classic", created: function, destroyed: function },
        Case { denied: "netns_copied", created: &[NetnsSource::Process], destroyed: function },
        Case { denied: "netns_copied,netns_forked", created: &[NetnsSource::Process], destroyed: function },
        Case { denied: "netns_put", created: function, destroyed: &[NetnsSource::Cleanup] },
        Case {
            denied: "netns_put,netns_cleanup",
            created: function,
            destroyed: &[NetnsSource::Reconcile, NetnsSource::Entry],
        },
        Case {
            denied: "netns_copied,netns_forked,netns_unshared",
            created: &[NetnsSource::Reconcile, NetnsSource::Socket],
            destroyed: function,
        },
    ];
    for case in cases {
        let nats = NatsServer::start();
        let subscriber = Subscriber::new(&nats);
        let args = ["--ebpf-deny", case.denied, "--reconcile-frequency", "200ms"];
        let agent = agent().events_to(&nats).args(&args).start();
        for netns in [Netns::named("rung"), Netns::anonymous("rung")] {
            let id = netns.id;
            let what = format!("created, without {}", case.denied);
            let created = subscriber.wait_for(&what, LIMIT, |seen| seen.is_created(id));
            let Kind::NetnsCreated(event) = created.kind() else { unreachable!() };
            assert!(case.created.contains(&event.source()), "{what}: {:?}", event.source());
            check_states(&subscriber, &netns);
            netns.end();
            let what = format!("destroyed, without {}", case.denied);
            let destroyed = subscriber.wait_for(&what, LIMIT, |seen| seen.is_destroyed(id));
            let Kind::NetnsDestroyed(event) = destroyed.kind() else { unreachable!() };
            assert!(case.destroyed.contains(&event.source()), "{what}: {:?}", event.source());
        }
        for name in case.denied.split(',') {
            check_not_attached(&agent, name);
        }
        println!("without {}: told", case.denied);
    }
}

/// A connection's two ends become ESTABLISHED and are closed.
fn check_states(subscriber: &Subscriber, netns: &Netns) {
    let pair = netns.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST));
    let cookies = [traffic::cookie(&pair.client), traffic::cookie(&pair.server)];
    for cookie in cookies {
        subscriber.wait_for("ESTABLISHED", LIMIT, |seen| {
            seen.is_of(netns.id)
                && seen.state().is_some_and(|state| {
                    state.new_state() == TcpState::Established
                        && state.socket.as_ref().unwrap().cookie == cookie
                })
        });
    }
    traffic::reset_on_close(&pair.client);
    drop(pair);
    for cookie in cookies {
        subscriber.wait_for("CLOSE", LIMIT, |seen| {
            seen.close().is_some_and(|close| close.socket.as_ref().unwrap().cookie == cookie)
        });
    }
}

fn check_not_attached(agent: &Agent, program: &str) {
    let metrics = agent.metrics();
    assert!(metrics.sum("xtcp_ebpf_attached", &[]) >= 1.0);
    assert!(
        metrics.sum("xtcp_ebpf_attached", &[&format!("hook=\"{program}\"")]) < 0.5,
        "{program} is attached"
    );
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
        let agent = agent().frequency("300ms").args(&args).start();
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
