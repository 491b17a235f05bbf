//! A host of the test's own, with links to a neighbour.

use crate::agent::{Agent, agent};
use crate::netns::{Netns, join_by_veth};

/// A namespace that stands for a host, and what it is linked to.
#[derive(Debug)]
pub struct Uplinked {
    /// The host: up0 and up1, and a default route over both.
    pub home: Netns,
    /// The other ends: tor0 and tor1.
    pub neighbour: Netns,
}

/// Two veths to the neighbour, and a default route over both.
pub fn uplinked() -> Uplinked {
    let (home, neighbour) = (Netns::named("home"), Netns::named("tor"));
    for (number, (ours, theirs)) in [("up0", "tor0"), ("up1", "tor1")].into_iter().enumerate() {
        let address = |last: u8| format!("10.98.{number}.{last}/24");
        join_by_veth((&home, ours, &address(1)), (&neighbour, theirs, &address(2)));
    }
    let routes = ["ip", "route", "add", "default"];
    let hops = ["nexthop", "via", "10.98.0.2", "dev", "up0", "nexthop", "via", "10.98.1.2", "dev", "up1"];
    home.exec(&[routes.as_slice(), &hops].concat());
    Uplinked { home, neighbour }
}

/// Starts an agent there that polls every 300 ms and looks at its links every second. `ip netns exec` gives it the
/// `/sys` of its namespace.
pub fn start(home: &Netns, args: &[&str]) -> Agent {
    let name = home.name.as_deref().expect("a named namespace");
    let wrapper = ["ip", "netns", "exec", name];
    agent().frequency("300ms").args(&["--topology-frequency", "1s"]).args(args).wrapped_in(&wrapper).spawn()
}
