//! Full and half-full queues.

use anyhow::Result;

use super::Scenario;
use super::sockets::{fill, listen, listen_on, pair, tcp, wait_acknowledged, write};
use super::stage::Stage;
use super::states::v4;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "unread",
        about: "1 000 bytes one way and 2 000 the other that nobody has read, all acknowledged",
        run: unread,
    },
    Scenario {
        name: "zero-window",
        about: "a receiver that reads nothing, its window closed; the sender's buffer full, most of it never sent",
        run: zero_window,
    },
];

fn unread(stage: &mut Stage) -> Result<()> {
    let listener = listen(v4(24851), 16)?;
    let (client, server) = pair(&listener)?;
    write(&client, b'u', 1000, 1000)?;
    write(&server, b'u', 2000, 1000)?;
    wait_acknowledged(&client)?;
    wait_acknowledged(&server)?;
    stage.hold("listener", listener);
    stage.hold("client", client);
    stage.hold("server", server);
    Ok(())
}

fn zero_window(stage: &mut Stage) -> Result<()> {
    let listener = tcp(v4(24852))?;
    listener.set_recv_buffer_size(8192)?;
    listen_on(&listener, v4(24852), 16)?;
    let client = tcp(v4(24852))?;
    client.set_send_buffer_size(32_768)?;
    let server = super::sockets::join(&client, &listener)?;
    let written = fill(&client)?;
    stage.fact("written", written);
    stage.hold("listener", listener);
    stage.hold("sender", client);
    stage.hold("receiver", server);
    Ok(())
}
