//! NATS subjects: `xtcp.v1.<hostname>.<netns inode>.<kind>`.

use std::collections::HashMap;

use async_nats::Subject;

use super::batch::{Kind, Meta};

/// How many subjects are remembered; beyond it they are built anew.
const REMEMBERED: usize = 16_384;

/// A text as one token of a subject: what NATS forbids in a token (space, `.`, `*`, `>`, control characters,
/// nothing at all) becomes `_`.
pub fn token(text: &str) -> String {
    if text.is_empty() {
        return "_".to_owned();
    }
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>');
    text.chars().map(|c| if forbidden(c) { '_' } else { c }).collect()
}

/// Builds subjects and remembers them.
pub(super) struct Subjects {
    prefix: String,
    known: HashMap<(u64, Kind), Subject>,
}

impl Subjects {
    pub(super) fn new(hostname: &str) -> Self {
        Self { prefix: format!("xtcp.v1.{}", token(hostname)), known: HashMap::new() }
    }

    /// The subject of an event; the inode is 0 for a loss marker.
    pub(super) fn of(&mut self, event: &Meta) -> Subject {
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        let Self { prefix, known } = self;
        known
            .entry((event.netns_inode, event.kind))
            .or_insert_with(|| format!("{prefix}.{}.{}", event.netns_inode, event.kind.name()).into())
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nats_forbids_in_a_token_becomes_an_underscore() {
        assert_eq!(token("web-1"), "web-1");
        assert_eq!(token("web-1.example.org"), "web-1_example_org");
        assert_eq!(token("a b\tc\u{a0}d"), "a_b_c_d");
        assert_eq!(token("*>"), "__");
        assert_eq!(token("\0\u{7f}\r\n"), "____");
        assert_eq!(token(""), "_");
        assert_eq!(token("büro"), "büro");
    }
}
