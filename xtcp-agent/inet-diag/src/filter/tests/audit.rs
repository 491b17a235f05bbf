//! What the kernel takes as a filter: asked of each program by the tests, and by the fuzz target `filter`.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// The rules of `inet_diag_bc_audit`: operands are whole, jumps go forward, to an operation, the end, or 4 beyond it.
pub(crate) fn audit(program: &[u8]) -> Result<(), String> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at < program.len() {
        starts.push(at);
        let [code, yes, low, high] = program[at..at + 4] else { unreachable!() };
        let no = usize::from(u16::from_ne_bytes([low, high]));
        let operands = match code {
            7 | 8 => {
                8 + [(0, 0), (2, 4), (10, 16)].into_iter().find(|(f, _)| *f == program[at + 4]).unwrap().1
            }
            2..=5 | 9 | 11 | 12 => 4,
            10 | 13 => 8,
            1 | 6 => 0,
            _ => return Err(format!("operation {code} at {at}")),
        };
        if usize::from(yes) != 4 + operands || no < 4 + operands || no % 4 != 0 {
            return Err(format!("lengths {yes}, {no} at {at}"));
        }
        at += usize::from(yes);
    }
    for start in &starts {
        let no = usize::from(u16::from_ne_bytes([program[start + 2], program[start + 3]]));
        let target = start + no;
        if !starts.contains(&target) && target != program.len() && target != program.len() + 4 {
            return Err(format!("jump from {start} to {target}"));
        }
    }
    (at == program.len()).then_some(()).ok_or_else(|| "end".to_string())
}
