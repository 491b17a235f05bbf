//! Promise: `--states` selects the events too, and nothing is confused by the transitions that are then not seen: of
//! connections there are those from and to the selected states and every end, of listeners nothing, and the agent's own
//! connections are recognised although no state of their beginning is selected.
#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::Ipv4Addr;
use std::time::Duration;

use xtcp_proto::event::v1::{OpenedBy, TcpClosed, TcpState};
use xtcp_tests::agent::agent;
use xtcp_tests::events::{Seen, Subscriber, addresses};
use xtcp_tests::grpc;
use xtcp_tests::host::{alone, wait_for};
use xtcp_tests::nats::NatsServer;
use xtcp_tests::netns::Netns;
use xtcp_tests::traffic;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn who_selects_established_sees_connections_but_neither_listeners_nor_the_agents_own() {
    let _alone = alone();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let agent = agent().events_to(&nats).args(&["--states", "established"]).start();
    let netns = Netns::anonymous("chosen");
    for round in 0..2 {
        // Its listener ends with it: of the first round that comes before everything of the second.
        netns.run_in(|| {
            let listener = traffic::listen((Ipv4Addr::LOCALHOST, 0).into());
            std::thread::scope(|scope| {
                let server = scope.spawn(|| traffic::serve_one(&listener));
                traffic::converse(listener.local_addr().unwrap(), (10, 20), Duration::from_millis(1));
                server.join().unwrap();
            });
        });
        // The agent accepts, and its connection to NATS has been used.
        assert!(!grpc::poll(agent.grpc).is_empty());
        wait_for("both ends", LIMIT, || {
            (subscriber.of(netns.id).iter().filter_map(Seen::close).count() == 2 * (round + 1)).then_some(())
        });
    }
    let events = subscriber.of(netns.id);
    let states: Vec<_> = events.iter().filter_map(Seen::state).collect();
    let changes: Vec<_> = states.iter().map(|state| (state.old_state(), state.new_state())).collect();
    for (change, times) in [
        ((TcpState::SynSent, TcpState::Established), 2),
        ((TcpState::SynRecv, TcpState::Established), 2),
        ((TcpState::Established, TcpState::FinWait1), 2),
        ((TcpState::Established, TcpState::CloseWait), 2),
    ] {
        assert_eq!(changes.iter().filter(|seen| **seen == change).count(), times, "{change:?}: {changes:?}");
    }
    assert_eq!(changes.len(), 8, "more than what was selected: {changes:?}");
    let mut opened: Vec<_> = events.iter().filter_map(Seen::close).map(TcpClosed::opened_by).collect();
    opened.sort_unstable();
    assert_eq!(opened, [OpenedBy::Local, OpenedBy::Local, OpenedBy::Peer, OpenedBy::Peer]);
    assert!(events.iter().filter_map(Seen::close).all(|close| close.old_state() != TcpState::Listen));

    let (grpc, nats) = (agent.grpc, nats.address);
    let of_own = |seen: &Seen| {
        let state = seen.state().and_then(|state| state.socket.as_ref());
        let close = seen.close().and_then(|close| close.socket.as_ref());
        let Some((local, remote)) = state.or(close).map(addresses) else { return false };
        local == grpc || local == agent.prom || remote == nats
    };
    let mut told = subscriber.all();
    // The subscriber's own connection to NATS is older than the agent.
    told.retain(of_own);
    assert!(told.is_empty(), "events of the agent's own connections: {told:?}");
    assert!(agent.metrics().sum("xtcp_events_left_out_total", &["why=\"own\""]) > 0.0);
}
