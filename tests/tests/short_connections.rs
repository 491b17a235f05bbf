//! Promise: a connection in a fresh namespace that lives 5 ms yields every state change in order at both ends, and a
//! closing event with exactly the bytes that were sent; of 100 000 at full speed none is missing, or the drop counters
//! say exactly how many. The poll interval is one hour: no poll helps.
//!
//! Why the counts are comparable: the client sends its FIN first and closes after the server's, so both ends have
//! received a FIN, which counts as one byte received, before they go to CLOSE.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use xtcp_proto::event::v1::{self as pb, CloseReason, EventKind, OpenedBy, TcpState};
use xtcp_tests::agent::agent;
use xtcp_tests::events::{Seen, Subscriber, addresses, lost};
use xtcp_tests::host::{alone, kernel, scale, slowness, wait_for};
use xtcp_tests::nats::NatsServer;
use xtcp_tests::netns::{Id, Netns};
use xtcp_tests::traffic::{self, Made, Plan};

const LIMIT: Duration = Duration::from_secs(10);

const CLIENT: [(TcpState, TcpState); 5] = [
    (TcpState::Close, TcpState::SynSent),
    (TcpState::SynSent, TcpState::Established),
    (TcpState::Established, TcpState::FinWait1),
    (TcpState::FinWait1, TcpState::FinWait2),
    (TcpState::FinWait2, TcpState::Close),
];
const SERVER: [(TcpState, TcpState); 5] = [
    (TcpState::Listen, TcpState::SynRecv),
    (TcpState::SynRecv, TcpState::Established),
    (TcpState::Established, TcpState::CloseWait),
    (TcpState::CloseWait, TcpState::LastAck),
    (TcpState::LastAck, TcpState::Close),
];

#[test]
fn a_connection_of_5_ms_yields_every_transition_in_order_and_exact_bytes() {
    let _alone = alone();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let _agent = agent().events_to(&nats).start();
    for ipv4 in [true, false] {
        let netns = Netns::anonymous("short");
        let lifetime = Duration::from_millis(5);
        let made = netns.run_in(|| {
            let any: SocketAddr =
                if ipv4 { "127.0.0.1:0".parse().unwrap() } else { "[::1]:0".parse().unwrap() };
            let listener = traffic::listen(any);
            let address = listener.local_addr().unwrap();
            std::thread::scope(|scope| {
                let server = scope.spawn(|| traffic::serve_one(&listener));
                let made = traffic::converse(address, (1_234, 56_789), lifetime);
                server.join().unwrap();
                made
            })
        });
        // The client's end and the server's, whose last ACK may come after the client has returned.
        wait_for("both closing events", LIMIT, || {
            let ends = subscriber.of(netns.id);
            (ends
                .iter()
                .filter_map(Seen::close)
                .filter(|close| close.old_state() != TcpState::Listen)
                .count()
                == 2)
                .then_some(())
        });
        let events = subscriber.of(netns.id);
        check_end(&events, made, &CLIENT, OpenedBy::Local, CloseReason::LocalFin, lifetime);
        let mirrored =
            Made { client: made.server, server: made.client, sent: made.received, received: made.sent };
        check_end(&events, mirrored, &SERVER, OpenedBy::Peer, CloseReason::PeerFin, lifetime);
    }
}

/// Checks the end of the connection whose own address is `end.client`.
fn check_end(
    events: &[Seen],
    end: Made,
    expected: &[(TcpState, TcpState)],
    opened_by: OpenedBy,
    reason: CloseReason,
    lifetime: Duration,
) {
    let close = events
        .iter()
        .find(|seen| seen.close().is_some_and(|close| is_of(close.socket.as_ref().unwrap(), end)))
        .unwrap_or_else(|| panic!("no closing event for {end:?}"));
    let id = close.close().unwrap().connection_id;
    assert_ne!(id, 0);
    let of_connection: Vec<&Seen> = events
        .iter()
        .filter(|seen| seen.state().is_some_and(|state| state.connection_id == id))
        .chain(std::iter::once(close))
        .collect();
    let transitions: Vec<_> = of_connection
        .iter()
        .map(|seen| match (seen.state(), seen.close()) {
            (Some(state), _) => (state.old_state(), state.new_state()),
            (_, Some(close)) => (close.old_state(), TcpState::Close),
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(transitions, expected);
    assert!(of_connection.is_sorted_by_key(|seen| seen.event.sequence), "in the order of their sequence");
    assert!(of_connection.is_sorted_by_key(|seen| seen.event.monotonic_ns), "in the order of their time");
    let close = close.close().unwrap();
    let path: Vec<TcpState> = close.path().collect();
    assert!(path.ends_with(&expected.iter().map(|transition| transition.1).collect::<Vec<_>>()), "{path:?}");
    assert!(close.path_complete);
    assert_eq!((close.opened_by(), close.reason(), close.error.as_str()), (opened_by, reason, ""));
    assert_eq!(payload(close), (end.sent, end.received));
    let lived = Duration::from_nanos(close.lifetime_ns);
    assert!(lived >= lifetime.mul_f64(0.9) && lived < lifetime * 100 * slowness(), "it lived {lived:?}");
    assert!(close.established_ns > 0 && close.established_ns <= close.lifetime_ns);
    let cookies: Vec<u64> =
        of_connection[1..].iter().map(|seen| socket(seen).cookie).filter(|&c| c != 0).collect();
    assert!(cookies.iter().all(|cookie| *cookie == cookies[0]), "{cookies:?}");
    // Before, a socket has a cookie once somebody asked for it, and nobody had the time.
    assert!(!cookies.is_empty() || kernel() < (5, 12), "no transition has the socket's cookie");
}

#[test]
fn of_many_connections_at_full_speed_none_is_missing_or_the_counters_say_how_many() {
    let _alone = alone();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let netns = Netns::named("flood");
    netns.sysctl("ipv4/ip_local_port_range", "1024 65000");
    // Only this namespace, so that what is counted as lost was made here.
    let agent = agent().events_to(&nats).args(&["--netns-include", &netns.inode.to_string()]).start();
    let plan = Plan { connections: scale(20_000, 100_000), workers: 2, lifetime: Duration::ZERO, ipv4: true };
    let done = netns.run_in(|| traffic::make(plan));
    let per_second = f64::from(u32::try_from(done.made.len()).unwrap()) / done.took.as_secs_f64();
    println!("{} connections in {:?}: {per_second:.0} a second", done.made.len(), done.took);
    let expected_closes = 2 * done.made.len() + done.listeners;
    let expected_states = expected_closes * 4 - 3 * done.listeners;
    let counts = settle(&subscriber, netns.id, expected_closes + expected_states);
    println!("events: {counts:?}");
    let events = subscriber.all();
    let of = |kind| usize::try_from(lost(&events, kind)).unwrap();
    let (lost_closes, lost_states) = (of(EventKind::TcpClose), of(EventKind::TcpState));
    // A run of the program that the kernel skipped would have told of a state, and perhaps of the close as well.
    let skipped = of(EventKind::Unspecified);
    println!("lost: {lost_closes} closes, {lost_states} states; skipped: {skipped}");
    let told = |what: &str, seen: usize, lost: usize, made: usize| {
        let accounted = seen + lost;
        assert!(
            accounted <= made && made <= accounted + skipped,
            "{what}: {seen} seen, {lost} lost, {skipped} perhaps, {made} made"
        );
    };
    told("closing events", counts.closes, lost_closes, expected_closes);
    told("state events", counts.states, lost_states, expected_states);
    check_bytes(&subscriber.of(netns.id), &done.made, lost_closes + skipped);
    check_sequence(&events);
    drop(agent);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    closes: usize,
    states: usize,
}

/// Waits until all events are there, or are said to be lost; at most 30 s, times slowness.
fn settle(subscriber: &Subscriber, netns: Id, expected: usize) -> Counts {
    let start = Instant::now();
    loop {
        let (counts, lost) = subscriber.look(|events| {
            let of_netns = || events.iter().filter(|seen| seen.is_of(netns));
            let closes = of_netns().filter(|seen| seen.close().is_some()).count();
            let states = of_netns().filter(|seen| seen.state().is_some()).count();
            let kinds = [EventKind::TcpClose, EventKind::TcpState, EventKind::Unspecified];
            let lost: u64 = kinds.into_iter().map(|kind| lost(events, kind)).sum();
            (Counts { closes, states }, usize::try_from(lost).unwrap())
        });
        if counts.closes + counts.states + lost >= expected
            || start.elapsed() > Duration::from_secs(30) * slowness()
        {
            return counts;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Every closing event states exactly what one connection sent and received; at most `missing` have none.
fn check_bytes(events: &[Seen], made: &[Made], missing: usize) {
    let mut expected: BTreeMap<(SocketAddr, SocketAddr, u64, u64), usize> = BTreeMap::new();
    for made in made {
        *expected.entry((made.client, made.server, made.sent, made.received)).or_default() += 1;
        *expected.entry((made.server, made.client, made.received, made.sent)).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for close in events.iter().filter_map(Seen::close).filter(|close| close.old_state() != TcpState::Listen) {
        let (local, remote) = addresses(close.socket.as_ref().unwrap());
        let (sent, received) = payload(close);
        match expected.get_mut(&(local, remote, sent, received)) {
            Some(count) if *count > 0 => *count -= 1,
            _ => wrong.push(close),
        }
    }
    let left: Vec<_> = expected.iter().filter(|(_, count)| **count > 0).collect();
    let shown = |n: usize| n.min(5);
    assert!(
        wrong.is_empty(),
        "{} closing events tell of no connection: {:#?}",
        wrong.len(),
        &wrong[..shown(wrong.len())]
    );
    assert!(
        left.len() <= missing,
        "{} ends have no closing event: {:?}",
        left.len(),
        &left[..shown(left.len())]
    );
}

/// The stream's sequence has no holes but those that a loss names.
fn check_sequence(events: &[Seen]) {
    let mut sequences: Vec<u64> = events.iter().map(|seen| seen.event.sequence).collect();
    sequences.sort_unstable();
    let holes: Vec<_> = sequences.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    let named = |hole: &[u64]| {
        events.iter().filter_map(Seen::loss).any(|loss| {
            loss.place() == pb::LossPlace::SinkQueue
                && loss.after_sequence <= hole[0]
                && loss.before_sequence >= hole[1]
        })
    };
    assert!(holes.iter().all(|hole| named(hole)), "holes that no loss names: {holes:?}");
}

/// Bytes of payload that an end sent and received, by its closing event.
fn payload(close: &pb::TcpClosed) -> (u64, u64) {
    let numbers = close.numbers.as_ref().unwrap_or_else(|| panic!("no last numbers: {close:?}"));
    let sent = numbers.bytes_sent.unwrap() - numbers.bytes_retrans.unwrap();
    (sent, numbers.bytes_received.unwrap() - 1)
}

fn is_of(socket: &pb::Socket, end: Made) -> bool {
    addresses(socket) == (end.client, end.server)
}

fn socket(seen: &Seen) -> &pb::Socket {
    seen.state()
        .and_then(|state| state.socket.as_ref())
        .or_else(|| seen.close().and_then(|close| close.socket.as_ref()))
        .unwrap()
}
