//! Socket filters in the kernel's bytecode: what they are made of, and their second executor.
//!
//! A dump carries a [`Program`] in `INET_DIAG_REQ_BYTECODE`; the kernel then answers with the sockets that it lets
//! pass. [`Program::judge`] runs the same bytes over a decoded row, with the kernel's semantics
//! (`inet_diag_bc_run`): for lookups, which carry no program, for captures, and for whatever else is chosen by row.
//!
//! Every operation is four bytes (`struct inet_diag_bc_op`) and its operands, and jumps only forward: by its own
//! length when its test holds, by `no` bytes when it does not. Who arrives at the end has passed; who jumps four
//! bytes beyond it has not. The kernel checks both in `inet_diag_bc_audit` and refuses with `EINVAL`.

use crate::message::Decoded;
use crate::socket_id::Family;

mod assembler;
mod execute;
mod ports;

pub(crate) use assembler::{ACCEPT, Assembler, Place, REJECT};

/// Most bytes of a program.
pub const PROGRAM_MAX: usize = 4096;

/// `INET_DIAG_BC_*` of `include/uapi/linux/inet_diag.h`. All are there since Linux 5.9; the last one only where the
/// kernel has `CONFIG_SOCK_CGROUP_DATA`.
mod op {
    pub(super) const NOP: u8 = 0;
    pub(super) const JMP: u8 = 1;
    pub(super) const S_GE: u8 = 2;
    pub(super) const S_LE: u8 = 3;
    pub(super) const D_GE: u8 = 4;
    pub(super) const D_LE: u8 = 5;
    pub(super) const AUTO: u8 = 6;
    pub(super) const S_COND: u8 = 7;
    pub(super) const D_COND: u8 = 8;
    pub(super) const DEV_COND: u8 = 9;
    pub(super) const MARK_COND: u8 = 10;
    pub(super) const S_EQ: u8 = 11;
    pub(super) const D_EQ: u8 = 12;
    pub(super) const CGROUP_COND: u8 = 13;
}

/// Which end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// This host's.
    Source,
    /// The peer's.
    Destination,
}

/// How a port is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PortOrder {
    Eq,
    Ge,
    Le,
}

/// One test of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// `S_EQ`, `S_GE`, …: the port against a number.
    Port { side: Side, order: PortOrder, port: u16 },
    /// `S_COND`, `D_COND`. Without a family it takes both, and then has no prefix.
    Host { side: Side, family: Option<Family>, address: [u8; 16], prefix: u8, port: Option<u16> },
    /// `DEV_COND`: bound to the interface of this index; 0: to none.
    Device(u32),
    /// `MARK_COND`: the mark's bits under the mask are these.
    Mark { mark: u32, mask: u32 },
    /// `CGROUP_COND`: in this cgroup, not in one below it.
    Cgroup(u64),
    /// `AUTO`: the local port was not chosen with `bind`.
    Autobound,
}

/// A filter as the kernel takes it; one without bytes lets everything pass.
#[derive(Clone, Copy)]
pub struct Program {
    bytes: [u8; PROGRAM_MAX],
    len: usize,
}

impl Program {
    /// Lets everything pass. A request with it carries no bytecode.
    pub const EVERYTHING: Self = Self { bytes: [0; PROGRAM_MAX], len: 0 };

    /// The bytecode: a multiple of 4 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// It has no bytes: everything passes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Passes what passes both; `None` when that is longer than [`PROGRAM_MAX`].
    pub fn and(&self, other: &Self) -> Option<Self> {
        let len = self.len.checked_add(other.len)?;
        let mut both = Self { bytes: [0; PROGRAM_MAX], len };
        let (first, second) = both.bytes.get_mut(..len)?.split_at_mut(self.len);
        first.copy_from_slice(self.as_bytes());
        second.copy_from_slice(other.as_bytes());
        let mut at = 0;
        while let Some(op) = execute::Op::at(self.as_bytes(), at) {
            let left = self.len.saturating_sub(at);
            // What is refused jumps beyond the end, which has moved.
            if usize::from(op.no) > left {
                let no = op.no.checked_add(u16::try_from(other.len).ok()?)?;
                first.get_mut(at.saturating_add(2)..at.saturating_add(4))?.copy_from_slice(&no.to_ne_bytes());
            }
            at = at.saturating_add(usize::from(op.yes));
        }
        Some(both)
    }

    /// The kernel takes it only from who has `CAP_NET_ADMIN` over the namespace: it tests marks. Others get `EPERM`.
    pub fn needs_net_admin(&self) -> bool {
        self.has(op::MARK_COND)
    }

    /// It tests cgroups, which a kernel without `CONFIG_SOCK_CGROUP_DATA`, or older than 5.9, refuses with `EINVAL`.
    pub fn tests_cgroups(&self) -> bool {
        self.has(op::CGROUP_COND)
    }

    /// It tests whether the local port was bound automatically, which no row tells of a full socket.
    pub fn tests_autobound(&self) -> bool {
        self.has(op::AUTO)
    }

    fn has(&self, code: u8) -> bool {
        let mut at = 0;
        while let Some(op) = execute::Op::at(self.as_bytes(), at) {
            if op.code == code {
                return true;
            }
            at = at.saturating_add(usize::from(op.yes));
        }
        false
    }
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Program {}

impl core::fmt::Debug for Program {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_tuple("Program").field(&self.as_bytes()).finish()
    }
}

/// What a program says of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It does not.
    Refuse,
    /// The row does not hold what would decide it; the kernel knows.
    Unknown,
}

/// What a program looks at in a socket (`struct inet_diag_entry` of the kernel).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u8,
    /// Local port, host order.
    pub source_port: u16,
    /// Peer's port, host order.
    pub destination_port: u16,
    /// Local address, IPv4 in the first 4 bytes.
    pub source: [u8; 16],
    /// Peer's address, IPv4 in the first 4 bytes.
    pub destination: [u8; 16],
    /// Interface that the socket is bound to; 0: to none.
    pub interface: u32,
    /// `SO_MARK`. Unknown where the kernel did not tell: to who has no `CAP_NET_ADMIN`, and of a time-wait socket.
    pub mark: Option<u32>,
    /// Id of its cgroup (v2). 0 for a request or time-wait socket. Unknown before Linux 5.9.
    pub cgroup_id: Option<u64>,
    /// The local port was not chosen with `bind` (`!(sk_userlocks & SOCK_BINDPORT_LOCK)`). No row tells it; true
    /// for a request or time-wait socket, as the kernel has it.
    pub autobound: Option<bool>,
}

impl Subject {
    /// What a row tells.
    pub fn of(row: &Decoded<'_>) -> Self {
        let Decoded { header, attributes, .. } = row;
        // The kernel tells of every full socket how far it is shut down (inet_diag_msg_attrs_fill), and never of a
        // request or time-wait socket.
        let full = attributes.shutdown.is_some();
        Self {
            family: header.family,
            source_port: header.id.source_port,
            destination_port: header.id.destination_port,
            source: header.id.source,
            destination: header.id.destination,
            interface: header.id.interface,
            mark: attributes.mark.map(|mark| mark.0),
            cgroup_id: if full { attributes.cgroup_id.map(|id| id.0) } else { Some(0) },
            autobound: if full { None } else { Some(true) },
        }
    }
}
