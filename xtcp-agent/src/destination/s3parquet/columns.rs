//! The columns: one for each field of the record, in the order in which the contract declares them.
//!
//! They are read from the contract's own descriptor, and rows are read by field number from their protobuf encoding:
//! there is no list of fields here that could lack one. A field that may be absent is null then; all others have
//! protobuf's defaults. Enums are their numbers, as in the messages, and `timestamp_ns` is an INT64 of nanoseconds.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, UInt32Builder,
    UInt64Builder,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// The message whose fields are the columns.
const RECORD: (&str, &str) = ("xtcp_flat_record.v1", "XtcpFlatRecord");

/// Why there are no columns.
#[derive(Debug, thiserror::Error)]
pub(super) enum ColumnsError {
    #[error("the contract's descriptors cannot be read: {0}")]
    Descriptors(#[from] prost::DecodeError),
    #[error("the contract's descriptors have no record")]
    NoRecord,
    #[error("field {field} of the record has type {kind}, for which there is no column")]
    NoColumn { field: String, kind: String },
}

/// Why a row has no place in them.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    #[error("what should be a message is none: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("{wanted} bytes should follow and {left} do")]
    Short { wanted: usize, left: usize },
    #[error("field {field} of a row is encoded as {found:?}")]
    Wire { field: String, found: WireType },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Texts,
    Bytes,
    Bool,
    U32,
    U64,
    I32,
    I64,
}

#[derive(Debug)]
struct Column {
    name: String,
    kind: Kind,
    /// Whether it is null where a row has it not.
    optional: bool,
}

/// All columns.
#[derive(Debug)]
pub(super) struct Columns {
    all: Vec<Column>,
    /// Number of the column by number of the field.
    by_field: Vec<Option<usize>>,
    pub(super) schema: SchemaRef,
}

impl Columns {
    pub(super) fn new() -> Result<Self, ColumnsError> {
        let record = record()?;
        let mut columns = Vec::new();
        let mut by_field = Vec::new();
        for field in &record.field {
            let number = usize::try_from(field.number()).unwrap_or_default();
            if by_field.len() <= number {
                by_field.resize(number + 1, None);
            }
            if let Some(place) = by_field.get_mut(number) {
                *place = Some(columns.len());
            }
            columns.push(Column {
                name: field.name().to_owned(),
                kind: kind(field)?,
                optional: field.proto3_optional(),
            });
        }
        let fields: Vec<Field> = columns.iter().map(Column::field).collect();
        Ok(Self { all: columns, by_field, schema: Arc::new(Schema::new(fields)) })
    }

    /// No rows yet.
    pub(super) fn rows(&self) -> Rows<'_> {
        let builders = self.all.iter().map(|column| Builder::new(column.kind)).collect();
        Rows { columns: self, builders }
    }

    fn at(&self, field: u32) -> Option<(usize, &Column)> {
        let number = (*self.by_field.get(usize::try_from(field).ok()?)?)?;
        Some((number, self.all.get(number)?))
    }
}

impl Column {
    fn field(&self) -> Field {
        let kind = match self.kind {
            Kind::Text => DataType::Utf8,
            Kind::Texts => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            Kind::Bytes => DataType::Binary,
            Kind::Bool => DataType::Boolean,
            Kind::U32 => DataType::UInt32,
            Kind::U64 => DataType::UInt64,
            Kind::I32 => DataType::Int32,
            Kind::I64 => DataType::Int64,
        };
        Field::new(&self.name, kind, self.optional)
    }
}

/// The record as the contract describes it.
pub(super) fn record() -> Result<DescriptorProto, ColumnsError> {
    let set = FileDescriptorSet::decode(xtcp_proto::FILE_DESCRIPTOR_SET)?;
    set.file
        .into_iter()
        .filter(|file| file.package() == RECORD.0)
        .flat_map(|file| file.message_type)
        .find(|message| message.name() == RECORD.1)
        .ok_or(ColumnsError::NoRecord)
}

fn kind(field: &FieldDescriptorProto) -> Result<Kind, ColumnsError> {
    let repeated = field.label() == Label::Repeated;
    match (field.r#type(), repeated) {
        (Type::String, false) => Ok(Kind::Text),
        (Type::String, true) => Ok(Kind::Texts),
        (Type::Bytes, false) => Ok(Kind::Bytes),
        (Type::Bool, false) => Ok(Kind::Bool),
        (Type::Uint32, false) => Ok(Kind::U32),
        (Type::Uint64, false) => Ok(Kind::U64),
        (Type::Enum | Type::Int32, false) => Ok(Kind::I32),
        (Type::Int64, false) => Ok(Kind::I64),
        (other, _) => Err(ColumnsError::NoColumn {
            field: field.name().to_owned(),
            kind: format!("{}{}", if repeated { "repeated " } else { "" }, other.as_str_name()),
        }),
    }
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Rows on their way into columns.
pub(super) struct Rows<'c> {
    columns: &'c Columns,
    builders: Vec<Builder>,
}

impl Rows<'_> {
    /// Adds one encoded record. After an error the rows are of no use.
    pub(super) fn push(&mut self, mut row: &[u8]) -> Result<(), RowError> {
        let mut values = vec![None; self.builders.len()];
        while !row.is_empty() {
            let (field, wire) = decode_key(&mut row)?;
            let Some((number, column)) = self.columns.at(field) else {
                // From a later version of the contract.
                skip_field(wire, field, &mut row, DecodeContext::default())?;
                continue;
            };
            let value = match wire {
                WireType::Varint => Value::Number(decode_varint(&mut row)?),
                WireType::LengthDelimited => Value::Bytes(take(&mut row)?),
                found => return Err(RowError::Wire { field: column.name.clone(), found }),
            };
            match (self.builders.get_mut(number), column.kind, value) {
                (Some(Builder::Texts(list)), Kind::Texts, Value::Bytes(text)) => {
                    list.values().append_value(String::from_utf8_lossy(text));
                }
                _ => {
                    if let Some(place) = values.get_mut(number) {
                        // The last one counts.
                        *place = Some(value);
                    }
                }
            }
        }
        for ((builder, column), value) in self.builders.iter_mut().zip(&self.columns.all).zip(&values) {
            builder
                .push(column, *value)
                .map_err(|found| RowError::Wire { field: column.name.clone(), found })?;
        }
        Ok(())
    }

    /// The columns' values.
    pub(super) fn finish(self) -> Vec<ArrayRef> {
        self.builders.into_iter().map(Builder::finish).collect()
    }
}

/// What stands behind its own length at the beginning of `bytes`.
pub(super) fn take<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], RowError> {
    let wanted = prost::decode_length_delimiter(&mut *bytes)?;
    let Some((taken, rest)) = bytes.split_at_checked(wanted) else {
        return Err(RowError::Short { wanted, left: bytes.len() });
    };
    *bytes = rest;
    Ok(taken)
}

enum Builder {
    Text(StringBuilder),
    Texts(ListBuilder<StringBuilder>),
    Bytes(BinaryBuilder),
    Bool(BooleanBuilder),
    U32(UInt32Builder),
    U64(UInt64Builder),
    I32(Int32Builder),
    I64(Int64Builder),
}

impl Builder {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::Texts => Self::Texts(ListBuilder::new(StringBuilder::new())),
            Kind::Bytes => Self::Bytes(BinaryBuilder::new()),
            Kind::Bool => Self::Bool(BooleanBuilder::new()),
            Kind::U32 => Self::U32(UInt32Builder::new()),
            Kind::U64 => Self::U64(UInt64Builder::new()),
            Kind::I32 => Self::I32(Int32Builder::new()),
            Kind::I64 => Self::I64(Int64Builder::new()),
        }
    }

    /// Appends what a row has, or what stands for nothing; else says how it was encoded.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "protobuf's own rules for varints that are wider than their field, or negative"
    )]
    fn push(&mut self, column: &Column, value: Option<Value<'_>>) -> Result<(), WireType> {
        let absent = value.is_none() && column.optional;
        let number = match value {
            Some(Value::Number(number)) => Ok(number),
            None => Ok(0),
            Some(Value::Bytes(_)) => Err(WireType::LengthDelimited),
        };
        let bytes = match value {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            None => Ok(&[][..]),
            Some(Value::Number(_)) => Err(WireType::Varint),
        };
        match self {
            Self::Text(builder) if absent => builder.append_null(),
            Self::Bytes(builder) if absent => builder.append_null(),
            Self::Bool(builder) if absent => builder.append_null(),
            Self::U32(builder) if absent => builder.append_null(),
            Self::U64(builder) if absent => builder.append_null(),
            Self::I32(builder) if absent => builder.append_null(),
            Self::I64(builder) if absent => builder.append_null(),
            Self::Text(builder) => builder.append_value(String::from_utf8_lossy(bytes?)),
            Self::Texts(builder) => {
                bytes?;
                builder.append(true);
            }
            Self::Bytes(builder) => builder.append_value(bytes?),
            Self::Bool(builder) => builder.append_value(number? != 0),
            Self::U32(builder) => builder.append_value(number? as u32),
            Self::U64(builder) => builder.append_value(number?),
            Self::I32(builder) => builder.append_value(number? as i32),
            Self::I64(builder) => builder.append_value(number? as i64),
        }
        Ok(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Texts(mut builder) => Arc::new(builder.finish()),
            Self::Bytes(mut builder) => Arc::new(builder.finish()),
            Self::Bool(mut builder) => Arc::new(builder.finish()),
            Self::U32(mut builder) => Arc::new(builder.finish()),
            Self::U64(mut builder) => Arc::new(builder.finish()),
            Self::I32(mut builder) => Arc::new(builder.finish()),
            Self::I64(mut builder) => Arc::new(builder.finish()),
        }
    }
}
