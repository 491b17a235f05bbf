//! `humanize`: each row as one JSON object for people: what the kernel has as numbers stands in words.
//!
//! Keys are the names of the contract, in its order; what is 0 or empty is left out. Moments are RFC 3339 in UTC, times have
//! their unit, rates are in bits a second, addresses, states, algorithms and options are as `ss` and people write them,
//! other bytes are hexadecimal. A number that has no word stays a number.

mod shown;

use serde_json::to_writer;

use super::{MarshalError, Marshaller, RowError, each_row};
use crate::envelope::Batch;
use crate::fields::RowView;

pub(super) struct Humanize;

impl Marshaller for Humanize {
    fn name(&self) -> &'static str {
        "humanize"
    }

    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn extension(&self) -> &'static str {
        "jsonl"
    }

    fn marshal(&self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), MarshalError> {
        let mut view = RowView::default();
        each_row(batch, |row| {
            view.read(row)?;
            write(&view, out)
        })
    }
}

fn write(row: &RowView<'_>, out: &mut Vec<u8>) -> Result<(), RowError> {
    out.push(b'{');
    let mut first = true;
    for (field, value) in row.set() {
        let Some((name, shown)) = shown::shown(field, value, row) else { continue };
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        to_writer(&mut *out, name)?;
        out.push(b':');
        to_writer(&mut *out, &shown)?;
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}
