//! Promise: what is sent to `s3parquet:` is in MinIO, a server in production use, also over TLS, and a server that is
//! frozen, killed or misnamed makes retries whose message says why.
//!
//! MinIO is built from its Go module by `cargo xtask servers`. Its bucket is made and read by pyarrow. MinIO asks no client
//! for a certificate, so mutual TLS is proven in `destination_s3parquet.rs`.
#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use xtcp_agent::destination::SendError;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_tests::authority::Authority;
use xtcp_tests::host::{alone, free_port, server, wait_for};
use xtcp_tests::process::Process;
use xtcp_tests::s3::{BUCKET, Found, KEYS};
use xtcp_tests::sink::{fields, full_record, open, payload, send_until_it_arrives};

const FORMAT: &str = "protobufList";
const LIMIT: Duration = Duration::from_secs(60);

/// A running MinIO with a folder of its own; killed with its handle.
struct MinIo {
    address: SocketAddr,
    /// File of the authority, when it speaks TLS.
    ca: Option<PathBuf>,
    dir: TempDir,
    process: Process,
}

impl MinIo {
    /// Starts one with an empty bucket; with TLS when there is an authority.
    fn start(authority: Option<&Authority>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let certs = dir.path().join("certs");
        std::fs::create_dir(&certs).unwrap();
        if let Some(authority) = authority {
            let own = authority.issue("minio", &["127.0.0.1"]);
            std::fs::copy(own.cert, certs.join("public.crt")).unwrap();
            std::fs::copy(own.key, certs.join("private.key")).unwrap();
        }
        let ca = authority.map(Authority::ca);
        let process = launch(dir.path(), address);
        let mut minio = Self { address, ca, dir, process };
        minio.wait_until_ready();
        minio.read(true);
        minio
    }

    fn wait_until_ready(&mut self) {
        wait_for("MinIO to listen", LIMIT, || {
            let status = self.process.try_wait();
            assert!(status.is_none(), "MinIO ended: {}", self.process.stderr.text());
            TcpStream::connect(self.address).ok()
        });
    }

    /// Ends it as a crash would, and starts it again on the same folder.
    fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        assert!(self.process.wait(LIMIT).is_some());
    }

    fn restart(&mut self) {
        self.process = launch(self.dir.path(), self.address);
        self.wait_until_ready();
    }

    fn destination(&self, bucket: &str, options: &str) -> String {
        let (scheme, ca) = match &self.ca {
            Some(ca) => ("https", format!("&tls-ca={}", ca.display())),
            None => ("http", String::new()),
        };
        let Self { address, .. } = self;
        format!(
            "s3parquet:{scheme}://{address}/{bucket}/p#access-key={}&secret-key={}{ca}{options}",
            KEYS.0, KEYS.1
        )
    }

    fn read(&self, create: bool) -> Found {
        let mut server = json!({
            "endpoint": self.address.to_string(),
            "scheme": if self.ca.is_some() { "https" } else { "http" },
            "bucket": BUCKET,
            "access_key": KEYS.0,
            "secret_key": KEYS.1,
            "create": create,
        });
        if let Some(ca) = &self.ca {
            server["ca"] = json!(ca);
        }
        Found::read(&server)
    }
}

fn launch(dir: &Path, address: SocketAddr) -> Process {
    let variable = |name: &str, value: &str| format!("{name}={value}");
    let argv = [
        "env".to_owned(),
        variable("MINIO_ROOT_USER", KEYS.0),
        variable("MINIO_ROOT_PASSWORD", KEYS.1),
        variable("MINIO_SITE_REGION", "us-east-1"),
        variable("MINIO_BROWSER", "off"),
        variable("MINIO_UPDATE", "off"),
        server("minio").display().to_string(),
        "server".to_owned(),
        format!("--address={address}"),
        format!("--certs-dir={}", dir.join("certs").display()),
        dir.join("data").display().to_string(),
    ];
    Process::start("minio", &argv)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn records(first: u32) -> Vec<XtcpFlatRecord> {
    (first..first + 3).map(full_record).collect()
}

fn expect(found: &Found, records: &[XtcpFlatRecord]) {
    let mut expected: Vec<Value> = records.iter().map(|record| json!(fields(record))).collect();
    expected.sort_by_key(|row| row["record_counter"].as_u64());
    assert!(found.rows() == expected, "{} rows of {} or not equal", found.rows().len(), expected.len());
}

#[test]
fn every_field_is_in_minio_also_when_it_is_frozen_and_killed() {
    let _alone = alone();
    let (mut minio, runtime) = (MinIo::start(None), runtime());
    let address = minio.destination(BUCKET, "");
    let mut bucket = open(&address, FORMAT);
    let mut all = records(1);
    assert!(runtime.block_on(bucket.probe()).unwrap().ends_with("/rows/p takes uploads"));
    runtime.block_on(bucket.send(&payload(FORMAT, &all, "a-1-0"))).unwrap();

    minio.process.signal(Signal::SIGSTOP);
    let more = records(4);
    let second = payload(FORMAT, &more, "a-2-0");
    let waited =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(2), bucket.send(&second)).await });
    assert!(waited.is_err(), "{waited:?}");
    minio.process.signal(Signal::SIGCONT);
    // Who gave a send up opens the destination anew.
    bucket = open(&address, FORMAT);
    runtime.block_on(send_until_it_arrives(&mut bucket, &second, LIMIT));
    all.extend(more);
    expect(&minio.read(false), &all);

    minio.kill();
    let more = records(7);
    let third = payload(FORMAT, &more, "a-3-0");
    let error = runtime.block_on(bucket.send(&third)).unwrap_err();
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    minio.restart();
    // It listens a little before it answers.
    runtime.block_on(send_until_it_arrives(&mut bucket, &third, LIMIT));
    all.extend(more);
    expect(&minio.read(false), &all);
}

#[test]
fn large_objects_go_in_parts() {
    let _alone = alone();
    let (minio, runtime) = (MinIo::start(None), runtime());
    let mut bucket = open(&minio.destination(BUCKET, "&part-bytes=5MiB&zstd=1"), FORMAT);
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    let all: Vec<XtcpFlatRecord> = (0..6)
        .map(|number| XtcpFlatRecord {
            inet_diag_info: (0..262_144).flat_map(|_| noise().to_le_bytes()).collect(),
            ..full_record(number)
        })
        .collect();
    runtime.block_on(bucket.send(&payload(FORMAT, &all, "a-1-0"))).unwrap();
    expect(&minio.read(false), &all);
}

#[test]
fn what_minio_refuses_is_named() {
    let _alone = alone();
    let (minio, runtime) = (MinIo::start(None), runtime());
    let good = minio.destination(BUCKET, "");
    for (address, expected) in [
        (minio.destination("elsewhere", ""), "make bucket elsewhere, or mend its name in the address"),
        (minio.destination(BUCKET, "&region=mars-north-1"), "is not in region mars-north-1: name its own"),
        (good.replace(KEYS.0, "nobody"), "there is no such access key: mend access-key"),
        (
            good.replace(KEYS.1, "not-the-secret"),
            "the secret of the access key is another one: mend secret-key",
        ),
    ] {
        let mut bucket = open(&address, FORMAT);
        let sent = runtime.block_on(bucket.send(&payload(FORMAT, &records(1), "a-1-0")));
        let probed = runtime.block_on(bucket.probe()).map(drop);
        for error in [sent.unwrap_err(), probed.unwrap_err()] {
            assert!(matches!(error, SendError::Retry(_)), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

#[test]
fn over_tls_a_certificate_that_is_not_trusted_is_named() {
    let _alone = alone();
    let (authority, other) = (Authority::new("Test Authority"), Authority::new("Other Authority"));
    let (minio, runtime) = (MinIo::start(Some(&authority)), runtime());
    let all = records(1);
    let batch = payload(FORMAT, &all, "a-1-0");
    let mut bucket = open(&minio.destination(BUCKET, ""), FORMAT);
    runtime.block_on(bucket.send(&batch)).unwrap();
    expect(&minio.read(false), &all);

    let ca = minio.ca.as_ref().unwrap().display().to_string();
    let address = minio.destination(BUCKET, "").replace(&ca, &other.ca().display().to_string());
    let error = runtime.block_on(open(&address, FORMAT).send(&batch)).unwrap_err();
    assert!(matches!(error, SendError::Retry(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("is issued by CN=Test Authority") && text.contains("tls-ca"), "{text}");
}
