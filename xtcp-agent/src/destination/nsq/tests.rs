use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::delivery::route::OPTIONS;
use crate::destination::{Address, parse};
use crate::marshaller;

const IDENTIFIED: &str = r#"{"version":"1.3.0","tls_v1":false,"auth_required":false}"#;

fn context(topic: &str) -> Context {
    Context { hostname: "host-1".into(), topic: topic.to_owned(), format: marshaller::FORMATS[0] }
}

fn payload(bytes: &[u8]) -> Payload {
    Payload { bytes: bytes.to_vec().into(), header: 0, rows: 1, id: "i-1-0".into() }
}

fn address(text: &str) -> Address {
    parse(text, &OPTIONS).expect(text)
}

fn frame(kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len() + 4).expect("short");
    [&length.to_be_bytes()[..], &kind.to_be_bytes(), data].concat()
}

/// An nsqd of which a test says every word.
struct Fake {
    listener: TcpListener,
}

impl Fake {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("nsq:{}#timeout=4s", listener.local_addr().expect("bound"));
        (Self { listener }, address)
    }

    async fn accept(&self) -> Talk {
        Talk(self.listener.accept().await.expect("a client").0)
    }

    /// A connection on which the client has said who it is.
    async fn accept_identified(&self) -> Talk {
        let mut talk = self.accept().await;
        assert_eq!(talk.read(4).await, b"  V2");
        let (command, body) = talk.command().await;
        assert_eq!(command, "IDENTIFY");
        let who: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(who["hostname"], "host-1");
        assert_eq!(who["heartbeat_interval"], -1);
        assert!(who["user_agent"].as_str().is_some_and(|agent| agent.starts_with("xtcp2-agent/")));
        talk.say(&frame(0, IDENTIFIED.as_bytes())).await;
        talk
    }
}

struct Talk(TcpStream);

impl Talk {
    async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).await.expect("more");
        bytes
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        loop {
            match self.read(1).await[0] {
                b'\n' => return line,
                byte => line.push(char::from(byte)),
            }
        }
    }

    async fn command(&mut self) -> (String, Vec<u8>) {
        let line = self.line().await;
        let length = u32::from_be_bytes(self.read(4).await.try_into().expect("four"));
        let body = self.read(length as usize).await;
        (line, body)
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("heard");
    }
}

/// What a message comes to when nsqd answers PUB, or instead of IDENTIFY's answer, like this.
async fn answered(answer: &[u8], identified: bool) -> SendError {
    let (fake, to) = Fake::start().await;
    let mut topic = address(&to).open(&context("xtcp")).expect("opened");
    let server = async {
        let mut talk = if identified { fake.accept_identified().await } else { fake.accept().await };
        if identified {
            talk.command().await;
        }
        talk.say(answer).await;
        // Half-closed: it says nothing more.
        talk.0.shutdown().await.expect("shut");
        talk
    };
    let message = payload(b"row");
    let (sent, _talk) = futures_util::future::join(topic.send(&message), server).await;
    sent.expect_err("no OK")
}

#[test]
fn an_address_says_what_is_wrong_with_it() {
    for (text, says) in [
        ("nsq", "\"\" has no :PORT"),
        ("nsq:a:1,b:2", "\"a:1,b\" is no host"),
        ("nsq:a:1#tls=false&tls-ca=/ca", "the options tls-… need tls=true"),
        ("nsq:a:1#message-max-bytes=1KiB", "option message-max-bytes=1KiB"),
        ("nsq:a:1#token=a&token-file=b", "exclude each other"),
    ] {
        let message = parse(text, &OPTIONS).map(drop).expect_err(text).to_string();
        assert!(message.contains(says) && message.contains("nsq:HOST:PORT"), "{message}");
    }
    assert_eq!(address("nsq:a:1").opener().max_payload(), Some(1 << 20));
    assert_eq!(address("nsq:a:1#token=hunter2").to_string(), "nsq:a:1#token=…");
}

#[test]
fn a_topic_that_nsqd_would_refuse_is_an_error_of_opening() {
    let open = |topic: &str| address("nsq:a:1").open(&context(topic)).map(drop);
    for good in ["xtcp", "a.b_c-D9", "xtcp#ephemeral", &"x".repeat(64)] {
        assert!(open(good).is_ok(), "{good}");
    }
    for bad in ["", "a b", "#ephemeral", "a/b", &"x".repeat(65)] {
        let message = open(bad).expect_err(bad).to_string();
        assert!(message.contains("is none that nsqd takes"), "{message}");
    }
}

#[tokio::test]
async fn heartbeats_are_answered_and_messages_arrive_on_one_connection() {
    let (fake, to) = Fake::start().await;
    let mut topic = address(&to).open(&context("xtcp")).expect("opened");
    let server = async {
        let mut talk = fake.accept_identified().await;
        for _ in 0..2 {
            let (command, body) = talk.command().await;
            assert_eq!((command.as_str(), body.as_slice()), ("PUB xtcp", &b"row"[..]));
            talk.say(&frame(0, b"_heartbeat_")).await;
            assert_eq!(talk.line().await, "NOP");
            talk.say(&frame(0, b"OK")).await;
        }
        talk
    };
    let client = async {
        topic.send(&payload(b"row")).await.expect("sent");
        topic.send(&payload(b"row")).await.expect("sent");
    };
    let ((), talk) = futures_util::future::join(client, server).await;
    drop(talk);
    // The server has hung up meanwhile: that costs no attempt.
    let server = async {
        let mut talk = fake.accept_identified().await;
        talk.command().await;
        talk.say(&frame(0, b"OK")).await;
    };
    let message = payload(b"row");
    let (sent, ()) = futures_util::future::join(topic.send(&message), server).await;
    sent.expect("sent on a new connection");
}

#[tokio::test]
async fn what_nsqd_can_never_take_is_dropped_and_the_rest_is_tried_again() {
    for (words, drops, fix) in [
        ("E_BAD_TOPIC PUB topic name \"x\" is not valid", true, "not valid"),
        ("E_BAD_MESSAGE PUB message too big 9 > 8", true, "raise -max-msg-size of nsqd"),
        ("E_PUB_FAILED PUB failed exiting", false, "nsqd is ending"),
        ("E_INVALID cannot PUB in current state (TLS required)", false, "set tls=true"),
        ("E_AUTH_FIRST AUTH required before PUB", false, "set token or token-file"),
        ("E_NEW something else", false, "something else"),
    ] {
        let error = answered(&frame(1, words.as_bytes()), true).await;
        assert_eq!(matches!(error, SendError::Drop(_)), drops, "{error:?}");
        let message = error.to_string();
        assert!(message.starts_with("nsq 127.0.0.1:") && message.contains(words), "{message}");
        assert!(message.contains(fix), "{message}");
    }
}

#[tokio::test]
async fn garbage_and_a_connection_that_ends_are_tried_again() {
    for (answer, identified, says) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], false, "is that its TCP port?"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", true, "is that its TCP port?"),
        (&frame(0, b"NO"), true, "the answer is not nsqd's: NO"),
        (&frame(7, b"OK"), true, "frame type 7"),
        (&frame(0, b"OK")[..6], true, "nsqd closed the connection"),
        (b"", true, "nsqd closed the connection"),
        (b"", false, "nsqd closed the connection"),
        (&frame(0, b"{"), false, "the answer is not nsqd's: {"),
        (&frame(0, br#"{"auth_required":true}"#), false, "set token or token-file"),
        (&[0, 0, 0, 2, 0, 0], true, "the answer is not nsqd's"),
    ] {
        let error = answered(answer, identified).await;
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}

#[tokio::test]
async fn nobody_listening_no_such_name_and_silence_are_named() {
    let message = payload(b"row");
    let mut refusing = address("nsq:127.0.0.1:1").open(&context("xtcp")).expect("opened");
    let error = refusing.send(&message).await.expect_err("nobody listens").to_string();
    assert!(error.contains("refused") && error.ends_with(": is nsqd listening there?"), "{error}");
    let mut nameless = address("nsq:no-such-host.invalid:4150").open(&context("xtcp")).expect("opened");
    let error = nameless.probe().await.expect_err("no such name").to_string();
    assert!(error.contains("nsq no-such-host.invalid:4150") && error.contains("lookup"), "{error}");
    let (fake, to) = Fake::start().await;
    let mut silent = address(&to).open(&context("xtcp")).expect("opened");
    let error = silent.send(&message).await.expect_err("no answer").to_string();
    assert!(error.contains("no answer within 2s: nsqd is frozen"), "{error}");
    drop(fake);
}
