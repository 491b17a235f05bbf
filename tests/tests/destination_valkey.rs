//! Rows reach Valkey (here Redis): what redis-cli reads, subscribed or from a stream, is what was sent; an outage is said,
//! and sending works again after it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use xtcp_agent::destination::SendError;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_tests::agent::agent;
use xtcp_tests::authority::Authority;
use xtcp_tests::host::{alone, wait_for};
use xtcp_tests::process::Process;
use xtcp_tests::sink::{full_record, open, payload, rows_of, send_until_it_arrives};
use xtcp_tests::traffic::pair;
use xtcp_tests::valkey::RedisServer;

const LIMIT: Duration = Duration::from_secs(60);

fn records(from: u32, count: u32) -> Vec<XtcpFlatRecord> {
    (from..from + count).map(full_record).collect()
}

fn url(server: &RedisServer, options: &str) -> String {
    format!("valkey:{}#{options}", server.address)
}

/// The strings of redis-cli's output for people, in their order.
fn strings(text: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut bytes = text.bytes();
    while bytes.by_ref().any(|byte| byte == b'"') {
        let mut string = Vec::new();
        while let Some(byte) = bytes.next().filter(|&byte| byte != b'"') {
            if byte != b'\\' {
                string.push(byte);
                continue;
            }
            string.push(match bytes.next().expect("an escape") {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'a' => 7,
                b'b' => 8,
                b'x' => {
                    let digits = [bytes.next().expect("hex"), bytes.next().expect("hex")];
                    let digits = std::str::from_utf8(&digits).expect("hex");
                    u8::from_str_radix(digits, 16).expect("hex")
                }
                other => other,
            });
        }
        found.push(string);
    }
    found
}

/// redis-cli, subscribed.
struct Reader(Process);

impl Reader {
    fn start(server: &RedisServer) -> Self {
        let reader = Process::start("redis-cli", &server.client(&["--no-raw", "SUBSCRIBE", "xtcp"]));
        let ready = reader.stdout.wait_for(LIMIT, |line| line.starts_with("3) (integer) 1"));
        assert!(ready.is_some(), "redis-cli does not subscribe: {}", reader.stderr.text());
        Self(reader)
    }

    /// The rows of all messages so far, once there are as many messages.
    fn rows(&self, messages: usize) -> Vec<XtcpFlatRecord> {
        // The third string of a message is what was published; of the subscription it is a number.
        let published = || -> Vec<_> {
            let lines = self.0.stdout.since(0).into_iter();
            lines.filter(|line| line.text.starts_with("3) \"")).collect()
        };
        let read = || Some(published()).filter(|published| published.len() >= messages);
        let published = wait_for("redis-cli to read the messages", LIMIT, read);
        published.iter().flat_map(|line| rows_of(&strings(&line.text)[0])).collect()
    }
}

/// Entries of the stream: their fields and values.
fn entries(server: &RedisServer) -> Vec<Vec<Vec<u8>>> {
    let found = strings(&server.ask(&["--no-raw", "XRANGE", "xtcp", "-", "+"]));
    // The entry's id, and four fields with their values.
    found.chunks(9).map(<[Vec<u8>]>::to_vec).collect()
}

#[tokio::test]
async fn redis_cli_reads_every_field_of_every_row_from_a_channel() {
    let server = RedisServer::start(&[]);
    let mut to = open(&url(&server, ""), "protobufList");
    let rows = records(1, 60);
    // Nobody listens: the protocol acknowledges all the same.
    to.send(&payload("protobufList", &records(1000, 1), "i-0-0")).await.expect("published");
    let reader = Reader::start(&server);
    for (number, part) in rows.chunks(20).enumerate() {
        to.send(&payload("protobufList", part, &format!("i-{number}-0"))).await.expect("published");
    }
    assert_eq!(reader.rows(3), rows);
    assert_eq!(to.probe().await.expect("there"), "answers");
}

#[tokio::test]
async fn a_stream_keeps_every_field_of_every_row_and_about_as_many_entries_as_it_is_told() {
    let server = RedisServer::start(&[]);
    let mut to = open(&url(&server, "mode=stream&maxlen=100"), "protobufList");
    assert_eq!(to.probe().await.expect("there"), "answers, will make stream xtcp");
    let rows = records(1, 60);
    for (number, part) in rows.chunks(20).enumerate() {
        to.send(&payload("protobufList", part, &format!("i-{number}-0"))).await.expect("stored");
    }
    let found = entries(&server);
    assert_eq!(found.len(), 3);
    for (number, entry) in found.iter().enumerate() {
        let text = |at: usize| String::from_utf8_lossy(&entry[at]).into_owned();
        assert_eq!([text(1), text(3), text(5), text(7)], ["data", "id", "format", "rows"]);
        assert_eq!(
            [text(4), text(6), text(8)],
            [format!("i-{number}-0"), "protobufList".to_owned(), "20".to_owned()]
        );
    }
    let read: Vec<_> = found.iter().flat_map(|entry| rows_of(&entry[2])).collect();
    assert_eq!(read, rows);
    for number in 0..500 {
        to.send(&payload("protobufList", &rows[..1], &format!("i-1{number}-0"))).await.expect("stored");
    }
    let length: usize = server.ask(&["XLEN", "xtcp"]).trim().parse().expect("a number");
    assert!((100..=250).contains(&length), "{length}");
    assert_eq!(to.probe().await.expect("there"), "answers, has stream xtcp");
}

#[tokio::test]
async fn mutual_tls_is_spoken_and_a_wrong_certificate_is_named() {
    let (ours, other) = (Authority::new("Our authority"), Authority::new("Somebody else"));
    let (identity, client) = (ours.issue("redis-server", &["127.0.0.1"]), ours.issue("client", &["client"]));
    let server = RedisServer::start_secured(&ours, &identity, &client);
    let rows = records(1, 5);
    let one = payload("protobufList", &rows, "i-1-0");
    let mut to = open(&url(&server, &format!("mode=stream&{}", ours.options(Some(&client)))), "protobufList");
    to.send(&one).await.expect("stored over TLS");
    assert!(to.probe().await.expect("there").starts_with("answers over TLS"));
    assert_eq!(rows_of(&entries(&server)[0][2]), rows);
    let stranger = other.issue("stranger", &["client"]);
    let strange = format!(
        "{}&tls-cert={}&tls-key={}",
        ours.options(None),
        stranger.cert.display(),
        stranger.key.display()
    );
    for (options, said) in [
        (
            other.options(None),
            "certificate \"CN=redis-server\" of 127.0.0.1 is issued by CN=Our authority, which is none of",
        ),
        (ours.options(None), "it wants a certificate of ours that it trusts"),
        (strange, "it wants a certificate of ours that it trusts"),
        ("timeout=2s".to_owned(), "topic xtcp: "),
    ] {
        let error = open(&url(&server, &options), "protobufList").send(&one).await.expect_err(said);
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        println!("{error}");
        assert!(error.to_string().contains(said), "{said:?}: {error}");
    }
}

#[tokio::test]
async fn logins_and_databases_are_taken_and_a_refusal_says_what_to_check() {
    let server = RedisServer::start(&["--requirepass", "secret"]);
    let one = payload("protobufList", &records(1, 1), "i-1-0");
    let send = async |address: &str| {
        open(address, "protobufList").send(&one).await.map_err(|error| {
            assert!(matches!(error, SendError::Retry(_)), "{error:?}");
            error.to_string()
        })
    };
    send(&format!("valkey:{}/3#password=secret&mode=stream", server.address)).await.expect("stored");
    let length = server.ask(&["-a", "secret", "--no-auth-warning", "-n", "3", "XLEN", "xtcp"]);
    assert_eq!(length.trim(), "1");
    for options in ["password=wrong", "", "user=me&password=secret"] {
        let error = send(&url(&server, options)).await.expect_err("refused");
        assert!(error.ends_with(": check user and password"), "{error}");
        assert!(!error.contains("wrong") && !error.contains("secret"), "{error}");
    }
    let error =
        send(&format!("valkey:{}/9999#password=secret", server.address)).await.expect_err("no such database");
    assert!(error.contains("DB index is out of range"), "{error}");
    // A key of another kind under the topic.
    server.ask(&["-a", "secret", "--no-auth-warning", "SET", "xtcp", "text"]);
    let error = send(&url(&server, "password=secret&mode=stream")).await.expect_err("another kind");
    assert!(error.contains("the topic is a key of another kind"), "{error}");
}

#[tokio::test]
async fn a_server_that_dies_or_freezes_is_waited_for() {
    let mut server = RedisServer::start(&[]);
    let mut to = open(&url(&server, "mode=stream&timeout=1s"), "protobufList");
    let part = |number: u32| payload("protobufList", &records(number * 10, 10), &format!("i-{number}-0"));
    to.send(&part(0)).await.expect("stored");
    server.kill();
    let error = to.send(&part(1)).await.expect_err("nobody is there");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    server.restart();
    let restarted = send_until_it_arrives(&mut to, &part(1), LIMIT).await;
    server.process.freeze();
    let frozen = to.send(&part(2)).await.expect_err("nobody answers");
    assert!(matches!(frozen, SendError::Retry(_)), "{frozen:?}");
    server.process.thaw();
    let continued = send_until_it_arrives(&mut to, &part(2), LIMIT).await;
    // The server closes an idle connection: the next send does not notice.
    server.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    send_until_it_arrives(&mut to, &part(3), LIMIT).await;
    println!("said: {error}\n{restarted:?}\n{frozen}\n{continued:?}");
    let mut read: Vec<_> = entries(&server).iter().flat_map(|entry| rows_of(&entry[2])).collect();
    // What was sent again because nobody answered may be there twice.
    read.dedup();
    let mut expected: Vec<_> = (1..4).flat_map(|number| records(number * 10, 10)).collect();
    let time = |row: &XtcpFlatRecord| row.timestamp_ns;
    read.sort_by_key(time);
    read.dedup();
    expected.sort_by_key(time);
    assert_eq!(read, expected);
}

#[test]
fn an_agents_rows_of_real_sockets_reach_a_channel() {
    let _alone = alone();
    let server = RedisServer::start(&[]);
    let reader = Reader::start(&server);
    let connection = pair(Ipv4Addr::LOCALHOST);
    let port = |address: std::io::Result<SocketAddr>| u32::from(address.expect("an address").port());
    let ports = (port(connection.client.local_addr()), port(connection.client.peer_addr()));
    let is_it = |row: &XtcpFlatRecord| {
        (row.inet_diag_msg_socket_source_port, row.inet_diag_msg_socket_destination_port) == ports
    };
    let dest = url(&server, "topic=xtcp&marshal=protobufList");
    let mut agent = agent().args(&["--dest", &dest]).frequency("1s").start();
    let row = wait_for("the connection's row to reach redis-cli", LIMIT, || {
        reader.rows(0).into_iter().find(|row| is_it(row))
    });
    assert_eq!(row.inet_diag_msg_socket_source[..4], [127, 0, 0, 1]);
    drop(connection);
    let (status, _) = agent.terminate(Duration::from_secs(20));
    assert!(status.success(), "{status}: {}", agent.process.stderr.text());
}
