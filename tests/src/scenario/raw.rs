//! Packets that come late or marked: caught by a raw socket as they pass, and sent again.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

/// Both ECN bits: congestion experienced.
const CE: u8 = 3;

/// A raw socket that sees every IPv4 TCP packet of the namespace, and sends whole packets.
pub(super) fn raw() -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).context("open a raw socket")?;
    socket.set_header_included_v4(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(socket)
}

/// The first packet that came to the raw socket and whose data begins with `value`.
pub(super) fn catch(mut raw: &Socket, value: u8) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 0x1_0000];
    loop {
        let len = raw.read(&mut buffer).context("no such packet came by")?;
        let packet = buffer.get(..len).unwrap_or_default();
        let tcp = header_len(packet);
        let data = packet.get(tcp + 12).map_or(0, |byte| tcp + usize::from(byte >> 4) * 4);
        if data > tcp && packet.get(data) == Some(&value) {
            return Ok(packet.to_vec());
        }
    }
}

/// Forgets what came to the raw socket so far: copies of earlier packets, and of what was sent again.
pub(super) fn forget(mut raw: &Socket) -> Result<()> {
    raw.set_nonblocking(true)?;
    let mut buffer = vec![0; 0x1_0000];
    while raw.read(&mut buffer).is_ok() {}
    Ok(raw.set_nonblocking(false)?)
}

/// Sends a packet again as it was.
pub(super) fn send_again(raw: &Socket, mut packet: Vec<u8>) -> Result<()> {
    complete(&mut packet);
    let to: [u8; 4] = packet.get(16..20).context("no IPv4 packet")?.try_into()?;
    raw.send_to(&packet, &SocketAddr::from((Ipv4Addr::from(to), 0)).into()).context("send a raw packet")?;
    Ok(())
}

/// Sends a packet again with the mark of a congested router.
pub(super) fn send_marked(raw: &Socket, mut packet: Vec<u8>) -> Result<()> {
    if let Some(tos) = packet.get_mut(1) {
        *tos |= CE;
    }
    send_again(raw, packet)
}

/// Bytes of the IPv4 header.
fn header_len(packet: &[u8]) -> usize {
    usize::from(packet.first().copied().unwrap_or(0) & 0xf) * 4
}

/// Computes the checksum of the segment: on loopback nobody did. The kernel computes the IPv4 header's.
fn complete(packet: &mut [u8]) {
    let tcp = header_len(packet);
    if let Some(checksum) = packet.get_mut(tcp + 16..tcp + 18) {
        checksum.fill(0);
    }
    let segment = packet.get(tcp..).unwrap_or_default();
    let addresses = packet.get(12..20).unwrap_or_default();
    // The addresses, the protocol and the length stand for the pseudo header.
    let sum = words(addresses) + words(segment) + 6 + segment.len() as u64;
    let mut folded = sum;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    let value = u16::try_from(folded).map_or(0, |folded| !folded);
    if let Some(checksum) = packet.get_mut(tcp + 16..tcp + 18) {
        checksum.copy_from_slice(&value.to_be_bytes());
    }
}

/// Sum of the big-endian 16-bit words.
fn words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u64::from(*byte))).sum()
}
