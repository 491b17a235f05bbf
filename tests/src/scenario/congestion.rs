//! Congestion controls.

use anyhow::Result;

use super::netns::sysctl;
use super::raw::{catch, forget, raw, send_marked};
use super::sockets::{hear, join, listen_on, lose, read, tcp, wait_acknowledged, write};
use super::stage::Stage;
use super::states::{v4, v6};
use super::{Scenario, absent};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "reno",
        about: "a reno connection after 200 000 bytes",
        run: |stage| one(stage, "reno"),
    },
    Scenario {
        name: "cubic",
        about: "a cubic connection after 200 000 bytes",
        run: |stage| one(stage, "cubic"),
    },
    Scenario { name: "bbr", about: "a bbr connection after 200 000 bytes", run: |stage| one(stage, "bbr") },
    Scenario {
        name: "vegas",
        about: "a vegas connection after 200 000 bytes",
        run: |stage| one(stage, "vegas"),
    },
    Scenario { name: "dctcp", about: "a dctcp connection after congestion marks", run: dctcp },
];

/// Fails with the reason when the kernel has no such congestion control. Asking for it loads its module where the
/// machine has `modprobe`.
fn require(name: &str) -> Result<()> {
    let socket = tcp(v4(0))?;
    socket.set_tcp_congestion(name.as_bytes()).map_err(|error| {
        absent(format!("the kernel has no congestion control {name}: TCP_CONGESTION: {error}"))
    })
}

fn one(stage: &mut Stage, name: &str) -> Result<()> {
    require(name)?;
    for address in [v4(24831), v6(24831)] {
        let listener = tcp(address)?;
        listener.set_tcp_congestion(name.as_bytes())?;
        listen_on(&listener, address, 16)?;
        let client = tcp(address)?;
        client.set_tcp_congestion(name.as_bytes())?;
        let server = join(&client, &listener)?;
        for _ in 0..10 {
            write(&client, b'c', 20_000, 5000)?;
            read(&server, 20_000)?;
        }
        wait_acknowledged(&client)?;
        stage.hold("listener", listener);
        stage.hold("client", client);
        stage.hold("server", server);
    }
    Ok(())
}

fn dctcp(stage: &mut Stage) -> Result<()> {
    require("dctcp")?;
    sysctl("ipv4/tcp_ecn", "1")?;
    let raw = raw()?;
    let listener = tcp(v4(24832))?;
    // Both ends must be dctcp from the SYN on, or ECN is not negotiated its way.
    listener.set_tcp_congestion(b"dctcp")?;
    listen_on(&listener, v4(24832), 16)?;
    let client = tcp(v4(24832))?;
    client.set_tcp_congestion(b"dctcp")?;
    let server = join(&client, &listener)?;
    client.set_tcp_nodelay(true)?;
    for _ in 0..5 {
        // The segment is lost, and comes through a congested router instead.
        forget(&raw)?;
        lose(&server, b'C')?;
        write(&client, b'C', 1000, 1000)?;
        let packet = catch(&raw, b'C')?;
        hear(&server)?;
        send_marked(&raw, packet)?;
        read(&server, 1000)?;
        write(&client, b'd', 20_000, 5000)?;
        read(&server, 20_000)?;
        wait_acknowledged(&client)?;
    }
    stage.hold("listener", listener);
    stage.hold("client", client);
    stage.hold("server", server);
    Ok(())
}
