//! Devices of a namespace: loopback up, and a veth to the namespace of the generator.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::if_nametoindex;

/// Index of loopback in every namespace (`LOOPBACK_IFINDEX` in the kernel's `net/flow.h`).
const LOOPBACK: u32 = 1;
/// Bytes of the longest answer: an acknowledgement, or an error with the request in it.
const ANSWER: usize = 4096;

/// A route netlink socket of the calling thread's namespace.
#[derive(Debug)]
pub(super) struct Links(Socket);

impl Links {
    /// Opens it.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(Socket::new(NETLINK_ROUTE)?))
    }

    /// Brings loopback up.
    pub(super) fn loopback_up(&self) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = LOOPBACK;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Brings a link up and gives it these addresses, each with its prefix length.
    pub(super) fn up_with(&self, name: &str, addresses: &[(IpAddr, u8)]) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = if_nametoindex(name)?;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        let index = link.header.index;
        self.ask(RouteNetlinkMessage::SetLink(link), 0)?;
        for (ip, prefix_len) in addresses {
            let mut address = AddressMessage::default();
            address.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            address.header.prefix_len = *prefix_len;
            address.header.index = index;
            // Nobody else is on this link who could have it.
            address.header.flags =
                if ip.is_ipv6() { AddressHeaderFlags::Nodad } else { AddressHeaderFlags::empty() };
            address.attributes = vec![AddressAttribute::Local(*ip), AddressAttribute::Address(*ip)];
            self.ask(RouteNetlinkMessage::NewAddress(address), NLM_F_CREATE | NLM_F_EXCL)?;
        }
        Ok(())
    }

    /// Makes a veth pair: `inside` here, `outside` where `place` says. Both are down.
    pub(super) fn add_veth(&self, inside: &str, outside: &str, place: LinkAttribute) -> io::Result<()> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![LinkAttribute::IfName(outside.to_owned()), place];
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(inside.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        self.ask(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn ask(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let mut answer = Vec::with_capacity(ANSWER);
        self.0.recv(&mut answer, 0)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            NetlinkPayload::Error(_) => Ok(()),
            other => Err(io::Error::other(format!("not an acknowledgement: {other:?}"))),
        }
    }
}

/// Name of the end of a veth that is outside: unique for a process and a number, at most 15 bytes.
pub(super) fn outside_name(pid: u32, number: u64) -> String {
    // 22 bits of a pid and 36 of a number: 5 and 7 digits.
    format!("xl{}.{}", base36(u64::from(pid)), base36(number % 36_u64.pow(7)))
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.extend(u32::try_from(number % 36).ok().and_then(|digit| char::from_digit(digit, 36)));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn veth_names_are_unique_and_fit_an_interface_name() {
        assert_eq!(outside_name(36, 35), "xl10.z");
        assert_ne!(outside_name(1, 11), outside_name(11, 1));
        // IFNAMSIZ is 16 with the NUL; 2^22 is the highest pid.
        assert!(outside_name(1 << 22, u64::MAX).len() <= 15);
    }
}
