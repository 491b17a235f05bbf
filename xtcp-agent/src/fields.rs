//! The record's fields as the contract's descriptor lists them, and an encoded row looked at through them. Owns what is
//! derived from the descriptor; never copies a row.

use std::sync::LazyLock;

use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::{Cardinality, DescriptorPool, Kind as Reflected, MessageDescriptor};

/// `inet_diag_msg_family`.
pub const FAMILY: u32 = 1001;
/// `inet_diag_msg_socket_source`.
pub const SOURCE: u32 = 1007;
/// `inet_diag_msg_socket_destination`.
pub const DESTINATION: u32 = 1008;

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `uint32`.
    U32,
    /// `uint64`.
    U64,
    /// `int64`.
    I64,
    /// `bool`.
    Bool,
    /// `string`.
    Text,
    /// `bytes`.
    Bytes,
    /// An enum, by number.
    Enum(Vec<(i32, String)>),
}

/// One field of the record.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its number.
    pub number: u32,
    /// Its name in the contract, which is a column's too.
    pub name: String,
    /// Its name in JSON.
    pub json_name: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether it holds any number of them.
    pub list: bool,
    /// Whether absent differs from 0.
    pub optional: bool,
    /// What the contract says of it, as one text.
    pub doc: String,
}

impl Field {
    /// The name of an enum's number; `None` for one that the contract does not have, and for fields that are no enums.
    pub fn word(&self, number: u64) -> Option<&str> {
        let Kind::Enum(words) = &self.kind else { return None };
        words.iter().find(|(own, _)| u64::try_from(*own) == Ok(number)).map(|(_, word)| word.as_str())
    }
}

struct Table {
    record: Option<MessageDescriptor>,
    fields: Vec<Field>,
    /// Place of each field by its number; `u16::MAX` for numbers without one.
    places: Vec<u16>,
}

// The descriptor is part of the program: that it is whole is a test's to say.
static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(xtcp_proto::FILE_DESCRIPTOR_SET).ok();
    let record = pool.and_then(|pool| pool.get_message_by_name("xtcp_flat_record.v1.XtcpFlatRecord"));
    let fields: Vec<Field> = record.iter().flat_map(of_message).collect();
    let most = fields.iter().map(|field| field.number).max().unwrap_or(0);
    let place = |number| fields.iter().position(|field| field.number == number);
    let places = (0..=most)
        .map(|number| place(number).and_then(|place| u16::try_from(place).ok()).unwrap_or(u16::MAX))
        .collect();
    Table { record, fields, places }
});

fn of_message(message: &MessageDescriptor) -> Vec<Field> {
    let docs = Docs::of(message);
    let mut fields: Vec<(usize, Field)> = message
        .fields()
        .filter_map(|field| {
            let kind = match field.kind() {
                Reflected::Uint32 => Kind::U32,
                Reflected::Uint64 => Kind::U64,
                Reflected::Int64 => Kind::I64,
                Reflected::Bool => Kind::Bool,
                Reflected::String => Kind::Text,
                Reflected::Bytes => Kind::Bytes,
                Reflected::Enum(of) => {
                    Kind::Enum(of.values().map(|value| (value.number(), value.name().to_owned())).collect())
                }
                _ => return None,
            };
            let place = field.path().last().and_then(|place| usize::try_from(*place).ok())?;
            let field = Field {
                number: field.number(),
                name: field.name().to_owned(),
                json_name: field.json_name().to_owned(),
                kind,
                list: field.cardinality() == Cardinality::Repeated,
                optional: field.field_descriptor_proto().proto3_optional(),
                doc: docs.at(field.path()),
            };
            Some((place, field))
        })
        .collect();
    // As they are declared.
    fields.sort_by_key(|(place, _)| *place);
    fields.into_iter().map(|(_, field)| field).collect()
}

/// Comments of the file that a message stands in.
struct Docs(Vec<(Vec<i32>, String)>);

impl Docs {
    fn of(message: &MessageDescriptor) -> Self {
        let file = message.parent_file();
        let info = file.file_descriptor_proto().source_code_info.as_ref();
        let locations = info.map(|info| info.location.as_slice()).unwrap_or_default();
        let comment = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        Self(
            locations
                .iter()
                .filter_map(|at| Some((at.path.clone(), comment(at.leading_comments.as_deref()?))))
                .collect(),
        )
    }

    fn at(&self, path: &[i32]) -> String {
        self.0.iter().find(|(own, _)| own == path).map(|(_, text)| text.clone()).unwrap_or_default()
    }
}

/// Every field of the record, as they are declared.
pub fn all() -> &'static [Field] {
    &TABLE.fields
}

/// The record's descriptor; there is always one.
pub(crate) fn record() -> Option<&'static MessageDescriptor> {
    TABLE.record.as_ref()
}

/// The place of a field in [`all`].
pub fn place(number: u32) -> Option<usize> {
    let place = *TABLE.places.get(usize::try_from(number).ok()?)?;
    (place != u16::MAX).then_some(place.into())
}

/// A field's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raw<'a> {
    /// A number, an enum's or a bool.
    Number(u64),
    /// Bytes or text.
    Bytes(&'a [u8]),
}

/// Calls `each` with the fields of an encoded message in their order, number and bytes. What a record has none of is
/// passed over.
pub fn walk<'a>(mut message: &'a [u8], mut each: impl FnMut(u32, Raw<'a>)) -> Result<(), DecodeError> {
    while !message.is_empty() {
        let (number, wire_type) = decode_key(&mut message)?;
        match wire_type {
            WireType::Varint => each(number, Raw::Number(decode_varint(&mut message)?)),
            WireType::LengthDelimited => {
                let mut behind = message;
                let len = usize::try_from(decode_varint(&mut behind)?).unwrap_or(usize::MAX);
                match behind.split_at_checked(len) {
                    Some((bytes, rest)) => {
                        each(number, Raw::Bytes(bytes));
                        message = rest;
                    }
                    // Says what is wrong.
                    None => skip_field(wire_type, number, &mut message, DecodeContext::default())?,
                }
            }
            other => skip_field(other, number, &mut message, DecodeContext::default())?,
        }
    }
    Ok(())
}

/// What a row holds in one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing, which is 0 or empty except for optional fields.
    #[default]
    Absent,
    /// A number, an enum's or a bool.
    Number(u64),
    /// Bytes or text.
    Bytes(&'a [u8]),
    /// Several.
    List(Vec<&'a [u8]>),
}

impl<'a> Value<'a> {
    /// The number; absent is 0.
    pub fn number(&self) -> u64 {
        if let Self::Number(number) = self { *number } else { 0 }
    }

    /// The bytes; absent is empty.
    pub fn bytes(&self) -> &'a [u8] {
        if let Self::Bytes(bytes) = self { bytes } else { &[] }
    }

    /// The bytes as text; what is none is replaced.
    pub fn text(&self) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(self.bytes())
    }

    /// Whether proto3 would not write it.
    fn is_default(&self, field: &Field) -> bool {
        match self {
            Self::Absent => true,
            Self::Number(number) => *number == 0 && !field.optional,
            Self::Bytes(bytes) => bytes.is_empty() && !field.optional,
            Self::List(list) => list.is_empty(),
        }
    }
}

/// A row by its fields; made once and used for one row after the other.
#[derive(Debug, Default)]
pub struct RowView<'a>(Vec<Value<'a>>);

impl<'a> RowView<'a> {
    /// Looks at the next row.
    pub fn read(&mut self, row: &'a [u8]) -> Result<(), DecodeError> {
        let fields = all();
        self.0.clear();
        self.0.resize(fields.len(), Value::Absent);
        walk(row, |number, raw| {
            let Some(place) = place(number) else { return };
            let (Some(field), Some(value)) = (fields.get(place), self.0.get_mut(place)) else { return };
            match (raw, &mut *value) {
                (Raw::Bytes(bytes), Value::List(list)) => list.push(bytes),
                (Raw::Bytes(bytes), _) if field.list => *value = Value::List(vec![bytes]),
                (Raw::Bytes(bytes), _) => *value = Value::Bytes(bytes),
                (Raw::Number(number), _) => *value = Value::Number(number),
            }
        })
    }

    /// What the field with this number holds.
    pub fn get(&self, number: u32) -> &Value<'a> {
        place(number).map_or(&Value::Absent, |place| self.at(place))
    }

    /// What the field at this place of [`all`] holds.
    pub fn at(&self, place: usize) -> &Value<'a> {
        self.0.get(place).unwrap_or(&Value::Absent)
    }

    /// The fields that hold something, as proto3 sees it.
    pub fn set(&self) -> impl Iterator<Item = (&'static Field, &Value<'a>)> {
        all().iter().zip(&self.0).filter(|(field, value)| !value.is_default(field))
    }
}

#[cfg(test)]
mod tests;
