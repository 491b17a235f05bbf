//! Promise: a namespace whose last process ended is gone from the kernel within a second, while the agent polls it every
//! 100 ms. Proof is its veth peer outside, which the kernel removes with the namespace: an open socket or nsfs
//! descriptor of the agent would keep both.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use xtcp_tests::agent::agent;
use xtcp_tests::host::{alone, monotonic_ns, scale, wait_for};
use xtcp_tests::netns::{Netns, join_by_veth};
use xtcp_tests::stats::Latencies;
use xtcp_tests::traffic;

#[test]
fn a_namespace_ends_with_its_last_process_while_it_is_polled_every_100_ms() {
    let _alone = alone();
    let outside = Netns::named("outside");
    let agent = agent().frequency("100ms").start();
    let mut gone_ns = Vec::new();
    for round in 0..scale(10, 100) {
        // With a name and without: for the former, `ip netns del` is what ends the last reference.
        let netns = if round % 2 == 0 { Netns::anonymous("kept") } else { Netns::named("kept") };
        let id = netns.id;
        join_by_veth((&outside, "peer", "10.97.0.1/24"), (&netns, "inside", "10.97.0.2/24"));
        let held = netns.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST));
        // At least two polls have been inside.
        let mut polls = Vec::new();
        agent.wait_for_row("two polls of the namespace", Duration::from_secs(20), |row| {
            if row.is_of(id) {
                polls.extend(row.poll().filter(|poll| !polls.contains(poll)));
            }
            polls.len() >= 2
        });
        let peer = || outside.run_in(|| Path::new("/proc/thread-self/net/dev_snmp6/peer").exists());
        assert!(peer());
        // Resets, so that no orphan in FIN_WAIT1 keeps the namespace: that would be the kernel's doing.
        traffic::reset_on_close(&held.client);
        drop(held);
        let end = monotonic_ns();
        netns.end();
        wait_for("the veth peer of an ended namespace to go", Duration::from_secs(20), || {
            (!peer()).then_some(())
        });
        gone_ns.push(monotonic_ns() - end);
    }
    Latencies::new(gone_ns).report("end of the last process to the veth peer's end", Duration::from_secs(1));
}
