//! The tree of a filter, in an array.

use super::word::Word;
use super::{FilterError, Problem};
use crate::bytecode::Side;
use crate::socket_id::Family;

/// Most tests and operators of a filter.
pub const TERMS_MAX: usize = 128;
/// Most parentheses and negations within each other.
pub const DEPTH_MAX: usize = 32;

/// A number, or a name to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named<'t, N> {
    Number(N),
    Name(Word<'t>),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Ge,
    Le,
    Gt,
    Lt,
}

/// A test as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test<'t> {
    /// An address, a port, both, or anything.
    Host {
        side: Side,
        family: Option<Family>,
        address: [u8; 16],
        prefix: u8,
        port: Option<Named<'t, u16>>,
    },
    /// A port against another.
    Port {
        side: Side,
        comparison: Comparison,
        port: Named<'t, u16>,
    },
    Device(Named<'t, u32>),
    Mark {
        mark: u32,
        mask: u32,
    },
    Cgroup(Named<'t, u64>),
    Autobound,
}

/// The index of a node in its expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(u8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node<'t> {
    Test(Test<'t>),
    Not(NodeId),
    And(NodeId, NodeId),
    Or(NodeId, NodeId),
}

/// A tree whose root is its last node, or nothing.
#[derive(Debug, Clone)]
pub(super) struct Expression<'t> {
    nodes: [Node<'t>; TERMS_MAX],
    len: u8,
}

impl<'t> Expression<'t> {
    pub(super) const EMPTY: Self = Self { nodes: [Node::Test(Test::Autobound); TERMS_MAX], len: 0 };

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a node after those that it joins; `at` is blamed if there is no room.
    pub(super) fn push(&mut self, node: Node<'t>, at: Word<'t>) -> Result<NodeId, FilterError<'t>> {
        let id = NodeId(self.len);
        let place = self.nodes.get_mut(usize::from(self.len)).ok_or_else(|| at.error(Problem::TooLong))?;
        *place = node;
        self.len = self.len.saturating_add(1);
        Ok(id)
    }

    /// The whole tree.
    pub(super) fn root(&self) -> Option<NodeId> {
        self.len.checked_sub(1).map(NodeId)
    }

    pub(super) fn node(&self, id: NodeId) -> Option<&Node<'t>> {
        self.all().get(usize::from(id.0))
    }

    pub(super) fn depends_on_names(&self) -> bool {
        self.all().iter().any(|node| {
            matches!(node, Node::Test(Test::Device(Named::Name(_)) | Test::Cgroup(Named::Name(_))))
        })
    }

    fn all(&self) -> &[Node<'t>] {
        self.nodes.get(..usize::from(self.len)).unwrap_or_default()
    }
}
