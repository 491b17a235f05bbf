//! More sockets than a datagram holds.

use anyhow::Result;

use super::Scenario;
use super::sockets::{listen, pair, read, wait_acknowledged, write};
use super::stage::Stage;
use super::states::{v4, v6};

/// Connections of each family, two sockets each.
const PAIRS: usize = 51;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "many",
    about: "204 connected sockets of both families: a dump of several datagrams",
    run: many,
}];

fn many(stage: &mut Stage) -> Result<()> {
    stage.lean();
    for address in [v4(24881), v6(24881)] {
        let listener = listen(address, 128)?;
        for number in 1..=PAIRS {
            let (client, server) = pair(&listener)?;
            write(&client, b'y', number * 10, 4000)?;
            read(&server, number * 10)?;
            wait_acknowledged(&client)?;
            stage.hold("client", client);
            stage.hold("server", server);
        }
        stage.hold("listener", listener);
    }
    Ok(())
}
