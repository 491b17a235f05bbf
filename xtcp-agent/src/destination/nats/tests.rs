use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::delivery::route::OPTIONS;
use crate::destination;
use crate::marshaller;

const INFO: &str = "INFO {\"server_id\":\"x\",\"server_name\":\"x\",\"version\":\"2.9\",\"go\":\"\",\"host\":\"\",\"port\":1,\
                    \"headers\":true,\"max_payload\":1048576,\"proto\":1,\"client_id\":1}\r\n";

fn open(address: &str) -> Box<dyn Destination> {
    let context = Context {
        hostname: "host-1".into(),
        topic: "xtcp".to_owned(),
        format: marshaller::parse("protobufList").expect("the default"),
    };
    destination::parse(address, &OPTIONS).expect(address).open(&context).expect(address)
}

fn payload() -> Payload {
    Payload { bytes: b"rows".as_slice().into(), header: 0, rows: 1, id: "i-1-0".into() }
}

/// Says `greeting` to whoever connects, and then `reply` to the first line that begins with one of `on`.
async fn server(greeting: &'static str, on: &'static str, reply: &'static [u8]) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let place = listener.local_addr().expect("an address").to_string();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut stream = BufReader::new(stream);
            let _ = stream.get_mut().write_all(greeting.as_bytes()).await;
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|bytes| bytes > 0) {
                let answer = if line.starts_with(on) {
                    reply
                } else if line == "PING\r\n" {
                    b"PONG\r\n".as_slice()
                } else {
                    b""
                };
                if stream.get_mut().write_all(answer).await.is_err() || answer == b"!" {
                    break;
                }
                line.clear();
            }
        }
    });
    (place, task)
}

#[tokio::test]
async fn a_hostile_server_is_an_error_to_try_again_and_in_time() {
    for (greeting, on, reply, said) in [
        // Rubbish; nothing at all; an end at once; an end at the message; no answer to the message.
        ("\0\u{1}rubbish\r\n", "CONNECT", b"".as_slice(), "cannot connect: "),
        ("", "CONNECT", b"", "cannot connect: "),
        ("SSH-2.0-OpenSSH_9.2\r\n", "CONNECT", b"!", "cannot connect: "),
        (INFO, "HPUB", b"!", "the connection is lost"),
        (INFO, "HPUB", b"-ERR 'Permissions Violation for Publish to \"xtcp\"'\r\n", "Permissions Violation"),
        (INFO, "nothing", b"", "no answer within 300ms"),
    ] {
        let (place, task) = server(greeting, on, reply).await;
        let begun = Instant::now();
        let error = open(&format!("nats:{place}#timeout=300ms")).send(&payload()).await.expect_err(said);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("nats {place}: ")) && text.contains(said), "{said:?}: {text}");
        task.abort();
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_has_no_name_is_told() {
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let place = nobody.local_addr().expect("an address").to_string();
    drop(nobody);
    let error = open(&format!("nats:{place}")).send(&payload()).await.expect_err("refused").to_string();
    assert!(error.contains("Connection refused"), "{error}");
    let error =
        open("nats:no.such.name.invalid:4222").send(&payload()).await.expect_err("no name").to_string();
    assert!(error.contains("check the name and the resolver"), "{error}");
}

#[test]
fn malformed_addresses_and_options_say_what_is_wrong() {
    for (address, problem) in [
        ("nats:host", "has no :PORT"),
        ("nats:a:1,b", "has no :PORT"),
        ("nats:", "has no :PORT"),
        ("nats:a:1#user=a&token=b", "exclude each other"),
        ("nats:a:1#password=b", "needs user"),
        ("nats:a:1#nkey=b", "option nkey is unknown"),
        ("nats:a:1#max-payload=1", "option max-payload=1"),
        ("nats:a:1#jetstream=yes", "accepted: true, false"),
    ] {
        let message = destination::parse(address, &[]).expect_err(address).to_string();
        assert!(message.contains(problem), "{address}: {message}");
    }
    let address = destination::parse("nats:a:1,[::1]:2#max-payload=64KiB", &[]).expect("an address");
    assert_eq!(address.opener().max_payload(), Some((64 << 10) - 1024));
    let mut context = Context {
        hostname: "host-1".into(),
        topic: "a b".to_owned(),
        format: marshaller::parse("protobufList").expect("the default"),
    };
    for topic in ["a b", "a..b", "a.*", ">", ""] {
        topic.clone_into(&mut context.topic);
        assert!(address.open(&context).is_err(), "{topic:?}");
    }
}
