//! A row: `struct inet_diag_msg` and the attributes after it.
//!
//! Owns the order of the 72 header bytes. A row whose header is whole is always decoded; whatever is wrong
//! with its attributes is counted beside them.

use core::fmt;

use crate::attr::{self, AttributeError, Attributes, Selection, Tally, Walk};
use crate::bytes::Native;
use crate::request::Protocol;
use crate::socket_id::{Family, SocketId};
use crate::state::State;

/// Bytes of `struct inet_diag_msg`.
pub const ROW_LEN: usize = 72;

/// `struct inet_diag_msg` without its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// `AF_INET` (2) or `AF_INET6` (10), see [`Header::family`].
    pub family: u8,
    /// TCP state, see [`Header::state`]. A request socket says SYN-RECV; a time-wait socket may say FIN-WAIT-2.
    pub state: u8,
    /// The timer that runs: 0 none, 1 retransmission (or reordering, or loss probe), 2 keepalive (or SYN-ACK),
    /// 3 time-wait, 4 zero-window probe, 5 delayed acknowledgement (Linux 6.15).
    pub timer: u8,
    /// Retransmissions or probes in a row, of that timer.
    pub retrans: u8,
    /// Addresses, ports, interface, cookie.
    pub id: SocketId,
    /// Time until the timer runs out, ms.
    pub expires_ms: u32,
    /// Bytes received and not read; of a listener, connections waiting for `accept`.
    pub rqueue: u32,
    /// Bytes written and not acknowledged; of a listener, the limit of its backlog.
    pub wqueue: u32,
    /// User id of the owner, in the reader's user namespace.
    pub uid: u32,
    /// Inode of the socket's file; 0 when it has none (orphaned, time-wait, request, not accepted yet).
    pub inode: u32,
}

impl Header {
    fn decode(payload: &[u8]) -> Option<Self> {
        let family = u8::at(payload, 0)?;
        Some(Self {
            family,
            state: u8::at(payload, 1)?,
            timer: u8::at(payload, 2)?,
            retrans: u8::at(payload, 3)?,
            id: SocketId::decode(payload, 4, Family::from_raw(family))?,
            expires_ms: u32::at(payload, 52)?,
            rqueue: u32::at(payload, 56)?,
            wqueue: u32::at(payload, 60)?,
            uid: u32::at(payload, 64)?,
            inode: u32::at(payload, 68)?,
        })
    }

    /// The family, if it is one that inet_diag is known to report.
    pub const fn family(&self) -> Option<Family> {
        Family::from_raw(self.family)
    }

    /// The state, if its number is known.
    pub fn state(&self) -> Option<State> {
        State::from_raw(self.state)
    }
}

/// What a row does not say of itself, and what is wanted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The protocol that the request named. What `INET_DIAG_INFO` holds depends on it.
    pub protocol: Protocol,
    /// The attributes that are decoded; the others are stepped over, and are neither unknown nor malformed.
    pub selection: Selection,
}

impl Reading {
    /// All attributes of a row of TCP.
    pub const TCP: Self = Self { protocol: Protocol::TCP, selection: Selection::ALL };
}

/// A row with all its attributes. Text and raw bytes borrow from the datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How it was read.
    pub reading: Reading,
    /// Its header.
    pub header: Header,
    /// Its attributes.
    pub attributes: Attributes<'a>,
    /// Attributes whose number is not known, by number.
    pub unknown: Tally,
    /// Attributes whose payload cannot be what their number says, by number. Each is `None` in `attributes`
    /// (or what an earlier one of the same number said).
    pub malformed: Tally,
    /// The attribute at which the walk ended because of its length; those after it were not seen.
    pub damage: Option<AttributeError>,
}

/// The payload is no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageError {
    /// It is shorter than a row's header.
    Truncated {
        /// Bytes that are there, of [`ROW_LEN`].
        available: usize,
    },
}

impl fmt::Display for MessageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Truncated { available } = self;
        write!(formatter, "inet_diag row cut off: wanted {ROW_LEN} bytes, got {available}")
    }
}

impl core::error::Error for MessageError {}

/// Decodes the payload of a [`crate::framing::Body::Data`] message of type 18 or 20 that answers a request for TCP.
#[inline]
pub fn decode(payload: &[u8]) -> Result<Decoded<'_>, MessageError> {
    decode_as(payload, Reading::TCP)
}

/// Decodes the payload of a message that answers a request for any protocol, as far as it is wanted.
#[inline]
pub fn decode_as(payload: &[u8], reading: Reading) -> Result<Decoded<'_>, MessageError> {
    let (Some(header), Some(rest)) = (Header::decode(payload), payload.get(ROW_LEN..)) else {
        return Err(MessageError::Truncated { available: payload.len() });
    };
    let mut decoded = Decoded {
        reading,
        header,
        attributes: Attributes::default(),
        unknown: Tally::default(),
        malformed: Tally::default(),
        damage: None,
    };
    let Decoded { reading: _, header: _, attributes, unknown, malformed, damage } = &mut decoded;
    attr::walk(Walk::new(rest), reading, attributes, unknown, malformed, damage);
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_payload_shorter_than_a_row_is_refused_with_its_length() {
        assert_eq!(decode(&[2; 71]), Err(MessageError::Truncated { available: 71 }));
        let message = decode(&[]).unwrap_err().to_string();
        assert_eq!(message, "inet_diag row cut off: wanted 72 bytes, got 0");
    }

    #[test]
    fn a_row_of_an_unknown_family_and_state_is_still_a_row() {
        let decoded = decode(&[0xee; ROW_LEN]).unwrap();
        assert_eq!((decoded.header.family(), decoded.header.state()), (None, None));
        assert_eq!(decoded.header.id.destination, [0xee; 16]);
        assert_eq!(decoded.header.inode, 0xeeee_eeee);
    }
}
