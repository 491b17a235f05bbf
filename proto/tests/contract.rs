//! Proves that the contract with deployed consumers stands: every name, number and type of `XtcpFlatRecord`, the
//! messages and services round it, and the bytes of an `Envelope`.
//!
//! The golden file's first 156 lines are the contract as its consumers know it, not a dump of our `.proto`; the bytes of
//! the envelope are written out by hand from the protobuf encoding, not by the library under test.

use std::fmt::Write;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use xtcp_proto::flat_record::v1::xtcp_flat_record::CongestionAlgorithm;
use xtcp_proto::flat_record::v1::{Envelope, XtcpFlatRecord};

const GOLDEN: &str = include_str!("../golden/xtcp_flat_record.txt");
const CONTRACT_FIELDS: usize = 156;

fn file(package: &str) -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(xtcp_proto::FILE_DESCRIPTOR_SET).expect("a descriptor set");
    set.file.into_iter().find(|file| file.package() == package).expect("the package")
}

fn message(file: &FileDescriptorProto, name: &str) -> DescriptorProto {
    file.message_type.iter().find(|message| message.name() == name).expect("the message").clone()
}

fn type_name(field: &FieldDescriptorProto) -> String {
    let last = field.type_name().rsplit('.').next().unwrap_or_default();
    match field.r#type() {
        Type::Enum => format!("{last}(enum)"),
        Type::Message => last.to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn dump(message: &DescriptorProto) -> String {
    let mut out = String::new();
    for field in &message.field {
        let optional = if field.proto3_optional() { " optional" } else { "" };
        writeln!(out, "{} {} {}{optional}", field.name(), field.number(), type_name(field))
            .expect("a string");
    }
    out
}

#[test]
fn every_field_of_the_record_has_the_name_number_and_type_of_the_contract() {
    let dumped = dump(&message(&file("xtcp_flat_record.v1"), "XtcpFlatRecord"));
    for (line, (have, want)) in dumped.lines().zip(GOLDEN.lines()).enumerate() {
        assert_eq!(have, want, "line {} of golden/xtcp_flat_record.txt", line + 1);
    }
    assert_eq!(
        dumped.lines().count(),
        GOLDEN.lines().count(),
        "the golden file and the record differ in length"
    );
}

#[test]
fn our_additions_begin_at_3000_behind_the_156_fields_of_the_contract() {
    let numbers: Vec<i32> = message(&file("xtcp_flat_record.v1"), "XtcpFlatRecord")
        .field
        .iter()
        .map(FieldDescriptorProto::number)
        .collect();
    let (contract, ours) = numbers.split_at(CONTRACT_FIELDS);
    assert!(contract.iter().all(|&number| number < 3000));
    assert!(ours.iter().all(|&number| number >= 3000));
    assert!(numbers.is_sorted());
}

#[test]
fn the_file_of_records_stands_alone_under_the_name_that_consumers_load() {
    let file = file("xtcp_flat_record.v1");
    assert_eq!(file.name(), "xtcp_flat_record/v1/xtcp_flat_record.proto");
    assert!(file.dependency.is_empty());
}

#[test]
fn every_field_of_the_record_is_documented() {
    let file = file("xtcp_flat_record.v1");
    let record = file.message_type.iter().position(|m| m.name() == "XtcpFlatRecord").expect("the record");
    let fields = file.message_type[record].field.len();
    let comments = &file.source_code_info.as_ref().expect("comments").location;
    for field in 0..fields {
        // Path of a field: message_type (4), its index, field (2), its index.
        let path = [4, record, 2, field].map(|part| i32::try_from(part).expect("small"));
        let documented = comments
            .iter()
            .any(|location| location.path == path && location.leading_comments().trim_end().ends_with('.'));
        assert!(documented, "{} has no comment", file.message_type[record].field[field].name());
    }
}

#[test]
fn the_messages_round_the_record_are_the_contracts() {
    let file = file("xtcp_flat_record.v1");
    assert_eq!(dump(&message(&file, "Envelope")), "row 10 XtcpFlatRecord\n");
    assert_eq!(message(&file, "Envelope").field[0].label(), Label::Repeated);
    assert_eq!(dump(&message(&file, "FlatRecordsRequest")), "");
    assert_eq!(dump(&message(&file, "FlatRecordsResponse")), "xtcp_flat_record 1 XtcpFlatRecord\n");
    assert_eq!(dump(&message(&file, "PollFlatRecordsRequest")), "");
    assert_eq!(dump(&message(&file, "PollFlatRecordsResponse")), "xtcp_flat_record 1 XtcpFlatRecord\n");

    let record = message(&file, "XtcpFlatRecord");
    let algorithms: Vec<(&str, i32)> =
        record.enum_type[0].value.iter().map(|v| (v.name(), v.number())).collect();
    assert_eq!(record.enum_type[0].name(), "CongestionAlgorithm");
    let names = ["UNSPECIFIED", "CUBIC", "DCTCP", "VEGAS", "PRAGUE", "BBR1", "BBR2", "BBR3"];
    for ((have, number), want) in algorithms.iter().zip(names) {
        assert_eq!(*have, format!("CONGESTION_ALGORITHM_{want}"));
        assert_eq!(names.iter().position(|name| *name == want), usize::try_from(*number).ok());
    }
    assert_eq!(algorithms.len(), names.len());
}

#[test]
fn the_service_of_records_is_the_contracts() {
    let file = file("xtcp_flat_record.v1");
    let service = &file.service[0];
    assert_eq!(service.name(), "XTCPFlatRecordService");
    let methods: Vec<_> = service
        .method
        .iter()
        .map(|m| (m.name(), m.input_type(), m.client_streaming(), m.output_type(), m.server_streaming()))
        .collect();
    assert_eq!(
        methods,
        [
            (
                "FlatRecords",
                ".xtcp_flat_record.v1.FlatRecordsRequest",
                false,
                ".xtcp_flat_record.v1.FlatRecordsResponse",
                true
            ),
            (
                "PollFlatRecords",
                ".xtcp_flat_record.v1.PollFlatRecordsRequest",
                true,
                ".xtcp_flat_record.v1.PollFlatRecordsResponse",
                true
            ),
        ]
    );
}

#[test]
fn owner_sources_of_records_and_of_events_have_the_same_numbers() {
    let of_events = file("xtcp_event.v1");
    let of_events = of_events.enum_type.iter().find(|e| e.name() == "OwnerSource").expect("the enum");
    let record = message(&file("xtcp_flat_record.v1"), "XtcpFlatRecord");
    let of_records = record.enum_type.iter().find(|e| e.name() == "OwnerSource").expect("the enum");
    assert_eq!(of_events.value, of_records.value);
}

#[test]
fn an_envelope_has_the_bytes_that_consumers_parse() {
    let envelope = Envelope {
        row: vec![
            XtcpFlatRecord { schema_version: 1, hostname: "h1".to_owned(), ..Default::default() },
            XtcpFlatRecord {
                timestamp_ns: 300,
                congestion_algorithm_enum: CongestionAlgorithm::Bbr1.into(),
                skv6only: Some(false),
                ..Default::default()
            },
        ],
    };
    let want: &[u8] = &[
        0x52, 7, // row = 10, length-delimited: 10 << 3 | 2
        0x08, 1, // schema_version = 1, varint
        0xa2, 0x01, 2, b'h', b'1', // hostname = 20: 20 << 3 | 2 = 162
        0x52, 10, // the second row
        0x50, 0xac, 0x02, // timestamp_ns = 10, varint 300
        0xa8, 0x51, 5, // congestion_algorithm_enum = 1301: 1301 << 3 = 10408
        0xe8, 0xc1, 0x01, 0, // skv6only = 3101, present although false: 3101 << 3 = 24808
    ];
    assert_eq!(envelope.encode_to_vec(), want);
}

#[test]
fn json_of_a_record_is_canonical_proto3_json() {
    let record = XtcpFlatRecord {
        schema_version: 1,
        timestamp_ns: 1_700_000_000_000_000_001,
        inet_diag_msg_socket_source: vec![127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        inet_diag_msg_socket_cookie: u64::MAX,
        congestion_algorithm_enum: CongestionAlgorithm::Cubic.into(),
        ..Default::default()
    };
    let json = serde_json::to_string(&record).expect("json");
    assert_eq!(
        json,
        r#"{"schemaVersion":1,"timestampNs":"1700000000000000001","#.to_owned()
            + r#""inetDiagMsgSocketSource":"fwAAAQAAAAAAAAAAAAAAAA==","#
            + r#""inetDiagMsgSocketCookie":"18446744073709551615","#
            + r#""congestionAlgorithmEnum":"CONGESTION_ALGORITHM_CUBIC"}"#
    );
    assert_eq!(serde_json::from_str::<XtcpFlatRecord>(&json).expect("a record"), record);
}
