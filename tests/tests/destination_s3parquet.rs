//! Promise: every row and every field that is sent to `s3parquet:` is in a bucket, where programs of others read it equal.
//!
//! The server is s3s-fs, in this process; the readers are pyarrow (also as an S3 client) and DuckDB, in Python. They know
//! neither our code nor our `.proto`: columns are compared by name with what the record's protobuf bytes hold.
#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use xtcp_agent::destination::{Destination, Payload, SendError};
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_tests::agent::agent;
use xtcp_tests::authority::{Authority, Identity};
use xtcp_tests::host::{alone, python};
use xtcp_tests::netns::Netns;
use xtcp_tests::s3::{BUCKET, KEYS, S3Server};
use xtcp_tests::sink::{HOST, TIME_NS, fields, full_record, open, payload};
use xtcp_tests::traffic;

const FORMAT: &str = "protobufList";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn send(runtime: &Runtime, bucket: &mut dyn Destination, payload: &Payload) -> Result<(), SendError> {
    runtime.block_on(bucket.send(payload))
}

/// A batch whose first record is numbered so.
fn batch(first: u32, id: &str) -> (Vec<XtcpFlatRecord>, Payload) {
    let records: Vec<XtcpFlatRecord> = (first..first + 3).map(full_record).collect();
    let payload = payload(FORMAT, &records, id);
    (records, payload)
}

#[test]
fn every_field_of_every_row_is_read_by_pyarrow_and_duckdb() {
    let _alone = alone();
    let (server, runtime) = (S3Server::start(), runtime());
    let mut bucket = open(&server.destination("/tcp/eu", ""), FORMAT);
    let (mut expected, first) = batch(1, "a-1-0");
    let (more, second) = batch(4, "a-2-0");
    let nothing_set =
        vec![XtcpFlatRecord { timestamp_ns: TIME_NS + 3_600_000_000_000, ..Default::default() }];
    let third = payload(FORMAT, &nothing_set, "a-3-0");
    // The first one comes twice, as after an acknowledgement that was lost.
    for payload in [&first, &second, &third, &first] {
        send(&runtime, &mut *bucket, payload).unwrap();
    }
    let found = server.read();
    expected.extend(more);
    expected.extend(nothing_set);
    let mut expected: Vec<Value> = expected.iter().map(|record| json!(fields(record))).collect();
    expected.sort_by_key(|row| row["record_counter"].as_u64());
    let rows = found.rows();
    assert_eq!(rows.len(), expected.len(), "a batch that comes twice is there once");
    for (row, expected) in rows.iter().zip(&expected) {
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&row[name], value, "{name}");
        }
        assert_eq!(row.as_object().unwrap().len(), expected.as_object().unwrap().len());
    }
    let keys = found.keys();
    assert_eq!(keys.len(), 3, "{keys:?}");
    for (key, hour) in keys.iter().zip([16, 16, 17]) {
        let folder = format!("{BUCKET}/tcp/eu/host={HOST}/date=2025-11-24/hour={hour}/");
        let name = key.strip_prefix(&folder).unwrap_or_else(|| panic!("{key} is not in {folder}"));
        let (seconds, digits) = name.strip_suffix(".parquet").unwrap().split_once('_').unwrap();
        assert_eq!(seconds, format!("{}", TIME_NS / 1_000_000_000 + (hour - 16) * 3600));
        assert!(digits.len() == 8 && u32::from_str_radix(digits, 16).is_ok(), "{key}");
    }
    assert_eq!(found.get("compression"), &json!(["ZSTD"]));
    assert_eq!(found.get("types")["timestamp_ns"], "int64");
}

#[test]
fn an_object_larger_than_a_part_is_uploaded_in_parts() {
    let _alone = alone();
    let (server, runtime) = (S3Server::start(), runtime());
    let mut bucket = open(&server.destination("", "&part-bytes=5MiB"), FORMAT);
    // Bytes that no compression makes smaller.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let records: Vec<XtcpFlatRecord> = (0..6)
        .map(|number| XtcpFlatRecord {
            inet_diag_info: (0..131_072).flat_map(|_| noise()).collect(),
            ..full_record(number)
        })
        .collect();
    send(&runtime, &mut *bucket, &payload(FORMAT, &records, "a-1-0")).unwrap();
    let found = server.read();
    assert_eq!(found.keys().len(), 1);
    let mut expected: Vec<Value> = records.iter().map(|record| json!(fields(record))).collect();
    expected.sort_by_key(|row| row["record_counter"].as_u64());
    assert!(found.rows() == expected, "six rows of a MiB each come back");
}

#[test]
fn a_server_that_is_killed_or_frozen_makes_retries_and_then_has_everything() {
    let _alone = alone();
    let (mut server, runtime) = (S3Server::start(), runtime());
    let address = server.destination("", "");
    let mut bucket = open(&address, FORMAT);
    let (mut expected, first) = batch(1, "a-1-0");
    send(&runtime, &mut *bucket, &first).unwrap();

    server.kill();
    let (records, second) = batch(4, "a-2-0");
    expected.extend(records);
    let error = send(&runtime, &mut *bucket, &second).unwrap_err();
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    assert!(error.to_string().contains("refused (os error 111)"), "{error}");

    // A server that accepts and never answers; who waits for it gives up and opens the destination anew.
    let frozen = TcpListener::bind(server.address).unwrap();
    let patience = Duration::from_secs(1);
    let waited = runtime.block_on(async { tokio::time::timeout(patience, bucket.send(&second)).await });
    assert!(waited.is_err(), "{waited:?}");
    drop((frozen, bucket));

    server.restart();
    let mut bucket = open(&address, FORMAT);
    send(&runtime, &mut *bucket, &second).unwrap();
    let rows = server.read();
    assert_eq!(rows.rows().len(), expected.len());
    // The same destination outlives a restart as well.
    server.restart();
    let (records, third) = batch(7, "a-3-0");
    expected.extend(records);
    if let Err(error) = send(&runtime, &mut *bucket, &third) {
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        send(&runtime, &mut *bucket, &third).unwrap();
    }
    let found: BTreeSet<u64> =
        server.read().rows().iter().map(|row| row["record_counter"].as_u64().unwrap()).collect();
    let sent: BTreeSet<u64> = expected.iter().map(|record| record.record_counter).collect();
    assert_eq!(found, sent);
}

#[test]
fn wrong_keys_are_named_and_a_probe_leaves_nothing() {
    let _alone = alone();
    let (server, runtime) = (S3Server::start(), runtime());
    let at = |key: &str, secret: &str| {
        format!("s3parquet:http://{}/{BUCKET}#access-key={key}&secret-key={secret}", server.address)
    };
    for (address, expected) in [
        (at("nobody", KEYS.1), ["refused (", "there is no such access key: mend access-key"]),
        (at(KEYS.0, "wrong"), ["SignatureDoesNotMatch", "mend secret-key"]),
    ] {
        let mut bucket = open(&address, FORMAT);
        let sent = send(&runtime, &mut *bucket, &batch(1, "a-1-0").1);
        // Over a connection of its own: the server may end the one on which it refused a body that it had not read.
        let probed = runtime.block_on(open(&address, FORMAT).probe()).map(drop);
        for error in [sent.unwrap_err(), probed.unwrap_err()] {
            assert!(matches!(error, SendError::Retry(_)), "{error:?}");
            let text = error.to_string();
            assert!(expected.iter().all(|part| text.contains(part)), "{text}");
            assert!(!text.contains(KEYS.1) && !text.contains("secret-key=wrong"), "{text}");
        }
    }
    let mut bucket = open(&server.destination("", ""), FORMAT);
    let found = runtime.block_on(bucket.probe()).unwrap();
    assert!(found.ends_with("/rows takes uploads"), "{found}");
    assert_eq!(server.read().keys(), Vec::<String>::new(), "a probe leaves nothing");
}

/// How a server shows `identity` and asks clients for a certificate of `authority`.
fn mutual(authority: &Authority, identity: &Identity) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.ca()).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let chain = vec![CertificateDer::from_pem_file(&identity.cert).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_client_cert_verifier(clients.build().unwrap());
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}

#[test]
fn over_mutual_tls_each_side_shows_who_it_is_and_what_is_wrong_is_named() {
    let _alone = alone();
    let (authority, other) = (Authority::new("Test Authority"), Authority::new("Other Authority"));
    let own = authority.issue("server", &["127.0.0.1"]);
    let (mut server, runtime) = (S3Server::start_with(Some(mutual(&authority, &own))), runtime());
    let (records, payload) = batch(1, "a-1-0");
    let client = authority.issue("client", &["client.example"]);
    for (options, expected) in [
        (authority.options(None), "CertificateRequired"),
        (authority.options(Some(&other.issue("stranger", &["client.example"]))), "UnknownCA"),
        (other.options(Some(&client)), "is issued by CN=Test Authority"),
    ] {
        let mut bucket = open(&server.destination("", &format!("&{options}")), FORMAT);
        let error = send(&runtime, &mut *bucket, &payload).unwrap_err();
        assert!(matches!(error, SendError::Retry(_)), "{error:?}");
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
    let address = server.destination("", &format!("&{}", authority.options(Some(&client))));
    send(&runtime, &mut *open(&address, FORMAT), &payload).unwrap();
    // What is there is read without TLS: pyarrow shows no certificate.
    server.tls = None;
    server.restart();
    assert_eq!(server.read().rows().len(), records.len());
}

#[test]
fn the_agents_rows_of_real_sockets_are_in_the_bucket() {
    let _alone = alone();
    python();
    let server = S3Server::start();
    let netns = Netns::named("s3");
    let pair = netns.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST));
    let address = server.destination("/agent", "");
    let mut agent = agent().without_rows().args(&["--dest", &address, "--marshal", FORMAT]).start();
    agent.terminate(Duration::from_secs(30));
    let found = server.read();
    for cookie in [traffic::cookie(&pair.client), traffic::cookie(&pair.server)] {
        let row = found.rows().iter().find(|row| row["inet_diag_msg_socket_cookie"] == cookie);
        let row = row.unwrap_or_else(|| panic!("socket {cookie} is in none of {} rows", found.rows().len()));
        assert_eq!(row["schema_version"], 1);
        assert_eq!(row["netns_inode"], netns.inode);
    }
}
