//! Rows reach ClickHouse. A server that writes requests down stands in for its HTTP interface, over mutual TLS; then
//! ClickHouse's engine (chdb) runs the recorded INSERTs on the recorded bytes, with the consumers' schema and the tables of
//! deploy/clickhouse, and every field is equal.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use prost_types::field_descriptor_proto::Type;
use serde_json::{Value, json};
use xtcp_agent::destination::SendError;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_tests::agent::agent;
use xtcp_tests::authority::Authority;
use xtcp_tests::host::{alone, python, wait_for, workspace};
use xtcp_tests::process;
use xtcp_tests::recorder::{Recorder, Request};
use xtcp_tests::sink::{descriptors, fields, full_record, open, payload, rows_of};
use xtcp_tests::traffic::pair;

const LIMIT: Duration = Duration::from_secs(60);
const INSERT: &str = "INSERT INTO `default`.`xtcp` SETTINGS \
                      format_schema='xtcp_flat_record.proto:XtcpFlatRecord', async_insert=1, \
                      wait_for_async_insert=1 FORMAT ProtobufList";

/// A parameter of a request's query.
fn parameter(request: &Request, name: &str) -> Option<String> {
    let (_, query) = request.path.split_once('?')?;
    let pair = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")))?;
    let mut bytes = Vec::new();
    let mut rest = pair.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().expect("hex"), rest.next().expect("hex")];
                u8::from_str_radix(std::str::from_utf8(&digits).expect("hex"), 16).expect("hex")
            }
            other => other,
        });
    }
    Some(String::from_utf8(bytes).expect("text"))
}

/// What the engine answers to `select` once it has run these inserts.
fn engine(requests: &[Request], select: &str) -> Vec<Value> {
    let root = workspace();
    let path = |path: &str| root.join(path).display().to_string();
    let mut argv = vec![
        python().display().to_string(),
        path("tests/clients/clickhouse.py"),
        "--table".to_owned(),
        path("deploy/clickhouse/xtcp.sql"),
        "--schemas".to_owned(),
        path("proto/xtcp_flat_record/v1"),
        "--select".to_owned(),
        select.to_owned(),
    ];
    for request in requests {
        argv.extend([parameter(request, "query").expect("a query"), request.body.display().to_string()]);
    }
    let lines = process::run(&argv);
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// A query for every field of the contract, each as the tests' `fields` has it.
fn every_field() -> String {
    let columns: Vec<String> = descriptors()
        .iter()
        .map(|field| {
            let name = field.name();
            match field.r#type() {
                Type::Bytes => format!("lower(hex({name})) AS {name}"),
                Type::Enum => format!("toInt64({name}) AS {name}"),
                Type::Int64 => format!("toUnixTimestamp64Nano({name}) AS {name}"),
                _ => name.to_owned(),
            }
        })
        .collect();
    format!(
        "SELECT {} FROM xtcp_flat_records FINAL ORDER BY timestamp_ns SETTINGS output_format_json_quote_64bit_integers=0",
        columns.join(", ")
    )
}

#[tokio::test]
async fn the_engine_reads_every_field_of_every_row_from_exactly_our_bytes() {
    let (ours, other) = (Authority::new("Our authority"), Authority::new("Somebody else"));
    let (identity, client) = (ours.issue("clickhouse", &["localhost"]), ours.issue("client", &["client"]));
    let server = Recorder::start_secured(&ours, &identity);
    let address = format!("clickhouse:https://localhost:{}", server.address.port());
    let options = format!("user=writer&password=secret&{}", ours.options(Some(&client)));
    // A row with every field, and one with none but those that tell it apart.
    let mut rows: Vec<XtcpFlatRecord> = (1..40).map(full_record).collect();
    let bare = XtcpFlatRecord {
        timestamp_ns: rows[38].timestamp_ns + 1,
        hostname: "bare".to_owned(),
        ..Default::default()
    };
    rows.push(bare);
    for (number, part) in rows.chunks(10).enumerate() {
        let compression = ["none", "gzip", "zstd"][number % 3];
        let mut to = open(&format!("{address}#{options}&compression={compression}"), "protobufList");
        let part = payload("protobufList", part, &format!("i-{number}-0"));
        to.send(&part).await.expect("acknowledged");
        if number == 1 {
            // Its acknowledgement was lost: it comes again.
            to.send(&part).await.expect("acknowledged");
        }
    }
    let requests = server.at_least(5);
    assert_eq!(requests.len(), 5);
    for (request, id) in requests.iter().zip(["i-0-0", "i-1-0", "i-1-0", "i-2-0", "i-3-0"]) {
        assert_eq!(request.method, "POST");
        assert_eq!(parameter(request, "query").as_deref(), Some(INSERT));
        assert_eq!(parameter(request, "insert_deduplication_token").as_deref(), Some(id));
        assert_eq!(request.header("x-clickhouse-user"), Some("writer"));
        assert_eq!(request.header("x-clickhouse-key"), Some("secret"));
    }
    let read: Vec<BTreeMap<String, Value>> = engine(&requests, &every_field())
        .into_iter()
        .map(|row| serde_json::from_value(row).expect("an object"))
        .collect();
    assert_eq!(read.len(), rows.len());
    for (read, sent) in read.iter().zip(&rows) {
        for (name, value) in fields(sent) {
            assert_eq!(read.get(&name), Some(&value), "{name}");
        }
    }

    let wrong = open(&format!("{address}#{}", other.options(None)), "protobufList")
        .send(&payload("protobufList", &rows[..1], "i-9-0"))
        .await
        .expect_err("not trusted");
    assert!(matches!(wrong, SendError::Retry(_)), "{wrong:?}");
    let said = "certificate \"CN=clickhouse\" of localhost is issued by CN=Our authority, which is none of";
    assert!(wrong.to_string().contains(said), "{wrong}");
}

#[tokio::test]
async fn an_exception_of_the_server_is_told_in_its_own_words() {
    let server = Recorder::start();
    let mut to = open(
        &format!("clickhouse:http://{}#database=a&table=b`c&async-insert=false", server.address),
        "protobufList",
    );
    let one = payload("protobufList", &[full_record(1)], "i-1-0");
    let unknown = "Code: 60. DB::Exception: Table a.b does not exist. (UNKNOWN_TABLE) (version 25.8)\n";
    server.answer(404, unknown);
    let error = to.send(&one).await.expect_err("no table");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "POST http://{}/: answered 404 Not Found ({}): make the table (deploy/clickhouse/xtcp.sql), or name it with table",
            server.address,
            unknown.trim()
        )
    );
    server.answer(500, "Code: 33. DB::Exception: Cannot read all data. (CANNOT_READ_ALL_DATA)");
    let error = to.send(&one).await.expect_err("bad rows");
    assert!(matches!(error, SendError::Drop(_)), "{error:?}");
    server.answer(200, "");
    to.send(&one).await.expect("inserted");
    let query = parameter(&server.at_least(3)[2], "query").expect("a query");
    assert!(
        query.starts_with("INSERT INTO `a`.`b\\`c` SETTINGS ") && query.contains("async_insert=0"),
        "{query}"
    );
    let probe = to.probe().await.expect_err("an empty answer is no table").to_string();
    assert!(probe.contains("deploy/clickhouse/xtcp.sql"), "{probe}");
}

#[test]
fn an_agents_rows_of_real_sockets_reach_the_engine() {
    let _alone = alone();
    let server = Recorder::start();
    let connection = pair(Ipv4Addr::LOCALHOST);
    let port = |address: std::io::Result<SocketAddr>| u32::from(address.expect("an address").port());
    let ports = (port(connection.client.local_addr()), port(connection.client.peer_addr()));
    let is_it = |row: &XtcpFlatRecord| {
        (row.inet_diag_msg_socket_source_port, row.inet_diag_msg_socket_destination_port) == ports
    };
    let dest = format!("clickhouse:http://{}#table=xtcp&marshal=protobufList", server.address);
    let mut agent = agent().args(&["--dest", &dest]).frequency("1s").start();
    // All rows of the connection in the first request that has any: a batch may hold those of several polls.
    let (request, rows) = wait_for("the connection's row to be inserted", LIMIT, || {
        server.requests().into_iter().find_map(|request| {
            let mut rows = rows_of(&request.bytes());
            rows.retain(|row| is_it(row));
            (!rows.is_empty()).then_some((request, rows))
        })
    });
    drop(connection);
    let (status, _) = agent.terminate(Duration::from_secs(20));
    assert!(status.success(), "{status}: {}", agent.process.stderr.text());
    let select = format!(
        "SELECT count() AS rows, sum(tcp_info_rtt) AS rtt FROM xtcp_flat_records \
         WHERE inet_diag_msg_socket_cookie = {} SETTINGS output_format_json_quote_64bit_integers=0",
        rows[0].inet_diag_msg_socket_cookie
    );
    let rtt: u64 = rows.iter().map(|row| u64::from(row.tcp_info_rtt)).sum();
    assert_eq!(engine(&[request], &select), [json!({"rows": rows.len(), "rtt": rtt})]);
}
