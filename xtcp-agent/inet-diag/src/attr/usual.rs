//! The attributes that nearly every row begins with, noted without waiting for their lengths.
//!
//! In a walk, where an attribute is depends on the length of the one before: a load for each. Here the lengths are
//! guesses: while they are right the processor works on several attributes at once. What was not guessed is the walk's.

#![allow(clippy::inline_always, reason = "where the next attribute is has to stay a constant")]

use super::{CGROUP_ID, CONG, HEADER_LEN, INFO, Places, Selection};
use crate::message::Reading;
use crate::request::Protocol;

impl<'a> Places<'a> {
    /// Notes what comes in the kernel's order (`inet_sk_diag_fill`) and with its lengths; what is left for a walk.
    #[inline(always)]
    pub(crate) fn usual(&mut self, bytes: &'a [u8], reading: Reading) -> &'a [u8] {
        let Reading { protocol, selection } = reading;
        if protocol != Protocol::TCP || !selection.contains(Selection::DEFAULT) {
            return bytes;
        }
        let rest = self.until_cgroup_id(bytes);
        let rest = next::<8, 2>(rest, 22, &mut self.sockopt);
        let rest = next::<40, 36>(rest, 7, &mut self.sk_meminfo);
        // Of Linux 6.18, 6.7, 6.2, 5.4.
        let rest = next::<284, 280>(rest, INFO, &mut self.info);
        let rest = next::<252, 248>(rest, INFO, &mut self.info);
        let rest = next::<244, 240>(rest, INFO, &mut self.info);
        let rest = next::<236, 232>(rest, INFO, &mut self.info);
        // A name has to be known to be sound.
        let cong = &mut self.cong;
        if let Some(rest) = named::<12, 6>(rest, b"cubic\0", cong) {
            return rest;
        }
        let Some(rest) = named::<8, 4>(rest, b"bbr\0", cong) else { return rest };
        next::<24, 20>(rest, 16, &mut self.bbr_info)
    }

    /// The beginning of it, of any protocol.
    #[inline(always)]
    pub(crate) fn until_cgroup_id(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let rest = bytes;
        let rest = next::<8, 1>(rest, 8, &mut self.shutdown);
        let rest = next::<8, 1>(rest, 5, &mut self.tos);
        let rest = next::<8, 1>(rest, 6, &mut self.tclass);
        let rest = next::<8, 1>(rest, 11, &mut self.sk_v6only);
        let rest = next::<8, 4>(rest, 15, &mut self.mark);
        let rest = next::<8, 4>(rest, 17, &mut self.class_id);
        next::<12, 8>(rest, CGROUP_ID, &mut self.cgroup_id)
    }
}

/// Notes a congestion control's name if it is the next attribute; what comes behind it.
#[inline(always)]
fn named<'a, const WHOLE: usize, const LEN: usize>(
    bytes: &'a [u8],
    name: &[u8; LEN],
    place: &mut Option<&'a [u8]>,
) -> Option<&'a [u8]> {
    let mut found = None;
    let rest = next::<WHOLE, LEN>(bytes, CONG, &mut found);
    *place = Some(found.filter(|payload| payload == name)?);
    Some(rest)
}

/// Notes an attribute of `LEN` bytes if it is the next one; what comes behind its `WHOLE`, padding and header included.
#[inline(always)]
fn next<'a, const WHOLE: usize, const LEN: usize>(
    bytes: &'a [u8],
    number: u16,
    place: &mut Option<&'a [u8]>,
) -> &'a [u8] {
    let Some((attribute, rest)) = bytes.split_first_chunk::<WHOLE>() else { return bytes };
    let Some((header, payload)) = attribute.split_first_chunk::<HEADER_LEN>() else { return bytes };
    if u32::from_ne_bytes(*header) != header_of(HEADER_LEN + LEN, number) {
        return bytes;
    }
    *place = payload.get(..LEN);
    rest
}

/// `struct nlattr` as one number.
#[expect(clippy::cast_possible_truncation, reason = "the lengths are constants far below 65536")]
const fn header_of(len: usize, number: u16) -> u32 {
    let ([a, b], [c, d]) = ((len as u16).to_ne_bytes(), number.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}
