//! The truth beside a capture, as `xtcp-scenarios` writes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;
use xtcp_inet_diag::message::{Decoded, decode};

use super::fixtures::{Capture, Row, captures};

/// One capture with its truth taken apart.
pub(crate) struct Scene {
    /// Its bytes.
    pub(crate) capture: &'static Capture,
    /// The sockets that the program held.
    pub(crate) sockets: Vec<Socket>,
    /// The sockets that had no file.
    pub(crate) orphans: Vec<Orphan>,
    /// What else is known.
    pub(crate) facts: Value,
    /// From the beginning of the dumps to the end of `ss`, ms, rounded up.
    pub(crate) span_ms: u64,
    /// Milliseconds of a jiffy.
    pub(crate) jiffy_ms: u64,
    /// The kernel's version, major and minor.
    pub(crate) version: (u32, u32),
}

/// A socket that the program held.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) role: String,
    pub(crate) protocol: u64,
    pub(crate) inode: u64,
    pub(crate) uid: u64,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) before: BTreeMap<String, Vec<u8>>,
    pub(crate) after: BTreeMap<String, Vec<u8>>,
    pub(crate) options: BTreeMap<String, Vec<u8>>,
}

/// A socket without a file.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) state: u8,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// A decoded row of TCP.
#[derive(Debug)]
pub(crate) struct TcpRow {
    /// Where it is from.
    pub(crate) row: Row,
    /// What it says.
    pub(crate) decoded: Decoded<'static>,
}

impl Socket {
    pub(crate) fn cookie(&self) -> u64 {
        u64::from_ne_bytes(self.options["SO_COOKIE"].clone().try_into().unwrap())
    }

    /// An option of at most 32 bits.
    pub(crate) fn option(&self, name: &str) -> Option<u32> {
        let bytes = self.options.get(name)?;
        bytes.first_chunk().map(|word| u32::from_ne_bytes(*word)).or(bytes.first().copied().map(u32::from))
    }

    /// TCP state at both reads.
    pub(crate) fn states(&self) -> Option<(u8, u8)> {
        Some((*self.before.get("TCP_INFO")?.first()?, *self.after.get("TCP_INFO")?.first()?))
    }
}

impl Scene {
    /// The TCP rows of the whole conversation.
    pub(crate) fn tcp_rows(&self) -> Vec<TcpRow> {
        let rows = self.capture.rows().into_iter().filter(Row::is_tcp);
        rows.map(|row| TcpRow { row, decoded: decode(row.payload).unwrap() }).collect()
    }

    /// The rows of the first dump, of every TCP socket of both families.
    pub(crate) fn first_dump(&self) -> Vec<TcpRow> {
        let rows = self.tcp_rows();
        let first = rows.first().map(|row| row.row.request);
        rows.into_iter().filter(|row| Some(row.row.request) == first).collect()
    }

    /// The held socket that a row shows.
    pub(crate) fn socket_of(&self, decoded: &Decoded<'_>) -> Option<&Socket> {
        self.sockets.iter().find(|socket| socket.cookie() == decoded.header.id.cookie)
    }
}

/// Every scene of every kernel.
pub(crate) fn scenes() -> Vec<Scene> {
    captures().iter().map(scene).collect()
}

fn scene(capture: &'static Capture) -> Scene {
    let truth: Value =
        serde_json::from_str(&capture.truth).unwrap_or_else(|e| panic!("{}: {e}", capture.name()));
    let list = |name: &str| truth[name].as_array().unwrap().clone();
    let ns = |which: &str, end: usize| truth["ns"][which][end].as_u64().unwrap();
    let hz = capture.manifest()["hz"].as_u64().unwrap();
    assert_eq!(truth["quiet"], true, "{}: no quiet moment was found", capture.name());
    Scene {
        capture,
        sockets: list("sockets").iter().map(socket).collect(),
        orphans: list("orphans").iter().map(orphan).collect(),
        facts: truth["facts"].clone(),
        span_ms: (ns("ss", 1) - ns("asked", 0)).div_ceil(1_000_000),
        jiffy_ms: 1000_u64.div_ceil(hz),
        version: capture.version(),
    }
}

fn socket(value: &Value) -> Socket {
    let number = |name: &str| value[name].as_u64().unwrap();
    let address = |name: &str| value[name].as_str().map(|text| text.parse().unwrap());
    let bytes = |name: &str| -> BTreeMap<_, _> {
        value[name].as_object().unwrap().iter().map(|(key, hex)| (key.clone(), unhex(hex))).collect()
    };
    let before = bytes("before");
    let mut after = before.clone();
    for (key, changes) in value["after"].as_object().unwrap() {
        let target = after.entry(key.clone()).or_default();
        for change in changes.as_array().unwrap() {
            let (at, word) = (usize::try_from(change[0].as_u64().unwrap()).unwrap(), unhex(&change[1]));
            target.resize(target.len().max(at + word.len()), 0);
            target[at..at + word.len()].copy_from_slice(&word);
        }
    }
    Socket {
        role: value["role"].as_str().unwrap().to_owned(),
        protocol: number("protocol"),
        inode: number("inode"),
        uid: number("uid"),
        local: address("local"),
        remote: address("remote"),
        before,
        after,
        options: bytes("options"),
    }
}

fn orphan(value: &Value) -> Orphan {
    let address = |name: &str| value[name].as_str().unwrap().parse().unwrap();
    Orphan {
        state: u8::try_from(value["state"].as_u64().unwrap()).unwrap(),
        local: address("local"),
        remote: address("remote"),
    }
}

/// Two digits a byte; `(n)` stands for n bytes of zero.
fn unhex(text: &Value) -> Vec<u8> {
    let mut rest = text.as_str().unwrap();
    let mut bytes = Vec::new();
    while !rest.is_empty() {
        if let Some(run) = rest.strip_prefix('(') {
            let (count, after) = run.split_once(')').unwrap();
            bytes.resize(bytes.len() + count.parse::<usize>().unwrap(), 0);
            rest = after;
        } else {
            bytes.push(u8::from_str_radix(&rest[..2], 16).unwrap());
            rest = &rest[2..];
        }
    }
    bytes
}
