//! Address families and kinds of addresses.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use anyhow::Result;

use super::Scenario;
use super::netns::{GLOBAL, LINK_LOCAL, LOOPBACK};
use super::sockets::{connect, join, listen, listen_on, pair, read, tcp, write};
use super::stage::Stage;
use super::states::{v4, v6};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "ipv6",
        about: "connections over a global address, ::1, and a link-local address with its scope",
        run: ipv6,
    },
    Scenario {
        name: "v4-mapped",
        about: "an IPv6 listener that takes IPv4, a client of each family, and listeners with IPV6_V6ONLY both ways",
        run: v4_mapped,
    },
    Scenario {
        name: "interface",
        about: "a listener, its connection and a bound client of one interface (SO_BINDTODEVICE)",
        run: interface,
    },
];

fn ipv6(stage: &mut Stage) -> Result<()> {
    stage.by_family();
    let local = |address: Ipv6Addr, scope| SocketAddr::from(SocketAddrV6::new(address, 24821, 0, scope));
    for (what, address) in [
        ("global", local(GLOBAL, 0)),
        ("loopback", local(Ipv6Addr::LOCALHOST, 0)),
        ("link-local", local(LINK_LOCAL, LOOPBACK)),
    ] {
        let listener = listen(address, 16)?;
        let client = tcp(address)?;
        connect(&client, address)?;
        let server = listener.accept()?.0;
        write(&client, b'6', 5000, 5000)?;
        read(&server, 5000)?;
        stage.hold(&format!("{what} listener"), listener);
        stage.hold(&format!("{what} client"), client);
        stage.hold(&format!("{what} server"), server);
    }
    Ok(())
}

fn v4_mapped(stage: &mut Stage) -> Result<()> {
    stage.by_family();
    let any = |port| SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0).into();
    let dual = tcp(any(24822))?;
    dual.set_only_v6(false)?;
    listen_on(&dual, any(24822), 16)?;
    let client = tcp(v4(24822))?;
    connect(&client, v4(24822))?;
    stage.hold("server of an IPv4 client", dual.accept()?.0);
    stage.hold("IPv4 client", client);
    let mapped = SocketAddrV6::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 24822, 0, 0);
    let client = tcp(mapped.into())?;
    connect(&client, mapped.into())?;
    stage.hold("server of a mapped client", dual.accept()?.0);
    stage.hold("mapped client", client);
    let client = tcp(v6(24822))?;
    connect(&client, v6(24822))?;
    stage.hold("server of an IPv6 client", dual.accept()?.0);
    stage.hold("IPv6 client", client);
    stage.hold("listener of both families", dual);

    let only = tcp(any(24823))?;
    only.set_only_v6(true)?;
    listen_on(&only, any(24823), 16)?;
    let (client, server) = {
        let client = tcp(v6(24823))?;
        connect(&client, v6(24823))?;
        (client, only.accept()?.0)
    };
    stage.hold("IPv6-only listener", only);
    stage.hold("client of the IPv6-only listener", client);
    stage.hold("server of the IPv6-only listener", server);
    stage.hold("IPv4 listener of the same port", listen((Ipv4Addr::UNSPECIFIED, 24823).into(), 16)?);
    Ok(())
}

fn interface(stage: &mut Stage) -> Result<()> {
    stage.by_family();
    for address in [v4(24824), v6(24824)] {
        let listener = tcp(address)?;
        listener.bind_device(Some(b"lo"))?;
        listen_on(&listener, address, 16)?;
        let (client, server) = pair(&listener)?;
        let bound = tcp(address)?;
        bound.bind_device(Some(b"lo"))?;
        let other = join(&bound, &listener)?;
        stage.hold("listener of the interface", listener);
        stage.hold("client of no interface", client);
        stage.hold("server of the interface", server);
        stage.hold("client of the interface", bound);
        stage.hold("server of the interface", other);
    }
    Ok(())
}
