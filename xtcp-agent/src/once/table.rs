//! A table like that of `ss`, as it comes: the first rows decide how wide each column is, a wider one later widens it.

mod words;

use std::io::Write;
use std::sync::Arc;

use prost::Message;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;

use crate::columns::Align::{Left, Right};
use crate::columns::{Column, Columns, plain};
use crate::marshaller::MarshalError;
use crate::printer::{PrintError, Printer};
use crate::record::Rows;

/// Rows that are looked at before the first is drawn, and drawn at once from there on.
const AT_ONCE: usize = 1_000;
/// Netns, state, two queues, and address and port of both ends, which meet at their colons; then the rest.
const COLUMNS: [Column; 8] = [
    Column::new("Netns", Left),
    Column::new("State", Left),
    Column::new("Recv-Q", Right),
    Column::new("Send-Q", Right),
    Column::new("Local Address", Right),
    Column::new("Port", Left).behind(":"),
    Column::new("Peer Address", Right),
    Column::new("Port", Left).behind(":"),
];

/// Cells, and the rest.
type Line = ([String; COLUMNS.len()], String);

/// Draws rows.
pub(super) struct Table<W> {
    wide: bool,
    to: W,
    columns: Columns<{ COLUMNS.len() }>,
    waiting: Vec<Line>,
    text: String,
    begun: bool,
}

impl<W: Write> Table<W> {
    /// `wide`: with timers, memory and `tcp_info` at the end of each line.
    pub(super) fn new(wide: bool, to: W) -> Self {
        let (columns, text) = (Columns::new(COLUMNS, ""), String::new());
        Self { wide, to, columns, waiting: Vec::new(), text, begun: false }
    }

    fn draw(&mut self) -> Result<(), PrintError> {
        self.text.clear();
        for (cells, _) in &self.waiting {
            self.columns.measure(cells);
        }
        if !self.begun {
            self.begun = true;
            self.columns.measure_titles();
            self.columns.draw_titles(&mut self.text);
        }
        for (cells, rest) in self.waiting.drain(..) {
            self.columns.draw(&mut self.text, &cells, &rest);
        }
        Ok(self.to.write_all(self.text.as_bytes())?)
    }
}

impl<W: Write> Printer for Table<W> {
    fn print(&mut self, rows: &Arc<Rows>) -> Result<(), PrintError> {
        let all = rows.len();
        for (row, bytes) in rows.iter().enumerate() {
            let record = XtcpFlatRecord::decode(bytes).map_err(|source| MarshalError::Row {
                row,
                rows: all,
                source: source.into(),
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
    let cells = [
        plain(&record.netns),
        words::state(record.inet_diag_msg_state),
        record.inet_diag_msg_rqueue.to_string(),
        record.inet_diag_msg_wqueue.to_string(),
        local,
        port(record.inet_diag_msg_socket_source_port),
        peer,
        port(record.inet_diag_msg_socket_destination_port),
    ];
    (cells, if wide { words::details(record) } else { String::new() })
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
