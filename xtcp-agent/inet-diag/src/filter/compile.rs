//! From the tree to bytecode.

use super::expression::{Comparison, Expression, Named, Node, NodeId, Test};
use super::word::Word;
use super::{FilterError, Names, Problem};
use crate::bytecode::{ACCEPT, Assembler, Condition, Place, PortOrder, Program, REJECT};

/// Compiles a tree; nothing becomes the program that lets everything pass.
pub(super) fn program<'t>(
    expression: &Expression<'t>,
    names: &impl Names,
) -> Result<Program, FilterError<'t>> {
    let mut compiler = Compiler { expression, names, assembler: Assembler::new() };
    if let Some(root) = expression.root() {
        compiler.node(root, ACCEPT, REJECT)?;
    }
    Ok(compiler.assembler.finish())
}

struct Compiler<'e, 't, N> {
    expression: &'e Expression<'t>,
    names: &'e N,
    assembler: Assembler,
}

impl<'t, N: Names> Compiler<'_, 't, N> {
    /// Writes the code that goes to `yes` where the node holds, else to `no`. Both stand behind it, so the last
    /// operand comes first.
    fn node(&mut self, id: NodeId, yes: Place, no: Place) -> Result<(), FilterError<'t>> {
        let Some(node) = self.expression.node(id) else { return Ok(()) };
        match *node {
            Node::Test(test) => {
                let (condition, holds) = condition(&test, self.names)?;
                let (yes, no) = if holds { (yes, no) } else { (no, yes) };
                // TERMS_MAX tests fit into PROGRAM_MAX bytes, each with a jump.
                let full = Word { offset: 0, text: "" };
                self.assembler.test(&condition, yes, no).ok_or_else(|| full.error(Problem::TooLong))
            }
            Node::Not(inner) => self.node(inner, no, yes),
            Node::And(left, right) => {
                self.node(right, yes, no)?;
                let both = self.assembler.here();
                self.node(left, both, no)
            }
            Node::Or(left, right) => {
                self.node(right, yes, no)?;
                let second = self.assembler.here();
                self.node(left, yes, second)
            }
        }
    }
}

/// The kernel's test, and whether it is to hold or to fail.
fn condition<'t>(test: &Test<'t>, names: &impl Names) -> Result<(Condition, bool), FilterError<'t>> {
    let service = |port| look_up(port, |name| names.service(name), Problem::UnknownService);
    Ok(match *test {
        Test::Host { side, family: None, port: Some(port), .. } => {
            (Condition::Port { side, order: PortOrder::Eq, port: service(port)? }, true)
        }
        Test::Host { side, family, address, prefix, port } => {
            let port = port.map(service).transpose()?;
            (Condition::Host { side, family, address, prefix, port }, true)
        }
        Test::Port { side, comparison, port } => {
            let (order, holds) = match comparison {
                Comparison::Eq => (PortOrder::Eq, true),
                Comparison::Ne => (PortOrder::Eq, false),
                Comparison::Ge => (PortOrder::Ge, true),
                Comparison::Lt => (PortOrder::Ge, false),
                Comparison::Le => (PortOrder::Le, true),
                Comparison::Gt => (PortOrder::Le, false),
            };
            (Condition::Port { side, order, port: service(port)? }, holds)
        }
        Test::Device(device) => {
            let index = look_up(device, |name| names.interface(name), Problem::UnknownInterface)?;
            (Condition::Device(index), true)
        }
        Test::Mark { mark, mask } => (Condition::Mark { mark, mask }, true),
        Test::Cgroup(cgroup) => {
            let id = look_up(cgroup, |path| names.cgroup(path), Problem::UnknownCgroup)?;
            (Condition::Cgroup(id), true)
        }
        Test::Autobound => (Condition::Autobound, true),
    })
}

fn look_up<N>(
    named: Named<'_, N>,
    find: impl Fn(&str) -> Option<N>,
    problem: Problem,
) -> Result<N, FilterError<'_>> {
    match named {
        Named::Number(number) => Ok(number),
        Named::Name(word) => find(word.text).ok_or_else(|| word.error(problem)),
    }
}
