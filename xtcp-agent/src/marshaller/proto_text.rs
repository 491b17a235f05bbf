//! `protoText`: a batch as one line of protobuf's text format, an `Envelope`.

use prost_reflect::DynamicMessage;

use super::{MarshalError, Marshaller, RowError, each_row};
use crate::envelope::Batch;
use crate::fields;

pub(super) struct ProtoText;

impl Marshaller for ProtoText {
    fn name(&self) -> &'static str {
        "protoText"
    }

    fn content_type(&self) -> &'static str {
        "text/plain; charset=utf-8"
    }

    fn extension(&self) -> &'static str {
        "txtpb"
    }

    /// Row by row: a batch as one message of a library would take many times its bytes.
    fn marshal(&self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), MarshalError> {
        let mut first = true;
        each_row(batch, |row| {
            let record = fields::record().ok_or(RowError::Descriptor)?;
            let message = DynamicMessage::decode(record.clone(), row)?;
            let space = if std::mem::take(&mut first) { "" } else { " " };
            for part in [space, "row{", &message.to_text_format(), "}"] {
                out.extend_from_slice(part.as_bytes());
            }
            Ok(())
        })?;
        out.push(b'\n');
        Ok(())
    }
}
