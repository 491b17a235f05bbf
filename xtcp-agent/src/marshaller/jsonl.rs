//! `jsonl`: each row as one line of proto3 JSON.

use prost::Message;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;

use super::{MarshalError, Marshaller, RowError, each_row};
use crate::envelope::Batch;

pub(super) struct Jsonl;

impl Marshaller for Jsonl {
    fn name(&self) -> &'static str {
        "jsonl"
    }

    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn extension(&self) -> &'static str {
        "jsonl"
    }

    fn marshal(&self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), MarshalError> {
        each_row(batch, |row| {
            write_object(row, out)?;
            out.push(b'\n');
            Ok(())
        })
    }
}

/// Writes a row as an object of proto3 JSON.
pub(super) fn write_object(row: &[u8], out: &mut Vec<u8>) -> Result<(), RowError> {
    Ok(serde_json::to_writer(out, &XtcpFlatRecord::decode(row)?)?)
}
