//! Promise: a network namespace reaches a NATS subscriber as created, and as destroyed after its end, however it was
//! made, with the poll interval at one hour; p99 under 50 ms.
//!
//! The latency is taken from outside: from before the command that makes or ends the namespace until the subscriber
//! has the message. So it contains the command's own start, and is never shorter than what a user would see. The time
//! that the event itself states must lie between the command's begin and the message's arrival.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::time::{Duration, SystemTime};

use xtcp_proto::event::v1::event::Event as Kind;
use xtcp_tests::agent::agent;
use xtcp_tests::events::{Seen, Subscriber};
use xtcp_tests::host::{alone, monotonic_ns, scale, slowness};
use xtcp_tests::nats::NatsServer;
use xtcp_tests::netns::Netns;
use xtcp_tests::stats::Latencies;

const GOAL: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_namespace_of_ip_netns_add_is_announced_and_mourned() {
    lives(|| Netns::named_bare("life"), "ip netns");
}

#[test]
fn a_namespace_of_unshare_without_mount_or_name_is_announced_and_mourned() {
    lives(|| Netns::anonymous_bare("life"), "unshare -n");
}

/// A namespace that was there before the agent, and one whose creator is known.
#[test]
fn the_end_of_a_namespace_older_than_the_agent_is_told() {
    let _alone = alone();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let old = [Netns::named_bare("old"), Netns::anonymous_bare("old")];
    let _agent = agent().events_to(&nats).start();
    for netns in old {
        let id = netns.id;
        netns.end();
        let seen = subscriber.wait_for("the end of an old namespace", LIMIT, |seen| seen.is_destroyed(id));
        let Kind::NetnsDestroyed(destroyed) = seen.kind() else { unreachable!() };
        assert_eq!(destroyed.lifetime_ns, 0, "its creation was not seen");
    }
}

fn lives(make: impl Fn() -> Netns, what: &str) {
    let _alone = alone();
    let nats = NatsServer::start();
    let subscriber = Subscriber::new(&nats);
    let agent = agent().events_to(&nats).start();
    let (mut created_ns, mut destroyed_ns) = (Vec::new(), Vec::new());
    let (mut ids, mut noticed_ns) = (Vec::new(), Vec::new());
    for _ in 0..scale(50, 500) {
        let begin = monotonic_ns();
        let netns = make();
        let id = netns.id;
        let created = subscriber.wait_for("a created event", LIMIT, |seen| seen.is_created(id));
        check_message(&created, begin, id.inode, "netns_created");
        created_ns.push(created.arrived_ns - begin);
        let end = monotonic_ns();
        netns.end();
        let destroyed = subscriber.wait_for("a destroyed event", LIMIT, |seen| seen.is_destroyed(id));
        check_message(&destroyed, end, id.inode, "netns_destroyed");
        destroyed_ns.push(destroyed.arrived_ns - end);
        noticed_ns.push(destroyed.arrived_ns - destroyed.event.monotonic_ns);
        check_lifetime(&created, &destroyed);
        ids.push(id);
    }
    // Without a cookie the next one may have the same name.
    let next_ns =
        |at: usize| ids.get(at + 1).filter(|next| next.cookie == 0).map_or(u64::MAX, |next| next.since_ns);
    for (at, id) in ids.iter().enumerate() {
        let events = subscriber.of(*id);
        let own = events.iter().filter(|seen| seen.event.monotonic_ns < next_ns(at));
        let kinds: Vec<_> = own.map(|seen| kind_of_subject(&seen.subject).to_owned()).collect();
        assert_eq!(kinds, ["netns_created", "netns_destroyed"], "one beginning, one end, nothing twice");
    }
    Latencies::new(created_ns).report(&format!("{what}: begin to created event at NATS"), GOAL);
    Latencies::new(destroyed_ns).report(&format!("{what}: end to destroyed event at NATS"), GOAL);
    Latencies::new(noticed_ns).report(&format!("{what}: the time that the event states to NATS"), GOAL);
    drop(agent);
}

fn check_message(seen: &Seen, begin: u64, inode: u64, kind: &str) {
    assert!(
        (begin..=seen.arrived_ns).contains(&seen.event.monotonic_ns),
        "its time is not when it happened: {seen:?}"
    );
    let age = Duration::from_nanos(monotonic_ns() - seen.event.monotonic_ns);
    let wall = (SystemTime::now() - age).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let off = wall.abs_diff(u128::try_from(seen.event.timestamp_ns).unwrap());
    // The two clocks are read one after the other, and an emulated processor may be busy between.
    assert!(
        off < 5_000_000 * u128::from(slowness()),
        "its wall time is {off} ns off its monotonic time: {seen:?}"
    );
    let tokens: Vec<&str> = seen.subject.split('.').collect();
    assert_eq!(tokens.len(), 5, "{}", seen.subject);
    assert_eq!((tokens[0], tokens[1], tokens[4]), ("xtcp", "v1", kind), "{}", seen.subject);
    assert_eq!(tokens[3], inode.to_string(), "{}", seen.subject);
    assert!(
        !seen.event.boot_id.is_empty()
            && !seen.event.agent_instance.is_empty()
            && !seen.event.hostname.is_empty()
    );
}

fn check_lifetime(created: &Seen, destroyed: &Seen) {
    let Kind::NetnsDestroyed(end) = destroyed.kind() else { unreachable!() };
    let lived = destroyed.event.monotonic_ns - created.event.monotonic_ns;
    assert!(
        end.lifetime_ns.abs_diff(lived) < 50_000_000,
        "it lived {lived} ns and is said {} ns",
        end.lifetime_ns
    );
}

fn kind_of_subject(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or(subject)
}
