//! Answers other than rows of TCP sockets.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context, Result, bail};
use netlink_sys::protocols::NETLINK_ROUTE;
use socket2::Socket;
use xtcp_inet_diag::framing::NLM_F_DUMP_INTR;
use xtcp_inet_diag::request::{Dump, Extensions, Protocol};
use xtcp_inet_diag::socket_id::Family;
use xtcp_inet_diag::state::States;

use super::Scenario;
use super::conversation::{Conversation, Until};
use super::netns::{add_address, message};
use super::sockets::{listen, pair};
use super::stage::Stage;
use super::states::{v4, v6};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "errors",
        about: "requests that the kernel refuses: a protocol and families that it does not know, and one cut short",
        run: errors,
    },
    Scenario { name: "udp", about: "dumps of UDP sockets, and of TCP in the same conversation", run: udp },
    Scenario {
        name: "interrupted",
        about: "an rtnetlink dump of addresses with NLM_F_DUMP_INTR, in the same file as a dump of TCP sockets",
        run: interrupted,
    },
];

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST: u16 = 0x1;
const REQUEST_DUMP: u16 = 0x301;
const RTM_GETADDR: u16 = 22;

fn errors(stage: &mut Stage) -> Result<()> {
    let listener = listen(v4(24891), 16)?;
    let (client, server) = pair(&listener)?;
    stage.hold("listener", listener);
    stage.hold("client", client);
    stage.hold("server", server);
    stage.also_ask(Box::new(|talk| {
        // Protocol 250 is nobody's; families 0 and 99 are not inet_diag's.
        for (family, protocol, flags) in
            [(2, 250, REQUEST_DUMP), (2, 250, REQUEST), (0, 6, REQUEST_DUMP), (99, 6, REQUEST)]
        {
            let mut body = vec![family, protocol, 0xff, 0];
            body.extend(u32::MAX.to_ne_bytes());
            body.extend([0; 48]);
            let request = message(SOCK_DIAG_BY_FAMILY, flags, talk.next_sequence(), &body)?;
            talk.ask(&request, Until::Done)?;
        }
        let short = message(SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, talk.next_sequence(), &[2, 6, 0xff, 0])?;
        talk.ask(&short, Until::Done)?;
        Ok(())
    }));
    Ok(())
}

fn udp(stage: &mut Stage) -> Result<()> {
    for address in [v4(24892), v6(24892)] {
        let server = UdpSocket::bind(address)?;
        let mut any = address;
        any.set_port(0);
        let client = UdpSocket::bind(any)?;
        client.connect(address)?;
        client.send(&[b'u'; 100])?;
        stage.hold("UDP socket with 100 unread bytes", Socket::from(server));
        stage.hold("connected UDP socket", Socket::from(client));
    }
    let listener = listen(v4(24892), 16)?;
    stage.hold("TCP listener", listener);
    stage.also_ask(Box::new(|talk| {
        for family in [Family::Inet, Family::Inet6] {
            let dump = Dump {
                family,
                protocol: Protocol::UDP,
                states: States::from_bits(u32::MAX),
                extensions: Extensions::ALL,
            };
            let request = dump.to_bytes(talk.next_sequence());
            talk.ask(&request, Until::Done)?;
        }
        Ok(())
    }));
    Ok(())
}

/// inet_diag never sets the flag; rtnetlink does when the table changes between two datagrams of a dump.
fn interrupted(stage: &mut Stage) -> Result<()> {
    let listener = listen(v4(24893), 16)?;
    stage.hold("listener", listener);
    let other = |number: u8| Ipv4Addr::new(127, 77, 0, number);
    for number in 1..=90 {
        add_address(other(number).into(), 32)?;
    }
    let mut talk = Conversation::new(NETLINK_ROUTE)?;
    let mut body = vec![u8::try_from(libc::AF_INET)?];
    body.extend([0; 7]);
    let request = message(RTM_GETADDR, REQUEST_DUMP, talk.next_sequence(), &body)?;
    // Sending fills the first datagram, receiving it the next.
    talk.send(&request)?;
    add_address(other(91).into(), 32).context("change the table under the dump")?;
    while !talk.receive()? {}
    let marked = talk.datagrams().any(|datagram| {
        datagram
            .get(6..8)
            .is_some_and(|flags| u16::from_ne_bytes([flags[0], flags[1]]) & NLM_F_DUMP_INTR != 0)
    });
    if !marked {
        bail!("no datagram of the changed dump has NLM_F_DUMP_INTR");
    }
    stage.keep(talk);
    Ok(())
}
