use std::time::Duration;

use tokio::net::{UdpSocket, UnixDatagram};

use super::super::Address;
use super::*;

fn payload(length: usize) -> Payload {
    Payload { bytes: vec![7; length].into(), header: 0, rows: 1, id: "i-1-0".into() }
}

fn address(text: &str) -> Address {
    super::super::parse(text, &[]).expect(text)
}

fn open(address: &Address) -> Box<dyn Destination> {
    let context = Context { hostname: "h".into(), topic: String::new(), format: crate::marshaller::LINES };
    address.open(&context).expect("opened")
}

#[tokio::test]
async fn a_datagram_may_be_as_large_as_udp_allows_on_both_families() {
    for bind in ["127.0.0.1:0", "[::1]:0"] {
        let receiver = UdpSocket::bind(bind).await.expect("bound");
        let address = address(&format!("udp:{}", receiver.local_addr().expect("bound")));
        let most = address.opener().max_payload().expect("a limit");
        assert_eq!(most, 65_507);
        let mut destination = open(&address);
        destination.send(&payload(most)).await.expect("sent");
        let mut buffer = vec![0; 70_000];
        assert_eq!(receiver.recv(&mut buffer).await.expect("received"), most);
        let error = destination.send(&payload(most + 1)).await.expect_err("too large");
        assert!(matches!(error, SendError::Drop(_)), "{error:?}");
        assert!(error.to_string().ends_with("more than the 65507 that max-datagram allows"), "{error}");
    }
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_a_retry_and_back_it_is_found_again() {
    let receiver = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let at = receiver.local_addr().expect("bound");
    let mut destination = open(&address(&format!("udp:{at}")));
    destination.send(&payload(1)).await.expect("sent");
    drop(receiver);
    for _ in 0..3 {
        let error = destination.send(&payload(1)).await.expect_err("refused");
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        assert!(
            error.to_string().contains("connection refused (ECONNREFUSED): nothing listens there"),
            "{error}"
        );
    }
    let receiver = UdpSocket::bind(at).await.expect("bound again");
    destination.send(&payload(5)).await.expect("sent");
    assert_eq!(receiver.recv(&mut [0; 9]).await.expect("received"), 5);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named_each_time() {
    let mut destination = open(&address("udp:no-such-host.invalid:9000"));
    for _ in 0..2 {
        let error = destination.send(&payload(1)).await.expect_err("no such name");
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        assert!(
            error.to_string().ends_with("look at the name no-such-host.invalid and the resolver (DNS)"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_unix_datagram_may_fill_the_send_buffer_and_is_sent_when_it_was_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("socket");
    let receiver = UnixDatagram::bind(&path).expect("bound");
    let address = address(&format!("unixgram:{}", path.display()));
    let most = address.opener().max_payload().expect("a limit");
    let mut destination = open(&address);
    let mut buffer = vec![0; most + 1];
    let batch = payload(most);
    {
        let sending = destination.send(&batch);
        tokio::pin!(sending);
        for _ in 0..10 {
            tokio::select! {
                biased;
                result = &mut sending => panic!("sent before it was read: {result:?}"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
        let (got, sent) = tokio::join!(receiver.recv(&mut buffer), sending);
        sent.expect("sent");
        assert_eq!(got.expect("received"), most);
    }
    let error = destination.send(&payload(most + 1)).await.expect_err("too large");
    assert!(matches!(error, SendError::Drop(_)), "{error:?}");
    drop(receiver);
    for expected in ["(ECONNREFUSED): nothing listens there", "(ECONNREFUSED): nothing listens there"] {
        let error = destination.send(&payload(1)).await.expect_err("nobody");
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    std::fs::remove_file(&path).expect("removed");
    let receiver = UnixDatagram::bind(&path).expect("bound again");
    let batch = payload(5);
    let (got, sent) = tokio::join!(receiver.recv(&mut buffer), destination.send(&batch));
    sent.expect("sent");
    assert_eq!(got.expect("received"), 5);
}

#[test]
fn more_than_the_kernel_takes_is_malformed() {
    let error = super::super::parse("unixgram:/s#max-datagram=64MiB", &[]).expect_err("too much").to_string();
    assert!(error.contains("raise net.core.wmem_max"), "{error}");
    let error = super::super::parse("udp:[::1]:1#max-datagram=65508", &[]).expect_err("too much").to_string();
    assert!(error.contains("option max-datagram=65508: out of range"), "{error}");
    assert_eq!(address("udp:[::1]:1#max-datagram=1432").opener().max_payload(), Some(1432));
}
