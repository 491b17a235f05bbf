//! `INET_DIAG_PROTOCOL`, `sk_protocol`. Since Linux 4.3. Rows of raw sockets only.

/// IP protocol number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol(pub u8);

super::decode_integer!(Protocol(u8));
