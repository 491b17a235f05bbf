//! `jsonl`: each row as one line of proto3 JSON.

use prost::Message;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;

use super::{MarshalError, Marshaller};
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
        let rows = batch.len();
        for (row, bytes) in batch.rows().enumerate() {
            let record =
                XtcpFlatRecord::decode(bytes).map_err(|source| MarshalError::Row { row, rows, source })?;
            serde_json::to_writer(&mut *out, &record).map_err(|source| MarshalError::Json {
                row,
                rows,
                source,
            })?;
            out.push(b'\n');
        }
        Ok(())
    }
}
