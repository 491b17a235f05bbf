//! A marshalled batch becomes a Parquet file in memory.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};

use super::columns::{Columns, RowError, take};

/// Number of the rows in an `Envelope`.
const ROW: u32 = 10;
/// The column whose first value names the file.
const TIME: &str = "timestamp_ns";

/// Why a batch becomes no file.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncodeError {
    #[error("{0}")]
    Row(#[from] RowError),
    #[error("what should be an envelope is none: {0}")]
    Envelope(#[from] prost::DecodeError),
    #[error("the columns do not fit together: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    #[error("{0}")]
    Parquet(#[from] ParquetError),
}

/// A Parquet file.
pub(super) struct Object {
    pub(super) bytes: Bytes,
    /// Time of its first row, nanoseconds since the epoch; 0 when it has none.
    pub(super) first_ns: i64,
}

/// Reads the envelopes of a protobufList and writes their rows.
pub(super) fn encode(columns: &Columns, mut list: &[u8], zstd: i32) -> Result<Object, EncodeError> {
    let mut rows = columns.rows();
    while !list.is_empty() {
        let mut envelope = take(&mut list)?;
        while !envelope.is_empty() {
            match decode_key(&mut envelope)? {
                (ROW, WireType::LengthDelimited) => rows.push(take(&mut envelope)?)?,
                (field, wire) => skip_field(wire, field, &mut envelope, DecodeContext::default())?,
            }
        }
    }
    let batch = RecordBatch::try_new(Arc::clone(&columns.schema), rows.finish())?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(zstd)?))
        .set_created_by(concat!("xtcp2-agent ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, Arc::clone(&columns.schema), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(Object { bytes: bytes.into(), first_ns: first_ns(&batch) })
}

fn first_ns(batch: &RecordBatch) -> i64 {
    batch
        .column_by_name(TIME)
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .filter(|times| !times.is_empty())
        .map_or(0, |times| times.value(0))
}
