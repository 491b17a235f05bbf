//! Rows reach NATS: what nats-py reads, from core NATS, from a stream and over mutual TLS, is what was sent; an outage is
//! said and loses nothing that a stream acknowledged.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;
use xtcp_agent::destination::SendError;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_tests::agent::agent;
use xtcp_tests::authority::{Authority, Identity};
use xtcp_tests::host::{alone, free_port, python, wait_for, workspace};
use xtcp_tests::nats::NatsServer;
use xtcp_tests::process::Process;
use xtcp_tests::sink::{HOST, full_record, open, payload, rows_of, send_until_it_arrives};
use xtcp_tests::traffic::pair;

const LIMIT: Duration = Duration::from_secs(60);

/// nats-py, subscribed.
struct Reader(Process);

impl Reader {
    fn start(place: &str, arguments: &[&str]) -> Self {
        let script = workspace().join("tests/clients/read_nats.py");
        let mut argv = vec![python().display().to_string(), script.display().to_string()];
        argv.extend([format!("nats://{place}"), "xtcp".to_owned()]);
        argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let reader = Process::start("read_nats.py", &argv);
        let ready = reader.stdout.wait_for(LIMIT, |line| line == "ready");
        assert!(ready.is_some(), "read_nats.py does not subscribe: {}", reader.stderr.text());
        Self(reader)
    }

    /// All messages so far, once there are as many: their headers and their rows.
    fn messages(&self, count: usize) -> Vec<(Value, Vec<XtcpFlatRecord>)> {
        wait_for("nats-py to read the messages", LIMIT, || (self.0.stdout.len() > count).then_some(()));
        let message = |line: xtcp_tests::process::Line| {
            let message: Value = serde_json::from_str(&line.text).expect("a line of JSON");
            assert_eq!(message["subject"], "xtcp");
            let hex = message["data"].as_str().expect("bytes");
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            (message["headers"].clone(), rows_of(&bytes))
        };
        self.0.stdout.since(1).into_iter().map(message).collect()
    }

    fn rows(&self, messages: usize) -> Vec<XtcpFlatRecord> {
        self.messages(messages).into_iter().flat_map(|(_, rows)| rows).collect()
    }
}

fn records(from: u32, count: u32) -> Vec<XtcpFlatRecord> {
    (from..from + count).map(full_record).collect()
}

#[tokio::test]
async fn nats_py_reads_every_field_of_every_row_from_core_nats() {
    let server = NatsServer::start();
    let reader = Reader::start(&server.address.to_string(), &[]);
    let mut to = open(&server.url(), "protobufList");
    let rows = records(1, 90);
    for (number, part) in rows.chunks(30).enumerate() {
        to.send(&payload("protobufList", part, &format!("i-{number}-0"))).await.expect("sent");
    }
    let messages = reader.messages(3);
    assert_eq!(messages.len(), 3);
    for (number, (headers, _)) in messages.iter().enumerate() {
        assert_eq!(headers["Nats-Msg-Id"], format!("i-{number}-0"));
        assert_eq!(headers["xtcp-rows"], "30");
        assert_eq!(headers["xtcp-host"], HOST);
        assert_eq!(headers["Content-Type"], "application/x-protobuf");
    }
    assert_eq!(messages.into_iter().flat_map(|(_, rows)| rows).collect::<Vec<_>>(), rows);
    assert!(to.probe().await.expect("there").starts_with("NATS 2."));
}

#[tokio::test]
async fn a_stream_stores_a_batch_once_however_often_it_is_sent() {
    let store = tempfile::tempdir().expect("a folder");
    let config = format!("jetstream {{ store_dir: {:?} }}", store.path());
    let server = NatsServer::configured(free_port(), &config);
    let mut to = open(&format!("{}#jetstream=true&timeout=5s", server.url()), "protobufList");
    let (first, second) = (records(1, 20), records(21, 20));
    let none = to.send(&payload("protobufList", &first, "i-1-0")).await.expect_err("no stream");
    assert!(matches!(none, SendError::Retry(_)), "{none:?}");
    assert!(none.to_string().contains("no stream takes subject xtcp: make one"), "{none}");
    let reader = Reader::start(&server.address.to_string(), &["--stream", "ROWS"]);
    for _ in 0..3 {
        to.send(&payload("protobufList", &first, "i-1-0")).await.expect("stored");
    }
    to.send(&payload("protobufList", &second, "i-2-0")).await.expect("stored");
    assert_eq!(reader.rows(2), [first, second].concat());
    let found = to.probe().await.expect("there");
    assert!(found.ends_with(", stream ROWS takes subject xtcp"), "{found}");
}

fn tls_config(authority: &Authority, server: &Identity) -> String {
    format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        server.cert.display(),
        server.key.display(),
        authority.ca().display()
    )
}

#[tokio::test]
async fn mutual_tls_is_spoken_and_a_wrong_certificate_is_named() {
    let (ours, other) = (Authority::new("Our authority"), Authority::new("Somebody else"));
    let identity = ours.issue("nats-server", &["127.0.0.1", "localhost"]);
    let client = ours.issue("client", &["client"]);
    let server = NatsServer::configured(free_port(), &tls_config(&ours, &identity));
    let place = server.address.to_string();
    let file = |path: &std::path::Path| path.display().to_string();
    let reader = Reader::start(
        &format!("localhost:{}", server.address.port()),
        &["--ca", &file(&ours.ca()), "--cert", &file(&client.cert), "--key", &file(&client.key)],
    );
    let rows = records(1, 5);
    let one = payload("protobufList", &rows, "i-1-0");
    open(&format!("nats:{place}#{}", ours.options(Some(&client))), "protobufList")
        .send(&one)
        .await
        .expect("sent over TLS");
    assert_eq!(reader.rows(1), rows);

    let stranger = other.issue("stranger", &["client"]);
    for (options, said) in [
        (
            other.options(None),
            "certificate \"CN=nats-server\" of 127.0.0.1 is issued by CN=Our authority, which is none of",
        ),
        (
            format!("{}&tls-server-name=broker", ours.options(Some(&client))),
            "of broker is for 127.0.0.1, localhost",
        ),
        (ours.options(None), "it wants a certificate of ours that it trusts"),
        (
            format!(
                "tls-ca={}&tls-cert={}&tls-key={}",
                file(&ours.ca()),
                file(&stranger.cert),
                file(&stranger.key)
            ),
            "it wants a certificate of ours that it trusts",
        ),
    ] {
        let error =
            open(&format!("nats:{place}#{options}"), "protobufList").send(&one).await.expect_err(said);
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        let text = error.to_string();
        println!("{text}");
        assert!(text.starts_with(&format!("nats {place}: ")) && text.contains(said), "{said:?}: {text}");
    }
}

#[tokio::test]
async fn logins_are_taken_and_a_refused_one_says_what_to_check() {
    let users = "authorization { users: [ \
        { user: in, password: secret, permissions: { publish: [\"xtcp\", \"_INBOX.>\"], subscribe: \"_INBOX.>\" } }, \
        { user: out, password: secret, permissions: { publish: \"_INBOX.>\", subscribe: \"_INBOX.>\" } } ] }";
    let server = NatsServer::configured(free_port(), users);
    let one = payload("protobufList", &records(1, 1), "i-1-0");
    let send = async |options: &str| {
        open(&format!("{}#{options}", server.url()), "protobufList").send(&one).await.map_err(|error| {
            assert!(matches!(error, SendError::Retry(_)), "{error:?}");
            error.to_string()
        })
    };
    send("user=in&password=secret").await.expect("taken");
    let wrong = send("user=in&password=wrong").await.expect_err("refused");
    assert!(wrong.contains("check user and password"), "{wrong}");
    assert!(!wrong.contains("wrong"), "{wrong}");
    let nobody = send("").await.expect_err("refused");
    assert!(nobody.contains("check user and password"), "{nobody}");
    let forbidden = send("user=out&password=secret").await.expect_err("not allowed");
    assert!(forbidden.contains("allow the user to publish on xtcp"), "{forbidden}");
}

#[tokio::test]
async fn a_server_that_dies_or_freezes_is_waited_for_and_nothing_is_lost() {
    let store = tempfile::tempdir().expect("a folder");
    let config = format!("jetstream {{ store_dir: {:?} }}", store.path());
    let port = free_port();
    let server = NatsServer::configured(port, &config);
    let making = Reader::start(&server.address.to_string(), &["--stream", "ROWS"]);
    drop(making);
    let mut to = open(&format!("{}#jetstream=true&timeout=1s", server.url()), "protobufList");
    let rows = records(1, 40);
    let parts: Vec<_> = rows
        .chunks(10)
        .enumerate()
        .map(|(number, part)| payload("protobufList", part, &format!("i-{number}-0")))
        .collect();
    to.send(&parts[0]).await.expect("stored");
    server.kill();
    let error = to.send(&parts[1]).await.expect_err("nobody is there");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    let server = NatsServer::configured(port, &config);
    let restarted = send_until_it_arrives(&mut to, &parts[1], LIMIT).await;
    server.freeze();
    let begun = Instant::now();
    let frozen = to.send(&parts[2]).await.expect_err("nobody answers");
    assert!(matches!(frozen, SendError::Retry(_)), "{frozen:?}");
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    let still = to.send(&parts[2]).await.expect_err("nobody answers a new connection either");
    server.thaw();
    let continued = send_until_it_arrives(&mut to, &parts[2], LIMIT).await;
    to.send(&parts[3]).await.expect("stored");
    println!("said: {error}\n{restarted:?}\n{frozen}\n{still}\n{continued:?}");
    let reader = Reader::start(&server.address.to_string(), &["--stream", "ROWS"]);
    assert_eq!(reader.rows(4), rows);
}

#[test]
fn an_agents_rows_of_real_sockets_reach_nats() {
    let _alone = alone();
    let server = NatsServer::start();
    let reader = Reader::start(&server.address.to_string(), &[]);
    let connection = pair(Ipv4Addr::LOCALHOST);
    let port = |address: std::io::Result<SocketAddr>| u32::from(address.expect("an address").port());
    let ports = (port(connection.client.local_addr()), port(connection.client.peer_addr()));
    let is_it = |row: &XtcpFlatRecord| {
        (row.inet_diag_msg_socket_source_port, row.inet_diag_msg_socket_destination_port) == ports
    };
    let dest = format!("{}#topic=xtcp&marshal=protobufList", server.url());
    let mut agent = agent().args(&["--dest", &dest]).frequency("1s").start();
    let row = wait_for("the connection's row to reach NATS", LIMIT, || {
        reader.rows(0).into_iter().find(|row| is_it(row))
    });
    assert_eq!(row.inet_diag_msg_socket_source[..4], [127, 0, 0, 1]);
    drop(connection);
    let (status, _) = agent.terminate(Duration::from_secs(20));
    assert!(status.success(), "{status}: {}", agent.process.stderr.text());
}
