//! Rows reach a real nsqd: what another client takes out of it is what was sent; restarts and freezes lose nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::time::Duration;

use nix::sys::signal::Signal;
use xtcp_agent::destination::{Context, Destination, Payload, SendError};
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_tests::agent::agent;
use xtcp_tests::host::{alone, wait_for};
use xtcp_tests::kafka::Authority;
use xtcp_tests::nsq::Nsqd;
use xtcp_tests::sink::{context, full_record, open_as, payload, rows_of, send_until_it_arrives};

fn open(address: &str, topic: &str) -> Box<dyn Destination> {
    open_as(address, &Context { topic: topic.to_owned(), ..context("protobufList") })
}

fn rows(numbers: Range<u32>) -> Vec<XtcpFlatRecord> {
    numbers.map(full_record).collect()
}

fn batch(rows: &[XtcpFlatRecord], id: &str) -> Payload {
    payload("protobufList", rows, id)
}

#[tokio::test]
async fn another_client_reads_every_field_of_every_row() {
    let nsqd = Nsqd::start(&[]);
    let mut to = open(&format!("nsq:{}", nsqd.address()), "xtcp");
    assert_eq!(to.probe().await.expect("an answer"), "nsqd 1.3.0");
    let all = rows(1..301);
    for (number, part) in all.chunks(100).enumerate() {
        to.send(&batch(part, &format!("i-{number}-0"))).await.expect("sent");
    }
    assert_eq!(nsqd.messages("xtcp"), 3);
    assert_eq!(rows_of(&nsqd.read("xtcp", 3).concat()), all);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_dropped_and_the_next_one_arrives() {
    let nsqd = Nsqd::start(&[]);
    let mut to = open(&format!("nsq:{}#message-max-bytes=8MiB", nsqd.address()), "xtcp");
    let huge = batch(&rows(1..1501), "i-0-0");
    assert!(huge.bytes.len() > 1 << 20, "{}", huge.bytes.len());
    let error = to.send(&huge).await.expect_err("nsqd takes 1 MiB");
    assert!(matches!(error, SendError::Drop(_)), "{error:?}");
    assert!(
        error.to_string().contains("E_BAD_MESSAGE") && error.to_string().contains("-max-msg-size"),
        "{error}"
    );
    to.send(&batch(&rows(2..3), "i-1-0")).await.expect("sent");
    assert_eq!(nsqd.messages("xtcp"), 1);
}

#[tokio::test]
async fn a_stopped_and_a_frozen_nsqd_are_waited_for_and_nothing_is_lost() {
    let mut nsqd = Nsqd::start(&[]);
    let mut to = open(&format!("nsq:{}#timeout=4s", nsqd.address()), "xtcp");
    let all = rows(1..41);
    let batches: Vec<_> =
        all.chunks(10).enumerate().map(|(number, part)| batch(part, &format!("i-{number}-0"))).collect();
    to.send(&batches[0]).await.expect("sent");
    nsqd.stop();
    let error = to.send(&batches[1]).await.expect_err("nobody is there");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    assert!(error.to_string().contains("is nsqd listening there?"), "{error}");
    nsqd.run();
    send_until_it_arrives(&mut to, &batches[1], Duration::from_secs(30)).await;
    nsqd.process().signal(Signal::SIGSTOP);
    let error = to.send(&batches[2]).await.expect_err("it is frozen");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    assert!(error.to_string().contains("no answer within 2s: nsqd is frozen"), "{error}");
    nsqd.process().signal(Signal::SIGCONT);
    send_until_it_arrives(&mut to, &batches[2], Duration::from_secs(30)).await;
    // Stopped and back between two messages: not even an error.
    nsqd.stop();
    nsqd.run();
    to.send(&batches[3]).await.expect("sent on a new connection");
    // What was frozen may have been taken up as well: those come twice.
    let twice = wait_for("the fourth message", Duration::from_secs(20), || {
        let depth = nsqd.depth("xtcp");
        (depth >= 4).then_some(depth)
    });
    let mut arrived = rows_of(&nsqd.read("xtcp", twice).concat());
    arrived.sort_by_key(|row| row.timestamp_ns);
    arrived.dedup();
    assert_eq!(arrived, all);
    println!("{} messages came twice", twice - 4);
}

#[tokio::test]
async fn tls_and_mutual_tls_and_what_is_wrong_with_a_certificate() {
    let (authority, other) = (Authority::new("nsq-authority"), Authority::new("other-authority"));
    let [cert, key, _] = authority.sign("nsqd.example.org", &["127.0.0.1"]);
    let files = [format!("-tls-cert={cert}"), format!("-tls-key={key}"), "-tls-required".to_owned()];
    let mutual = [
        format!("-tls-root-ca-file={}", authority.certificate()),
        "-tls-client-auth-policy=require-verify".to_owned(),
    ];
    let row = batch(&rows(1..2), "i-0-0");
    let options: Vec<&str> = files.iter().map(String::as_str).collect();
    let nsqd = Nsqd::start(&options);
    let plain =
        open(&format!("nsq:{}", nsqd.address()), "xtcp").send(&row).await.expect_err("no TLS").to_string();
    assert!(plain.ends_with(": set tls=true"), "{plain}");
    let at = |ca: &Authority| format!("nsq:{}#tls-ca={}", nsqd.address(), ca.certificate());
    let mut to = open(&at(&authority), "xtcp");
    to.send(&row).await.expect("sent over TLS");
    assert_eq!(to.probe().await.expect("an answer"), "nsqd 1.3.0, TLS");
    let error = open(&at(&other), "xtcp").send(&row).await.expect_err("an unknown authority");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("nsqd.example.org") && error.contains("nsq-authority"), "{error}");
    let options: Vec<&str> = files.iter().chain(&mutual).map(String::as_str).collect();
    let nsqd = Nsqd::start(&options);
    let [cert, key, _] = authority.sign("collector", &["collector"]);
    let at = format!("nsq:{}#tls-ca={}", nsqd.address(), authority.certificate());
    let error = open(&at, "xtcp").send(&row).await.expect_err("no certificate").to_string();
    assert!(error.contains("ertificate"), "{error}");
    open(&format!("{at}&tls-cert={cert}&tls-key={key}"), "xtcp")
        .send(&row)
        .await
        .expect("sent with a certificate");
    assert_eq!(nsqd.messages("xtcp"), 1);
}

#[test]
fn an_agents_rows_of_real_sockets_reach_nsq() {
    let _alone = alone();
    let nsqd = Nsqd::start(&[]);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = u32::from(listener.local_addr().expect("bound").port());
    let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let _served = listener.accept().expect("accepted");
    let mut agent = agent().dest(&[&format!("nsq:{}#topic=rows", nsqd.address())]).frequency("1s").start();
    wait_for("two messages", Duration::from_secs(30), || (nsqd.messages("rows") >= 2).then_some(()));
    let rows = rows_of(&nsqd.read("rows", 2).concat());
    assert!(rows.iter().any(|row| row.inet_diag_msg_socket_destination_port == port), "{}", rows.len());
    let (status, _) = agent.terminate(Duration::from_secs(20));
    assert!(status.success(), "{status}: {}", agent.process.stderr.text());
}
