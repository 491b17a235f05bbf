//! `protobufList`: the length of an `Envelope`, then the `Envelope`. What `ClickHouse` reads as `ProtobufList`.

use super::{MarshalError, Marshaller};
use crate::envelope::Batch;

/// Key of field `row`: number 10, length-delimited.
const ROW_KEY: u8 = 10 << 3 | 2;

pub(super) struct ProtobufList;

impl Marshaller for ProtobufList {
    fn name(&self) -> &'static str {
        "protobufList"
    }

    fn content_type(&self) -> &'static str {
        "application/x-protobuf"
    }

    fn extension(&self) -> &'static str {
        "pb"
    }

    /// Rows are encoded already: they are framed and copied, not decoded.
    fn marshal(&self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), MarshalError> {
        let len = batch.envelope_len();
        out.reserve(prost::length_delimiter_len(len) + len);
        put_len(len, out);
        for row in batch.rows() {
            out.push(ROW_KEY);
            put_len(row.len(), out);
            out.extend_from_slice(row);
        }
        Ok(())
    }
}

fn put_len(len: usize, out: &mut Vec<u8>) {
    prost::encoding::encode_varint(u64::try_from(len).unwrap_or(u64::MAX), out);
}
