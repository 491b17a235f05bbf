//! `INET_DIAG_TOS`. Since Linux 3.2. IPv6 sockets have it too, for their v4-mapped traffic.

/// `IP_TOS`: differentiated services in the upper 6 bits, ECN in the lower 2 (which TCP overrides).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tos(pub u8);

super::decode_integer!(Tos(u8));
