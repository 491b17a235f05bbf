//! A batch becomes bytes, once. Owns the list of formats; never sees a destination.

mod jsonl;
mod protobuf_list;

use std::fmt;

use crate::envelope::Batch;

/// Why a batch did not become bytes.
#[derive(Debug, thiserror::Error)]
pub enum MarshalError {
    /// A row is not what it should be.
    #[error("row {row} of {rows} is not a record: {source}")]
    Row {
        /// Number of the row in its batch, counted from 0.
        row: usize,
        /// Rows in the batch.
        rows: usize,
        /// What the decoder said.
        source: prost::DecodeError,
    },
    /// A record does not become JSON.
    #[error("row {row} of {rows} does not become JSON: {source}")]
    Json {
        /// Number of the row in its batch, counted from 0.
        row: usize,
        /// Rows in the batch.
        rows: usize,
        /// What the encoder said.
        source: serde_json::Error,
    },
}

/// A format.
pub trait Marshaller: Send + Sync {
    /// What `--marshal` calls it.
    fn name(&self) -> &'static str;

    /// What HTTP calls it.
    fn content_type(&self) -> &'static str;

    /// What files of it are called behind their dot.
    fn extension(&self) -> &'static str;

    /// How many of a marshalled batch's first bytes say what columns follow and are no row.
    fn header_len(&self) -> usize {
        0
    }

    /// Appends the batch to `out`, which holds rubbish behind its old end after an error.
    fn marshal(&self, batch: &Batch, out: &mut Vec<u8>) -> Result<(), MarshalError>;
}

impl fmt::Debug for dyn Marshaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for dyn Marshaller {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

/// Every format, the default first.
pub static FORMATS: [&dyn Marshaller; 2] = [&protobuf_list::ProtobufList, &jsonl::Jsonl];

/// The format for people and shells: a line a row.
pub static LINES: &dyn Marshaller = &jsonl::Jsonl;

/// No such format exists.
#[derive(Debug, thiserror::Error)]
#[error("unknown format {name:?}: the known ones are {}", known())]
pub struct UnknownFormat {
    /// What was asked for.
    pub name: String,
}

/// The format that `--marshal` calls `name`.
pub fn parse(name: &str) -> Result<&'static dyn Marshaller, UnknownFormat> {
    FORMATS
        .into_iter()
        .find(|format| format.name() == name)
        .ok_or_else(|| UnknownFormat { name: name.to_owned() })
}

fn known() -> String {
    FORMATS.map(Marshaller::name).join(", ")
}

#[cfg(test)]
mod tests;
