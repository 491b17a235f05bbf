use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::destination;
use crate::marshaller;

/// Answers one request a string, on as few connections as come, and tells heads and bodies.
async fn server(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let place = listener.local_addr().expect("an address").to_string();
    let task = tokio::spawn(async move {
        let mut requests = Vec::new();
        let mut answers = answers.into_iter().peekable();
        while answers.peek().is_some() {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            while let Some(answer) = answers.peek() {
                let Some(request) = request(&mut stream).await else { break };
                requests.push(request);
                stream.write_all(answer.as_bytes()).await.expect("written");
                let closes = !answer.contains("Content-Length");
                answers.next();
                if closes {
                    break;
                }
            }
        }
        requests
    });
    (place, task)
}

async fn request(stream: &mut tokio::net::TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().expect("a number")) {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.expect("readable") == 0 {
            return None;
        }
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn open(address: &str) -> Box<dyn Destination> {
    let context = Context {
        hostname: "host-1".into(),
        topic: "xtcp".to_owned(),
        format: marshaller::parse("protobufList").expect("the default"),
    };
    destination::parse(address, &[]).expect(address).open(&context).expect(address)
}

fn payload(id: &str, bytes: &'static [u8]) -> Payload {
    Payload { bytes: bytes.into(), header: 0, rows: 2, id: id.into() }
}

#[tokio::test]
async fn a_payload_is_one_request_that_says_what_it_is() {
    let ok = || answer("204 No Content", "", "");
    let (place, requests) = server(vec![ok(), ok()]).await;
    let mut destination = open(&format!(
        "http://{place}/in?a=b#user=me&password=secret&headers=X-Team:%20net%0AA:%201%0AB:%202"
    ));
    destination.send(&payload("i-1-0", b"rows")).await.expect("acknowledged");
    destination.send(&payload("i-2-0", b"more")).await.expect("acknowledged");
    let requests = requests.await.expect("no panic");
    let [first, second] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(first.starts_with("POST /in?a=b HTTP/1.1\r\n"), "{first}");
    for line in [
        "content-type: application/x-protobuf",
        "xtcp-batch-id: i-1-0",
        "idempotency-key: i-1-0",
        "xtcp-rows: 2",
        "xtcp-host: host-1",
        "xtcp-topic: xtcp",
        "authorization: Basic bWU6c2VjcmV0",
        "x-team: net",
        "a: 1",
        "b: 2",
    ] {
        assert!(first.lines().any(|found| found == line), "no {line:?} in {first}");
    }
    assert!(first.ends_with("\r\n\r\nrows"), "{first}");
    assert!(second.contains("xtcp-batch-id: i-2-0\r\n") && second.ends_with("more"), "{second}");
}

#[tokio::test]
async fn an_answer_tells_whether_to_try_again() {
    // Which it is, and what the message ends with.
    let cases = [
        (
            "401 Unauthorized",
            "",
            "no",
            true,
            "answered 401 Unauthorized (no): check user and password, or token",
        ),
        ("403 Forbidden", "", "", true, "answered 403 Forbidden: these credentials may not send here"),
        ("404 Not Found", "", "", true, "answered 404 Not Found: check the path of the address"),
        ("408 Request Timeout", "", "", true, "answered 408 Request Timeout"),
        ("429 Too Many Requests", "", "slow\r\ndown", true, "answered 429 Too Many Requests (slow down)"),
        ("500 Internal Server Error", "", "", true, "answered 500 Internal Server Error"),
        ("503 Service Unavailable", "", "", true, "answered 503 Service Unavailable"),
        (
            "301 Moved Permanently",
            "Location: http://elsewhere/\r\n",
            "",
            true,
            "answered 301 Moved Permanently to http://elsewhere/: a redirection is not followed: write the address that \
             it names",
        ),
        ("400 Bad Request", "", "row 1: what?", false, "answered 400 Bad Request (row 1: what?)"),
        ("413 Payload Too Large", "", "", false, "answered 413 Payload Too Large: lower max-payload"),
        ("422 Unprocessable Entity", "", "", false, "answered 422 Unprocessable Entity"),
    ];
    for (status, headers, body, again, end) in cases {
        let (place, requests) = server(vec![answer(status, headers, body)]).await;
        let error =
            open(&format!("http://{place}/in")).send(&payload("i-1-0", b"rows")).await.expect_err(status);
        assert_eq!(matches!(error, SendError::Retry(_)), again, "{error:?}");
        assert_eq!(matches!(error, SendError::Drop(_)), !again, "{error:?}");
        assert_eq!(error.to_string(), format!("POST http://{place}/in: {end}"));
        requests.await.expect("no panic");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_gets_it() {
    let (place, requests) = server(vec![answer("429 Too Many Requests", "Retry-After: 30\r\n", "")]).await;
    let mut destination = open(&format!("http://{place}/"));
    destination.send(&payload("i-1-0", b"rows")).await.expect_err("throttled");
    let error = destination.send(&payload("i-1-0", b"rows")).await.expect_err("still").to_string();
    assert_eq!(error, format!("POST http://{place}/: the server asked to be left alone for 30 s more"));
    assert_eq!(requests.await.expect("no panic").len(), 1);
}

#[tokio::test]
async fn bodies_are_compressed_and_the_same_again_when_they_are_sent_again() {
    for (name, magic) in [("gzip", "\u{1f}"), ("zstd", "(")] {
        let (place, requests) = server(vec![answer("500 No", "", ""), answer("200 OK", "", "")]).await;
        let mut destination = open(&format!("http://{place}/#compression={name}&method=PUT"));
        let payload = payload("i-1-0", &[b'x'; 1000]);
        destination.send(&payload).await.expect_err("500");
        destination.send(&payload).await.expect("200");
        let requests = requests.await.expect("no panic");
        let [first, second] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!(first, second);
        let (head, body) = first.split_once("\r\n\r\n").expect("a body");
        assert!(head.starts_with("PUT / "), "{head}");
        assert!(head.contains(&format!("content-encoding: {name}")), "{head}");
        assert!(body.starts_with(magic) && body.len() < 200, "{body:?}");
    }
}

#[tokio::test]
async fn a_hostile_server_is_an_error_to_try_again_and_nothing_worse() {
    let address = |place: &str| format!("http://{place}/#connect-timeout=2s");
    // Rubbish; an end in the middle; an end at once.
    for rubbish in ["\0\u{1}\u{2}rubbish\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Le", ""] {
        let (place, requests) = server(vec![rubbish.to_owned()]).await;
        let error = open(&address(&place)).send(&payload("i-1-0", b"rows")).await.expect_err("rubbish");
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        assert!(error.to_string().starts_with(&format!("POST http://{place}/: ")), "{error}");
        drop(requests);
    }
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let place = nobody.local_addr().expect("an address").to_string();
    drop(nobody);
    let error = open(&address(&place)).send(&payload("i-1-0", b"rows")).await.expect_err("refused");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("POST http://{place}/: cannot connect: tcp connect error: Connection refused (os error 111)")
    );
    // An answer without end is read only so far.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let place = listener.local_addr().expect("an address").to_string();
    let endless = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let _ = stream.write_all(b"HTTP/1.1 500 No\r\nContent-Length: 99999999999\r\n\r\n").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    let error = open(&address(&place)).send(&payload("i-1-0", b"rows")).await.expect_err("500");
    assert!(error.to_string().len() < 500, "{error}");
    tokio::time::timeout(Duration::from_secs(30), endless).await.expect("we hung up").expect("no panic");
}

#[tokio::test]
async fn a_probe_tells_what_answers() {
    let (place, requests) =
        server(vec![answer("405 Method Not Allowed", "", ""), answer("401 Unauthorized", "", "")]).await;
    let mut destination = open(&format!("http://{place}/in#token=abc"));
    assert_eq!(destination.probe().await.expect("there"), "answers 405 Method Not Allowed to OPTIONS");
    assert!(destination.probe().await.is_err());
    let requests = requests.await.expect("no panic");
    assert!(requests.iter().all(|request| request.starts_with("OPTIONS /in ")), "{requests:?}");
    assert!(requests.iter().all(|request| request.contains("authorization: Bearer abc\r\n")), "{requests:?}");
}

#[test]
fn malformed_addresses_and_options_say_what_is_wrong() {
    for (address, problem) in [
        ("http://", "empty host"),
        ("http:host", "the host is missing"),
        ("http://me:secret@host/", "name and password belong into the options user and password"),
        ("http://host:0/", "0 is no port: accepted: 1 to 65535"),
        ("http://host/#tls-ca=a", "options tls-… need https"),
        ("http://host/#password=a", "option password needs user beside it"),
        ("http://host/#user=a&token=b", "options user and token exclude each other"),
        ("http://host/#headers=nothing", "a header has no colon: written NAME: VALUE"),
        ("http://host/#headers=a%20b: c", "header \"a b\": is no name of a header"),
        ("http://host/#compression=lzma", "option compression=lzma: accepted: none, gzip, zstd"),
        ("https://host/#method=GET", "option method=GET: accepted: POST, PUT"),
    ] {
        let message = destination::parse(address, &[]).expect_err(address).to_string();
        assert!(message.contains(problem), "{address}: {message}");
        assert!(!message.contains("secret") || address.contains("secret@"), "{message}");
    }
}
