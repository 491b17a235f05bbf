//! `INET_DIAG_MARK`, `sk_mark`. Since Linux 4.9, to `CAP_NET_ADMIN` only.

/// `SO_MARK` of the socket, or of the request socket; 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub u32);

super::decode_integer!(Mark(u32));
