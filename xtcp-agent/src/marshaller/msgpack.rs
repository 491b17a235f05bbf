//! `msgpack`: a batch as one map with the key `row`, which holds a list of maps, one a row.
//!
//! A row's keys are the names of the contract. Numbers are integers of whatever width they need, `bytes` are binary
//! (addresses are sixteen bytes), an enum is its name as in JSON, or its number where the contract has no name for it.
//! What is 0 or empty is left out, as proto3 does.

use rmp::encode::{write_array_len, write_bin, write_bool, write_map_len, write_sint, write_str, write_uint};

use super::{MarshalError, Marshaller, RowError, each_row};
use crate::envelope::Batch;
use crate::fields::{Field, Kind, RowView, Value};

pub(super) struct Msgpack;

impl Marshaller for Msgpack {
    fn name(&self) -> &'static str {
        "msgpack"
    }

    fn content_type(&self) -> &'static str {
        "application/vnd.msgpack"
    }

    fn extension(&self) -> &'static str {
        "msgpack"
    }

    fn marshal(&self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), MarshalError> {
        let rows = batch.len();
        begin(rows, out).map_err(|source| MarshalError::Row { row: 0, rows, source })?;
        let mut view = RowView::default();
        each_row(batch, |row| {
            view.read(row)?;
            write_map_len(out, length(view.set().count()))?;
            view.set().try_for_each(|(field, value)| {
                write_str(out, &field.name)?;
                write(field, value, out)
            })
        })
    }
}

fn begin(rows: usize, out: &mut Vec<u8>) -> Result<(), RowError> {
    write_map_len(out, 1)?;
    write_str(out, "row")?;
    write_array_len(out, length(rows))?;
    Ok(())
}

fn write(field: &Field, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), RowError> {
    if let Value::List(list) = value {
        write_array_len(out, length(list.len()))?;
        return list.iter().try_for_each(|item| write(field, &Value::Bytes(item), out));
    }
    match field.kind {
        Kind::U32 | Kind::U64 => {
            write_uint(out, value.number())?;
        }
        Kind::I64 => {
            write_sint(out, value.number().cast_signed())?;
        }
        Kind::Bool => {
            write_bool(out, value.number() != 0).map_err(rmp::encode::ValueWriteError::InvalidDataWrite)?;
        }
        Kind::Text => write_str(out, &value.text())?,
        Kind::Bytes => write_bin(out, value.bytes())?,
        Kind::Enum(_) => match field.word(value.number()) {
            Some(word) => write_str(out, word)?,
            None => {
                write_uint(out, value.number())?;
            }
        },
    }
    Ok(())
}

/// A batch never comes near four thousand million.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
