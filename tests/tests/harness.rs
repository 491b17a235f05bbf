//! The tests' own tools do what they say: what they make is there by the kernel's word, and what they remove is gone.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use socket2::Protocol;
use xtcp_tests::host::{alone, wait_for};
use xtcp_tests::netns::{Netns, join_by_veth};
use xtcp_tests::ss;
use xtcp_tests::traffic::{self, Plan};

#[test]
fn namespaces_are_entered_by_one_thread_and_gone_after_a_panic() {
    let _alone = alone();
    let mut paths = Vec::new();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let (named, anonymous) = (Netns::named("harness"), Netns::anonymous("harness"));
        paths = vec![named.path().to_owned(), anonymous.path().to_owned()];
        let home = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        for netns in [&named, &anonymous] {
            let inside = netns.run_in(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap());
            assert_eq!(inside.to_string_lossy(), format!("net:[{}]", netns.inode));
        }
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), home);
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(paths.len(), 2);
    assert!(paths.iter().all(|path| !path.exists()), "{paths:?}");
}

#[test]
fn a_veth_peer_is_gone_after_the_end_of_the_namespace_inside() {
    let _alone = alone();
    let (outer, inner) = (Netns::named("outer"), Netns::anonymous("inner"));
    join_by_veth((&outer, "out", "10.99.0.1/24"), (&inner, "in", "10.99.0.2/24"));
    let there = || outer.run_in(|| Path::new("/proc/thread-self/net/dev_snmp6/out").exists());
    assert!(there());
    inner.end();
    wait_for("the veth peer to go", Duration::from_secs(10), || (!there()).then_some(()));
}

#[test]
fn every_connection_of_a_plan_leaves_one_time_wait_at_its_client() {
    let _alone = alone();
    let netns = Netns::anonymous("plan");
    for ipv4 in [true, false] {
        let plan = Plan { connections: 300, workers: 2, lifetime: Duration::ZERO, ipv4 };
        let done = netns.run_in(|| traffic::make(plan));
        println!("{} connections in {:?}", done.made.len(), done.took);
        assert_eq!(done.made.len(), 302, "and one for each worker that ends its server");
        let mut expected = ss::Bag::new();
        for made in done.made {
            *expected.entry(ss::Socket { state: 6, local: made.client, remote: made.server }).or_default() +=
                1;
        }
        let mut seen = ss::tan(Some(&netns));
        seen.retain(|socket, _| socket.local.is_ipv4() == ipv4);
        assert_eq!(ss::difference(&seen, &expected), "");
    }
}

#[test]
fn ss_shows_shared_listeners_mptcp_listeners_and_mapped_addresses() {
    let _alone = alone();
    let netns = Netns::named("shapes");
    let sockets = netns.run_in(|| {
        let any = (Ipv6Addr::UNSPECIFIED, 0).into();
        let dual = traffic::listen_as(any, Protocol::TCP, false);
        let mapped = (Ipv4Addr::LOCALHOST, dual.local_addr().unwrap().port()).into();
        let client = traffic::connect(mapped);
        let server = traffic::accept(&dual);
        let shared =
            [0; 3].map(|_| traffic::listen_as((Ipv4Addr::LOCALHOST, 80).into(), Protocol::TCP, true));
        let mptcp = traffic::listen_as((Ipv4Addr::LOCALHOST, 81).into(), traffic::mptcp_or_tcp(), false);
        (dual, client, server, shared, mptcp)
    });
    let text: BTreeMap<String, usize> = ss::tan(Some(&netns))
        .into_iter()
        .map(|(socket, count)| (format!("{} {}", socket.state, socket.local), count))
        .collect();
    let client = sockets.1.local_addr().unwrap();
    let port = sockets.0.local_addr().unwrap().port();
    let expected = BTreeMap::from([
        (format!("10 [::]:{port}"), 1),
        (format!("1 {client}"), 1),
        (format!("1 [::ffff:127.0.0.1]:{port}"), 1),
        ("10 127.0.0.1:80".to_owned(), 3),
        ("10 127.0.0.1:81".to_owned(), 1),
    ]);
    assert_eq!(text, expected);
    assert_ne!(traffic::cookie(&sockets.1), traffic::cookie(&sockets.2));
}
