//! A row straight to the bytes of one `XtcpFlatRecord`, with no struct in between.
//!
//! Owns which field of `xtcp_flat_record.proto` gets which of the kernel's numbers ([`fields`]), and their encoding
//! ([`writer`]). The bytes are those that prost gives for the record of the decoded row ([`crate::message::decode`]):
//! fields ascend, what is 0 or empty is left out. Attributes come in the kernel's order: one walk notes where each is,
//! then all fields are written in theirs.
//!
//! What the kernel does not say (host, namespace, reason, …) comes encoded, in runs between which the row's own fields
//! go: see [`Context`].

use core::fmt;

use crate::attr::info::AccEcnLayout;
use crate::attr::{self, AttributeError, CGROUP_ID, Places, Selection, Tally, Walk};
use crate::bytes::{Native, port_at};
use crate::message::{MessageError, ROW_LEN, Reading};
use crate::request::Protocol;

mod fields;
mod layers;
mod writer;

use writer::{Bits, NUMBERS_ROOM, Writer};

/// What a record says beside the row. The runs are whole protobuf fields in ascending order.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Fields 1 to 59.
    pub before: &'a [u8],
    /// Field 60, `record_counter`.
    pub counter: u64,
    /// Fields 61 to 1000.
    pub between: &'a [u8],
    /// Fields 3000 to 3099.
    pub after: &'a [u8],
    /// How the kernel that sent the row packs the last word of `tcp_info`.
    pub accecn: AccEcnLayout,
}

/// A row that is whole enough to be written: what decisions need of its header is read when it is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    header: &'a [u8; ROW_LEN],
    attributes: &'a [u8],
    reading: Reading,
    destination_asn: u32,
}

/// Attributes that could not be used; the same as in [`crate::message::Decoded`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Findings {
    /// Attributes whose number is not known, by number.
    pub unknown: Tally,
    /// Attributes whose payload cannot be what their number says, by number.
    pub malformed: Tally,
    /// The attribute at which the walk ended because of its length; those after it were not seen.
    pub damage: Option<AttributeError>,
}

impl Findings {
    /// There is nothing wrong.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.unknown.is_empty() && self.malformed.is_empty() && self.damage.is_none()
    }
}

/// The room given is too small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom {
    /// Bytes that [`Row::room`] asks for.
    pub wanted: usize,
    /// Bytes given.
    pub available: usize,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, available } = self;
        write!(formatter, "no room for a record: wanted {wanted} bytes, got {available}; see Row::room")
    }
}

impl core::error::Error for NoRoom {}

impl<'a> Row<'a> {
    /// The payload of a [`crate::framing::Body::Data`] message of type 18 or 20 that answers a request for TCP.
    #[inline]
    pub fn new(payload: &'a [u8]) -> Result<Self, MessageError> {
        Self::new_as(payload, Reading::TCP)
    }

    /// The payload of a message that answers a request for any protocol. What is not selected will not be written.
    #[inline]
    pub fn new_as(payload: &'a [u8], reading: Reading) -> Result<Self, MessageError> {
        match payload.split_first_chunk() {
            Some((header, attributes)) => Ok(Self { header, attributes, reading, destination_asn: 0 }),
            None => Err(MessageError::Truncated { available: payload.len() }),
        }
    }

    /// The same with another header, such as one whose addresses are masked.
    #[inline]
    #[must_use]
    pub fn with_header(self, header: &'a [u8; ROW_LEN]) -> Self {
        Self { header, ..self }
    }

    /// The same, of which what is in `selection` will not be written.
    #[inline]
    #[must_use]
    pub fn except(self, selection: Selection) -> Self {
        let selection = self.reading.selection.without(selection);
        Self { reading: Reading { selection, ..self.reading }, ..self }
    }

    /// The same with the number of the autonomous system that the peer's address belongs to; 0, which the kernel's own
    /// rows have, is left out.
    #[inline]
    #[must_use]
    pub fn with_destination_asn(self, asn: u32) -> Self {
        Self { destination_asn: asn, ..self }
    }

    /// `struct inet_diag_msg` as the kernel sent it.
    #[inline]
    pub fn header(&self) -> &'a [u8; ROW_LEN] {
        self.header
    }

    /// Protocol that was asked for.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.reading.protocol
    }

    /// The user that the socket belongs to, in the user namespace of who asked.
    #[inline]
    pub fn uid(&self) -> u32 {
        u32::at(self.header, 64).unwrap_or_default()
    }

    /// TCP state, the kernel's number.
    #[inline]
    pub fn state(&self) -> u8 {
        u8::at(self.header, 1).unwrap_or_default()
    }

    /// Local port, host order.
    #[inline]
    pub fn source_port(&self) -> u16 {
        port_at(self.header, 4).unwrap_or_default()
    }

    /// Peer's port, host order; 0 in LISTEN.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        port_at(self.header, 6).unwrap_or_default()
    }

    /// The socket's cookie, never reused within a boot.
    #[inline]
    pub fn cookie(&self) -> u64 {
        let half = |at| u64::from(u32::at(self.header, at).unwrap_or_default());
        half(48) << 32 | half(44)
    }

    /// Inode of the socket's file; 0 when it has none.
    #[inline]
    pub fn inode(&self) -> u32 {
        u32::at(self.header, 68).unwrap_or_default()
    }

    /// Id of the socket's cgroup, version 2 (5.8, `INET_DIAG_CGROUP_ID`); 0 where the kernel does not tell it.
    #[inline]
    pub fn cgroup_id(&self) -> u64 {
        let mut places = Places::default();
        let rest = places.until_cgroup_id(self.attributes);
        let mut walk = Walk::new(rest).map_while(Result::ok);
        let payload = places
            .cgroup_id
            .or_else(|| walk.find_map(|(number, payload)| (number == CGROUP_ID).then_some(payload)));
        payload.and_then(|payload| u64::at(payload, 0)).unwrap_or(0)
    }

    /// What [`write`](Self::write) would find wrong with the attributes.
    pub fn findings(&self) -> Findings {
        let mut findings = Findings::default();
        self.walk(&mut Places::default(), &mut findings);
        findings
    }

    #[inline]
    fn walk(&self, places: &mut Places<'a>, findings: &mut Findings) {
        let Findings { unknown, malformed, damage } = findings;
        let rest = places.usual(self.attributes, self.reading);
        if !rest.is_empty() {
            let walk = Walk::new(self.attributes).behind(rest);
            attr::walk(walk, self.reading, places, unknown, malformed, damage);
        }
    }

    /// Bytes of room that [`write`](Self::write) asks for: more than the record will have.
    #[inline]
    pub fn room(&self, context: &Context<'_>) -> usize {
        let Context { before, counter: _, between, after, accecn: _ } = context;
        [before.len(), between.len(), after.len(), self.attributes.len()]
            .into_iter()
            .fold(2 * NUMBERS_ROOM, usize::saturating_add)
    }

    /// Writes the record to the beginning of `out`, and what is wrong with the attributes to `findings`, which has to be
    /// empty; the record's length. What `out` holds after the record is undefined.
    #[inline]
    pub fn write(
        &self,
        context: &Context<'_>,
        out: &mut [u8],
        findings: &mut Findings,
    ) -> Result<usize, NoRoom> {
        self.write_with(context, out, findings, writer::join)
    }

    /// The same as [`write`](Self::write), and faster: with instructions that not every processor has. AMD's before
    /// Zen 3 have `pdep`, but as a slow microprogram.
    ///
    /// # Safety
    ///
    /// The processor has BMI2 and LZCNT.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "bmi2,lzcnt")]
    pub fn write_bmi2(
        &self,
        context: &Context<'_>,
        out: &mut [u8],
        findings: &mut Findings,
    ) -> Result<usize, NoRoom> {
        self.write_with(context, out, findings, |key, value| writer::join_bmi2(key, value))
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each way of writing needs its own instructions throughout")]
    fn write_with(
        &self,
        context: &Context<'_>,
        out: &mut [u8],
        findings: &mut Findings,
        bits: impl Bits,
    ) -> Result<usize, NoRoom> {
        let wanted = self.room(context);
        if out.len() < wanted {
            return Err(NoRoom { wanted, available: out.len() });
        }
        let mut places = Places::default();
        self.walk(&mut places, findings);
        let mut writer = Writer::new(out, bits);
        fields::write(&mut writer, self, &places, context);
        Ok(writer.len())
    }
}
