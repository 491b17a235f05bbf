//! Rows as the tests look at them, whether they came from standard output or from gRPC.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_proto::flat_record::v1::xtcp_flat_record::{RecordMethod, RecordReason};

use crate::netns::Id;
use crate::ss;

/// One row and when the test had it.
#[derive(Clone, Debug)]
pub struct Row {
    /// When it arrived, `CLOCK_MONOTONIC` nanoseconds.
    pub arrived_ns: u64,
    /// The record.
    pub record: XtcpFlatRecord,
}

impl Row {
    /// A line of `--marshal jsonl`.
    pub fn from_json(arrived_ns: u64, line: &str) -> Self {
        let record = serde_json::from_str(line)
            .unwrap_or_else(|e| panic!("standard output has a line that is no row: {e}: {line}"));
        Self { arrived_ns, record }
    }

    /// Whether its socket belongs to this namespace.
    pub fn is_of(&self, netns: Id) -> bool {
        self.record.netns_inode == netns.inode && self.record.netns_cookie == netns.cookie
    }

    /// The socket's cookie.
    pub fn cookie(&self) -> u64 {
        self.record.inet_diag_msg_socket_cookie
    }

    /// Local address.
    pub fn local(&self) -> SocketAddr {
        let record = &self.record;
        address(
            record.inet_diag_msg_family,
            &record.inet_diag_msg_socket_source,
            record.inet_diag_msg_socket_source_port,
        )
    }

    /// Remote address.
    pub fn remote(&self) -> SocketAddr {
        let record = &self.record;
        let port = record.inet_diag_msg_socket_destination_port;
        address(record.inet_diag_msg_family, &record.inet_diag_msg_socket_destination, port)
    }

    /// What `ss` would call this socket.
    pub fn as_ss(&self) -> ss::Socket {
        ss::Socket { state: self.record.inet_diag_msg_state, local: self.local(), remote: self.remote() }
    }

    /// Whether it belongs to a poll, and to which.
    pub fn poll(&self) -> Option<u64> {
        (self.record.poll_number > 0).then_some(self.record.poll_number)
    }

    /// Whether it was obtained by an exact lookup.
    pub fn is_lookup(&self) -> bool {
        matches!(self.record.record_method(), RecordMethod::Lookup | RecordMethod::LookupByAddress)
    }

    /// Why the agent asked.
    pub fn reason(&self) -> RecordReason {
        self.record.record_reason()
    }
}

/// The 16 bytes of a row or event with its family and port. IPv4 has its address in the first four, the rest zero.
pub fn address(family: u32, bytes: &[u8], port: u32) -> SocketAddr {
    let bytes: [u8; 16] =
        bytes.try_into().unwrap_or_else(|_| panic!("an address has {} bytes, not 16", bytes.len()));
    let port = u16::try_from(port).unwrap_or_else(|_| panic!("{port} is no port"));
    let ip: IpAddr = match family {
        2 => {
            assert_eq!(bytes[4..], [0; 12], "bytes after an IPv4 address are zero");
            Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
        }
        10 => Ipv6Addr::from(bytes).into(),
        other => panic!("address family {other} is neither AF_INET nor AF_INET6"),
    };
    SocketAddr::new(ip, port)
}

/// How many rows of poll `poll` each cookie has.
pub fn cookies_of_poll(rows: &[Row], poll: u64) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for row in rows.iter().filter(|row| row.poll() == Some(poll)) {
        *counts.entry(row.cookie()).or_default() += 1;
    }
    counts
}
