use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use xtcp_proto::flat_record::v1::{Envelope, XtcpFlatRecord};

use super::*;

/// A list of one envelope, as the marshaller writes it.
fn list(rows: Vec<XtcpFlatRecord>) -> Vec<u8> {
    Envelope { row: rows }.encode_length_delimited_to_vec()
}

fn encoded(list: &[u8]) -> parquet_file::Object {
    let columns = Columns::new().expect("columns");
    parquet_file::encode(&columns, list, 3).expect("a file")
}

fn read(bytes: Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a Parquet file");
    let mut batches: Vec<RecordBatch> =
        reader.build().expect("a reader").map(|batch| batch.expect("a batch")).collect();
    assert_eq!(batches.len(), 1);
    batches.remove(0)
}

#[test]
fn there_is_a_column_for_each_field_of_the_record_in_its_order() {
    let fields: Vec<String> =
        columns::record().expect("the record").field.iter().map(|field| field.name().to_owned()).collect();
    assert!(fields.len() > 156, "{}", fields.len());
    assert_eq!(fields.iter().collect::<BTreeSet<_>>().len(), fields.len());
    let found = read(encoded(&list(vec![XtcpFlatRecord::default()])).bytes);
    let names: Vec<String> = found.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, fields);
}

/// Each field set to what its number makes of it, in protobuf, by the descriptor alone.
fn every_field() -> Vec<u8> {
    let mut row = Vec::new();
    for field in columns::record().expect("the record").field {
        use prost_types::field_descriptor_proto::Type;
        let tag = u32::try_from(field.number()).expect("positive");
        match field.r#type() {
            Type::String if field.label() == prost_types::field_descriptor_proto::Label::Repeated => {
                for text in ["a=1", "b=2"] {
                    prost::encoding::string::encode(tag, &text.to_owned(), &mut row);
                }
            }
            Type::String | Type::Bytes => {
                prost::encoding::string::encode(tag, &format!("text {tag}"), &mut row);
            }
            Type::Bool => prost::encoding::bool::encode(tag, &true, &mut row),
            Type::Enum => prost::encoding::int32::encode(tag, &1, &mut row),
            _ => prost::encoding::uint64::encode(tag, &u64::from(tag), &mut row),
        }
    }
    row
}

#[test]
fn every_field_that_is_set_is_in_its_column() {
    let row = XtcpFlatRecord::decode(every_field().as_slice()).expect("a record");
    assert_eq!(row.encode_to_vec().len(), every_field().len(), "the generated code knows all of them");
    let absent = XtcpFlatRecord::default();
    let batch = read(encoded(&[list(vec![row, absent]), list(vec![])].concat()).bytes);
    assert_eq!(batch.num_rows(), 2);
    for (number, field) in columns::record().expect("the record").field.iter().enumerate() {
        let (column, name, tag) = (batch.column(number), field.name(), field.number());
        let text = format!("text {tag}");
        let wide = u64::try_from(tag).expect("positive");
        assert_eq!(column.is_null(1), field.proto3_optional(), "{name} is null where it is absent");
        match column.data_type() {
            DataType::Utf8 => assert_eq!(column.as_string::<i32>().value(0), text, "{name}"),
            DataType::Binary => assert_eq!(column.as_binary::<i32>().value(0), text.as_bytes(), "{name}"),
            DataType::Boolean => assert!(column.as_boolean().value(0), "{name}"),
            DataType::UInt32 => {
                assert_eq!(u64::from(column.as_primitive::<UInt32Type>().value(0)), wide, "{name}");
            }
            DataType::UInt64 => assert_eq!(column.as_primitive::<UInt64Type>().value(0), wide, "{name}"),
            DataType::Int64 => {
                assert_eq!(column.as_primitive::<Int64Type>().value(0), i64::from(tag), "{name}");
            }
            DataType::Int32 => assert_eq!(column.as_primitive::<Int32Type>().value(0), 1, "{name}"),
            DataType::List(_) => {
                let texts = column.as_list::<i32>();
                assert_eq!((texts.value_length(0), texts.value_length(1)), (2, 0), "{name}");
                assert_eq!(texts.value(0).as_string::<i32>().value(1), "b=2", "{name}");
            }
            other => panic!("{name} has type {other}"),
        }
    }
}

#[test]
fn numbers_keep_their_sign_and_their_last_value_and_later_fields_are_stepped_over() {
    let mut row = XtcpFlatRecord { timestamp_ns: i64::MIN, ..Default::default() }.encode_to_vec();
    prost::encoding::uint32::encode(1, &7, &mut row);
    prost::encoding::uint32::encode(1, &u32::MAX, &mut row);
    prost::encoding::string::encode(2, &"\u{fffd}é".to_owned(), &mut row);
    prost::encoding::string::encode(90_000, &"from the future".to_owned(), &mut row);
    let mut envelope = Vec::new();
    prost::encoding::bytes::encode(10, &row, &mut envelope);
    prost::encoding::string::encode(11, &"as well".to_owned(), &mut envelope);
    let mut list = Vec::new();
    prost::encode_length_delimiter(envelope.len(), &mut list).expect("room");
    list.extend(envelope);
    let object = encoded(&list);
    assert_eq!(object.first_ns, i64::MIN);
    let batch = read(object.bytes);
    assert_eq!(batch.column(0).as_primitive::<UInt32Type>().value(0), u32::MAX);
    assert_eq!(batch.column(1).as_string::<i32>().value(0), "\u{fffd}é");
}

#[test]
fn what_is_no_list_of_rows_is_told_and_never_a_panic() {
    let columns = Columns::new().expect("columns");
    let good = list(vec![XtcpFlatRecord { hostname: "web".into(), timestamp_ns: 5, ..Default::default() }]);
    for length in 1..good.len() {
        assert!(parquet_file::encode(&columns, &good[..length], 3).is_err(), "{length} bytes");
    }
    for number in 0..good.len() {
        for value in [0, 0x7f, 0x80, 0xff] {
            let mut broken = good.clone();
            broken[number] = value;
            let _ = parquet_file::encode(&columns, &broken, 3);
        }
    }
    let Err(error) = parquet_file::encode(&columns, &good[..good.len() - 1], 3) else { panic!("cut short") };
    assert!(error.to_string().ends_with("bytes should follow and 9 do"), "{error}");
}

fn open(address: &str) -> Box<dyn Destination> {
    let context =
        Context { hostname: "web".into(), topic: String::new(), format: crate::marshaller::FORMATS[0] };
    super::super::parse(address, &[]).expect(address).open(&context).expect(address)
}

fn payload() -> Payload {
    let row = XtcpFlatRecord { hostname: "web".into(), timestamp_ns: 5, ..Default::default() };
    Payload { bytes: list(vec![row]).into(), header: 0, rows: 1, id: "i-1-0".into() }
}

/// A server that answers one request with `answer`; an address for it.
async fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = vec![0; 1 << 16];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    format!("s3parquet:http://{address}/rows#access-key=me&secret-key=hunter2&path-style=true")
}

#[tokio::test]
async fn a_refusal_names_its_cause_and_its_fix_and_no_secret() {
    const BUSY: &str = "HTTP/1.1 503 Slow\r\ncontent-length: 66\r\nconnection: close\r\n\r\n\
                        <Error><Code>SlowDown</Code><Message>less, please</Message></Error>";
    const ELSEWHERE: &str = "HTTP/1.1 400 No\r\ncontent-length: 103\r\nconnection: close\r\n\r\n<Error><Code>AuthorizationHeaderMalformed\
                             </Code><Message>no</Message><Region>eu-west-9</Region></Error>";
    const MOVED: &str = "HTTP/1.1 301 Moved\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    const GARBAGE: &str = "220 smtp.example.com ESMTP\r\n";
    for (answer, expected) in [
        (BUSY, "refused (SlowDown: less, please): the server is busy or broken: it is tried again"),
        (
            ELSEWHERE,
            "the bucket is not in region us-east-1 (the default): name its own (eu-west-9) with region=",
        ),
        (MOVED, "the bucket is not in region us-east-1 (the default): name its own with region="),
        (GARBAGE, "invalid HTTP version parsed"),
    ] {
        let mut bucket = open(&server(answer).await);
        let error = bucket.send(&payload()).await.expect_err(answer);
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("s3parquet http://127.0.0.1:") && text.contains(expected), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn what_no_retry_mends_is_dropped() {
    let mut broken = payload();
    broken.bytes = Bytes::from_static(b"\x05hello");
    let error = open(&server("").await).send(&broken).await.expect_err("no rows");
    assert!(matches!(error, SendError::Drop(_)), "{error:?}");
    assert!(error.to_string().contains("the batch becomes no Parquet: "), "{error}");
}

#[test]
fn only_rows_in_protobuf_are_taken_and_keys_come_in_pairs() {
    let address = super::super::parse("s3parquet:http://127.0.0.1:9/rows", &[]).expect("an address");
    for format in crate::marshaller::FORMATS {
        let expected = if format.name() == FORMAT { Ok(()) } else { Err(FORMAT.to_owned()) };
        assert_eq!(address.opener().takes(format), expected);
    }
    for (options, problem) in [
        ("access-key=a", "option access-key needs secret-key or secret-key-file"),
        ("secret-key=a", "option secret-key or token needs access-key"),
        ("part-bytes=1MiB", "option part-bytes=1MiB: out of range"),
        ("zstd=23", "option zstd=23: accepted: 1 to 22"),
    ] {
        let error =
            super::super::parse(&format!("s3parquet:http://s3/rows#{options}"), &[]).expect_err(options);
        assert!(error.to_string().contains(problem), "{error}");
    }
}
