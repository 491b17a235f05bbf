//! Asks `inet_diag` something that no socket matches, to see that it answers.

use std::io;
use std::os::fd::AsFd;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use xtcp_inet_diag::framing::{Body, Messages};
use xtcp_inet_diag::request::{Dump, Extensions, Protocol};
use xtcp_inet_diag::socket_id::Family;
use xtcp_inet_diag::state::States;

use super::facts::Is;

/// How long the kernel, which answers within the call, is waited for.
const PATIENCE_S: i64 = 2;

/// Whether the kernel answers about TCP sockets. It loads `tcp_diag` for the question, where it may.
pub(super) fn answers() -> Is {
    asked(Protocol::TCP)
}

/// Whether the kernel answers about MPTCP sockets. It loads `mptcp_diag` for the question, where it may.
pub(super) fn answers_mptcp() -> Is {
    asked(Protocol::MPTCP)
}

fn asked(protocol: Protocol) -> Is {
    match dump_nothing(protocol) {
        Ok(0) => Is::Yes,
        // Without a handler for the protocol a lookup says ENOENT as if the socket were not there; only a dump tells
        // the difference: its NLMSG_DONE carries the errno (__inet_diag_dump in net/ipv4/inet_diag.c).
        Ok(errno) => {
            let name = Errno::from_raw(errno);
            Is::No(format!("the kernel answers a dump request for protocol {} with {name}", protocol.0))
        }
        Err(e) => Is::No(format!("NETLINK_SOCK_DIAG: {e}")),
    }
}

/// A dump of the sockets in no state: the errno with which it ended, 0 for none.
fn dump_nothing(protocol: Protocol) -> io::Result<i32> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))?;
    socket.bind_auto()?;
    let request = Dump { family: Family::Inet, protocol, states: States::NONE, extensions: Extensions::NONE };
    socket.send_to(&request.to_bytes(1), &SocketAddr::new(0, 0), 0)?;
    let mut buffer = Vec::with_capacity(32 << 10);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        for message in Messages::new(&buffer) {
            let message = message.map_err(|e| io::Error::other(e.to_string()))?;
            match message.body {
                Body::Done { status, .. } => return Ok(status.saturating_neg()),
                Body::Error { errno, .. } => return Ok(errno),
                Body::Overrun | Body::Malformed => return Err(io::Error::other("a broken answer")),
                Body::Noop | Body::Data { .. } => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_without_a_handler_is_told_from_one_that_has_no_sockets() {
        assert_eq!(answers(), Is::Yes);
        // 253 is reserved for experiments (RFC 3692): nothing handles it.
        assert!(matches!(asked(Protocol(253)), Is::No(why) if why.contains("ENOENT")));
    }
}
