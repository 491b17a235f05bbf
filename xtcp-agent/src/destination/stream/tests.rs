use std::net::Ipv4Addr;
use std::path::Path;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::*;

fn payload(text: &str) -> Payload {
    Payload { bytes: text.to_owned().into(), header: 0, rows: 1, id: "i-1-0".into() }
}

fn csv(row: &str) -> Payload {
    Payload { header: 2, ..payload(&format!("c\n{row}\n")) }
}

fn open(address: &str) -> Box<dyn Destination> {
    let context = Context { hostname: "h".into(), topic: String::new(), format: crate::marshaller::LINES };
    super::super::parse(address, &[]).expect(address).open(&context).expect(address)
}

async fn tcp() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = format!("tcp:{}", listener.local_addr().expect("its address"));
    (listener, address)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.expect("a connection").0
}

fn unix(dir: &Path) -> (UnixListener, String) {
    let path = dir.join("socket");
    (UnixListener::bind(&path).expect("bound"), format!("unix:{}", path.display()))
}

async fn read(mut stream: impl AsyncReadExt + Unpin, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.expect("read");
    bytes
}

#[tokio::test]
async fn each_batch_stands_behind_its_length_and_names_its_columns() {
    let (listener, address) = tcp().await;
    let mut destination = open(&address);
    let reading = async {
        let mut all = Vec::new();
        accept(&listener).await.read_to_end(&mut all).await.expect("read");
        all
    };
    let sending = async {
        destination.send(&csv("1")).await.expect("sent");
        destination.send(&payload(&"x".repeat(300))).await.expect("sent");
        drop(destination);
    };
    let (all, ()) = tokio::join!(reading, sending);
    assert_eq!(all, [b"\x04c\n1\n".as_slice(), b"\xac\x02", "x".repeat(300).as_bytes()].concat());
}

#[tokio::test]
async fn without_framing_each_connection_names_the_columns_once() {
    let (listener, address) = tcp().await;
    let mut destination = open(&format!("{address}#framing=none"));
    for connection in 0..2 {
        let one = csv("1");
        let (stream, first) = tokio::join!(accept(&listener), destination.send(&one));
        first.expect("sent");
        destination.send(&csv("2")).await.expect("sent");
        assert_eq!(read(stream, 6).await, b"c\n1\n2\n", "connection {connection}");
    }
}

#[tokio::test]
async fn a_connection_that_the_peer_closed_swallows_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (unix_listener, unix_address) = unix(dir.path());
    let (tcp_listener, tcp_address) = tcp().await;
    let mut over_tcp = open(&tcp_address);
    let mut over_unix = open(&unix_address);
    for text in ["1", "2", "3"] {
        let one = payload(text);
        let (stream, sent) = tokio::join!(accept(&tcp_listener), over_tcp.send(&one));
        sent.expect("sent on a connection of its own");
        assert_eq!(read(stream, 2).await[1..], *text.as_bytes());
        let accepted = async {
            let stream = unix_listener.accept().await.expect("a connection").0;
            read(stream, 2).await
        };
        let (got, sent) = tokio::join!(accepted, over_unix.send(&one));
        sent.expect("sent on a connection of its own");
        assert_eq!(got[1..], *text.as_bytes());
    }
}

#[tokio::test]
async fn a_unix_batch_is_sent_when_it_was_read_and_a_reader_that_ends_before_makes_it_a_retry() {
    let dir = tempfile::tempdir().expect("a folder");
    let (listener, address) = unix(dir.path());
    let mut destination = open(&address);
    let batch = payload(&"x".repeat(50_000));
    {
        let sending = destination.send(&batch);
        tokio::pin!(sending);
        let mut stream: Option<UnixStream> = None;
        // All of it fits into the socket; nobody has read it.
        for _ in 0..20 {
            tokio::select! {
                biased;
                result = &mut sending => panic!("sent before it was read: {result:?}"),
                accepted = listener.accept(), if stream.is_none() => stream = Some(accepted.expect("accepted").0),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
        drop(stream);
        let error = sending.await.expect_err("lost with its reader");
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(": the connection broke: ") && text.contains("(E"), "{text}");
    }
    let again = async { read(listener.accept().await.expect("a connection").0, 50_003).await };
    let (got, sent) = tokio::join!(again, destination.send(&batch));
    sent.expect("sent again");
    assert_eq!(got[3..], *batch.bytes);
}

#[tokio::test]
async fn a_peer_that_talks_or_resets_is_lived_with() {
    let (listener, address) = tcp().await;
    let mut destination = open(&address);
    let talking = async {
        let mut stream = accept(&listener).await;
        stream.write_all(&vec![7; 100_000]).await.expect("a peer may talk");
        let got = read(&mut stream, 2).await;
        // Reset, and nothing listens any more.
        SockLinger::zero(&stream);
        got
    };
    let one = payload("1");
    let (got, sent) = tokio::join!(talking, destination.send(&one));
    sent.expect("sent");
    assert_eq!(got, b"\x011");
    drop(listener);
    let error = destination.send(&one).await.expect_err("nobody listens");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    let expected = ": cannot connect: connection refused (ECONNREFUSED): nothing listens there: start the receiver or mend \
                    the address";
    assert!(error.to_string().ends_with(expected), "{error}");
}

/// Closing such a socket resets its connection.
struct SockLinger;

impl SockLinger {
    fn zero(stream: &TcpStream) {
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("set");
    }
}

#[tokio::test]
async fn names_and_paths_that_lead_nowhere_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("nothing");
    let _other_kind = std::os::unix::net::UnixDatagram::bind(dir.path().join("datagrams")).expect("bound");
    for (address, expected) in [
        (
            "tcp:no-such-host.invalid:9000".to_owned(),
            "look at the name no-such-host.invalid and the resolver (DNS)",
        ),
        (
            format!("unix:{}", path.display()),
            "(ENOENT): there is no such socket: start the receiver or mend the path",
        ),
        (
            format!("unix:{}", dir.path().join("datagrams").display()),
            "unix: is a stream, unixgram: takes datagrams",
        ),
    ] {
        let mut destination = open(&address);
        for error in [destination.probe().await.map(drop), destination.send(&payload("1")).await] {
            let error = error.expect_err(&address);
            assert!(matches!(error, SendError::Retry(_)), "{error:?}");
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }
    assert!(super::super::parse(&format!("unix:/{}", "x".repeat(107)), &[]).is_err());
}
