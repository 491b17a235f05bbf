//! Writes a program from its end to its beginning, so that every jump's target is known when it is written.

use super::{Condition, PROGRAM_MAX, PortOrder, Program, Side, op};
use crate::socket_id::{Family, fill};

/// A place in a program: bytes from there to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(i32);

/// The end, where what passes arrives.
pub(crate) const ACCEPT: Place = Place(0);
/// Beyond the end, where what does not pass arrives.
pub(crate) const REJECT: Place = Place(-4);

/// Bytes of `struct inet_diag_bc_op`.
const OP_LEN: usize = 4;
/// Most bytes of an operation's operands: `struct inet_diag_hostcond` with an IPv6 address.
const OPERANDS_MAX: usize = 24;

/// A program that grows at its front.
pub(crate) struct Assembler {
    bytes: [u8; PROGRAM_MAX],
    start: usize,
}

impl Assembler {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; PROGRAM_MAX], start: PROGRAM_MAX }
    }

    /// The place of the operation that was written last.
    pub(crate) fn here(&self) -> Place {
        Place(i32::try_from(PROGRAM_MAX.saturating_sub(self.start)).unwrap_or(i32::MAX))
    }

    /// A test that goes to `yes` or `no`; `None` when the program is full.
    pub(crate) fn test(&mut self, condition: &Condition, yes: Place, no: Place) -> Option<()> {
        if yes != self.here() {
            self.write(op::JMP, &[], yes)?;
        }
        let mut operands = [0; OPERANDS_MAX];
        let (code, len) = encode(condition, &mut operands);
        self.write(code, operands.get(..len)?, no)
    }

    fn write(&mut self, code: u8, operands: &[u8], no: Place) -> Option<()> {
        let len = OP_LEN.saturating_add(operands.len());
        let start = self.start.checked_sub(len)?;
        let from = i32::try_from(PROGRAM_MAX.saturating_sub(start)).ok()?;
        let no = u16::try_from(from.saturating_sub(no.0)).ok()?;
        let head = [code, u8::try_from(len).ok()?].into_iter().chain(no.to_ne_bytes());
        fill(self.bytes.get_mut(start..self.start)?, head.chain(operands.iter().copied()));
        self.start = start;
        Some(())
    }

    /// What was written.
    pub(crate) fn finish(self) -> Program {
        let code = self.bytes.get(self.start..).unwrap_or_default();
        let mut program = Program { bytes: [0; PROGRAM_MAX], len: code.len() };
        fill(&mut program.bytes, code.iter().copied());
        program
    }
}

/// An operation's code, and the length of its operands.
fn encode(condition: &Condition, operands: &mut [u8; OPERANDS_MAX]) -> (u8, usize) {
    match *condition {
        Condition::Port { side, order, port } => {
            let code = match (side, order) {
                (Side::Source, PortOrder::Eq) => op::S_EQ,
                (Side::Source, PortOrder::Ge) => op::S_GE,
                (Side::Source, PortOrder::Le) => op::S_LE,
                (Side::Destination, PortOrder::Eq) => op::D_EQ,
                (Side::Destination, PortOrder::Ge) => op::D_GE,
                (Side::Destination, PortOrder::Le) => op::D_LE,
            };
            // A second operation of which only `no` is read, the port in host order.
            fill(operands, [0, 0].into_iter().chain(port.to_ne_bytes()));
            (code, 4)
        }
        Condition::Host { side, family, address, prefix, port } => {
            let code = match side {
                Side::Source => op::S_COND,
                Side::Destination => op::D_COND,
            };
            let address_len = family.map_or(0, Family::address_len);
            let head = [family.map_or(0, Family::raw), prefix, 0, 0].into_iter();
            let port = port.map_or(-1, i32::from).to_ne_bytes();
            fill(operands, head.chain(port).chain(address.into_iter().take(address_len)));
            (code, address_len.saturating_add(8))
        }
        Condition::Device(index) => {
            fill(operands, index.to_ne_bytes());
            (op::DEV_COND, 4)
        }
        Condition::Mark { mark, mask } => {
            fill(operands, mark.to_ne_bytes().into_iter().chain(mask.to_ne_bytes()));
            (op::MARK_COND, 8)
        }
        Condition::Cgroup(id) => {
            fill(operands, id.to_ne_bytes());
            (op::CGROUP_COND, 8)
        }
        Condition::Autobound => (op::AUTO, 0),
    }
}
