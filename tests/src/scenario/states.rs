//! Every TCP state.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use socket2::Socket;

use super::Scenario;
use super::conversation::Until;
use super::sockets::{
    address_of, connect, deafen, join, listen, listen_on, pair, start_connect, state, tcp, wait_state, write,
};
use super::stage::Stage;
use crate::traffic::defer_accept;
use xtcp_inet_diag::request::{Dump, DumpBoth, Extensions, Protocol};
use xtcp_inet_diag::socket_id::Family;
use xtcp_inet_diag::state::{State, States};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "established",
        about: "one idle connection, both ends, after 10 000 bytes one way and 3 000 the other",
        run: established,
    },
    Scenario {
        name: "listen-backlog",
        about: "a listener whose queue holds three connections that nobody accepted, one full, one empty",
        run: listen_backlog,
    },
    Scenario { name: "syn-sent", about: "a connection to a listener that loses every SYN", run: syn_sent },
    Scenario {
        name: "syn-recv",
        about: "request sockets: one whose client loses every SYN-ACK, one of a listener that defers acceptance",
        run: syn_recv,
    },
    Scenario {
        name: "closing-states",
        about: "FIN-WAIT-1, FIN-WAIT-2, CLOSE-WAIT, LAST-ACK and CLOSING, each held by its file",
        run: closing_states,
    },
    Scenario {
        name: "orphans",
        about: "FIN-WAIT-1, FIN-WAIT-2 and LAST-ACK of sockets whose file is closed",
        run: orphans,
    },
    Scenario {
        name: "time-wait",
        about: "TIME-WAIT of IPv4 and IPv6, and a dump of nothing else",
        run: time_wait,
    },
    Scenario {
        name: "bound",
        about: "bound sockets that neither listen nor connect (shown since Linux 6.8), and closed ones (never shown)",
        run: bound,
    },
];

/// A port of 127.0.0.1.
pub(super) fn v4(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A port of ::1.
pub(super) fn v6(port: u16) -> SocketAddr {
    (std::net::Ipv6Addr::LOCALHOST, port).into()
}

fn established(stage: &mut Stage) -> Result<()> {
    stage.by_family();
    let listener = listen(v4(24801), 16)?;
    let (client, server) = pair(&listener)?;
    write(&client, b'a', 10_000, 2500)?;
    super::sockets::read(&server, 10_000)?;
    write(&server, b'b', 3000, 3000)?;
    super::sockets::read(&client, 3000)?;
    stage.hold("listener", listener);
    stage.hold("client", client);
    stage.hold("server", server);
    Ok(())
}

fn listen_backlog(stage: &mut Stage) -> Result<()> {
    stage.by_family();
    for (port, backlog, connections) in [(24802, 8, 3), (24803, 1, 2), (24804, 128, 0)] {
        let listener = listen(v4(port), backlog)?;
        for number in 0..connections {
            let client = tcp(v4(port))?;
            connect(&client, v4(port))?;
            stage.orphan(state::ESTABLISHED, v4(port), address_of(&client)?);
            stage.hold(&format!("client {number} of {port}"), client);
        }
        stage.hold(&format!("listener {port} of backlog {backlog}"), listener);
    }
    Ok(())
}

fn syn_sent(stage: &mut Stage) -> Result<()> {
    for to in [v4(24805), v6(24805)] {
        let listener = listen(to, 4)?;
        deafen(&listener)?;
        let client = tcp(to)?;
        start_connect(&client, to)?;
        wait_state(&client, state::SYN_SENT)?;
        stage.hold("deaf listener", listener);
        stage.hold("client", client);
    }
    Ok(())
}

fn syn_recv(stage: &mut Stage) -> Result<()> {
    stage.by_family();
    for (to, port) in [(v4(24806), 24806), (v6(24806), 24806)] {
        let listener = listen(to, 4)?;
        let client = tcp(to)?;
        deafen(&client)?;
        start_connect(&client, to)?;
        stage.orphan(state::SYN_RECV, address_of(&listener)?, address_of(&client)?);
        stage.hold(&format!("listener {port}"), listener);
        stage.hold("deaf client", client);
    }
    let deferring = tcp(v4(24807))?;
    defer_accept(&deferring, 60)?;
    listen_on(&deferring, v4(24807), 4)?;
    let client = tcp(v4(24807))?;
    connect(&client, v4(24807))?;
    stage.orphan(state::SYN_RECV, v4(24807), address_of(&client)?);
    stage.hold("deferring listener", deferring);
    stage.hold("client that says nothing", client);
    Ok(())
}

fn finish(socket: &Socket) -> Result<()> {
    Ok(socket.shutdown(std::net::Shutdown::Write)?)
}

fn closing_states(stage: &mut Stage) -> Result<()> {
    let listener = listen(v4(24808), 16)?;

    let (client, server) = pair(&listener)?;
    deafen(&server)?;
    finish(&client)?;
    wait_state(&client, state::FIN_WAIT1)?;
    stage.hold("fin-wait-1", client);
    stage.hold("established, deaf to a FIN", server);

    let (client, server) = pair(&listener)?;
    finish(&client)?;
    wait_state(&client, state::FIN_WAIT2)?;
    wait_state(&server, state::CLOSE_WAIT)?;
    stage.hold("fin-wait-2", client);
    stage.hold("close-wait", server);

    let (client, server) = pair(&listener)?;
    finish(&server)?;
    wait_state(&client, state::CLOSE_WAIT)?;
    wait_state(&server, state::FIN_WAIT2)?;
    deafen(&server)?;
    finish(&client)?;
    wait_state(&client, state::LAST_ACK)?;
    stage.hold("last-ack", client);
    stage.hold("fin-wait-2, deaf to the second FIN", server);

    let (client, server) = pair(&listener)?;
    deafen(&server)?;
    finish(&client)?;
    wait_state(&client, state::FIN_WAIT1)?;
    finish(&server)?;
    wait_state(&client, state::CLOSING)?;
    stage.hold("closing", client);
    stage.hold("fin-wait-1, deaf", server);

    stage.hold("listener", listener);
    Ok(())
}

fn orphans(stage: &mut Stage) -> Result<()> {
    let listener = listen(v4(24809), 16)?;

    let (client, server) = pair(&listener)?;
    deafen(&server)?;
    stage.orphan(state::FIN_WAIT1, address_of(&client)?, v4(24809));
    drop(client);
    stage.hold("established, deaf to a FIN", server);

    let (client, server) = pair(&listener)?;
    stage.orphan(state::FIN_WAIT2, address_of(&client)?, v4(24809));
    drop(client);
    wait_state(&server, state::CLOSE_WAIT)?;
    stage.hold("close-wait", server);

    let (client, server) = pair(&listener)?;
    finish(&server)?;
    wait_state(&client, state::CLOSE_WAIT)?;
    wait_state(&server, state::FIN_WAIT2)?;
    deafen(&server)?;
    stage.orphan(state::LAST_ACK, address_of(&client)?, v4(24809));
    drop(client);
    stage.hold("fin-wait-2, deaf to the second FIN", server);

    stage.hold("listener", listener);
    Ok(())
}

fn time_wait(stage: &mut Stage) -> Result<()> {
    stage.by_family();
    for to in [v4(24810), v6(24810)] {
        let listener = listen(to, 16)?;
        for _ in 0..2 {
            let (client, server) = pair(&listener)?;
            stage.orphan(state::TIME_WAIT, address_of(&client)?, to);
            finish(&client)?;
            wait_state(&server, state::CLOSE_WAIT)?;
            wait_state(&client, state::FIN_WAIT2)?;
            drop(server);
            wait_state(&client, state::CLOSE)?;
            drop(client);
        }
        stage.hold("listener", listener);
    }
    stage.also_ask(Box::new(|talk| {
        let (states, extensions) = (States::one(State::TimeWait), Extensions::ALL);
        let both = DumpBoth { states, extensions }.to_bytes(talk.next_sequence());
        talk.ask(&both, Until::Done)?;
        for family in [Family::Inet, Family::Inet6] {
            let dump = Dump { family, protocol: Protocol::TCP, states, extensions };
            let request = dump.to_bytes(talk.next_sequence());
            talk.ask(&request, Until::Done)?;
        }
        Ok(())
    }));
    Ok(())
}

fn bound(stage: &mut Stage) -> Result<()> {
    stage.by_family();
    for address in [v4(24811), v6(24811)] {
        let socket = tcp(address)?;
        socket.bind(&address.into())?;
        stage.hold("bound", socket);
        stage.hold("closed", tcp(address)?);
    }
    // A connection that ended under its file: closed, and bound no more.
    let listener = listen(v4(24812), 1)?;
    let client = tcp(v4(24812))?;
    let server = join(&client, &listener)?;
    server.set_linger(Some(std::time::Duration::ZERO))?;
    drop(server);
    wait_state(&client, state::CLOSE)?;
    stage.hold("reset", client);
    stage.hold("listener", listener);
    Ok(())
}
