//! A table like that of `ss`, as it comes: the first rows decide how wide each column is, a wider one later widens it.
//!
//! Crates for tables (comfy-table, tabled) hold all rows before they draw one; a host may have a million.

mod words;

use std::io::Write;
use std::sync::Arc;

use prost::Message;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;

use crate::marshaller::MarshalError;
use crate::printer::{PrintError, Printer};
use crate::record::Rows;

/// Rows that are looked at before the first is drawn, and drawn at once from there on.
const AT_ONCE: usize = 1_000;
/// Netns, state, two queues, and address and port of both ends; then the rest.
const COLUMNS: usize = 8;
const REST: usize = COLUMNS;
const HEADER: [&str; COLUMNS + 1] =
    ["Netns", "State", "Recv-Q", "Send-Q", "Local Address", "Port", "Peer Address", "Port", ""];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// Addresses and ports meet at their colons.
const ALIGN: [Align; COLUMNS] = [
    Align::Left,
    Align::Left,
    Align::Right,
    Align::Right,
    Align::Right,
    Align::Left,
    Align::Right,
    Align::Left,
];

type Line = [String; COLUMNS + 1];

/// Draws rows.
pub(super) struct Table<W> {
    wide: bool,
    to: W,
    widths: [usize; COLUMNS],
    waiting: Vec<Line>,
    text: String,
    begun: bool,
}

impl<W: Write> Table<W> {
    /// `wide`: with timers, memory and `tcp_info` at the end of each line.
    pub(super) fn new(wide: bool, to: W) -> Self {
        let text = String::new();
        Self { wide, to, widths: [0; COLUMNS], waiting: Vec::new(), text, begun: false }
    }

    fn draw(&mut self) -> Result<(), PrintError> {
        let header = (!self.begun).then(|| HEADER.map(str::to_owned));
        self.begun = true;
        self.text.clear();
        let lines: Vec<Line> = header.into_iter().chain(self.waiting.drain(..)).collect();
        for line in &lines {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for line in &lines {
            draw_line(&mut self.text, &self.widths, line);
        }
        Ok(self.to.write_all(self.text.as_bytes())?)
    }
}

fn draw_line(text: &mut String, widths: &[usize; COLUMNS], line: &Line) {
    let begin = text.len();
    for (number, ((width, align), cell)) in widths.iter().zip(ALIGN).zip(line).enumerate() {
        let gap = match number {
            0 => "",
            // Between address and port.
            5 | 7 => ":",
            _ => "  ",
        };
        text.push_str(gap);
        let fill = " ".repeat(width.saturating_sub(cell.chars().count()));
        match align {
            Align::Left => text.extend([cell.as_str(), &fill]),
            Align::Right => text.extend([&fill, cell.as_str()]),
        }
    }
    if let Some(rest) = line.get(REST).filter(|rest| !rest.is_empty()) {
        text.extend(["  ", rest]);
    }
    let end = text.get(begin..).unwrap_or_default().trim_end_matches(' ').len();
    text.truncate(begin + end);
    text.push('\n');
}

impl<W: Write> Printer for Table<W> {
    fn print(&mut self, rows: &Arc<Rows>) -> Result<(), PrintError> {
        let all = rows.len();
        for (row, bytes) in rows.iter().enumerate() {
            let record = XtcpFlatRecord::decode(bytes).map_err(|source| MarshalError::Row {
                row,
                rows: all,
                source,
            })?;
            self.waiting.push(line(&record, self.wide));
        }
        if self.waiting.len() >= AT_ONCE { self.draw() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<(), PrintError> {
        if !self.begun || !self.waiting.is_empty() {
            self.draw()?;
        }
        Ok(self.to.flush()?)
    }
}

fn line(record: &XtcpFlatRecord, wide: bool) -> Line {
    let [local, peer] = words::addresses(record);
    let port = |port: u32| if port == 0 { "*".to_owned() } else { port.to_string() };
    [
        plain(&record.netns),
        words::state(record.inet_diag_msg_state),
        record.inet_diag_msg_rqueue.to_string(),
        record.inet_diag_msg_wqueue.to_string(),
        local,
        port(record.inet_diag_msg_socket_source_port),
        peer,
        port(record.inet_diag_msg_socket_destination_port),
        if wide { words::details(record) } else { String::new() },
    ]
}

/// A name without what a terminal would obey: whoever may bind a namespace may choose it.
fn plain(name: &str) -> String {
    name.chars()
        .flat_map(|c| {
            let escape = c.is_control().then(|| c.escape_default());
            let itself = (!c.is_control()).then_some(c);
            escape.into_iter().flatten().chain(itself)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(netns: &str, port: u32) -> XtcpFlatRecord {
        let address = |last: u8| [&[127, 0, 0, last][..], &[0; 12]].concat();
        XtcpFlatRecord {
            netns: netns.to_owned(),
            inet_diag_msg_family: 2,
            inet_diag_msg_state: 1,
            inet_diag_msg_socket_source: address(1),
            inet_diag_msg_socket_destination: address(100),
            inet_diag_msg_socket_source_port: port,
            inet_diag_msg_socket_destination_port: 443,
            inet_diag_msg_rqueue: 7,
            ..XtcpFlatRecord::default()
        }
    }

    fn drawn(records: &[XtcpFlatRecord]) -> String {
        let mut rows = Rows::default();
        for record in records {
            rows.push(record);
        }
        let mut out = Vec::new();
        let mut table = Table::new(false, &mut out);
        table.print(&Arc::new(rows)).unwrap();
        table.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_colons_meet() {
        let mut listener = record("blue", 22);
        listener.inet_diag_msg_state = 10;
        listener.inet_diag_msg_socket_destination = vec![0; 16];
        listener.inet_diag_msg_socket_destination_port = 0;
        let expected = "\
Netns    State   Recv-Q  Send-Q  Local Address:Port   Peer Address:Port
default  ESTAB        7       0      127.0.0.1:50000   127.0.0.100:443
blue     LISTEN       7       0      127.0.0.1:22          0.0.0.0:*
";
        assert_eq!(drawn(&[record("default", 50_000), listener]), expected);
    }

    #[test]
    fn a_table_without_rows_has_its_header() {
        assert_eq!(drawn(&[]), "Netns  State  Recv-Q  Send-Q  Local Address:Port  Peer Address:Port\n");
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        assert!(drawn(&[record("a\x1b[2Jb", 1)]).contains("a\\u{1b}[2Jb"));
    }

    #[test]
    fn more_rows_than_are_looked_at_first_still_have_one_header() {
        let records: Vec<_> = (1..=2_500).map(|port| record("default", port)).collect();
        let drawn = drawn(&records);
        assert_eq!((drawn.lines().count(), drawn.matches("Netns").count()), (2_501, 1));
    }
}
