//! `protoJson`: a batch as one line of proto3 JSON, an `Envelope`.

use super::jsonl::write_object;
use super::{MarshalError, Marshaller, each_row};
use crate::envelope::Batch;

pub(super) struct ProtoJson;

impl Marshaller for ProtoJson {
    fn name(&self) -> &'static str {
        "protoJson"
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn extension(&self) -> &'static str {
        "json"
    }

    fn marshal(&self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), MarshalError> {
        out.extend_from_slice(b"{\"row\":[");
        let mut first = true;
        each_row(batch, |row| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            write_object(row, out)
        })?;
        out.extend_from_slice(b"]}\n");
        Ok(())
    }
}
