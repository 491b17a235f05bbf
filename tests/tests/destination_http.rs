//! Rows reach an HTTP server, here Python's: plain, compressed and over mutual TLS, what it reads is what was sent; an
//! outage is said, and sending works again after it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use xtcp_agent::destination::SendError;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_tests::agent::agent;
use xtcp_tests::authority::Authority;
use xtcp_tests::host::{alone, wait_for};
use xtcp_tests::recorder::Recorder;
use xtcp_tests::sink::{HOST, full_record, open, payload, rows_of, send_until_it_arrives};
use xtcp_tests::traffic::pair;

const LIMIT: Duration = Duration::from_secs(60);

fn records(from: u32, count: u32) -> Vec<XtcpFlatRecord> {
    (from..from + count).map(full_record).collect()
}

#[tokio::test]
async fn a_server_reads_every_field_of_every_row_in_every_compression_over_one_connection() {
    let server = Recorder::start();
    let mut sent = Vec::new();
    for (number, compression) in ["none", "gzip", "zstd"].into_iter().enumerate() {
        let rows = records(u32::try_from(number).expect("small") * 100, 60);
        let address = format!("http://{}/rows?a=b#compression={compression}&token=abc", server.address);
        let mut to = open(&address, "protobufList");
        let before = number * 3;
        for (part, rows) in rows.chunks(20).enumerate() {
            to.send(&payload("protobufList", rows, &format!("i-{part}-0"))).await.expect("acknowledged");
        }
        let requests = server.at_least(before + 3).split_off(before);
        assert_eq!(requests.len(), 3);
        for (part, request) in requests.iter().enumerate() {
            assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/rows?a=b"));
            assert_eq!(request.connection, requests[0].connection, "a connection is used again");
            for (header, value) in [
                ("content-type", "application/x-protobuf"),
                ("xtcp-batch-id", &format!("i-{part}-0")),
                ("idempotency-key", &format!("i-{part}-0")),
                ("xtcp-rows", "20"),
                ("xtcp-host", HOST),
                ("xtcp-topic", "xtcp"),
                ("authorization", "Bearer abc"),
            ] {
                assert_eq!(request.header(header), Some(value), "{header}");
            }
            let encoding = (compression != "none").then_some(compression);
            assert_eq!(request.header("content-encoding"), encoding);
        }
        let read: Vec<_> = requests.iter().flat_map(|request| rows_of(&request.bytes())).collect();
        assert_eq!(read, rows, "{compression}");
        sent.push(read);
    }
    assert_eq!(sent.len(), 3);
}

#[tokio::test]
async fn mutual_tls_is_spoken_and_a_wrong_certificate_is_named() {
    let (ours, other) = (Authority::new("Our authority"), Authority::new("Somebody else"));
    let (identity, client) = (ours.issue("web-server", &["localhost"]), ours.issue("client", &["client"]));
    let server = Recorder::start_secured(&ours, &identity);
    let place = format!("localhost:{}", server.address.port());
    let rows = records(1, 5);
    let one = payload("protobufList", &rows, "i-1-0");
    let mut to = open(&format!("https://{place}/#{}", ours.options(Some(&client))), "protobufList");
    to.send(&one).await.expect("acknowledged");
    assert_eq!(rows_of(&server.at_least(1)[0].bytes()), rows);
    assert_eq!(to.probe().await.expect("there"), "answers 200 OK to OPTIONS over TLS");
    for (host, options, said) in [
        (
            "localhost",
            other.options(None),
            "certificate \"CN=web-server\" of localhost is issued by CN=Our authority, which is none of",
        ),
        (
            "127.0.0.1",
            ours.options(Some(&client)),
            "certificate \"CN=web-server\" of 127.0.0.1 is for localhost: use one",
        ),
        (
            "localhost",
            ours.options(None),
            "it wants a certificate of ours: name it with tls-cert and tls-key",
        ),
    ] {
        let address = format!("https://{host}:{}/", server.address.port());
        let error = open(&format!("{address}#{options}"), "protobufList").send(&one).await.expect_err(said);
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        println!("{error}");
        assert!(error.to_string().starts_with(&format!("POST {address}: ")), "{error}");
        assert!(error.to_string().contains(said), "{said:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_fails_dies_or_freezes_is_waited_for_and_nothing_is_lost() {
    let server = Recorder::start();
    let address = format!("http://{}/", server.address);
    let part = |number: u32| payload("protobufList", &records(number * 10, 10), &format!("i-{number}-0"));
    let mut to = open(&address, "protobufList");
    server.answer(503, "later");
    let error = to.send(&part(0)).await.expect_err("it says later");
    assert_eq!(error.to_string(), format!("POST {address}: answered 503 Service Unavailable (later)"));
    server.answer(200, "");
    to.send(&part(0)).await.expect("acknowledged");
    server.process.freeze();
    // Who waits in vain gives the destination up and opens another one.
    tokio::time::timeout(Duration::from_millis(500), to.send(&part(1))).await.expect_err("nobody answers");
    drop(to);
    server.process.thaw();
    let mut to = open(&address, "protobufList");
    send_until_it_arrives(&mut to, &part(1), LIMIT).await;
    let first = server.at_least(3);
    let port = server.address.port();
    drop(server);
    let error = to.send(&part(2)).await.expect_err("nobody is there");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    let server = Recorder::start_on(port, &[]);
    let restarted = send_until_it_arrives(&mut to, &part(2), LIMIT).await;
    println!("said: {error}\n{restarted:?}");
    let ids: Vec<_> = [first, server.at_least(1)].concat();
    let mut ids: Vec<_> =
        ids.iter().map(|request| request.header("xtcp-batch-id").expect("an id").to_owned()).collect();
    ids.dedup();
    assert_eq!(ids, ["i-0-0", "i-1-0", "i-2-0"]);
}

#[test]
fn an_agents_rows_of_real_sockets_reach_a_server() {
    let _alone = alone();
    let server = Recorder::start();
    let connection = pair(Ipv4Addr::LOCALHOST);
    let port = |address: std::io::Result<SocketAddr>| u32::from(address.expect("an address").port());
    let ports = (port(connection.client.local_addr()), port(connection.client.peer_addr()));
    let is_it = |row: &XtcpFlatRecord| {
        (row.inet_diag_msg_socket_source_port, row.inet_diag_msg_socket_destination_port) == ports
    };
    let dest = format!("http://{}/#marshal=protobufList&compression=zstd", server.address);
    let mut agent = agent().args(&["--dest", &dest]).frequency("1s").start();
    let row = wait_for("the connection's row to reach the server", LIMIT, || {
        let rows = server.requests().into_iter().flat_map(|request| rows_of(&request.bytes()));
        rows.into_iter().find(|row| is_it(row))
    });
    assert_eq!(row.inet_diag_msg_socket_source[..4], [127, 0, 0, 1]);
    drop(connection);
    let (status, _) = agent.terminate(Duration::from_secs(20));
    assert!(status.success(), "{status}: {}", agent.process.stderr.text());
}
