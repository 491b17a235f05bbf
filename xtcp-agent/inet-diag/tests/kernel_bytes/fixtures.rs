//! The captures under `fixtures/inet_diag`: every kernel's, every scenario's, as `cargo xtask capture` wrote them.
//!
//! Each is a netlink conversation in a pcap file of link type NETLINK; beside it, under the same name, stand what the
//! sockets said of themselves (`.json`) and the text of `ss` (`.ss`).

#![allow(dead_code, reason = "several test programs share it, and none uses all of it")]
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a fixture that is not as it should be fails the test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use xtcp_inet_diag::framing::{Body, Messages, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK};
use xtcp_inet_diag::message::{ROW_LEN, Reading};
use xtcp_inet_diag::request::Protocol;

/// `NETLINK_SOCK_DIAG`.
pub(crate) const SOCK_DIAG: u16 = 4;

/// Every how manyth place is damaged: all of them, but under miri, a thousand times slower, some.
pub(crate) const STEP: usize = if cfg!(miri) { 101 } else { 1 };

/// One netlink datagram.
#[derive(Debug)]
pub(crate) struct Packet {
    /// It went to the kernel.
    pub(crate) request: bool,
    /// Netlink protocol.
    pub(crate) protocol: u16,
    /// Netlink messages, host byte order.
    pub(crate) datagram: Vec<u8>,
}

/// One scenario on one kernel.
#[derive(Debug)]
pub(crate) struct Capture {
    /// Such as `linux-6.18`.
    pub(crate) kernel: String,
    /// Such as `established`.
    pub(crate) scenario: String,
    /// The conversation, in order.
    pub(crate) packets: Vec<Packet>,
    /// The truth, JSON.
    pub(crate) truth: String,
    /// What `ss` wrote, where it was there.
    pub(crate) ss: Option<String>,
}

/// A row, and where it is from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// The scenario.
    pub(crate) capture: &'static Capture,
    /// The request that it answers.
    pub(crate) request: &'static [u8],
    /// `struct inet_diag_msg` and attributes.
    pub(crate) payload: &'static [u8],
}

impl Row {
    /// It answers a request for TCP: not for UDP, nor for MPTCP by an attribute of the request.
    pub(crate) fn is_tcp(&self) -> bool {
        let old = self.request[4..6] == TCPDIAG_GETSOCK.to_ne_bytes();
        // Behind the header: family, protocol. A request without attributes has 72 bytes.
        old || self.request[17] == 6 && self.request.len() == 72
    }

    /// How it is to be read: by the protocol that was asked for.
    pub(crate) fn reading(&self) -> Reading {
        let protocol = match self.request[17] {
            _ if self.is_tcp() => Protocol::TCP,
            17 => Protocol::UDP,
            _ => Protocol::MPTCP,
        };
        Reading { protocol, ..Reading::TCP }
    }

    /// Family, state, and number and length of each attribute.
    pub(crate) fn shape(&self) -> (u8, u8, Vec<[u8; 4]>) {
        let mut attributes = Vec::new();
        let mut rest = self.payload.get(ROW_LEN..).unwrap_or_default();
        while let Some(header) = rest.first_chunk::<4>() {
            attributes.push(*header);
            let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        (self.payload[0], self.payload[1], attributes)
    }
}

impl Capture {
    /// `kernel/scenario`, for messages.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.kernel, self.scenario)
    }

    /// Major and minor version of its kernel.
    pub(crate) fn version(&self) -> (u32, u32) {
        let version = self.kernel.strip_prefix("linux-").and_then(|text| text.split_once('.'));
        let (major, minor) = version.unwrap_or_else(|| panic!("{} names no version", self.kernel));
        let number = |text: &str| text.parse().unwrap_or_else(|e| panic!("{}: {e}", self.kernel));
        (number(major), number(minor))
    }

    /// What is known of its kernel.
    pub(crate) fn manifest(&self) -> serde_json::Value {
        let file = root().join(&self.kernel).join("manifest.json");
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    }

    /// The answers that inet_diag gave, in order.
    pub(crate) fn answers(&self) -> impl Iterator<Item = &[u8]> {
        let ours = |packet: &&Packet| !packet.request && packet.protocol == SOCK_DIAG;
        self.packets.iter().filter(ours).map(|packet| packet.datagram.as_slice())
    }

    /// The requests with the datagrams that answer each: it asks one thing at a time.
    pub(crate) fn exchanges(&self) -> Vec<(&Packet, Vec<&[u8]>)> {
        let mut exchanges: Vec<(&Packet, Vec<&[u8]>)> = Vec::new();
        for packet in &self.packets {
            if packet.request {
                exchanges.push((packet, Vec::new()));
            } else {
                let (_, answers) = exchanges.last_mut().expect("a request comes before its answers");
                answers.push(&packet.datagram);
            }
        }
        exchanges
    }

    /// All rows of inet_diag, in order.
    pub(crate) fn rows(&'static self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (request, answers) in self.exchanges().into_iter().filter(|(one, _)| one.protocol == SOCK_DIAG) {
            for payload in payloads(&answers) {
                rows.push(Row { capture: self, request: &request.datagram, payload });
            }
        }
        rows
    }
}

/// The rows' payloads in some datagrams.
pub(crate) fn payloads<'a>(datagrams: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let messages = datagrams.iter().flat_map(|datagram| Messages::new(datagram));
    messages
        .map(|message| message.expect("captured datagrams are whole"))
        .filter(|message| matches!(message.header.kind, SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK))
        .filter_map(|message| match message.body {
            Body::Data { payload } => Some(payload),
            _ => None,
        })
        .collect()
}

/// Every capture of every kernel, by kernel and scenario.
pub(crate) fn captures() -> &'static [Capture] {
    static CAPTURES: OnceLock<Vec<Capture>> = OnceLock::new();
    CAPTURES.get_or_init(|| {
        let mut captures = Vec::new();
        for kernel in sorted(&root()).into_iter().filter(|path| path.is_dir()) {
            for file in sorted(&kernel).into_iter().filter(|path| path.extension() == Some("pcap".as_ref())) {
                captures.push(load(&kernel, &file));
            }
        }
        assert!(!captures.is_empty(), "there is no capture in {}", root().display());
        captures
    })
}

/// Every datagram with which inet_diag answered, of every kernel.
pub(crate) fn every_datagram() -> impl Iterator<Item = &'static [u8]> {
    captures().iter().flat_map(Capture::answers)
}

/// All rows of all captures, of every protocol, and where each is from.
pub(crate) fn every_row() -> Vec<Row> {
    captures().iter().flat_map(Capture::rows).collect()
}

/// One datagram of each shape, without the largest: for tests whose time grows with the square of a datagram.
pub(crate) fn all() -> impl Iterator<Item = &'static [u8]> {
    let mut seen = BTreeSet::new();
    let shape = |datagram: &[u8]| -> Vec<_> {
        let messages = Messages::new(datagram).filter_map(Result::ok);
        messages.map(|message| (message.header.kind, message.header.len)).collect()
    };
    every_datagram().filter(|datagram| datagram.len() < 8192).filter(move |one| seen.insert(shape(one)))
}

/// One TCP row of each shape: family, state, and the numbers and lengths of its attributes.
pub(crate) fn all_rows() -> Vec<&'static [u8]> {
    let mut seen = BTreeSet::new();
    let rows = every_row().into_iter().filter(Row::is_tcp);
    rows.filter(|row| seen.insert(row.shape())).map(|row| row.payload).collect()
}

/// Where the captures are.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = here.ancestors().find(|dir| dir.join("fixtures/inet_diag").is_dir());
    workspace.expect("the package is in the workspace").join("fixtures/inet_diag")
}

fn load(kernel: &Path, file: &Path) -> Capture {
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let text = |suffix| fs::read_to_string(file.with_extension(suffix));
    Capture {
        kernel: kernel.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        scenario: name(file),
        packets: pcap(&fs::read(file).expect("captures can be read")),
        truth: text("json").unwrap_or_else(|e| panic!("the truth of {}: {e}", file.display())),
        ss: text("ss").ok(),
    }
}

fn sorted(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a folder can be read").path()).collect();
    paths.sort();
    paths
}

/// A little-endian pcap file of link type 253, as the captures are.
fn pcap(bytes: &[u8]) -> Vec<Packet> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((word(0), word(20)), (0xa1b2_3c4d, 253), "a pcap file of link type NETLINK");
    let mut packets = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let len = word(at + 8) as usize;
        let (cooked, datagram) = bytes[at + 16..at + 16 + len].split_at(16);
        packets.push(Packet {
            request: cooked[1] == 4,
            protocol: u16::from_be_bytes([cooked[14], cooked[15]]),
            datagram: datagram.to_vec(),
        });
        at += 16 + len;
    }
    packets
}
