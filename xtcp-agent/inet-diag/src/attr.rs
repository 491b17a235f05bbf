//! The attributes of an inet_diag row: walking them, and a table of all that are known.
//!
//! Each attribute has a file of its own with its kernel history and a unit for each field; the `attributes!`
//! table says its number and its name and makes of all of them the struct [`Attributes`]. An attribute that
//! is not in the table is counted by number; one whose payload cannot be what it says is counted too; both
//! leave the others as they are. Only a length that cannot be right ends the walk, because nothing says where
//! the next attribute would begin.

use core::fmt;

use crate::bytes::{Native, align};
use crate::message::Reading;
use crate::request::Protocol;

pub mod bbr_info;
pub mod cgroup_id;
pub mod class_id;
pub mod cong;
pub mod dctcp_info;
pub mod endpoint;
pub mod info;
pub mod locals;
pub mod mark;
pub mod md5sig;
pub mod meminfo;
pub mod mptcp_info;
pub mod other_info;
pub mod peers;
pub mod protocol;
mod selection;
pub mod shutdown;
pub mod sk_bpf_storages;
pub mod sk_meminfo;
pub mod sk_v6only;
pub mod sockopt;
mod tally;
pub mod tclass;
pub mod tos;
pub mod ulp_info;
mod usual;
pub mod vegas_info;

pub use selection::{Selection, UnknownGroup};
pub use tally::Tally;

/// Bytes of an attribute's header (`struct rtattr`).
const HEADER_LEN: usize = 4;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` share the word with the number.
const NUMBER_MASK: u16 = 0x3fff;
/// `INET_DIAG_PAD`: filler before a 64-bit attribute where the machine wants it aligned. Since Linux 4.7.
const PAD: u16 = 14;
/// `INET_DIAG_INFO`: what it holds depends on the row's protocol.
const INFO: u16 = 2;

/// `INET_DIAG_CONG`.
const CONG: u16 = 4;
/// Where the table has it for MPTCP's rows and for those of other protocols than TCP: numbers that no attribute can
/// have.
const MPTCP_INFO: u16 = 0x8000 | INFO;
const OTHER_INFO: u16 = 0xc000 | INFO;
/// `INET_DIAG_ULP_INFO`, whose nested attributes are counted too.
const ULP_INFO: u16 = 19;
/// `INET_DIAG_CGROUP_ID`.
pub(crate) const CGROUP_ID: u16 = 21;

/// An attribute's payload becomes its type.
pub(crate) trait Decode<'a>: Sized {
    /// `None` when the payload cannot be what the attribute's number says.
    fn decode(payload: &'a [u8]) -> Option<Self>;

    /// Whether [`decode`](Self::decode) gives something. Said apart where finding out by decoding would cost.
    #[inline]
    fn is_sound(payload: &'a [u8]) -> bool {
        Self::decode(payload).is_some()
    }
}

/// What became of one attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stored,
    Padding,
    Unknown,
    Malformed,
}

#[inline]
fn store<'a, T: Decode<'a>>(slot: &mut Option<T>, payload: &'a [u8]) -> Outcome {
    match T::decode(payload) {
        Some(value) => {
            *slot = Some(value);
            Outcome::Stored
        }
        None => Outcome::Malformed,
    }
}

#[inline]
fn note<'a, T: Decode<'a>>(place: &mut Option<&'a [u8]>, payload: &'a [u8]) -> Outcome {
    if T::is_sound(payload) {
        *place = Some(payload);
        Outcome::Stored
    } else {
        Outcome::Malformed
    }
}

/// What becomes of the attributes of a walk.
pub(crate) trait Put<'a> {
    /// One attribute, in the row's order.
    fn put(&mut self, number: u16, payload: &'a [u8]) -> Outcome;
}

macro_rules! attributes {
    ($lifetime:lifetime: $(
        $(#[$doc:meta])*
        $number:literal $name:literal $field:ident: $type:ty;
    )*) => {
        /// Every attribute that is known, each `None` when the row does not have it.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Attributes<$lifetime> {
            $($(#[$doc])* pub $field: Option<$type>,)*
        }

        impl<$lifetime> Put<$lifetime> for Attributes<$lifetime> {
            #[inline]
            fn put(&mut self, number: u16, payload: &$lifetime [u8]) -> Outcome {
                match number {
                    $($number => store(&mut self.$field, payload),)*
                    PAD => Outcome::Padding,
                    _ => Outcome::Unknown,
                }
            }
        }

        impl Attributes<'_> {
            /// Leaves only the attributes whose number `keep` wants.
            pub fn retain(&mut self, keep: impl Fn(u16) -> bool) {
                $(if !keep($number) {
                    self.$field = None;
                })*
            }

            /// The numbers of the attributes that are there, in the table's order.
            pub fn numbers(&self) -> impl Iterator<Item = u16> {
                [$((self.$field.is_some(), $number)),*]
                    .into_iter()
                    .filter_map(|(is_there, number)| is_there.then_some(number))
            }
        }

        /// Where the payload of each attribute is that is what its number says.
        #[derive(Clone, Copy, Default)]
        pub(crate) struct Places<$lifetime> {
            $(pub(crate) $field: Option<&$lifetime [u8]>,)*
        }

        impl<$lifetime> Put<$lifetime> for Places<$lifetime> {
            #[inline]
            fn put(&mut self, number: u16, payload: &$lifetime [u8]) -> Outcome {
                match number {
                    $($number => note::<$type>(&mut self.$field, payload),)*
                    PAD => Outcome::Padding,
                    _ => Outcome::Unknown,
                }
            }
        }

        /// The kernel's name of an attribute, such as `INET_DIAG_CONG`; `None` when it is not known.
        pub const fn name(number: u16) -> Option<&'static str> {
            match number {
                $($number => Some($name),)*
                PAD => Some("INET_DIAG_PAD"),
                _ => None,
            }
        }
    };
}

attributes! { 'a:
    /// Memory use, the old way.
    1 "INET_DIAG_MEMINFO" meminfo: meminfo::MemInfo;
    /// `tcp_info`. Only of TCP's rows, and not in those of time-wait and request sockets.
    2 "INET_DIAG_INFO" info: info::TcpInfo<'a>;
    /// The same of an MPTCP connection.
    0x8002 "INET_DIAG_INFO" mptcp_info: mptcp_info::MptcpInfo<'a>;
    /// The same of other protocols.
    0xc002 "INET_DIAG_INFO" other_info: other_info::OtherInfo<'a>;
    /// What vegas (and others that imitate it) tells of itself.
    3 "INET_DIAG_VEGASINFO" vegas_info: vegas_info::VegasInfo;
    /// Name of the congestion control.
    4 "INET_DIAG_CONG" cong: cong::Cong<'a>;
    /// Type of service.
    5 "INET_DIAG_TOS" tos: tos::Tos;
    /// Traffic class, IPv6 only.
    6 "INET_DIAG_TCLASS" tclass: tclass::TClass;
    /// Memory use.
    7 "INET_DIAG_SKMEMINFO" sk_meminfo: sk_meminfo::SkMemInfo;
    /// Which directions are shut down.
    8 "INET_DIAG_SHUTDOWN" shutdown: shutdown::Shutdown;
    /// What dctcp tells of itself.
    9 "INET_DIAG_DCTCPINFO" dctcp_info: dctcp_info::DctcpInfo;
    /// Protocol number, of raw sockets.
    10 "INET_DIAG_PROTOCOL" protocol: protocol::Protocol;
    /// `IPV6_V6ONLY`, of IPv6 listeners and closed sockets.
    11 "INET_DIAG_SKV6ONLY" sk_v6only: sk_v6only::SkV6Only;
    /// SCTP's local addresses.
    12 "INET_DIAG_LOCALS" locals: locals::Locals<'a>;
    /// SCTP's peer addresses.
    13 "INET_DIAG_PEERS" peers: peers::Peers<'a>;
    /// `SO_MARK`; needs `CAP_NET_ADMIN`.
    15 "INET_DIAG_MARK" mark: mark::Mark;
    /// What bbr tells of itself.
    16 "INET_DIAG_BBRINFO" bbr_info: bbr_info::BbrInfo<'a>;
    /// Class of the `net_cls` cgroup, or the socket's priority.
    17 "INET_DIAG_CLASS_ID" class_id: class_id::ClassId;
    /// TCP MD5 keys; needs `CAP_NET_ADMIN`.
    18 "INET_DIAG_MD5SIG" md5sig: md5sig::Md5Sig<'a>;
    /// The upper-layer protocol: TLS, MPTCP.
    19 "INET_DIAG_ULP_INFO" ulp_info: ulp_info::UlpInfo<'a>;
    /// Storage that BPF programs keep with the socket.
    20 "INET_DIAG_SK_BPF_STORAGES" sk_bpf_storages: sk_bpf_storages::SkBpfStorages<'a>;
    /// Id of the cgroup (v2) of the socket.
    21 "INET_DIAG_CGROUP_ID" cgroup_id: cgroup_id::CgroupId;
    /// Socket options as bits.
    22 "INET_DIAG_SOCKOPT" sockopt: sockopt::SockOpt;
}

/// A number of a [`Tally`] in words: `22`, and of an attribute within another one the path to it, such as `19.2.7`
/// (`ULP_INFO`, `TLS`, number 7). A nested number 0 stands for a length that cannot be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path(pub u16);

impl Path {
    /// The number within its nest, 0 to 255; that of the attribute itself where it is not nested.
    pub fn last(self) -> u16 {
        ulp_info::nested_place(self.0).map_or(self.0, |(_, inner)| inner.into())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ulp_info::nested_place(self.0) {
            None => write!(formatter, "{}", self.0),
            Some((0, inner)) => write!(formatter, "{ULP_INFO}.{inner}"),
            Some((nest, inner)) => write!(formatter, "{ULP_INFO}.{nest}.{inner}"),
        }
    }
}

/// An attribute's length cannot be right: the walk ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttributeError {
    /// Where the attribute begins, in bytes from the first one.
    pub offset: usize,
    /// Bytes that its header, or the length in it, says.
    pub wanted: usize,
    /// Bytes that are there; where the length is below a header's, that length.
    pub available: usize,
}

impl fmt::Display for AttributeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, wanted, available } = self;
        write!(formatter, "damaged attribute length at byte {offset}: wanted {wanted} bytes, got {available}")
    }
}

impl core::error::Error for AttributeError {}

/// The attributes in some bytes, as number and payload. Ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct Walk<'a> {
    rest: &'a [u8],
    /// Bytes that there were.
    len: usize,
}

impl<'a> Walk<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, len: bytes.len() }
    }

    /// Only what is left of the bytes when the first ones were seen.
    pub(crate) const fn behind(self, rest: &'a [u8]) -> Self {
        Self { rest, len: self.len }
    }

    /// Why there is no attribute in what is left.
    #[cold]
    fn broken(&self) -> AttributeError {
        let available = self.rest.len();
        let offset = self.len.saturating_sub(available);
        match u16::at(self.rest, 0).map(usize::from).filter(|_| available >= HEADER_LEN) {
            Some(len) if len < HEADER_LEN => AttributeError { offset, wanted: HEADER_LEN, available: len },
            Some(len) => AttributeError { offset, wanted: len, available },
            None => AttributeError { offset, wanted: HEADER_LEN, available },
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<(u16, &'a [u8]), AttributeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        // Where the next one is depends on this one's length: nothing else should stand in between.
        let found = self.rest.split_first_chunk::<HEADER_LEN>().and_then(|(&[a, b, c, d], after)| {
            let len = usize::from(u16::from_ne_bytes([a, b]));
            let payload = after.get(..len.checked_sub(HEADER_LEN)?)?;
            Some((len, u16::from_ne_bytes([c, d]), payload))
        });
        if let Some((len, kind, payload)) = found {
            self.rest = self.rest.get(align(len)..).unwrap_or_default();
            Some(Ok((kind & NUMBER_MASK, payload)))
        } else {
            let error = self.broken();
            self.rest = &[];
            Some(Err(error))
        }
    }
}

/// The number under which the table has an attribute of a row of this protocol.
#[inline]
const fn place(number: u16, protocol: Protocol) -> u16 {
    match (number, protocol) {
        (INFO, Protocol::TCP) => INFO,
        (INFO, Protocol::MPTCP) => MPTCP_INFO,
        (INFO, _) => OTHER_INFO,
        _ => number,
    }
}

/// Puts the attributes that are selected into place; where a damaged length ended the walk goes to `damage`. Of an
/// attribute that comes twice the last is kept, as the kernel's own parser does.
#[inline]
pub(crate) fn walk<'a>(
    walk: Walk<'a>,
    reading: Reading,
    attributes: &mut impl Put<'a>,
    unknown: &mut Tally,
    malformed: &mut Tally,
    damage: &mut Option<AttributeError>,
) {
    let Reading { protocol, selection } = reading;
    for item in walk {
        match item {
            Ok((number, _)) if !selection.takes(number) => {}
            Ok((number, payload)) => match attributes.put(place(number, protocol), payload) {
                Outcome::Stored if number == ULP_INFO => ulp_info::count(payload, unknown, malformed),
                Outcome::Stored | Outcome::Padding => {}
                Outcome::Unknown => unknown.add(number),
                Outcome::Malformed => malformed.add(number),
            },
            Err(error) => *damage = Some(error),
        }
    }
}

/// Implements [`Decode`] for a tuple struct of one integer.
macro_rules! decode_integer {
    ($type:ident($integer:ty)) => {
        impl super::Decode<'_> for $type {
            fn decode(payload: &[u8]) -> Option<Self> {
                <$integer as crate::bytes::Native>::at(payload, 0).map(Self)
            }
        }
    };
}
use decode_integer;

#[cfg(test)]
#[path = "attr/tests.rs"]
mod tests;
