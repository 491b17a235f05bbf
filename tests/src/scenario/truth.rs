//! What a socket says of itself, as text.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::sys::stat::fstat;
use serde_json::{Map, Value, json};
use socket2::Socket;
use xtcp_agent::sys::PlainOption;

use super::sockets::option;

/// What may change between two reads: read before and after.
const CHANGING: [PlainOption; 3] = [PlainOption::TCP_INFO, PlainOption::TCP_CC_INFO, PlainOption::SO_MEMINFO];

/// What stays: read once.
const STAYING: [PlainOption; 16] = [
    PlainOption::SO_COOKIE,
    PlainOption::SO_MARK,
    PlainOption::SO_PRIORITY,
    PlainOption::SO_RCVBUF,
    PlainOption::SO_SNDBUF,
    PlainOption::IP_TOS,
    PlainOption::IP_RECVERR,
    PlainOption::IP_FREEBIND,
    PlainOption::IP_TRANSPARENT,
    PlainOption::IP_BIND_ADDRESS_NO_PORT,
    PlainOption::IP_MULTICAST_LOOP,
    PlainOption::IP_MULTICAST_ALL,
    PlainOption::IPV6_TCLASS,
    PlainOption::IPV6_V6ONLY,
    PlainOption::TCP_CONGESTION,
    PlainOption::TCP_ULP,
];

/// First bytes of what `tcp_info` holds of clocks: each runs without anything happening to the socket.
const CLOCKS: [(usize, usize); 5] = [(44, 16), (168, 8), (176, 8), (184, 8), (244, 4)];

/// The changing options of one socket at one moment.
pub(super) struct Read(Vec<(PlainOption, Vec<u8>)>);

impl Read {
    /// `lean`: of `tcp_info` alone.
    pub(super) fn of(socket: &Socket, lean: bool) -> Self {
        let wanted = CHANGING.into_iter().filter(|which| !lean || *which == PlainOption::TCP_INFO);
        let one = |which: PlainOption| option(socket, which).map(|bytes| (which, bytes));
        Self(wanted.filter_map(one).collect())
    }

    /// Nothing happened to the socket from this read to the other: they differ in clocks at most.
    pub(super) fn is_quiet(&self, later: &Self) -> bool {
        let still = |read: &Self| -> Vec<_> {
            let mut options = read.0.clone();
            for (which, bytes) in &mut options {
                if *which == PlainOption::TCP_INFO {
                    for (start, len) in CLOCKS {
                        bytes.iter_mut().skip(start).take(len).for_each(|byte| *byte = 0);
                    }
                }
            }
            options
        };
        still(self) == still(later)
    }

    fn json(&self) -> Value {
        Value::Object(self.0.iter().map(|(which, bytes)| (which.name.to_owned(), hex(bytes))).collect())
    }

    /// What this read has otherwise than an earlier one: `[offset, bytes]` for each 32-bit word.
    fn changes(&self, earlier: &Self) -> Value {
        let mut changes = Map::new();
        for (which, bytes) in &self.0 {
            let before =
                earlier.0.iter().find(|(known, _)| known == which).map(|(_, bytes)| bytes.as_slice());
            let Some(before) = before.filter(|before| before.len() == bytes.len()) else {
                changes.insert(which.name.to_owned(), json!([[0, hex(bytes)]]));
                continue;
            };
            let words = bytes.chunks(4).zip(before.chunks(4)).enumerate();
            let changed: Vec<_> = words
                .filter(|(_, (after, before))| after != before)
                .map(|(index, (after, _))| json!([index * 4, hex(after)]))
                .collect();
            if !changed.is_empty() {
                changes.insert(which.name.to_owned(), Value::Array(changed));
            }
        }
        Value::Object(changes)
    }
}

/// One socket, from two reads. `lean`: without what stays, for scenarios of many alike sockets.
pub(super) fn socket(role: &str, socket: &Socket, before: &Read, after: &Read, lean: bool) -> Result<Value> {
    let stat = fstat(socket.as_fd()).context("fstat of a socket")?;
    let address = |address: std::io::Result<socket2::SockAddr>| {
        address.ok().and_then(|address| address.as_socket()).map(|address| address.to_string())
    };
    let mut options = Map::new();
    for which in STAYING {
        let kept = !lean || which == PlainOption::SO_COOKIE;
        if let Some(bytes) = option(socket, which).filter(|_| kept) {
            options.insert(which.name.to_owned(), hex(&bytes));
        }
    }
    let protocol = socket.protocol()?.map_or(0, i32::from);
    Ok(json!({
        "role": role,
        "protocol": protocol,
        "inode": stat.st_ino,
        "uid": stat.st_uid,
        "local": address(socket.local_addr()),
        "remote": address(socket.peer_addr()),
        "listener": socket.is_listener()?,
        "before": before.json(),
        "after": after.changes(before),
        "options": options,
    }))
}

/// Bytes as two digits each; four and more bytes of zero as their count in brackets.
fn hex(bytes: &[u8]) -> Value {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for run in bytes.chunk_by(|one, next| (*one == 0) == (*next == 0)) {
        if run.len() >= 4 && run.first() == Some(&0) {
            let _ = write!(text, "({})", run.len());
        } else {
            for byte in run {
                let _ = write!(text, "{byte:02x}");
            }
        }
    }
    Value::String(text)
}
