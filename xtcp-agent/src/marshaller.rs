//! A batch becomes bytes, once. Owns the list of formats; never sees a destination.

mod delimited;
mod humanize;
mod jsonl;
mod msgpack;
mod proto_json;
mod proto_text;
mod protobuf_list;

use std::collections::HashSet;
use std::fmt;

use crate::config::nearest;
use crate::destination::options::{OptionInfo, Options};
use crate::envelope::Batch;
use crate::fields;

/// Why a batch did not become bytes.
#[derive(Debug, thiserror::Error)]
pub enum MarshalError {
    /// A row is not what it should be.
    #[error("row {row} of {rows} {source}")]
    Row {
        /// Number of the row in its batch, counted from 0.
        row: usize,
        /// Rows in the batch.
        rows: usize,
        /// What is wrong with it.
        source: RowError,
    },
}

/// Why a row did not become bytes.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// It is no record.
    #[error("is not a record: {0}")]
    Decode(#[from] prost::DecodeError),
    /// The encoder of JSON does not take it.
    #[error("does not become JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The encoder of msgpack does not take it.
    #[error("does not become msgpack: {0}")]
    Msgpack(#[from] rmp::encode::ValueWriteError),
    /// The program's own copy of the contract is damaged.
    #[error("does not become text: the contract's descriptor cannot be read")]
    Descriptor,
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

    /// Its columns, if it is a format that has some.
    fn layout(&self) -> Option<&Layout> {
        None
    }

    /// The same format in another layout, which is kept as long as the program runs; `None` for one without columns.
    fn laid_out(&self, layout: Layout) -> Option<&'static dyn Marshaller> {
        let _ = layout;
        None
    }
}

/// What is written of a format that has columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Places in [`fields::all`], in the order of the columns.
    columns: Vec<usize>,
    /// Whether the first line names them.
    header: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self { columns: (0..fields::all().len()).collect(), header: true }
    }
}

impl fmt::Debug for dyn Marshaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Equal are those that make the same bytes.
impl PartialEq for dyn Marshaller {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.layout() == other.layout()
    }
}

/// Every format, the default first.
pub static FORMATS: [&dyn Marshaller; 8] = [
    &protobuf_list::ProtobufList,
    &proto_json::ProtoJson,
    &proto_text::ProtoText,
    &msgpack::Msgpack,
    &jsonl::Jsonl,
    &humanize::Humanize,
    &delimited::CSV,
    &delimited::TSV,
];

/// The format for people and shells: a line a row.
pub static LINES: &dyn Marshaller = &jsonl::Jsonl;

/// A destination's option: what columns its format has.
pub const COLUMNS: OptionInfo =
    OptionInfo::new("columns", "NAME,NAME,… (--columns)", "Columns of csv and tsv, in this order.");

/// A destination's option: whether its format begins with a header.
pub const HEADER: OptionInfo =
    OptionInfo::new("header", "true|false (--header)", "Whether csv and tsv begin with a line of names.");

/// There is no such format, or it cannot be as it was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// No such format exists.
    #[error("unknown format {name:?}: the known ones are {}", known())]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The format has no columns, and so no line that names them.
    #[error("format {name} has no columns: csv and tsv have")]
    NoColumns {
        /// Which format.
        name: &'static str,
    },
    /// The record has no such field.
    #[error(
        "unknown column {name:?}{}; `xtcp2-agent schema --format columns` lists them all",
        .near.map(|near| format!("; did you mean {near}?")).unwrap_or_default()
    )]
    UnknownColumn {
        /// What was asked for.
        name: String,
        /// What may have been meant.
        near: Option<&'static str>,
    },
    /// A column is asked for twice.
    #[error("column {name} is given twice")]
    Twice {
        /// Which one.
        name: String,
    },
    /// No column is asked for.
    #[error("no column is given")]
    None,
}

/// The format that `--marshal` calls `name`.
pub fn parse(name: &str) -> Result<&'static dyn Marshaller, FormatError> {
    FORMATS
        .into_iter()
        .find(|format| format.name() == name)
        .ok_or_else(|| FormatError::Unknown { name: name.to_owned() })
}

/// The place of a column in [`fields::all`].
pub fn column(name: &str) -> Result<usize, FormatError> {
    fields::all().iter().position(|field| field.name == name).ok_or_else(|| FormatError::UnknownColumn {
        name: name.to_owned(),
        near: nearest(name, fields::all().iter().map(|field| field.name.as_str())),
    })
}

/// The format with these columns only, in this order.
pub fn with_columns(
    format: &'static dyn Marshaller,
    names: &[impl AsRef<str>],
) -> Result<&'static dyn Marshaller, FormatError> {
    let columns = names.iter().map(|name| column(name.as_ref())).collect::<Result<Vec<_>, _>>()?;
    if let Some(name) = repeated(names) {
        return Err(FormatError::Twice { name: name.to_owned() });
    }
    if columns.is_empty() {
        return Err(FormatError::None);
    }
    changed(format, |layout| layout.columns = columns)
}

/// The first name that stands there twice.
pub fn repeated(names: &[impl AsRef<str>]) -> Option<&str> {
    let mut seen = HashSet::new();
    names.iter().map(AsRef::as_ref).find(|name| !seen.insert(*name))
}

/// The format with or without a first line that names the columns.
pub fn with_header(
    format: &'static dyn Marshaller,
    header: bool,
) -> Result<&'static dyn Marshaller, FormatError> {
    changed(format, |layout| layout.header = header)
}

/// The format as a destination's `columns` and `header` want it.
pub fn with_options(
    mut format: &'static dyn Marshaller,
    options: &Options,
) -> Result<&'static dyn Marshaller, String> {
    if let Some(columns) = options.text("columns") {
        let names: Vec<&str> = columns.split(',').map(str::trim).collect();
        format = with_columns(format, &names).map_err(|error| format!("option columns: {error}"))?;
    }
    if let Some(header) = options.switch("header")? {
        format = with_header(format, header).map_err(|error| format!("option header: {error}"))?;
    }
    Ok(format)
}

fn changed(
    format: &'static dyn Marshaller,
    change: impl FnOnce(&mut Layout),
) -> Result<&'static dyn Marshaller, FormatError> {
    let no_columns = FormatError::NoColumns { name: format.name() };
    let Some(mut layout) = format.layout().cloned() else { return Err(no_columns) };
    change(&mut layout);
    if format.layout() == Some(&layout) {
        return Ok(format);
    }
    format.laid_out(layout).ok_or(no_columns)
}

fn known() -> String {
    FORMATS.map(Marshaller::name).join(", ")
}

/// Writes one row after the other.
fn each_row<'a>(
    batch: &'a Batch,
    mut write: impl FnMut(&'a [u8]) -> Result<(), RowError>,
) -> Result<(), MarshalError> {
    let rows = batch.len();
    batch
        .rows()
        .enumerate()
        .try_for_each(|(row, bytes)| write(bytes).map_err(|source| MarshalError::Row { row, rows, source }))
}

#[cfg(test)]
mod tests;
