//! `INET_DIAG_CLASS_ID`. Asked for as `TCLASS`, and comes with it for IPv4 too.

/// Class id of the socket's `net_cls` cgroup; where that is 0, the socket's priority (`SO_PRIORITY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassId(pub u32);

super::decode_integer!(ClassId(u32));
