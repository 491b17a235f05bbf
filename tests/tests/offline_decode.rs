//! Promise: a capture made where the sockets are is decoded anywhere, by anybody, to what `dump` and `ss` show there; and
//! a file that is no capture is refused with the reason, the place, and status 2.
//!
//! Why the comparison is sound: the namespaces' sockets are made before and nothing in them moves until the last look.
//! Clocks (the timer that runs, the time since the last segment) go on and are left out.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use tempfile::TempDir;
use xtcp_agent::pcap::{Direction, NETLINK_SOCK_DIAG, Packet, Writer};
use xtcp_inet_diag::framing::{Body, Messages};
use xtcp_inet_diag::request::{Dump, DumpBoth, Extensions, Protocol};
use xtcp_inet_diag::socket_id::Family;
use xtcp_inet_diag::state::States;
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_tests::agent::binary;
use xtcp_tests::host::wait_for;
use xtcp_tests::netns::Netns;
use xtcp_tests::row::Row;
use xtcp_tests::{ss, traffic};

const STATES: [&str; 2] = ["--states", "all"];

/// Sockets that stay as they are while this is held.
struct Population(Vec<TcpListener>, Vec<TcpStream>);

fn population() -> Population {
    let mut held = Population(Vec::new(), Vec::new());
    for ip in [std::net::IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let listener = traffic::listen((ip, 0).into());
        for _ in 0..40 {
            let client = traffic::connect(listener.local_addr().unwrap());
            let server = traffic::accept(&listener);
            (&client).write_all(b"some bytes that nobody reads").unwrap();
            held.1.extend([client, server]);
        }
        held.1[0].shutdown(std::net::Shutdown::Write).unwrap();
        held.0.push(listener);
    }
    held
}

/// A folder that everybody may read, with the agent's binary in it.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        std::fs::copy(binary(), dir.path().join("agent")).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// As root, without the host's settings.
    fn root(&self, args: &[&str]) -> Output {
        let mut command = Command::new(self.path("agent"));
        run(command.args(["--config", "/dev/null"]).args(args))
    }

    /// As nobody, without any capability.
    fn nobody(&self, args: &[&str]) -> Output {
        let mut command = Command::new("setpriv");
        let identity = ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];
        run(command.args(identity).arg(self.path("agent")).args(args))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn run(command: &mut Command) -> Output {
    // The tests' own variables are none of the agent's.
    let variables = std::env::vars_os().map(|(name, _)| name);
    for name in variables.filter(|name| name.to_string_lossy().starts_with("XTCP_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).output().unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn records(output: &Output) -> Vec<XtcpFlatRecord> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a record says of its socket, without what a capture cannot know and without clocks.
fn of_socket(record: &XtcpFlatRecord) -> XtcpFlatRecord {
    XtcpFlatRecord {
        timestamp_ns: 0,
        hostname: String::new(),
        netns: String::new(),
        netns_cookie: 0,
        boot_id: String::new(),
        agent_instance: String::new(),
        record_counter: 0,
        socket_fd: 0,
        netlinker_id: 0,
        poll_number: 0,
        dump_number: 0,
        container_id: String::new(),
        container_runtime: String::new(),
        container_name: String::new(),
        container_image: String::new(),
        pod_name: String::new(),
        pod_namespace: String::new(),
        pod_uid: String::new(),
        pod_labels: Vec::new(),
        systemd_unit: String::new(),
        cgroup_path: String::new(),
        workload_source: 0,
        inet_diag_msg_expires: 0,
        tcp_info_last_data_sent: 0,
        tcp_info_last_data_recv: 0,
        tcp_info_last_ack_recv: 0,
        // They run while data waits.
        tcp_info_busy_time: 0,
        tcp_info_rwnd_limited: 0,
        tcp_info_sndbuf_limited: 0,
        ..record.clone()
    }
}

fn by_cookie(records: &[XtcpFlatRecord]) -> BTreeMap<u64, XtcpFlatRecord> {
    records.iter().map(|record| (record.inet_diag_msg_socket_cookie, of_socket(record))).collect()
}

#[test]
fn what_root_captures_nobody_decodes_to_what_dump_and_ss_show() {
    let bench = Bench::new();
    let netns = [Netns::named("cap"), Netns::anonymous("cap")];
    let _held: Vec<Population> = netns.iter().map(|netns| netns.run_in(population)).collect();
    let inodes = netns.each_ref().map(|netns| netns.inode.to_string());
    let which = ["--netns", inodes[0].as_str(), "--netns", inodes[1].as_str()];
    let file = bench.path("live.pcap");

    let dump = || {
        let dumped = bench.root(&[&["dump"], &which[..], &STATES].concat());
        assert_eq!((status(&dumped), stderr(&dumped).as_str()), (0, ""));
        records(&dumped)
    };
    // Where two dumps agree, what was captured in between is what they say. Until then acknowledgements are under way.
    let mut dumped = dump();
    wait_for("sockets to settle", Duration::from_secs(60), || {
        let captured = bench.root(&[&["capture", "-o", &file], &which[..], &STATES].concat());
        assert_eq!(status(&captured), 0, "{}", stderr(&captured));
        let before = std::mem::replace(&mut dumped, dump());
        (by_cookie(&before) == by_cookie(&dumped)).then_some(())
    });
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let decoded = bench.nobody(&["decode", &file]);
    assert_eq!(status(&decoded), 0, "{}", stderr(&decoded));

    let decoded = records(&decoded);
    println!("{} rows", decoded.len());
    assert!(decoded.len() > 300);
    assert_eq!(by_cookie(&decoded), by_cookie(&dumped));
    for (netns, number) in netns.iter().zip(1_u64..) {
        let own: Vec<_> =
            decoded.iter().filter(|record| record.netns_inode == netns.inode).cloned().collect();
        let numbers: BTreeSet<u64> = own.iter().map(|record| record.dump_number).collect();
        assert_eq!(numbers.len(), 1, "one dump a namespace, {number}");
        let rows = own.into_iter().map(|record| Row { arrived_ns: 0, record }.as_ss());
        assert_eq!(ss::difference(&ss::bag(rows), &ss::tan(Some(netns))), "");
    }
    assert!(dumped.iter().all(|record| record.dump_number == 0), "live rows have no number");
}

/// Asks the kernel, and gives what went by: the request, then each datagram.
fn exchange(request: &[u8]) -> Vec<Vec<u8>> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)
            .unwrap();
    send(socket.as_raw_fd(), request, MsgFlags::empty()).unwrap();
    let mut datagrams = vec![request.to_vec()];
    loop {
        let mut buffer = vec![0; 32 << 10];
        let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        buffer.truncate(len);
        datagrams.push(buffer.clone());
        if Messages::new(&buffer).any(|message| !matches!(message.unwrap().body, Body::Data { .. })) {
            return datagrams;
        }
    }
}

/// Dumps of both families by two protocols' requests, of both at once, and of Unix sockets: on real sockets.
fn conversations() -> Vec<Vec<Vec<u8>>> {
    let (states, extensions) = (States::ALL, Extensions::ALL);
    let dump = |family, protocol, seq| exchange(&Dump { family, protocol, states, extensions }.to_bytes(seq));
    let mut unix = vec![0; 40];
    let header =
        [&40_u32.to_ne_bytes()[..], &20_u16.to_ne_bytes(), &0x301_u16.to_ne_bytes(), &3_u32.to_ne_bytes()];
    unix[..12].copy_from_slice(&header.concat());
    // sdiag_family AF_UNIX; udiag_states all.
    unix[16] = 1;
    unix[20..24].fill(0xff);
    vec![
        dump(Family::Inet, Protocol::TCP, 1),
        exchange(&unix),
        dump(Family::Inet6, Protocol::TCP, 2),
        exchange(&DumpBoth { states, extensions }.to_bytes(4)),
        dump(Family::Inet, Protocol::UDP, 5),
    ]
}

/// All of them in one file, a datagram of each in turn.
fn interleaved(conversations: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    let longest = conversations.iter().map(Vec::len).max().unwrap_or(0);
    let mut at = 1_700_000_000_000_000_000_i64;
    for step in 0..longest {
        for conversation in conversations {
            let Some(datagram) = conversation.get(step) else { continue };
            at += 1_000;
            let direction = if step == 0 { Direction::Request } else { Direction::Answer };
            let (netns_inode, protocol) = (0, NETLINK_SOCK_DIAG);
            writer.packet(&Packet { timestamp_ns: at, direction, netns_inode, protocol, datagram }).unwrap();
            // rtnetlink beside it, where type 20 is an address (RTM_NEWADDR).
            let (protocol, datagram) = (0, datagram.as_slice());
            writer.packet(&Packet { timestamp_ns: at, direction, netns_inode, protocol, datagram }).unwrap();
        }
    }
    writer.into_inner()
}

#[test]
fn dumps_that_interleave_in_one_file_are_told_apart() {
    let bench = Bench::new();
    let netns = Netns::named("mix");
    let held = netns.run_in(population);
    let (conversations, _udp) = netns.run_in(|| {
        let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        (conversations(), udp)
    });
    assert!(conversations[0].len() > 2, "a dump of several datagrams");
    let file = bench.write("mix.pcap", &interleaved(&conversations));
    let all = bench.nobody(&["decode", &file]);
    assert_eq!(status(&all), 0, "{}", stderr(&all));
    assert!(stderr(&all).contains("dumps 4, rows"), "{}", stderr(&all));
    assert!(stderr(&all).contains("dumps without an end 0"), "{}", stderr(&all));
    let all = records(&all);
    let families = |dump: u64| {
        let rows = all.iter().filter(|record| record.dump_number == dump);
        rows.fold(BTreeMap::<u32, usize>::new(), |mut count, record| {
            *count.entry(record.inet_diag_msg_family).or_default() += 1;
            count
        })
    };
    // Each listener and both ends of 40 connections.
    assert_eq!(families(1), BTreeMap::from([(2, 81)]));
    assert_eq!(families(2), BTreeMap::from([(10, 81)]));
    assert_eq!(families(3), BTreeMap::from([(2, 81), (10, 81)]));
    assert_eq!(families(4), BTreeMap::from([(2, 1)]));
    // The time of a row is that of its dump's request.
    let at = |dump: u64| all.iter().find(|record| record.dump_number == dump).unwrap().timestamp_ns;
    assert_eq!([1, 2, 3, 4].map(|dump| at(dump) - 1_700_000_000_000_000_000), [1_000, 3_000, 4_000, 5_000]);
    for dump in 1..=4_u64 {
        let one = bench.nobody(&["decode", "--dump", &dump.to_string(), &file]);
        let expected: Vec<_> =
            all.iter().filter(|record| record.dump_number == dump).map(of_socket).collect();
        assert_eq!((status(&one), records(&one).iter().map(of_socket).collect::<Vec<_>>()), (0, expected));
    }
    let none = bench.nobody(&["decode", "--dump", "5", &file]);
    assert_eq!((status(&none), none.stdout.len()), (2, 0));
    assert!(stderr(&none).contains("has no dump 5: it has 4"), "{}", stderr(&none));
    drop(held);
}

#[test]
fn raw_datagrams_and_standard_input_are_read_too() {
    let bench = Bench::new();
    let netns = Netns::named("raw");
    let _held = netns.run_in(population);
    let request = Dump {
        family: Family::Inet,
        protocol: Protocol::TCP,
        states: States::ALL,
        extensions: Extensions::ALL,
    };
    let datagrams = netns.run_in(|| exchange(&request.to_bytes(9)));
    for (datagrams, what) in [(&datagrams[..], "with its request"), (&datagrams[1..], "without its request")]
    {
        let file = bench.write("raw.bin", &datagrams.concat());
        let from_file = bench.nobody(&["decode", &file]);
        assert_eq!(status(&from_file), 0, "{what}: {}", stderr(&from_file));
        let rows = records(&from_file);
        assert_eq!(rows.len(), 81, "{what}");
        assert!(rows.iter().all(|record| (record.dump_number, record.timestamp_ns) == (1, 0)), "{what}");
        let mut piped = Command::new(bench.path("agent"));
        let piped = piped.args(["decode", "-"]).stdin(File::open(&file).unwrap()).output().unwrap();
        assert_eq!((status(&piped), piped.stdout), (0, from_file.stdout), "{what}");
    }
}

#[test]
fn what_is_malformed_is_told_by_number_and_in_the_status() {
    let bench = Bench::new();
    let netns = Netns::named("bad");
    let _held = netns.run_in(population);
    let request = Dump {
        family: Family::Inet,
        protocol: Protocol::TCP,
        states: States::ALL,
        extensions: Extensions::ALL,
    };
    let mut datagrams = netns.run_in(|| exchange(&request.to_bytes(9)));
    // The first row's first attribute gets a number that nobody knows, the second row's a length that cannot be.
    let second = u32::from_ne_bytes(datagrams[1][..4].try_into().unwrap()) as usize;
    datagrams[1][16 + 72 + 2..][..2].copy_from_slice(&200_u16.to_ne_bytes());
    datagrams[1][second + 16 + 72..][..2].copy_from_slice(&3_u16.to_ne_bytes());
    let file = bench.write("bad.pcap", &interleaved(&[datagrams.clone()]));
    let output = bench.nobody(&["decode", &file]);
    let text = stderr(&output);
    assert_eq!((status(&output), records(&output).len()), (1, 81), "{text}");
    assert!(
        text.contains("attribute lengths 1") && text.contains("unknown attributes 1 (number 200: 1)"),
        "{text}"
    );
    // A message that claims more than its datagram has costs that datagram only.
    let last = datagrams.len() - 2;
    datagrams[last][..4].copy_from_slice(&0x00ff_ffff_u32.to_ne_bytes());
    let file = bench.write("worse.pcap", &interleaved(&[datagrams]));
    let output = bench.nobody(&["decode", &file]);
    let text = stderr(&output);
    assert_eq!(status(&output), 1, "{text}");
    assert!(text.contains("malformed: datagrams 1,") && !records(&output).is_empty(), "{text}");
}

#[test]
fn what_is_no_capture_is_refused_with_reason_place_and_status_2() {
    let bench = Bench::new();
    let whole = interleaved(&[vec![
        DumpBoth { states: States::ALL, extensions: Extensions::ALL }.to_bytes(1).to_vec(),
    ]]);
    let changed = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let cases = [
        ("empty", vec![], "is empty"),
        ("text", b"not a capture, but a line of text\n".to_vec(), "is no capture: byte 0"),
        (
            "cut",
            whole[..100].to_vec(),
            "is cut off at byte 100: the packet at byte 24 has 108 bytes, 76 are there",
        ),
        ("ethernet", changed(20, &[1, 0, 0, 0]), "has link type ETHERNET (1) (byte 20)"),
        ("big-endian", changed(0, &[0xa1, 0xb2, 0x3c, 0x4d]), "is of a big-endian host (byte 0)"),
        ("huge", changed(32, &[0xff; 4]), "is damaged at byte 24: a packet of 4294967295 bytes"),
    ];
    for (name, bytes, expected) in cases {
        let file = bench.write(name, &bytes);
        let output = bench.nobody(&["decode", &file]);
        assert_eq!(status(&output), 2, "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains(&format!("{file} {expected}")), "{name}: {}", stderr(&output));
    }
    let output = bench.nobody(&["decode", "/nonexistent"]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("/nonexistent cannot be opened"), "{}", stderr(&output));
}

/// Runs `decode` with less address space than the file is large; its output, and how long it took.
fn bounded(bench: &Bench, file: &str, megabytes: u32) -> (Output, f64) {
    let began = Instant::now();
    let mut command = Command::new("sh");
    let script = format!("ulimit -v {}; exec \"$0\" decode --marshal protobufList \"$1\"", megabytes * 1024);
    command.args(["-c", &script, &bench.path("agent"), file]).stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.output().unwrap();
    (output, began.elapsed().as_secs_f64())
}

#[test]
fn large_files_take_little_memory() {
    let bench = Bench::new();
    for (name, header) in [("zeros", &b""[..]), ("pcap-of-zeros", &interleaved(&[])[..])] {
        let path = bench.write(name, header);
        File::options().write(true).open(&path).unwrap().set_len(4 << 30).unwrap();
        let (output, seconds) = bounded(&bench, &path, 256);
        println!("4 GiB of {name}: {seconds:.3} s");
        assert_eq!((status(&output), seconds < 10.0), (2, true), "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains("byte"), "{name}: {}", stderr(&output));
    }
    // A capture that is twice as large as what the program may have.
    let netns = Netns::named("big");
    let _held = netns.run_in(population);
    let request = Dump {
        family: Family::Inet,
        protocol: Protocol::TCP,
        states: States::ALL,
        extensions: Extensions::ALL,
    };
    let datagrams = netns.run_in(|| exchange(&request.to_bytes(9)));
    let path = bench.path("large.pcap");
    let (dumps, bytes) = write_many(Path::new(&path), &datagrams, 600 << 20);
    let (output, seconds) = bounded(&bench, &path, 256);
    println!("{bytes} bytes, {dumps} dumps: {seconds:.1} s");
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("dumps {dumps}, rows {}", dumps * 81)), "{}", stderr(&output));
}

/// The same dump again and again; how often, and how many bytes.
fn write_many(path: &Path, datagrams: &[Vec<u8>], least: usize) -> (usize, usize) {
    let mut writer = Writer::new(BufWriter::new(File::create(path).unwrap())).unwrap();
    let (mut dumps, mut bytes) = (0, 0);
    while bytes < least {
        for (number, datagram) in datagrams.iter().enumerate() {
            let direction = if number == 0 { Direction::Request } else { Direction::Answer };
            let (timestamp_ns, netns_inode, protocol) = (1, 0, NETLINK_SOCK_DIAG);
            writer.packet(&Packet { timestamp_ns, direction, netns_inode, protocol, datagram }).unwrap();
            bytes += datagram.len() + 32;
        }
        dumps += 1;
    }
    writer.flush().unwrap();
    (dumps, bytes)
}
