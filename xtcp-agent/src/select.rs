//! Which rows a destination gets: those that pass a filter, a share of all sockets, those that changed. Judges encoded rows,
//! and reads of each only what it needs; never changes one.

mod changed;
mod facts;
mod filter;
mod sample;

use crate::destination::options::{OptionInfo, Options};
use crate::selection::SocketFilter;

use changed::Changed;
use facts::Facts;
use filter::Judge;
use sample::Share;

/// Options of a destination that are read here.
pub const OPTIONS: &[OptionInfo] = &[
    OptionInfo::new(
        "filter",
        "FILTER",
        "Only sockets that pass this filter in the words of --filter; interfaces by index.",
    ),
    OptionInfo::new(
        "sample",
        "SHARE (1)",
        "Only this share of all connections, 0 to 1: all rows of both ends of one, on every host, or none.",
    ),
    OptionInfo::new(
        "changed-only",
        "true|false (false)",
        "Only rows whose counters moved since the last row of the socket that the destination was given.",
    ),
    OptionInfo::new(
        "changed-only-bytes",
        "BYTES (16MiB)",
        "What may be remembered for changed-only, about 120 bytes a socket; what was not seen for longest is forgotten.",
    ),
];

/// What may be remembered for `changed-only` unless told otherwise.
const CHANGED_BYTES: u64 = 16 << 20;

/// Which rows are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Select {
    filter: Option<SocketFilter>,
    share: Option<Share>,
    /// Bytes to remember sockets in.
    changed: Option<usize>,
}

impl Select {
    /// Reads a destination's options.
    pub fn parse(options: &Options) -> Result<Self, String> {
        let filter = options.get::<SocketFilter>("filter")?;
        if let Some(filter) = &filter {
            filter::check(filter).map_err(|problem| format!("option filter={filter}: {problem}"))?;
        }
        let share = options.get::<Share>("sample")?;
        let bytes = options.bytes("changed-only-bytes", 1 << 10, 1 << 32)?;
        let changed = match (options.switch("changed-only")?.unwrap_or(false), bytes) {
            (true, bytes) => Some(usize::try_from(bytes.unwrap_or(CHANGED_BYTES)).unwrap_or(usize::MAX)),
            (false, None) => None,
            (false, Some(_)) => return Err("option changed-only-bytes needs changed-only=true".to_owned()),
        };
        Ok(Self { filter, share: share.filter(|share| !share.is_all()), changed })
    }

    /// Whether every row passes.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Gets ready to judge rows.
    pub fn start(&self) -> Selector {
        Selector {
            judge: self.filter.clone().map(Judge::new),
            share: self.share,
            changed: self.changed.map(Changed::new),
        }
    }
}

/// Judges one row after the other.
#[derive(Debug)]
pub struct Selector {
    judge: Option<Judge>,
    share: Option<Share>,
    changed: Option<Changed>,
}

impl Selector {
    /// Whether the destination gets an encoded row. With `changed-only` a row that passes counts as given. One that is no
    /// record passes: whoever marshals it says what is wrong with it.
    pub fn passes(&mut self, row: &[u8]) -> bool {
        let Self { judge, share, changed } = self;
        let Ok(facts) = Facts::of(row, changed.is_some()) else { return true };
        judge.as_mut().is_none_or(|judge| judge.passes(&facts))
            && share.is_none_or(|share| share.takes(&facts))
            && changed.as_mut().is_none_or(|changed| changed.takes(&facts))
    }

    /// Rows that passed were lost on their way: the next row of every socket passes `changed-only` again.
    pub fn forget(&mut self) {
        if let Some(changed) = &mut self.changed {
            changed.forget();
        }
    }

    /// How many sockets `changed-only` forgot for want of room; each passes once more than it had to.
    pub fn forgotten(&self) -> u64 {
        self.changed.as_ref().map_or(0, Changed::forgotten)
    }
}

#[cfg(test)]
mod tests;
