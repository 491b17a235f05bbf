//! What was in a capture, in a few lines.

use std::collections::BTreeMap;
use std::fmt;

use nix::errno::Errno;
use xtcp_inet_diag::attr::{self, Tally};
use xtcp_inet_diag::wire::Findings;

use super::dumps::Counts;

/// Counts of one capture.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Of its conversations.
    pub(super) counts: Counts,
    /// Rows that were decoded.
    pub(super) rows: u64,
    /// Rows of them that were printed.
    pub(super) printed: u64,
    /// Datagrams whose messages could not be read to the end.
    pub(super) framing: u64,
    /// Rows shorter than a row.
    pub(super) malformed_rows: u64,
    /// Rows whose attributes could not be read to the end.
    pub(super) damaged_rows: u64,
    /// Attributes that cannot be what they say, by number.
    malformed: BTreeMap<u16, u64>,
    /// Attributes whose number is not known, by number.
    unknown: BTreeMap<u16, u64>,
    /// Of both, those whose number was not counted.
    malformed_others: u64,
    unknown_others: u64,
    /// Packets of interfaces that are not netlink.
    pub(super) other_links: u64,
}

impl Summary {
    /// Takes in how the attributes of a row were.
    pub(super) fn attributes(&mut self, findings: &Findings) {
        let Findings { unknown, malformed, damage } = findings;
        self.damaged_rows += u64::from(damage.is_some());
        count(malformed, &mut self.malformed, &mut self.malformed_others);
        count(unknown, &mut self.unknown, &mut self.unknown_others);
    }

    /// Anything was not as the kernel writes it.
    pub(super) fn is_malformed(&self) -> bool {
        self.framing > 0
            || self.malformed_rows > 0
            || self.damaged_rows > 0
            || self.counts.malformed > 0
            || !self.malformed.is_empty()
    }
}

fn count(tally: &Tally, into: &mut BTreeMap<u16, u64>, others: &mut u64) {
    if tally.is_empty() {
        return;
    }
    let mut named = 0;
    for (number, count) in tally.iter() {
        *into.entry(number).or_default() += u64::from(count);
        named += u64::from(count);
    }
    *others += u64::from(tally.total()).saturating_sub(named);
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { dumps, interrupted, without_end, errors, overruns, malformed } = &self.counts;
        writeln!(f, "dumps {dumps}, rows {}, printed {}", self.rows, self.printed)?;
        let all: u64 = errors.values().sum();
        write!(f, "interrupted dumps {interrupted}, dumps without an end {without_end}, ")?;
        write!(f, "overruns {overruns}, errors {all}")?;
        list(f, errors.iter().map(|(errno, count)| (errno_name(*errno), *count)))?;
        write!(f, "\nmalformed: datagrams {}, rows {}, ", self.framing, self.malformed_rows)?;
        write!(f, "errors {malformed}, attribute lengths {}, attributes ", self.damaged_rows)?;
        attributes(f, &self.malformed, self.malformed_others)?;
        write!(f, "\nunknown attributes ")?;
        attributes(f, &self.unknown, self.unknown_others)?;
        if self.other_links > 0 {
            write!(f, "\npackets of interfaces that are not netlink, passed over: {}", self.other_links)?;
        }
        Ok(())
    }
}

fn attributes(f: &mut fmt::Formatter<'_>, by_number: &BTreeMap<u16, u64>, others: u64) -> fmt::Result {
    write!(f, "{}", by_number.values().sum::<u64>() + others)?;
    let named = by_number.iter().map(|(number, count)| {
        let name = attr::name(*number)
            .map_or_else(|| format!("number {}", attr::Path(*number)), |name| format!("{name} = {number}"));
        (name, *count)
    });
    list(f, named.chain((others > 0).then(|| ("further numbers".to_owned(), others))))
}

/// ` (a: 1, b: 2)`, or nothing.
fn list(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = (String, u64)>) -> fmt::Result {
    let items: Vec<String> = items.map(|(name, count)| format!("{name}: {count}")).collect();
    if items.is_empty() { Ok(()) } else { write!(f, " ({})", items.join(", ")) }
}

fn errno_name(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => format!("errno {errno}"),
        known => format!("{known:?}"),
    }
}
