//! Promise: records say through which links the host reaches its network, and which id the host gave to a namespace.
//!
//! The host is a namespace of the test's own with two veths as uplinks: their driver and speed are the kernel's constants,
//! and `ip` gives the ids.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::net::Ipv4Addr;
use std::time::Duration;

use xtcp_tests::host::alone;
use xtcp_tests::netns::Netns;
use xtcp_tests::row::Row;
use xtcp_tests::traffic::listen;
use xtcp_tests::uplinks::{Uplinked, start, uplinked};

const LIMIT: Duration = Duration::from_secs(60);

fn nic_fields(row: &Row) -> [(&str, &str, u32); 2] {
    let record = &row.record;
    [
        (&*record.uplink1_ifname, &*record.uplink1_nic_driver, record.uplink1_nic_speed_mbps),
        (&*record.uplink2_ifname, &*record.uplink2_nic_driver, record.uplink2_nic_speed_mbps),
    ]
}

#[test]
fn uplinks_are_those_of_the_default_routes_or_those_named_and_change_while_it_runs() {
    let _alone = alone();
    let Uplinked { home, neighbour: _neighbour } = uplinked();
    let agent_by_routes = start(&home, &["--enrich-nic", "on"]);
    let row =
        agent_by_routes.wait_for_row("both uplinks", LIMIT, |row| !row.record.uplink2_ifname.is_empty());
    assert_eq!(nic_fields(&row), [("up0", "veth", 10_000), ("up1", "veth", 10_000)]);
    assert_eq!((row.record.uplink1_nic_pci_vendor, &*row.record.uplink1_lldp_port_id), (0, ""));
    home.exec(&["ip", "route", "replace", "default", "via", "10.98.1.2", "dev", "up1"]);
    let row = agent_by_routes
        .wait_for_row("the other uplink alone", LIMIT, |row| row.record.uplink1_ifname == "up1");
    assert_eq!(nic_fields(&row), [("up1", "veth", 10_000), ("", "", 0)]);
    drop(agent_by_routes);

    let named = start(&home, &["--enrich-nic", "on", "--uplink", "up1,nosuch,up0"]);
    let row = named.wait_for_row("the uplinks named", LIMIT, |row| !row.record.uplink1_ifname.is_empty());
    assert_eq!(nic_fields(&row), [("up1", "veth", 10_000), ("nosuch", "", 0)]);
    let warned = named.process.stderr.wait_for(LIMIT, |line| line.contains("no interface nosuch"));
    assert!(warned.is_some(), "{}", named.process.stderr.text());
}

#[test]
fn nothing_is_told_of_links_unless_it_is_asked_for() {
    let _alone = alone();
    let Uplinked { home, neighbour: _neighbour } = uplinked();
    let agent = start(&home, &[]);
    agent.wait_for_row("three polls", LIMIT, |row| row.poll().is_some_and(|poll| poll >= 3));
    for row in agent.rows() {
        assert_eq!((&*row.record.uplink1_ifname, row.record.nsid), ("", 0));
    }
}

#[test]
fn a_row_says_the_id_that_the_hosts_namespace_gave_to_its_own_also_when_it_is_given_later() {
    let _alone = alone();
    let home = Netns::named("home");
    let (early, late) = (Netns::named("early"), Netns::named("late"));
    let _listeners = [&early, &late].map(|netns| netns.run_in(|| listen((Ipv4Addr::LOCALHOST, 0).into())));
    home.exec(&["ip", "netns", "set", early.name.as_deref().unwrap(), "7700"]);
    let agent = start(&home, &["--populate-nsid", "on"]);
    agent.wait_for_row("an id given before", LIMIT, |row| row.is_of(early.id) && row.record.nsid == 7700);
    agent.wait_for_row("a namespace without an id", LIMIT, |row| row.is_of(late.id) && row.record.nsid == 0);
    home.exec(&["ip", "netns", "set", late.name.as_deref().unwrap(), "7701"]);
    agent.wait_for_row("an id given since", LIMIT, |row| row.is_of(late.id) && row.record.nsid == 7701);
    for row in agent.rows() {
        let allowed: &[u32] = if row.is_of(early.id) {
            &[7700]
        } else if row.is_of(late.id) {
            &[0, 7701]
        } else {
            &[0]
        };
        assert!(allowed.contains(&row.record.nsid), "{row:?}");
    }
}
