//! Writes the datagrams with which the running kernel answers a request, as they are, one file for each.
//!
//! `capture <request> <directory>`, where the request is `dump-both`, `dump-both-bare` (no attribute asked
//! for), `dump-v4`, `dump-v6`, or `lookups` (two sockets that exist, and one that does not, in one send). The
//! files are `<directory>/<request>.<number>.bin`. It captures the namespace in which it runs: start it in a
//! fresh one, so that nobody else's sockets are in the files.

use std::error::Error;
use std::path::Path;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use xtcp_inet_diag::framing::{Body, Messages};
use xtcp_inet_diag::message::{Header, decode};
use xtcp_inet_diag::request::{Dump, DumpBoth, Extensions, Lookup, Protocol, Requests};
use xtcp_inet_diag::socket_id::Family;
use xtcp_inet_diag::state::{State, States};

/// Sends the requests and receives until `NLMSG_DONE`, or one datagram for each of `answers`.
fn ask(request: &[u8], answers: Option<usize>) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
    let mut datagrams = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut over = false;
        for message in Messages::new(&datagram) {
            over |= matches!(message?.body, Body::Done { .. });
        }
        datagrams.push(datagram);
        if over || answers == Some(datagrams.len()) {
            return Ok(datagrams);
        }
    }
}

/// The headers of all rows of a namespace.
fn rows() -> Result<Vec<Header>, Box<dyn Error>> {
    let request = DumpBoth { states: States::ALL, extensions: Extensions::NONE };
    let mut rows = Vec::new();
    for datagram in ask(&request.to_bytes(1), None)? {
        for message in Messages::new(&datagram) {
            if let Body::Data { payload } = message?.body {
                rows.push(decode(payload)?.header);
            }
        }
    }
    Ok(rows)
}

/// Two connections that exist round one that does not, asked for in one send.
fn lookups() -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut buffer = [0; 1024];
    let mut requests = Requests::new(&mut buffer);
    let rows = rows()?;
    let mut lookups = rows
        .iter()
        .filter(|row| row.state() == Some(State::Established))
        .filter_map(|row| Lookup::of(row, Extensions::ALL_WANTED));
    let (first, second) = lookups.next().zip(lookups.next()).ok_or("two connections are needed")?;
    let mut missing = first;
    missing.id.cookie = u64::MAX >> 1;
    for (lookup, seq) in [first, missing, second].into_iter().zip(101..) {
        requests.push(&lookup.to_bytes(seq))?;
    }
    ask(requests.as_bytes(), Some(requests.count()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [request, directory] = arguments.as_slice() else {
        return Err("usage: capture dump-both|dump-both-bare|dump-v4|dump-v6|lookups <directory>".into());
    };
    let (states, extensions) = (States::ALL, Extensions::ALL);
    let dump = |family| Dump { family, protocol: Protocol::TCP, states, extensions };
    let datagrams = match request.as_str() {
        "dump-both" => ask(&DumpBoth { states, extensions }.to_bytes(1), None)?,
        "dump-both-bare" => ask(&DumpBoth { states, extensions: Extensions::NONE }.to_bytes(1), None)?,
        "dump-v4" => ask(&dump(Family::Inet).to_bytes(1), None)?,
        "dump-v6" => ask(&dump(Family::Inet6).to_bytes(1), None)?,
        "lookups" => lookups()?,
        other => return Err(format!("unknown request '{other}'").into()),
    };
    for (number, datagram) in datagrams.iter().enumerate() {
        std::fs::write(Path::new(directory).join(format!("{request}.{number}.bin")), datagram)?;
    }
    Ok(())
}
