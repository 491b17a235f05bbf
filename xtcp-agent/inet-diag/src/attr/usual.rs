//! The attributes that nearly every row begins with, noted without waiting for their lengths.
//!
//! In a walk, where an attribute is depends on the length of the one before: a load for each. Here the lengths are
//! guesses: while they are right the processor works on several attributes at once. What was not guessed is the walk's.

#![allow(clippy::inline_always, reason = "where the next attribute is has to stay a constant")]

use super::{HEADER_LEN, INFO, Places, Selection};
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
        let rest = bytes;
        let rest = next::<8, 1>(rest, 8, &mut self.shutdown);
        let rest = next::<8, 1>(rest, 5, &mut self.tos);
        let rest = next::<8, 1>(rest, 6, &mut self.tclass);
        let rest = next::<8, 1>(rest, 11, &mut self.sk_v6only);
        let rest = next::<8, 4>(rest, 15, &mut self.mark);
        let rest = next::<8, 4>(rest, 17, &mut self.class_id);
        let rest = next::<12, 8>(rest, 21, &mut self.cgroup_id);
        let rest = next::<8, 2>(rest, 22, &mut self.sockopt);
        let rest = next::<40, 36>(rest, 7, &mut self.sk_meminfo);
        // Of Linux 6.18, 6.7, 6.2, 5.4.
        let rest = next::<284, 280>(rest, INFO, &mut self.info);
        let rest = next::<252, 248>(rest, INFO, &mut self.info);
        let rest = next::<244, 240>(rest, INFO, &mut self.info);
        next::<236, 232>(rest, INFO, &mut self.info)
    }
}

/// Notes an attribute of `LEN` bytes if it is the next one; what comes behind its `WHOLE`, padding and header included.
#[inline(always)]
fn next<'a, const WHOLE: usize, const LEN: usize>(
    bytes: &'a [u8],
    number: u16,
    place: &mut Option<&'a [u8]>,
) -> &'a [u8] {
    let Some((attribute, rest)) = bytes.split_first_chunk::<WHOLE>() else { return bytes };
    let Some((&[a, b, c, d], payload)) = attribute.split_first_chunk::<HEADER_LEN>() else { return bytes };
    let header = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
    if usize::from(header.0) != HEADER_LEN + LEN || header.1 != number {
        return bytes;
    }
    *place = payload.get(..LEN);
    rest
}
