//! From words to the tree.

use super::expression::{Comparison, DEPTH_MAX, Expression, Named, Node, NodeId, Test};
use super::word::{Word, Words};
use super::{Filter, FilterError, Problem, operand};
use crate::bytecode::Side;
use crate::state::States;

const TEST: &str = "src, dst, sport, dport, dev, fwmark, cgroup, autobound, not or '('";
const STATE: &str = "a state: established, syn-sent, syn-recv, fin-wait-1, fin-wait-2, time-wait, closed, close-wait, \
                     last-ack, listening, closing, bound-inactive, all, connected, synchronized, bucket or big";

/// Reads a whole text.
pub(super) fn filter(text: &str) -> Result<Filter<'_>, FilterError<'_>> {
    let mut parser = Parser { words: Words::new(text), expression: Expression::EMPTY, depth: 0 };
    let states = parser.states()?;
    if !parser.words.peek().is_end() {
        parser.list()?;
        let rest = parser.words.peek();
        if !rest.is_end() {
            return Err(rest.expected("and, or, another test, or the end"));
        }
    }
    Ok(Filter { states, expression: parser.expression })
}

struct Parser<'t> {
    words: Words<'t>,
    expression: Expression<'t>,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn states(&mut self) -> Result<Option<States>, FilterError<'t>> {
        let mut states = None;
        loop {
            let word = self.words.peek();
            let adds = word.is(&["state"]);
            if !adds && !word.is(&["exclude"]) {
                return Ok(states);
            }
            self.words.take();
            let name = self.words.take_value()?;
            let named = States::parse(name.text).ok().filter(|named| !named.is_empty());
            let named = named.ok_or_else(|| name.expected(STATE))?;
            states = Some(match states {
                None if adds => named,
                None => States::ALL.without(named),
                Some(states) if adds => states | named,
                Some(states) => states.without(named),
            });
        }
    }

    /// Terms joined from left to right.
    fn list(&mut self) -> Result<NodeId, FilterError<'t>> {
        let mut left = self.term()?;
        loop {
            let word = self.words.peek();
            if word.is_end() || word.text == ")" {
                return Ok(left);
            }
            let either = word.is(&["or", "|", "||"]);
            if either || word.is(&["and", "&", "&&"]) {
                self.words.take();
            }
            let right = self.term()?;
            let node = if either { Node::Or(left, right) } else { Node::And(left, right) };
            left = self.expression.push(node, word)?;
        }
    }

    fn term(&mut self) -> Result<NodeId, FilterError<'t>> {
        let word = self.words.take();
        let negated = word.is(&["not", "!"]);
        if !negated && word.text != "(" {
            return self.test(word);
        }
        if self.depth >= DEPTH_MAX {
            return Err(word.error(Problem::TooDeep));
        }
        self.depth = self.depth.saturating_add(1);
        let id = if negated {
            let inner = self.term()?;
            self.expression.push(Node::Not(inner), word)?
        } else {
            let inner = self.list()?;
            if self.words.take().text != ")" {
                return Err(word.error(Problem::Unclosed));
            }
            inner
        };
        self.depth = self.depth.saturating_sub(1);
        Ok(id)
    }

    fn test(&mut self, word: Word<'t>) -> Result<NodeId, FilterError<'t>> {
        let (test, comparison) = if word.is(&["src"]) {
            self.host(Side::Source)?
        } else if word.is(&["dst"]) {
            self.host(Side::Destination)?
        } else if word.is(&["sport"]) {
            self.port(Side::Source)?
        } else if word.is(&["dport"]) {
            self.port(Side::Destination)?
        } else if word.is(&["dev"]) {
            let comparison = self.equality()?;
            let name = self.value("an interface's name or index")?;
            (Test::Device(named(name, |number| u32::try_from(number).ok())), comparison)
        } else if word.is(&["fwmark"]) {
            let comparison = self.equality()?;
            (operand::mark(self.words.take_value()?)?, comparison)
        } else if word.is(&["cgroup"]) {
            let comparison = self.equality()?;
            let path = self.value("a cgroup's path or id")?;
            (Test::Cgroup(named(path, Some)), comparison)
        } else if word.is(&["autobound"]) {
            (Test::Autobound, Comparison::Eq)
        } else if word.is(&["state", "exclude"]) {
            return Err(word.expected("states in front of all tests only"));
        } else {
            return Err(word.expected(TEST));
        };
        let id = self.expression.push(Node::Test(test), word)?;
        match comparison {
            Comparison::Ne => self.expression.push(Node::Not(id), word),
            Comparison::Eq | Comparison::Ge | Comparison::Le | Comparison::Gt | Comparison::Lt => Ok(id),
        }
    }

    fn host(&mut self, side: Side) -> Result<(Test<'t>, Comparison), FilterError<'t>> {
        let comparison = self.equality()?;
        Ok((operand::host(side, self.words.take_value()?)?, comparison))
    }

    fn port(&mut self, side: Side) -> Result<(Test<'t>, Comparison), FilterError<'t>> {
        let comparison = self.comparison();
        let word = self.words.take_value()?;
        let ordered = match comparison {
            Comparison::Eq | Comparison::Ne => false,
            Comparison::Ge | Comparison::Le | Comparison::Gt | Comparison::Lt => true,
        };
        match operand::port(word)? {
            Some(port) if ordered => Ok((Test::Port { side, comparison, port }, Comparison::Eq)),
            None if ordered => Err(word.expected("a port to compare with")),
            port => {
                let any = Test::Host { side, family: None, address: [0; 16], prefix: 0, port };
                Ok((any, comparison))
            }
        }
    }

    /// A comparison if there is one, else equality.
    fn comparison(&mut self) -> Comparison {
        let word = self.words.peek();
        let known = [
            (Comparison::Eq, ["=", "==", "eq"].as_slice()),
            (Comparison::Ne, &["!=", "ne", "neq"]),
            (Comparison::Ge, &[">=", "ge", "geq"]),
            (Comparison::Le, &["<=", "le", "leq"]),
            (Comparison::Gt, &[">", "gt"]),
            (Comparison::Lt, &["<", "lt"]),
        ];
        match known.into_iter().find(|(_, words)| word.is(words)) {
            Some((comparison, _)) => {
                self.words.take();
                comparison
            }
            None => Comparison::Eq,
        }
    }

    /// As [`Self::comparison`], where there is no order.
    fn equality(&mut self) -> Result<Comparison, FilterError<'t>> {
        let word = self.words.peek();
        match self.comparison() {
            equal @ (Comparison::Eq | Comparison::Ne) => Ok(equal),
            Comparison::Ge | Comparison::Le | Comparison::Gt | Comparison::Lt => {
                Err(word.expected("= or !="))
            }
        }
    }

    fn value(&mut self, what: &'static str) -> Result<Word<'t>, FilterError<'t>> {
        let word = self.words.take_value()?;
        if word.is_end() { Err(word.expected(what)) } else { Ok(word) }
    }
}

fn named<N>(word: Word<'_>, narrow: impl Fn(u64) -> Option<N>) -> Named<'_, N> {
    operand::number(word.text).and_then(narrow).map_or(Named::Name(word), Named::Number)
}
