//! Datagrams of the running kernel.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use xtcp_inet_diag::framing::{Body, Messages};
use xtcp_inet_diag::request::{DumpBoth, Extensions};
use xtcp_inet_diag::state::{State, States};

/// Connections to make; each is two sockets.
const CONNECTIONS: usize = 64;

/// The kernel's answer to a dump of established sockets with everything that a record holds, while at least 128 of them
/// are open that have sent and received between 100 bytes and 100 kB.
pub(crate) fn datagrams() -> Vec<Vec<u8>> {
    let listeners = ["127.0.0.1", "::1"].map(|address| TcpListener::bind((address, 0)).unwrap());
    let open: Vec<_> = (0..CONNECTIONS).zip(listeners.iter().cycle()).map(connection).collect();
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).unwrap();
    socket.bind_auto().unwrap();
    let request = DumpBoth { states: States::from(State::Established), extensions: Extensions::ALL_WANTED };
    socket.send_to(&request.to_bytes(1), &SocketAddr::new(0, 0), 0).unwrap();
    let mut datagrams = Vec::new();
    loop {
        let datagram = socket.recv_from_full().unwrap().0;
        let last = Messages::new(&datagram).last().unwrap().unwrap();
        assert!(!matches!(last.body, Body::Error { .. }), "{last:?}");
        let done = matches!(last.body, Body::Done { .. });
        datagrams.push(datagram);
        if done {
            drop(open);
            return datagrams;
        }
    }
}

fn connection((number, listener): (usize, &TcpListener)) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut server = listener.accept().unwrap().0;
    for part in 0..=number % 7 {
        let mut bytes = vec![0; 100 << ((number + part) % 11)];
        client.write_all(&bytes).unwrap();
        server.read_exact(&mut bytes).unwrap();
        let third = bytes.len() / 3;
        let answer = &mut bytes[..third];
        server.write_all(answer).unwrap();
        client.read_exact(answer).unwrap();
    }
    (client, server)
}
