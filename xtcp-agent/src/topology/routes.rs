//! Which interfaces the default routes lead to, asked of rtnetlink: `/proc/net/route` shows one next hop of several.

use std::collections::BTreeSet;
use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// The kernel fills at most this much at once.
const DATAGRAM_BYTES: usize = 32 << 10;
/// Offset of `rtm_dst_len` behind a message's header.
const DST_LEN_AT: usize = 17;

/// Names of the interfaces, those of the preferred routes first (IPv4, then IPv6; lowest metric), each once.
pub(super) fn default_interfaces() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut found = BTreeSet::new();
        dump(family, &mut |route| found.extend(interfaces(route)))?;
        for (_, _, index) in found {
            // One that went away since is none.
            let Ok(name) = nix::net::if_::if_indextoname(index) else { continue };
            let name = name.to_string_lossy().into_owned();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// Calls `found` for each default route of the main table. A host may have a million other routes: they are stepped over.
fn dump(family: AddressFamily, found: &mut dyn FnMut(&RouteMessage)) -> io::Result<()> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(5))?;
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    question.header.table = RouteHeader::RT_TABLE_MAIN;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, RouteNetlinkMessage::GetRoute(question).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
    loop {
        datagram.clear();
        socket.recv(&mut datagram, 0)?;
        let mut rest = datagram.as_slice();
        while let Ok(buffer) = NetlinkBuffer::new_checked(rest) {
            let length = buffer.length() as usize;
            let message = rest.get(..length).unwrap_or_default();
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            if buffer.message_type() == RTM_NEWROUTE && message.get(DST_LEN_AT) != Some(&0) {
                continue;
            }
            let parsed =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map_err(io::Error::other)?;
            match parsed.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => found(&route),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
    }
}

/// `RTM_NEWROUTE` in `linux/rtnetlink.h`.
const RTM_NEWROUTE: u16 = 24;

/// Metric, place among the next hops, and index of each interface that a default route of the main table leads to.
fn interfaces(route: &RouteMessage) -> Vec<(u32, usize, u32)> {
    if route.header.destination_prefix_length != 0
        || route.header.table != RouteHeader::RT_TABLE_MAIN
        || route.header.kind != RouteType::Unicast
    {
        return Vec::new();
    }
    let (mut metric, mut indexes) = (0, Vec::new());
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => indexes.push(*index),
            RouteAttribute::MultiPath(hops) => indexes.extend(hops.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    indexes.into_iter().enumerate().map(|(place, index)| (metric, place, index)).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use nix::sched::CloneFlags;

    use super::*;

    fn ip(words: &str) {
        let done = Command::new("ip").args(words.split(' ')).status().expect("ip of iproute2");
        assert!(done.success(), "ip {words}");
    }

    /// Runs `work` on a thread of its own.
    fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = thread::Builder::new().name("apart".to_owned()).spawn(work).expect("a thread");
        thread.join().expect("it ends well")
    }

    /// Needs root; in a namespace of its own.
    #[test]
    fn default_routes_of_both_families_and_all_their_hops_are_found_in_order() {
        apart(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("root");
            assert_eq!(default_interfaces().expect("a dump"), [""; 0]);
            for (number, name) in ["one", "two", "three", "four"].iter().enumerate() {
                ip(&format!("link add {name} type veth peer name {name}p"));
                ip(&format!("link set {name}p up"));
                ip(&format!("link set {name} up"));
                ip(&format!("addr add 10.9.{number}.1/24 dev {name}"));
            }
            ip("route add 10.77.0.0/16 dev four");
            ip("route add default metric 200 via 10.9.2.2 dev three");
            ip("route add default metric 100 nexthop via 10.9.1.2 dev two nexthop via 10.9.0.2 dev one");
            ip("-6 route add default dev four");
            ip("route add default table 77 via 10.9.3.2 dev four");
            assert_eq!(default_interfaces().expect("a dump"), ["two", "one", "three", "four"]);
        });
    }
}
