//! Lets others see what passes between a worker and the kernel, byte for byte.

use std::io;

use netlink_sys::Socket;

use super::exchange::Link;
use crate::pcap::Direction;

/// Somebody who looks on.
pub trait Tap: Send + Sync {
    /// A datagram of `NETLINK_SOCK_DIAG` goes by in the namespace of this inode, requests before they are sent. What the
    /// tap does takes time from the worker.
    fn datagram(&self, netns_inode: u32, direction: Direction, datagram: &[u8]);
}

/// The socket of one visit, and who looks on.
pub(super) struct Tapped<'a> {
    pub(super) socket: &'a Socket,
    pub(super) tap: Option<&'a dyn Tap>,
    pub(super) netns_inode: u32,
}

impl Tapped<'_> {
    fn show(&self, direction: Direction, datagram: &[u8]) {
        if let Some(tap) = self.tap {
            tap.datagram(self.netns_inode, direction, datagram);
        }
    }
}

impl Link for Tapped<'_> {
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        // Before the answer, which the kernel begins within the call.
        self.show(Direction::Request, bytes);
        Link::send(self.socket, bytes)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = Link::receive(self.socket, buffer)?;
        self.show(Direction::Answer, buffer.get(..length).unwrap_or(buffer));
        Ok(length)
    }
}
