//! The second executor: the same bytes, over a row.

use super::{PROGRAM_MAX, Program, Subject, Verdict, op};
use crate::bytes::{Native, array_at};
use crate::socket_id::Family;

/// `struct inet_diag_bc_op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) code: u8,
    pub(super) yes: u8,
    pub(super) no: u16,
}

impl Op {
    /// The operation at an offset; `None` at the end, and for one without length.
    pub(super) fn at(program: &[u8], offset: usize) -> Option<Self> {
        let bytes = program.get(offset..)?;
        let op = Self { code: u8::at(bytes, 0)?, yes: u8::at(bytes, 1)?, no: u16::at(bytes, 2)? };
        (op.yes >= 4).then_some(op)
    }
}

/// Every offset at which an operation may stand, and the end.
const PLACES: usize = PROGRAM_MAX / 4 + 1;

impl Program {
    /// What the program says of a socket.
    ///
    /// Both ways are gone where the subject does not know, so the verdict is unknown exactly if that matters.
    pub fn judge(&self, subject: &Subject) -> Verdict {
        let program = self.as_bytes();
        let mut reached = [false; PLACES];
        let reach = |reached: &mut [bool; PLACES], offset: usize| match reached.get_mut(offset / 4) {
            Some(place) if offset <= program.len() => *place = true,
            _ => {}
        };
        reach(&mut reached, 0);
        let (mut at, mut refused) = (0, false);
        while let Some(op) = Op::at(program, at) {
            let here = at;
            at = at.saturating_add(usize::from(op.yes));
            if !reached.get(here / 4).copied().unwrap_or(false) {
                continue;
            }
            let operands = program.get(here.saturating_add(4)..at).unwrap_or_default();
            let holds = test(op.code, operands, subject);
            if holds != Some(false) {
                reach(&mut reached, at);
            }
            if holds != Some(true) {
                let target = here.saturating_add(usize::from(op.no));
                refused |= target > program.len();
                reach(&mut reached, target);
            }
        }
        match (reached.get(program.len() / 4).copied().unwrap_or(false), refused) {
            (true, true) => Verdict::Unknown,
            (true, false) => Verdict::Pass,
            (false, _) => Verdict::Refuse,
        }
    }

    /// Whether the row certainly passes.
    pub fn matches(&self, subject: &Subject) -> bool {
        self.judge(subject) == Verdict::Pass
    }
}

/// Whether one operation's test holds; `None` when the subject does not tell.
fn test(code: u8, operands: &[u8], subject: &Subject) -> Option<bool> {
    let port = u16::at(operands, 2).unwrap_or_default();
    match code {
        op::NOP => Some(true),
        op::S_GE => Some(subject.source_port >= port),
        op::S_LE => Some(subject.source_port <= port),
        op::S_EQ => Some(subject.source_port == port),
        op::D_GE => Some(subject.destination_port >= port),
        op::D_LE => Some(subject.destination_port <= port),
        op::D_EQ => Some(subject.destination_port == port),
        op::AUTO => subject.autobound,
        op::S_COND => Some(host(operands, subject, &subject.source, subject.source_port)),
        op::D_COND => Some(host(operands, subject, &subject.destination, subject.destination_port)),
        op::DEV_COND => Some(u32::at(operands, 0) == Some(subject.interface)),
        op::MARK_COND => {
            let (mark, mask) = (u32::at(operands, 0)?, u32::at(operands, 4)?);
            // A mark that no bits of are asked for need not be known.
            if mask == 0 { Some(mark == 0) } else { subject.mark.map(|own| own & mask == mark) }
        }
        op::CGROUP_COND => {
            let id = u64::at(operands, 0)?;
            subject.cgroup_id.map(|own| own == id)
        }
        // A jump, and what no assembler of ours writes.
        _ => Some(false),
    }
}

/// `struct inet_diag_hostcond`: family, prefix, port, address.
fn host(operands: &[u8], subject: &Subject, address: &[u8; 16], port: u16) -> bool {
    let family = u8::at(operands, 0).unwrap_or_default();
    let prefix = u8::at(operands, 1).unwrap_or_default();
    let wanted_port = i32::at(operands, 4).unwrap_or_default();
    let wanted = operands.get(8..).unwrap_or_default();
    if wanted_port != -1 && wanted_port != i32::from(port) {
        return false;
    }
    if family == 0 || family == subject.family {
        return same_bits(address, wanted, prefix);
    }
    // An IPv4 condition takes v4-mapped addresses too; an IPv6 one never takes an IPv4 socket.
    subject.family == Family::Inet6.raw()
        && family == Family::Inet.raw()
        && array_at::<12>(address, 0) == Some(MAPPED)
        && same_bits(address.get(12..).unwrap_or_default(), wanted, prefix)
}

/// What a v4-mapped address begins with.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// The first `bits` bits are equal.
fn same_bits(one: &[u8], other: &[u8], bits: u8) -> bool {
    let whole = usize::from(bits / 8);
    let rest = bits % 8;
    let mask = !u8::MAX.checked_shr(u32::from(rest)).unwrap_or(0);
    let byte = |of: &[u8]| of.get(whole).copied().unwrap_or_default() & mask;
    one.get(..whole) == other.get(..whole) && (rest == 0 || byte(one) == byte(other))
}
