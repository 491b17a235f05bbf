//! What an error says besides its errno.

use super::{HEADER_LEN, Header, NLM_F_ACK_TLVS, NLM_F_CAPPED, STATUS_LEN};
use crate::attr::Walk;
use crate::bytes::{Native, align, text};

/// `enum nlmsgerr_attrs` of `linux/netlink.h`: the attributes at the end of an `NLMSG_ERROR` or `NLMSG_DONE`. The
/// kernel sends them to a socket that set `NETLINK_EXT_ACK`, since Linux 4.12; empty when there are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtendedAck<'a> {
    /// `NLMSGERR_ATTR_MSG`: what is wrong, for people. `None` when absent or not text.
    pub message: Option<&'a str>,
    /// `NLMSGERR_ATTR_OFFS`: where in the request the attribute at fault begins, in bytes from its header's first.
    pub offset: Option<u32>,
    /// `NLMSGERR_ATTR_MISS_TYPE`: number of an attribute that the request lacks. Since Linux 6.1.
    pub missing: Option<u32>,
}

impl<'a> ExtendedAck<'a> {
    /// Those of an `NLMSG_ERROR`: behind the request, of which there is the header alone (`NLM_F_CAPPED`) or all.
    pub(super) fn of_error(flags: u16, payload: &'a [u8]) -> Self {
        let Some(request) = payload.get(STATUS_LEN..).and_then(Header::decode) else {
            return Self::default();
        };
        let request_len = match flags & NLM_F_CAPPED {
            0 => align(usize::try_from(request.len).unwrap_or(usize::MAX)),
            _ => HEADER_LEN,
        };
        Self::decode(flags, payload, STATUS_LEN.saturating_add(request_len))
    }

    /// Those of an `NLMSG_DONE`: behind its status.
    pub(super) fn of_done(flags: u16, payload: &'a [u8]) -> Self {
        Self::decode(flags, payload, STATUS_LEN)
    }

    fn decode(flags: u16, payload: &'a [u8], offset: usize) -> Self {
        let mut extended = Self::default();
        if flags & NLM_F_ACK_TLVS == 0 {
            return extended;
        }
        for (number, payload) in Walk::new(payload.get(offset..).unwrap_or_default()).flatten() {
            match number {
                1 => extended.message = text(payload),
                2 => extended.offset = u32::at(payload, 0),
                5 => extended.missing = u32::at(payload, 0),
                // A cookie, the policy that was broken, the nest of a missing attribute: of no use to a reader.
                _ => {}
            }
        }
        extended
    }
}
