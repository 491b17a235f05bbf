//! Golden files pin each format's bytes: `golden/<format>.<extension>`. `BLESS=1 cargo test -p xtcp-agent` writes them
//! anew, on purpose. Beside them each format is read back by a reader that is not its writer's.

use std::path::PathBuf;
use std::sync::Arc;
use std::{env, fs};

use prost::Message;
use tokio::time::Instant;
use xtcp_proto::flat_record::v1::xtcp_flat_record::{CongestionAlgorithm, RecordMethod, RecordReason};
use xtcp_proto::flat_record::v1::{Envelope, XtcpFlatRecord};

use super::*;
use crate::envelope::{Batcher, Limits};
use crate::record::Rows;

fn records() -> Vec<XtcpFlatRecord> {
    let established = XtcpFlatRecord {
        schema_version: 1,
        timestamp_ns: 1_700_000_000_123_456_789,
        hostname: "host-1".to_owned(),
        netns: "default".to_owned(),
        netns_inode: 4_026_531_840,
        record_counter: 1,
        inet_diag_msg_family: 2,
        inet_diag_msg_state: 1,
        inet_diag_msg_socket_source_port: 443,
        inet_diag_msg_socket_destination_port: 54_321,
        inet_diag_msg_socket_source: vec![192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        inet_diag_msg_socket_destination: vec![198, 51, 100, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        inet_diag_msg_socket_cookie: u64::MAX,
        tcp_info_state: 1,
        tcp_info_rtt: 250,
        tcp_info_pacing_rate: u64::MAX,
        congestion_algorithm_string: "cubic".to_owned(),
        congestion_algorithm_enum: CongestionAlgorithm::Cubic.into(),
        record_reason: RecordReason::Poll.into(),
        record_method: RecordMethod::Dump.into(),
        poll_number: 3,
        comm: "we\"ird\n".to_owned(),
        skv6only: Some(false),
        pod_labels: vec!["app=web".to_owned(), "tier=1".to_owned()],
        tcp_info_options: 0x17,
        tcp_info_min_rtt: u32::MAX,
        ..Default::default()
    };
    // Nothing but defaults: an empty row is a row.
    vec![established, XtcpFlatRecord::default()]
}

fn batch(records: &[XtcpFlatRecord]) -> Batch {
    let mut rows = Rows::default();
    for record in records {
        rows.push(record);
    }
    let mut batcher = Batcher::new(Limits::default());
    batcher.push(&Arc::new(rows), Instant::now(), |_, _| panic!("two rows fill no batch"));
    batcher.close().expect("rows")
}

fn marshalled(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    parse(name).expect(name).marshal(&batch(&records()), &mut out).expect(name);
    out
}

fn assert_golden(file: &str, have: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(file);
    if env::var_os("BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, have).expect("written");
    }
    let want = fs::read(&path).unwrap_or_else(|error| panic!("golden/{file}: {error}"));
    assert_eq!(String::from_utf8_lossy(have), String::from_utf8_lossy(&want), "golden/{file}");
    assert_eq!(have, want, "golden/{file}");
}

#[test]
fn every_format_is_what_its_golden_file_holds() {
    for format in FORMATS {
        let extension = if format.name() == "protobufList" { "bin" } else { format.extension() };
        assert_golden(&format!("{}.{extension}", format.name()), &marshalled(format.name()));
    }
}

#[test]
fn protobuf_list_equals_the_librarys_encoding_of_the_same_rows_behind_its_length() {
    let envelope = Envelope { row: records() };
    assert_eq!(marshalled("protobufList"), envelope.encode_length_delimited_to_vec());
}

#[test]
fn each_line_of_jsonl_reads_back_as_its_row() {
    let out = String::from_utf8(marshalled("jsonl")).expect("text");
    assert!(out.ends_with('\n'));
    let back: Vec<XtcpFlatRecord> =
        out.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    assert_eq!(back, records());
}

#[test]
fn the_default_format_is_the_first() {
    assert_eq!(FORMATS[0].name(), "protobufList");
}

#[test]
fn an_unknown_format_is_an_error_that_lists_the_known_ones() {
    let error = parse("json").expect_err("no such format");
    assert_eq!(
        error.to_string(),
        "unknown format \"json\": the known ones are protobufList, protoJson, protoText, msgpack, jsonl, humanize, csv, tsv"
    );
}

#[test]
fn proto_json_reads_back_as_an_envelope() {
    let out = String::from_utf8(marshalled("protoJson")).expect("text");
    let line = out.strip_suffix('\n').expect("a line's end");
    assert!(!line.contains('\n'));
    let back: Envelope = serde_json::from_str(line).expect("an envelope");
    assert_eq!(back, Envelope { row: records() });
}

#[test]
fn proto_text_reads_back_as_an_envelope() {
    let out = String::from_utf8(marshalled("protoText")).expect("text");
    assert_eq!(out.matches('\n').count(), 1);
    let pool = prost_reflect::DescriptorPool::decode(xtcp_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let envelope = pool.get_message_by_name("xtcp_flat_record.v1.Envelope").expect("an envelope");
    let back = prost_reflect::DynamicMessage::parse_text_format(envelope, &out).expect("text format");
    assert_eq!(back.transcode_to::<Envelope>().expect("an envelope"), Envelope { row: records() });
}

/// Every field as JSON has it, in snake case, and numbers as numbers: what the other formats are compared with.
fn expected() -> Vec<serde_json::Map<String, serde_json::Value>> {
    let of_json = |record: &XtcpFlatRecord| {
        let json = serde_json::to_value(record).expect("JSON");
        let fields = json.as_object().expect("an object").iter().map(|(key, value)| {
            let field = fields::all().iter().find(|field| field.json_name == *key).expect("a field");
            let value = match (&field.kind, value) {
                (fields::Kind::U64 | fields::Kind::I64, value) => {
                    serde_json::from_str(value.as_str().expect("a string")).expect("a number")
                }
                _ => value.clone(),
            };
            (field.name.clone(), value)
        });
        fields.collect()
    };
    records().iter().map(of_json).collect()
}

#[test]
fn msgpack_reads_back_as_one_map_with_the_rows() {
    let out = marshalled("msgpack");
    let mut rest = &out[..];
    let rmpv::Value::Map(batch) = rmpv::decode::read_value(&mut rest).expect("msgpack") else {
        panic!("a map")
    };
    assert!(rest.is_empty());
    let [(key, rmpv::Value::Array(rows))] = &batch[..] else { panic!("one list: {batch:?}") };
    assert_eq!(key.as_str(), Some("row"));
    assert_eq!(rows.len(), records().len());
    for ((row, expected), record) in rows.iter().zip(expected()).zip(records()) {
        let row = row.as_map().expect("a map");
        assert_eq!(row.len(), expected.len());
        for (name, value) in row {
            let name = name.as_str().expect("text");
            let json: serde_json::Value = match value {
                rmpv::Value::Boolean(value) => (*value).into(),
                rmpv::Value::Integer(value) => {
                    value.as_u64().map_or_else(|| value.as_i64().into(), serde_json::Value::from)
                }
                rmpv::Value::String(value) => value.as_str().into(),
                rmpv::Value::Array(items) => items.iter().map(|item| item.as_str()).collect(),
                rmpv::Value::Binary(bytes) => {
                    let expected = match name {
                        "inet_diag_msg_socket_source" => &record.inet_diag_msg_socket_source,
                        _ => &record.inet_diag_msg_socket_destination,
                    };
                    assert_eq!(bytes, expected, "{name}");
                    continue;
                }
                other => panic!("{name}: {other}"),
            };
            assert_eq!(json, expected[name], "{name}");
        }
    }
}

#[test]
fn csv_and_tsv_read_back_with_every_field() {
    for (name, separator, crlf) in [("csv", b',', true), ("tsv", b'\t', false)] {
        let out = marshalled(name);
        assert_eq!(out.ends_with(b"\r\n"), crlf);
        let mut reader = csv::ReaderBuilder::new().delimiter(separator).quoting(crlf).from_reader(&out[..]);
        let columns: Vec<String> = reader.headers().expect("a header").iter().map(str::to_owned).collect();
        assert_eq!(columns, fields::all().iter().map(|field| field.name.clone()).collect::<Vec<_>>());
        let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
        assert_eq!(rows.len(), records().len());
        for (row, expected) in rows.iter().zip(expected()) {
            for (field, have) in fields::all().iter().zip(row) {
                let expected = match (expected.get(&field.name), &field.kind) {
                    (_, fields::Kind::Bytes) => continue,
                    (Some(serde_json::Value::String(text)), _) if crlf => text.clone(),
                    (Some(serde_json::Value::String(text)), _) => text.replace('\n', "\\n"),
                    (Some(serde_json::Value::Array(items)), _) => {
                        items.iter().filter_map(|item| item.as_str()).collect::<Vec<_>>().join(",")
                    }
                    (Some(other), _) => other.to_string(),
                    (None, _) if field.optional => (if crlf { "" } else { "\\N" }).to_owned(),
                    (None, fields::Kind::Text) => String::new(),
                    (None, fields::Kind::Bool) => "false".to_owned(),
                    (None, fields::Kind::Enum(words)) => words[0].1.clone(),
                    (None, _) => "0".to_owned(),
                };
                assert_eq!(have, expected, "{name}: {}", field.name);
            }
        }
    }
}

#[test]
fn chosen_columns_stand_in_the_order_in_which_they_were_chosen() {
    let columns = ["comm", "inet_diag_msg_socket_source", "tcp_info_rtt"];
    let format = with_columns(parse("csv").expect("csv"), &columns).expect("columns");
    let mut out = Vec::new();
    format.marshal(&batch(&records()), &mut out).expect("marshalled");
    let expected =
        "comm,inet_diag_msg_socket_source,tcp_info_rtt\r\n\"we\"\"ird\n\",192.0.2.1,250\r\n,,0\r\n";
    assert_eq!(String::from_utf8(out).expect("text"), expected);
    assert_eq!(format.header_len(), 47);
    assert!(format != FORMATS[6]);

    let bare = with_header(format, false).expect("a format");
    assert_eq!(bare.header_len(), 0);
    let mut out = Vec::new();
    bare.marshal(&batch(&records()), &mut out).expect("marshalled");
    assert_eq!(String::from_utf8(out).expect("text"), expected[47..]);

    let one =
        with_header(with_columns(FORMATS[6], &["hostname"]).expect("a column"), false).expect("a format");
    let mut out = Vec::new();
    one.marshal(&batch(&records()), &mut out).expect("marshalled");
    assert_eq!(String::from_utf8(out).expect("text"), "host-1\r\n\"\"\r\n");
    assert!(with_header(FORMATS[7], true).expect("as it was") == FORMATS[7]);
}

#[test]
fn what_a_layout_cannot_be_is_said() {
    let error = |columns: &[&str]| with_columns(FORMATS[7], columns).expect_err("not possible").to_string();
    assert_eq!(
        error(&["tcp_info_snd_cnwd"]),
        "unknown column \"tcp_info_snd_cnwd\"; did you mean tcp_info_snd_cwnd?; `xtcp2-agent schema --format columns` lists them all"
    );
    assert_eq!(
        error(&["qqq"]),
        "unknown column \"qqq\"; `xtcp2-agent schema --format columns` lists them all"
    );
    assert_eq!(error(&["comm", "comm"]), "column comm is given twice");
    assert_eq!(error(&[]), "no column is given");
    let error = with_columns(LINES, &["comm"]).expect_err("no columns").to_string();
    assert_eq!(error, "format jsonl has no columns: csv and tsv have");

    let options = |text: &str| Options::parse(text).expect(text);
    let tsv = with_options(FORMATS[7], &options("columns=comm,%20pid&header=false")).expect("understood");
    assert_eq!(tsv.layout().map(|layout| (layout.columns.len(), layout.header)), Some((2, false)));
    let error = with_options(FORMATS[7], &options("columns=komm")).expect_err("unknown");
    assert!(error.starts_with("option columns: unknown column \"komm\"; did you mean comm?"), "{error}");
    let error = with_options(LINES, &options("header=true")).expect_err("no columns");
    assert_eq!(error, "option header: format jsonl has no columns: csv and tsv have");
}

#[test]
fn what_is_no_row_is_named() {
    let mut rows = Rows::default();
    rows.push(&XtcpFlatRecord::default());
    rows.push_encoded(&[0xff]);
    let mut batcher = Batcher::new(Limits::default());
    batcher.push(&Arc::new(rows), Instant::now(), |_, _| panic!("two rows fill no batch"));
    let batch = batcher.close().expect("rows");
    for format in FORMATS.iter().filter(|format| format.name() != "protobufList") {
        let error = format.marshal(&batch, &mut Vec::new()).expect_err("no row").to_string();
        assert!(error.starts_with("row 1 of 2 is not a record: "), "{}: {error}", format.name());
    }
}
