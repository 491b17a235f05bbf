//! Talking netlink and keeping every datagram of it.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};
use xtcp_agent::pcap::{Direction, Packet, Writer};
use xtcp_inet_diag::framing::{Body, Messages};

/// One netlink datagram as it was sent or received.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    at_ns: i64,
    direction: Direction,
    protocol: u16,
    bytes: Vec<u8>,
}

/// The datagrams as a pcap file.
pub(super) fn pcap(kept: &[Kept]) -> Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new())?;
    for Kept { at_ns, direction, protocol, bytes } in kept {
        writer.packet(&Packet {
            timestamp_ns: *at_ns,
            direction: *direction,
            // Every scenario's namespace is gone when somebody reads this.
            netns_inode: 0,
            protocol: *protocol,
            datagram: bytes,
        })?;
    }
    writer.flush()?;
    Ok(writer.into_inner())
}

/// Where an answer ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// `NLMSG_DONE`, or an error.
    Done,
    /// This many datagrams.
    Datagrams(usize),
}

/// One netlink socket, and all that went over it.
pub(super) struct Conversation {
    protocol: u16,
    socket: Socket,
    sequence: u32,
    packets: Vec<Kept>,
}

impl Conversation {
    pub(super) fn new(protocol: isize) -> Result<Self> {
        let mut socket = Socket::new(protocol).context("open a netlink socket")?;
        socket.bind_auto()?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(20))?;
        Ok(Self { protocol: u16::try_from(protocol)?, socket, sequence: 0, packets: Vec::new() })
    }

    /// The next request's sequence number.
    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    /// Sends a request.
    pub(super) fn send(&mut self, request: &[u8]) -> Result<()> {
        self.keep(Direction::Request, request.to_vec());
        self.socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }

    /// Receives one datagram; whether it ends a dump.
    pub(super) fn receive(&mut self) -> Result<bool> {
        let (datagram, _) = self.socket.recv_from_full().context("no answer from the kernel")?;
        let mut over = false;
        for message in Messages::new(&datagram) {
            let body = message.map_err(|e| anyhow::anyhow!("{e}"))?.body;
            over |= matches!(body, Body::Done { .. } | Body::Error { .. });
        }
        self.keep(Direction::Answer, datagram);
        Ok(over)
    }

    /// Sends a request and receives its answer; the datagrams.
    pub(super) fn ask(&mut self, request: &[u8], until: Until) -> Result<Vec<Vec<u8>>> {
        self.send(request)?;
        let first = self.packets.len();
        loop {
            let over = self.receive()?;
            let count = self.packets.len() - first;
            let enough = match until {
                Until::Done => over,
                Until::Datagrams(wanted) => count == wanted,
            };
            if enough {
                return Ok(self.packets.iter().skip(first).map(|packet| packet.bytes.clone()).collect());
            }
        }
    }

    /// The datagrams that came so far.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.packets
            .iter()
            .filter(|packet| packet.direction == Direction::Answer)
            .map(|packet| packet.bytes.as_slice())
    }

    /// Everything that was sent and received.
    pub(super) fn into_packets(self) -> Vec<Kept> {
        self.packets
    }

    fn keep(&mut self, direction: Direction, bytes: Vec<u8>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        self.packets.push(Kept { at_ns, direction, protocol: self.protocol, bytes });
    }
}
