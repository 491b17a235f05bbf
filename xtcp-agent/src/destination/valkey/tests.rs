use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::delivery::route::OPTIONS;
use crate::destination;
use crate::marshaller;

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

/// Answers every command with OK but PUBLISH, and that with `answer`; hangs up where it is empty.
async fn server(answer: &'static str) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let place = listener.local_addr().expect("an address").to_string();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                // A command is an array: its length, and then each word behind its own.
                let words: usize = line.trim_start_matches('*').trim().parse().expect("a length");
                let mut command = Vec::new();
                for _ in 0..words * 2 {
                    line.clear();
                    stream.read_line(&mut line).await.expect("a word");
                    command.push(line.trim().to_owned());
                }
                line.clear();
                let is_publish = command.iter().any(|word| word == "PUBLISH");
                if is_publish && answer.is_empty() {
                    break;
                }
                let said = if is_publish { answer } else { "+OK\r\n" };
                stream.get_mut().write_all(said.as_bytes()).await.expect("written");
            }
        }
    });
    (place, task)
}

#[tokio::test]
async fn what_a_server_says_becomes_advice() {
    for (answer, said) in [
        (":0\r\n", ""),
        ("-NOAUTH Authentication required.\r\n", "check user and password"),
        ("-NOPERM this user has no permissions\r\n", "allow the user PUBLISH or XADD"),
        ("-OOM command not allowed when used memory > 'maxmemory'.\r\n", "memory is full"),
        ("-LOADING Redis is loading the dataset in memory\r\n", "loading"),
        ("-READONLY You can't write against a read only replica.\r\n", "address of its primary"),
        ("\0rubbish\r\n", "topic xtcp: "),
        ("", "topic xtcp: "),
        ("$100\r\nno more\r\n", "no answer within 300ms"),
    ] {
        let (place, task) = server(answer).await;
        let begun = Instant::now();
        let sent = open(&format!("valkey:{place}#timeout=300ms")).send(&payload()).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        match sent {
            Ok(()) => assert_eq!(answer, ":0\r\n"),
            Err(error) => {
                assert!(matches!(error, SendError::Retry(_)), "{error:?}");
                let text = error.to_string();
                assert!(text.starts_with(&format!("valkey {place}, topic xtcp: ")), "{text}");
                assert!(!said.is_empty() && text.contains(said), "{answer:?}: {text}");
            }
        }
        task.abort();
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told() {
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let place = nobody.local_addr().expect("an address").to_string();
    drop(nobody);
    let error = open(&format!("valkey:{place}")).send(&payload()).await.expect_err("refused").to_string();
    assert_eq!(
        error,
        format!("valkey {place}, topic xtcp: cannot connect: connection refused (ECONNREFUSED)")
    );
}

#[test]
fn malformed_addresses_and_options_say_what_is_wrong() {
    for (address, problem) in [
        ("valkey:host", "has no :PORT"),
        ("valkey:host:6379/x", "\"x\" is no database: a number"),
        ("valkey:host:6379#maxlen=5", "option maxlen needs mode=stream"),
        ("valkey:host:6379#mode=list", "accepted: pubsub, stream"),
        ("valkey:host:6379#user=a", "option user needs password"),
    ] {
        let message = destination::parse(address, &[]).expect_err(address).to_string();
        assert!(message.contains(problem), "{address}: {message}");
    }
    for address in ["valkey:host:6379", "valkey://host:6379/", "valkey:[::1]:6379/3#mode=stream&maxlen=0"] {
        destination::parse(address, &[]).expect(address);
    }
}
