//! Draws namespaces, as a table or as JSON, all at once or as they come.

use std::io::{self, Write};
use std::time::SystemTime;

use serde::Serialize;
use xtcp_proto::netns::v1::{Netns, NetnsChange, NetnsChangeKind};

use super::line::{self, COLUMNS, Object, REST};
use crate::columns::Columns;

/// A time of day before each line of a table that is watched: `12:34:56.789 + `.
const TIME: std::ops::Range<usize> = 11..23;

/// Cells as wide as most are: what comes later stands under the titles too.
const USUAL: [&str; COLUMNS.len()] = [
    "netns:[4026531840]",
    "4026531840",
    "1000000",
    "100",
    "incomplete",
    "10000",
    "59m59s",
    "59m59s",
    "999ms",
    "",
];

/// A namespace, and what happened to it.
#[derive(Serialize)]
struct Change<'a> {
    /// `exists`, `created`, `changed` or `destroyed`.
    what: &'static str,
    /// RFC 3339.
    time: Option<String>,
    #[serde(flatten)]
    netns: Object<'a>,
}

/// Where namespaces are shown.
pub(super) struct Show<W> {
    json: bool,
    watch: bool,
    columns: Columns<{ COLUMNS.len() }>,
    to: W,
}

impl<W: Write> Show<W> {
    /// As JSON or as a table; with what happened, or without.
    pub(super) fn new(json: bool, watch: bool, to: W) -> Self {
        Self { json, watch, columns: Columns::new(COLUMNS, REST), to }
    }

    /// Shows these together.
    pub(super) fn all(&mut self, all: &[Netns], now: SystemTime) -> io::Result<()> {
        let mut text = String::new();
        if self.json {
            for netns in all {
                push_json(&mut text, &line::object(netns, now))?;
            }
        } else {
            let lines: Vec<_> = all.iter().map(|netns| line::cells(netns, now)).collect();
            self.columns.measure_titles();
            if self.watch {
                self.columns.measure(&USUAL.map(str::to_owned));
            }
            for (cells, _) in &lines {
                self.columns.measure(cells);
            }
            text.push_str(if self.watch { "Time (UTC)     " } else { "" });
            self.columns.draw_titles(&mut text);
            for (cells, rest) in &lines {
                if self.watch {
                    push_time(&mut text, now, ' ');
                }
                self.columns.draw(&mut text, cells, rest);
            }
        }
        self.to.write_all(text.as_bytes())?;
        self.to.flush()
    }

    /// Shows what there was when watching began.
    pub(super) fn existing(&mut self, all: &[Netns], now: SystemTime) -> io::Result<()> {
        if !self.json {
            return self.all(all, now);
        }
        let mut text = String::new();
        for netns in all {
            let time = Some(line::stamp(now));
            push_json(&mut text, &Change { what: "exists", time, netns: line::object(netns, now) })?;
        }
        self.to.write_all(text.as_bytes())?;
        self.to.flush()
    }

    /// Shows what happened.
    pub(super) fn change(&mut self, change: &NetnsChange) -> io::Result<()> {
        let (Some(netns), Some((what, sign))) = (&change.netns, words(change.kind())) else { return Ok(()) };
        // Ages and times as they were then.
        let time = line::time(change.timestamp_ns);
        let then = time.unwrap_or_else(SystemTime::now);
        let mut text = String::new();
        if self.json {
            let time = time.map(line::stamp);
            push_json(&mut text, &Change { what, time, netns: line::object(netns, then) })?;
        } else {
            let (cells, rest) = line::cells(netns, then);
            self.columns.measure(&cells);
            push_time(&mut text, then, sign);
            self.columns.draw(&mut text, &cells, &rest);
        }
        self.to.write_all(text.as_bytes())?;
        self.to.flush()
    }
}

fn words(kind: NetnsChangeKind) -> Option<(&'static str, char)> {
    match kind {
        NetnsChangeKind::Exists => Some(("exists", ' ')),
        NetnsChangeKind::Created => Some(("created", '+')),
        NetnsChangeKind::Changed => Some(("changed", '~')),
        NetnsChangeKind::Destroyed => Some(("destroyed", '-')),
        NetnsChangeKind::Unspecified | NetnsChangeKind::AllTold | NetnsChangeKind::Missed => None,
    }
}

fn push_time(text: &mut String, time: SystemTime, sign: char) {
    let stamp = line::stamp(time);
    text.push_str(stamp.get(TIME).unwrap_or_default());
    text.extend([' ', sign, ' ']);
}

fn push_json(text: &mut String, object: &impl Serialize) -> io::Result<()> {
    text.push_str(&serde_json::to_string(object)?);
    text.push('\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netns(name: &str, inode: u32) -> Netns {
        Netns { inode, name: name.to_owned(), doors: vec!["own namespace".to_owned()], ..Netns::default() }
    }

    #[test]
    fn what_is_watched_has_its_time_and_a_sign_and_keeps_its_columns() {
        let mut out = Vec::new();
        let mut show = Show::new(false, true, &mut out);
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(12_345);
        show.existing(&[netns("default", 4_026_531_840)], at).unwrap();
        let change = |kind: NetnsChangeKind| NetnsChange {
            kind: kind.into(),
            netns: Some(netns("blue", 1)),
            timestamp_ns: 13_000_000_000,
            missed: 0,
        };
        show.change(&change(NetnsChangeKind::Created)).unwrap();
        show.change(&change(NetnsChangeKind::Missed)).unwrap();
        show.change(&change(NetnsChangeKind::Destroyed)).unwrap();
        let expected = "\
Time (UTC)     Name                     Inode   Cookie  Nsid  State       Sockets     Age  Dumped   Took  Owner  Reached by
00:00:12.345   default             4026531840        -     -  unknown           -       -       -      -  -      own namespace
00:00:13.000 + blue                         1        -     -  unknown           -       -       -      -  -      own namespace
00:00:13.000 - blue                         1        -     -  unknown           -       -       -      -  -      own namespace
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn watched_objects_say_what_happened_and_listed_ones_do_not() {
        let mut out = Vec::new();
        let mut show = Show::new(true, true, &mut out);
        show.existing(&[netns("default", 1)], SystemTime::UNIX_EPOCH).unwrap();
        show.all(&[netns("default", 1)], SystemTime::UNIX_EPOCH).unwrap();
        let lines: Vec<serde_json::Value> =
            String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["what"], "exists");
        assert_eq!(lines[0]["name"], "default");
        assert!(lines[1].get("what").is_none());
    }
}
