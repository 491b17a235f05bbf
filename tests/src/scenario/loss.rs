//! Loss, reordering, duplicates and congestion marks.

use std::time::Duration;

use anyhow::Result;

use super::netns::sysctl;
use super::raw::{catch, forget, raw, send_again, send_marked};
use super::sockets::{
    deafen, hear, info_u32, join, listen, lose, pair, read, tcp, wait_acknowledged, wait_for, write,
};
use super::stage::Stage;
use super::states::v4;
use super::{Scenario, absent};

/// Offsets in `tcp_info`.
const SACKED: usize = 28;
const TOTAL_RETRANS: usize = 100;
const DSACK_DUPS: usize = 216;
const REORD_SEEN: usize = 220;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "retransmits",
        about: "a connection that healed after two of twenty segments were lost, and again",
        run: retransmits,
    },
    Scenario {
        name: "in-recovery",
        about: "a connection two of whose segments are lost whenever they are sent",
        run: in_recovery,
    },
    Scenario {
        name: "timeouts",
        about: "a connection whose peer hears nothing any more: timeouts double",
        run: timeouts,
    },
    Scenario {
        name: "reordering",
        about: "a connection one of whose segments came after two later ones",
        run: reordering,
    },
    Scenario {
        name: "spurious-retransmit",
        about: "a connection whose sender lost acknowledgements and sent again what had come: DSACK",
        run: spurious_retransmit,
    },
    Scenario {
        name: "ecn",
        about: "a connection with ECN and three congestion marks",
        run: |stage| marks(stage, "1"),
    },
    Scenario {
        name: "accecn",
        about: "a connection with accurate ECN and three congestion marks (Linux 6.18)",
        run: |stage| marks(stage, "3"),
    },
    Scenario {
        name: "no-options",
        about: "a connection without timestamps, SACK and window scaling",
        run: no_options,
    },
];

/// Twenty segments of which numbers 6 and 7 are marked `L`.
fn twenty(client: &socket2::Socket) -> Result<()> {
    client.set_tcp_nodelay(true)?;
    write(client, b'a', 5000, 1000)?;
    write(client, b'L', 2000, 1000)?;
    write(client, b'b', 13_000, 1000)
}

fn retransmits(stage: &mut Stage) -> Result<()> {
    let listener = listen(v4(24841), 16)?;
    let (client, server) = pair(&listener)?;
    for round in 1..=2 {
        lose(&server, b'L')?;
        twenty(&client)?;
        wait_for("a retransmission", || Ok(info_u32(&client, TOTAL_RETRANS)? >= round))?;
        hear(&server)?;
        read(&server, 20_000)?;
        wait_acknowledged(&client)?;
    }
    stage.hold("listener", listener);
    stage.hold("client", client);
    stage.hold("server", server);
    Ok(())
}

fn in_recovery(stage: &mut Stage) -> Result<()> {
    let listener = listen(v4(24842), 16)?;
    let (client, server) = pair(&listener)?;
    lose(&server, b'L')?;
    twenty(&client)?;
    wait_for("selective acknowledgements", || Ok(info_u32(&client, SACKED)? > 0))?;
    wait_for("retransmissions", || Ok(info_u32(&client, TOTAL_RETRANS)? >= 2))?;
    stage.hold("listener", listener);
    stage.hold("client", client);
    stage.hold("server with a hole", server);
    Ok(())
}

fn timeouts(stage: &mut Stage) -> Result<()> {
    let listener = listen(v4(24843), 16)?;
    let (client, server) = pair(&listener)?;
    deafen(&server)?;
    write(&client, b't', 3000, 1000)?;
    // Three timeouts: the fourth is 3 s away, long enough for a moment in which nothing happens.
    wait_for("three timeouts", || Ok(info_u32(&client, TOTAL_RETRANS)? >= 3))?;
    stage.hold("listener", listener);
    stage.hold("client", client);
    stage.hold("deaf server", server);
    Ok(())
}

fn reordering(stage: &mut Stage) -> Result<()> {
    // No tail loss probe, and a smallest round trip that forgets: RACK waits a quarter of it before it takes the hole
    // for a loss.
    sysctl("ipv4/tcp_early_retrans", "0")?;
    sysctl("ipv4/tcp_min_rtt_wlen", "0")?;
    let raw = raw()?;
    let listener = listen(v4(24844), 16)?;
    let (client, server) = pair(&listener)?;
    client.set_tcp_nodelay(true)?;
    // On a busy machine the late segment may come too late: again until it came between.
    wait_for("reordering", || {
        forget(&raw)?;
        deafen(&server)?;
        write(&client, b'R', 1000, 1000)?;
        write(&client, b'x', 1000, 1000)?;
        let late = catch(&raw, b'R')?;
        let early = catch(&raw, b'x')?;
        // The round trip.
        std::thread::sleep(Duration::from_millis(120));
        hear(&server)?;
        send_again(&raw, early)?;
        wait_for("a segment behind the hole", || Ok(info_u32(&client, SACKED)? > 0))?;
        send_again(&raw, late)?;
        read(&server, 2000)?;
        wait_acknowledged(&client)?;
        Ok(info_u32(&client, REORD_SEEN)? > 0)
    })?;
    stage.hold("listener", listener);
    stage.hold("client", client);
    stage.hold("server", server);
    Ok(())
}

fn spurious_retransmit(stage: &mut Stage) -> Result<()> {
    let listener = listen(v4(24845), 16)?;
    let (client, server) = pair(&listener)?;
    deafen(&client)?;
    write(&client, b's', 3000, 1000)?;
    read(&server, 3000)?;
    wait_for("a retransmission", || Ok(info_u32(&client, TOTAL_RETRANS)? >= 1))?;
    hear(&client)?;
    wait_acknowledged(&client)?;
    wait_for("a duplicate acknowledged", || Ok(info_u32(&client, DSACK_DUPS)? >= 1))?;
    stage.hold("listener", listener);
    stage.hold("client", client);
    stage.hold("server", server);
    Ok(())
}

fn marks(stage: &mut Stage, ecn: &str) -> Result<()> {
    if sysctl("ipv4/tcp_ecn", ecn).is_err() {
        return Err(absent(format!("the kernel refuses net.ipv4.tcp_ecn = {ecn}")));
    }
    let value = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_ecn")?;
    if value.trim() != ecn || ecn == "3" && info_len()? < 280 {
        return Err(absent("the kernel has no accurate ECN: tcp_info ends before it"));
    }
    let raw = raw()?;
    let listener = listen(v4(24846), 16)?;
    let client = tcp(v4(24846))?;
    let server = join(&client, &listener)?;
    client.set_tcp_nodelay(true)?;
    for _ in 0..3 {
        forget(&raw)?;
        lose(&server, b'C')?;
        write(&client, b'C', 1000, 1000)?;
        let packet = catch(&raw, b'C')?;
        hear(&server)?;
        send_marked(&raw, packet)?;
        read(&server, 1000)?;
        write(&client, b'e', 20_000, 5000)?;
        read(&server, 20_000)?;
        write(&server, b'e', 2000, 1000)?;
        read(&client, 2000)?;
        wait_acknowledged(&client)?;
    }
    stage.hold("listener", listener);
    stage.hold("client", client);
    stage.hold("server", server);
    Ok(())
}

/// Bytes of this kernel's `tcp_info`.
fn info_len() -> Result<usize> {
    Ok(super::sockets::tcp_info(&tcp(v4(0))?)?.len())
}

fn no_options(stage: &mut Stage) -> Result<()> {
    for key in ["ipv4/tcp_timestamps", "ipv4/tcp_sack", "ipv4/tcp_window_scaling"] {
        sysctl(key, "0")?;
    }
    let listener = listen(v4(24847), 16)?;
    let (client, server) = pair(&listener)?;
    write(&client, b'n', 4000, 1000)?;
    read(&server, 4000)?;
    wait_acknowledged(&client)?;
    stage.hold("client", client);
    stage.hold("server", server);
    stage.hold("listener", listener);
    Ok(())
}
