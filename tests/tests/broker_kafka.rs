//! Rows reach a real Apache Kafka broker: plainly, over TLS, with certificates of both sides and with passwords; what is
//! wrong with a certificate or a password is named; a broker that is killed or frozen loses nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::ops::Range;
use std::time::Duration;

use nix::sys::signal::Signal;
use xtcp_agent::destination::{Context, Destination, Payload, SendError};
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_tests::kafka::{Authority, Broker, Listener, Message, consume};
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

/// The rows of a topic, sorted, and how many came more than once.
fn rows_in(messages: &[Message]) -> (Vec<XtcpFlatRecord>, usize) {
    let bytes: Vec<u8> = messages.iter().flat_map(|message| message.bytes.clone()).collect();
    let mut rows = rows_of(&bytes);
    let all = rows.len();
    rows.sort_by_key(|row| row.timestamp_ns);
    rows.dedup();
    let twice = all - rows.len();
    (rows, twice)
}

fn pem(store: &str, file: &str) -> [(String, String); 2] {
    [(format!("ssl.{store}.type"), "PEM".to_owned()), (format!("ssl.{store}.location"), file.to_owned())]
}

fn listener<'a>(name: &'a str, protocol: &'a str, properties: &'a [(String, String)]) -> Listener<'a> {
    (name, protocol, properties.iter().map(|(key, value)| (key.as_str(), value.clone())).collect())
}

#[tokio::test]
async fn tls_mutual_tls_and_passwords_are_spoken_and_what_is_wrong_is_named() {
    let (authority, other) = (Authority::new("kafka-authority"), Authority::new("other-authority"));
    let [_, _, broker_pem] = authority.sign("broker.example.org", &["127.0.0.1"]);
    let [_, _, elsewhere_pem] = authority.sign("elsewhere.example.org", &["elsewhere.example.org"]);
    let tls = pem("keystore", &broker_pem).to_vec();
    let elsewhere = pem("keystore", &elsewhere_pem).to_vec();
    let mut mutual = [pem("keystore", &broker_pem), pem("truststore", &authority.certificate())].concat();
    mutual.push(("ssl.client.auth".to_owned(), "required".to_owned()));
    let module = |kind: &str, rest: &str| format!("org.apache.kafka.common.security.{kind} required{rest};");
    let sasl: Vec<(String, String)> = [
        ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned()),
        ("plain.sasl.jaas.config", module("plain.PlainLoginModule", " user_alice=\"wonder\"")),
        ("scram-sha-256.sasl.jaas.config", module("scram.ScramLoginModule", "")),
        ("scram-sha-512.sasl.jaas.config", module("scram.ScramLoginModule", "")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec();
    let secured = [sasl.clone(), tls.clone()].concat();
    let broker = Broker::start(
        &[
            listener("TLS", "SSL", &tls),
            listener("MUTUAL", "SSL", &mutual),
            listener("ELSEWHERE", "SSL", &elsewhere),
            listener("SASL", "SASL_PLAINTEXT", &sasl),
            listener("SECURED", "SASL_SSL", &secured),
        ],
        &[("alice", "wonder")],
    );
    let ca = format!("tls-ca={}", authority.certificate());
    let [cert, key, _] = authority.sign("collector", &["collector"]);
    let identity = format!("tls-cert={cert}&tls-key={key}");
    let user = |mechanism: &str| format!("sasl-mechanism={mechanism}&user=alice&password=wonder");
    let good = [
        ("PLAIN", String::new()),
        ("TLS", ca.clone()),
        ("MUTUAL", format!("{ca}&{identity}")),
        ("SASL", user("PLAIN")),
        ("SASL", user("SCRAM-SHA-256")),
        ("SECURED", format!("{ca}&{}", user("SCRAM-SHA-512"))),
    ];
    let all = rows(1..61);
    for ((name, options), part) in good.iter().zip(all.chunks(10)) {
        let mut to = open(&format!("kafka:{}#{options}", broker.address(name)), "xtcp");
        to.send(&batch(part, "i-0-0")).await.unwrap_or_else(|error| panic!("{name} {options}: {error}"));
        assert_eq!(to.probe().await.expect("an answer"), "1 broker, topic xtcp has 1 partition", "{name}");
    }
    assert_eq!(rows_in(&consume(&broker.address("PLAIN"), "xtcp", &[])), (all, 0));

    let wrong = [
        // Signed by an authority that we do not trust.
        ("TLS", format!("tls-ca={}", other.certificate()), &["broker.example.org", "kafka-authority"][..]),
        // Good, but for another name.
        ("ELSEWHERE", ca.clone(), &["elsewhere.example.org", "127.0.0.1"]),
        ("MUTUAL", ca.clone(), &["set tls-cert and tls-key"]),
        (
            "SASL",
            user("PLAIN").replace("wonder", "wander"),
            &["Authentication failed", "check user, password"],
        ),
        ("SASL", user("SCRAM-SHA-256").replace("wonder", "wander"), &["check user, password"]),
        ("SASL", String::new(), &["SASL"]),
        ("TLS", String::new(), &["tls=true"]),
        ("PLAIN", ca.clone(), &["speaks no TLS"]),
    ];
    for (name, options, says) in wrong {
        let options = format!("timeout=8s&{options}");
        let mut to =
            open(&format!("kafka:{}#{}", broker.address(name), options.trim_end_matches('&')), "xtcp");
        let mut errors = vec![to.probe().await.expect_err(name)];
        if name == "TLS" {
            errors.push(to.send(&batch(&rows(1..2), "i-1-0")).await.expect_err(name));
        }
        for error in errors {
            assert!(matches!(error, SendError::Retry(_)), "{error:?}");
            let error = error.to_string();
            println!("{name}: {error}");
            assert!(error.contains(&broker.address(name)) && !error.contains("wander"), "{error}");
            assert!(says.iter().all(|part| error.contains(part)), "{says:?} in {name} {options}: {error}");
        }
    }
}

#[tokio::test]
async fn a_broker_that_is_killed_or_frozen_is_waited_for_and_nothing_is_lost() {
    let mut broker = Broker::start(&[], &[]);
    let at = broker.address("PLAIN");
    let mut to = open(&format!("kafka:{at}#timeout=8s"), "xtcp");
    let all = rows(1..61);
    let batches: Vec<_> =
        all.chunks(10).enumerate().map(|(number, part)| batch(part, &format!("i-{number}-0"))).collect();
    to.send(&batches[0]).await.expect("sent");
    broker.kill();
    let error = to.send(&batches[1]).await.expect_err("nobody is there");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    assert!(error.to_string().contains("is a broker listening there?"), "{error}");
    broker.run();
    send_until_it_arrives(&mut to, &batches[1], Duration::from_secs(60)).await;
    broker.process().signal(Signal::SIGSTOP);
    let error = to.send(&batches[2]).await.expect_err("it is frozen");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    assert!(error.to_string().contains("frozen"), "{error}");
    // A destination that is given up and opened anew, as after too long a send.
    drop(to);
    let mut to = open(&format!("kafka:{at}#timeout=8s"), "xtcp");
    broker.process().signal(Signal::SIGCONT);
    send_until_it_arrives(&mut to, &batches[2], Duration::from_secs(60)).await;
    // Killed while a message is under way.
    let (sent, ()) = futures_util::future::join(to.send(&batches[3]), async { broker.kill() }).await;
    println!("killed meanwhile: {sent:?}");
    broker.run();
    for batch in &batches[3..] {
        send_until_it_arrives(&mut to, batch, Duration::from_secs(60)).await;
    }
    let (arrived, twice) = rows_in(&consume(&at, "xtcp", &[]));
    assert_eq!(arrived, all);
    println!("{twice} rows came twice");
}

#[tokio::test]
async fn a_message_that_the_broker_refuses_and_a_topic_that_is_not_there_are_named() {
    let plain = [("max.connections".to_owned(), "1000".to_owned())];
    let broker = Broker::start(&[listener("OTHER", "PLAINTEXT", &plain)], &[]);
    let at = broker.address("PLAIN");
    let mut to = open(&format!("kafka:{at}#message-max-bytes=8MiB&compression=none&timeout=10s"), "xtcp");
    assert!(to.probe().await.expect("an answer").contains("topic xtcp is not there"));
    let huge = batch(&rows(1..4001), "i-0-0");
    assert!(huge.bytes.len() > 2_000_000, "{}", huge.bytes.len());
    let error = to.send(&huge).await.expect_err("the broker takes 2 MB");
    assert!(matches!(error, SendError::Drop(_)), "{error:?}");
    assert!(error.to_string().contains("max.message.bytes"), "{error}");
    let one = rows(9..10);
    to.send(&batch(&one, "i-1-0")).await.expect("sent");
    assert_eq!(rows_in(&consume(&at, "xtcp", &[])), (one, 0));
    let mut to = open(&format!("kafka:{at}#timeout=10s"), "no/such topic");
    let error = to.send(&batch(&rows(1..2), "i-2-0")).await.expect_err("no such topic");
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    assert!(error.to_string().contains("no/such topic"), "{error}");
}
