//! Promise: what a socket has beside plain TCP (MPTCP, MD5 keys, a mark, options) is in its record, a key is in none, and
//! `--deserializers` selects what a record has.
//!
//! Sound because each socket was made here, in a namespace of its own, and rests while it is looked at.
#![allow(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Output};

use nix::sys::socket::{setsockopt, sockopt};
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Socket, Type};
use xtcp_proto::flat_record::v1::XtcpFlatRecord;
use xtcp_tests::agent::binary;
use xtcp_tests::netns::Netns;
use xtcp_tests::traffic::{accept, has_mptcp, listen, listen_as, mptcp_or_tcp};

sockopt_impl!(
    /// `struct tcp_md5sig`.
    Md5SigExt, SetOnly, libc::IPPROTO_TCP, libc::TCP_MD5SIG_EXT, [u8; 216]
);

const KEY: &[u8] = b"a key that nobody must see";

/// `struct tcp_md5sig` with `TCP_MD5SIG_FLAG_PREFIX`.
fn md5_key(peer: Ipv4Addr, prefix_len: u8) -> [u8; 216] {
    let mut bytes = [0; 216];
    bytes[..2].copy_from_slice(&2_u16.to_ne_bytes());
    bytes[4..8].copy_from_slice(&peer.octets());
    bytes[128..130].copy_from_slice(&[1, prefix_len]);
    bytes[130..132].copy_from_slice(&u16::try_from(KEY.len()).unwrap().to_ne_bytes());
    bytes[136..136 + KEY.len()].copy_from_slice(KEY);
    bytes
}

/// `xtcp2-agent dump` of one namespace.
fn dump(netns: &Netns, args: &[&str]) -> Output {
    let name = netns.path().file_name().unwrap().to_str().unwrap();
    let settings = ["dump", "--config", "/dev/null", "--marshal", "jsonl", "--netns-include", name];
    run(Command::new(binary()).args(settings).args(args))
}

fn run(command: &mut Command) -> Output {
    // The tests' own variables are none of the agent's.
    let variables = std::env::vars_os().map(|(name, _)| name);
    for name in variables.filter(|name| name.to_string_lossy().starts_with("XTCP_")) {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn rows(netns: &Netns, args: &[&str]) -> Vec<XtcpFlatRecord> {
    let output = dump(netns, args);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("a key that"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of(rows: &[XtcpFlatRecord], local: SocketAddr) -> &XtcpFlatRecord {
    let port = u32::from(local.port());
    let found = rows.iter().find(|row| row.inet_diag_msg_socket_source_port == port);
    found.unwrap_or_else(|| panic!("no row of {local}: {rows:#?}"))
}

/// A connection with 1000 bytes from its client, over MPTCP where the kernel has it.
fn mptcp_pair() -> (TcpStream, TcpStream) {
    let protocol = mptcp_or_tcp();
    let listener = listen_as((Ipv4Addr::LOCALHOST, 0).into(), protocol, false);
    let client = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).unwrap();
    client.connect(&listener.local_addr().unwrap().into()).unwrap();
    let mut server = accept(&listener);
    let mut client = TcpStream::from(client);
    client.write_all(&[7; 1000]).unwrap();
    server.read_exact(&mut [0; 1000]).unwrap();
    (client, server)
}

#[test]
fn a_subflow_of_mptcp_is_told_with_its_state() {
    let netns = Netns::named("subflow");
    let (client, _server) = netns.run_in(mptcp_pair);
    if !has_mptcp() {
        return it_is_said_that_there_is_none(&netns, client.local_addr().unwrap());
    }
    let rows = rows(&netns, &[]);
    let row = of(&rows, client.local_addr().unwrap());
    assert_eq!((row.ulp_name.as_str(), row.tcp_info_bytes_sent), ("mptcp", 1000));
    assert_ne!(row.mptcp_subflow_token_loc, 0);
    // Bytes written, behind the SYN's place.
    assert_eq!(row.mptcp_subflow_relwrite_seq, 1001);
    // Begun by this end, both ends speak MPTCP, the handshake has ended.
    assert_eq!(row.mptcp_subflow_flags & (2 | 64 | 128), 2 | 64 | 128, "{}", row.mptcp_subflow_flags);
    // It is a TCP socket.
    assert_eq!((row.inet_diag_protocol, row.mptcp_info_token), (0, 0));
}

/// A kernel that was built without MPTCP has no subflows. Who asks for its sockets is told so, and gets those of TCP, which
/// have nothing of MPTCP.
fn it_is_said_that_there_is_none(netns: &Netns, local: SocketAddr) {
    let output = dump(netns, &["--protocols", "tcp,mptcp"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{error}");
    assert_eq!(error.matches("does not tell of MPTCP").count(), 1, "{error}");
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<XtcpFlatRecord> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = of(&rows, local);
    assert_eq!((row.ulp_name.as_str(), row.tcp_info_bytes_sent), ("", 1000));
    assert_eq!((row.mptcp_subflow_token_loc, row.mptcp_subflow_flags, row.mptcp_info_token), (0, 0, 0));
    assert!(rows.iter().all(|row| row.inet_diag_protocol == 0), "rows of another protocol: {text}");
}

#[test]
fn keys_are_counted_peers_told_when_asked_and_a_key_never() {
    let netns = Netns::named("md5");
    let listener = netns.run_in(|| {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into());
        setsockopt(&listener, Md5SigExt, &md5_key(Ipv4Addr::LOCALHOST, 32)).unwrap();
        setsockopt(&listener, Md5SigExt, &md5_key(Ipv4Addr::new(10, 0, 0, 0), 8)).unwrap();
        setsockopt(&listener, sockopt::Mark, &0x1234).unwrap();
        listener
    });
    let local = listener.local_addr().unwrap();
    let plain = rows(&netns, &[]);
    let row = of(&plain, local);
    assert_eq!((row.md5sig_keys, row.md5sig_peers.len(), row.mark), (2, 0, 0x1234));
    let with_peers = rows(&netns, &["--deserializers", "md5sig_peers"]);
    let row = of(&with_peers, local);
    let mut peers: Vec<&[u8]> = row.md5sig_peers.chunks(20).map(|peer| &peer[..8]).collect();
    peers.sort_unstable();
    assert_eq!(peers, [[2, 8, 0, 0, 10, 0, 0, 0], [2, 32, 0, 0, 127, 0, 0, 1]]);
    // INFO had to be asked for, and nothing but the keys was named.
    assert_eq!((row.tcp_info_state, row.mark, row.sock_opt, row.c_group), (0, 0, 0, 0));
}

#[test]
fn a_record_has_what_is_selected() {
    let netns = Netns::named("selected");
    let (client, _server) = netns.run_in(mptcp_pair);
    let ulp = if has_mptcp() { "mptcp" } else { "" };
    let local = client.local_addr().unwrap();
    let cong = rows(&netns, &["--deserializers", "cong"]);
    let row = of(&cong, local);
    assert!(!row.congestion_algorithm_string.is_empty());
    assert_eq!((row.tcp_info_state, row.sk_mem_info_rcv_buf, row.sock_opt), (0, 0, 0));
    assert_eq!((row.ulp_name.as_str(), row.c_group, row.mem_info_fmem), ("", 0, 0));

    let several = rows(&netns, &["--deserializers", "info,skmem", "--deserializers", "sockopt"]);
    let row = of(&several, local);
    assert!(row.tcp_info_state == 1 && row.sk_mem_info_rcv_buf > 0 && row.sock_opt != 0);
    assert_eq!((row.congestion_algorithm_string.as_str(), row.ulp_name.as_str()), ("", ""));

    // Whoever asks for BPF storages gets all sockets, those without one too.
    let all = rows(&netns, &["--deserializers", "all"]);
    let row = of(&all, local);
    assert!(row.tcp_info_state == 1 && row.ulp_name == ulp && row.sk_bpf_storages.is_empty());
}

#[test]
fn an_unknown_name_is_told_what_is_meant() {
    let output = run(Command::new(binary()).args(["dump", "--deserializers", "sk_mem_inof"]));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("did you mean sk_mem_info? known: mem_info, meminfo, tcp_info"), "{error}");
}
