//! Promise: `dump` prints what `ss` shows, filtered by the same words, and its status says whether anything was missed;
//! `capture` never writes a TCP MD5 key.
//!
//! Why the comparison is sound: the namespace's sockets are made before and nothing in them moves until the last look.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking and prints what it measured"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use xtcp_tests::agent::binary;
use xtcp_tests::netns::Netns;
use xtcp_tests::traffic;

fn run(command: &mut Command) -> Output {
    // The tests' own variables are none of the agent's.
    let variables = std::env::vars_os().map(|(name, _)| name);
    for name in variables.filter(|name| name.to_string_lossy().starts_with("XTCP_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).output().unwrap()
}

fn agent(args: &[&str]) -> (i32, String, String) {
    let output = run(Command::new(binary()).args(["--config", "/dev/null"]).args(args));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn population() -> (Vec<TcpListener>, Vec<TcpStream>) {
    let listeners: Vec<_> = (0..3).map(|_| traffic::listen((Ipv4Addr::LOCALHOST, 0).into())).collect();
    let mut streams = Vec::new();
    for listener in &listeners {
        let client = traffic::connect(listener.local_addr().unwrap());
        (&client).write_all(&[7; 1_000]).unwrap();
        streams.extend([client, traffic::accept(listener)]);
    }
    (listeners, streams)
}

/// Queues and both ends, and the state in front of them unless there is but one, which `ss` does not repeat.
fn columns(text: &str, before: usize, state: bool) -> BTreeSet<Vec<String>> {
    let taken = if state { 5 } else { 4 };
    let line = |line: &str| line.split_whitespace().skip(before).take(taken).map(str::to_owned).collect();
    text.lines().map(line).collect()
}

#[test]
fn a_table_has_the_rows_that_ss_has_whatever_the_filter() {
    let netns = Netns::named("table");
    let (listeners, _streams) = netns.run_in(population);
    let port = listeners[0].local_addr().unwrap().port();
    let inode = netns.inode.to_string();
    let filters = [
        vec![],
        vec!["sport".to_owned(), "=".to_owned(), format!(":{port}")],
        vec!["state".to_owned(), "established".to_owned(), format!("dport = :{port} or sport = :{port}")],
        vec!["dst".to_owned(), "10.0.0.0/8".to_owned()],
    ];
    for filter in filters {
        let words: Vec<&str> = filter.iter().map(String::as_str).collect();
        let (status, table, missed) =
            agent(&[&["dump", "--netns", &inode, "--format", "table"], &words[..]].concat());
        assert_eq!((status, missed.as_str()), (0, ""), "{words:?}");
        let (header, rows) = table.split_once('\n').unwrap();
        assert_eq!(header.split_whitespace().next(), Some("Netns"));
        let ss = netns.exec(&[&["ss", "-tanH"], &words[..]].concat());
        let state = words.first() != Some(&"state");
        assert_eq!(columns(rows, if state { 1 } else { 2 }, state), columns(&ss, 0, state), "{words:?}");
    }
}

#[test]
fn a_wide_table_has_the_words_of_ss() {
    let netns = Netns::named("wide");
    let _held = netns.run_in(population);
    let words = |line: &str| -> BTreeSet<String> {
        // Clocks go on; a cgroup is a path there and a number here; the rest depends on the version of ss.
        let left_out = ["lastsnd:", "lastrcv:", "lastack:", "cgroup:", "timer:", "ino:0", "<->", "bbr:("];
        let words = line.split_whitespace().filter(|word| !left_out.iter().any(|out| word.starts_with(out)));
        words.map(str::to_owned).collect()
    };
    // The kernel gives memory back whenever it likes: ss and the dump have to fall between two such moments.
    let mut different = String::new();
    for _ in 0..20 {
        let (status, table, missed) =
            agent(&["dump", "--netns", &netns.inode.to_string(), "--wide", "--format", "table"]);
        assert_eq!((status, missed.as_str()), (0, ""));
        different.clear();
        for line in netns.exec(&["ss", "-tienmoOaH"]).lines() {
            let cookie = line.split_whitespace().find(|word| word.starts_with("sk:")).unwrap();
            let row = table.lines().find(|row| row.split_whitespace().any(|word| word == cookie));
            let row = row.unwrap_or_else(|| panic!("{cookie} is not in the table:\n{table}"));
            let missing: Vec<_> = words(line).difference(&words(row)).cloned().collect();
            if !missing.is_empty() {
                writeln!(different, "{missing:?} of ss are not in\n{row}\nss: {line}").unwrap();
            }
        }
        if different.is_empty() {
            return;
        }
    }
    panic!("{different}");
}

#[test]
fn the_status_says_what_was_missed() {
    let netns = Netns::named("missed");
    let name = netns.name.clone().unwrap();
    let inode = netns.inode.to_string();
    let (status, _, missed) = agent(&["dump", "--netns", &inode, "--netns", "no-such-namespace"]);
    assert_eq!(status, 1, "{missed}");
    assert_eq!(missed, "missed: no-such-namespace: no network namespace is called so\n");
    let (status, rows, missed) = agent(&["dump", "--netns", "no-such-namespace"]);
    assert_eq!((status, rows.as_str()), (2, ""), "{missed}");
    let (status, _, error) = agent(&["dump", "--netns", "/etc/passwd"]);
    assert_eq!((status, error.as_str()), (2, "error: --netns /etc/passwd: is no namespace\n"));
    // Without privilege the own namespace is seen, and the others are named as missed.
    let dir = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), mode).unwrap();
    let copy = dir.path().join("agent");
    std::fs::copy(binary(), &copy).unwrap();
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]).arg(copy);
    let output = run(nobody.args(["dump", "--netns", "default", "--netns", &name]));
    let missed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{missed}");
    assert!(missed.contains(&format!("missed: {name} (inode {inode}): may not enter")), "{missed}");
}

sockopt_impl!(
    /// `struct tcp_md5sig`.
    Md5Sig, SetOnly, libc::IPPROTO_TCP, libc::TCP_MD5SIG, [u8; 216]
);

/// A `struct tcp_md5sig`: address (128 bytes), flags, prefix, length of the key, interface, key.
fn md5_key(peer: Ipv4Addr, key: &[u8]) -> [u8; 216] {
    let mut option = [0; 216];
    option[..2].copy_from_slice(&u16::try_from(libc::AF_INET).unwrap().to_ne_bytes());
    option[4..8].copy_from_slice(&peer.octets());
    option[130..132].copy_from_slice(&u16::try_from(key.len()).unwrap().to_ne_bytes());
    option[136..136 + key.len()].copy_from_slice(key);
    option
}

#[test]
fn a_capture_holds_no_md5_key_and_says_that_there_was_one() {
    const KEY: &[u8; 24] = b"not-for-any-bug-report!!";
    let netns = Netns::named("md5");
    let listener = netns.run_in(|| {
        let listener = traffic::listen((Ipv4Addr::LOCALHOST, 0).into());
        setsockopt(&listener, Md5Sig, &md5_key(Ipv4Addr::new(127, 0, 0, 9), KEY)).unwrap();
        listener
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("md5.pcap");
    let file = file.to_str().unwrap();
    let (status, _, told) = agent(&["capture", "-o", file, "--netns", &netns.inode.to_string()]);
    assert_eq!(status, 0, "{told}");
    assert!(told.contains("; 1 TCP MD5 keys blanked"), "{told}");
    let bytes = std::fs::read(file).unwrap();
    assert!(!bytes.windows(KEY.len()).any(|window| window == KEY));
    let (status, rows, told) = agent(&["decode", file]);
    assert_eq!((status, rows.lines().count()), (0, 1), "{told}");
    drop(listener);
}
