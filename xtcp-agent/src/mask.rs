//! Addresses of peers that may not leave the host: cut to a prefix, or replaced by a keyed hash.
//!
//! Owns what becomes of an address. Rows and change events pass here when they are made, before anything is sent,
//! printed or kept. Everything that decides (filters, lookups, the AS number) sees the addresses as they are.

use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use siphasher::sip128::{Hasher128, SipHasher24};
use thiserror::Error;
use xtcp_inet_diag::attr::Selection;
use xtcp_inet_diag::message::ROW_LEN;
use xtcp_inet_diag::request::Protocol;
use xtcp_inet_diag::wire::Row;
use xtcp_proto::event::v1::{Socket, event::Event as Kind};

const AF_INET: u8 = 2;
/// Where `struct inet_diag_msg` has the two addresses.
const SOURCE: usize = 8;
const DESTINATION: usize = 24;
/// IPv6 networks whose addresses hold an IPv4 address, and the bit where it begins: 6to4, NAT64, Teredo's server, and
/// the deprecated IPv4-compatible ones.
const EMBEDDING: [(u128, u8, u8); 4] =
    [(0x2002 << 112, 16, 16), (0x0064_ff9b << 96, 96, 96), (0x2001 << 112, 32, 32), (0, 96, 96)];
/// `::ffff:0:0/96`, an IPv4 connection of an IPv6 socket.
const MAPPED: u128 = 0xffff << 32;

/// `--mask-addresses` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// So many bits of an address stay, the others are 0.
    Prefixes {
        /// Of IPv4, 0 to 32.
        v4: u8,
        /// Of IPv6, 0 to 128.
        v6: u8,
    },
    /// Keyed with what this file holds.
    Hash(PathBuf),
}

const ACCEPTED: &str = "accepted: v4=BITS,v6=BITS such as v4=24,v6=48, or hash:KEYFILE";

impl FromStr for Choice {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let word = word.trim();
        if let Some(path) = word.strip_prefix("hash:") {
            return match path {
                "" => Err(format!("no key file; {ACCEPTED}")),
                path => Ok(Self::Hash(path.into())),
            };
        }
        let (mut v4, mut v6) = (None, None);
        for part in word.split(',') {
            let (bits, most) = match part.trim().split_once('=') {
                Some(("v4", bits)) if v4.is_none() => (bits, 32),
                Some(("v6", bits)) if v6.is_none() => (bits, 128),
                _ => return Err(format!("neither both prefix lengths nor a key file; {ACCEPTED}")),
            };
            let bits = bits.trim().parse().ok().filter(|bits: &u8| *bits <= most);
            let bits = bits.ok_or_else(|| format!("{part}: no number of bits in 0 to {most}; {ACCEPTED}"))?;
            *(if most == 32 { &mut v4 } else { &mut v6 }) = Some(bits);
        }
        match (v4, v6) {
            (Some(v4), Some(v6)) => Ok(Self::Prefixes { v4, v6 }),
            _ => Err(format!("neither both prefix lengths nor a key file; {ACCEPTED}")),
        }
    }
}

/// Why there is no key.
#[derive(Debug, Error)]
pub enum MaskError {
    /// The file cannot be read.
    #[error("--mask-addresses: {path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Its errno.
        source: io::Error,
    },
    /// It does not hold a key.
    #[error(
        "--mask-addresses: {path}: holds no key: wanted 32 hexadecimal digits (`openssl rand -hex 16`) or 16 bytes, got \
         {length} bytes"
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// Its length, bytes.
        length: usize,
    },
}

/// What becomes of addresses.
#[derive(Clone)]
pub struct Mask(Method);

#[derive(Clone)]
enum Method {
    Prefixes { v4: u8, v6: u8 },
    Hash(SipHasher24),
}

/// Without the key.
impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Method::Prefixes { v4, v6 } => write!(f, "Mask(v4={v4},v6={v6})"),
            Method::Hash(_) => f.write_str("Mask(hash)"),
        }
    }
}

impl Mask {
    /// Reads the key where one is wanted.
    pub fn new(choice: &Choice) -> Result<Self, MaskError> {
        Ok(Self(match choice {
            Choice::Prefixes { v4, v6 } => Method::Prefixes { v4: *v4, v6: *v6 },
            Choice::Hash(path) => Method::Hash(SipHasher24::new_with_key(&key(path)?)),
        }))
    }

    /// What becomes of an address in sixteen bytes, IPv4 in the first four.
    #[must_use]
    pub fn address(&self, is_v4: bool, address: [u8; 16]) -> [u8; 16] {
        if is_v4 {
            let [a, b, c, d, ..] = address;
            let [a, b, c, d] = self.v4(Ipv4Addr::new(a, b, c, d)).octets();
            return [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        }
        self.v6(u128::from_be_bytes(address)).to_be_bytes()
    }

    fn v4(&self, address: Ipv4Addr) -> Ipv4Addr {
        if address.is_unspecified() {
            return address;
        }
        let bits = address.to_bits();
        Ipv4Addr::from_bits(match &self.0 {
            Method::Prefixes { v4, .. } => bits & !u32::MAX.checked_shr((*v4).into()).unwrap_or(0),
            // Never that of nobody.
            Method::Hash(hasher) => low(hash(hasher, &bits.to_be_bytes())).max(1),
        })
    }

    fn v6(&self, bits: u128) -> u128 {
        if bits == 0 {
            return bits;
        }
        if bits & !u128::from(u32::MAX) == MAPPED {
            let inner = Ipv4Addr::from_bits(low(bits));
            return MAPPED | u128::from(self.v4(inner).to_bits());
        }
        match &self.0 {
            Method::Prefixes { v4, v6 } => {
                let holds = |network: u128, length: u8| (bits ^ network) >> (128 - length) == 0;
                let keep = EMBEDDING
                    .iter()
                    .filter(|(network, length, _)| holds(*network, *length))
                    .fold(*v6, |keep, (_, _, at)| keep.min(at + v4));
                bits & !u128::MAX.checked_shr(keep.into()).unwrap_or(0)
            }
            Method::Hash(hasher) => hash(hasher, &bits.to_be_bytes()).max(1),
        }
    }

    /// The header of a row with masked addresses.
    pub fn header(&self, header: &[u8; ROW_LEN]) -> [u8; ROW_LEN] {
        let mut masked = *header;
        let is_v4 = masked.first() == Some(&AF_INET);
        for at in [SOURCE, DESTINATION] {
            if let Some(address) = masked.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<16>()) {
                *address = self.address(is_v4, *address);
            }
        }
        masked
    }

    /// What of a row cannot be masked and is left out: other places where addresses are.
    pub fn left_out(row: &Row<'_>) -> Selection {
        // The length of MD5 keys' list alone says nothing.
        let peers = Selection::MD5SIG_WITH_PEERS.without(Selection::MD5SIG);
        let elsewhere = peers.union(Selection::SCTP_ADDRESSES).union(Selection::SK_BPF_STORAGES);
        match row.protocol() {
            Protocol::TCP | Protocol::MPTCP => elsewhere,
            // `struct sctp_info` has the peer's primary address.
            _ => elsewhere.union(Selection::INFO),
        }
    }

    /// Masks what a change event says of its socket.
    pub fn event(&self, event: &mut Kind) {
        match event {
            Kind::TcpState(changed) => self.socket(changed.socket.as_mut()),
            Kind::TcpClose(closed) => self.socket(closed.socket.as_mut()),
            Kind::NetnsCounters(counters) => {
                for listener in &mut counters.listeners {
                    self.listener(&mut listener.address);
                }
            }
            Kind::NetnsCreated(_) | Kind::NetnsDestroyed(_) | Kind::Loss(_) => {}
        }
    }

    /// Masks an address of 4 or 16 bytes; one of another length is none.
    fn listener(&self, address: &mut Vec<u8>) {
        let mut whole = [0; 16];
        let Some(start) = whole.get_mut(..address.len()).filter(|start| matches!(start.len(), 4 | 16)) else {
            address.clear();
            return;
        };
        start.copy_from_slice(address);
        let length = address.len();
        let masked = self.address(length == 4, whole);
        address.clear();
        address.extend(masked.iter().take(length));
    }

    fn socket(&self, socket: Option<&mut Socket>) {
        let Some(socket) = socket else { return };
        let is_v4 = socket.family == u32::from(AF_INET);
        for address in [&mut socket.source, &mut socket.destination] {
            *address = match <[u8; 16]>::try_from(address.as_slice()) {
                Ok(whole) => self.address(is_v4, whole).to_vec(),
                Err(_) => Vec::new(),
            };
        }
    }
}

/// The last 32 bits.
fn low(bits: u128) -> u32 {
    let [.., a, b, c, d] = bits.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn hash(hasher: &SipHasher24, bytes: &[u8]) -> u128 {
    use std::hash::Hasher as _;
    let mut hasher = *hasher;
    hasher.write(bytes);
    hasher.finish128().as_u128()
}

fn key(path: &Path) -> Result<[u8; 16], MaskError> {
    let bytes = fs::read(path).map_err(|source| MaskError::Read { path: path.to_owned(), source })?;
    if let Ok(key) = <[u8; 16]>::try_from(bytes.as_slice()) {
        return Ok(key);
    }
    let wrong = || MaskError::Key { path: path.to_owned(), length: bytes.len() };
    let text = str::from_utf8(&bytes).map_err(|_| wrong())?.trim();
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    Ok(u128::from_str_radix(text, 16).map_err(|_| wrong())?.to_be_bytes())
}

#[cfg(test)]
mod tests;
