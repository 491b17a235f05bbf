use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};

use rdkafka::mocking::MockCluster;

use super::*;
use crate::delivery::route::OPTIONS;
use crate::destination::{Address, parse};
use crate::marshaller;

fn context() -> Context {
    Context { hostname: "host-1".into(), topic: "xtcp".to_owned(), format: marshaller::FORMATS[0] }
}

fn payload(bytes: usize) -> Payload {
    Payload { bytes: vec![7; bytes].into(), header: 0, rows: 1, id: "i-1-0".into() }
}

fn address(text: &str) -> Address {
    parse(text, &OPTIONS).expect(text)
}

fn problem(text: &str) -> String {
    parse(text, &OPTIONS).map(drop).expect_err(text).to_string()
}

/// What sending to a peer that answers everything with `answer` comes to, in the end.
async fn sent_to(answer: &'static [u8], options: &str) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    // Ends with the test's process: it waits for connections.
    thread::Builder::new()
        .spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut request = [0; 512];
                // Who went away is no matter.
                let _ = stream.read(&mut request).and_then(|_| stream.write_all(answer));
            }
        })
        .expect("a thread");
    let address = address(&format!("kafka:127.0.0.1:{port}#timeout=4s{options}"));
    let mut topic = address.open(&context()).expect("opened");
    let error = topic.send(&payload(10)).await.expect_err("no broker");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    error.to_string()
}

#[test]
fn an_address_says_what_is_wrong_with_it() {
    for (text, says) in [
        ("kafka", "no broker is named"),
        ("kafka:broker", "\"broker\" has no :PORT"),
        ("kafka:a:1,b", "\"b\" has no :PORT"),
        ("kafka:a:1#acks=2", "option acks=2: accepted: all, 1, 0"),
        ("kafka:a:1#acks=1&idempotence=true", "option idempotence=true needs acks=all, not acks=1"),
        ("kafka:a:1#user=me", "options sasl-mechanism, user and password go together"),
        ("kafka:a:1#tls=false&tls-ca=/ca", "option tls-ca needs tls=true"),
        ("kafka:a:1#tls-cert=/c", "options tls-cert and tls-key go together"),
        ("kafka:a:1#schema-registry=ftp://x", "accepted: http[s]://HOST[:PORT]"),
        ("kafka:a:1#schema-registry=http://me:secret@x", "would be shown in logs"),
        ("kafka:a:1#sasl-mechanism=GSSAPI&user=u&password=p", "accepted: PLAIN, SCRAM-SHA-256"),
    ] {
        let message = problem(text);
        assert!(message.contains(says) && message.contains("kafka:HOST:PORT[,HOST:PORT…]"), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
fn the_largest_payload_leaves_room_for_key_and_headers() {
    let default = address("kafka:a:1,[::1]:2");
    assert_eq!(default.opener().max_payload(), Some(1_000_000 - OVERHEAD));
    assert_eq!(default.opener().patience(), Some(Duration::from_secs(30)));
    let other = address("kafka:a:1#message-max-bytes=2MiB&timeout=45s");
    assert_eq!(other.opener().max_payload(), Some((2 << 20) - OVERHEAD));
    assert_eq!(other.opener().patience(), Some(Duration::from_secs(45)));
}

#[test]
fn a_certificate_that_is_not_there_is_an_error_of_opening_that_names_the_option() {
    let message =
        address("kafka:a:1#tls-ca=/nowhere/ca.pem").open(&context()).map(drop).expect_err("no file");
    assert!(message.to_string().contains("option tls-ca: ssl.ca.location failed"), "{message}");
}

#[tokio::test]
async fn the_largest_payload_arrives_and_one_that_the_broker_refuses_is_dropped() {
    let cluster = MockCluster::new(1).expect("a cluster");
    cluster.create_topic("xtcp", 1, 1).expect("a topic");
    let address = address(&format!("kafka:{}", cluster.bootstrap_servers()));
    let mut topic = address.open(&context()).expect("opened");
    let most = address.opener().max_payload().expect("a limit");
    topic.send(&payload(most)).await.expect("sent");
    let error = topic.send(&payload(most + OVERHEAD)).await.expect_err("too large");
    assert!(matches!(error, SendError::Drop(_)), "{error:?}");
    assert!(error.to_string().contains("topic xtcp takes no message of 1000000 bytes: raise"), "{error}");
    let found = topic.probe().await.expect("an answer");
    assert_eq!(found, "1 broker, topic xtcp has 1 partition");
}

#[tokio::test]
async fn nobody_listening_is_refused_and_no_such_name_is_dns() {
    let mut refusing = address("kafka:127.0.0.1:1#timeout=4s").open(&context()).expect("opened");
    let error = refusing.send(&payload(1)).await.expect_err("nobody listens");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "kafka 127.0.0.1:1: Connect to ipv4#127.0.0.1:1 failed: Connection refused: is a broker listening there?"
    );
    let mut nameless =
        address("kafka:no-such-host.invalid:9092#timeout=4s").open(&context()).expect("opened");
    let error = nameless.probe().await.expect_err("no such name").to_string();
    assert!(
        error.starts_with("kafka no-such-host.invalid:9092: Failed to resolve")
            && error.ends_with(": check the name and this host's DNS"),
        "{error}"
    );
}

#[tokio::test]
async fn a_peer_that_answers_garbage_or_hangs_up_is_tried_again() {
    let garbage = sent_to(b"HTTP/1.1 400 Bad Request\r\n\r\n", "").await;
    assert!(garbage.contains("Invalid response size"), "{garbage}");
    let hangs_up = sent_to(b"", "").await;
    assert!(hangs_up.ends_with("the broker wants TLS (tls=true) or SASL there"), "{hangs_up}");
    let no_tls = sent_to(b"HTTP/1.1 400 Bad Request\r\n\r\n", "&tls=true").await;
    assert!(no_tls.contains("the broker speaks no TLS there"), "{no_tls}");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_a_timeout_that_names_it() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let at = listener.local_addr().expect("bound");
    let mut topic = address(&format!("kafka:{at}#timeout=4s")).open(&context()).expect("opened");
    let error = topic.send(&payload(1)).await.expect_err("no answer").to_string();
    assert!(error.starts_with(&format!("kafka {at}: ")) && error.contains("frozen"), "{error}");
}

#[tokio::test]
async fn a_destination_that_is_dropped_takes_its_threads_along() {
    let cluster = MockCluster::new(1).expect("a cluster");
    let name_of = |entry: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(entry.ok()?.path().join("comm")).ok()
    };
    let topic = address(&format!("kafka:{}#client-id=threads", cluster.bootstrap_servers()));
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("tasks");
        tasks.filter_map(name_of).filter(|name| name.starts_with("rdk:")).count()
    };
    // Others of this process's tests may have clients of their own; those end with them.
    let mut open: Vec<_> = (0..20).map(|_| topic.open(&context()).expect("opened")).collect();
    for topic in &mut open {
        topic.send(&payload(1)).await.expect("sent");
    }
    assert!(threads() >= 40, "{}", threads());
    drop(open);
    for _ in 0..600 {
        if threads() < 40 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} threads of librdkafka are still there", threads());
}
