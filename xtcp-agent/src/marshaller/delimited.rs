//! `csv` (RFC 4180) and `tsv` (as databases read it): a line of names, then a line a row.
//!
//! Columns are the record's fields as they are declared, or those of `--columns`. Numbers are decimal, 0 included; `bool`
//! is `true` or `false`; an enum is its name as in JSON, or its number where the contract has no name for it. Addresses
//! are written as people write them, other `bytes` in hexadecimal, the items of a list with commas between them. What is
//! absent and not 0 (`skv6only`, `tcp_info_ecn_mode`) is empty in csv and `\N` in tsv.
//!
//! A csv field with a comma, a quote or a line's end in it stands in quotes, quotes in it are doubled, and lines end with
//! CR LF. In tsv tab, line feed, carriage return and backslash are `\t`, `\n`, `\r` and `\\`, and lines end with LF.

use std::io::Write;
use std::sync::OnceLock;

use super::{Layout, MarshalError, Marshaller, each_row};
use crate::envelope::Batch;
use crate::fields::{self, DESTINATION, FAMILY, Field, Kind, RowView, SOURCE, Value};
use crate::words;

pub(super) static CSV: Delimited = Delimited::new(Dialect::Csv);
pub(super) static TSV: Delimited = Delimited::new(Dialect::Tsv);

#[derive(Clone, Copy)]
enum Dialect {
    Csv,
    Tsv,
}

pub(super) struct Delimited {
    dialect: Dialect,
    layout: OnceLock<Layout>,
    head: OnceLock<Vec<u8>>,
}

impl Delimited {
    const fn new(dialect: Dialect) -> Self {
        Self { dialect, layout: OnceLock::new(), head: OnceLock::new() }
    }

    fn columns(&self) -> &Layout {
        self.layout.get_or_init(Layout::default)
    }

    /// The line of names.
    fn head(&self) -> &[u8] {
        self.head.get_or_init(|| {
            let (layout, mut line) = (self.columns(), Vec::new());
            if layout.header {
                for field in layout.columns.iter().filter_map(|place| fields::all().get(*place)) {
                    line.extend_from_slice(field.name.as_bytes());
                    line.push(self.dialect.separator());
                }
                self.dialect.end_line(&mut line);
            }
            line
        })
    }
}

impl Marshaller for Delimited {
    fn name(&self) -> &'static str {
        match self.dialect {
            Dialect::Csv => "csv",
            Dialect::Tsv => "tsv",
        }
    }

    fn content_type(&self) -> &'static str {
        match (self.dialect, self.columns().header) {
            (Dialect::Csv, true) => "text/csv; charset=utf-8; header=present",
            (Dialect::Csv, false) => "text/csv; charset=utf-8; header=absent",
            (Dialect::Tsv, _) => "text/tab-separated-values; charset=utf-8",
        }
    }

    fn extension(&self) -> &'static str {
        self.name()
    }

    fn header_len(&self) -> usize {
        self.head().len()
    }

    fn layout(&self) -> Option<&Layout> {
        Some(self.columns())
    }

    fn laid_out(&self, layout: Layout) -> Option<&'static dyn Marshaller> {
        let other = Self { layout: OnceLock::from(layout), ..Self::new(self.dialect) };
        Some(Box::leak(Box::new(other)))
    }

    fn marshal(&self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), MarshalError> {
        out.extend_from_slice(self.head());
        let (layout, dialect) = (self.columns(), self.dialect);
        let (mut view, mut cell) = (RowView::default(), Vec::new());
        each_row(batch, |row| {
            view.read(row)?;
            let begin = out.len();
            for place in &layout.columns {
                if let Some(field) = fields::all().get(*place) {
                    dialect.write(field, view.at(*place), &view, &mut cell, out);
                }
                out.push(dialect.separator());
            }
            // An empty line is no row to readers of csv.
            if out.len() == begin + 1 && matches!(dialect, Dialect::Csv) {
                out.extend_from_slice(b"\"\",");
                out.remove(begin);
            }
            dialect.end_line(out);
            Ok(())
        })
    }
}

impl Dialect {
    const fn separator(self) -> u8 {
        match self {
            Self::Csv => b',',
            Self::Tsv => b'\t',
        }
    }

    /// In place of the last separator.
    fn end_line(self, line: &mut Vec<u8>) {
        line.pop();
        match self {
            Self::Csv => line.extend_from_slice(b"\r\n"),
            Self::Tsv => line.push(b'\n'),
        }
    }

    fn write(
        self,
        field: &Field,
        value: &Value<'_>,
        row: &RowView<'_>,
        cell: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        match &field.kind {
            _ if field.optional && *value == Value::Absent => match self {
                Self::Csv => {}
                Self::Tsv => out.extend_from_slice(b"\\N"),
            },
            Kind::U32 | Kind::U64 => number(value.number(), out),
            // Writing to a vector does not fail.
            Kind::I64 => drop(write!(out, "{}", value.number().cast_signed())),
            Kind::Bool => out.extend_from_slice(if value.number() == 0 { b"false" } else { b"true" }),
            Kind::Enum(_) => match field.word(value.number()) {
                Some(word) => out.extend_from_slice(word.as_bytes()),
                None => number(value.number(), out),
            },
            Kind::Bytes => bytes(field, value.bytes(), row, out),
            Kind::Text => match value {
                Value::List(list) => {
                    cell.clear();
                    for item in list {
                        cell.extend_from_slice(item);
                        cell.push(b',');
                    }
                    cell.pop();
                    self.text(cell, out);
                }
                _ => self.text(value.bytes(), out),
            },
        }
    }

    fn text(self, text: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Csv if text.iter().any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n')) => {
                out.push(b'"');
                for byte in text {
                    out.extend_from_slice(if *byte == b'"' { b"\"\"" } else { std::slice::from_ref(byte) });
                }
                out.push(b'"');
            }
            Self::Csv => out.extend_from_slice(text),
            Self::Tsv => {
                for byte in text {
                    out.extend_from_slice(match byte {
                        b'\t' => b"\\t",
                        b'\n' => b"\\n",
                        b'\r' => b"\\r",
                        b'\\' => b"\\\\",
                        other => std::slice::from_ref(other),
                    });
                }
            }
        }
    }
}

fn number(number: u64, out: &mut Vec<u8>) {
    // Most are.
    if number == 0 {
        out.push(b'0');
    } else {
        // Writing to a vector does not fail.
        drop(write!(out, "{number}"));
    }
}

fn bytes(field: &Field, bytes: &[u8], row: &RowView<'_>, out: &mut Vec<u8>) {
    if matches!(field.number, SOURCE | DESTINATION) && !bytes.is_empty() {
        let family = u32::try_from(row.get(FAMILY).number()).unwrap_or(0);
        // Writing to a vector does not fail.
        return drop(write!(out, "{}", words::address(family, bytes)));
    }
    for byte in bytes {
        drop(write!(out, "{byte:02x}"));
    }
}
