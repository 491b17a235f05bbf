//! What tests of destinations share: records in which every field is set, what a consumer must read of them, and batches
//! of them as a destination takes them.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use prost::Message;
use prost::encoding::{self, WireType, decode_key, decode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{FieldDescriptorProto, FileDescriptorSet};
use serde_json::{Value, json};
use xtcp_agent::delivery::route::OPTIONS;
use xtcp_agent::destination::{self, Address, Context, Destination, Payload, SendError};
use xtcp_agent::marshaller;
use xtcp_proto::flat_record::v1::{Envelope, XtcpFlatRecord};

/// 2025-11-24 16:00 UTC, nanoseconds since the epoch: what `timestamp_ns` of the first record is.
pub const TIME_NS: i64 = 1_764_000_000_000_000_000;

/// The host that the destinations of [`context`] are told of.
pub const HOST: &str = "web-1.example";

/// The fields of a record, in the order of the contract.
pub fn descriptors() -> Vec<FieldDescriptorProto> {
    let set = FileDescriptorSet::decode(xtcp_proto::FILE_DESCRIPTOR_SET).expect("the contract's descriptors");
    let files = set.file.into_iter().filter(|file| file.package() == "xtcp_flat_record.v1");
    let mut messages = files.flat_map(|file| file.message_type);
    messages.find(|message| message.name() == "XtcpFlatRecord").expect("the record").field
}

/// A record in which every field is set, to something that no other field and no record of another number has; numbers
/// of 64 bits do not fit into a double, text has what formats must escape, bytes are no text.
pub fn full_record(number: u32) -> XtcpFlatRecord {
    let mut bytes = Vec::new();
    for field in descriptors() {
        let tag = u32::try_from(field.number()).expect("positive");
        let value = tag * 1000 + number % 1000;
        let text = |text: String| text.into_bytes();
        match (field.r#type(), field.label() == Label::Repeated) {
            (Type::String, false) => {
                let value = text(format!("{} {number} é\"',;\\<&", field.name()));
                encoding::bytes::encode(tag, &value, &mut bytes);
            }
            (Type::String, true) => {
                for label in ["a=1", "b/c=é, \"2\""] {
                    encoding::bytes::encode(tag, &text(label.to_owned()), &mut bytes);
                }
            }
            (Type::Bytes, false) => {
                let mut value = [0xff; 16];
                value[..4].copy_from_slice(&value_bytes(tag, number));
                encoding::bytes::encode(tag, &value.to_vec(), &mut bytes);
            }
            (Type::Bool, false) => encoding::bool::encode(tag, &true, &mut bytes),
            (Type::Enum, false) => encoding::int32::encode(tag, &1, &mut bytes),
            (Type::Uint32, false) => encoding::uint32::encode(tag, &value, &mut bytes),
            (Type::Uint64, false) => {
                encoding::uint64::encode(tag, &(u64::MAX - u64::from(value)), &mut bytes);
            }
            (Type::Int64, false) => {
                encoding::int64::encode(tag, &(TIME_NS + i64::from(number)), &mut bytes);
            }
            (other, _) => panic!("a test does not know how to fill {} ({other:?})", field.name()),
        }
    }
    XtcpFlatRecord::decode(bytes.as_slice()).expect("a record")
}

fn value_bytes(tag: u32, number: u32) -> [u8; 4] {
    (tag << 16 | number & 0xffff).to_be_bytes()
}

/// What a consumer that knows types reads of a record, by the fields' names: numbers (enums too), text, booleans, lists,
/// and bytes in hexadecimal; an `optional` field that is absent is null.
pub fn fields(record: &XtcpFlatRecord) -> BTreeMap<String, Value> {
    let descriptors = descriptors();
    let mut found: BTreeMap<String, Value> =
        descriptors.iter().map(|field| (field.name().to_owned(), absent(field))).collect();
    let encoded = record.encode_to_vec();
    let mut rest = encoded.as_slice();
    while !rest.is_empty() {
        let (tag, wire) = decode_key(&mut rest).expect("a key");
        let tag = i32::try_from(tag).expect("small");
        let field = descriptors.iter().find(|field| field.number() == tag).expect("a field of the contract");
        let value = match wire {
            WireType::Varint => number(field, decode_varint(&mut rest).expect("a number")),
            WireType::LengthDelimited => {
                let length = prost::decode_length_delimiter(&mut rest).expect("a length");
                let (bytes, after) = rest.split_at(length);
                rest = after;
                match field.r#type() {
                    Type::Bytes => json!(hex(bytes)),
                    _ => json!(std::str::from_utf8(bytes).expect("text")),
                }
            }
            other => panic!("{} is encoded as {other:?}", field.name()),
        };
        let place = found.get_mut(field.name()).expect("every field is there");
        match place {
            Value::Array(list) => list.push(value),
            _ => *place = value,
        }
    }
    found
}

fn absent(field: &FieldDescriptorProto) -> Value {
    match (field.r#type(), field.label()) {
        (_, Label::Repeated) => json!([]),
        _ if field.proto3_optional() => Value::Null,
        (Type::String | Type::Bytes, _) => json!(""),
        (Type::Bool, _) => json!(false),
        _ => json!(0),
    }
}

#[expect(clippy::cast_possible_wrap, reason = "an int64 is a varint of its two's complement")]
fn number(field: &FieldDescriptorProto, number: u64) -> Value {
    match field.r#type() {
        Type::Bool => json!(number != 0),
        Type::Int64 | Type::Enum => json!(number as i64),
        _ => json!(number),
    }
}

/// As `00ff`.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string");
        text
    })
}

/// A batch of records as a marshaller writes it: `protobufList` or `jsonl`.
pub fn payload(format: &str, records: &[XtcpFlatRecord], id: &str) -> Payload {
    let bytes = match format {
        "protobufList" => Envelope { row: records.to_vec() }.encode_length_delimited_to_vec(),
        "jsonl" => records.iter().fold(Vec::new(), |mut lines, record| {
            serde_json::to_writer(&mut lines, record).expect("JSON");
            lines.write_all(b"\n").expect("room");
            lines
        }),
        other => panic!("a test does not know how to write {other}"),
    };
    Payload { bytes: bytes.into(), header: 0, rows: records.len(), id: id.into() }
}

/// What a destination is told of what it will carry.
pub fn context(format: &str) -> Context {
    let format = marshaller::parse(format).expect("a format");
    Context { hostname: HOST.into(), topic: "xtcp".to_owned(), format }
}

/// A destination's address, understood.
pub fn address(text: &str) -> Address {
    destination::parse(text, &OPTIONS).unwrap_or_else(|error| panic!("{error}"))
}

/// A destination that is ready to send.
pub fn open(text: &str, format: &str) -> Box<dyn Destination> {
    open_as(text, &context(format))
}

/// A destination that is ready to send what `context` says.
pub fn open_as(text: &str, context: &Context) -> Box<dyn Destination> {
    address(text).open(context).unwrap_or_else(|error| panic!("{error}"))
}

/// The rows of one or more payloads of `protobufList`, one behind the other.
pub fn rows_of(mut bytes: &[u8]) -> Vec<XtcpFlatRecord> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        rows.extend(
            Envelope::decode_length_delimited(&mut bytes).expect("an envelope behind its length").row,
        );
    }
    rows
}

/// Sends until it succeeds, as the agent's delivery does; returns every error on the way, all of which say to try again.
pub async fn send_until_it_arrives(
    to: &mut Box<dyn Destination>,
    payload: &Payload,
    limit: Duration,
) -> Vec<String> {
    let (start, mut errors) = (Instant::now(), Vec::new());
    loop {
        match to.send(payload).await {
            Ok(()) => return errors,
            Err(SendError::Retry(error)) => errors.push(error.to_string()),
            Err(other) => panic!("an outage is no reason to give a batch up: {other}"),
        }
        assert!(start.elapsed() < limit, "nothing arrived in {limit:?}: {errors:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
