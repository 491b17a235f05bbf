//! A network namespace for the calling thread: loopback up, with addresses of each kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::path::Path;

use anyhow::{Context, Result, bail};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr as NetlinkAddress};
use nix::sched::{CloneFlags, unshare};

use super::sockets::wait_for;

/// Index of loopback in every namespace.
pub(super) const LOOPBACK: u32 = 1;
/// An IPv6 address of global scope (documentation prefix) on loopback.
pub(super) const GLOBAL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// A link-local address on loopback.
pub(super) const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const NLM_F_CREATE: u16 = 0x400;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;

/// Puts the calling thread into a new namespace.
pub(super) fn enter_fresh() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
    let up = libc::IFF_UP.cast_unsigned();
    let mut link = vec![0; 4];
    link.extend(LOOPBACK.to_ne_bytes());
    link.extend(up.to_ne_bytes());
    link.extend(up.to_ne_bytes());
    request(RTM_NEWLINK, 0, &link).context("bring loopback up")?;
    add_address(GLOBAL.into(), 128)?;
    add_address(LINK_LOCAL.into(), 64)?;
    // Routes to new addresses come a moment later.
    for address in [SocketAddrV6::new(GLOBAL, 1, 0, 0), SocketAddrV6::new(LINK_LOCAL, 1, 0, LOOPBACK)] {
        let probe = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        wait_for("a route to an address of loopback", || Ok(probe.connect(address).is_ok()))?;
    }
    Ok(())
}

/// Gives loopback one more address.
pub(super) fn add_address(address: IpAddr, prefix: u8) -> Result<()> {
    let (family, octets) = match address {
        IpAddr::V4(address) => (libc::AF_INET, Ipv4Addr::octets(&address).to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    let mut body = vec![u8::try_from(family)?, prefix, IFA_F_NODAD, 0];
    body.extend(LOOPBACK.to_ne_bytes());
    body.extend(u16::try_from(octets.len() + 4)?.to_ne_bytes());
    body.extend(IFA_LOCAL.to_ne_bytes());
    body.extend(octets);
    request(RTM_NEWADDR, NLM_F_CREATE, &body).with_context(|| format!("give loopback {address}"))
}

/// Sends one request to rtnetlink and takes its acknowledgement.
fn request(kind: u16, flags: u16, body: &[u8]) -> Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.send_to(&message(kind, flags | NLM_F_REQUEST_ACK, 1, body)?, &NetlinkAddress::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    match answer.get(16..20).and_then(|errno| errno.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(errno) => Err(std::io::Error::from_raw_os_error(-errno).into()),
        None => bail!("rtnetlink answered {} bytes", answer.len()),
    }
}

/// A netlink message.
pub(super) fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = u32::try_from(16 + body.len())?.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    Ok(bytes)
}

/// Writes `/proc/sys/net/<key>` of the calling thread's namespace.
pub(super) fn sysctl(key: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(key);
    std::fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
}
