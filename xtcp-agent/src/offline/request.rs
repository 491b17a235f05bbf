//! What a captured request asks for.

use xtcp_inet_diag::framing::{
    Body, Message, NLM_F_DUMP, NLM_F_REQUEST, SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK,
};
use xtcp_inet_diag::socket_id::Family;

/// Message type of the old request for DCCP (`DCCPDIAG_GETSOCK` of `linux/inet_diag.h`).
pub(super) const DCCPDIAG_GETSOCK: u16 = 19;
/// `IPPROTO_TCP` and `IPPROTO_DCCP`, which the old requests imply.
const TCP: u16 = 6;
const DCCP: u16 = 33;
/// `INET_DIAG_REQ_PROTOCOL` of `linux/inet_diag.h` (5.9): a protocol too large for the request's byte, such as MPTCP.
const REQ_PROTOCOL: u16 = 3;
/// Bytes of `struct inet_diag_req_v2`.
const REQUEST_LEN: usize = 56;

/// A request of the socket monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Message type, which the answers have too.
    pub(super) kind: u16,
    /// All that match, not one.
    pub(super) dump: bool,
    /// It is about Internet sockets, not Unix or packet ones and so on.
    pub(super) inet: bool,
    /// Family of all rows; `None` for a request of several.
    pub(super) family: Option<u8>,
    /// IP protocol, such as TCP 6 and MPTCP 262.
    pub(super) protocol: u16,
}

impl Request {
    /// `None` when the message is no request, or asks for something else than sockets.
    pub(super) fn of(message: &Message<'_>) -> Option<Self> {
        let Message { header, body: Body::Data { payload } } = *message else { return None };
        if header.flags & NLM_F_REQUEST == 0 {
            return None;
        }
        let dump = header.flags & NLM_F_DUMP != 0;
        let family = payload.first().copied();
        match header.kind {
            // The old dump is of both families, whatever its request says (inet_diag_dump_compat).
            TCPDIAG_GETSOCK | DCCPDIAG_GETSOCK => Some(Self {
                kind: header.kind,
                dump,
                inet: true,
                family: family.filter(|_| !dump),
                protocol: if header.kind == TCPDIAG_GETSOCK { TCP } else { DCCP },
            }),
            SOCK_DIAG_BY_FAMILY => Some(Self {
                kind: header.kind,
                dump,
                inet: family.and_then(Family::from_raw).is_some(),
                family,
                protocol: protocol(payload),
            }),
            _ => None,
        }
    }
}

impl Request {
    /// Whether a row of this family may be its answer.
    pub(super) fn may_give(self, family: Option<u8>) -> bool {
        self.family.is_none() || self.family == family
    }
}

/// The protocol by attribute, else by the request's own byte.
fn protocol(payload: &[u8]) -> u16 {
    let mut rest = payload.get(REQUEST_LEN..).unwrap_or_default();
    while let Some(([l0, l1, k0, k1], value)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let Some(value) = len.checked_sub(4).and_then(|len| value.get(..len)) else { break };
        if u16::from_ne_bytes([*k0, *k1]) == REQ_PROTOCOL {
            let number = value.first_chunk().copied().map(u32::from_ne_bytes);
            return number.and_then(|number| u16::try_from(number).ok()).unwrap_or(0);
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    payload.get(1).copied().unwrap_or(0).into()
}
