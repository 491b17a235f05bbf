//! Golden files pin each format's bytes: `golden/<format>.bin` or `.jsonl`. `BLESS=1 cargo test -p xtcp-agent`
//! writes them anew, on purpose.

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
fn protobuf_list_is_what_its_golden_file_holds() {
    assert_golden("protobufList.bin", &marshalled("protobufList"));
}

#[test]
fn jsonl_is_what_its_golden_file_holds() {
    assert_golden("jsonl.jsonl", &marshalled("jsonl"));
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
    assert_eq!(error.to_string(), "unknown format \"json\": the known ones are protobufList, jsonl");
}
