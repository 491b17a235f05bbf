//! Promise: records say who is at the other end of each of the host's links, as lldpd knows it.
//!
//! Two real lldpd speak over veths, each in a namespace; the neighbour's is told what to say of itself.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use xtcp_tests::host::{alone, wait_for};
use xtcp_tests::netns::Netns;
use xtcp_tests::process::Process;
use xtcp_tests::uplinks::{Uplinked, start, uplinked};

const LIMIT: Duration = Duration::from_secs(60);

struct Lldpd {
    socket: String,
    _process: Process,
}

/// An lldpd in a namespace that has found these interfaces: what it is told of others is lost.
fn lldpd(netns: &Netns, folder: &Path, name: &str, interfaces: [&str; 2]) -> Lldpd {
    let socket = folder.join(format!("{name}.socket")).display().to_string();
    let inside = format!("--net={}", netns.path().display());
    // -I keeps it to the veths; no configuration of the host's is read.
    let argv = ["nsenter", &inside, "lldpd", "-d", "-u", &socket, "-I", "up*,tor*", "-O", "/dev/null"];
    let process = Process::start("lldpd", &argv);
    let lldpd = Lldpd { socket, _process: process };
    wait_for("lldpd (Debian's package lldpd) to find its interfaces", LIMIT, || {
        let shown = lldpd.ask("show", &["interfaces"]);
        interfaces.iter().all(|interface| shown.contains(&format!("\"{interface}\""))).then_some(())
    });
    lldpd
}

impl Lldpd {
    /// What lldpcli says; nothing while there is nobody to ask.
    fn ask(&self, verb: &str, words: &[&str]) -> String {
        let start = ["-u", &self.socket, "-f", "json0", verb];
        let said = Command::new("lldpcli").args(start).args(words).output().expect("lldpcli can be run");
        String::from_utf8_lossy(&said.stdout).into_owned()
    }
}

#[test]
fn the_neighbour_on_each_uplink_is_the_one_that_lldpd_knows() {
    let _alone = alone();
    let Uplinked { home, neighbour } = uplinked();
    let folder = tempfile::tempdir().unwrap();
    let ours = lldpd(&home, folder.path(), "home", ["up0", "up1"]);
    let theirs = lldpd(&neighbour, folder.path(), "tor", ["tor0", "tor1"]);
    // Until it shows: what it is told while it starts can be undone by its own start.
    wait_for("the neighbour to say what it is told to say", LIMIT, || {
        theirs.ask("configure", &["system", "hostname", "tor-7.example"]);
        theirs.ask("configure", &["lldp", "tx-interval", "1"]);
        let port =
            ["ports", "tor0", "lldp", "portidsubtype", "local", "Ethernet1/7", "description", "rack 7"];
        theirs.ask("configure", &port);
        ["tor-7.example", "Ethernet1/7"]
            .iter()
            .all(|word| ours.ask("show", &["neighbors"]).contains(word))
            .then_some(())
    });
    let lldpcli = folder.path().join("lldpcli");
    std::fs::write(&lldpcli, format!("#!/bin/sh\nexec lldpcli -u {} \"$@\"\n", ours.socket)).unwrap();
    std::fs::set_permissions(&lldpcli, std::fs::Permissions::from_mode(0o755)).unwrap();
    let agent = start(&home, &["--enrich-lldp", "on", "--lldpcli", lldpcli.to_str().unwrap()]);
    let row = agent.wait_for_row("both neighbours", LIMIT, |row| {
        row.record.uplink1_lldp_port_id == "Ethernet1/7"
            && row.record.uplink1_lldp_chassis_name == "tor-7.example"
            && !row.record.uplink2_lldp_port_id.is_empty()
    });
    let record = &row.record;
    assert_eq!((&*record.uplink1_ifname, &*record.uplink2_ifname), ("up0", "up1"));
    assert_eq!(record.uplink1_lldp_port_descr, "rack 7");
    assert_eq!(record.uplink2_lldp_chassis_name, "tor-7.example");
    assert_eq!(record.uplink2_lldp_port_descr, "tor1");
    assert_eq!(record.uplink1_lldp_mgmt_ip, "10.98.0.2");
    assert_eq!(record.uplink1_lldp_chassis_id.split(':').count(), 6, "a MAC address");
    assert_eq!(record.uplink1_nic_driver, "", "--enrich-nic is off");
}
