//! Contexts of the classic tracepoints in use. A program may read its context only at offsets that are constants of
//! its code, so these cannot come from the loader; it compares them with tracefs instead, and does not attach a
//! program whose tracepoint looks different.

/// One field of a tracepoint's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name in tracefs' `format`.
    pub name: &'static str,
    /// Bytes from the start of the context.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
}

const fn field(name: &'static str, offset: usize, size: usize) -> Field {
    Field { name, offset, size }
}

/// `sock:inet_sock_set_state` (5.6+; before, `protocol` was one byte).
pub mod sock_state {
    use super::{Field, field};

    /// Kernel address of the socket.
    pub const SKADDR: Field = field("skaddr", 8, 8);
    /// State before, `int`.
    pub const OLDSTATE: Field = field("oldstate", 16, 4);
    /// State after, `int`.
    pub const NEWSTATE: Field = field("newstate", 20, 4);
    /// Local port, host order.
    pub const SPORT: Field = field("sport", 24, 2);
    /// Remote port, host order.
    pub const DPORT: Field = field("dport", 26, 2);
    /// Address family.
    pub const FAMILY: Field = field("family", 28, 2);
    /// IP protocol.
    pub const PROTOCOL: Field = field("protocol", 30, 2);
    /// Local IPv4 address.
    pub const SADDR: Field = field("saddr", 32, 4);
    /// Remote IPv4 address.
    pub const DADDR: Field = field("daddr", 36, 4);
    /// Local IPv6 address.
    pub const SADDR_V6: Field = field("saddr_v6", 40, 16);
    /// Remote IPv6 address.
    pub const DADDR_V6: Field = field("daddr_v6", 56, 16);

    /// All of them.
    pub const FIELDS: &[Field] =
        &[SKADDR, OLDSTATE, NEWSTATE, SPORT, DPORT, FAMILY, PROTOCOL, SADDR, DADDR, SADDR_V6, DADDR_V6];
}

/// `syscalls:sys_exit_*`.
pub mod sys_exit {
    use super::{Field, field};

    /// What the system call returned, `long`.
    pub const RET: Field = field("ret", 16, 8);

    /// All of them.
    pub const FIELDS: &[Field] = &[RET];
}
