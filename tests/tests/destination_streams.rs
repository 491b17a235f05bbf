//! Promise: rows that are sent to `file:`, `tcp:`, `unix:`, `udp:` and `unixgram:` arrive whole and once, no datagram is
//! larger than one may be, and a full disk or a receiver that ends costs nothing but time.
//!
//! Receivers are Python, in `clients/receive.py`, with the contract's framing and field numbers and nothing of ours. Batches
//! are compared by their digest, rows by time, counter and cookie.
#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use xtcp_agent::destination::{Destination, Payload, SendError};
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_tests::agent::agent;
use xtcp_tests::host::{alone, free_port, python, scale, wait_for, workspace};
use xtcp_tests::netns::Netns;
use xtcp_tests::process::Process;
use xtcp_tests::sink::{full_record, open, payload};
use xtcp_tests::traffic;

const LIMIT: Duration = Duration::from_secs(30);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Time, counter and cookie of a row.
type Row = (i64, u64, u64);

/// A Python program that receives.
struct Receiver(Process);

impl Receiver {
    fn start(kind: &str, address: &str, format: &str) -> Self {
        let script = workspace().join("tests/clients/receive.py");
        let argv = [python(), script, kind.into(), address.into(), format.into()];
        let process = Process::start("receive.py", &argv);
        let listening = process.stdout.wait_for(LIMIT, |line| line == "listening");
        assert!(listening.is_some(), "the receiver does not listen: {}", process.stderr.text());
        Self(process)
    }

    /// What it has received: size, digest and rows of each batch.
    fn batches(&self) -> Vec<(u64, String, Vec<Row>)> {
        assert!(self.0.stderr.is_empty(), "the receiver fails: {}", self.0.stderr.text());
        let lines = self.0.stdout.since(1);
        let lines = lines.iter().map(|line| serde_json::from_str::<Value>(&line.text).unwrap());
        lines
            .map(|said| (said["size"].as_u64().unwrap(), text(&said["sha256"]), rows(&said["rows"])))
            .collect()
    }

    fn wait_for_batches(&self, count: usize) -> Vec<(u64, String, Vec<Row>)> {
        wait_for(&format!("{count} batches"), LIMIT, || {
            let batches = self.batches();
            (batches.len() >= count).then_some(batches)
        })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn rows(value: &Value) -> Vec<Row> {
    let row = |row: &Value| (row[0].as_i64().unwrap(), row[1].as_u64().unwrap(), row[2].as_u64().unwrap());
    value.as_array().unwrap().iter().map(row).collect()
}

fn keys(records: &[XtcpFlatRecord]) -> Vec<Row> {
    records
        .iter()
        .map(|record| (record.timestamp_ns, record.record_counter, record.inet_diag_msg_socket_cookie))
        .collect()
}

fn batch(format: &str, first: u32, count: u32) -> (Vec<Row>, Payload) {
    let records: Vec<XtcpFlatRecord> = (first..first + count).map(full_record).collect();
    (keys(&records), payload(format, &records, &format!("a-{first}-0")))
}

fn sha256(payload: &Payload) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, &payload.bytes).unwrap();
    let argv = ["sha256sum".into(), file.path().as_os_str().to_owned()];
    let mut sum = Process::start("sha256sum", &argv);
    assert!(sum.wait(LIMIT).is_some());
    sum.stdout.text().split_whitespace().next().unwrap().to_owned()
}

/// Addresses of all kinds of sockets, and where a receiver of each listens.
fn sockets(dir: &TempDir) -> [(&'static str, String); 4] {
    let path = |name: &str| dir.path().join(name).display().to_string();
    [
        ("tcp", format!("127.0.0.1:{}", free_port())),
        ("unix", path("stream")),
        ("udp", format!("[::1]:{}", free_port())),
        ("unixgram", path("datagrams")),
    ]
}

#[test]
fn every_byte_of_every_batch_arrives_and_a_receiver_that_was_killed_costs_nothing() {
    let _alone = alone();
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    for (kind, address) in sockets(&dir) {
        let mut sender = open(&format!("{kind}:{address}"), "protobufList");
        let send =
            |sender: &mut Box<dyn Destination>, payload: &Payload| runtime.block_on(sender.send(payload));
        let error = send(&mut sender, &batch("protobufList", 1, 3).1).expect_err("nobody listens");
        assert!(matches!(error, SendError::Retry(_)), "{kind}: {error:?}");
        for life in 0..2 {
            let receiver = Receiver::start(kind, &address, "protobufList");
            let batches = [batch("protobufList", 1 + life, 3), batch("protobufList", 10 + life, 20)];
            for (_, payload) in &batches {
                // What a dead receiver left behind is noticed by now: nothing of these is lost.
                if let Err(error) = send(&mut sender, payload) {
                    assert!(matches!(error, SendError::Retry(_)), "{kind}: {error:?}");
                    send(&mut sender, payload).unwrap();
                }
            }
            let got = receiver.wait_for_batches(2);
            assert_eq!(got.len(), 2, "{kind}");
            for ((rows, payload), (size, digest, found)) in batches.iter().zip(&got) {
                assert_eq!((*size, digest), (payload.bytes.len() as u64, &sha256(payload)), "{kind}");
                assert_eq!(found, rows, "{kind}");
            }
            drop(receiver);
        }
    }
}

#[test]
fn the_agents_rows_arrive_once_each_over_every_kind_of_socket() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let netns = Netns::named("streams");
    let pairs: Vec<_> =
        (0..scale(200, 2000)).map(|_| netns.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST))).collect();
    let sockets = sockets(&dir);
    let most = [("udp", 1432), ("unixgram", 65_536)];
    let receivers: Vec<Receiver> =
        sockets.iter().map(|(kind, address)| Receiver::start(kind, address, "protobufList")).collect();
    let mut arguments = Vec::new();
    for (kind, address) in &sockets {
        let most = most.iter().find(|(of, _)| of == kind).map(|(_, most)| format!("#max-datagram={most}"));
        arguments.extend(["--dest".to_owned(), format!("{kind}:{address}{}", most.unwrap_or_default())]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut agent = agent().without_rows().args(&["--marshal", "protobufList"]).args(&arguments).start();
    let made = || agent.metrics().sum("xtcp_rows_total", &[]);
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 rows")]
    let enough = 2.0 * pairs.len() as f64;
    wait_for("a row of each socket", LIMIT, || (made() >= enough).then_some(()));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of rows")]
    let made = made() as usize;
    let (status, _) = agent.terminate(LIMIT);
    assert!(status.success(), "{status:?}: {}", agent.process.stderr.text());
    for ((kind, _), receiver) in sockets.iter().zip(&receivers) {
        let got = wait_for("all rows", LIMIT, || {
            let batches = receiver.batches();
            (batches.iter().map(|(_, _, rows)| rows.len()).sum::<usize>() >= made).then_some(batches)
        });
        let largest = got.iter().map(|(size, _, _)| *size).max().unwrap();
        let most = most.iter().find(|(of, _)| of == kind).map_or(u64::MAX, |(_, most)| *most);
        assert!(largest <= most, "{kind}: a datagram has {largest} bytes");
        let mut times: BTreeMap<Row, usize> = BTreeMap::new();
        got.iter().flat_map(|(_, _, rows)| rows).for_each(|row| *times.entry(*row).or_default() += 1);
        assert!(times.values().all(|times| *times == 1), "{kind}: a row came twice");
        for pair in &pairs {
            for cookie in [traffic::cookie(&pair.client), traffic::cookie(&pair.server)] {
                assert!(times.keys().any(|row| row.2 == cookie), "{kind}: socket {cookie} is missing");
            }
        }
    }
}

/// A small filesystem in memory; unmounted with its handle.
struct Disk(TempDir);

impl Disk {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        mount(Some("store-test"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .unwrap();
        Self(dir)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).expect("the test's own mount");
    }
}

/// Rows of the files of a folder, oldest file first, by an independent reader of lines; fails on half a line.
fn rows_of_files(folder: &Path) -> Vec<Row> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|name| name.file_name().unwrap().to_string_lossy().starts_with("rows"));
    // The one without a time is the youngest.
    names.sort_by_key(|name| {
        (name.extension().is_none_or(|end| !end.to_string_lossy().ends_with('Z')), name.clone())
    });
    let number = |row: &Value, name: &str| row[name].as_str().unwrap_or("0").parse::<u64>().unwrap();
    let read = |name: &Path| -> Vec<Row> {
        let text = fs::read_to_string(name).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{} ends within a row", name.display());
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|row| {
                let time = number(&row, "timestampNs").cast_signed();
                (time, number(&row, "recordCounter"), number(&row, "inetDiagMsgSocketCookie"))
            })
            .collect()
    };
    names.iter().flat_map(|name| read(name)).collect()
}

#[test]
fn a_full_disk_is_waited_for_and_leaves_no_half_batch() {
    let _alone = alone();
    let (disk, runtime) = (Disk::new("1m"), runtime());
    let filler = disk.0.path().join("filler");
    fs::write(&filler, vec![0; 600 << 10]).unwrap();
    let address = format!("file:{}/rows#rotate-bytes=100KiB&fsync=batch", disk.0.path().display());
    let mut file = open(&address, "jsonl");
    let mut sent = Vec::new();
    let mut refusals = 0;
    for number in 0..40 {
        let (rows, payload) = batch("jsonl", number * 3, 3);
        while let Err(error) = runtime.block_on(file.send(&payload)) {
            assert!(matches!(error, SendError::Retry(_)), "{error:?}");
            let said = error.to_string();
            assert!(
                said.contains("no space left on device (ENOSPC): free space on its filesystem"),
                "{said}"
            );
            assert!(rows_of_files(disk.0.path()) == sent, "half a batch is in a file");
            refusals += 1;
            if refusals == 2 {
                fs::remove_file(&filler).unwrap();
            }
            assert!(refusals <= 2, "there is room again");
        }
        sent.extend(rows);
    }
    assert_eq!(refusals, 2, "the disk was never full");
    assert!(rows_of_files(disk.0.path()) == sent, "the files hold other rows than were sent");
}

#[test]
fn the_agents_rows_are_in_files_once_each_also_when_the_file_is_moved_away() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    let address = format!("file:{}#rotate-bytes=64KiB", path.display());
    let mut agent =
        agent().without_rows().frequency("300ms").args(&["--marshal", "jsonl", "--dest", &address]).start();
    let files = || fs::read_dir(dir.path()).unwrap().count();
    let netns = Netns::named("files");
    let pairs: Vec<_> = (0..100).map(|_| netns.run_in(|| traffic::pair(Ipv4Addr::LOCALHOST))).collect();
    wait_for("three files", LIMIT, || (files() >= 3 && path.exists()).then_some(()));
    // As logrotate does.
    wait_for("the file to be moved", LIMIT, || fs::rename(&path, dir.path().join("rows.moved")).ok());
    wait_for("the file to be made anew", LIMIT, || path.exists().then_some(()));
    let (status, _) = agent.terminate(LIMIT);
    assert!(status.success(), "{status:?}: {}", agent.process.stderr.text());
    let mut times: BTreeMap<Row, usize> = BTreeMap::new();
    for row in rows_of_files(dir.path()) {
        *times.entry(row).or_default() += 1;
    }
    assert!(times.values().all(|times| *times == 1), "a row is there twice");
    for pair in &pairs {
        for cookie in [traffic::cookie(&pair.client), traffic::cookie(&pair.server)] {
            assert!(times.keys().any(|row| row.2 == cookie), "socket {cookie} is missing");
        }
    }
}
