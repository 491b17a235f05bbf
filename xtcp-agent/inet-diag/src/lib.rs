//! inet_diag: kernel bytes become types, and questions become kernel bytes.
//!
//! Owns the wire format of the kernel's socket monitor (`NETLINK_SOCK_DIAG`): walking the netlink messages of
//! one datagram ([`framing`]), the requests ([`request`]), the 72-byte row ([`message`]) and each of its
//! attributes ([`attr`]), filters: `ss`'s language ([`filter`]) and the kernel's bytecode ([`bytecode`]), and what
//! the agent's record says of a row ([`wire`]). It never does I/O, never allocates, and never panics, whatever the
//! bytes say:
//!
//! - length is data: what a short struct does not hold is `None`, what a longer one holds more is ignored or
//!   kept as bytes;
//! - a damaged or unknown attribute is counted and costs nothing but itself;
//! - only a message header that cannot be right ends a datagram.
//!
//! Integers are in the kernel's own byte order, except ports and addresses, which are big-endian.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod attr;
pub mod bytecode;
mod bytes;
pub mod filter;
pub mod framing;
pub mod message;
pub mod request;
pub mod socket_id;
pub mod state;
pub mod wire;
