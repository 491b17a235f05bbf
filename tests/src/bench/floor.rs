//! The floor of a poll: one request, `recv`, a walk over the message headers, nothing else.

use std::io::Read;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use xtcp_inet_diag::framing::{Body, Messages};
use xtcp_inet_diag::request::{DumpBoth, Extensions};
use xtcp_inet_diag::state::States;

use super::cpu_of_thread;

/// What the kernel fills at most for one `recv`.
const BUFFER_BYTES: usize = 32 * 1024;

/// What one dump took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dump {
    /// CPU of the calling thread; the kernel's work in `recv` is its own.
    pub(super) cpu: Duration,
    /// Rows.
    pub(super) rows: u64,
}

/// Dumps the sockets of the calling thread's namespace, in the states and with the attributes that the agent asks for.
pub(super) fn dump() -> Dump {
    let mut buffer = vec![0; BUFFER_BYTES];
    let start = cpu_of_thread();
    let socket =
        Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_SOCK_DIAG)))
            .expect("root may ask the kernel for sockets");
    let request = DumpBoth { states: States::DEFAULT, extensions: Extensions::ALL_WANTED };
    socket.send(&request.to_bytes(1)).expect("the kernel takes a request");
    let mut rows = 0;
    loop {
        let length = (&socket).read(&mut buffer).expect("the kernel answers");
        for message in Messages::new(&buffer[..length]) {
            match message.expect("the kernel's framing is whole").body {
                Body::Data { .. } => rows += 1,
                Body::Done { status: 0, .. } => {
                    return Dump { cpu: cpu_of_thread().saturating_sub(start), rows };
                }
                other => panic!("the kernel answered {other:?}"),
            }
        }
    }
}
