//! Which sockets, in the words of `ss`: `state established dport = :443 and src 10.0.0.0/8`.
//!
//! ```text
//! filter     = { ( "state" | "exclude" ) STATE } [ expression ]
//! expression = term { [ and | or ] term }
//! term       = not term | "(" expression ")" | test
//! test       = ( "src" | "dst" ) [ = | != ] HOST
//!            | ( "sport" | "dport" ) [ = | != | >= | <= | > | < ] PORT
//!            | "dev" [ = | != ] ( NAME | INDEX )
//!            | "fwmark" [ = | != ] MARK [ "/" MASK ]
//!            | "cgroup" [ = | != ] ( PATH | ID )
//!            | "autobound"
//! HOST       = [ "inet:" | "inet6:" ] ( "*" | ADDRESS [ "/" BITS ] | "[" IPV6 [ "/" BITS ] "]" ) [ ":" PORT ]
//!            | [ "inet:" | "inet6:" ] ":" PORT
//! PORT       = [ ":" ] ( NUMBER | SERVICE | "*" )
//! ```
//!
//! Operators have names too: `=` `==` `eq`, `!=` `ne` `neq`, `>=` `ge` `geq`, `<=` `le` `leq`, `>` `gt`, `<` `lt`,
//! `!` `not`, `&` `&&` `and`, `|` `||` `or`; no comparison is `=`, and no operator between two tests is `and`. Words may
//! be in upper case. Space is only needed between words. A name or path with `(`, `)` or space in it stands in double
//! quotes. Numbers are decimal, or hexadecimal after `0x`.
//!
//! **`and` and `or` bind alike, from left to right**, and `not` binds tighter than both: that is what `ss` does (its
//! manual gives `and` precedence, its grammar does not). So `a or b and c` is `( a or b ) and c`.
//!
//! What the tests mean is the kernel's to say, which runs them ([`crate::bytecode`]):
//! - an IPv4 address takes v4-mapped IPv6 sockets too; an IPv6 address never takes an IPv4 socket;
//! - `dev` is the interface that a socket is bound to, not the one that its packets use;
//! - `cgroup` is the socket's cgroup (v2) itself, not those below it; request and time-wait sockets have none;
//! - `fwmark` needs `CAP_NET_ADMIN`;
//! - `autobound`: the local port was chosen by the kernel, or comes from a listener. (`ss` then leaves out what is not
//!   in `ip_local_port_range`; we do not.)
//!
//! `state` and `exclude` stand in front. `state` selects only what is named (several add up), `exclude` takes away; the
//! states' names are those of [`States::parse`]. Nothing here is allocated: a filter has at most
//! [`TERMS_MAX`] tests and operators, nested at most [`DEPTH_MAX`] deep.

use core::fmt;

use crate::bytecode::Program;
use crate::state::States;

mod compile;
mod expression;
mod operand;
mod parse;
mod word;

use expression::Expression;
pub use expression::{DEPTH_MAX, TERMS_MAX};

/// Looks up what a filter calls by name. Each gives `None` for a name that it does not know.
pub trait Names {
    /// The index of a network interface, in the network namespace that is asked.
    fn interface(&self, name: &str) -> Option<u32>;
    /// The id of a cgroup (v2), which is the inode of its folder. The path is as written in the filter.
    fn cgroup(&self, path: &str) -> Option<u64>;
    /// The port of a TCP service, as `/etc/services` has it.
    fn service(&self, name: &str) -> Option<u16>;
}

/// Knows no name: for filters that use numbers only.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNames;

impl Names for NoNames {
    fn interface(&self, _name: &str) -> Option<u32> {
        None
    }

    fn cgroup(&self, _path: &str) -> Option<u64> {
        None
    }

    fn service(&self, _name: &str) -> Option<u16> {
        None
    }
}

/// A filter that was understood; it borrows the names in it from its text.
#[derive(Debug, Clone)]
pub struct Filter<'t> {
    states: Option<States>,
    expression: Expression<'t>,
}

impl<'t> Filter<'t> {
    /// Reads a filter. An empty text, or one of spaces, lets everything pass.
    pub fn parse(text: &'t str) -> Result<Self, FilterError<'t>> {
        parse::filter(text)
    }

    /// The states that the words in front select; `None` when there are none. May be [`States::NONE`].
    pub const fn states(&self) -> Option<States> {
        self.states
    }

    /// It has tests beside the states.
    pub const fn has_expression(&self) -> bool {
        !self.expression.is_empty()
    }

    /// It names an interface or a cgroup, so that what it compiles to depends on when and where that is done.
    pub fn depends_on_names(&self) -> bool {
        self.expression.depends_on_names()
    }

    /// The bytecode of the tests; without any, [`Program::EVERYTHING`]. The states are not in it: they go into the
    /// request.
    pub fn compile(&self, names: &impl Names) -> Result<Program, FilterError<'t>> {
        compile::program(&self.expression, names)
    }
}

/// Why a filter was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterError<'t> {
    /// Bytes before the word in the text.
    pub offset: usize,
    /// The word that is wrong; empty at the end of the text.
    pub word: &'t str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a word of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Something else was expected there.
    Expected(&'static str),
    /// A parenthesis that nothing closes.
    Unclosed,
    /// More than [`TERMS_MAX`] tests and operators.
    TooLong,
    /// More than [`DEPTH_MAX`] parentheses and negations within each other.
    TooDeep,
    /// No such interface.
    UnknownInterface,
    /// No such cgroup.
    UnknownCgroup,
    /// No such service.
    UnknownService,
}

impl fmt::Display for FilterError<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, word, problem } = self;
        write!(formatter, "filter, byte {offset}: ")?;
        match problem {
            Problem::Expected(what) if word.is_empty() => {
                write!(formatter, "expected {what}, but it ends here")
            }
            Problem::Expected(what) => write!(formatter, "expected {what}, found '{word}'"),
            Problem::Unclosed => write!(formatter, "'{word}' is never closed; expected ')' at the end"),
            Problem::TooLong => {
                write!(
                    formatter,
                    "too long at '{word}': at most {TERMS_MAX} tests and operators are possible"
                )
            }
            Problem::TooDeep => {
                write!(
                    formatter,
                    "too deep at '{word}': at most {DEPTH_MAX} parentheses and negations may nest"
                )
            }
            Problem::UnknownInterface => {
                write!(formatter, "no interface '{word}'; expected its name or index")
            }
            Problem::UnknownCgroup => {
                write!(formatter, "no cgroup '{word}'; expected a folder of a cgroup v2 mount, or its id")
            }
            Problem::UnknownService => {
                write!(
                    formatter,
                    "no service '{word}'; expected a port from 0 to 65535, a TCP service's name, or *"
                )
            }
        }
    }
}

impl core::error::Error for FilterError<'_> {}

#[cfg(test)]
mod tests;
