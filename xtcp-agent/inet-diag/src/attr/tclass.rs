//! `INET_DIAG_TCLASS`. Since Linux 3.2. IPv6 sockets only.

/// `IPV6_TCLASS`: differentiated services in the upper 6 bits, ECN in the lower 2 (which TCP overrides).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TClass(pub u8);

super::decode_integer!(TClass(u8));
