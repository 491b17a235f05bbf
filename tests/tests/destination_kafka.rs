//! Rows reach Kafka: what kcat reads is what was sent, whatever the compression; an outage is said and loses nothing.
//! The brokers are librdkafka's own, which speak the protocol; a real one is in `broker_kafka.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use rdkafka::mocking::MockCluster;
use xtcp_agent::destination::{Context, Destination, Payload, SendError};
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_tests::agent::agent;
use xtcp_tests::host::{alone, wait_for};
use xtcp_tests::kafka::consume;
use xtcp_tests::sink::{HOST, context, full_record, open_as, payload, rows_of, send_until_it_arrives};

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
async fn kcat_reads_every_field_of_every_row_with_key_headers_and_time_in_every_compression() {
    let cluster = MockCluster::new(3).expect("brokers");
    let brokers = cluster.bootstrap_servers();
    let milliseconds =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("xtcp-{compression}");
        cluster.create_topic(&topic, 4, 3).expect("a topic");
        let mut to = open(&format!("kafka:{brokers}#compression={compression}"), &topic);
        let (before, all) = (milliseconds(), rows(1..301));
        for (number, part) in all.chunks(100).enumerate() {
            to.send(&batch(part, &format!("instance-7-{number}"))).await.expect("sent");
        }
        to.flush().await.expect("flushed");
        let messages = consume(&brokers, &topic, &[]);
        assert_eq!(messages.len(), 3, "{topic}");
        // One key, so one partition, so their order.
        let bytes: Vec<u8> = messages.iter().flat_map(|message| message.bytes.clone()).collect();
        assert_eq!(rows_of(&bytes), all, "{topic}");
        for (number, message) in messages.iter().enumerate() {
            assert_eq!(message.key.as_deref(), Some(HOST));
            let header = |name: &str| message.headers.get(name).map(String::as_str);
            assert_eq!(header("xtcp-batch-id"), Some(format!("instance-7-{number}").as_str()));
            assert_eq!(header("xtcp-format"), Some("protobufList"));
            assert_eq!(header("xtcp-hostname"), Some(HOST));
            assert!(header("content-type").is_some_and(|kind| kind.contains("protobuf")), "{message:?}");
            let stamped = u128::try_from(message.timestamp_ms).expect("after 1970");
            assert!((before..=milliseconds()).contains(&stamped), "{stamped}");
        }
    }
}

#[tokio::test]
async fn without_a_key_messages_have_none() {
    let cluster = MockCluster::new(1).expect("a broker");
    let brokers = cluster.bootstrap_servers();
    cluster.create_topic("xtcp", 2, 1).expect("a topic");
    let mut to = open(&format!("kafka:{brokers}#key=none&acks=1"), "xtcp");
    to.send(&batch(&rows(1..2), "i-0-0")).await.expect("sent");
    let messages = consume(&brokers, "xtcp", &[]);
    assert_eq!(messages.iter().map(|message| message.key.clone()).collect::<Vec<_>>(), [None]);
}

#[tokio::test]
async fn brokers_that_are_down_are_waited_for_and_nothing_is_lost() {
    let cluster = MockCluster::new(2).expect("brokers");
    let brokers = cluster.bootstrap_servers();
    cluster.create_topic("xtcp", 1, 2).expect("a topic");
    let mut to = open(&format!("kafka:{brokers}#timeout=6s"), "xtcp");
    let sent = rows(1..61);
    let mut chunks = sent.chunks(10);
    let mut next = |number: usize| batch(chunks.next().expect("more rows"), &format!("i-{number}-0"));
    to.send(&next(0)).await.expect("sent");
    // All down: an attempt fails within its time and says so, and the next one after they are back arrives.
    for broker in [1, 2] {
        cluster.broker_down(broker).expect("down");
    }
    let second = next(1);
    let error = to.send(&second).await.expect_err("nobody is there");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    assert!(error.to_string().starts_with(&format!("kafka {brokers}: ")), "{error}");
    for broker in [1, 2] {
        cluster.broker_up(broker).expect("up");
    }
    let late = send_until_it_arrives(&mut to, &second, Duration::from_secs(60)).await;
    // One down, its partition's leader: the other one takes over.
    cluster.broker_down(1).expect("down");
    cluster.partition_leader("xtcp", 0, Some(2)).expect("a leader");
    let takeover = send_until_it_arrives(&mut to, &next(2), Duration::from_secs(60)).await;
    cluster.broker_up(1).expect("up");
    // Slow: every answer takes long, but less than a message may take.
    cluster.broker_round_trip_time(2, Duration::from_millis(500)).expect("slow");
    for number in 3..6 {
        to.send(&next(number)).await.expect("slow is not down");
    }
    cluster.broker_round_trip_time(2, Duration::ZERO).expect("quick");
    println!("errors on the way: after an outage {late:?}, at a takeover {takeover:?}");
    let messages = consume(&brokers, "xtcp", &[]);
    let arrived: Vec<u8> = messages.iter().flat_map(|message| message.bytes.clone()).collect();
    let mut arrived = rows_of(&arrived);
    let all = arrived.len();
    arrived.sort_by_key(|row| row.timestamp_ns);
    arrived.dedup();
    assert_eq!(arrived, sent);
    println!("{} rows came twice", all - sent.len());
}

#[test]
fn an_agents_rows_of_real_sockets_reach_kafka() {
    let _alone = alone();
    let cluster = MockCluster::new(1).expect("a broker");
    let brokers = cluster.bootstrap_servers();
    cluster.create_topic("rows", 1, 1).expect("a topic");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = u32::from(listener.local_addr().expect("bound").port());
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let client_port = u32::from(client.local_addr().expect("bound").port());
    let _served = listener.accept().expect("accepted");
    let mut agent = agent().dest(&[&format!("kafka:{brokers}#topic=rows")]).frequency("1s").start();
    let row = wait_for("the client's row to reach Kafka", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(200));
        let messages = consume(&brokers, "rows", &[]);
        let rows = messages.iter().flat_map(|message| rows_of(&message.bytes));
        rows.filter(|row| row.inet_diag_msg_socket_source_port == client_port)
            .find(|row| row.inet_diag_msg_socket_destination_port == port)
    });
    assert_eq!(row.inet_diag_msg_socket_source[..4], [127, 0, 0, 1]);
    let (status, _) = agent.terminate(Duration::from_secs(20));
    assert!(status.success(), "{status}: {}", agent.process.stderr.text());
}
